//! A hundred thousand random schedules, and those that ever failed.
//!
//! A failure names its seed and the command that replays it. `CONCLAVE_SCHEDULES` plays more of
//! them, or fewer; then nothing is said about what did not occur.

use std::time::Instant;

use conclave_sim::runner::{play, play_all};

/// As many as the ordinary test run plays.
const SCHEDULES: u64 = 100_000;

#[test]
fn no_schedule_breaks_a_promise_and_everything_occurs() {
    let wanted = std::env::var("CONCLAVE_SCHEDULES").ok();
    let wanted: Option<u64> = wanted.map(|text| text.parse().expect("a number of schedules"));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let count = wanted.unwrap_or(SCHEDULES);
    let began = Instant::now();
    let coverage = play_all(0..count, threads).unwrap_or_else(|failures| {
        let one = &failures[0];
        panic!("{}\nreplay it with: {}", one.what, one.replay())
    });
    let speed = count as f64 / began.elapsed().as_secs_f64();
    println!("{coverage}\n{speed:.0} schedules a second");
    if wanted.is_none() {
        assert_eq!(coverage.missing(), Vec::<String>::new(), "these never occurred");
    }
}

/// Seeds that once failed, by what was wrong. A seed means the same schedule only as long as
/// nothing in the simulator draws another number: whoever changes that undoes each mend for a
/// moment, and enters the seed that fails then.
const ONCE_FAILED: &[(u64, &str)] = &[
    (1_078, "a target that was cordoned after it had accepted was handed the term"),
    (286, "the judge took a session that a restored store named like an earlier one for that one"),
    (16_608, "the judge took a late answer about an earlier session for one about the present"),
    (
        34_377,
        "a restored store gave a revision again, and a living session was timed as a silent one",
    ),
    (119_768, "the judge forgot a reading of all keys when a later answer overtook it"),
    (
        17_459,
        "the judge did not know how long a daemon without guard waits until it tries its disk again",
    ),
    (
        357_648,
        "a late ending, sent to a restored store by an earlier life, ended another session there",
    ),
    (488_241, "the judge held a session for lapsed that was created late and not yet used"),
    (
        2_196_923,
        "a node that had become unfit took a vacant election, its batch having been rejected",
    ),
    (3_160_225, "a cordoned node took over, its batch having been rejected"),
    (3_308_928, "a node that had become unfit took over, its batch having been rejected"),
];

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, what) in ONCE_FAILED {
        if let Err(failure) = play(*seed, false) {
            panic!("{what}, again: {}\nreplay it with: {}", failure.what, failure.replay());
        }
    }
}

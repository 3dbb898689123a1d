//! The guard as a process, over a stand-in daemon that is killed, frozen, hung, stubborn or good.
//!
//! Both are this very program again, told by its first argument which to be. That is why it
//! brings its own `main`.

mod pair;
mod stand_in;
mod upgrade;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use conclave_guard::Reading;
use libtest_mimic::{Arguments, Trial};
use pair::Pair;
use rustix::process::Signal;
use stand_in::{CONTENT, FINAL_CODE, LEADER, STANDBY};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("guard") => return stand_in::guard(arguments),
        Some("daemon") => return stand_in::daemon(arguments),
        Some("question") => return stand_in::question(arguments),
        _ => {}
    }
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        trial("a_killed_daemon_is_replaced_and_its_files_stay", killed_daemon),
        trial("a_frozen_daemon_is_withdrawn_before_the_expiry_and_replaced", frozen_daemon),
        trial("a_deadline_that_passes_while_no_daemon_runs_is_kept", dead_at_the_deadline),
        trial("a_daemon_that_withdraws_in_time_lives_on", punctual_daemon),
        trial("a_daemon_that_sleeps_through_the_deadline_is_killed", sleeping_daemon),
        trial("a_hung_daemon_without_a_session_is_replaced", hung_daemon),
        trial("a_final_exit_code_ends_the_guard", final_code),
        trial("a_daemon_that_keeps_failing_is_restarted_more_and_more_rarely", crash_loop),
        trial("a_daemon_that_cannot_be_started_is_an_error", missing_program),
        trial("asked_to_stop_the_guard_ends_with_its_daemon", graceful_stop),
        trial("asked_to_stop_between_two_daemons_it_starts_one_to_resign", stop_between_daemons),
        trial("asked_to_stop_before_it_is_ready_it_stops", stop_before_ready),
        trial("asked_to_stop_it_does_not_ask_another_guards_daemon_twice", stop_while_taking_over),
        trial("asked_twice_the_guard_withdraws_and_kills", abort),
        trial("a_second_pair_is_refused_with_who_is_there", second_pair),
        trial("a_daemon_notices_that_its_guard_is_gone", guard_gone),
        trial("a_daemon_notices_that_its_guard_is_frozen", guard_frozen),
        trial("a_new_guard_enforces_the_old_deadline_and_waits_for_the_old_daemon", old_pair_alive),
        trial("a_new_guard_cleans_up_after_a_dead_pair_and_adopts_nothing", old_pair_dead),
        trial("what_cannot_be_withdrawn_is_an_error_at_the_end", still_in_place),
        trial("a_daemon_is_not_blamed_for_what_an_earlier_one_left", stuck),
        trial("the_guard_is_small", small),
        trial("an_upgrade_keeps_session_and_files", upgrade::kept),
        trial("an_upgrade_that_is_refused_changes_nothing", upgrade::refused),
        trial("an_upgrade_whose_program_vanishes_changes_nothing", upgrade::vanished),
        trial("what_cannot_be_taken_over_is_given_up_and_started_anew", upgrade::anew),
        trial("a_request_to_stop_is_not_lost_in_an_upgrade", upgrade::stopped),
        trial("a_deadline_is_kept_across_an_upgrade", upgrade::frozen),
        trial("a_daemon_that_does_not_step_aside_is_killed", upgrade::stubborn),
        trial("a_daemon_that_dies_during_an_upgrade_is_replaced", upgrade::killed),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn killed_daemon() {
    let mut pair = Pair::start("extend");
    let first = pair.await_event("placed", 1);
    let inode = fs::metadata(pair.manifest()).unwrap().ino();
    pair.signal(first.pid, Signal::KILL);
    let second = pair.await_event("adopted", 1);
    assert_ne!(first.pid, second.pid);
    assert_eq!(fs::metadata(pair.manifest()).unwrap().ino(), inode, "nobody touched it");
    assert_eq!(fs::read_to_string(pair.role_file()).unwrap(), LEADER);
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

fn frozen_daemon() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.signal(placed.pid, Signal::STOP);
    // The beat that it may have been about to send counts, too.
    let last = pair.events().into_iter().rfind(|e| e.what == "extended").unwrap_or(placed.clone());
    let gone = pair.await_withdrawn();
    pair.assert_before_expiry(&last, gone);
    let started = pair.await_event("started", 2);
    assert!(started.detail.starts_with("claims=0 "), "{started:?}");
    assert!(started.detail.ends_with(&format!(" role={STANDBY}")), "{started:?}");
    let second = pair.await_event("placed", 2);
    assert_ne!(second.pid, placed.pid);
    assert!(pair.events().iter().all(|event| event.what != "adopted"));
    assert!(!pair.is_running(placed.pid), "the old one was ended before the new one began");
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

fn dead_at_the_deadline() {
    // It exits with an error after placing, and each of its successors at once.
    let mut pair = Pair::start("place-then-crash");
    let placed = pair.await_event("placed", 1);
    let gone = pair.await_withdrawn();
    pair.assert_before_expiry(&placed, gone);
    pair.stop();
    pair.assert_nothing_left();
}

fn punctual_daemon() {
    let mut pair = Pair::start("withdraw-at-deadline");
    let first = pair.await_event("placed", 1);
    let withdrawn = pair.await_event("withdrawn", 1);
    let again = pair.await_event("placed", 2);
    assert_eq!((first.pid, first.pid), (withdrawn.pid, again.pid), "it was spared");
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

fn sleeping_daemon() {
    // It beats, so it is not hung, but takes no notice of its deadline.
    let mut pair = Pair::start("ignore-deadline");
    let first = pair.await_event("placed", 1);
    let gone = pair.await_withdrawn();
    pair.assert_before_expiry(&first, gone);
    let second = pair.await_event("placed", 2);
    assert_ne!(first.pid, second.pid);
    assert!(!pair.is_running(first.pid));
    pair.stop();
    pair.assert_nothing_left();
}

fn hung_daemon() {
    let mut pair = Pair::start("hang-once");
    let first = pair.await_event("started", 1);
    let second = pair.await_event("started", 2);
    assert_ne!(first.pid, second.pid);
    assert!(!pair.is_running(first.pid));
    assert!(pair.log().contains("daemon hangs"), "{}", pair.log());
    assert_eq!(pair.stop(), Some(0));
}

fn final_code() {
    let mut pair = Pair::start("place-then-final");
    assert_eq!(pair.wait(), Some(FINAL_CODE.into()));
    assert_eq!(pair.events().iter().filter(|event| event.what == "started").count(), 1);
    pair.assert_nothing_left();
}

fn crash_loop() {
    let mut pair = Pair::start("crash");
    let starts: Vec<_> = (1..=5).map(|n| pair.await_event("started", n)).collect();
    let gap = |n: usize| starts[n + 1].at.boot_ns - starts[n].at.boot_ns;
    // 0, 100, 200 and 400 ms at the least; a busy machine only makes them longer.
    for (n, least_ms) in [(1, 100), (2, 200), (3, 400)] {
        assert!(gap(n) >= least_ms * 1_000_000, "{starts:?}");
    }
    assert_eq!(pair.stop(), Some(stand_in::CRASH_CODE.into()));
}

fn missing_program() {
    let mut pair = Pair::start_with("extend", "/nowhere/conclave");
    assert_eq!(pair.wait(), Some(stand_in::GUARD_ERROR.into()));
    assert!(pair.log().contains("cannot start the daemon /nowhere/conclave"), "{}", pair.log());
    pair.assert_nothing_left();
}

fn graceful_stop() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut pair = Pair::start("extend");
        pair.await_event("placed", 1);
        assert_eq!(fs::read_to_string(pair.manifest()).unwrap(), CONTENT);
        pair.signal(pair.guard_pid(), signal);
        assert_eq!(pair.wait(), Some(0));
        assert_eq!(pair.await_event("withdrawn", 1).what, "withdrawn");
        pair.assert_nothing_left();
    }
}

fn stop_between_daemons() {
    let mut pair = Pair::start("extend");
    let first = pair.await_event("placed", 1);
    // The guard learns of both at once.
    pair.signal(pair.guard_pid(), Signal::STOP);
    pair.signal(first.pid, Signal::KILL);
    pair.signal(pair.guard_pid(), Signal::TERM);
    pair.signal(pair.guard_pid(), Signal::CONT);
    assert_eq!(pair.wait(), Some(0), "{}", pair.log());
    let second = pair.await_event("adopted", 1);
    let stopped = pair.await_event("asked to stop", 1);
    assert_eq!(second.pid, stopped.pid, "it gives up in order what the first left");
    assert_ne!(first.pid, second.pid);
    assert_eq!(pair.events().iter().filter(|event| event.what == "started").count(), 2);
    pair.assert_nothing_left();
}

fn stop_before_ready() {
    // It waits a while for whoever holds this to say who it is.
    let (mut pair, held) = Pair::start_behind_a_lock("extend");
    await_that("the guard's first line", || pair.log().contains("guard started").then_some(()));
    pair.signal(pair.guard_pid(), Signal::TERM);
    drop(held);
    assert_eq!(pair.wait(), Some(0), "{}", pair.log());
    assert!(pair.events().is_empty(), "no daemon was started");
}

fn stop_while_taking_over() {
    let mut pair = Pair::start("slow-to-stop");
    let placed = pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::KILL);
    pair.wait();
    let mut next = pair.another();
    pair.await_event("asked to stop", 1);
    assert_eq!(next.stop(), Some(0), "{}", next.log());
    let withdrawn = pair.await_event("withdrawn", 1);
    assert_eq!(withdrawn.pid, placed.pid, "by itself");
    assert!(pair.events().iter().all(|event| event.what != "told twice"));
    pair.assert_nothing_left();
}

fn abort() {
    let mut pair = Pair::start("ignore-signals");
    let placed = pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::TERM);
    pair.await_event("asked to stop", 1);
    assert!(pair.manifest().exists(), "it has its deadline to withdraw by");
    pair.signal(pair.guard_pid(), Signal::TERM);
    assert_eq!(pair.wait(), Some(1));
    assert!(!pair.is_running(placed.pid));
    pair.assert_nothing_left();
}

fn second_pair() {
    let mut pair = Pair::start("extend");
    pair.await_event("placed", 1);
    let mut second = pair.another();
    assert_eq!(second.wait(), Some(stand_in::GUARD_ERROR.into()));
    let holder = format!("the guard with process id {}", pair.guard_pid());
    assert!(second.log().contains(&holder), "{}", second.log());
    assert!(pair.manifest().exists());
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

fn guard_gone() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::KILL);
    pair.wait();
    pair.await_event("guard gone", 1);
    pair.await_event("withdrawn", 1);
    pair.await_end_of(placed.pid);
    // The next one finds nothing to do.
    let mut next = pair.another();
    let again = pair.await_event("placed", 2);
    assert_ne!(again.pid, placed.pid);
    assert_eq!(next.stop(), Some(0));
    pair.assert_nothing_left();
}

fn guard_frozen() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::STOP);
    pair.await_event("guard stale", 1);
    pair.await_event("withdrawn", 1);
    pair.signal(pair.guard_pid(), Signal::CONT);
    let again = pair.await_event("placed", 2);
    assert_ne!(again.pid, placed.pid, "the guard started another");
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

fn old_pair_alive() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    // Frozen together, so that nobody but a new guard can keep the deadline.
    pair.signal(placed.pid, Signal::STOP);
    let last = pair.events().into_iter().rfind(|e| e.what == "extended").unwrap_or(placed.clone());
    pair.signal(pair.guard_pid(), Signal::KILL);
    pair.wait();
    let mut next = pair.another();
    let gone = pair.await_withdrawn();
    pair.assert_before_expiry(&last, gone);
    let second = pair.await_event("started", 2);
    assert!(!pair.is_running(placed.pid), "it had to die first");
    assert!(second.at.boot_ns > gone.boot_ns);
    assert_eq!(next.stop(), Some(0));
    pair.assert_nothing_left();
}

fn old_pair_dead() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::STOP);
    pair.signal(placed.pid, Signal::KILL);
    pair.signal(pair.guard_pid(), Signal::KILL);
    pair.wait();
    assert!(pair.manifest().exists());
    let mut next = pair.another();
    let started = pair.await_event("started", 2);
    let clean = format!("claims=0 session=none role={STANDBY}");
    assert_eq!(started.detail, clean, "cleaned up before anything else");
    pair.await_event("placed", 2);
    assert!(pair.events().iter().all(|event| event.what != "adopted"));
    assert_eq!(next.stop(), Some(0));
    pair.assert_nothing_left();
}

fn still_in_place() {
    let mut pair = Pair::start("claim-what-cannot-go");
    pair.await_event("placed", 1);
    pair.signal(pair.guard_pid(), Signal::TERM);
    assert_eq!(pair.wait(), Some(stand_in::GUARD_ERROR.into()));
    assert!(pair.log().contains("/proc/version"), "{}", pair.log());
    assert!(pair.page().exists(), "the next guard shall see it");
}

fn stuck() {
    let mut pair = Pair::start("crash-and-get-stuck");
    let stuck = pair.await_event("stuck", 1);
    let later = pair.await_event("still idle", 1);
    assert_eq!(stuck.pid, later.pid, "it was left to go on trying");
    assert!(!pair.log().contains("killed it"), "{}", pair.log());
    assert!(pair.log().contains("cannot withdraw path=/proc/version"), "{}", pair.log());
    assert!(!pair.manifest().exists(), "what can go is gone");
    assert_eq!(pair.stop(), Some(stand_in::GUARD_ERROR.into()));
}

fn small() {
    let mut pair = Pair::start("extend");
    pair.await_event("placed", 1);
    let status = fs::read_to_string(format!("/proc/{}/status", pair.guard_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // What it has for itself; the program's text is shared with the daemon.
    assert!(kib < 2_048, "{line}");
    assert_eq!(pair.stop(), Some(0));
}

/// How long anything may take that has no bound of its own: long, for the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test when something does not come about in [`PATIENCE`].
fn await_that<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let limit = Reading::now().after(PATIENCE);
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(!Reading::now().is_past(limit), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! Playing many schedules on all cores, and what comes of them.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::coverage::Coverage;
use crate::digest;
use crate::schedule::{Played, Schedule};

/// How many seeds one digest covers: block `b` is seeds `b * 10000` up to the next block's first.
pub const BLOCK: u64 = 10_000;

/// A schedule that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was broken, in words.
    pub what: String,
}

impl Failure {
    /// One command that plays the schedule again and tells everything that happens in it.
    pub fn replay(&self) -> String {
        format!("cargo run --release -p conclave-sim -- replay {}", self.seed)
    }
}

/// Plays one schedule.
///
/// # Errors
/// What it broke.
pub fn play(seed: u64, trace: bool) -> Result<Played, Failure> {
    let run = AssertUnwindSafe(|| Schedule::with_trace(seed, trace).play());
    catch_unwind(run).map_err(|panic| Failure { seed, what: words(&*panic) })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked without words".to_owned())
}

/// Plays these seeds on so many threads, up to the first failures.
///
/// # Errors
/// What was broken, by seed; other threads end their schedules first.
pub fn play_all(seeds: Range<u64>, threads: usize) -> Result<Coverage, Vec<Failure>> {
    /// Seeds taken at once.
    const AT_ONCE: u64 = 64;
    let next = AtomicU64::new(seeds.start);
    let over = AtomicBool::new(false);
    let (total, failures) = (Mutex::new(Coverage::default()), Mutex::new(Vec::new()));
    let work = || {
        let mut coverage = Coverage::default();
        while !over.load(Ordering::Relaxed) {
            let from = next.fetch_add(AT_ONCE, Ordering::Relaxed);
            for seed in from..(from + AT_ONCE).min(seeds.end) {
                match play(seed, false) {
                    Ok(played) => coverage.add(&played.coverage),
                    Err(failure) => {
                        over.store(true, Ordering::Relaxed);
                        failures.lock().unwrap_or_else(|e| e.into_inner()).push(failure);
                    }
                }
            }
            if from >= seeds.end {
                break;
            }
        }
        total.lock().unwrap_or_else(|e| e.into_inner()).add(&coverage);
    };
    std::thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| drop(scope.spawn(work)));
    });
    let mut failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    failures.sort_by_key(|failure| failure.seed);
    if failures.is_empty() {
        Ok(total.into_inner().unwrap_or_else(|e| e.into_inner()))
    } else {
        Err(failures)
    }
}

/// Plays a block of seeds: its digest, and what occurred.
///
/// # Errors
/// The first schedule that broke a promise.
pub fn play_block(block: u64) -> Result<(String, Coverage), Failure> {
    let mut coverage = Coverage::default();
    let mut folds = Vec::with_capacity(BLOCK as usize);
    for seed in block * BLOCK..(block + 1) * BLOCK {
        let played = play(seed, false)?;
        coverage.add(&played.coverage);
        folds.push(played.digest);
    }
    Ok((digest::of_block(folds.into_iter()), coverage))
}

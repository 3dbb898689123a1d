//! Thousands of short random schedules: every fault, at any time, and then everything is led.
//!
//! A failure names its seed; `CONCLAVE_SEED=<seed> cargo test -p conclave-sim --test random`
//! plays that one alone, and with
//! `CONCLAVE_TRACE=1` tells everything that happens in it. `CONCLAVE_SCHEDULES` plays more of them, or fewer.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave_sim::Schedule;

/// Enough to find the faults that were put into the core on purpose, within seconds.
const SCHEDULES: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn play(seed: u64) {
    let trace = std::env::var_os("CONCLAVE_TRACE").is_some();
    if catch_unwind(|| Schedule::with_trace(seed, trace).play()).is_err() {
        panic!(
            "schedule {seed} broke a promise; replay it with:\n  \
             CONCLAVE_SEED={seed} cargo test -p conclave-sim --test random -- --nocapture"
        );
    }
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = number("CONCLAVE_SEED") {
        return play(seed);
    }
    let schedules = number("CONCLAVE_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(1);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > schedules {
                    return;
                }
                play(seed);
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                next.store(u64::MAX / 2, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
}

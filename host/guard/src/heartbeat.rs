//! Whether the other of guard and daemon still moves.
//!
//! Being alive is not enough: a process can be stopped, or its loop can hang. So each counts its
//! beats on the page and watches the other's count.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Reading;
use crate::page::Page;

/// How often both beat, and after which silence the other counts as hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Time between beats.
    pub period: Duration,
    /// Silence after which the other is hung. Many periods, because a busy machine may keep a
    /// process from running for long, and being taken for hung costs a leader its term.
    pub stale_after: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Rhythm { period: Duration::from_millis(500), stale_after: Duration::from_secs(10) }
    }
}

/// For how long a counter has stood still while its observer was running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silence {
    beats: u64,
    seen: Option<u64>,
    silent: Duration,
}

impl Silence {
    /// Looks at the counter. What passed since the last look counts as at most two periods: when
    /// it is more, the observer was stopped itself, and perhaps the other with it.
    pub(crate) fn observe(&mut self, beats: u64, now: Reading, period: Duration) -> Duration {
        let last = self.seen.replace(now.raw_ns).unwrap_or(now.raw_ns);
        if beats != self.beats {
            self.beats = beats;
            self.silent = Duration::ZERO;
        } else {
            // This clock stands still during suspend, as the other process does.
            let passed = Duration::from_nanos(now.raw_ns.saturating_sub(last));
            self.silent += passed.min(2 * period);
        }
        self.silent
    }
}

/// What a daemon knows of its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardState {
    /// It beats.
    Alive,
    /// It exists but has not beaten for too long: the daemon is on its own.
    Stale,
    /// It is dead.
    Gone,
}

/// Watches the guard, from the daemon. As a file descriptor it becomes readable when the guard
/// dies.
///
/// A daemon whose guard is not [`Alive`](GuardState::Alive) withdraws, resigns and exits.
#[derive(Debug)]
pub struct GuardWatch {
    page: Page,
    pidfd: Arc<OwnedFd>,
    silence: Silence,
}

impl GuardWatch {
    pub(crate) fn new(page: Page, pidfd: Arc<OwnedFd>) -> Self {
        GuardWatch { page, pidfd, silence: Silence::default() }
    }

    /// Looks at the guard. To be called about once every [`Page::beat_period`], with the present:
    /// silence is summed up over the calls.
    pub fn check(&mut self, now: Reading) -> GuardState {
        if is_dead(&self.pidfd) {
            return GuardState::Gone;
        }
        let rhythm = self.page.rhythm();
        let beats = self.page.header().guard_beats.load(SeqCst);
        if self.silence.observe(beats, now, rhythm.period) < rhythm.stale_after {
            GuardState::Alive
        } else {
            GuardState::Stale
        }
    }
}

impl AsFd for GuardWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for GuardWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// Whether the process behind a pidfd has ended, all its threads included.
pub(crate) fn is_dead(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(500);

    #[test]
    fn silence_adds_up_and_a_beat_ends_it() {
        let mut silence = Silence::default();
        let mut now = Reading::now();
        for (step_ms, beats, silent_ms) in [
            (0, 1, 0),
            (500, 1, 500),
            (700, 1, 1_200),
            (100, 2, 0),
            // An hour in which the observer did not run either.
            (3_600_000, 2, 1_000),
            (500, 2, 1_500),
            (500, 3, 0),
        ] {
            now = now.after(Duration::from_millis(step_ms));
            let silent = silence.observe(beats, now, PERIOD);
            assert_eq!(silent, Duration::from_millis(silent_ms), "after {step_ms} ms");
        }
    }
}

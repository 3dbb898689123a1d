//! The guards: each withdraws at the deadline on its page, whatever its daemon does, and each of
//! the two processes looks after the other.

use conclave_core::Time;

use crate::clock::Micros;
use crate::disk::Disk;
use crate::node::{AGAIN_AFTER, RESTART_AFTER};
use crate::world::{Happening, World, micros};

/// What the guard's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    Runs,
    Paused,
    Dead,
}

/// A guard that is scheduled wakes up within this after the deadline.
const WAKES_WITHIN: Micros = 2_000;

impl World {
    /// A look at the page comes when its deadline does.
    pub(crate) fn arm_guard(&mut self, n: usize, deadline: Time) {
        if !self.nodes[n].guard_due {
            self.nodes[n].guard_due = true;
            let due = self.nodes[n].clock.when_fast(self.now, deadline);
            let late = self.random.below(WAKES_WITHIN);
            self.schedule(n, due - self.now + late, Happening::Guard);
        }
    }

    /// The guard looks at the page: past the deadline it marks it, withdraws, and kills a daemon
    /// that did not withdraw in time.
    pub(crate) fn guard(&mut self, n: usize) {
        self.nodes[n].guard_due = false;
        if self.nodes[n].guard != Guard::Runs {
            return;
        }
        let now = self.local(n).fast;
        let Some(page) = &mut self.nodes[n].page else { return };
        if now < page.deadline {
            let deadline = page.deadline;
            return self.arm_guard(n, deadline);
        }
        page.expired = true;
        let in_place = self.nodes[n].effects.iter().any(Option::is_some);
        for e in 0..self.elections.len() {
            self.withdraw_as_guard(n, e);
        }
        if in_place && self.nodes[n].frozen {
            self.coverage.daemons_killed_by_guards += 1;
            self.kill_daemon(n);
        }
        let left = self.nodes[n].effects.iter().any(Option::is_some);
        if left && self.nodes[n].disk != Disk::Hangs && !self.nodes[n].guard_due {
            self.nodes[n].guard_due = true;
            self.schedule(n, AGAIN_AFTER, Happening::Guard);
        }
    }

    pub(crate) fn freeze(&mut self, n: usize) {
        if self.nodes[n].daemon_runs() {
            self.nodes[n].frozen = true;
            self.nodes[n].pauses += 1;
            self.judge_helplessness(n);
            let pause = self.nodes[n].pauses;
            let stale = micros(self.settings.stale_after);
            self.schedule(n, stale, Happening::DaemonHung { pause });
        }
    }

    /// The guard finds that its daemon has not moved for too long.
    pub(crate) fn daemon_hung(&mut self, n: usize, pause: u64) {
        let node = &self.nodes[n];
        if node.pauses == pause && node.frozen && node.guard == Guard::Runs {
            self.coverage.daemons_killed_by_guards += 1;
            self.kill_daemon(n);
        }
    }

    pub(crate) fn pause_guard(&mut self, n: usize) {
        if self.nodes[n].guard == Guard::Runs {
            self.nodes[n].guard = Guard::Paused;
            self.nodes[n].guard_pauses += 1;
            self.judge_helplessness(n);
            let pause = self.nodes[n].guard_pauses;
            let stale = micros(self.settings.stale_after);
            self.schedule(n, stale, Happening::GuardStale { pause });
        }
    }

    /// The daemon finds that its guard has not moved for too long: it is on its own, and ends.
    pub(crate) fn guard_stale(&mut self, n: usize, pause: u64) {
        if self.nodes[n].guard_pauses == pause && self.nodes[n].guard == Guard::Paused {
            self.stop_daemon(n);
        }
    }

    pub(crate) fn resume_guard(&mut self, n: usize) {
        if self.nodes[n].guard == Guard::Paused {
            self.nodes[n].guard = Guard::Runs;
            self.nodes[n].guard_pauses += 1;
            self.judge_helplessness(n);
            let wakes = self.random.below(WAKES_WITHIN);
            self.schedule(n, wakes, Happening::Guard);
            if self.nodes[n].exited.is_some() {
                // Its daemon has ended for good meanwhile, and so does the guard.
                self.nodes[n].guard = Guard::Dead;
                self.judge_helplessness(n);
            } else if self.nodes[n].core.is_none() {
                self.schedule(n, RESTART_AFTER, Happening::Restart);
            }
        }
    }

    /// The guard dies; its daemon sees that at once, if it runs.
    pub(crate) fn kill_guard(&mut self, n: usize) {
        self.nodes[n].guard = Guard::Dead;
        self.nodes[n].guard_pauses += 1;
        self.judge_helplessness(n);
        if self.nodes[n].daemon_runs() {
            self.stop_daemon(n);
        }
    }

    /// Both processes die at once: what is in place stays.
    pub(crate) fn kill_pair(&mut self, n: usize) {
        self.end_life(n);
        self.nodes[n].guard = Guard::Dead;
        self.judge_helplessness(n);
    }

    /// A supervisor starts the pair, if its guard does not run. A daemon that still lives is another
    /// guard's: it has been told to stop, and nobody goes on with its session.
    pub(crate) fn start_node(&mut self, n: usize) {
        if self.nodes[n].guard != Guard::Dead {
            return;
        }
        self.nodes[n].guard = Guard::Runs;
        self.nodes[n].another_guards = true;
        self.judge_helplessness(n);
        if self.nodes[n].core.is_none() {
            return self.restart(n);
        }
        if self.nodes[n].frozen {
            self.nodes[n].pauses += 1;
            let pause = self.nodes[n].pauses;
            let stale = micros(self.settings.stale_after);
            self.schedule(n, stale, Happening::DaemonHung { pause });
        }
        let wakes = self.random.below(WAKES_WITHIN);
        self.schedule(n, wakes, Happening::Guard);
    }
}

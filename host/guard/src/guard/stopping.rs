//! Stopping: asked once, in order; asked twice, at once.

use crate::clock::Reading;
use crate::process::Daemon;

use super::{ABORTED, Guard};

/// Whether the guard was asked to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    Asked,
    Abort,
}

impl Guard {
    pub(super) fn heed_signals(&mut self, now: Reading) {
        self.signals.consume_wakes();
        if self.signals.take_upgrade() {
            self.begin_upgrade();
        }
        for _ in 0..self.signals.take_stops() {
            match self.stop {
                Stop::No => self.stop_daemon(now),
                // It has stopped for an upgrade: now it is to end with that.
                Stop::Asked if self.start_anew => self.start_anew = false,
                Stop::Asked => self.abort(),
                Stop::Abort => {}
            }
        }
    }

    pub(super) fn stop_daemon(&mut self, now: Reading) {
        self.stop = Stop::Asked;
        if self.daemon.is_none() && !self.starter.is_starting_daemon() && !self.has_last_chance(now)
        {
            self.end = Some(self.last_code);
            self.withdraw_for_good(now);
        }
    }

    /// Whether a session without a daemon is to get one more, to give it up in order. If so, that
    /// is started at once.
    pub(super) fn has_last_chance(&mut self, now: Reading) -> bool {
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        let chance = self.stop == Stop::Asked && standing && !self.last_chance;
        if chance {
            self.last_chance = true;
            self.next_start = now;
        }
        chance
    }

    /// Asks the daemon to stop once it listens: before, it would die of it and leave its
    /// session. One without a session to leave may.
    pub(super) fn pass_stop_on(&mut self, now: Reading) {
        let page = &self.page.page;
        let standing = page.session().is_some_and(|session| session.stands(now));
        if self.stop == Stop::Asked
            && let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.told_to_stop)
            && (daemon.has_beaten(page) || !standing)
        {
            daemon.stop();
            self.log.info("asked the daemon to stop", format!("pid={}", daemon.pid()));
        }
    }

    fn abort(&mut self) {
        self.stop = Stop::Abort;
        self.page.page.expire(Reading::now(), true);
        self.lanes.order(self.daemon.is_none());
        if let Some(daemon) = &mut self.daemon {
            daemon.kill();
            self.log
                .warn("asked to stop twice, killed the daemon", format!("pid={}", daemon.pid()));
        } else {
            self.end = Some(ABORTED);
            self.clean_up(Reading::now());
        }
    }

    /// Asks an old guard's daemon to stop: it withdraws and resigns. Its deadline is enforced
    /// meanwhile, and nothing else happens before it is dead.
    pub(super) fn retire(&mut self, mut orphan: Daemon, now: Reading) {
        orphan.stop();
        let fields = format!("pid={}", orphan.pid());
        self.log.warn("another guard's daemon is still alive, waiting for its end", fields);
        self.daemon = Some(orphan);
        self.orphan_since = Some(now);
    }
}

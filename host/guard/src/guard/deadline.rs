//! The deadline: marked as passed, everything withdrawn, the daemon killed, withdrawn once more.
//!
//! From noticing a passed deadline to the lanes' unlinking and to the kill, nothing in here
//! allocates, takes a lock, or waits for anybody.

use std::time::Duration;

use crate::clock::Reading;

use super::Guard;

/// How long the guard waits for withdrawing to finish before it goes on without: what hangs then
/// stays claimed, and the next daemon knows.
const CLEANUP_LIMIT: Duration = Duration::from_secs(2);

/// How often it tries again what is still claimed.
const RETRY: Duration = Duration::from_millis(100);

/// How long another guard's daemon gets to stop, once it has no session.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// A session that expired.
pub(super) struct Expiry {
    version: u64,
    /// When the daemon is killed unless it has released everything.
    pub(super) kill_at: Reading,
    /// When withdrawing is tried again.
    pub(super) retry: Reading,
    /// Whether its daemon was spared, or is dead: the next one is not to blame for what is left.
    pub(super) settled: bool,
}

/// Withdrawing for good, after a daemon's death.
pub(super) struct Cleanup {
    pub(super) give_up: Reading,
    pub(super) retry: Reading,
}

impl Guard {
    /// Marks a passed deadline and has everything withdrawn, also where the daemon marked it. Goes
    /// on trying as long as something of an expired session is claimed.
    pub(super) fn enforce_deadline(&mut self, now: Reading) {
        self.page.page.expire(now, false);
        let Some(session) = self.page.page.session().filter(|session| session.expired) else {
            self.expiry = None;
            return;
        };
        let retry = now.after(RETRY);
        match &mut self.expiry {
            Some(expiry) if expiry.version == session.version => {
                if self.cleanup.is_none()
                    && self.page.page.claimed() > 0
                    && now.is_past(expiry.retry)
                {
                    expiry.retry = retry;
                    let dead = self.daemon.is_none() && !self.starter.is_starting_daemon();
                    self.lanes.order(dead);
                }
            }
            expiry => {
                *expiry = Some(Expiry {
                    version: session.version,
                    kill_at: session.deadline.after(session.margin / 4),
                    retry,
                    settled: self.daemon.is_none(),
                });
                // One that is just being started may live already.
                if self.daemon.is_some() || self.starter.is_starting_daemon() {
                    self.lanes.order(false);
                } else if self.cleanup.is_none() {
                    self.clean_up(now);
                }
            }
        }
    }

    /// Kills a daemon that did not withdraw in time, or hangs.
    pub(super) fn kill_if_due(&mut self, now: Reading) {
        let claimed = self.page.page.claimed();
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.killed) else { return };
        if let Some(expiry) = self.expiry.as_mut().filter(|expiry| !expiry.settled) {
            if claimed == 0 {
                expiry.settled = true;
                self.log.warn("deadline passed, everything withdrawn in time", "by=daemon");
            } else if now.is_past(expiry.kill_at) {
                daemon.kill();
                expiry.settled = true;
                let fields = format!("pid={} claimed={claimed}", daemon.pid());
                self.log.error("deadline passed and daemon did not withdraw, killed it", fields);
                return;
            }
        }
        if daemon.is_hung(&self.page.page, now) {
            daemon.kill();
            self.log.error("daemon hangs, killed it", format!("pid={}", daemon.pid()));
        } else if daemon.is_in_the_way(now) {
            daemon.kill();
            let fields = format!("pid={}", daemon.pid());
            self.log.warn("daemon does not step aside, killed it", fields);
        } else if !standing
            && self.orphan_since.is_some_and(|since| now.is_past(since.after(ORPHAN_LIMIT)))
        {
            daemon.kill();
            self.log
                .warn("orphaned daemon did not stop, killed it", format!("pid={}", daemon.pid()));
        }
    }

    /// The daemon is dead and nothing of it may stay.
    pub(super) fn withdraw_for_good(&mut self, now: Reading) {
        self.page.page.expire(now, true);
        self.clean_up(now);
    }

    /// Has the lanes withdraw for good, and waits for them in [`go_on_cleaning`](Self::go_on_cleaning).
    pub(super) fn clean_up(&mut self, now: Reading) {
        if self.page.page.claimed() == 0 {
            return;
        }
        self.lanes.order(true);
        self.cleanup = Some(Cleanup { give_up: now.after(CLEANUP_LIMIT), retry: now.after(RETRY) });
    }

    pub(super) fn go_on_cleaning(&mut self, now: Reading) {
        self.lanes.consume();
        let Some(cleanup) = &mut self.cleanup else { return };
        let claimed = self.page.page.claimed();
        if claimed == 0 {
            self.cleanup = None;
            self.log.info("everything exclusive is withdrawn", "by=guard");
        } else if now.is_past(cleanup.give_up) {
            self.cleanup = None;
            for (path, reason) in self.page.page.failures() {
                let fields = format!("path={} reason=\"{reason}\"", path.display());
                self.log.error("cannot withdraw", fields);
            }
        } else if now.is_past(cleanup.retry) {
            self.lanes.order(true);
            cleanup.retry = now.after(RETRY);
        }
    }

    /// Withdraws what a dead pair left. None of it is adopted.
    pub(super) fn clean_up_after_old_pair(&mut self, now: Reading) {
        self.page.page.free_unfinished();
        self.page.page.forget_session();
        self.clean_up(now);
    }
}

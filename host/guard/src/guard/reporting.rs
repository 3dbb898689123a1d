//! What the service manager hears of the node.

use crate::clock::Reading;

use super::Guard;
use super::stopping::Stop;

impl Guard {
    /// Tells what has changed, and gives a sign of life when one is due and both live.
    pub(super) fn report(&mut self, now: Reading) {
        if !self.supervisor.listens() {
            return;
        }
        // A process that is about to start anew in its own place is not ending.
        let ending = self.stop != Stop::No || self.end.is_some();
        if ending && !self.start_anew {
            self.supervisor.stopping();
        } else if self.daemon.is_some() && self.page.page.is_daemon_ready() {
            self.supervisor.ready();
        }
        self.supervisor.status(self.in_words(now));
        if self.supervisor.wants_sign(now) && self.daemon.as_ref().is_none_or(|it| !it.killed) {
            let page = &self.page.page;
            let beats = self.daemon.as_ref().filter(|daemon| daemon.has_beaten(page));
            self.supervisor.sign(beats.map(|_| page.daemon_beats()), now);
        }
    }

    fn in_words(&self, now: Reading) -> String {
        let page = &self.page.page;
        let claimed = page.claimed();
        let effects = if claimed == 1 { "effect" } else { "effects" };
        let session = page.session();
        if session.is_some_and(|session| session.expired) && claimed > 0 {
            return format!("deadline passed: {claimed} exclusive {effects} still in place");
        }
        if self.stop != Stop::No || self.end.is_some() {
            return format!("stopping: {claimed} exclusive {effects} still in place");
        }
        match &self.daemon {
            None => "no daemon, starting one".to_owned(),
            Some(daemon) if !page.is_daemon_ready() => {
                format!("daemon {} is starting", daemon.pid())
            }
            Some(daemon) => match session {
                Some(session) if session.stands(now) => {
                    format!("daemon {}: {claimed} exclusive {effects} claimed", daemon.pid())
                }
                _ => format!("daemon {}: no session in the store", daemon.pid()),
            },
        }
    }
}

//! Orphans: exclusive manifests that stayed in place because their node could not take them away.
//!
//! With guard and daemon dead or frozen at once nobody is left who could withdraw; the same goes for
//! a disk that refuses it while the node cannot keep its term. Such moments are outside of what
//! can be promised and are counted apart. What is promised is what follows: the next start takes
//! the orphan away before anything else appears on that node.

use std::time::{Duration, Instant};

use crate::chaos::record::{Cause, Helpless};
use crate::timeline::{Holding, Timeline};

/// How long a process that was frozen may need, once it may run again, to be scheduled and to
/// take away what it should have taken away meanwhile.
pub const WAKING: Duration = Duration::from_millis(250);

/// How often a daemon whose session is lost tries again to withdraw, and a guard likewise.
const TRYING_AGAIN: Duration = Duration::from_millis(100);

/// A holding that outlived its node's ability to end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Whose.
    pub node: String,
    /// Why.
    pub cause: Cause,
    /// Since when nobody could withdraw.
    pub from: Instant,
    /// Since when somebody could again; `None` while the observation lasted.
    pub able: Option<Instant>,
    /// When the last of the manifests was gone; `None` while the observation lasted.
    pub gone: Option<Instant>,
}

impl Orphan {
    /// Until when another node's manifests may be in place beside it.
    ///
    /// One whose processes were killed is never adopted, and an orphan until it is gone. A frozen
    /// one, and one on a bad disk, may go on as if nothing had happened when it is able to again:
    /// it is an orphan only as long as it had no chance to act.
    pub fn excused_until(&self) -> Option<Instant> {
        match self.cause {
            Cause::Killed => self.gone,
            Cause::Frozen | Cause::Disk => {
                let trying = if self.cause == Cause::Disk { TRYING_AGAIN } else { Duration::ZERO };
                let late = self.able.map(|able| able + trying + WAKING);
                match (late, self.gone) {
                    (Some(late), Some(gone)) => Some(late.min(gone)),
                    (late, gone) => late.or(gone),
                }
            }
        }
    }

    /// Whether another node's manifests may be in place beside it at this moment.
    pub fn excuses(&self, at: Instant) -> bool {
        self.from <= at && self.excused_until().is_none_or(|until| at <= until)
    }

    /// How long it was in place while nobody could, or nobody did, take it away.
    pub fn length(&self, end: Instant) -> Duration {
        self.excused_until().unwrap_or(end).saturating_duration_since(self.from)
    }
}

/// The orphans among all holdings of these files, in the order of the helplessness.
pub fn orphans(story: &Timeline, files: &[&str], helpless: &[Helpless]) -> Vec<Orphan> {
    let holdings = story.holdings(files);
    let orphan = |helpless: &Helpless| {
        let Helpless { node, cause, from, to } = helpless;
        let held = |holding: &&Holding| {
            holding.node == *node
                && holding.from <= *from
                && holding.to.is_none_or(|end| end > *from)
        };
        let holding = holdings.iter().find(held)?;
        let (node, gone) = (node.clone(), holding.to);
        Some(Orphan { node, cause: *cause, from: *from, able: *to, gone })
    };
    helpless.iter().filter_map(orphan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excuse_ends_with_the_helplessness_or_the_orphan() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let late = WAKING.as_millis() as u64;
        for (cause, able, gone, excused, no_more) in [
            // Killed: until it is gone, however long that takes.
            (Cause::Killed, Some(2000), Some(9000), 8999, Some(9001)),
            (Cause::Killed, Some(2000), None, 100_000, None),
            (Cause::Killed, None, None, 100_000, None),
            // Frozen: until it may act, and has had the time to.
            (Cause::Frozen, Some(2000), Some(9000), 2000 + late, Some(2001 + late)),
            (Cause::Frozen, Some(2000), Some(2010), 2010, Some(2011)),
            (Cause::Frozen, None, None, 100_000, None),
            (Cause::Disk, Some(2000), None, 2100 + late, Some(2101 + late)),
        ] {
            let orphan = Orphan {
                node: "a".to_owned(),
                cause,
                from: at(1000),
                able: able.map(at),
                gone: gone.map(at),
            };
            assert!(!orphan.excuses(at(999)), "{orphan:?}");
            assert!(orphan.excuses(at(1000)), "{orphan:?}");
            assert!(orphan.excuses(at(excused)), "{orphan:?}");
            assert!(no_more.is_none_or(|ms| !orphan.excuses(at(ms))), "{orphan:?}");
        }
    }
}

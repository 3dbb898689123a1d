//! What the core is told.

use crate::ids::{ElectionName, OpId, Revision};
use crate::record::{Attributes, Fitness, PolicyVersion};
use crate::request::{Entry, Outcome};
use crate::view::Ranking;

/// Something that happened outside the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed: a deadline of the core may have come.
    Tick,
    /// A request's outcome.
    Reply {
        /// The action that it answers.
        op: OpId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The watch reports changes, in the store's order.
    Watched {
        /// The revision up to which the watch has now reported.
        at: Revision,
        /// What changed.
        entries: Vec<Entry>,
    },
    /// The watch broke and may have missed changes: everything must be read again.
    WatchBroken,
    /// A policy answered or failed.
    Ranked {
        /// The action that it answers.
        op: OpId,
        /// The ranking, or why there is none.
        result: Result<Ranking, String>,
    },
    /// An election's exclusive effects on this node are gone, or not.
    Withdrawn {
        /// The action that it answers.
        op: OpId,
        /// `Err` with the reason when something is, or may be, still in place.
        result: Result<(), String>,
    },
    /// A stop check ended.
    StopChecked {
        /// The action that it answers.
        op: OpId,
        /// Whether it confirmed that what the term ran has stopped.
        stopped: bool,
    },
    /// Whether this node can run an election's manifests has changed.
    Fitness {
        /// Which election.
        election: ElectionName,
        /// The new judgement.
        fitness: Fitness,
    },
    /// What this node's policy says of it, or the policy itself, has changed. A node stands as
    /// a candidate only once this and its fitness have been told.
    Described {
        /// Which election.
        election: ElectionName,
        /// The facts.
        facts: Attributes,
        /// The policy that describes and ranks.
        policy: PolicyVersion,
    },
    /// The guard reached the deadline or went away: exclusive effects are, or must be, withdrawn.
    GuardExpired,
    /// The daemon was told to stop.
    Stop,
}

//! What the manifest loop reports.

use std::path::PathBuf;
use std::time::Instant;

use conclave_core::ids::{ElectionName, OpId, Token};
use conclave_core::record::Fitness;
use conclave_core::view::ManifestView;

/// Something happened to an election's manifests.
#[derive(Clone, Debug, PartialEq)]
pub enum ManifestEvent {
    /// Whether this node can run the election's manifests; sent first when every source has
    /// been looked at, and then on every change. Fit with reasons means that a good copy stands
    /// in for a source that is bad now.
    Fitness {
        /// Which election.
        election: ElectionName,
        /// The judgement.
        fitness: Fitness,
    },
    /// The election's manifests, for the policy to describe and place; sent first when every source
    /// has been looked at, and then on every change.
    Sources {
        /// Which election.
        election: ElectionName,
        /// By name, in order.
        manifests: Vec<ManifestView>,
    },
    /// The term's exclusive effects are all in place, for the first time in this term.
    Placed {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// When the last of them appeared. For measurements only: this clock stops in suspend.
        at: Instant,
    },
    /// The term's exclusive effects cannot all be placed. It is tried again when something changes
    /// and at every rescan, unless the gate has closed.
    NotPlaced {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// What is in the way.
        reason: String,
    },
    /// Answers a withdrawal. `Err` when something exclusive is, or may be, still in place.
    Withdrawn {
        /// The operation that asked.
        op: OpId,
        /// Which election.
        election: ElectionName,
        /// Gone, or what is in the way.
        result: Result<(), String>,
    },
    /// A changed source, or another answer of the policy, was carried over.
    Replaced {
        /// Which election.
        election: ElectionName,
        /// The file.
        path: PathBuf,
    },
    /// A file of ours had been changed or deleted by somebody and is as it should be again.
    Repaired {
        /// Which election.
        election: ElectionName,
        /// The file.
        path: PathBuf,
        /// What had happened to it.
        damage: Damage,
    },
    /// Something that an operator should look at. Sent once, until it ends and comes back.
    Alarm {
        /// Which election.
        election: ElectionName,
        /// What is wrong.
        alarm: Alarm,
    },
}

/// What had happened to a file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// It was deleted or moved away.
    Deleted,
    /// Its content, mode or kind was changed; what stood there is in the state directory's
    /// `saved/`.
    Changed,
}

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// Something that is not ours stands at a destination; it is left alone, and the node is unfit.
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is: a file, a directory, a symbolic link.
        kind: &'static str,
    },
    /// Something exclusive could not be removed.
    NotRemoved {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file was removed but its directory could not be synced: a power loss now may bring it
    /// back, until the next start cleans up.
    NotSynced {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The ledger cannot be written: nothing new is placed.
    Ledger {
        /// Why not.
        reason: String,
    },
}

/// Takes the events; called from the loop's threads and expected to return at once.
pub type EventSink = Box<dyn Fn(ManifestEvent) + Send + Sync>;

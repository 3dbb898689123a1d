//! What a policy sees and answers, in the host's own types.
//!
//! The same shapes stand in `wit/` for components; the policy host translates. Everything is a
//! small typed record, durations are rounded, and nothing is a clock time, so that the same view
//! always gets the same answer and can be logged and replayed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ElectionName, NodeName};
use crate::record::{Attributes, Fitness};

/// A node, as its own policy describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Attributes,
    /// Its variables, for rendering.
    pub variables: Attributes,
}

/// A manifest of an election, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ManifestView {
    /// Its name in the election: unique, stable.
    pub name: String,
    /// Whether only the term's holder may have it.
    pub exclusive: bool,
    /// Its source as text; empty where the source is not readable now.
    pub content: String,
}

/// One candidate of an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CandidateView {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Attributes,
    /// What its policy says that it brings.
    pub facts: Attributes,
    /// Whether it can run the manifests, with reasons and checks.
    pub fitness: Fitness,
    /// Whether an operator said that it shall not lead.
    pub cordoned: bool,
    /// The elections whose leader key it holds, this one included.
    pub holds: Vec<ElectionName>,
    /// How long its session has stood, in milliseconds, rounded down to a step of [`round_ms`].
    pub standing_ms: u64,
}

/// The node whose leader key stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IncumbentView {
    /// Its name.
    pub name: NodeName,
    /// Its facts when it took the term.
    pub facts: Attributes,
    /// How long the term has stood, in milliseconds, rounded as `standing_ms` is.
    pub held_ms: u64,
}

/// The newest term that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreviousView {
    /// Who held it.
    pub name: NodeName,
    /// Its facts.
    pub facts: Attributes,
    /// Whether it was confirmed stopped.
    pub clean: bool,
}

/// A transfer that an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransferView {
    /// To whom; without a name, to the best other.
    pub to: Option<NodeName>,
}

/// Everything that a decision about one election may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The election.
    pub election: ElectionName,
    /// The node that asks.
    pub me: NodeName,
    /// The candidates whose session stands, longest-standing first.
    pub candidates: Vec<CandidateView>,
    /// Who holds the election.
    pub incumbent: Option<IncumbentView>,
    /// The newest term that ended.
    pub previous: Option<PreviousView>,
    /// The transfer asked for, if one applies to the standing term.
    pub transfer: Option<TransferView>,
    /// Whether an operator paused voluntary changes.
    pub paused: bool,
}

/// A candidate's place in a ranking, or out of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ranked {
    /// The candidate.
    pub node: NodeName,
    /// Why it stands there.
    pub reason: String,
}

/// Who should lead: ordered candidates, best first, and the excluded ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Ranking {
    /// Best first.
    pub order: Vec<Ranked>,
    /// Who shall not lead.
    pub excluded: Vec<Ranked>,
}

/// A node's part in one election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It holds the term and says so itself.
    Leader,
    /// Anything else.
    Standby,
}

/// The answer for one manifest on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The manifest's name.
    pub manifest: String,
    /// Run it here, or withhold it.
    pub run: bool,
    /// Values for `${NAME}` beside the node's own.
    pub variables: BTreeMap<String, String>,
}

/// Rounds a duration in milliseconds so that policies see it change rarely: to 1 s below a
/// minute, 10 s below ten minutes, 1 min below an hour, 10 min beyond.
pub fn round_ms(ms: u64) -> u64 {
    let step = match ms {
        0..60_000 => 1_000,
        60_000..600_000 => 10_000,
        600_000..3_600_000 => 60_000,
        _ => 600_000,
    };
    ms - ms % step
}

/// The next duration at which [`round_ms`] gives another answer.
pub fn next_step_ms(ms: u64) -> u64 {
    let step = match ms {
        0..60_000 => 1_000,
        60_000..600_000 => 10_000,
        600_000..3_600_000 => 60_000,
        _ => 600_000,
    };
    ms - ms % step + step
}

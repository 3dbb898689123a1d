//! The records that nodes keep in the store: the wire format, as JSON.
//!
//! A reader ignores fields that it does not know, so that records may grow. Durations travel
//! in milliseconds and never as clock times; the wall-clock fields are for people only and no
//! decision reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, Nonce, SessionId, Token};

/// The version of these records and of the keys that they stand under. It grows only when an older version would
/// misread what a newer one writes; a field more is no such change.
pub const FORMAT: u32 = 1;

fn first_format() -> u32 {
    1
}

fn is_first_format(format: &u32) -> bool {
    *format == first_format()
}

/// Keys and values that a policy attached to a candidate, or that an operator gave a node.
pub type Attributes = BTreeMap<String, String>;

/// `sessions/<node>`: a node's life in the store, rewritten every beat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Which life of the node this is.
    pub nonce: Nonce,
    /// The TTL by which observers judge this session, in milliseconds; fixed for its life.
    pub ttl_ms: u64,
    /// How many beats this session has seen; makes every beat a different value.
    pub beat: u64,
    /// How long the session had stood at this beat, in milliseconds, by its owner's clock.
    #[serde(default)]
    pub age_ms: u64,
    /// The boot of the machine that the daemon runs in.
    #[serde(default)]
    pub boot_id: String,
    /// Where a person finds this daemon: host name, process id, addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The node's labels, which policies see.
    #[serde(default)]
    pub labels: Attributes,
    /// The daemon's version.
    #[serde(default)]
    pub version: String,
    /// The [`FORMAT`] of what it writes; left out where it is the first.
    #[serde(default = "first_format", skip_serializing_if = "is_first_format")]
    pub format: u32,
}

impl SessionRecord {
    /// The TTL as a duration.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

/// Whether a node can run an election's manifests here and now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fitness {
    /// The host's judgement.
    pub fit: bool,
    /// Why not, or what is degraded though fit; one phrase each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The fitness checks by name, and whether each passes.
    #[serde(default)]
    pub checks: BTreeMap<String, bool>,
}

impl Fitness {
    /// Fit, nothing to report.
    pub fn fit() -> Self {
        Fitness { fit: true, reasons: Vec::new(), checks: BTreeMap::new() }
    }

    /// Unfit for one reason.
    pub fn unfit(reason: impl Into<String>) -> Self {
        Fitness { fit: false, reasons: vec![reason.into()], checks: BTreeMap::new() }
    }
}

/// What decides for a candidate: nodes whose versions differ may rank differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// The policy's name.
    pub name: String,
    /// Digest of the component, hexadecimal.
    pub component: String,
    /// Digest of its configuration, hexadecimal.
    pub config: String,
    /// Whether the built-in ranking stands in for a failing policy.
    #[serde(default)]
    pub fallback: bool,
}

/// Names one offer of a term: acceptances name it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OfferId {
    /// The term that is offered.
    pub token: Token,
    /// Counts the term's offers.
    pub number: u64,
}

/// `candidates/<election>/<node>`: a node's part in an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CandidacyRecord {
    /// The session it belongs to; a candidacy of another session does not count.
    pub session: SessionId,
    /// Whether the node can run the manifests.
    pub fitness: Fitness,
    /// What the policy says that the node brings.
    #[serde(default)]
    pub facts: Attributes,
    /// What ranks on this node.
    #[serde(default)]
    pub policy: PolicyVersion,
    /// The offer that the node accepts, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<OfferId>,
}

/// An incumbent's offer of its term to one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// Which offer.
    pub id: OfferId,
    /// To whom.
    pub to: NodeName,
}

/// `elections/<election>/leader/<session id>`: a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// Whose term.
    pub holder: NodeName,
    /// The session it stands on; also the last part of the key.
    pub session: SessionId,
    /// The holder's facts when it took the term.
    #[serde(default)]
    pub facts: Attributes,
    /// When the term was taken, milliseconds since 1970 by the taker's wall clock; for people.
    #[serde(default)]
    pub since_unix_ms: u64,
    /// What is left to wait before placing, in milliseconds, as of taking the term.
    #[serde(default)]
    pub delay_ms: u64,
    /// How the term came about; for people.
    #[serde(default)]
    pub why: String,
    /// The standing offer, if the holder wants to hand over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

/// Why a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The holder fell silent for its TTL, or its session was replaced.
    Silent,
    /// The holder was told to stop.
    Stopping,
    /// The policy ranked another node first.
    Ranking,
    /// An operator asked for it.
    Transfer,
    /// An operator cordoned the holder.
    Cordon,
    /// The holder became unfit.
    Unfit,
    /// The holder's policy excluded it.
    Excluded,
    /// A foreign competitor was queued behind the holder.
    Competitor,
    /// The term was found without anything in place, or its outcome was unknown.
    Unsettled,
    /// The election left the holder's configuration.
    Unconfigured,
}

/// `history/<election>/<token>`: a term that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Who held the term.
    pub holder: NodeName,
    /// Who received it in the same transaction, if anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<NodeName>,
    /// When it began, milliseconds since 1970 by the holder's wall clock; for people.
    #[serde(default)]
    pub from_unix_ms: u64,
    /// When it ended, milliseconds since 1970 by the writer's wall clock; for people. Of a holder that fell
    /// silent, when it was last heard of.
    #[serde(default)]
    pub to_unix_ms: u64,
    /// Why it ended.
    pub why: EndReason,
    /// Whether a stop check confirmed that what it ran had stopped.
    pub clean: bool,
    /// The takeover delay that its successor still owes, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The holder's facts, for policies that compare with the previous term.
    #[serde(default)]
    pub facts: Attributes,
}

/// `elections/<election>/control/transfer`: an operator asks that a term move.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransferRecord {
    /// The term that it applies to; for any other it is void.
    pub token: Token,
    /// To whom; without a name, to the next in the ranking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeName>,
    /// Who asked, and why; for people.
    #[serde(default)]
    pub note: String,
}

/// `elections/<election>/control/pause` and `…/control/cordons/<node>`: an operator's mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct MarkRecord {
    /// Who set it, and why; for people.
    #[serde(default)]
    pub note: String,
    /// When it was set, milliseconds since 1970; for people.
    #[serde(default)]
    pub since_unix_ms: u64,
    /// For how long it holds, in milliseconds, as a node's own clock counts from when it first saw it; without it,
    /// until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

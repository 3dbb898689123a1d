//! What a node asks of the store, and what the store says, in the terms of this domain.
//!
//! Every request is one linearizable read or one transaction with compares; the compares that
//! each needs are listed with it and come from the protocol ("Transactions"). A store
//! implementation adds nothing and leaves nothing out.

use crate::ids::{ElectionName, NodeName, Revision, SessionId, Token};
use crate::record::{
    Attributes, CandidacyRecord, HistoryRecord, LeaderRecord, MarkRecord, SessionRecord,
    TransferRecord,
};

/// A key of ours, without the cluster's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `sessions/<node>`
    Session(NodeName),
    /// `candidates/<election>/<node>`
    Candidacy(ElectionName, NodeName),
    /// `elections/<election>/leader/<suffix>`: ours end in the session id in hexadecimal, those
    /// of etcd's own election recipe in a lease id.
    Leader(ElectionName, String),
    /// `elections/<election>/control/pause`
    Pause(ElectionName),
    /// `elections/<election>/control/transfer`
    Transfer(ElectionName),
    /// `elections/<election>/control/cordons/<node>`
    Cordon(ElectionName, NodeName),
    /// `history/<election>/<token>`, the token in twenty decimal digits so that keys sort.
    History(ElectionName, Token),
}

/// The last part of the leader key that stands on a session.
pub fn leader_suffix(session: SessionId) -> String {
    format!("{:x}", session.0)
}

/// Whether this is a session's [`leader_suffix`]. It is asked for every leader key that is looked
/// at, so nothing is written down for it.
pub(crate) fn is_suffix_of(suffix: &str, session: SessionId) -> bool {
    let digits = suffix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let shortest = suffix.len() == 1 || !suffix.starts_with('0');
    digits && shortest && u64::from_str_radix(suffix, 16) == Ok(session.0)
}

/// A value under one of our keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Under [`Key::Session`].
    Session(SessionRecord),
    /// Under [`Key::Candidacy`].
    Candidacy(CandidacyRecord),
    /// Under [`Key::Leader`].
    Leader(LeaderRecord),
    /// Under [`Key::Transfer`].
    Transfer(TransferRecord),
    /// Under [`Key::Pause`] and [`Key::Cordon`].
    Mark(MarkRecord),
    /// Under [`Key::History`].
    History(HistoryRecord),
    /// Bytes that are no record of ours: a foreign competitor's, or damage. It still counts as
    /// a key.
    Garbage,
}

/// A key's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The revision that created the key.
    pub create: Revision,
    /// The revision of its newest write.
    pub modified: Revision,
    /// Whether a store lease is attached: never so with keys of ours.
    pub leased: bool,
    /// What it says.
    pub value: Value,
}

/// A key as it was at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Which key.
    pub key: Key,
    /// The revision as of which this is so: of the write that a watch reports, or of the
    /// reading. Older news about the same key is to be ignored.
    pub at: Revision,
    /// Its state; `None` where there is no such key.
    pub stored: Option<Stored>,
}

/// The evidence on which a silent holder's term may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The holder's session record is gone or belongs to another session: compare that its
    /// create revision is not the one in the leader key's name.
    Ended,
    /// The record is still that of the term's session and at the revision that was timed:
    /// compare its create and mod revisions, and delete it too.
    Silent(Revision),
}

/// The receiver of a handover, as it was when it accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Who.
    pub node: NodeName,
    /// Its session: compared by create revision.
    pub session: SessionId,
    /// Its candidacy's mod revision.
    pub candidacy: Revision,
}

/// A term's end, as the transaction that deletes its key writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Which term.
    pub token: Token,
    /// The entry, put at `history/<election>/<token>`.
    pub record: HistoryRecord,
    /// Old entries of the same election, deleted with it so that history stays bounded.
    pub trim: Vec<Token>,
}

/// One request. All compares of one must hold for it to be applied, else nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Reads every key of the cluster. `Applied` with all of them.
    List,
    /// Reads one election's leader prefix. `Applied` with its keys.
    ReadLeader {
        /// Which.
        election: ElectionName,
    },
    /// Claims a name: compares that `sessions/<node>` has create revision 0, puts it.
    CreateSession {
        /// The name.
        node: NodeName,
        /// The first record.
        record: SessionRecord,
    },
    /// A beat: compares the session record's create revision, puts it.
    Beat {
        /// The session's owner.
        node: NodeName,
        /// Its create revision.
        session: SessionId,
        /// The new record.
        record: SessionRecord,
    },
    /// Ends a session, one's own or a silent one: compares the record's create and mod revisions,
    /// deletes it. The mod revision alone names it only as long as the store never gives one
    /// again, as it does when it is restored from an old copy.
    EndSession {
        /// Whose.
        node: NodeName,
        /// Its create revision.
        session: SessionId,
        /// The revision that was timed, or that its owner wrote last.
        modified: Revision,
    },
    /// Compares that the node's session record has this create revision, puts the candidacy.
    PutCandidacy {
        /// Which election.
        election: ElectionName,
        /// Whose.
        node: NodeName,
        /// The candidacy; it names the session that is compared.
        record: CandidacyRecord,
    },
    /// Takes a vacant election: compares that no key is under the leader prefix, our session's
    /// create revision, our candidacy's mod revision, and that no history entry of the election
    /// is newer than the newest one known; puts our leader key.
    Take {
        /// Which election.
        election: ElectionName,
        /// Who takes it.
        node: NodeName,
        /// Our candidacy's mod revision.
        candidacy: Revision,
        /// The largest mod revision among the history entries known, 0 for none.
        history: Revision,
        /// The new leader key's value; it names the session that is compared.
        record: LeaderRecord,
    },
    /// Takes a silent holder's term: compares the evidence, that the leader key on the holder's
    /// session has create revision `ending.token`, our session's create and our candidacy's
    /// mod revision; deletes the holder's leader key (and its session record where the evidence
    /// is its silence), writes history, puts ours.
    TakeOver {
        /// Which election.
        election: ElectionName,
        /// Who takes over.
        node: NodeName,
        /// Our session, compared by create revision.
        session: SessionId,
        /// Our candidacy's mod revision.
        candidacy: Revision,
        /// The silent holder.
        holder: NodeName,
        /// The session that its leader key stands on.
        holder_session: SessionId,
        /// Why its term may be taken.
        evidence: Evidence,
        /// The end of its term.
        ending: Ending,
        /// Our leader key's value; `None` deletes only, for foreign keys that are queued behind.
        record: Option<LeaderRecord>,
    },
    /// Hands a term to another node: compares our leader key's mod revision, our session's
    /// create revision, that no other key under the prefix has a create revision above the
    /// term's token, the target's session (create) and candidacy (mod); deletes our leader key,
    /// puts the target's, deletes the transfer, writes history.
    HandOver {
        /// Which election.
        election: ElectionName,
        /// Who hands over.
        node: NodeName,
        /// The session that our leader key stands on.
        session: SessionId,
        /// Our leader key's mod revision, of our last write.
        modified: Revision,
        /// To whom.
        target: Target,
        /// The target's leader key's value; it names the target's session.
        record: LeaderRecord,
        /// The end of our term.
        ending: Ending,
    },
    /// Gives a term up: compares our leader key's mod revision, deletes it and the transfer,
    /// writes history. Also deletes a leader key that was found on our session unexpectedly.
    Resign {
        /// Which election.
        election: ElectionName,
        /// The session that our leader key stands on.
        session: SessionId,
        /// Our leader key's mod revision.
        modified: Revision,
        /// The end of our term.
        ending: Ending,
    },
    /// Rewrites our own leader key: compares its mod revision and our session's create
    /// revision. Once applied, every earlier write of ours to the term that is still under way
    /// must fail.
    RewriteLeader {
        /// Which election.
        election: ElectionName,
        /// Who holds it.
        node: NodeName,
        /// The session that our leader key stands on.
        session: SessionId,
        /// Its mod revision.
        modified: Revision,
        /// Its new value.
        record: LeaderRecord,
    },
    /// Several requests in one transaction, each of another election and either all of them
    /// readings or none: compares and does what all of them do.
    Batch(Vec<Request>),
}

impl Request {
    /// The election whose request this is; only such requests stand in a batch.
    pub fn election(&self) -> Option<&ElectionName> {
        match self {
            Request::ReadLeader { election }
            | Request::PutCandidacy { election, .. }
            | Request::Take { election, .. }
            | Request::TakeOver { election, .. }
            | Request::HandOver { election, .. }
            | Request::Resign { election, .. }
            | Request::RewriteLeader { election, .. } => Some(election),
            Request::List
            | Request::CreateSession { .. }
            | Request::Beat { .. }
            | Request::EndSession { .. }
            | Request::Batch(_) => None,
        }
    }

    /// Whether it changes nothing, so that it may be asked again of another server.
    pub fn only_reads(&self) -> bool {
        match self {
            Request::List | Request::ReadLeader { .. } => true,
            Request::Batch(requests) => requests.iter().all(Request::only_reads),
            _ => false,
        }
    }

    /// How many compares, and how many operations in either case, a store needs for it at most:
    /// the largest of the three, for stores that limit each.
    pub fn operations(&self) -> usize {
        /// The leader key and its history entry, both written and read back, the holder's
        /// session or the transfer, the old leader key, and the leader prefix.
        const END_OF_TERM: usize = 7;
        match self {
            Request::List | Request::ReadLeader { .. } => 1,
            Request::CreateSession { .. }
            | Request::Beat { .. }
            | Request::EndSession { .. }
            | Request::PutCandidacy { .. } => 2,
            Request::RewriteLeader { .. } => 3,
            Request::Take { .. } => 4,
            Request::TakeOver { ending, .. }
            | Request::HandOver { ending, .. }
            | Request::Resign { ending, .. } => END_OF_TERM + ending.trim.len(),
            Request::Batch(requests) => requests.iter().map(Request::operations).sum(),
        }
    }

    /// How many bytes of facts it carries; all else in it is small.
    pub fn facts_size(&self) -> usize {
        let size = |facts: &Attributes| facts.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        match self {
            Request::PutCandidacy { record, .. } => size(&record.facts),
            Request::Take { record, .. } | Request::RewriteLeader { record, .. } => {
                size(&record.facts)
            }
            Request::TakeOver { ending, record, .. } => {
                size(&ending.record.facts) + record.as_ref().map_or(0, |r| size(&r.facts))
            }
            Request::HandOver { ending, record, .. } => {
                size(&ending.record.facts) + size(&record.facts)
            }
            Request::Resign { ending, .. } => size(&ending.record.facts),
            Request::Batch(requests) => requests.iter().map(Request::facts_size).sum(),
            Request::List
            | Request::ReadLeader { .. }
            | Request::CreateSession { .. }
            | Request::Beat { .. }
            | Request::EndSession { .. } => 0,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was applied, at this revision (that of the reading, for reads).
    Applied {
        /// The revision in the response's header.
        at: Revision,
        /// For reads, what was read; for transactions, what it wrote, as far as it matters.
        seen: Vec<Entry>,
    },
    /// A compare did not hold and nothing was written.
    Rejected {
        /// The revision in the response's header.
        at: Revision,
        /// The keys that were compared, as they are: what is timed next is timed from the
        /// receipt of these.
        seen: Vec<Entry>,
    },
    /// Nobody knows: it may have been applied, it may still be.
    Unknown,
}

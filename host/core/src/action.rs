//! What the core wants done: the complete list of its effects.

use std::time::Duration;

use crate::ids::{ElectionName, NodeName, Nonce, OpId, Revision, SessionId, Token};
use crate::record::EndReason;
use crate::request::Request;
use crate::time::Time;
use crate::view::View;

/// An effect. The order in which the shell runs the actions of one call does not matter to
/// safety.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "most actions are requests, and none is kept")]
pub enum Action {
    /// Send a request and answer with [`Event::Reply`](crate::Event::Reply), at the latest after
    /// `timeout` (then as unknown).
    Send {
        /// Names the reply.
        op: OpId,
        /// What to send.
        request: Request,
        /// When to give up waiting.
        timeout: Duration,
    },
    /// Begin to watch the whole cluster after this revision, ending any earlier watch.
    Watch {
        /// The revision of the reading that the watch continues.
        after: Revision,
    },
    /// The session changed: remember it beside the terms, so that a successor of this daemon
    /// can prove its death or adopt it. `None` when it has ended.
    Session {
        /// The session and the nonce in its record.
        session: Option<(SessionId, Nonce)>,
    },
    /// Terms on the session are valid until this deadline: move the shared page's on.
    Extend {
        /// The session.
        session: SessionId,
        /// By the fast clock.
        deadline: Time,
    },
    /// Ask the policy for a ranking; answer with [`Event::Ranked`](crate::Event::Ranked).
    Rank {
        /// Names the answer.
        op: OpId,
        /// What it may depend on; the view names the election.
        view: Box<View>,
    },
    /// A term may begin here in a moment: get ready, as far as nobody can see it.
    /// [`Lead`](Self::Lead) need not follow.
    Prepare {
        /// Which election.
        election: ElectionName,
        /// The term, once its key has been seen; until it is read back, it proves nothing.
        token: Option<Token>,
    },
    /// This node leads: put exclusive effects in place, each only while the term is valid.
    Lead {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// The term goes on from an earlier daemon's: files are in place and stay untouched as
        /// long as they are right.
        adopted: bool,
    },
    /// This node does not lead, and has nothing exclusive in place: what runs everywhere runs.
    /// Also sent when only the holder changes.
    Follow {
        /// Which election.
        election: ElectionName,
        /// The holder in store, if there is one.
        holder: Option<(NodeName, Token)>,
    },
    /// Remove the election's exclusive effects and make sure; answer with
    /// [`Event::Withdrawn`](crate::Event::Withdrawn).
    Withdraw {
        /// Names the answer.
        op: OpId,
        /// Which election.
        election: ElectionName,
    },
    /// Find out whether what the term ran has stopped; answer with
    /// [`Event::StopChecked`](crate::Event::StopChecked) in bounded time.
    StopCheck {
        /// Names the answer.
        op: OpId,
        /// Which election.
        election: ElectionName,
    },
    /// Something that operators should know, for logs, metrics and hooks.
    Notice(Notice),
    /// Everything is withdrawn and given up: the daemon may exit.
    Exit(Exit),
}

/// Why the core is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It was told to stop.
    Stopped,
    /// Another live daemon beats under this node's name.
    NameTaken {
        /// Its instance nonce.
        nonce: Nonce,
        /// Where it says it is.
        addresses: Vec<String>,
    },
    /// The store's revisions went back: restored from a backup, or another store.
    StoreWentBack {
        /// The highest revision seen before.
        known: Revision,
        /// What it now says.
        seen: Revision,
    },
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The name is claimed and the session stands.
    SessionBegan {
        /// The session.
        session: SessionId,
    },
    /// The session's deadline passed, or it was ended from outside.
    SessionLost {
        /// The session.
        session: SessionId,
        /// Whether its deadline passed without a confirmed beat.
        deadline_passed: bool,
    },
    /// A record of this node's name stands and is being timed.
    NameContested {
        /// Its instance nonce.
        nonce: Nonce,
    },
    /// This node now holds a term.
    TermBegan {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// What is waited before placing.
        delay: Duration,
        /// Taken over from, or received from, this node.
        from: Option<NodeName>,
        /// How long nobody held the election before, by the wall clocks of two nodes: for people. `None` where
        /// that is unknown, and for a term that goes on after a restart.
        gap: Option<Duration>,
        /// In words.
        why: String,
    },
    /// A term of this node ended.
    TermEnded {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// Who received it, if it was handed over.
        successor: Option<NodeName>,
        /// Why it ended.
        why: EndReason,
    },
    /// The holder in store changed.
    HolderChanged {
        /// Which election.
        election: ElectionName,
        /// The new holder and term.
        holder: Option<(NodeName, Token)>,
    },
    /// Exclusive effects could not be withdrawn: the term is kept, and nobody else may lead.
    Stuck {
        /// Which election.
        election: ElectionName,
        /// The term.
        token: Token,
        /// What is in the way.
        reason: String,
    },
    /// A stuck term's effects are withdrawn at last.
    Unstuck {
        /// Which election.
        election: ElectionName,
    },
    /// A policy failed; what stands in for it.
    PolicyFailed {
        /// Which election.
        election: ElectionName,
        /// What went wrong.
        reason: String,
        /// Whether the built-in ranking stands in; otherwise nobody new is elected.
        fallback: bool,
    },
    /// A voluntary change was not made because these nodes decide by another policy version.
    VersionsDiffer {
        /// Which election.
        election: ElectionName,
        /// Who.
        nodes: Vec<NodeName>,
    },
    /// Keys that are not ours hold the election.
    ForeignHolder {
        /// Which election.
        election: ElectionName,
        /// The last part of its leader key.
        suffix: String,
    },
    /// A reply came that answers nothing; it was dropped.
    StrayReply {
        /// What it claimed to answer.
        op: OpId,
    },
}

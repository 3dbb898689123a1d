//! What all parts of the core share: settings, the session, the replica, timers and the
//! operations under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, Exit, Notice};
use crate::ids::{ElectionName, NodeName, OpId, Revision, SessionId};
use crate::replica::Replica;
use crate::request::{Evidence, Key, Request, leader_suffix};
use crate::session::Session;
use crate::settings::Settings;
use crate::time::{Now, Time};
use crate::timers::{Timer, Timers};

/// What an operation under way is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    List,
    CreateSession {
        sent: Time,
    },
    Beat {
        session: SessionId,
        sent: Time,
    },
    EndSession(NodeName),
    Election(ElectionName, Step),
    /// Several elections' operations in one transaction, each of them begun for itself.
    Batch(Vec<(OpId, Request)>),
}

/// An election's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Candidacy,
    Take,
    ReadBack,
    Rewrite,
    GiveUp,
    Rank,
    Withdraw,
    StopCheck,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    pub(crate) purpose: Purpose,
    /// The highest revision known when it was sent to the store: its reply cannot show an
    /// earlier one.
    pub(crate) floor: Option<Revision>,
    /// The keys that are gone once it was applied.
    pub(crate) deletes: Vec<Key>,
}

pub(crate) fn deletions(request: &Request) -> Vec<Key> {
    match request {
        Request::EndSession { node, .. } => vec![Key::Session(node.clone())],
        Request::TakeOver { election, holder, holder_session, evidence, .. } => {
            let mut keys = vec![Key::Leader(election.clone(), leader_suffix(*holder_session))];
            if let Evidence::Silent(_) = evidence {
                keys.push(Key::Session(holder.clone()));
            }
            keys
        }
        Request::HandOver { election, session, .. } | Request::Resign { election, session, .. } => {
            vec![
                Key::Leader(election.clone(), leader_suffix(*session)),
                Key::Transfer(election.clone()),
            ]
        }
        Request::Batch(requests) => requests.iter().flat_map(deletions).collect(),
        _ => Vec::new(),
    }
}

/// The shared part of the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) settings: Arc<Settings>,
    /// The present of this call.
    pub(crate) now: Now,
    pub(crate) session: Session,
    pub(crate) replica: Replica,
    pub(crate) timers: Timers,
    /// Deadlines by the slow clock: for judging others.
    pub(crate) slow_timers: Timers,
    pub(crate) ops: BTreeMap<OpId, Op>,
    next_op: OpId,
    /// Elections whose inputs changed in this call.
    pub(crate) dirty: BTreeSet<ElectionName>,
    /// Whether a watch was begun that is not known to be broken.
    pub(crate) watching: bool,
    /// The revision that the watch must have reached when [`Timer::WatchLag`] fires.
    pub(crate) watch_due: Revision,
    /// The daemon was told to stop, at this time.
    pub(crate) stopping: Option<Time>,
    /// The node must end for this reason once everything is withdrawn.
    pub(crate) fatal: Option<Exit>,
    pub(crate) actions: Vec<Action>,
    /// Requests of this call that may share a transaction; sent at its end.
    pub(crate) sharing: Vec<(OpId, Request)>,
}

impl Node {
    pub(crate) fn new(mut settings: Settings, now: Now) -> Self {
        let mut replica = Replica::default();
        replica.highest = std::mem::take(&mut settings.past.revision);
        Node {
            session: Session::new(&settings, now),
            settings: Arc::new(settings),
            now,
            replica,
            timers: Timers::default(),
            slow_timers: Timers::default(),
            ops: BTreeMap::new(),
            next_op: OpId(1),
            dirty: BTreeSet::new(),
            watching: false,
            watch_due: Revision(0),
            stopping: None,
            fatal: None,
            actions: Vec::new(),
            sharing: Vec::new(),
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.actions.push(Action::Notice(notice));
    }

    /// Registers an operation; its event will carry the id.
    pub(crate) fn begin(&mut self, purpose: Purpose) -> OpId {
        let op = self.next_op;
        self.next_op = OpId(op.0 + 1);
        self.ops.insert(op, Op { purpose, floor: None, deletes: Vec::new() });
        op
    }

    /// Sends a request under a purpose; an election's own at the end of this call, in one
    /// transaction with others.
    pub(crate) fn send(&mut self, purpose: Purpose, request: Request) -> OpId {
        let op = self.begin(purpose);
        if request.election().is_some() {
            self.sharing.push((op, request));
        } else {
            self.send_begun(op, request);
        }
        op
    }

    /// Has an election looked at again at `at`, or earlier if that is already wanted.
    pub(crate) fn wake(&mut self, election: &ElectionName, at: Time) {
        self.timers.set_earlier(Timer::Election(election.clone()), at);
    }

    pub(crate) fn me(&self) -> &NodeName {
        &self.settings.node
    }

    /// How long to wait before trying again what the store did not do.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        const FIRST: Duration = Duration::from_millis(20);
        let cap = self.settings.timings.request_timeout.max(FIRST);
        FIRST.saturating_mul(1 << failures.min(10)).min(cap)
    }

    /// Whether another node's session is silent: its record has not changed for its TTL and
    /// the clocks' errors, since this node received it.
    pub(crate) fn is_silent(&self, node: &NodeName) -> bool {
        self.silent_at(node).is_some_and(|at| at <= self.now.slow)
    }

    /// When a session will count as silent unless its record changes, by the slow clock.
    pub(crate) fn silent_at(&self, node: &NodeName) -> Option<Time> {
        let heard = self.replica.heard(node)?;
        // A record that cannot be read was damaged by somebody: its owner, if alive, rewrites it
        // with its next beat, so our own TTL is long enough.
        let ttl = self.replica.session(node).map_or(self.settings.timings.ttl, |(_, r)| r.ttl());
        Some(heard.at + self.settings.timings.silence(ttl))
    }

    /// Whether the session that a candidacy or a term names stands: its record is the node's
    /// current one and is not silent.
    pub(crate) fn stands(&self, node: &NodeName, session: SessionId) -> bool {
        if node == self.me() {
            return self.session.valid(self.now) == Some(session);
        }
        self.replica.session_key(node).is_some_and(|stored| stored.create.0 == session.0)
            && !self.is_silent(node)
    }
}

//! One case's cluster, and short ways to do and say what a case is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::record::{
    CandidacyRecord, EndReason, Fitness, HistoryRecord, LeaderRecord, PolicyVersion, SessionRecord,
};
use conclave_core::request::{Ending, Target, leader_suffix};
use conclave_core::{
    ElectionName, Entry, Key, NodeName, Outcome, Request, Revision, SessionId, Stored, Token, Value,
};
use conclave_store::{Keys, Reply, Store};

use crate::world::World;

/// Long enough for a busy machine; no case waits for it to pass.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A cluster of one case.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) world: Arc<dyn World>,
    pub(crate) cluster: String,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
}

/// A candidate, as the store has it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) election: ElectionName,
    pub(crate) node: NodeName,
    pub(crate) session: SessionId,
    pub(crate) candidacy: Revision,
}

/// A term, as the store has it.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) holder: Candidate,
    pub(crate) token: Token,
    pub(crate) modified: Revision,
}

impl Scene {
    pub(crate) async fn open(world: Arc<dyn World>, cluster: &str) -> Self {
        let store = world.open(cluster).await;
        Scene { keys: Keys::new(cluster), cluster: cluster.to_owned(), store, world }
    }

    pub(crate) async fn execute(&self, request: Request) -> Reply {
        self.store.execute(request, TIMEOUT).await.expect("the store answers")
    }

    /// Runs a request that must be applied.
    pub(crate) async fn apply(&self, request: Request) -> (Revision, Seen) {
        match self.execute(request.clone()).await.outcome {
            Outcome::Applied { at, seen } => (at, Seen::new(at, seen)),
            other => panic!("{request:#?} was not applied: {other:#?}"),
        }
    }

    /// Runs a request that must be rejected, and makes sure that it changed nothing.
    pub(crate) async fn reject(&self, request: Request) -> Seen {
        let before = self.everything().await;
        let seen = match self.execute(request.clone()).await.outcome {
            Outcome::Rejected { at, seen } => Seen::new(at, seen),
            other => panic!("{request:#?} was not rejected: {other:#?}"),
        };
        assert_eq!(before, self.everything().await, "a rejected request changes nothing");
        seen
    }

    /// Every key and its state.
    pub(crate) async fn everything(&self) -> BTreeMap<Key, Stored> {
        let (_, seen) = self.apply(Request::List).await;
        seen.0.into_iter().map(|entry| (entry.key, entry.stored.expect("it exists"))).collect()
    }

    pub(crate) async fn session(&self, node: &str) -> SessionId {
        let request = Request::CreateSession { node: node.into(), record: session_record(node, 0) };
        SessionId(self.apply(request).await.0.0)
    }

    pub(crate) async fn beat(&self, node: &str, session: SessionId, beat: u64) -> Revision {
        let record = session_record(node, beat);
        self.apply(Request::Beat { node: node.into(), session, record }).await.0
    }

    pub(crate) async fn end_session(&self, node: &str) {
        let key = Key::Session(node.into());
        let stored = self.everything().await[&key].clone();
        self.apply(end(node, SessionId(stored.create.0), stored.modified)).await;
    }

    /// A node with a new session as a candidate.
    pub(crate) async fn candidate(&self, election: &str, node: &str) -> Candidate {
        let session = self.session(node).await;
        let (election, node) = (ElectionName::new(election), NodeName::new(node));
        let candidate = Candidate { election, node, session, candidacy: Revision(0) };
        Candidate { candidacy: self.stand(&candidate).await, ..candidate }
    }

    /// Rewrites a candidacy.
    pub(crate) async fn stand(&self, candidate: &Candidate) -> Revision {
        let Candidate { election, node, session, .. } = candidate.clone();
        let record = candidacy_record(session);
        self.apply(Request::PutCandidacy { election, node, record }).await.0
    }

    /// A node that took a vacant election.
    pub(crate) async fn term(&self, election: &str, node: &str) -> Term {
        let holder = self.candidate(election, node).await;
        let (at, _) = self.apply(take(&holder, Revision(0))).await;
        Term { holder, token: Token(at.0), modified: at }
    }
}

/// What a reply reports.
#[derive(Debug)]
pub(crate) struct Seen(pub(crate) Vec<Entry>);

impl Seen {
    fn new(at: Revision, entries: Vec<Entry>) -> Self {
        let mut keys: Vec<_> = entries.iter().map(|entry| &entry.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), entries.len(), "each key is reported once: {entries:#?}");
        for entry in &entries {
            assert_eq!(entry.at, at, "everything is as of the reply's revision");
            let stored = entry.stored.as_ref();
            assert!(stored.is_none_or(|it| it.create <= it.modified && it.modified <= at));
        }
        Seen(entries)
    }

    /// The state of a key that must be reported; `None` where it must be reported absent.
    pub(crate) fn state(&self, key: &Key) -> Option<&Stored> {
        let entry = self.0.iter().find(|entry| entry.key == *key);
        entry.unwrap_or_else(|| panic!("{key:?} is not among {:#?}", self.0)).stored.as_ref()
    }

    /// The state of a key that must be reported to exist.
    pub(crate) fn stored(&self, key: &Key) -> &Stored {
        self.state(key).unwrap_or_else(|| panic!("{key:?} is absent"))
    }
}

/// The ending of a session as it was seen.
pub(crate) fn end(node: &str, session: SessionId, modified: Revision) -> Request {
    Request::EndSession { node: node.into(), session, modified }
}

pub(crate) fn session_record(node: &str, beat: u64) -> SessionRecord {
    SessionRecord {
        nonce: format!("nonce of {node}").as_str().into(),
        ttl_ms: 10_000,
        beat,
        age_ms: beat * 2_000,
        boot_id: "boot".into(),
        addresses: vec!["here".into()],
        labels: [("zone".to_owned(), "ü".to_owned())].into(),
        version: "1".into(),
        format: conclave_core::record::FORMAT,
    }
}

pub(crate) fn candidacy_record(session: SessionId) -> CandidacyRecord {
    CandidacyRecord {
        session,
        fitness: Fitness::fit(),
        facts: BTreeMap::new(),
        policy: PolicyVersion::default(),
        accepted: None,
    }
}

pub(crate) fn leader_record(holder: &NodeName, session: SessionId) -> LeaderRecord {
    LeaderRecord {
        holder: holder.clone(),
        session,
        facts: BTreeMap::new(),
        since_unix_ms: 1,
        delay_ms: 0,
        why: "the case".into(),
        offer: None,
    }
}

pub(crate) fn history_record(holder: &NodeName) -> HistoryRecord {
    HistoryRecord {
        holder: holder.clone(),
        successor: None,
        from_unix_ms: 1,
        to_unix_ms: 2,
        why: EndReason::Stopping,
        clean: true,
        delay_ms: 0,
        facts: BTreeMap::new(),
    }
}

pub(crate) fn take(candidate: &Candidate, history: Revision) -> Request {
    let Candidate { election, node, session, candidacy } = candidate.clone();
    let record = leader_record(&node, session);
    Request::Take { election, node, candidacy, history, record }
}

pub(crate) fn leader_key(candidate: &Candidate) -> Key {
    Key::Leader(candidate.election.clone(), leader_suffix(candidate.session))
}

pub(crate) fn session_key(candidate: &Candidate) -> Key {
    Key::Session(candidate.node.clone())
}

pub(crate) fn candidacy_key(candidate: &Candidate) -> Key {
    Key::Candidacy(candidate.election.clone(), candidate.node.clone())
}

pub(crate) fn history_key(term: &Term) -> Key {
    Key::History(term.holder.election.clone(), term.token)
}

pub(crate) fn ending(term: &Term) -> Ending {
    Ending { token: term.token, record: history_record(&term.holder.node), trim: Vec::new() }
}

pub(crate) fn target(candidate: &Candidate) -> Target {
    let Candidate { node, session, candidacy, .. } = candidate.clone();
    Target { node, session, candidacy }
}

pub(crate) fn hand_over(term: &Term, to: &Candidate) -> Request {
    let Candidate { election, node, session, .. } = term.holder.clone();
    Request::HandOver {
        election,
        node,
        session,
        modified: term.modified,
        target: target(to),
        record: leader_record(&to.node, to.session),
        ending: ending(term),
    }
}

pub(crate) fn resign(term: &Term) -> Request {
    let Candidate { election, session, .. } = term.holder.clone();
    Request::Resign { election, session, modified: term.modified, ending: ending(term) }
}

pub(crate) fn rewrite(term: &Term) -> Request {
    let Candidate { election, node, session, .. } = term.holder.clone();
    let record = leader_record(&node, session);
    Request::RewriteLeader { election, node, session, modified: term.modified, record }
}

/// Whether a stored leader key is this candidate's.
pub(crate) fn is_led_by(stored: &Stored, candidate: &Candidate) -> bool {
    matches!(&stored.value, Value::Leader(record) if record.holder == candidate.node)
}

//! A model of the store: linearizable, with revisions, as the contract in
//! `conclave_core::request` states it.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::request::{Ending, Target, leader_suffix};
use conclave_core::{
    ElectionName, Entry, Evidence, Key, NodeName, Outcome, Request, Revision, SessionId, Stored,
    Token, Value,
};

/// The whole store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ModelStore {
    revision: u64,
    keys: BTreeMap<Key, Stored>,
    /// The changes since it was last compacted, in order: what watches deliver.
    log: Vec<Entry>,
    compacted: Revision,
}

impl ModelStore {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// The changes after a revision, as far as they were not compacted.
    pub fn changes(&self, after: Revision) -> Vec<Entry> {
        self.log_after(after).to_vec()
    }

    pub(crate) fn log_after(&self, after: Revision) -> &[Entry] {
        // Whoever asks is rarely far behind.
        let before = self.log.iter().rposition(|entry| entry.at <= after);
        &self.log[before.map_or(0, |last| last + 1)..]
    }

    /// Forgets the changes so far: no watch can begin before this revision any more.
    pub fn compact(&mut self) {
        self.compacted = self.revision();
        self.log.clear();
    }

    /// The newest revision whose changes are forgotten.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// A backup, as it is after it was restored: watches can begin now and no earlier.
    pub fn backup(&self) -> Self {
        let mut copy = self.clone();
        copy.compact();
        copy
    }

    /// Runs a request as one transaction.
    pub fn execute(&mut self, request: &Request) -> Outcome {
        if self.holds(request) {
            self.apply(request)
        } else {
            Outcome::Rejected { at: self.revision(), seen: self.compared(request) }
        }
    }

    /// Writes a key as an operator or a foreign competitor would.
    pub fn put(&mut self, key: Key, value: Value, leased: bool) {
        self.revision += 1;
        self.write(key, value, leased);
    }

    /// Deletes a key as an operator or a foreign competitor would.
    pub fn delete(&mut self, key: &Key) {
        self.revision += 1;
        self.remove(key);
    }

    /// A key's state.
    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.keys.get(key)
    }

    /// Every key with its state.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.keys.iter()
    }

    fn create(&self, key: &Key) -> u64 {
        self.keys.get(key).map_or(0, |stored| stored.create.0)
    }

    fn modified(&self, key: &Key) -> u64 {
        self.keys.get(key).map_or(0, |stored| stored.modified.0)
    }

    /// The keys under an election's leader prefix: the last part of each, and its state.
    pub fn leaders(&self, election: &ElectionName) -> impl Iterator<Item = (&str, &Stored)> {
        let from = Key::Leader(election.clone(), String::new());
        self.keys.range(from..).map_while(move |(key, stored)| match key {
            Key::Leader(of, suffix) if of == election => Some((suffix.as_str(), stored)),
            _ => None,
        })
    }

    fn leader_keys(&self, election: &ElectionName) -> Vec<Key> {
        let key = |(suffix, _): (&str, &Stored)| Key::Leader(election.clone(), suffix.to_owned());
        self.leaders(election).map(key).collect()
    }

    fn history(&self, election: &ElectionName) -> impl Iterator<Item = (&Key, &Stored)> {
        let from = Key::History(election.clone(), Token(0));
        let to = Key::History(election.clone(), Token(u64::MAX));
        self.keys.range(from..=to)
    }

    fn history_modified(&self, election: &ElectionName) -> u64 {
        self.history(election).map(|(_, stored)| stored.modified.0).max().unwrap_or(0)
    }

    fn stands(&self, node: &NodeName, session: SessionId) -> bool {
        self.create(&Key::Session(node.clone())) == session.0
    }

    fn record_is(&self, node: &NodeName, session: SessionId, at: Revision) -> bool {
        self.stands(node, session) && self.modified(&Key::Session(node.clone())) == at.0
    }

    fn candidacy_is(&self, election: &ElectionName, node: &NodeName, at: Revision) -> bool {
        self.modified(&Key::Candidacy(election.clone(), node.clone())) == at.0
    }

    fn target_is(&self, election: &ElectionName, target: &Target) -> bool {
        self.stands(&target.node, target.session)
            && self.candidacy_is(election, &target.node, target.candidacy)
    }

    fn holds(&self, request: &Request) -> bool {
        match request {
            Request::List | Request::ReadLeader { .. } => true,
            Request::CreateSession { node, .. } => self.create(&Key::Session(node.clone())) == 0,
            Request::Beat { node, session, .. } => self.stands(node, *session),
            Request::EndSession { node, session, modified } => {
                self.record_is(node, *session, *modified)
            }
            Request::PutCandidacy { node, record, .. } => self.stands(node, record.session),
            Request::Take { election, node, candidacy, history, record } => {
                self.leaders(election).next().is_none()
                    && self.stands(node, record.session)
                    && self.candidacy_is(election, node, *candidacy)
                    && self.history_modified(election) <= history.0
            }
            Request::TakeOver {
                election,
                node,
                session,
                candidacy,
                holder,
                holder_session,
                evidence,
                ending,
                ..
            } => {
                let ended = match evidence {
                    Evidence::Ended => !self.stands(holder, *holder_session),
                    Evidence::Silent(modified) => {
                        self.record_is(holder, *holder_session, *modified)
                    }
                };
                ended
                    && self.create(&leader_key(election, *holder_session)) == ending.token.0
                    && self.stands(node, *session)
                    && self.candidacy_is(election, node, *candidacy)
            }
            Request::HandOver { election, node, session, modified, target, ending, .. } => {
                self.modified(&leader_key(election, *session)) == modified.0
                    && self.stands(node, *session)
                    && self.leaders(election).all(|(_, s)| s.create.0 <= ending.token.0)
                    && self.target_is(election, target)
            }
            Request::Resign { election, session, modified, .. } => {
                self.modified(&leader_key(election, *session)) == modified.0
            }
            Request::RewriteLeader { election, node, session, modified, .. } => {
                self.modified(&leader_key(election, *session)) == modified.0
                    && self.stands(node, *session)
            }
            Request::Batch(requests) => requests.iter().all(|request| self.holds(request)),
        }
    }

    /// What was compared, as it is; with an election's own transactions its whole leader prefix
    /// and its newest history entry.
    fn compared(&self, request: &Request) -> Vec<Entry> {
        let keys = self.compared_keys(request);
        keys.into_iter().map(|key| self.entry(key)).collect()
    }

    fn compared_keys(&self, request: &Request) -> BTreeSet<Key> {
        let session = |node: &NodeName| Key::Session(node.clone());
        let candidacy = |election: &ElectionName, node: &NodeName| {
            Key::Candidacy(election.clone(), node.clone())
        };
        let (mut keys, election) = match request {
            Request::List | Request::ReadLeader { .. } => return BTreeSet::new(),
            Request::Batch(requests) => {
                return requests.iter().flat_map(|request| self.compared_keys(request)).collect();
            }
            Request::CreateSession { node, .. }
            | Request::Beat { node, .. }
            | Request::EndSession { node, .. }
            | Request::PutCandidacy { node, .. } => (vec![session(node)], None),
            Request::Take { election, node, .. } => {
                (vec![session(node), candidacy(election, node)], Some(election))
            }
            Request::TakeOver { election, node, holder, holder_session, .. } => {
                let held = leader_key(election, *holder_session);
                let keys = vec![session(node), session(holder), candidacy(election, node), held];
                (keys, Some(election))
            }
            Request::HandOver { election, node, session: own, target, .. } => {
                let own = leader_key(election, *own);
                let candidacy = candidacy(election, &target.node);
                (vec![own, session(node), session(&target.node), candidacy], Some(election))
            }
            Request::Resign { election, session, .. } => {
                (vec![leader_key(election, *session)], Some(election))
            }
            Request::RewriteLeader { election, node, session: own, .. } => {
                (vec![leader_key(election, *own), session(node)], Some(election))
            }
        };
        if let Some(election) = election {
            keys.extend(self.leader_keys(election));
            let newest = self.history(election).max_by_key(|(_, stored)| stored.modified);
            keys.extend(newest.map(|(key, _)| key.clone()));
        }
        keys.into_iter().collect()
    }

    fn entry(&self, key: Key) -> Entry {
        let stored = self.keys.get(&key).cloned();
        Entry { key, at: self.revision(), stored }
    }

    fn apply(&mut self, request: &Request) -> Outcome {
        if request.only_reads() {
            return self.read(self.read_by(request));
        }
        self.revision += 1;
        let mut written = Vec::new();
        self.change(request, &mut written);
        let keys: Vec<Key> = written.iter().map(|(key, _)| key.clone()).collect();
        for (key, value) in written {
            self.write(key, value, false);
        }
        self.read(keys)
    }

    fn read_by(&self, request: &Request) -> Vec<Key> {
        match request {
            Request::List => self.keys.keys().cloned().collect(),
            Request::ReadLeader { election } => self.leader_keys(election),
            Request::Batch(requests) => requests.iter().flat_map(|r| self.read_by(r)).collect(),
            _ => Vec::new(),
        }
    }

    /// Deletes what the request deletes, and collects what it writes.
    fn change(&mut self, request: &Request, written: &mut Vec<(Key, Value)>) {
        match request.clone() {
            Request::List | Request::ReadLeader { .. } => {}
            Request::Batch(requests) => {
                requests.iter().for_each(|request| self.change(request, written));
            }
            Request::CreateSession { node, record } | Request::Beat { node, record, .. } => {
                written.push((Key::Session(node), Value::Session(record)));
            }
            Request::EndSession { node, .. } => self.remove(&Key::Session(node)),
            Request::PutCandidacy { election, node, record } => {
                written.push((Key::Candidacy(election, node), Value::Candidacy(record)));
            }
            Request::Take { election, record, .. } => {
                written.push((leader_key(&election, record.session), Value::Leader(record)));
            }
            Request::TakeOver {
                election,
                holder,
                holder_session,
                evidence,
                ending,
                record,
                ..
            } => {
                self.remove(&leader_key(&election, holder_session));
                if let Evidence::Silent(_) = evidence {
                    self.remove(&Key::Session(holder));
                }
                self.end(&election, ending, written);
                if let Some(record) = record {
                    written.push((leader_key(&election, record.session), Value::Leader(record)));
                }
            }
            Request::HandOver { election, session, record, ending, .. } => {
                self.remove(&leader_key(&election, session));
                self.remove(&Key::Transfer(election.clone()));
                self.end(&election, ending, written);
                written.push((leader_key(&election, record.session), Value::Leader(record)));
            }
            Request::Resign { election, session, ending, .. } => {
                self.remove(&leader_key(&election, session));
                self.remove(&Key::Transfer(election.clone()));
                self.end(&election, ending, written);
            }
            Request::RewriteLeader { election, session, record, .. } => {
                written.push((leader_key(&election, session), Value::Leader(record)));
            }
        }
    }

    fn read(&self, keys: Vec<Key>) -> Outcome {
        let seen = keys.into_iter().map(|key| self.entry(key)).collect();
        Outcome::Applied { at: self.revision(), seen }
    }

    fn end(&mut self, election: &ElectionName, ending: Ending, written: &mut Vec<(Key, Value)>) {
        for token in ending.trim {
            self.remove(&Key::History(election.clone(), token));
        }
        let key = Key::History(election.clone(), ending.token);
        written.push((key, Value::History(ending.record)));
    }

    fn write(&mut self, key: Key, value: Value, leased: bool) {
        let at = self.revision();
        let create = self.keys.get(&key).map_or(at, |stored| stored.create);
        let stored = Stored { create, modified: at, leased, value };
        self.log.push(Entry { key: key.clone(), at, stored: Some(stored.clone()) });
        self.keys.insert(key, stored);
    }

    fn remove(&mut self, key: &Key) {
        if self.keys.remove(key).is_some() {
            let at = self.revision();
            self.log.push(Entry { key: key.clone(), at, stored: None });
        }
    }
}

fn leader_key(election: &ElectionName, session: SessionId) -> Key {
    Key::Leader(election.clone(), leader_suffix(session))
}

/// The tokens of the terms that stand, by election: for checkers.
pub fn terms(store: &ModelStore) -> Vec<(ElectionName, Token)> {
    store
        .keys()
        .filter_map(|(key, stored)| match key {
            Key::Leader(election, _) => Some((election.clone(), Token(stored.create.0))),
            _ => None,
        })
        .collect()
}

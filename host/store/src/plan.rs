//! What a request means: the compares, changes and readings of its one transaction, for any
//! store. This is the protocol's "Transactions" made exact; stores only evaluate it.

use std::collections::{BTreeSet, HashSet};

use conclave_core::record::LeaderRecord;
use conclave_core::request::{Ending, Target};
use conclave_core::{
    ElectionName, Entry, Evidence, Key, NodeName, Request, Revision, SessionId, Stored,
};
use serde::Serialize;

use crate::codec;
use crate::error::StoreError;
use crate::keys::{Keys, Range};
use crate::store::Control;

/// How many old history entries one transaction deletes at most; etcd takes 128 operations, and
/// what is left over goes with the next term's end.
const MAX_TRIM: usize = 100;

/// What a request does.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Reads a range at one revision.
    Read(Range),
    /// Compares, then changes.
    Write(Transaction),
}

/// Changes that are made only if every condition holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) changes: Vec<Change>,
    /// What is read whether applied or not, beside what was written or compared.
    also: Vec<Reading>,
}

/// A compare. A missing key has revisions of 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The key's create revision is this.
    Created { key: Vec<u8>, at: u64 },
    /// The key's create revision is another than this.
    CreatedElse { key: Vec<u8>, than: u64 },
    /// The key's mod revision is this.
    Modified { key: Vec<u8>, at: u64 },
    /// No key is in the range.
    Vacant { range: Range },
    /// No key in the range was created after this revision.
    NoneCreatedAfter { range: Range, revision: u64 },
    /// No key in the range was modified after this revision.
    NoneModifiedAfter { range: Range, revision: u64 },
}

/// A change of one key; no transaction changes a key twice.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// Something to read in the transaction itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// One key, or its absence.
    Key(Vec<u8>),
    /// Every key in a range.
    Range(Range),
    /// The key in a range that was modified last.
    Newest(Range),
}

/// A key as a store has it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) create: u64,
    pub(crate) modified: u64,
    pub(crate) leased: bool,
    pub(crate) value: Vec<u8>,
}

impl Row {
    /// The key in the terms of the domain; `None` for what is no key of the cluster.
    pub(crate) fn entry(&self, keys: &Keys, at: u64) -> Option<Entry> {
        let key = keys.decode(&self.key)?;
        let value = codec::decode(&key, &self.value);
        let stored = Stored {
            create: Revision(self.create),
            modified: Revision(self.modified),
            leased: self.leased,
            value,
        };
        Some(Entry { key, at: Revision(at), stored: Some(stored) })
    }
}

impl Transaction {
    /// What to read once the changes are made.
    pub(crate) fn readings_when_applied(&self) -> Vec<Reading> {
        let written = self.changes.iter().filter_map(|change| match change {
            Change::Put { key, .. } => Some(Reading::Key(key.clone())),
            Change::Delete { .. } => None,
        });
        written.chain(self.also.iter().cloned()).collect()
    }

    /// What to read when a condition does not hold: every key that is compared.
    pub(crate) fn readings_when_rejected(&self) -> Vec<Reading> {
        let mut readings = self.also.clone();
        for condition in &self.conditions {
            let reading = condition.reading();
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
        readings
    }

    /// The keys that it deletes.
    pub(crate) fn deleted(&self) -> impl Iterator<Item = &[u8]> {
        self.changes.iter().filter_map(|change| match change {
            Change::Delete { key } => Some(key.as_slice()),
            Change::Put { .. } => None,
        })
    }

    fn put<T: Serialize>(&mut self, key: Vec<u8>, record: &T) -> Result<(), StoreError> {
        let value = codec::encode(&key, record)?;
        self.changes.push(Change::Put { key, value });
        Ok(())
    }

    /// Deletes a key, once: the requests of a batch may all end the same session.
    fn delete(&mut self, key: Vec<u8>) {
        if !self.deleted().any(|deleted| deleted == key) {
            self.changes.push(Change::Delete { key });
        }
    }
}

impl Condition {
    fn reading(&self) -> Reading {
        match self {
            Condition::Created { key, .. }
            | Condition::CreatedElse { key, .. }
            | Condition::Modified { key, .. } => Reading::Key(key.clone()),
            Condition::Vacant { range } | Condition::NoneCreatedAfter { range, .. } => {
                Reading::Range(range.clone())
            }
            Condition::NoneModifiedAfter { range, .. } => Reading::Newest(range.clone()),
        }
    }
}

/// The entries that a transaction or a reading reports, each key once: what each of `readings`
/// found, and `deleted` keys as absent, all as of revision `at`.
pub(crate) fn report<'a>(
    keys: &Keys,
    at: u64,
    readings: &[Reading],
    found: &[Vec<Row>],
    deleted: impl Iterator<Item = &'a [u8]>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut known = HashSet::new();
    let mut add = |entry: Option<Entry>| {
        if let Some(entry) = entry.filter(|entry| known.insert(entry.key.clone())) {
            entries.push(entry);
        }
    };
    let absent =
        |key: &[u8]| keys.decode(key).map(|key| Entry { key, at: Revision(at), stored: None });
    for (reading, rows) in readings.iter().zip(found) {
        rows.iter().for_each(|row| add(row.entry(keys, at)));
        if let (Reading::Key(key), true) = (reading, rows.is_empty()) {
            add(absent(key));
        }
    }
    deleted.for_each(|key| add(absent(key)));
    entries
}

/// What an operator's intent does.
pub(crate) fn plan_control(keys: &Keys, control: &Control) -> Result<Transaction, StoreError> {
    fn set<T: Serialize>(
        keys: &Keys,
        key: Key,
        record: Option<&T>,
    ) -> Result<Transaction, StoreError> {
        let mut txn = Transaction::default();
        match record {
            Some(record) => txn.put(keys.encode(&key), record)?,
            None => txn.delete(keys.encode(&key)),
        }
        Ok(txn)
    }
    match control {
        Control::Pause { election, mark } => set(keys, Key::Pause(election.clone()), mark.as_ref()),
        Control::EndPause { election, seen } => {
            let key = keys.encode(&Key::Pause(election.clone()));
            let mut txn = Transaction::default();
            txn.conditions.push(Condition::Modified { key: key.clone(), at: seen.0 });
            txn.delete(key);
            Ok(txn)
        }
        Control::Transfer { election, transfer } => {
            set(keys, Key::Transfer(election.clone()), transfer.as_ref())
        }
        Control::Cordon { election, node, mark } => {
            set(keys, Key::Cordon(election.clone(), node.clone()), mark.as_ref())
        }
    }
}

/// A range that holds nothing but the scratch key.
pub(crate) fn scratch_range(keys: &Keys) -> Range {
    let start = keys.scratch();
    let end = [&start[..], b"\0"].concat();
    Range { start, end }
}

/// Writes the scratch key.
pub(crate) fn scratch_write(keys: &Keys) -> Transaction {
    let change = Change::Put { key: keys.scratch(), value: b"measuring".to_vec() };
    Transaction { changes: vec![change], ..Transaction::default() }
}

/// Deletes the scratch key.
pub(crate) fn scratch_delete(keys: &Keys) -> Transaction {
    let change = Change::Delete { key: keys.scratch() };
    Transaction { changes: vec![change], ..Transaction::default() }
}

/// What a request does.
pub(crate) fn plan(keys: &Keys, request: &Request) -> Result<Plan, StoreError> {
    Planner { keys, txn: Transaction::default() }.plan(request)
}

struct Planner<'a> {
    keys: &'a Keys,
    txn: Transaction,
}

impl Planner<'_> {
    fn plan(mut self, request: &Request) -> Result<Plan, StoreError> {
        match request {
            Request::List => return Ok(Plan::Read(self.keys.all())),
            Request::ReadLeader { election } => return Ok(Plan::Read(self.keys.leaders(election))),
            _ => self.add(request)?,
        }
        Ok(Plan::Write(self.txn))
    }

    /// Adds what a request compares, changes and reads.
    fn add(&mut self, request: &Request) -> Result<(), StoreError> {
        match request {
            Request::List => self.also(Reading::Range(self.keys.all())),
            Request::ReadLeader { election } => self.also_leaders(election),
            Request::Batch(requests) => {
                for request in requests {
                    self.add(request)?;
                }
            }
            Request::CreateSession { node, record } => {
                self.session_is(node, SessionId(0));
                self.txn.put(self.session(node), record)?;
            }
            Request::Beat { node, session, record } => {
                self.session_is(node, *session);
                self.txn.put(self.session(node), record)?;
            }
            Request::EndSession { node, session, modified } => {
                self.session_is(node, *session);
                self.modified(self.session(node), *modified);
                self.txn.delete(self.session(node));
            }
            Request::PutCandidacy { election, node, record } => {
                self.session_is(node, record.session);
                self.txn.put(self.candidacy(election, node), record)?;
            }
            Request::Take { election, node, candidacy, history, record } => {
                self.require(Condition::Vacant { range: self.keys.leaders(election) });
                self.candidate_is(election, node, record.session, *candidacy);
                let range = self.keys.history(election);
                self.require(Condition::NoneModifiedAfter { range, revision: history.0 });
                self.put_leader(election, record.session, record)?;
            }
            Request::TakeOver { .. } => self.take_over(request)?,
            Request::HandOver { election, node, session, modified, target, record, ending } => {
                self.also_leaders(election);
                self.modified(self.keys.leader(election, *session), *modified);
                self.session_is(node, *session);
                let range = self.keys.leaders(election);
                self.require(Condition::NoneCreatedAfter { range, revision: ending.token.0 });
                self.hand_over(election, target, record)?;
                self.end(election, *session, ending, true)?;
            }
            Request::Resign { election, session, modified, ending } => {
                self.also_leaders(election);
                self.modified(self.keys.leader(election, *session), *modified);
                self.end(election, *session, ending, true)?;
            }
            Request::RewriteLeader { election, node, session, modified, record } => {
                self.also_leaders(election);
                self.modified(self.keys.leader(election, *session), *modified);
                self.session_is(node, *session);
                self.put_leader(election, *session, record)?;
            }
        }
        Ok(())
    }

    fn take_over(&mut self, request: &Request) -> Result<(), StoreError> {
        let Request::TakeOver {
            election,
            node,
            session,
            candidacy,
            holder,
            holder_session,
            evidence,
            ending,
            record,
        } = request
        else {
            return Ok(());
        };
        self.also_leaders(election);
        let key = self.session(holder);
        match evidence {
            Evidence::Ended => {
                self.require(Condition::CreatedElse { key, than: holder_session.0 });
            }
            Evidence::Silent(timed) => {
                self.session_is(holder, *holder_session);
                self.modified(key.clone(), *timed);
                self.txn.delete(key);
            }
        }
        let key = self.keys.leader(election, *holder_session);
        self.require(Condition::Created { key, at: ending.token.0 });
        self.candidate_is(election, node, *session, *candidacy);
        self.end(election, *holder_session, ending, false)?;
        if let Some(record) = record {
            self.put_leader(election, *session, record)?;
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        election: &ElectionName,
        target: &Target,
        record: &LeaderRecord,
    ) -> Result<(), StoreError> {
        self.candidate_is(election, &target.node, target.session, target.candidacy);
        self.put_leader(election, target.session, record)
    }

    /// The term on this session ends: its key goes, its history entry comes.
    fn end(
        &mut self,
        election: &ElectionName,
        session: SessionId,
        ending: &Ending,
        clear_transfer: bool,
    ) -> Result<(), StoreError> {
        self.txn.delete(self.keys.leader(election, session));
        if clear_transfer {
            self.txn.delete(self.keys.encode(&Key::Transfer(election.clone())));
        }
        let key = |token| self.keys.encode(&Key::History(election.clone(), token));
        let mut stale = BTreeSet::from_iter(&ending.trim);
        stale.remove(&ending.token);
        let stale: Vec<_> = stale.into_iter().take(MAX_TRIM).map(|token| key(*token)).collect();
        self.txn.put(key(ending.token), &ending.record)?;
        stale.into_iter().for_each(|key| self.txn.delete(key));
        Ok(())
    }

    fn candidate_is(
        &mut self,
        election: &ElectionName,
        node: &NodeName,
        session: SessionId,
        candidacy: Revision,
    ) {
        self.session_is(node, session);
        self.modified(self.candidacy(election, node), candidacy);
    }

    fn session_is(&mut self, node: &NodeName, session: SessionId) {
        self.require(Condition::Created { key: self.session(node), at: session.0 });
    }

    fn modified(&mut self, key: Vec<u8>, at: Revision) {
        self.require(Condition::Modified { key, at: at.0 });
    }

    fn put_leader(
        &mut self,
        election: &ElectionName,
        session: SessionId,
        record: &LeaderRecord,
    ) -> Result<(), StoreError> {
        self.txn.put(self.keys.leader(election, session), record)
    }

    fn require(&mut self, condition: Condition) {
        if !self.txn.conditions.contains(&condition) {
            self.txn.conditions.push(condition);
        }
    }

    /// Whoever touches a standing term sees the whole leader prefix, as of the same transaction.
    fn also_leaders(&mut self, election: &ElectionName) {
        self.also(Reading::Range(self.keys.leaders(election)));
    }

    fn also(&mut self, reading: Reading) {
        self.txn.also.push(reading);
    }

    fn session(&self, node: &NodeName) -> Vec<u8> {
        self.keys.encode(&Key::Session(node.clone()))
    }

    fn candidacy(&self, election: &ElectionName, node: &NodeName) -> Vec<u8> {
        self.keys.encode(&Key::Candidacy(election.clone(), node.clone()))
    }
}

#[cfg(test)]
mod tests {
    use conclave_core::record::{
        CandidacyRecord, EndReason, Fitness, HistoryRecord, PolicyVersion,
    };
    use conclave_core::{SessionId, Token};

    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn leader() -> LeaderRecord {
        LeaderRecord {
            holder: "a".into(),
            session: SESSION,
            facts: Default::default(),
            since_unix_ms: 0,
            delay_ms: 0,
            why: String::new(),
            offer: None,
        }
    }

    fn ending() -> Ending {
        let record = HistoryRecord {
            holder: "a".into(),
            successor: None,
            from_unix_ms: 0,
            to_unix_ms: 0,
            why: EndReason::Silent,
            clean: true,
            delay_ms: 0,
            facts: Default::default(),
        };
        Ending { token: Token(9), record, trim: (1..9).map(Token).collect() }
    }

    fn requests(election: &str) -> Vec<Request> {
        let election = || ElectionName::new(election);
        let node = || NodeName::new("a");
        let (session, candidacy, modified) = (SESSION, Revision(8), Revision(9));
        let standing = CandidacyRecord {
            session,
            fitness: Fitness::fit(),
            facts: Default::default(),
            policy: PolicyVersion::default(),
            accepted: None,
        };
        let take_over = |evidence| Request::TakeOver {
            election: election(),
            node: node(),
            session,
            candidacy,
            holder: "b".into(),
            holder_session: SessionId(3),
            evidence,
            ending: ending(),
            record: Some(leader()),
        };
        vec![
            Request::ReadLeader { election: election() },
            Request::PutCandidacy { election: election(), node: node(), record: standing },
            Request::Take {
                election: election(),
                node: node(),
                candidacy,
                history: Revision(4),
                record: leader(),
            },
            take_over(Evidence::Ended),
            take_over(Evidence::Silent(Revision(5))),
            Request::HandOver {
                election: election(),
                node: node(),
                session,
                modified,
                target: Target { node: "b".into(), session: SessionId(3), candidacy },
                record: LeaderRecord { session: SessionId(3), ..leader() },
                ending: ending(),
            },
            Request::Resign { election: election(), session, modified, ending: ending() },
            Request::RewriteLeader {
                election: election(),
                node: node(),
                session,
                modified,
                record: leader(),
            },
        ]
    }

    /// The largest of what stores limit.
    fn operations(request: &Request) -> usize {
        let keys = Keys::new("c");
        let Ok(Plan::Write(txn)) = plan(&keys, request) else { return 1 };
        let applied = txn.changes.len() + txn.readings_when_applied().len();
        txn.conditions.len().max(applied).max(txn.readings_when_rejected().len())
    }

    #[test]
    fn no_request_takes_more_operations_than_the_core_counts() {
        for request in requests("e") {
            let (planned, counted) = (operations(&request), request.operations());
            assert!(planned <= counted, "{planned} > {counted}: {request:#?}");
        }
        let batch = Request::Batch(requests("e").into_iter().chain(requests("f")).collect());
        assert!(operations(&batch) <= batch.operations());
    }
}

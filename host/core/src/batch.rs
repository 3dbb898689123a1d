//! Requests of one call that share a transaction.
//!
//! When a node that held hundreds of elections dies, or one that holds them stops, one call of
//! the core wants as many transactions. They are sent in batches as large as a store takes: a
//! batch is applied only if every request in it could be. One that is rejected tells nothing
//! about any single request, so each is then sent again alone (protocol, "Transactions"), unless
//! what was learnt since speaks against it. That it is sent later than it was thought of is
//! otherwise no more than a slow network would do: its compares decide when it arrives.

use std::collections::BTreeSet;

use crate::action::Action;
use crate::ids::{NodeName, OpId};
use crate::machine::Core;
use crate::node::{Node, Purpose, deletions};
use crate::request::{Evidence, Outcome, Request};

/// How many operations a store takes in one transaction: etcd's limit unless its operator set
/// another (`--max-txn-ops`).
const MOST_OPERATIONS: usize = 128;

/// How many bytes of facts go into one batch: they are what can make a request large, and etcd
/// refuses those above 1.5 MiB (`--max-request-bytes`).
const MOST_BYTES: usize = 512 * 1024;

/// Requests that are of one kind and of an election each, so that none reads or changes what
/// another of them does.
#[derive(Default)]
struct Batch {
    members: Vec<(OpId, Request)>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, op: OpId, request: Request) {
        self.operations += request.operations();
        self.bytes += request.facts_size();
        self.members.push((op, request));
    }

    fn has_room_for(&self, request: &Request) -> bool {
        self.operations + request.operations() <= MOST_OPERATIONS
            && self.bytes + request.facts_size() <= MOST_BYTES
    }
}

impl Node {
    /// Sends what this call has kept back for company.
    pub(crate) fn send_batches(&mut self) {
        if self.sharing.is_empty() {
            return; // as in most calls
        }
        let (readings, changes): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sharing)
            .into_iter()
            .partition(|(_, request)| request.only_reads());
        for requests in [readings, changes] {
            self.send_sharing(requests);
        }
    }

    fn send_sharing(&mut self, requests: Vec<(OpId, Request)>) {
        let mut batch = Batch::default();
        let mut elections = BTreeSet::new();
        for (op, request) in requests {
            let another = request.election().is_some_and(|name| elections.insert(name.clone()));
            if !another {
                self.send_begun(op, request);
                continue;
            }
            if !batch.has_room_for(&request) {
                self.send_batch(std::mem::take(&mut batch));
            }
            batch.add(op, request);
        }
        self.send_batch(batch);
    }

    fn send_batch(&mut self, batch: Batch) {
        let mut members = batch.members;
        match members.len() {
            0 => {}
            1 => members.drain(..).for_each(|(op, request)| self.send_begun(op, request)),
            _ => {
                let request = Request::Batch(members.iter().map(|(_, r)| r.clone()).collect());
                let op = self.begin(Purpose::Batch(members));
                self.send_begun(op, request);
            }
        }
    }

    /// Whether a holder's session is not as it was when its silence was timed: where several
    /// batches take the terms of one silent session, the first ends it.
    fn is_heard_again(&self, holder: &NodeName, evidence: &Evidence) -> bool {
        let Evidence::Silent(timed) = evidence else { return false };
        self.replica.session_key(holder).is_none_or(|stored| stored.modified != *timed)
    }

    /// Sends a request whose operation was begun.
    pub(crate) fn send_begun(&mut self, op: OpId, request: Request) {
        if let Some(begun) = self.ops.get_mut(&op) {
            begun.floor = Some(self.replica.highest);
            begun.deletes = deletions(&request);
        }
        let timeout = self.settings.timings.request_timeout;
        self.act(Action::Send { op, request, timeout });
    }
}

impl Core {
    /// A batch was answered: so is each request in it, except that nothing is known about the
    /// single ones of a batch that was rejected.
    pub(crate) fn batch_answered(&mut self, members: Vec<(OpId, Request)>, outcome: &Outcome) {
        for (op, request) in members {
            let rejected = matches!(outcome, Outcome::Rejected { .. });
            if rejected && !self.is_overtaken(&request) {
                self.node.send_begun(op, request);
            } else if let Some(begun) = self.node.ops.remove(&op)
                && let Purpose::Election(name, step) = begun.purpose
            {
                self.step_answered(&name, op, step, outcome);
            }
        }
    }

    /// Whether what was learnt since it was first sent speaks against sending it again: it can
    /// only be rejected, or it would have an unfit or cordoned node lead (S4), which the store
    /// cannot compare while the news of that is still on its way there.
    fn is_overtaken(&self, request: &Request) -> bool {
        let may_lead =
            |name| self.elections.get(name).is_some_and(|election| election.eligible(&self.node));
        match request {
            Request::Take { election, .. } => !may_lead(election),
            Request::TakeOver { election, holder, evidence, .. } => {
                !may_lead(election) || self.node.is_heard_again(holder, evidence)
            }
            Request::HandOver { election, target, .. } => {
                self.node.replica.cordoned(election, &target.node)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ElectionName, Revision, SessionId, Token};
    use crate::node::Step;
    use crate::record::{Attributes, CandidacyRecord, EndReason, Fitness, HistoryRecord};
    use crate::request::Ending;
    use crate::settings::Settings;
    use crate::time::Now;
    use crate::{Event, Timings};

    fn core() -> Core {
        let settings = Settings {
            node: "a".into(),
            nonce: "a-1".into(),
            boot_id: String::new(),
            addresses: Vec::new(),
            labels: Attributes::new(),
            version: String::new(),
            timings: Timings::default(),
            elections: Default::default(),
            past: Default::default(),
        };
        Core::new(settings, Now::at(1_000_000)).0
    }

    fn name(i: usize) -> ElectionName {
        ElectionName::new(format!("e{i}"))
    }

    fn resign(i: usize) -> Request {
        let record = HistoryRecord {
            holder: "a".into(),
            successor: None,
            from_unix_ms: 0,
            to_unix_ms: 0,
            why: EndReason::Stopping,
            clean: true,
            delay_ms: 0,
            facts: Attributes::new(),
        };
        let ending = Ending { token: Token(5), record, trim: Vec::new() };
        Request::Resign { election: name(i), session: SessionId(1), modified: Revision(5), ending }
    }

    fn stand(i: usize, facts: usize) -> Request {
        let record = CandidacyRecord {
            session: SessionId(1),
            fitness: Fitness::fit(),
            facts: Attributes::from([("fact".to_owned(), "x".repeat(facts))]),
            policy: Default::default(),
            accepted: None,
        };
        Request::PutCandidacy { election: name(i), node: "a".into(), record }
    }

    fn read(i: usize) -> Request {
        Request::ReadLeader { election: name(i) }
    }

    /// Sends these in one call, and says how many requests each transaction carries.
    fn sent(core: &mut Core, requests: impl IntoIterator<Item = Request>) -> Vec<(OpId, usize)> {
        for request in requests {
            let election = request.election().expect("only these share").clone();
            core.node.send(Purpose::Election(election, Step::GiveUp), request);
        }
        let size = |request| match request {
            Request::Batch(requests) => requests.len(),
            _ => 1,
        };
        let actions = core.handle(core.node.now, Event::Tick).into_iter();
        let sends = actions.filter_map(|action| match action {
            Action::Send { op, request, .. } => Some((op, size(request))),
            _ => None,
        });
        sends.collect()
    }

    fn sizes(requests: impl IntoIterator<Item = Request>) -> Vec<usize> {
        sent(&mut core(), requests).into_iter().map(|(_, size)| size).collect()
    }

    #[test]
    fn requests_share_transactions_as_large_as_a_store_takes() {
        assert_eq!(sizes([resign(0)]), [1], "one alone is no batch");
        assert_eq!(sizes((0..2).map(resign)), [2]);
        assert_eq!(sizes((0..40).map(resign)), [18, 18, 4], "seven operations each");
        assert_eq!(sizes((0..130).map(|i| stand(i, 0))), [64, 64, 2], "two operations each");
        assert_eq!(sizes((0..130).map(read)), [128, 2], "one operation each");
        assert_eq!(sizes((0..3).map(|i| stand(i, MOST_BYTES / 2 - 4))), [2, 1], "large facts");
        assert_eq!(sizes((0..3).map(|i| stand(i, MOST_BYTES))), [1, 1, 1], "larger ones");
    }

    #[test]
    fn readings_and_one_elections_own_requests_do_not_meet_changes() {
        assert_eq!(sizes([read(0), resign(1), read(2), resign(3)]), [2, 2]);
        assert_eq!(sizes([resign(0), stand(0, 0), stand(1, 0)]), [1, 2]);
    }

    /// What becomes of two requests in a batch: how many still wait for an answer, and how many
    /// are sent alone.
    fn answered(outcome: Outcome) -> (usize, usize) {
        let mut core = core();
        let before = core.node.ops.len();
        let sent = sent(&mut core, (0..2).map(resign));
        let actions = core.handle(core.node.now, Event::Reply { op: sent[0].0, outcome });
        let alone = |action: &&Action| {
            matches!(action, Action::Send { request: Request::Resign { .. }, .. })
        };
        assert_eq!(core.stray_replies(), 0);
        (core.node.ops.len() - before, actions.iter().filter(alone).count())
    }

    #[test]
    fn only_a_rejected_batch_is_sent_again_one_by_one() {
        let (at, seen) = (Revision(9), Vec::new());
        assert_eq!(answered(Outcome::Applied { at, seen: seen.clone() }), (0, 0));
        assert_eq!(answered(Outcome::Unknown), (0, 0));
        assert_eq!(answered(Outcome::Rejected { at, seen }), (2, 2));
    }
}

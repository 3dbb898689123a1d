//! The link between nodes and store: requests that get lost, delayed and reordered, and watches
//! that break, hang and skip.

use conclave_core::{Entry, Event, OpId, Outcome, Request, Revision, Value};

use crate::clock::Micros;
use crate::digest::Fold;
use crate::world::{Happening, World, micros};

/// What the store does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreState {
    Answers,
    Stopped,
    Hung,
}

/// A request that has come to the store.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) n: usize,
    pub(crate) life: u64,
    pub(crate) op: OpId,
    pub(crate) request: Box<Request>,
}

/// A node's watch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimWatch {
    /// It has reported everything up to here.
    after: Revision,
    /// A report is scheduled.
    scheduled: bool,
    pub(crate) hung: bool,
    pub(crate) skips: bool,
}

/// A node's link to the store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// What the node sends does not arrive.
    pub(crate) loses_requests: bool,
    /// What the store sends, watches included, does not arrive.
    pub(crate) loses_replies: bool,
    /// Some of what is sent either way takes long.
    pub(crate) slow: bool,
}

impl World {
    /// The longest delay on a slow link: requests are applied, and replies come, long after they
    /// were given up.
    fn slowest(&self) -> Micros {
        2 * micros(self.settings.timings.ttl)
    }

    pub(crate) fn latency(&mut self, n: usize) -> Micros {
        if self.nodes[n].link.slow && self.random.chance(40) {
            // Mostly around the request timeout, where the races are; sometimes far beyond it.
            let slowest = self.slowest();
            let longest = if self.random.chance(25) { slowest } else { slowest / 7 };
            let latency = self.random.below(longest);
            self.quiet_from = self.quiet_from.max(self.now + latency);
            return latency;
        }
        200 + self.random.below(400)
    }

    pub(crate) fn send(&mut self, n: usize, op: OpId, request: Request, timeout: Micros) {
        self.sent(n, op, &request);
        let latency = self.latency(n);
        let store_life = self.store_life;
        let request = Box::new(request);
        self.schedule(n, latency, Happening::Arrive { op, store_life, request });
        let due = self.now + timeout;
        let node = &mut self.nodes[n];
        node.waiting.push(op);
        node.timeouts.push_back((due, op));
        if node.timeouts.len() == 1 {
            self.schedule(n, timeout, Happening::Timeouts);
        }
    }

    /// The judge sees what goes over the wire.
    fn sent(&mut self, n: usize, op: OpId, request: &Request) {
        let local = self.local(n).fast;
        match request {
            Request::CreateSession { .. } => self.checker.beat_sent(n, op.0, 0, local),
            Request::Beat { session, .. } => self.checker.beat_sent(n, op.0, session.0, local),
            Request::List => self.checker.ballot.lists(n, op.0),
            Request::ReadLeader { .. } | Request::PutCandidacy { .. } => {}
            _ => self.checker.ballot.asks(self.settings.seed, self.now, n, request),
        }
    }

    /// What was not answered in time has an unknown outcome.
    pub(crate) fn time_out(&mut self, n: usize) {
        let life = self.nodes[n].life;
        while let Some(&(due, op)) = self.nodes[n].timeouts.front() {
            if due > self.now {
                return self.schedule(n, due - self.now, Happening::Timeouts);
            }
            self.nodes[n].timeouts.pop_front();
            let outcome = Outcome::Unknown;
            self.deliver_once(n, Event::Reply { op, outcome });
            if self.nodes[n].life != life {
                return;
            }
        }
    }

    pub(crate) fn arrive(&mut self, request: Held, store_life: u64) {
        if self.nodes[request.n].link.loses_requests || self.store_life != store_life {
            self.coverage.lost_requests += 1;
            return;
        }
        match self.store_state {
            StoreState::Answers => self.execute(request),
            StoreState::Stopped => self.coverage.lost_requests += 1,
            StoreState::Hung => self.held.push(request),
        }
    }

    fn execute(&mut self, Held { n, life, op, request }: Held) {
        let outcome = self.store.execute(&request);
        let applied = matches!(outcome, Outcome::Applied { .. });
        self.trace(|world| {
            let name = &world.nodes[n].name;
            format!("the store rejects ({}) of {name} {op:?} {request:?}", !applied)
        });
        let waits = self.nodes[n].life == life && self.nodes[n].waiting.contains(&op);
        self.coverage.executed(&request, applied, waits);
        if applied {
            self.notice_moment(&request);
        }
        if self.nodes[n].link.loses_replies || self.nodes[n].life != life {
            self.coverage.lost_replies += u64::from(waits);
            return;
        }
        let latency = self.latency(n);
        self.schedule(n, latency, Happening::Deliver(Box::new(Event::Reply { op, outcome })));
    }

    fn notice_moment(&mut self, request: &Request) {
        match request {
            Request::RewriteLeader { record, .. } if record.offer.is_some() => {
                self.moments.offers += 1;
            }
            Request::Resign { .. } | Request::HandOver { .. } => self.moments.givings_up += 1,
            Request::Take { .. } | Request::TakeOver { .. } => self.moments.takings += 1,
            Request::Batch(requests) => {
                requests.iter().for_each(|request| self.notice_moment(request));
            }
            _ => {}
        }
    }

    /// The store goes on; one that hung executes what it was sent, in an order of its own.
    pub(crate) fn start_store(&mut self) {
        self.store_state = StoreState::Answers;
        let mut held = std::mem::take(&mut self.held);
        while !held.is_empty() {
            let next = self.random.below(held.len() as u64) as usize;
            let request = held.swap_remove(next);
            self.execute(request);
            self.announce();
        }
        for n in 0..self.nodes.len() {
            self.schedule_watch(n);
        }
    }

    /// The store is lost; an old copy of it stands in, and is opened after the longest TTL.
    pub(crate) fn restore_store(&mut self) {
        self.store_state = StoreState::Stopped;
        self.restoring = true;
        self.store_life += 1;
        self.held.clear();
        let timings = &self.settings.timings;
        let closed = micros(timings.silence(timings.ttl)) + micros(timings.margin);
        self.quiet_from = self.quiet_from.max(self.now + closed);
        self.schedule(0, closed, Happening::Reopen);
    }

    pub(crate) fn reopen(&mut self) {
        self.restoring = false;
        let Some(backup) = self.backup.take() else { return };
        self.trace(|_| format!("the store is restored as of revision {}", backup.revision()));
        self.store = backup;
        self.announced = self.store.revision();
        let entries = self.store.keys().map(|(key, stored)| Entry {
            key: key.clone(),
            at: stored.modified,
            stored: Some(stored.clone()),
        });
        self.checker.restored(self.now, entries);
        self.fold.add(u64::MAX);
        self.check_terms();
        self.store_state = StoreState::Answers;
        for n in 0..self.nodes.len() {
            if self.nodes[n].watch.take().is_some() {
                let after = 500 + self.random.below(5_000);
                self.schedule(n, after, Happening::Deliver(Box::new(Event::WatchBroken)));
            }
        }
    }

    /// Begins a watch. One that hung wakes up later and delivers what it held back: whatever it
    /// says then is old.
    pub(crate) fn begin_watch(&mut self, n: usize, after: Revision) {
        let earlier = self.nodes[n].watch.take();
        let compacted = self.store.compacted();
        let late = earlier.filter(|watch| watch.hung && watch.after >= compacted);
        if let Some(earlier) = late {
            let at = self.store.revision();
            let entries = self.store.changes(earlier.after);
            let late = self.random.below(self.slowest());
            self.quiet_from = self.quiet_from.max(self.now + late);
            let event = Event::Watched { at, entries };
            self.schedule(n, late, Happening::Deliver(Box::new(event)));
        }
        let watch = SimWatch { after, scheduled: false, hung: false, skips: false };
        self.nodes[n].watch = Some(watch);
        self.schedule_watch(n);
    }

    /// Lets judge and watches see what the store has written since they were told last.
    pub(crate) fn announce(&mut self) {
        if self.announced == self.store.revision() {
            return;
        }
        let before = std::mem::replace(&mut self.announced, self.store.revision());
        let mut deleted = false;
        for entry in self.store.log_after(before) {
            self.checker.wrote(self.now, entry);
            deleted |= entry.stored.is_none();
            fold_entry(&mut self.fold, entry);
        }
        if deleted {
            self.check_terms();
        }
        for n in 0..self.nodes.len() {
            self.schedule_watch(n);
        }
    }

    /// After a deletion: what is in place, and what nodes say, must be of terms that stand.
    fn check_terms(&mut self) {
        let (now, nodes) = (self.now, &self.nodes);
        self.checker.terms_stand(now, &|n| nodes[n].clock.read(now).fast);
        for n in 0..self.nodes.len() {
            if !self.nodes[n].frozen {
                self.ask(n);
            }
        }
    }

    pub(crate) fn schedule_watch(&mut self, n: usize) {
        let behind = self.store.revision();
        let idle = |watch: &&mut SimWatch| !watch.scheduled && watch.after < behind;
        if let Some(watch) = self.nodes[n].watch.as_mut().filter(idle) {
            watch.scheduled = true;
            let latency = 200 + self.random.below(400);
            self.schedule(n, latency, Happening::WatchPoll);
        }
    }

    pub(crate) fn poll_watch(&mut self, n: usize) {
        let link = self.nodes[n].link;
        let cut_off = link.loses_requests || link.loses_replies;
        let works = self.store_state == StoreState::Answers && !cut_off;
        let at = self.store.revision();
        let Some(watch) = &mut self.nodes[n].watch else { return };
        watch.scheduled = false;
        if !works || watch.hung || watch.after >= at {
            return;
        }
        if watch.after < self.store.compacted() {
            self.nodes[n].watch = None;
            self.coverage.compacted_watches += 1;
            return self.deliver_once(n, Event::WatchBroken);
        }
        let after = std::mem::replace(&mut watch.after, at);
        let skips = std::mem::take(&mut watch.skips);
        let entries = if skips { Vec::new() } else { self.store.changes(after) };
        if skips {
            self.coverage.skipped_changes += 1;
            let relist = micros(self.settings.timings.relist);
            self.quiet_from = self.quiet_from.max(self.now + relist + relist / 10);
        }
        self.deliver_once(n, Event::Watched { at, entries });
    }
}

/// The store's history is part of what the outside sees.
fn fold_entry(fold: &mut Fold, entry: &Entry) {
    use conclave_core::Key;
    fold.add(entry.at.0);
    match &entry.key {
        Key::Session(node) => fold.add_text(node.as_str()),
        Key::Candidacy(election, node) | Key::Cordon(election, node) => {
            fold.add_text(election.as_str());
            fold.add_text(node.as_str());
        }
        Key::Leader(election, suffix) => {
            fold.add_text(election.as_str());
            fold.add_text(suffix);
        }
        Key::Pause(election) | Key::Transfer(election) => fold.add_text(election.as_str()),
        Key::History(election, token) => {
            fold.add_text(election.as_str());
            fold.add(token.0);
        }
    }
    let Some(stored) = &entry.stored else { return fold.add(0) };
    fold.add(stored.create.0);
    match &stored.value {
        Value::Session(record) => fold.add(record.beat),
        Value::Candidacy(record) => fold.add(record.session.0 << 1 | u64::from(record.fitness.fit)),
        Value::Leader(record) => fold.add(record.session.0 ^ record.delay_ms << 32),
        Value::Transfer(record) => fold.add(record.token.0),
        Value::History(record) => fold.add(record.delay_ms << 1 | u64::from(record.clean)),
        Value::Mark(_) | Value::Garbage => {}
    }
}

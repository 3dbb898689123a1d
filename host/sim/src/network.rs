//! The link between nodes and store: requests that get lost, delayed and reordered, and watches
//! that break, hang and skip.

use conclave_core::{Event, OpId, Outcome, Request, Revision};

use crate::world::{Happening, Micros, World};

/// What the store does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreState {
    Answers,
    Stopped,
    Hung,
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

/// The longest delay on a slow link: requests are applied, and replies come, long after they
/// were given up.
pub(crate) const SLOWEST: Micros = 3_000_000;

impl World {
    pub(crate) fn latency(&mut self, n: usize) -> Micros {
        if self.nodes[n].slow_link && self.random.chance(40) {
            // Mostly around the request timeout, where the races are; sometimes far beyond it.
            let longest = if self.random.chance(30) { SLOWEST } else { SLOWEST / 10 };
            return self.random.below(longest);
        }
        200 + self.random.below(400)
    }

    pub(crate) fn arrive(&mut self, n: usize, life: u64, op: OpId, request: Request) {
        if self.nodes[n].lose_requests {
            return;
        }
        match self.store_state {
            StoreState::Answers => self.execute(n, life, op, &request),
            StoreState::Stopped => {}
            StoreState::Hung => self.held.push((n, life, op, request)),
        }
    }

    fn execute(&mut self, n: usize, life: u64, op: OpId, request: &Request) {
        let outcome = self.store.execute(request);
        self.trace(|world| {
            let rejected = matches!(outcome, Outcome::Rejected { .. });
            let name = &world.nodes[n].name;
            format!("the store rejects ({rejected}) of {name} {op:?} {request:?}")
        });
        if let Outcome::Applied { .. } = outcome {
            self.account(request);
            self.check_effects();
        }
        if self.nodes[n].lose_replies || self.nodes[n].life != life {
            return;
        }
        let latency = self.latency(n);
        self.schedule(n, latency, Happening::Deliver(Event::Reply { op, outcome }));
    }

    /// The store goes on; one that hung executes what it was sent, in an order of its own.
    pub(crate) fn start_store(&mut self) {
        self.store_state = StoreState::Answers;
        let mut held = std::mem::take(&mut self.held);
        while !held.is_empty() {
            let next = self.random.below(held.len() as u64) as usize;
            let (n, life, op, request) = held.swap_remove(next);
            self.execute(n, life, op, &request);
        }
        for n in 0..self.nodes.len() {
            self.schedule_watch(n);
        }
    }

    /// Begins a watch. One that hung wakes up later and delivers what it held back: whatever it
    /// says then is old.
    pub(crate) fn begin_watch(&mut self, n: usize, after: Revision) {
        let earlier = self.nodes[n].watch.take();
        if let Some(earlier) = earlier.filter(|watch| watch.hung) {
            let at = self.store.revision();
            let entries = self.store.changes(earlier.after);
            let late = self.random.below(SLOWEST);
            let event = Event::Watched { at, entries };
            self.schedule(n, late, Happening::Deliver(event));
        }
        let watch = SimWatch { after, scheduled: false, hung: false, skips: false };
        self.nodes[n].watch = Some(watch);
        self.schedule_watch(n);
    }

    /// Lets the watches report what the store has written since they were told last.
    pub(crate) fn announce(&mut self) {
        if self.announced == self.store.revision() {
            return;
        }
        self.announced = self.store.revision();
        self.check_effects();
        for n in 0..self.nodes.len() {
            self.schedule_watch(n);
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
        let works = self.store_state == StoreState::Answers && !self.nodes[n].is_cut_off();
        let at = self.store.revision();
        let Some(watch) = &mut self.nodes[n].watch else { return };
        watch.scheduled = false;
        if !works || watch.hung || watch.after >= at {
            return;
        }
        let after = std::mem::replace(&mut watch.after, at);
        let skips = std::mem::take(&mut watch.skips);
        let entries = if skips { Vec::new() } else { self.store.changes(after) };
        self.deliver(n, Event::Watched { at, entries });
    }
}

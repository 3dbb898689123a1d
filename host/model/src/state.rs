//! A state: the machines, the store, the network between them, and what is left of the bounds.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{ElectionName, Key, Now, Outcome, Request, Revision};
use conclave_sim::ModelStore;

use crate::bounds::{Bounds, Start, TICK};
use crate::canonical::{self, Scope};
use crate::machine::{Effect, Link, Machine, Stage};
use crate::step::Step;

/// One state of everything.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) tick: u32,
    /// No further tick.
    pub(crate) end: u32,
    /// What is longer ago than this makes no difference any more.
    memory: Duration,
    pub(crate) store: Arc<ModelStore>,
    pub(crate) machines: Vec<Arc<Machine>>,
    /// Requests that the network holds, and may still deliver: nobody waits for their replies.
    pub(crate) late: Vec<Request>,
    /// The election that a competitor of no concern of ours contends for.
    pub(crate) competitor: Option<ElectionName>,
    pub(crate) faults: u8,
    pub(crate) operators: u8,
    /// For how many ticks some election has had no leader although nothing is disturbed.
    pub(crate) leaderless: u32,
    /// A promise that was broken by the step that led here.
    pub(crate) broken: Option<String>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let scopes: Vec<Scope> = (0..self.machines.len()).map(|n| self.scope(n)).collect();
        canonical::hash(&Raw(self), &scopes, state);
    }
}

/// A state as it is, counters and all.
struct Raw<'s>(&'s State);

impl Hash for Raw<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let state = self.0;
        (state.tick, state.faults, state.operators, state.leaderless).hash(hasher);
        state.broken.hash(hasher);
        // The changes that watches still wait for follow from the keys and where the watches are,
        // but for what came and went between.
        state.store.revision().hash(hasher);
        state.store.changes(state.watched()).hash(hasher);
        for (key, stored) in state.store.keys() {
            (key, stored).hash(hasher);
        }
        (&state.late, &state.competitor).hash(hasher);
        for machine in &state.machines {
            canonical::begin_scope(hasher);
            machine.hash(hasher);
        }
    }
}

/// So that the names of leader keys all have four hexadecimal digits, and sort as numbers do.
const FIRST_REVISION: u64 = 0x1000;

impl State {
    /// Where the exploration of these bounds begins.
    pub fn first(bounds: &Bounds) -> Self {
        let mut store = ModelStore::default();
        for _ in 0..FIRST_REVISION {
            store.delete(&Key::Pause("x".into()));
        }
        let rate = |n| bounds.rates.get(n).copied().unwrap_or_default();
        let machine = |n| Arc::new(Machine::new(Bounds::node_name(n), rate(n)));
        let mut state = State {
            tick: 0,
            end: u32::MAX,
            memory: bounds.memory(),
            store: Arc::new(store),
            machines: (0..bounds.nodes).map(machine).collect(),
            late: Vec::new(),
            competitor: None,
            faults: 0,
            operators: 0,
            leaderless: 0,
            broken: None,
        };
        for n in 0..bounds.nodes {
            state.start(bounds, n);
        }
        if bounds.start == Start::Led {
            state.settle(bounds);
        }
        state.leaderless = 0;
        state.faults = bounds.faults;
        state.operators = bounds.operators;
        state.end = state.tick + bounds.ticks;
        state
    }

    /// Lets things go well for two TTLs.
    fn settle(&mut self, bounds: &Bounds) {
        while self.tick < 2 * bounds.ttl {
            let step = self.steps(bounds).next().unwrap_or(Step::Tick);
            *self = self.after(bounds, &step);
        }
    }

    /// A machine's clocks.
    pub(crate) fn now(&self, n: usize) -> Now {
        let micros = i64::try_from(TICK.as_micros()).unwrap_or(i64::MAX) * i64::from(self.tick);
        let drift = micros * self.machines[n].rate / 1_000_000;
        Now::at(ORIGIN.saturating_add_signed(micros + drift))
    }

    /// What can still make a difference to a machine.
    fn scope(&self, n: usize) -> Scope {
        let now = self.now(n).fast;
        let left = TICK * self.end.saturating_sub(self.tick);
        // A clock that is fast gets further.
        Scope {
            settled: self.settled(n),
            long_ago: now - self.memory,
            never: now + 2 * left + TICK,
        }
    }

    /// A revision that all news to come to a machine are later than.
    fn settled(&self, n: usize) -> Revision {
        let machine = &self.machines[n];
        let replies = machine.flights.values().filter_map(|flight| match &flight.stage {
            Stage::Answered(Outcome::Applied { at, .. } | Outcome::Rejected { at, .. }) => {
                Some(Revision(at.0 - 1))
            }
            _ => None,
        });
        let watches = machine.watch.map(|watch| watch.after).into_iter().chain(machine.stale_watch);
        // What is read from now on is as of now.
        let now = Revision(self.store.revision().0 - 1);
        replies.chain(watches).min().map_or(now, |other| other.min(now))
    }

    pub(crate) fn machine(&mut self, n: usize) -> &mut Machine {
        Arc::make_mut(&mut self.machines[n])
    }

    /// The revision up to which every watch has reported.
    pub(crate) fn watched(&self) -> Revision {
        let after = |machine: &Arc<Machine>| {
            machine.watch.map(|watch| watch.after).into_iter().chain(machine.stale_watch).min()
        };
        self.machines.iter().filter_map(after).min().unwrap_or(self.store.revision())
    }

    /// Who has an election's effect in place, excused ones aside.
    pub(crate) fn effects<'s>(
        &'s self,
        election: &'s ElectionName,
    ) -> impl Iterator<Item = (&'s Machine, &'s Effect)> {
        self.machines.iter().filter_map(move |machine| {
            let effect = machine.effects.get(election).filter(|effect| !effect.excused)?;
            Some((&**machine, effect))
        })
    }

    /// Whether something that faults did is still to be mended or to arrive.
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.late.is_empty()
            || self.competitor.is_some()
            || self.machines.iter().any(|machine| machine.is_disturbed())
    }

    /// Whether a machine's link works both ways.
    pub(crate) fn is_linked(&self, n: usize) -> bool {
        self.machines[n].link == Link::Works
    }
}

/// What the clocks say at the first tick, in microseconds.
const ORIGIN: u64 = 10_000_000;

//! The exploration: every state once, every promise in each.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::bounds::Bounds;
use crate::state::State;
use crate::step::Step;
use crate::story::Story;

/// What an exploration found.
#[derive(Debug)]
pub struct Explored {
    /// How many different states there are.
    pub states: usize,
    /// How many steps lead to them.
    pub steps: usize,
    /// The length of the longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Which of the situations that make an exploration worth something occurred.
    pub seen: BTreeSet<&'static str>,
    /// How a promise was broken, if one was.
    pub broken: Option<Story>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explored { states, steps, depth, .. } = self;
        let seconds = self.took.as_secs_f64();
        write!(f, "{states} states, {steps} steps, depth {depth}, {seconds:.1} s")
    }
}

/// Bounds, as something to explore.
struct Bounded {
    bounds: Bounds,
}

impl Model for Bounded {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(state.steps(&self.bounds));
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(state.after(&self.bounds, &step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("S1: one holder", |m: &Self, s: &State| s.has_one_holder(&m.bounds)),
            Property::always("S2: no effect outlives its term", |m: &Self, s: &State| {
                s.has_standing_terms(&m.bounds)
            }),
            Property::always("S3, S8: nothing is acted for or said too early", |_, s: &State| {
                s.broken.is_none()
            }),
            Property::always("S7: led in time", |m: &Self, s: &State| s.is_led_in_time(&m.bounds)),
            Property::always("S8: truthful", |m: &Self, s: &State| s.is_truthful(&m.bounds)),
        ];
        properties.extend(SIGHTS.iter().map(|(name, sight)| Property::sometimes(name, *sight)));
        properties
    }
}

type Sight = fn(&Bounded, &State) -> bool;

/// What should be seen on the way: an exploration that never gets there proves little.
const SIGHTS: [(&str, Sight); 6] = [
    ("another node leads", |_, s| s.is_led_by(|n| n != 0)),
    ("the first node leads again", |_, s| s.is_led_by(|n| n == 0)),
    ("a daemon goes on with another's term", |_, s| s.is_led_by_a_successor()),
    ("a guard withdraws", |_, s| s.has_expired_page()),
    ("a delayed request is under way", |_, s| s.has_late_requests()),
    ("the bounded time is over", |_, s| s.is_over()),
];

/// Explores everything within these bounds, on so many threads.
pub fn explore(bounds: &Bounds, threads: usize) -> Explored {
    let began = Instant::now();
    let checker = Bounded { bounds: bounds.clone() }
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut seen = BTreeSet::new();
    let mut broken = None;
    for (name, path) in checker.discoveries() {
        if SIGHTS.iter().any(|(sight, _)| *sight == name) {
            seen.insert(name);
        } else {
            broken = Some(Story::new(name, path.into_vec()));
        }
    }
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        seen,
        broken,
    }
}

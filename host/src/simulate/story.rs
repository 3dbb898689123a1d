//! A story: what happens when, drawn up before it is played, so that every policy meets the same.

use std::time::Duration;

use conclave_sim::{Fault, Random};

use super::scenario::Scenario;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The machine loses power.
    Crash,
    /// The daemon dies, and its guard starts another.
    KillDaemon,
    /// The machine stands still.
    Suspend,
    /// It does not reach the store.
    CutOff,
    /// A check fails.
    Unfit,
    /// An operator cordons it.
    Cordon,
    /// It is stopped in order, and started again.
    Restart,
    /// An operator moves the terms to it.
    TransferTo,
    /// The store answers nobody.
    StoreDown,
    /// An operator pauses all elections.
    Pause,
}

impl Kind {
    /// How long it lasts unless the story says otherwise; `None` for ever, or for a moment.
    pub(crate) fn usual(self) -> Option<Duration> {
        (self == Kind::Restart).then_some(Duration::from_secs(5))
    }

    /// What is told of it, with the node that it happens to.
    fn words(self, node: Option<&str>) -> String {
        let node = node.unwrap_or_default();
        match self {
            Kind::Crash => format!("{node} loses power"),
            Kind::KillDaemon => format!("the daemon on {node} is killed"),
            Kind::Suspend => format!("{node} stands still"),
            Kind::CutOff => format!("{node} is cut off from the store"),
            Kind::Unfit => format!("{node} becomes unfit"),
            Kind::Cordon => format!("{node} is cordoned"),
            Kind::Restart => format!("{node} is stopped, to be started again"),
            Kind::TransferTo => format!("an operator moves the term to {node}"),
            Kind::StoreDown => "the store stops answering".to_owned(),
            Kind::Pause => "an operator pauses the elections".to_owned(),
        }
    }

    /// What is told of its end.
    fn end(self, node: Option<&str>) -> String {
        let node = node.unwrap_or_default();
        match self {
            Kind::Crash | Kind::Restart => format!("{node} starts"),
            Kind::Suspend => format!("{node} goes on"),
            Kind::CutOff => format!("{node} reaches the store again"),
            Kind::Unfit => format!("{node} is fit again"),
            Kind::Cordon => format!("{node} may lead again"),
            Kind::StoreDown => "the store answers again".to_owned(),
            Kind::Pause => "the pause is over".to_owned(),
            Kind::KillDaemon | Kind::TransferTo => String::new(),
        }
    }

    /// What a node is in meanwhile, for the picture.
    fn state(self) -> Option<State> {
        match self {
            Kind::Crash | Kind::Restart | Kind::Suspend => Some(State::Down),
            Kind::CutOff => Some(State::CutOff),
            Kind::Unfit | Kind::Cordon => Some(State::MayNot),
            _ => None,
        }
    }
}

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Down,
    CutOff,
    /// Unfit or cordoned.
    MayNot,
}

/// What happens, to whom, for how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Action {
    pub(crate) kind: Kind,
    /// One after the other, where it has an end; at once where not.
    pub(crate) nodes: Vec<usize>,
    pub(crate) lasts: Option<Duration>,
}

/// A step as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) every: Option<Duration>,
    pub(crate) action: Action,
}

/// What happens at random: both times are means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) kind: Kind,
    pub(crate) every: Duration,
    pub(crate) lasts: Duration,
}

/// Something that happens at a moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Happening {
    pub(crate) at: Duration,
    pub(crate) words: String,
    pub(crate) faults: Vec<Fault>,
}

/// A node's state for a while.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) node: usize,
    pub(crate) state: State,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// A story, drawn up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Story {
    /// In the order of their times.
    pub(crate) happenings: Vec<Happening>,
    pub(crate) troubles: Vec<Trouble>,
}

impl Story {
    /// Draws up what a scenario says; what is left to chance comes from its seed.
    pub(crate) fn of(scenario: &Scenario) -> Story {
        let mut story = Story::default();
        for step in &scenario.steps {
            let mut at = step.at;
            while at < scenario.duration {
                story.add(scenario, at, &step.action);
                match step.every {
                    Some(every) => at += every,
                    None => break,
                }
            }
        }
        let mut random = Random::new(scenario.seed);
        for rate in &scenario.rates {
            let whole = rate.kind == Kind::StoreDown;
            let nodes = if whole { 1 } else { scenario.nodes.len() };
            for node in 0..nodes {
                let mut at = exponential(&mut random, rate.every);
                while at < scenario.duration {
                    let lasts = exponential(&mut random, rate.lasts);
                    let nodes = if whole { Vec::new() } else { vec![node] };
                    let action = Action { kind: rate.kind, nodes, lasts: Some(lasts) };
                    story.add(scenario, at, &action);
                    at += lasts + exponential(&mut random, rate.every);
                }
            }
        }
        story.happenings.sort_by_key(|happening| happening.at);
        story
    }

    fn add(&mut self, scenario: &Scenario, at: Duration, action: &Action) {
        let Action { kind, nodes, lasts } = action;
        if nodes.is_empty() {
            return self.one(scenario, at, *kind, None, *lasts);
        }
        let mut at = at;
        for node in nodes {
            self.one(scenario, at, *kind, Some(*node), *lasts);
            // The next waits until this one is back, and has found its feet.
            at += lasts.map_or(Duration::ZERO, |lasts| lasts + scenario.ttl * 3);
        }
    }

    fn one(
        &mut self,
        scenario: &Scenario,
        at: Duration,
        kind: Kind,
        node: Option<usize>,
        lasts: Option<Duration>,
    ) {
        let name = node.map(|node| scenario.nodes[node].0.as_str());
        let elections = scenario.elections.len();
        let faults = begin(kind, node, elections);
        self.happenings.push(Happening { at, words: kind.words(name), faults });
        let to = lasts.map_or(scenario.duration, |lasts| at + lasts);
        if let (Some(node), Some(state)) = (node, kind.state()) {
            self.troubles.push(Trouble { node, state, from: at, to: to.min(scenario.duration) });
        }
        let faults = end(kind, node, elections);
        if lasts.is_some() && to < scenario.duration && !faults.is_empty() {
            self.happenings.push(Happening { at: to, words: kind.end(name), faults });
        }
    }
}

fn begin(kind: Kind, node: Option<usize>, elections: usize) -> Vec<Fault> {
    let n = node.unwrap_or_default();
    let each = |fault: &dyn Fn(usize) -> Fault| (0..elections).map(fault).collect();
    match kind {
        Kind::Crash => vec![Fault::KillNode(n)],
        Kind::KillDaemon => vec![Fault::KillDaemon(n)],
        Kind::Suspend => vec![Fault::Suspend(n)],
        Kind::CutOff => vec![Fault::Partition(n)],
        Kind::Unfit => each(&|e| Fault::FailCheck(n, e)),
        Kind::Cordon => each(&|e| Fault::Cordon(e, n)),
        Kind::Restart => vec![Fault::Stop(n)],
        Kind::TransferTo => each(&|e| Fault::Transfer { e, to: Some(n), stale: false }),
        Kind::StoreDown => vec![Fault::StopStore],
        Kind::Pause => each(&|e| Fault::Pause(e)),
    }
}

fn end(kind: Kind, node: Option<usize>, elections: usize) -> Vec<Fault> {
    let n = node.unwrap_or_default();
    let each = |fault: &dyn Fn(usize) -> Fault| (0..elections).map(fault).collect();
    match kind {
        Kind::Crash | Kind::Restart => vec![Fault::StartNode(n)],
        Kind::Suspend => vec![Fault::Thaw(n), Fault::ResumeGuard(n)],
        Kind::CutOff => vec![Fault::Heal(n)],
        Kind::Unfit => each(&|e| Fault::PassCheck(n, e)),
        Kind::Cordon => each(&|e| Fault::Uncordon(e, n)),
        Kind::StoreDown => vec![Fault::StartStore],
        Kind::Pause => each(&|e| Fault::Resume(e)),
        Kind::KillDaemon | Kind::TransferTo => Vec::new(),
    }
}

/// A time of an exponential distribution, to the millisecond and one at least.
fn exponential(random: &mut Random, mean: Duration) -> Duration {
    const STEPS: u64 = 1 << 32;
    let uniform = (random.below(STEPS) + 1) as f64 / STEPS as f64;
    let millis = -uniform.ln() * mean.as_secs_f64() * 1e3;
    Duration::from_millis((millis as u64).max(1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn story(text: &str) -> Story {
        let text = format!("nodes: [a, b]\nduration: 10m\n{text}");
        let scenario = Scenario::parse(Path::new("s.yaml"), &text);
        Story::of(&scenario.unwrap_or_else(|problems| panic!("{problems}")))
    }

    fn told(story: &Story) -> Vec<(u64, &str)> {
        let told = story.happenings.iter().map(|it| (it.at.as_secs(), it.words.as_str()));
        told.collect()
    }

    #[test]
    fn what_has_an_end_ends_and_what_repeats_repeats() {
        let story = story(
            "story:\n  - {at: 2m, crash: a, lasts: 30s}\n  - {every: 4m, cordon: b, lasts: 1m}\n",
        );
        assert_eq!(
            told(&story),
            [
                (120, "a loses power"),
                (150, "a starts"),
                (240, "b is cordoned"),
                (300, "b may lead again"),
                (480, "b is cordoned"),
                (540, "b may lead again"),
            ]
        );
        assert_eq!(story.troubles.len(), 3);
        assert_eq!(story.troubles[0].state, State::Down);
    }

    #[test]
    fn a_rolling_restart_goes_from_node_to_node() {
        let story = story("ttl: 1s\nstory:\n  - {at: 1m, restart: all, lasts: 10s}\n");
        let times: Vec<u64> = story.happenings.iter().map(|it| it.at.as_secs()).collect();
        assert_eq!(times, [60, 70, 73, 83]);
    }

    #[test]
    fn chance_comes_from_the_seed() {
        let text = |seed| format!("seed: {seed}\nrandom:\n  crash: {{every: 1m, lasts: 10s}}\n");
        assert_eq!(story(&text(7)), story(&text(7)));
        assert_ne!(story(&text(7)), story(&text(8)));
        let crashes = told(&story(&text(7))).len();
        assert!((8..60).contains(&crashes), "{crashes} in ten minutes of two nodes");
    }
}

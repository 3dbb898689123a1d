//! Several nodes, one store, one network, on one simulated clock.
//!
//! A world runs until a time; everything that happens comes from its seed and from the faults
//! that a test injects. Exclusive effects are modelled as what the outside would see: in place
//! from the moment a worker puts them there to the moment a worker or the guard removes them.
//! What the outside sees goes to the judge (`checker.rs`), which ends the run with the seed.

use std::sync::Arc;
use std::time::Duration;

use conclave_core::record::{Attributes, Fitness};
use conclave_core::status::Phase;
use conclave_core::{
    ElectionName, ElectionSettings, Event, Exit, NodeName, OpId, Outcome, Request, Revision,
    SessionId, Time, Timings, Token,
};

use crate::checker::Checker;
use crate::clock::{Clock, Micros, Rates};
use crate::coverage::Coverage;
use crate::digest::Fold;
use crate::names;
use crate::network::{Held, StoreState};
use crate::node::SimNode;
use crate::policy::{Policy, PolicyMode};
use crate::queue::Queue;
use crate::random::Random;
use crate::store::ModelStore;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many nodes: `n0`, `n1`, …
    pub nodes: usize,
    /// What each election asks of the core: `e0`, `e1`, …
    pub elections: Vec<ElectionSettings>,
    /// The durations.
    pub timings: Timings,
    /// After which silence guard and daemon take each other for hung.
    pub stale_after: Duration,
    /// Whom the policy prefers, if anybody; otherwise it answers as the built-in ranking does.
    pub prefer: Option<NodeName>,
    /// A policy from outside, which answers in place of that.
    pub policy: Option<Arc<dyn Policy>>,
    /// The nodes' labels, as far as they have some.
    pub labels: Vec<Attributes>,
    /// Whether everything that happens is written to standard error, for replays.
    pub trace: bool,
}

impl WorldSettings {
    /// Nodes and elections without more ado: TTL 1 s.
    pub fn new(seed: u64, nodes: usize, elections: usize) -> Self {
        let mut timings = Timings::for_ttl(Duration::from_secs(1));
        timings.minimum_term = Duration::from_secs(2);
        WorldSettings {
            seed,
            nodes,
            elections: vec![ElectionSettings::default(); elections],
            timings,
            stale_after: Duration::from_secs(10),
            prefer: None,
            policy: None,
            labels: Vec::new(),
            trace: false,
        }
    }
}

/// What is going to happen. Small, so that the queue moves little.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The core's deadline, so identified that a deadline that moved is not kept.
    Tick { due: Micros },
    /// The daemon is told something.
    Deliver(Box<Event>),
    /// A request reaches the store, unless that was replaced meanwhile.
    Arrive { op: OpId, store_life: u64, request: Box<Request> },
    /// The oldest requests under way may have been given up.
    Timeouts,
    /// A worker puts an effect in place.
    Place { e: usize, token: Token, session: SessionId },
    /// A worker removes an effect.
    Withdraw { op: OpId, e: usize },
    /// The watch may have something to report.
    WatchPoll,
    /// The guard looks at the page.
    Guard,
    /// The guard starts a daemon.
    Restart,
    /// The daemon finds its guard stale, if that is still the same pause.
    GuardStale { pause: u64 },
    /// The guard finds its daemon hung, if that is still the same pause.
    DaemonHung { pause: u64 },
    /// A store that was restored from a copy is opened.
    Reopen,
}

/// The simulation.
pub struct World {
    pub(crate) settings: WorldSettings,
    pub(crate) elections: Vec<ElectionName>,
    pub(crate) random: Random,
    /// The store, open to tests that play the operator or a competitor.
    pub store: ModelStore,
    pub(crate) store_state: StoreState,
    /// Counts the store's replacements: what was sent to an earlier one is lost.
    pub(crate) store_life: u64,
    pub(crate) backup: Option<ModelStore>,
    /// A copy stands in for the store, and is not yet open.
    pub(crate) restoring: bool,
    /// Requests that a hung store has received and not yet executed.
    pub(crate) held: Vec<Held>,
    pub(crate) now: Micros,
    queue: Queue<(usize, u64, Happening)>,
    /// The revision of which watches and judge have been told.
    pub(crate) announced: Revision,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) checker: Checker,
    pub(crate) coverage: Coverage,
    pub(crate) fold: Fold,
    /// When the last delayed message arrives, and the last silent gap is found.
    pub(crate) quiet_from: Micros,
    /// When a policy last did not answer, or with an error.
    pub(crate) policy_failed: Option<Micros>,
    /// What the store was asked lately, for whoever waits for the worst moment.
    pub(crate) moments: Moments,
    /// When which node had an election's effect put in place or removed.
    pub record: Vec<(u64, ElectionName, NodeName, bool)>,
}

/// How often something happened that is a bad moment for a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moments {
    pub(crate) offers: u64,
    pub(crate) givings_up: u64,
    pub(crate) takings: u64,
    pub(crate) placings: u64,
}

/// The simulation does not begin at the origin of its clocks.
const BEGIN: Micros = 1_000_000;

impl World {
    /// A world with all nodes started.
    pub fn new(settings: WorldSettings) -> Self {
        let mut random = Random::new(settings.seed);
        let policy = settings.prefer.clone().map_or(PolicyMode::Builtin, PolicyMode::Prefer);
        let elections = settings.elections.len();
        let bound = i64::from(settings.timings.clock_rate_error_ppm);
        let nodes = (0..settings.nodes).map(|i| {
            let rates = some_rates(&mut random, bound);
            let clock = Clock::new(BEGIN, 1_000_000 + random.below(1 << 30), rates);
            SimNode::new(names::node(i), clock, elections, policy.clone())
        });
        let nodes: Vec<SimNode> = nodes.collect();
        let delays = settings.elections.iter().map(|e| micros(e.takeover_delay)).collect();
        let (ttl, margin) = (micros(settings.timings.ttl), micros(settings.timings.margin));
        let mut world = World {
            checker: Checker::new(settings.seed, nodes.len(), ttl, margin, delays),
            coverage: Coverage::new(nodes.len() * elections),
            fold: Fold::new(settings.seed),
            elections: (0..elections).map(names::election).collect(),
            random,
            store: ModelStore::default(),
            store_state: StoreState::Answers,
            store_life: 0,
            backup: None,
            restoring: false,
            held: Vec::new(),
            now: BEGIN,
            queue: Queue::new(),
            announced: Revision(0),
            nodes,
            quiet_from: 0,
            policy_failed: None,
            moments: Moments::default(),
            record: Vec::new(),
            settings,
        };
        for node in 0..world.nodes.len() {
            world.start(node, None, None);
        }
        world
    }

    /// Simulated time so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now - BEGIN)
    }

    /// What was recorded, with the simulated time at which it was.
    pub fn recorded(&self) -> impl Iterator<Item = (Duration, &ElectionName, &NodeName, bool)> {
        let since = |at: u64| Duration::from_micros(at.saturating_sub(BEGIN));
        self.record
            .iter()
            .map(move |(at, election, node, there)| (since(*at), election, node, *there))
    }

    /// Runs for a span of simulated time.
    pub fn run(&mut self, span: Duration) {
        self.run_until(self.now + micros(span), |_| false);
    }

    /// Runs until a time, or until something has happened.
    pub(crate) fn run_until(&mut self, until: Micros, stop: impl Fn(&Self) -> bool) {
        self.announce();
        while let Some((at, (node, life, happening))) = self.queue.pop_until(until) {
            self.now = at;
            self.happen(node, life, happening);
            self.announce();
            if stop(self) {
                return;
            }
        }
        self.now = until;
    }

    /// Who has an election's exclusive effect in place now.
    pub fn holders(&self, election: &ElectionName) -> Vec<&NodeName> {
        let e = names::position(election.as_str());
        let has = |node: &&SimNode| node.effects[e].is_some();
        self.nodes.iter().filter(has).map(|node| &node.name).collect()
    }

    /// The daemon's exit, if it exited.
    pub fn exited(&self, node: usize) -> Option<&Exit> {
        self.nodes[node].exited.as_ref()
    }

    /// How many replies came to the nodes' cores that answered nothing.
    pub fn stray_replies(&self) -> u64 {
        self.nodes.iter().filter_map(|n| n.core.as_ref()).map(|core| core.stray_replies()).sum()
    }

    /// Tells a node that a fitness check of an election passes or fails.
    pub fn set_fitness(&mut self, node: usize, election: &ElectionName, fitness: Fitness) {
        let e = names::position(election.as_str());
        self.nodes[node].files[e].check_passes = fitness.fit;
        self.tell_fitness(node, e);
    }

    pub(crate) fn trace(&self, what: impl FnOnce(&Self) -> String) {
        if self.settings.trace {
            eprintln!("{:>9} {}", self.now, what(self));
        }
    }

    pub(crate) fn schedule(&mut self, node: usize, after: Micros, happening: Happening) {
        let life = self.nodes[node].life;
        self.queue.push(self.now + after, (node, life, happening));
    }

    fn happen(&mut self, n: usize, life: u64, happening: Happening) {
        match happening {
            // A request under way outlives its sender: that is what makes outcomes unknown.
            Happening::Arrive { op, store_life, request } => {
                return self.arrive(Held { n, life, op, request }, store_life);
            }
            Happening::Guard => return self.guard(n),
            Happening::Restart => return self.restart(n),
            Happening::DaemonHung { pause } => return self.daemon_hung(n, pause),
            Happening::Reopen => return self.reopen(),
            _ => {}
        }
        if self.nodes[n].life != life {
            return;
        }
        if self.nodes[n].frozen {
            self.nodes[n].backlog.push(happening);
            return;
        }
        self.happen_here(n, happening);
    }

    /// What happens to a daemon that lives and is scheduled.
    pub(crate) fn happen_here(&mut self, n: usize, happening: Happening) {
        match happening {
            Happening::Tick { due } => {
                if self.nodes[n].tick_due == Some(due) {
                    self.nodes[n].tick_due = None;
                    self.deliver(n, Event::Tick);
                }
            }
            Happening::Deliver(event) => self.deliver_once(n, *event),
            Happening::Timeouts => self.time_out(n),
            Happening::Place { e, token, session } => self.place(n, e, token, session),
            Happening::Withdraw { op, e } => self.withdraw(n, op, e),
            Happening::WatchPoll => self.poll_watch(n),
            Happening::GuardStale { pause } => self.guard_stale(n, pause),
            Happening::Arrive { .. }
            | Happening::Guard
            | Happening::Restart
            | Happening::DaemonHung { .. }
            | Happening::Reopen => {}
        }
    }

    /// Replies and their time-outs compete; only the first one counts.
    pub(crate) fn deliver_once(&mut self, n: usize, event: Event) {
        if let Event::Reply { op, .. } = &event {
            let Some(at) = self.nodes[n].waiting.iter().position(|known| known == op) else {
                return;
            };
            self.nodes[n].waiting.swap_remove(at);
        }
        // The loop takes in together what came while it was busy.
        let busy = self.nodes[n].busy_until.saturating_sub(self.now);
        if busy == 0 {
            return self.deliver(n, event);
        }
        if self.nodes[n].inbox.is_empty() {
            self.schedule(n, busy, Happening::Deliver(Box::new(Event::Tick)));
        }
        self.nodes[n].inbox.push(event);
    }

    /// The daemon's loop takes in what waits for it and this.
    pub(crate) fn deliver(&mut self, n: usize, event: Event) {
        if self.nodes[n].frozen {
            self.nodes[n].backlog.push(Happening::Deliver(Box::new(event)));
            return;
        }
        let now = self.local(n);
        let only_watched = matches!(event, Event::Watched { .. });
        let inbox = std::mem::take(&mut self.nodes[n].inbox);
        for event in inbox.iter().chain([&event]) {
            self.trace(|world| format!("{} {event:?}", world.nodes[n].name));
            self.told(n, event, now.fast);
        }
        let Some(core) = &mut self.nodes[n].core else { return };
        let actions = if inbox.is_empty() {
            core.handle(now, event)
        } else {
            core.handle_all(now, inbox.into_iter().chain([event]))
        };
        let busy = 5 * actions.len() as u64 + self.random.below(50);
        self.nodes[n].busy_until = self.now + busy;
        let quiet = only_watched && actions.is_empty();
        self.run_actions(n, actions);
        if !quiet {
            self.ask(n);
        }
    }

    /// The judge sees what a daemon is told.
    fn told(&mut self, n: usize, event: &Event, local: Time) {
        let (judge, coverage) = (&mut self.checker, &mut self.coverage);
        match event {
            Event::Reply { op, outcome } => {
                coverage.answered(outcome);
                let applied = matches!(outcome, Outcome::Applied { .. });
                let (Outcome::Applied { at, seen } | Outcome::Rejected { at, seen }) = outcome
                else {
                    judge.ballot.gave_up(n, op.0);
                    return judge.answered(n, op.0, false, 0, local);
                };
                judge.answered(n, op.0, applied, at.0, local);
                judge.ballot.answered(n, op.0, at.0, seen);
            }
            Event::Watched { entries, .. } => {
                entries.iter().for_each(|entry| judge.ballot.told(n, entry));
            }
            Event::Fitness { election, fitness } => {
                let e = names::position(election.as_str());
                judge.ballot.told_fitness(e, n, fitness.fit);
            }
            _ => {}
        }
    }

    /// Asks a node what it does, as a load balancer's check would.
    pub(crate) fn ask(&mut self, n: usize) {
        let now = self.local(n);
        let Some(core) = &self.nodes[n].core else { return };
        for (e, election) in self.elections.iter().enumerate() {
            let Some((phase, token)) = core.phase(election, now) else { continue };
            let place = n * self.elections.len() + e;
            self.coverage.phase(place, phase);
            let shown = token.filter(|_| phase == Phase::Leading);
            for token in shown.into_iter().chain(core.leading(election, now)) {
                self.checker.says(self.now, n, e, token, now.fast);
            }
        }
    }
}

/// Clocks off by up to the bound, often by all of it.
pub(crate) fn some_rates(random: &mut Random, bound: i64) -> Rates {
    let mut rate = || match random.below(4) {
        0 => bound,
        1 => -bound,
        _ => random.below(2 * bound.unsigned_abs() + 1).cast_signed() - bound,
    };
    let rate = rate();
    Rates { fast: rate, slow: rate }
}

pub(crate) fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

//! Several nodes, one store, one network, on one simulated clock.
//!
//! A world runs until a time; everything that happens comes from its seed and from the faults
//! that a test injects. Exclusive effects are modelled as what the outside would see: in place
//! from the moment a worker puts them there to the moment a worker or the guard removes them.
//! Two at once is a violation of S1 and ends the run with the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::{
    ElectionName, ElectionSettings, Event, Exit, NodeName, Notice, OpId, Outcome, Request,
    Revision, SessionId, Timings, Token,
};

use crate::checker::Checker;
use crate::network::StoreState;
use crate::node::SimNode;
use crate::policy::PolicyMode;
use crate::random::Random;
use crate::store::ModelStore;

/// Microseconds of simulated time.
pub(crate) type Micros = u64;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many nodes: `n0`, `n1`, …
    pub nodes: usize,
    /// The elections and what they ask of the core.
    pub elections: BTreeMap<ElectionName, ElectionSettings>,
    /// The durations.
    pub timings: Timings,
    /// Whom the policy prefers, if anybody; otherwise it answers as the built-in ranking does.
    pub prefer: Option<NodeName>,
    /// Whether guards act at the deadline. Without them the daemons alone must withdraw in time.
    pub guards: bool,
    /// Whether everything that happens is written to standard error, for replays.
    pub trace: bool,
}

impl WorldSettings {
    /// Nodes and elections without more ado: TTL 1 s.
    pub fn new(seed: u64, nodes: usize, elections: usize) -> Self {
        let mut timings = Timings::for_ttl(Duration::from_secs(1));
        timings.minimum_term = Duration::from_secs(2);
        let name = |i| ElectionName::new(format!("e{i}"));
        WorldSettings {
            seed,
            nodes,
            elections: (0..elections).map(|i| (name(i), ElectionSettings::default())).collect(),
            timings,
            prefer: None,
            guards: true,
            trace: false,
        }
    }
}

/// What is going to happen.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most of what happens is a request or a reply")]
pub(crate) enum Happening {
    /// The core's deadline, so identified that a deadline that moved is not kept.
    Tick {
        due: Micros,
    },
    Deliver(Event),
    Arrive {
        op: OpId,
        request: Request,
    },
    Timeout {
        op: OpId,
    },
    Place {
        election: ElectionName,
        token: Token,
        session: SessionId,
    },
    Withdraw {
        op: OpId,
        election: ElectionName,
    },
    WatchPoll,
    Guard,
    Restart,
}

/// The simulation.
pub struct World {
    pub(crate) settings: WorldSettings,
    pub(crate) random: Random,
    /// The store, open to tests that play the operator or a competitor.
    pub store: ModelStore,
    pub(crate) store_state: StoreState,
    /// Requests that a hung store has received and not yet executed.
    pub(crate) held: Vec<(usize, u64, OpId, Request)>,
    pub(crate) now: Micros,
    queue: BTreeMap<(Micros, u64), (usize, u64, Happening)>,
    sequence: u64,
    /// The revision of which the watches have been told.
    pub(crate) announced: Revision,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) checker: Checker,
    /// What the cores told, in order.
    pub notices: Vec<(u64, NodeName, Notice)>,
    /// When which node had an election's effect put in place or removed.
    pub record: Vec<(u64, ElectionName, NodeName, bool)>,
}

impl World {
    /// A world with all nodes started.
    pub fn new(settings: WorldSettings) -> Self {
        let mut random = Random::new(settings.seed);
        let bound = u64::from(settings.timings.clock_rate_error_ppm);
        let policy = settings.prefer.clone().map_or(PolicyMode::Builtin, PolicyMode::Prefer);
        let nodes = (0..settings.nodes)
            .map(|i| {
                let off = i64::try_from(random.below(2 * bound + 1)).unwrap_or(0);
                let rate_ppm = off - i64::try_from(bound).unwrap_or(0);
                SimNode::new(NodeName::new(format!("n{i}")), rate_ppm, policy.clone())
            })
            .collect();
        let mut world = World {
            random,
            store: ModelStore::default(),
            store_state: StoreState::Answers,
            held: Vec::new(),
            now: 1_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            announced: Revision(0),
            nodes,
            checker: Checker::default(),
            notices: Vec::new(),
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
        Duration::from_micros(self.now - 1_000_000)
    }

    /// Runs for a span of simulated time.
    pub fn run(&mut self, span: Duration) {
        let until = self.now + micros(span);
        self.announce();
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            let Some(((at, _), (node, life, happening))) = self.queue.pop_first() else { break };
            self.now = at;
            self.happen(node, life, happening);
            self.announce();
        }
        self.now = until;
    }

    /// Who has an election's exclusive effect in place now.
    pub fn holders(&self, election: &ElectionName) -> Vec<&NodeName> {
        let has = |node: &&SimNode| node.effects.contains_key(election);
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

    /// Tells a node that its fitness changed.
    pub fn set_fitness(&mut self, node: usize, election: &ElectionName, fitness: Fitness) {
        self.nodes[node].fitness.insert(election.clone(), fitness.clone());
        self.deliver(node, Event::Fitness { election: election.clone(), fitness });
    }

    pub(crate) fn trace(&self, what: impl FnOnce(&Self) -> String) {
        if self.settings.trace {
            eprintln!("{:>9} {}", self.now, what(self));
        }
    }

    pub(crate) fn schedule(&mut self, node: usize, after: Micros, happening: Happening) {
        self.sequence += 1;
        let life = self.nodes[node].life;
        self.queue.insert((self.now + after, self.sequence), (node, life, happening));
    }

    fn happen(&mut self, n: usize, life: u64, happening: Happening) {
        match happening {
            // A request under way outlives its sender: that is what makes outcomes unknown.
            Happening::Arrive { op, request } => return self.arrive(n, life, op, request),
            Happening::Guard => return self.guard(n),
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
            Happening::Deliver(event) => self.deliver_once(n, event),
            Happening::Timeout { op } => {
                self.deliver_once(n, Event::Reply { op, outcome: Outcome::Unknown });
            }
            Happening::Place { election, token, session } => {
                self.place(n, election, token, session);
            }
            Happening::Withdraw { op, election } => self.withdraw(n, op, &election),
            Happening::WatchPoll => self.poll_watch(n),
            Happening::Restart => self.restart(n),
            Happening::Arrive { .. } | Happening::Guard => {}
        }
    }

    /// Replies and their time-outs compete; only the first one counts.
    fn deliver_once(&mut self, n: usize, event: Event) {
        if let Event::Reply { op, .. } = &event
            && !self.nodes[n].waiting.remove(op)
        {
            return;
        }
        // The loop takes in together what came while it was busy.
        let busy = self.nodes[n].busy_until.saturating_sub(self.now);
        if busy == 0 {
            return self.deliver(n, event);
        }
        if self.nodes[n].inbox.is_empty() {
            self.schedule(n, busy, Happening::Deliver(Event::Tick));
        }
        self.nodes[n].inbox.push(event);
    }

    pub(crate) fn deliver(&mut self, n: usize, event: Event) {
        let now = self.local(n);
        let node = &mut self.nodes[n];
        if node.frozen {
            node.backlog.push(Happening::Deliver(event));
            return;
        }
        let Some(core) = &mut node.core else { return };
        let mut events = std::mem::take(&mut node.inbox);
        events.push(event);
        if self.settings.trace {
            eprintln!("{:>9} {} {events:?}", self.now, node.name);
        }
        let actions = core.handle_all(now, events);
        let busy = 5 * actions.len() as u64 + self.random.below(50);
        self.nodes[n].busy_until = self.now + busy;
        self.run_actions(n, actions);
    }
}

pub(crate) fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

//! Several nodes, one store, one network, on one simulated clock.
//!
//! A world runs until a time; everything that happens comes from its seed and from the faults
//! that a test injects. Exclusive effects are modelled as what the outside would see: in place
//! from the moment a worker puts them there to the moment a worker or the guard removes them.
//! Two at once is a violation of S1 and ends the run with the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conclave_core::record::{Attributes, Fitness, PolicyVersion};
use conclave_core::view::{Ranked, Ranking, View};
use conclave_core::{
    Action, Adoption, Core, ElectionName, ElectionSettings, Entry, Event, Exit, NodeName, Nonce,
    Notice, OpId, Outcome, Past, Request, Revision, SessionId, Settings, Time, Timings, Token,
};

use crate::random::Random;
use crate::store::ModelStore;

/// Microseconds of simulated time.
type Micros = u64;

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
        }
    }
}

/// What can be broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests of a node get lost.
    LoseRequests(usize),
    /// Requests of a node are applied, but their replies, and the watch, get lost.
    LoseReplies(usize),
    /// The node's link works again.
    Heal(usize),
    /// The daemon dies; its guard starts another 20 ms later.
    KillDaemon(usize),
    /// The machine loses power: nothing runs on it any more.
    KillNode(usize),
    /// The machine starts again.
    StartNode(usize),
    /// The daemon is frozen; its guard is not.
    Freeze(usize),
    /// The daemon goes on.
    Thaw(usize),
    /// The daemon is told to stop.
    Stop(usize),
    /// Nothing can be unlinked on the node.
    BreakDisk(usize),
    /// The disk works again.
    MendDisk(usize),
    /// The store answers nobody.
    StopStore,
    /// The store answers again.
    StartStore,
}

#[derive(Clone, Debug)]
enum Happening {
    Tick,
    Deliver(Event),
    Arrive { op: OpId, request: Request },
    Timeout { op: OpId },
    Place { election: ElectionName, token: Token, session: SessionId },
    Withdraw { op: OpId, election: ElectionName },
    WatchPoll,
    Guard,
    Restart,
}

struct SimNode {
    name: NodeName,
    core: Option<Core>,
    /// Counts the daemon's lives: what was meant for an earlier one is dropped.
    life: u64,
    /// The clock's rate error, in parts per million.
    rate_ppm: i64,
    effects: BTreeMap<ElectionName, Token>,
    page: Option<(SessionId, Time)>,
    ledger: Option<(SessionId, Nonce)>,
    tokens: BTreeMap<ElectionName, Token>,
    waiting: BTreeSet<OpId>,
    watched: Option<Revision>,
    lose_requests: bool,
    lose_replies: bool,
    frozen: bool,
    backlog: Vec<Event>,
    broken_disk: bool,
    exited: Option<Exit>,
    tick_at: Option<Micros>,
}

/// The simulation.
pub struct World {
    settings: WorldSettings,
    random: Random,
    /// The store, open to tests that play the operator or a competitor.
    pub store: ModelStore,
    store_answers: bool,
    now: Micros,
    queue: BTreeMap<(Micros, u64), (usize, u64, Happening)>,
    sequence: u64,
    nodes: Vec<SimNode>,
    /// What the cores told, in order.
    pub notices: Vec<(Micros, NodeName, Notice)>,
    /// When which node had an election's effect put in place or removed.
    pub record: Vec<(Micros, ElectionName, NodeName, bool)>,
}

impl World {
    /// A world with all nodes started.
    pub fn new(settings: WorldSettings) -> Self {
        let mut random = Random::new(settings.seed);
        let bound = i64::from(settings.timings.clock_rate_error_ppm);
        let nodes = (0..settings.nodes)
            .map(|i| SimNode {
                name: NodeName::new(format!("n{i}")),
                core: None,
                life: 0,
                rate_ppm: i64::try_from(random.below(2 * bound as u64 + 1)).unwrap_or(0) - bound,
                effects: BTreeMap::new(),
                page: None,
                ledger: None,
                tokens: BTreeMap::new(),
                waiting: BTreeSet::new(),
                watched: None,
                lose_requests: false,
                lose_replies: false,
                frozen: false,
                backlog: Vec::new(),
                broken_disk: false,
                exited: None,
                tick_at: None,
            })
            .collect();
        let mut world = World {
            random,
            store: ModelStore::default(),
            store_answers: true,
            now: 1_000_000,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes,
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
        let until = self.now + span.as_micros() as u64;
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            let Some(((at, _), (node, life, happening))) = self.queue.pop_first() else { break };
            self.now = at;
            self.happen(node, life, happening);
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

    /// Injects a fault now.
    pub fn inject(&mut self, fault: &Fault) {
        match *fault {
            Fault::LoseRequests(n) => self.nodes[n].lose_requests = true,
            Fault::LoseReplies(n) => self.nodes[n].lose_replies = true,
            Fault::Heal(n) => {
                self.nodes[n].lose_requests = false;
                self.nodes[n].lose_replies = false;
            }
            Fault::KillDaemon(n) => self.kill_daemon(n),
            Fault::KillNode(n) => {
                self.end_life(n);
                let elections: Vec<_> = self.nodes[n].effects.keys().cloned().collect();
                for election in elections {
                    self.remove_effect(n, &election);
                }
                self.nodes[n].page = None;
            }
            Fault::StartNode(n) => {
                if self.nodes[n].core.is_none() && self.nodes[n].exited.is_none() {
                    let dead = self.nodes[n].ledger.as_ref().map(|(_, nonce)| nonce.clone());
                    self.start(n, dead, None);
                }
            }
            Fault::Freeze(n) => self.nodes[n].frozen = true,
            Fault::Thaw(n) => self.thaw(n),
            Fault::Stop(n) => self.deliver(n, Event::Stop),
            Fault::BreakDisk(n) => self.nodes[n].broken_disk = true,
            Fault::MendDisk(n) => self.nodes[n].broken_disk = false,
            Fault::StopStore => self.store_answers = false,
            Fault::StartStore => self.store_answers = true,
        }
    }

    /// Tells a node that its fitness changed.
    pub fn set_fitness(&mut self, node: usize, election: &ElectionName, fitness: Fitness) {
        self.deliver(node, Event::Fitness { election: election.clone(), fitness });
    }

    fn end_life(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.life += 1;
        node.core = None;
        node.waiting.clear();
        node.watched = None;
        node.frozen = false;
        node.backlog.clear();
        node.tick_at = None;
    }

    fn kill_daemon(&mut self, n: usize) {
        if self.nodes[n].core.is_some() {
            self.end_life(n);
            self.schedule(n, 20_000, Happening::Restart);
        }
    }

    fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        let backlog = std::mem::take(&mut self.nodes[n].backlog);
        self.deliver(n, Event::Tick);
        for event in backlog {
            self.deliver(n, event);
        }
    }

    fn local(&self, n: usize) -> conclave_core::Now {
        let drift = i128::from(self.now) * i128::from(self.nodes[n].rate_ppm) / 1_000_000;
        let local = i128::from(self.now) + drift;
        conclave_core::Now::at(u64::try_from(local).unwrap_or(0))
    }

    fn schedule(&mut self, node: usize, after: Micros, happening: Happening) {
        self.sequence += 1;
        let life = self.nodes[node].life;
        self.queue.insert((self.now + after, self.sequence), (node, life, happening));
    }

    fn start(&mut self, n: usize, dead: Option<Nonce>, adopt: Option<Adoption>) {
        self.nodes[n].life += 1;
        self.nodes[n].exited = None;
        let node = &self.nodes[n];
        let settings = Settings {
            node: node.name.clone(),
            nonce: Nonce::new(format!("{}-{}", node.name, node.life)),
            boot_id: String::new(),
            addresses: Vec::new(),
            labels: Attributes::new(),
            version: String::new(),
            timings: self.settings.timings.clone(),
            elections: self.settings.elections.clone(),
            past: Past { dead, adopt, revision: Revision(0), tokens: node.tokens.clone() },
        };
        let (core, actions) = Core::new(settings, self.local(n));
        self.nodes[n].core = Some(core);
        self.run_actions(n, actions);
        for election in self.settings.elections.keys().cloned().collect::<Vec<_>>() {
            let fitness = Fitness::fit();
            self.deliver(n, Event::Fitness { election: election.clone(), fitness });
            let (facts, policy) = (Attributes::new(), PolicyVersion::default());
            self.deliver(n, Event::Described { election, facts, policy });
        }
    }

    fn restart(&mut self, n: usize) {
        let now = self.local(n).fast;
        let node = &self.nodes[n];
        let adopt = match (&node.page, &node.ledger) {
            (Some((on, deadline)), Some((session, nonce))) if on == session && now < *deadline => {
                Some(Adoption {
                    session: *session,
                    nonce: nonce.clone(),
                    deadline: *deadline,
                    terms: node.effects.clone(),
                })
            }
            _ => None,
        };
        let dead = node.ledger.as_ref().map(|(_, nonce)| nonce.clone());
        if adopt.is_none() {
            for election in node.effects.keys().cloned().collect::<Vec<_>>() {
                self.remove_effect(n, &election);
            }
            self.nodes[n].page = None;
        }
        self.start(n, dead, adopt);
    }

    fn happen(&mut self, n: usize, life: u64, happening: Happening) {
        if let Happening::Arrive { op, request } = happening {
            // A request under way outlives its sender: that is what makes outcomes unknown.
            return self.arrive(n, life, op, &request);
        }
        if matches!(happening, Happening::Guard) {
            return self.guard(n);
        }
        if self.nodes[n].life != life {
            return;
        }
        match happening {
            Happening::Tick => {
                self.nodes[n].tick_at = None;
                self.deliver(n, Event::Tick);
            }
            Happening::Deliver(event) => self.deliver_once(n, event),
            Happening::Timeout { op } => {
                self.deliver_once(n, Event::Reply { op, outcome: Outcome::Unknown });
            }
            Happening::Place { election, token, session } => {
                self.place(n, election, token, session);
            }
            Happening::Withdraw { op, election } => {
                let result =
                    if self.nodes[n].broken_disk && self.nodes[n].effects.contains_key(&election) {
                        Err("input/output error".to_owned())
                    } else {
                        self.remove_effect(n, &election);
                        Ok(())
                    };
                self.deliver(n, Event::Withdrawn { op, result });
            }
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
        self.deliver(n, event);
    }

    fn deliver(&mut self, n: usize, event: Event) {
        let now = self.local(n);
        let node = &mut self.nodes[n];
        if node.frozen {
            node.backlog.push(event);
            return;
        }
        let Some(core) = &mut node.core else { return };
        let actions = core.handle(now, event);
        self.run_actions(n, actions);
    }

    fn run_actions(&mut self, n: usize, actions: Vec<Action>) {
        for action in actions {
            self.run_action(n, action);
        }
        let now = self.local(n);
        let Some(core) = &self.nodes[n].core else { return };
        if let Some(wait) = core.next_deadline(now) {
            // Never earlier than asked, and at the latest 1 ms late: wake-ups are not exact.
            let after = wait.as_micros() as u64 + 1 + self.random.below(1_000);
            let at = self.now + after;
            if self.nodes[n].tick_at.is_none_or(|known| known > at || known < self.now) {
                self.nodes[n].tick_at = Some(at);
                self.schedule(n, after, Happening::Tick);
            }
        }
    }

    fn run_action(&mut self, n: usize, action: Action) {
        match action {
            Action::Send { op, request, timeout } => {
                self.nodes[n].waiting.insert(op);
                let latency = 200 + self.random.below(400);
                self.schedule(n, latency, Happening::Arrive { op, request });
                self.schedule(n, timeout.as_micros() as u64, Happening::Timeout { op });
            }
            Action::Watch { after } => {
                self.nodes[n].watched = Some(after);
                self.schedule(n, 300, Happening::WatchPoll);
            }
            Action::Session { session } => self.nodes[n].ledger = session,
            Action::Extend { session, deadline } => {
                self.nodes[n].page = Some((session, deadline));
                let left = deadline.since(self.local(n).fast).as_micros() as u64;
                self.schedule(n, left + 1, Happening::Guard);
            }
            Action::Rank { op, view } => {
                let result = Ok(self.rank(&view));
                let after = 20 + self.random.below(100);
                self.schedule(n, after, Happening::Deliver(Event::Ranked { op, result }));
            }
            Action::Lead { election, token, .. } => {
                let known = self.nodes[n].tokens.entry(election.clone()).or_insert(token);
                *known = token.max(*known);
                let Some((session, _)) = self.nodes[n].page else { return };
                let after = 100 + self.random.below(900);
                self.schedule(n, after, Happening::Place { election, token, session });
            }
            Action::Withdraw { op, election } => {
                let after = 100 + self.random.below(900);
                self.schedule(n, after, Happening::Withdraw { op, election });
            }
            Action::StopCheck { op, .. } => {
                let event = Event::StopChecked { op, stopped: self.random.chance(80) };
                self.schedule(n, 5_000, Happening::Deliver(event));
            }
            Action::Follow { .. } => {}
            Action::Notice(notice) => {
                let name = self.nodes[n].name.clone();
                self.notices.push((self.now, name, notice));
            }
            Action::Exit(exit) => {
                assert!(
                    self.nodes[n].effects.is_empty(),
                    "seed {}: {} exited with effects in place",
                    self.settings.seed,
                    self.nodes[n].name
                );
                self.end_life(n);
                self.nodes[n].exited = Some(exit);
            }
        }
    }

    fn rank(&self, view: &View) -> Ranking {
        let mut order = conclave_core::ranking::builtin_order(view);
        if let Some(preferred) = &self.settings.prefer
            && let Some(at) = order.iter().position(|name| name == preferred)
        {
            let name = order.remove(at);
            order.insert(0, name);
        }
        let order = order.into_iter().map(|node| Ranked { node, reason: String::new() }).collect();
        Ranking { order, excluded: Vec::new() }
    }

    fn arrive(&mut self, n: usize, life: u64, op: OpId, request: &Request) {
        if self.nodes[n].lose_requests || !self.store_answers {
            return;
        }
        let outcome = self.store.execute(request);
        if self.nodes[n].lose_replies || self.nodes[n].life != life {
            return;
        }
        let latency = 200 + self.random.below(400);
        self.schedule(n, latency, Happening::Deliver(Event::Reply { op, outcome }));
    }

    fn poll_watch(&mut self, n: usize) {
        let Some(after) = self.nodes[n].watched else { return };
        let cut = self.nodes[n].lose_requests || self.nodes[n].lose_replies;
        if self.store_answers && !cut {
            let entries: Vec<Entry> = self.store.changes(after);
            let at = self.store.revision();
            if at > after {
                self.nodes[n].watched = Some(at);
                self.deliver(n, Event::Watched { at, entries });
            }
        }
        if self.nodes[n].watched.is_some() {
            let latency = 200 + self.random.below(400);
            self.schedule(n, latency, Happening::WatchPoll);
        }
    }

    fn place(&mut self, n: usize, election: ElectionName, token: Token, session: SessionId) {
        let now = self.local(n).fast;
        let open = self.nodes[n].page.is_some_and(|(on, until)| on == session && now < until);
        let frozen = self.nodes[n].frozen;
        if !open || frozen || self.nodes[n].effects.get(&election) == Some(&token) {
            return;
        }
        // Withdrawn in the meantime: a worker runs its commands in order.
        let leading = self.nodes[n].core.as_ref().and_then(|c| c.leading(&election, self.local(n)));
        if leading != Some(token) {
            return;
        }
        let others: Vec<&NodeName> = self.holders(&election);
        assert!(
            others.is_empty(),
            "seed {}: S1 violated at {} µs: {} places {election} while {others:?} has it",
            self.settings.seed,
            self.now,
            self.nodes[n].name
        );
        let name = self.nodes[n].name.clone();
        self.record.push((self.now, election.clone(), name, true));
        self.nodes[n].effects.insert(election, token);
    }

    fn remove_effect(&mut self, n: usize, election: &ElectionName) {
        if self.nodes[n].effects.remove(election).is_some() {
            let name = self.nodes[n].name.clone();
            self.record.push((self.now, election.clone(), name, false));
        }
    }

    /// The guard looks at the page: past the deadline it withdraws, kills the daemon and starts
    /// another.
    fn guard(&mut self, n: usize) {
        let now = self.local(n).fast;
        let Some((_, deadline)) = self.nodes[n].page else { return };
        if now < deadline {
            // Scheduled by the world's clock, which may be ahead of the node's.
            let left = deadline.since(now).as_micros() as u64;
            return self.schedule(n, left + 1, Happening::Guard);
        }
        self.nodes[n].page = None;
        if self.nodes[n].broken_disk {
            return; // counted apart by the protocol: a disk that refuses until expiry
        }
        for election in self.nodes[n].effects.keys().cloned().collect::<Vec<_>>() {
            self.remove_effect(n, &election);
        }
        if self.nodes[n].frozen {
            self.kill_daemon(n);
        } else {
            self.deliver(n, Event::GuardExpired);
        }
    }
}

//! One simulated machine: a daemon with its lives, a guard, a disk, a clock, a link.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::record::{Attributes, Fitness, PolicyVersion};
use conclave_core::{
    Adoption, Core, ElectionName, Event, Exit, NodeName, Nonce, OpId, Past, Revision, SessionId,
    Settings, Time, Token,
};

use crate::network::SimWatch;
use crate::policy::PolicyMode;
use crate::world::{Happening, Micros, World};

/// An exclusive effect, as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) token: Token,
    pub(crate) session: SessionId,
    /// The disk refused to unlink it at the deadline: counted apart by the protocol (S5).
    pub(crate) excused: bool,
}

pub(crate) struct SimNode {
    pub(crate) name: NodeName,
    pub(crate) core: Option<Core>,
    /// Counts the daemon's lives: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// The clock's rate error, in parts per million.
    rate_ppm: i64,
    pub(crate) effects: BTreeMap<ElectionName, Effect>,
    /// The shared page: the session and its deadline.
    pub(crate) page: Option<(SessionId, Time)>,
    pub(crate) ledger: Option<(SessionId, Nonce)>,
    pub(crate) tokens: BTreeMap<ElectionName, Token>,
    /// The highest revision that the daemon's state directory names.
    revision: Revision,
    pub(crate) waiting: BTreeSet<OpId>,
    pub(crate) watch: Option<SimWatch>,
    pub(crate) lose_requests: bool,
    pub(crate) lose_replies: bool,
    pub(crate) slow_link: bool,
    pub(crate) frozen: bool,
    pub(crate) backlog: Vec<Happening>,
    /// What waits for the daemon's loop while it is busy.
    pub(crate) inbox: Vec<Event>,
    pub(crate) busy_until: Micros,
    pub(crate) broken_disk: bool,
    pub(crate) exited: Option<Exit>,
    pub(crate) tick_due: Option<Micros>,
    pub(crate) policy: PolicyMode,
    pub(crate) policy_version: PolicyVersion,
    pub(crate) fitness: BTreeMap<ElectionName, Fitness>,
    /// When each election's worker has done what it was told so far.
    pub(crate) worker_free: BTreeMap<ElectionName, Micros>,
}

impl SimNode {
    pub(crate) fn new(name: NodeName, rate_ppm: i64, policy: PolicyMode) -> Self {
        SimNode {
            name,
            core: None,
            life: 0,
            rate_ppm,
            effects: BTreeMap::new(),
            page: None,
            ledger: None,
            tokens: BTreeMap::new(),
            revision: Revision(0),
            waiting: BTreeSet::new(),
            watch: None,
            lose_requests: false,
            lose_replies: false,
            slow_link: false,
            frozen: false,
            backlog: Vec::new(),
            inbox: Vec::new(),
            busy_until: 0,
            broken_disk: false,
            exited: None,
            tick_due: None,
            policy,
            policy_version: PolicyVersion::default(),
            fitness: BTreeMap::new(),
            worker_free: BTreeMap::new(),
        }
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.lose_requests || self.lose_replies
    }
}

/// Between a daemon's death and its successor's first step.
const RESTART_AFTER: Micros = 20_000;

impl World {
    /// The node's clocks.
    pub(crate) fn local(&self, n: usize) -> conclave_core::Now {
        let drift = i128::from(self.now) * i128::from(self.nodes[n].rate_ppm) / 1_000_000;
        let local = i128::from(self.now) + drift;
        conclave_core::Now::at(u64::try_from(local).unwrap_or(0))
    }

    pub(crate) fn end_life(&mut self, n: usize) {
        let now = self.local(n);
        let node = &mut self.nodes[n];
        if let Some(core) = node.core.take() {
            node.revision = core.status(now).revision;
        }
        node.life += 1;
        node.waiting.clear();
        node.watch = None;
        node.frozen = false;
        node.backlog.clear();
        node.inbox.clear();
        node.tick_due = None;
        node.worker_free.clear();
    }

    pub(crate) fn kill_daemon(&mut self, n: usize) {
        if self.nodes[n].core.is_some() {
            self.end_life(n);
            self.schedule(n, RESTART_AFTER, Happening::Restart);
        }
    }

    pub(crate) fn kill_node(&mut self, n: usize) {
        self.end_life(n);
        // Its pods die with it.
        for election in self.nodes[n].effects.keys().cloned().collect::<Vec<_>>() {
            self.remove_effect(n, &election);
        }
        self.nodes[n].page = None;
    }

    /// Starts a machine, or a daemon that stopped, again.
    pub(crate) fn start_node(&mut self, n: usize) {
        if self.nodes[n].core.is_none() {
            // Another guard, or another boot: nothing is adopted.
            self.nodes[n].page = None;
            self.restart(n);
        }
    }

    pub(crate) fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        let backlog = std::mem::take(&mut self.nodes[n].backlog);
        let life = self.nodes[n].life;
        self.deliver(n, Event::Tick);
        for happening in backlog {
            if self.nodes[n].life == life {
                self.happen_here(n, happening);
            }
        }
    }

    pub(crate) fn start(&mut self, n: usize, dead: Option<Nonce>, adopt: Option<Adoption>) {
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
            past: Past { dead, adopt, revision: node.revision, tokens: node.tokens.clone() },
        };
        let (core, actions) = Core::new(settings, self.local(n));
        self.nodes[n].core = Some(core);
        self.run_actions(n, actions);
        for election in self.settings.elections.keys().cloned().collect::<Vec<_>>() {
            let known = self.nodes[n].fitness.get(&election).cloned();
            let fitness = known.unwrap_or_else(Fitness::fit);
            self.deliver(n, Event::Fitness { election: election.clone(), fitness });
        }
        self.describe(n);
    }

    /// A daemon's successor under the same guard.
    pub(crate) fn restart(&mut self, n: usize) {
        let now = self.local(n).fast;
        let node = &self.nodes[n];
        let adopt = match (&node.page, &node.ledger) {
            (Some((on, deadline)), Some((session, nonce))) if on == session && now < *deadline => {
                Some(Adoption {
                    session: *session,
                    nonce: nonce.clone(),
                    deadline: *deadline,
                    terms: node.effects.iter().map(|(e, x)| (e.clone(), x.token)).collect(),
                })
            }
            _ => None,
        };
        let dead = node.ledger.as_ref().map(|(_, nonce)| nonce.clone());
        if adopt.is_none() {
            if self.nodes[n].broken_disk && !self.nodes[n].effects.is_empty() {
                // It cleans up before anything else, and cannot.
                return self.schedule(n, RESTART_AFTER, Happening::Restart);
            }
            for election in self.nodes[n].effects.keys().cloned().collect::<Vec<_>>() {
                self.remove_effect(n, &election);
            }
            self.nodes[n].page = None;
        }
        self.start(n, dead, adopt);
    }
}

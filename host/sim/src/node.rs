//! One simulated machine: a daemon with its lives, a guard, a disk, clocks, a link.

use std::collections::{BTreeMap, VecDeque};

use conclave_core::record::PolicyVersion;
use conclave_core::{
    Adoption, Core, ElectionName, Event, Exit, NodeName, Nonce, OpId, Past, Revision, SessionId,
    Settings, Time, Token,
};

use crate::clock::{Clock, Micros};
use crate::disk::{Disk, FileWork, Files};
use crate::guard::Guard;
use crate::network::{Link, SimWatch};
use crate::policy::PolicyMode;
use crate::world::{Happening, World};

/// The shared page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) session: SessionId,
    pub(crate) deadline: Time,
    /// The guard has marked it: it is never extended again.
    pub(crate) expired: bool,
}

pub(crate) struct SimNode {
    pub(crate) name: NodeName,
    pub(crate) clock: Clock,
    pub(crate) core: Option<Core>,
    /// Counts the daemon's lives: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) page: Option<Page>,
    pub(crate) ledger: Option<(SessionId, Nonce)>,
    pub(crate) tokens: BTreeMap<ElectionName, Token>,
    /// The highest revision that the daemon's state directory names.
    revision: Revision,
    /// The operations whose outcome it waits for, and when each is given up.
    pub(crate) waiting: Vec<OpId>,
    pub(crate) timeouts: VecDeque<(Micros, OpId)>,
    pub(crate) watch: Option<SimWatch>,
    pub(crate) link: Link,
    pub(crate) frozen: bool,
    /// Counts the beginnings and ends of the daemon's pauses, so that whoever waits for one to last
    /// too long knows it; and the guard's.
    pub(crate) pauses: u64,
    pub(crate) guard_pauses: u64,
    pub(crate) backlog: Vec<Happening>,
    /// What waits for the daemon's loop while it is busy.
    pub(crate) inbox: Vec<Event>,
    pub(crate) busy_until: Micros,
    /// The daemon was told to stop.
    pub(crate) stopping: bool,
    pub(crate) exited: Option<Exit>,
    pub(crate) tick_due: Option<Micros>,
    pub(crate) guard: Guard,
    /// A look of the guard at the page is scheduled.
    pub(crate) guard_due: bool,
    /// The page's session is not one of this guard's daemons: nobody adopts it.
    pub(crate) another_guards: bool,
    pub(crate) policy: PolicyMode,
    pub(crate) policy_version: PolicyVersion,
    pub(crate) disk: Disk,
    /// What a hanging disk has not done yet.
    pub(crate) hung: Vec<FileWork>,
    /// The terms that exclusive effects are in place for, by election.
    pub(crate) effects: Vec<Option<(Token, SessionId)>>,
    pub(crate) files: Vec<Files>,
}

impl SimNode {
    pub(crate) fn new(name: NodeName, clock: Clock, elections: usize, policy: PolicyMode) -> Self {
        SimNode {
            name,
            clock,
            core: None,
            life: 0,
            page: None,
            ledger: None,
            tokens: BTreeMap::new(),
            revision: Revision(0),
            waiting: Vec::new(),
            timeouts: VecDeque::new(),
            watch: None,
            link: Link::default(),
            frozen: false,
            pauses: 0,
            guard_pauses: 0,
            backlog: Vec::new(),
            inbox: Vec::new(),
            busy_until: 0,
            stopping: false,
            exited: None,
            tick_due: None,
            guard: Guard::Runs,
            guard_due: false,
            another_guards: false,
            policy,
            policy_version: PolicyVersion::default(),
            disk: Disk::Works,
            hung: Vec::new(),
            effects: vec![None; elections],
            files: vec![Files::default(); elections],
        }
    }

    /// Whether a daemon runs and is scheduled.
    pub(crate) fn daemon_runs(&self) -> bool {
        self.core.is_some() && !self.frozen
    }

    /// The operator accepts a restored store: what the node remembered of the other is void.
    pub(crate) fn accept_store(&mut self) {
        self.revision = Revision(0);
        self.tokens.clear();
    }
}

/// Between a daemon's death and its successor's first step.
pub(crate) const RESTART_AFTER: Micros = 20_000;

/// Between attempts to do what a disk does not let be done.
pub(crate) const AGAIN_AFTER: Micros = 50_000;

impl World {
    /// The node's clocks.
    pub(crate) fn local(&self, n: usize) -> conclave_core::Now {
        self.nodes[n].clock.read(self.now)
    }

    /// Tells the judge whether anybody on the node can withdraw.
    pub(crate) fn judge_helplessness(&mut self, n: usize) {
        let node = &self.nodes[n];
        let nobody = node.guard != Guard::Runs && !node.daemon_runs();
        let helpless = nobody || matches!(node.disk, Disk::Refuses | Disk::Hangs);
        let unguarded = node.guard != Guard::Runs;
        self.checker.helpless(self.now, n, helpless, unguarded);
    }

    pub(crate) fn end_life(&mut self, n: usize) {
        let now = self.local(n);
        let node = &mut self.nodes[n];
        if let Some(core) = node.core.take() {
            node.revision = core.status(now).revision;
        }
        node.life += 1;
        node.waiting.clear();
        node.timeouts.clear();
        node.watch = None;
        node.frozen = false;
        node.pauses += 1;
        node.backlog.clear();
        node.inbox.clear();
        node.busy_until = 0;
        node.tick_due = None;
        node.stopping = false;
        node.files.iter_mut().for_each(Files::begin);
        self.checker.daemon_ended(n);
        self.judge_helplessness(n);
        for e in 0..self.elections.len() {
            self.coverage.no_daemon(n * self.elections.len() + e);
        }
    }

    pub(crate) fn kill_daemon(&mut self, n: usize) {
        if self.nodes[n].core.is_some() {
            self.end_life(n);
            self.schedule(n, RESTART_AFTER, Happening::Restart);
        }
    }

    pub(crate) fn kill_node(&mut self, n: usize) {
        self.end_life(n);
        self.nodes[n].guard = Guard::Dead;
        self.judge_helplessness(n);
        // Its pods die with it; what lies on its disk is cleaned up before anything else.
        self.nodes[n].hung.clear();
        for e in 0..self.elections.len() {
            if self.nodes[n].effects[e].take().is_some() {
                self.remember(n, e, false);
            }
        }
        self.checker.powered_off(n);
        self.nodes[n].page = None;
    }

    pub(crate) fn thaw(&mut self, n: usize) {
        if !self.nodes[n].frozen {
            return;
        }
        self.nodes[n].frozen = false;
        self.nodes[n].pauses += 1;
        self.judge_helplessness(n);
        let backlog = std::mem::take(&mut self.nodes[n].backlog);
        let life = self.nodes[n].life;
        self.deliver(n, Event::Tick);
        for happening in backlog {
            if self.nodes[n].life == life {
                self.happen_here(n, happening);
            }
        }
        if self.nodes[n].life == life && self.nodes[n].guard == Guard::Dead {
            self.stop_daemon(n);
        }
    }

    /// The daemon is told to stop.
    pub(crate) fn stop_daemon(&mut self, n: usize) {
        if self.nodes[n].core.is_some() {
            self.nodes[n].stopping = true;
            self.deliver(n, Event::Stop);
        }
    }

    pub(crate) fn start(&mut self, n: usize, dead: Option<Nonce>, adopt: Option<Adoption>) {
        let node = &mut self.nodes[n];
        node.life += 1;
        node.exited = None;
        node.another_guards = false;
        self.coverage.adoptions += u64::from(adopt.is_some());
        let settings = Settings {
            node: node.name.clone(),
            nonce: Nonce::new(format!("{}-{}", node.name, node.life)),
            boot_id: String::new(),
            addresses: Vec::new(),
            labels: self.settings.labels.get(n).cloned().unwrap_or_default(),
            version: String::new(),
            timings: self.settings.timings.clone(),
            elections: self
                .elections
                .iter()
                .cloned()
                .zip(self.settings.elections.clone())
                .collect(),
            past: Past { dead, adopt, revision: node.revision, tokens: node.tokens.clone() },
        };
        let (core, actions) = Core::new(settings, self.local(n));
        self.nodes[n].core = Some(core);
        self.judge_helplessness(n);
        self.checker.ballot.forgot(n);
        self.run_actions(n, actions);
        self.ask(n);
        for e in 0..self.elections.len() {
            self.tell_fitness(n, e);
        }
        self.describe(n);
    }

    /// The guard starts a daemon: it goes on where the one before ended, or everything is
    /// withdrawn first.
    pub(crate) fn restart(&mut self, n: usize) {
        let node = &self.nodes[n];
        if node.core.is_some() || node.guard != Guard::Runs {
            return;
        }
        if !node.hung.is_empty() {
            // The dead daemon's last file operation has not returned: it is not dead yet.
            return self.schedule(n, AGAIN_AFTER, Happening::Restart);
        }
        let now = self.local(n).fast;
        let adopt = match (&node.page, &node.ledger) {
            (Some(page), Some((session, nonce)))
                if page.session == *session
                    && !page.expired
                    && now < page.deadline
                    && !node.another_guards =>
            {
                let terms = self.elections.iter().zip(&node.effects);
                let terms = terms.filter_map(|(e, x)| Some((e.clone(), x.as_ref()?.0)));
                Some(Adoption {
                    session: *session,
                    nonce: nonce.clone(),
                    deadline: page.deadline,
                    terms: terms.collect(),
                })
            }
            _ => None,
        };
        let dead = node.ledger.as_ref().map(|(_, nonce)| nonce.clone());
        if adopt.is_none() {
            for e in 0..self.elections.len() {
                self.withdraw_as_guard(n, e);
            }
            if self.nodes[n].effects.iter().any(Option::is_some) {
                // It cleans up before anything else, and cannot.
                return self.schedule(n, AGAIN_AFTER, Happening::Restart);
            }
            self.nodes[n].page = None;
        }
        self.start(n, dead, adopt);
    }
}

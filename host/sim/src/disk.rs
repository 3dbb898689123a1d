//! What lies in a machine's destination directories, and the disk that it lies on.

use conclave_core::record::Fitness;
use conclave_core::{Event, OpId, SessionId, Token};

use crate::clock::Micros;
use crate::node::SimNode;
use crate::world::{Happening, World};

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Works,
    /// Nothing can be unlinked.
    Refuses,
    /// Nothing can be written.
    Full,
    /// File operations do not return until it works again.
    Hangs,
}

/// A file operation that has not returned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FileWork {
    Place { e: usize, token: Token, session: SessionId, life: u64 },
    Withdraw { op: OpId, e: usize, life: u64 },
    Guard { e: usize },
}

/// An election's destination on one machine, and the worker for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    /// When the worker has done what it was told so far.
    pub(crate) worker_free: Micros,
    /// The term that the daemon wants a file for.
    pub(crate) wanted: Option<(Token, SessionId)>,
    /// Somebody else's file lies there.
    foreign: bool,
    /// It could not be written.
    full: bool,
    /// The operator's own check passes.
    pub(crate) check_passes: bool,
    /// What the daemon was told last.
    told_fit: Option<bool>,
}

impl Default for Files {
    fn default() -> Self {
        Files {
            worker_free: 0,
            wanted: None,
            foreign: false,
            full: false,
            check_passes: true,
            told_fit: None,
        }
    }
}

impl Files {
    /// Another daemon begins: nothing was told or asked.
    pub(crate) fn begin(&mut self) {
        (self.worker_free, self.wanted, self.told_fit) = (0, None, None);
    }
}

impl SimNode {
    /// The page's gate: is the session that a file is for still before its deadline?
    fn gate_is_open(&self, now: conclave_core::Time, session: SessionId) -> bool {
        self.page.is_some_and(|p| p.session == session && !p.expired && now < p.deadline)
    }
}

impl World {
    /// How long until the election's worker has done one more thing: it works in order.
    pub(crate) fn worker(&mut self, n: usize, e: usize) -> Micros {
        let work = 100 + self.random.below(900);
        let free = &mut self.nodes[n].files[e].worker_free;
        *free = (*free).max(self.now) + work;
        *free - self.now
    }

    /// A worker puts an effect in place, if the gate is open.
    pub(crate) fn place(&mut self, n: usize, e: usize, token: Token, session: SessionId) {
        let now = self.local(n).fast;
        let node = &mut self.nodes[n];
        let there = node.effects[e].is_some_and(|(known, _)| known == token);
        if !node.gate_is_open(now, session) || there {
            return;
        }
        if node.files[e].foreign {
            return; // reported when it appeared, and never touched
        }
        match node.disk {
            Disk::Hangs => {
                let life = node.life;
                return node.hung.push(FileWork::Place { e, token, session, life });
            }
            Disk::Full => {
                node.files[e].full = true;
                return self.tell_fitness(n, e);
            }
            Disk::Works | Disk::Refuses => {}
        }
        let (now, nodes) = (self.now, &self.nodes);
        self.checker.placed(now, n, e, token, &|n| nodes[n].clock.read(now).fast);
        self.nodes[n].effects[e] = Some((token, session));
        self.moments.placings += 1;
        self.remember(n, e, true);
    }

    /// The daemon's worker withdraws.
    pub(crate) fn withdraw(&mut self, n: usize, op: OpId, e: usize) {
        let node = &mut self.nodes[n];
        let result = match node.disk {
            Disk::Hangs => {
                let life = node.life;
                return node.hung.push(FileWork::Withdraw { op, e, life });
            }
            Disk::Refuses if node.effects[e].is_some() => Err("input/output error".to_owned()),
            _ => {
                self.remove_effect(n, e);
                Ok(())
            }
        };
        self.deliver(n, Event::Withdrawn { op, result });
    }

    /// The guard withdraws: it may have to come again.
    pub(crate) fn withdraw_as_guard(&mut self, n: usize, e: usize) {
        let node = &mut self.nodes[n];
        match node.disk {
            Disk::Works | Disk::Full => {
                self.coverage.guard_withdrawals += u64::from(node.effects[e].is_some());
                self.remove_effect(n, e);
            }
            Disk::Hangs if node.effects[e].is_some() => node.hung.push(FileWork::Guard { e }),
            Disk::Hangs | Disk::Refuses => {}
        }
    }

    fn remove_effect(&mut self, n: usize, e: usize) {
        if self.nodes[n].effects[e].take().is_some() {
            let local = self.local(n).fast;
            self.checker.removed(self.now, n, e, local);
            self.remember(n, e, false);
        }
    }

    /// What the outside sees of a destination directory.
    pub(crate) fn remember(&mut self, n: usize, e: usize, appears: bool) {
        self.trace(|world| {
            let what = if appears { "has" } else { "no longer has" };
            format!("{} {what} the file of e{e}", world.nodes[n].name)
        });
        self.fold.add(self.now << 1 | u64::from(appears));
        self.fold.add((n << 32 | e) as u64);
        let name = self.nodes[n].name.clone();
        self.record.push((self.now, self.elections[e].clone(), name, appears));
    }

    /// What a hanging disk was asked to do is done, in order.
    pub(crate) fn mend_disk(&mut self, n: usize) {
        self.nodes[n].disk = Disk::Works;
        self.judge_helplessness(n);
        for work in std::mem::take(&mut self.nodes[n].hung) {
            let now = self.nodes[n].life;
            let same = |life| life == now;
            match work {
                FileWork::Place { e, token, session, life } if same(life) => {
                    self.place(n, e, token, session);
                }
                FileWork::Place { .. } => {} // the guard has removed what it was to rename
                FileWork::Withdraw { op, e, life } if same(life) && !self.nodes[n].frozen => {
                    self.withdraw(n, op, e);
                }
                FileWork::Withdraw { op, e, life } => {
                    self.remove_effect(n, e);
                    if same(life) {
                        let event = Event::Withdrawn { op, result: Ok(()) };
                        self.nodes[n].backlog.push(Happening::Deliver(Box::new(event)));
                    }
                }
                FileWork::Guard { e } => self.remove_effect(n, e),
            }
        }
        for e in 0..self.elections.len() {
            self.nodes[n].files[e].full = false;
            self.tell_fitness(n, e);
            self.place_wanted(n, e);
        }
        self.schedule(n, 1, Happening::Guard);
    }

    /// The rescan finds that what is wanted is missing.
    fn place_wanted(&mut self, n: usize, e: usize) {
        if let Some((token, session)) = self.nodes[n].files[e].wanted
            && self.nodes[n].effects[e].is_none()
        {
            let after = self.worker(n, e);
            self.schedule(n, after, Happening::Place { e, token, session });
        }
    }

    /// Somebody else's file appears at a destination, unless ours is there; or it is taken away.
    pub(crate) fn set_foreign(&mut self, n: usize, e: usize, there: bool) {
        let node = &mut self.nodes[n];
        if node.effects[e].is_some() && there || node.files[e].foreign == there {
            return;
        }
        node.files[e].foreign = there;
        self.checker.foreign(n, e, there);
        self.tell_fitness(n, e);
        if !there {
            self.place_wanted(n, e);
        }
    }

    /// Tells the daemon whether its node is fit, if that has changed.
    pub(crate) fn tell_fitness(&mut self, n: usize, e: usize) {
        let node = &mut self.nodes[n];
        let files = &mut node.files[e];
        let fit = files.check_passes && !files.foreign && !files.full;
        if node.core.is_none() || files.told_fit == Some(fit) {
            return;
        }
        files.told_fit = Some(fit);
        let fitness = if fit { Fitness::fit() } else { Fitness::unfit("as the schedule has it") };
        let election = self.elections[e].clone();
        self.deliver(n, Event::Fitness { election, fitness });
    }
}

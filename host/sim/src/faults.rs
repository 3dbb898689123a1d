//! What can be broken, and how it is mended.

use conclave_core::record::{Fitness, MarkRecord, PolicyVersion, TransferRecord};
use conclave_core::{Event, Exit, Key, Token, Value};

use crate::clock::{Micros, Rates};
use crate::disk::Disk;
use crate::names;
use crate::network::{Link, StoreState};
use crate::node::SimNode;
use crate::policy::PolicyMode;
use crate::store::terms;
use crate::world::{World, some_rates};

/// What can be broken, and what mends it. Nodes and elections go by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests of a node get lost: the link is cut on the way to the store.
    LoseRequests(usize),
    /// Requests of a node are applied, but their replies, and the watch, get lost: the link is
    /// cut on the way back.
    LoseReplies(usize),
    /// The link is cut both ways.
    Partition(usize),
    /// Some requests and replies of a node take up to two TTLs, and overtake each other.
    SlowLink(usize),
    /// The node's watch ends with an error.
    BreakWatch(usize),
    /// The node's watch says nothing more. A later one works, and then this one delivers what
    /// it held back.
    HangWatch(usize),
    /// The node's watch skips whatever it would report next.
    SkipWatch(usize),
    /// The store forgets its old changes: a watch that is behind ends.
    Compact,
    /// The store answers nobody, and executes nothing that it is sent.
    StopStore,
    /// The store answers nobody, and executes what it was sent when it goes on.
    HangStore,
    /// The store is lost and restored from the copy that was made of it; opened after a TTL.
    RestoreStore,
    /// The rates of the node's clocks change, within the bound.
    ChangeClocks(usize),
    /// The node's clocks are slewed by percents, each in the direction that time daemons may.
    SlewClocks(usize),
    /// The daemon is frozen; its guard is not.
    Freeze(usize),
    /// The guard is frozen; its daemon is not.
    PauseGuard(usize),
    /// Both are: the machine is suspended.
    Suspend(usize),
    /// The daemon dies; its guard starts another 20 ms later.
    KillDaemon(usize),
    /// The guard dies.
    KillGuard(usize),
    /// Both die, and what is in place stays: an out-of-memory kill of a container.
    KillPair(usize),
    /// The machine loses power: nothing runs on it any more.
    KillNode(usize),
    /// The daemon is told to stop.
    Stop(usize),
    /// Nothing can be unlinked on the node.
    RefuseUnlinks(usize),
    /// Nothing can be written on the node.
    FillDisk(usize),
    /// File operations on the node do not return.
    HangDisk(usize),
    /// A fitness check fails.
    FailCheck(usize, usize),
    /// Somebody else's file lies where an exclusive one would go.
    ForeignFile(usize, usize),
    /// The node's policy answers in another way.
    Policy(usize, PolicyMode),
    /// The node decides by another version of the policy.
    Version(usize, u64),
    /// An operator pauses an election.
    Pause(usize),
    /// An operator cordons a node.
    Cordon(usize, usize),
    /// An operator asks that the standing term, or an earlier one, move to a node, or anywhere.
    Transfer {
        /// Which election.
        e: usize,
        /// To whom.
        to: Option<usize>,
        /// Whether an earlier term is named.
        stale: bool,
    },
    /// A competitor queues under the leader prefix, as `etcdctl elect` does; one without a lease
    /// stays foreign by its value.
    Compete {
        /// Which election.
        e: usize,
        /// The last part of its key.
        suffix: u32,
        /// Whether its key has a lease.
        leased: bool,
    },
    /// The node's link works again.
    Heal(usize),
    /// The daemon goes on.
    Thaw(usize),
    /// The guard goes on.
    ResumeGuard(usize),
    /// The machine starts again, or a pair that stopped or died does.
    StartNode(usize),
    /// The disk works again.
    MendDisk(usize),
    /// The fitness check passes.
    PassCheck(usize, usize),
    /// The foreign file is taken away.
    TakeForeignFile(usize, usize),
    /// The store answers again.
    StartStore,
    /// The operator takes back what was asked of an election.
    Resume(usize),
    /// The operator takes back a cordon.
    Uncordon(usize, usize),
    /// The competitor goes.
    GiveWay(usize, u32),
}

/// The kinds of faults, as they are counted; mending is none.
pub(crate) const FAULTS: [&str; 37] = [
    "requests lost (node to store cut)",
    "replies lost (store to node cut)",
    "partition both ways",
    "slow and reordering link",
    "watch broken",
    "watch stale",
    "watch skips a change",
    "compaction",
    "store unavailable",
    "store frozen",
    "store restored from an old copy",
    "clock rates change",
    "clocks slewed",
    "daemon paused",
    "guard paused",
    "both paused",
    "daemon killed",
    "guard killed",
    "both killed",
    "power lost",
    "SIGTERM",
    "disk refuses to unlink",
    "disk full",
    "disk hangs",
    "fitness check fails",
    "foreign file at a destination",
    "policy fails",
    "policy hangs",
    "policy slow",
    "policy lies",
    "policies disagree",
    "policy version changes",
    "operator pauses",
    "operator cordons",
    "operator transfers",
    "competitor queues",
    "SIGTERM, kill, cordon or cut during a handover",
];

/// The place of the last kind, which is a moment rather than a fault of its own.
pub(crate) const WORST_MOMENT: usize = 36;

impl Fault {
    /// Where its kind stands in [`FAULTS`]; `None` for what mends.
    fn kind(&self) -> Option<usize> {
        Some(match self {
            Fault::LoseRequests(_) => 0,
            Fault::LoseReplies(_) => 1,
            Fault::Partition(_) => 2,
            Fault::SlowLink(_) => 3,
            Fault::BreakWatch(_) => 4,
            Fault::HangWatch(_) => 5,
            Fault::SkipWatch(_) => 6,
            Fault::Compact => 7,
            Fault::StopStore => 8,
            Fault::HangStore => 9,
            Fault::RestoreStore => 10,
            Fault::ChangeClocks(_) => 11,
            Fault::SlewClocks(_) => 12,
            Fault::Freeze(_) => 13,
            Fault::PauseGuard(_) => 14,
            Fault::Suspend(_) => 15,
            Fault::KillDaemon(_) => 16,
            Fault::KillGuard(_) => 17,
            Fault::KillPair(_) => 18,
            Fault::KillNode(_) => 19,
            Fault::Stop(_) => 20,
            Fault::RefuseUnlinks(_) => 21,
            Fault::FillDisk(_) => 22,
            Fault::HangDisk(_) => 23,
            Fault::FailCheck(..) => 24,
            Fault::ForeignFile(..) => 25,
            Fault::Policy(_, PolicyMode::Fail) => 26,
            Fault::Policy(_, PolicyMode::Hang) => 27,
            Fault::Policy(_, PolicyMode::Slow) => 28,
            Fault::Policy(_, PolicyMode::Lie) => 29,
            Fault::Policy(_, PolicyMode::Prefer(_)) => 30,
            Fault::Version(..) => 31,
            Fault::Pause(_) => 32,
            Fault::Cordon(..) => 33,
            Fault::Transfer { .. } => 34,
            Fault::Compete { .. } => 35,
            _ => return None,
        })
    }
}

/// By how much time daemons slew clocks, in parts per million.
const SLEWED: i64 = 50_000;

impl World {
    /// Injects a fault now, or mends one.
    pub fn inject(&mut self, fault: &Fault) {
        self.trace(|_| format!("fault {fault:?}"));
        if let Some(kind) = fault.kind() {
            self.coverage.fault(kind);
        }
        match *fault {
            Fault::Compact
            | Fault::StopStore
            | Fault::HangStore
            | Fault::RestoreStore
            | Fault::StartStore => {
                self.disturb_store(fault);
            }
            Fault::LoseRequests(n) => self.nodes[n].link.loses_requests = true,
            Fault::LoseReplies(n) => self.nodes[n].link.loses_replies = true,
            Fault::Partition(n) => {
                self.nodes[n].link.loses_requests = true;
                self.nodes[n].link.loses_replies = true;
            }
            Fault::SlowLink(n) => self.nodes[n].link.slow = true,
            Fault::BreakWatch(n) | Fault::HangWatch(n) | Fault::SkipWatch(n) => {
                self.disturb_watch(n, fault);
            }
            Fault::ChangeClocks(n) => {
                let bound = i64::from(self.settings.timings.clock_rate_error_ppm);
                let rates = some_rates(&mut self.random, bound);
                self.nodes[n].clock.set_rates(self.now, rates);
            }
            Fault::SlewClocks(n) => {
                let rates = Rates { fast: SLEWED, slow: -SLEWED };
                self.checker.fastest_ppm = SLEWED.unsigned_abs();
                self.nodes[n].clock.set_rates(self.now, rates);
            }
            Fault::RefuseUnlinks(n) => self.break_disk(n, Disk::Refuses),
            Fault::FillDisk(n) => self.break_disk(n, Disk::Full),
            Fault::HangDisk(n) => self.break_disk(n, Disk::Hangs),
            Fault::FailCheck(n, e) => self.check(n, e, Fitness::unfit("a check fails")),
            Fault::PassCheck(n, e) => self.check(n, e, Fitness::fit()),
            Fault::ForeignFile(n, e) => self.set_foreign(n, e, true),
            Fault::TakeForeignFile(n, e) => self.set_foreign(n, e, false),
            Fault::Policy(n, ref mode) => self.nodes[n].policy = mode.clone(),
            Fault::Version(n, version) => {
                let component = format!("{version:x}");
                self.nodes[n].policy_version = PolicyVersion { component, ..Default::default() };
                self.describe(n);
            }
            Fault::Heal(n) => {
                self.nodes[n].link = Link::default();
                self.schedule_watch(n);
            }
            Fault::MendDisk(n) => self.mend_disk(n),
            ref other => {
                self.disturb_processes(other);
                self.operate(other);
            }
        }
    }

    fn check(&mut self, n: usize, e: usize, fitness: Fitness) {
        let election = self.elections[e].clone();
        self.set_fitness(n, &election, fitness);
    }

    /// A disk that hangs has to be mended before it can break in another way.
    fn break_disk(&mut self, n: usize, disk: Disk) {
        if self.nodes[n].disk == Disk::Works {
            self.nodes[n].disk = disk;
            self.judge_helplessness(n);
        }
    }

    fn disturb_store(&mut self, fault: &Fault) {
        match fault {
            Fault::Compact => {
                self.announce();
                self.store.compact();
            }
            Fault::StopStore => self.store_state = StoreState::Stopped,
            Fault::HangStore if self.store_state == StoreState::Answers => {
                self.store_state = StoreState::Hung;
            }
            Fault::RestoreStore if self.backup.is_some() => self.restore_store(),
            // One that is being restored is opened in its own time.
            Fault::StartStore if !self.restoring => self.start_store(),
            _ => {}
        }
    }

    fn disturb_watch(&mut self, n: usize, fault: &Fault) {
        let Some(watch) = &mut self.nodes[n].watch else { return };
        match fault {
            Fault::BreakWatch(_) => {
                self.nodes[n].watch = None;
                self.deliver(n, Event::WatchBroken);
            }
            Fault::HangWatch(_) => watch.hung = true,
            _ => watch.skips = true,
        }
    }

    fn disturb_processes(&mut self, fault: &Fault) {
        match *fault {
            Fault::Freeze(n) => self.freeze(n),
            Fault::PauseGuard(n) => self.pause_guard(n),
            Fault::Suspend(n) => {
                self.freeze(n);
                self.pause_guard(n);
            }
            Fault::KillDaemon(n) => self.kill_daemon(n),
            Fault::KillGuard(n) => self.kill_guard(n),
            Fault::KillPair(n) => self.kill_pair(n),
            Fault::KillNode(n) => self.kill_node(n),
            Fault::Stop(n) => self.stop_daemon(n),
            Fault::Thaw(n) => self.thaw(n),
            Fault::ResumeGuard(n) => self.resume_guard(n),
            Fault::StartNode(n) => self.start_node(n),
            _ => {}
        }
    }

    /// What operators and competitors write into the store, whatever state nodes are in. They have
    /// a link of their own, but no store can be written that does not answer.
    fn operate(&mut self, fault: &Fault) {
        if self.store_state != StoreState::Answers {
            return;
        }
        let election = |e: usize| self.elections[e].clone();
        let cordon = |e, n: usize| Key::Cordon(election(e), self.nodes[n].name.clone());
        let leader = |e, suffix: u32| Key::Leader(election(e), format!("694d{suffix:x}"));
        let mark = || Value::Mark(MarkRecord::default());
        let (written, deleted) = match *fault {
            Fault::Pause(e) => (Some((Key::Pause(election(e)), mark(), false)), Vec::new()),
            Fault::Cordon(e, n) => (Some((cordon(e, n), mark(), false)), Vec::new()),
            Fault::Transfer { e, to, stale } => {
                let standing = terms(&self.store).into_iter().find(|(of, _)| *of == election(e));
                let token = standing.map_or(7, |(_, token)| token.0 - u64::from(stale));
                let (token, to) = (Token(token), to.map(names::node));
                let record = TransferRecord { token, to, note: String::new() };
                (Some((Key::Transfer(election(e)), Value::Transfer(record), false)), Vec::new())
            }
            Fault::Compete { e, suffix, leased } => {
                (Some((leader(e, suffix), Value::Garbage, leased)), Vec::new())
            }
            Fault::Resume(e) => (None, vec![Key::Pause(election(e)), Key::Transfer(election(e))]),
            Fault::Uncordon(e, n) => (None, vec![cordon(e, n)]),
            Fault::GiveWay(e, suffix) => (None, vec![leader(e, suffix)]),
            _ => return,
        };
        if let Some((key, value, leased)) = written {
            self.store.put(key, value, leased);
        }
        for key in deleted {
            self.delete(&key);
        }
    }

    fn delete(&mut self, key: &Key) {
        if self.store.get(key).is_some() {
            self.store.delete(key);
        }
    }

    /// Mends everything that [`World::inject`] can break, and starts whatever is not running.
    /// What operators and competitors put into the store goes too.
    pub fn heal(&mut self) {
        if !self.restoring {
            self.inject(&Fault::StartStore);
            self.clear_controls();
        }
        let bound = i64::from(self.settings.timings.clock_rate_error_ppm);
        let fresh = self.needs_fresh_policies();
        for n in 0..self.nodes.len() {
            let policy =
                self.settings.prefer.clone().map_or(PolicyMode::Builtin, PolicyMode::Prefer);
            self.nodes[n].policy = policy;
            self.inject(&Fault::Heal(n));
            if let Some(watch) = &mut self.nodes[n].watch {
                watch.skips = false;
            }
            let rates = some_rates(&mut self.random, bound);
            self.nodes[n].clock.set_rates(self.now, rates);
            self.inject(&Fault::MendDisk(n));
            self.inject(&Fault::ResumeGuard(n));
            self.inject(&Fault::Thaw(n));
            for e in 0..self.elections.len() {
                self.inject(&Fault::PassCheck(n, e));
                self.inject(&Fault::TakeForeignFile(n, e));
            }
            if fresh {
                self.inject(&Fault::Version(n, u64::MAX));
            }
            self.start_ended(n);
        }
        self.policy_failed = None;
    }

    /// Starts a pair that does not run; one that refused a restored store is told to accept it.
    pub(crate) fn start_ended(&mut self, n: usize) {
        match self.nodes[n].exited {
            Some(Exit::NameTaken { .. }) => {
                panic!("seed {}: n{n} found its own name taken", self.settings.seed)
            }
            Some(Exit::StoreWentBack { .. }) => self.nodes[n].accept_store(),
            Some(Exit::Stopped) | None => {}
        }
        self.start_node(n);
    }

    /// A policy that fails or hangs is asked again after a while; one that answered, however
    /// foolishly, is taken at its word until it is replaced.
    fn needs_fresh_policies(&self) -> bool {
        const ASKED_AGAIN_WITHIN: Micros = 6_000_000;
        let failed = self.policy_failed.is_some_and(|at| self.now < at + ASKED_AGAIN_WITHIN);
        let lies = |node: &SimNode| node.policy == PolicyMode::Lie;
        let version = |node: &SimNode| node.policy_version.clone();
        failed
            || self.nodes.iter().any(lies)
            || self.nodes.iter().any(|node| version(node) != version(&self.nodes[0]))
    }

    fn clear_controls(&mut self) {
        let ours = |key: &Key, value: &Value| match key {
            Key::Pause(_) | Key::Cordon(..) | Key::Transfer(_) => false,
            Key::Leader(..) => !matches!(value, Value::Garbage),
            _ => true,
        };
        let keys = self.store.keys().filter(|(key, stored)| !ours(key, &stored.value));
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.store.delete(&key);
        }
    }
}

//! A random schedule: a world of at least three nodes, at least eight faults over at least twenty
//! TTLs, then healing, and the promise that everything is led again.

use std::time::Duration;

use conclave_core::{ElectionSettings, Timings};

use crate::clock::Micros;
use crate::coverage::Coverage;
use crate::faults::{Fault, WORST_MOMENT};
use crate::names;
use crate::policy::PolicyMode;
use crate::random::Random;
use crate::world::{World, WorldSettings, micros};

/// One seed's world and the chances in it.
pub struct Schedule {
    world: World,
    random: Random,
    ttl: Micros,
    /// What else is going to be injected, mending above all, and when.
    later: Vec<(Micros, Fault)>,
}

/// What came of a schedule that broke no promise.
#[derive(Debug)]
pub struct Played {
    /// What occurred in it.
    pub coverage: Coverage,
    /// A digest of everything that the outside saw.
    pub digest: [u8; 16],
}

/// For how long faults are injected, in TTLs.
const FAULTY: u64 = 20;

/// How many faults at least.
const FEWEST_FAULTS: u64 = 8;

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        Self::with_trace(seed, false)
    }

    /// The schedule of a seed, with everything that happens written to standard error if wanted.
    pub fn with_trace(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed.wrapping_add(0x5eed));
        let settings = settings(seed, trace, &mut random);
        let ttl = micros(settings.timings.ttl);
        Schedule { world: World::new(settings), random, ttl, later: Vec::new() }
    }

    /// Plays it. Panics, naming the seed, when a promise is broken.
    pub fn play(mut self) -> Played {
        let began = self.world.now;
        // The faults' density varies, so that some schedules are nearly calm: races of one or
        // two faults show there.
        let faults = FEWEST_FAULTS + self.random.below(13);
        let pause = FAULTY * self.ttl / faults;
        if self.random.chance(6) {
            self.plan_a_restoration();
        }
        for _ in 0..faults {
            let until = self.world.now + self.random.below(2 * pause);
            self.run_until(until);
            self.disturb();
        }
        self.run_until(began + FAULTY * self.ttl);
        self.settle();
        self.check_liveness();
        let (now, nodes) = (self.world.now, &self.world.nodes);
        self.world.checker.nothing_is_late(now, &|n| nodes[n].clock.read(now).fast);
        let mut coverage = self.world.coverage;
        coverage.schedules = 1;
        coverage.simulated = now - began;
        coverage.apart(self.world.checker.apart);
        Played { coverage, digest: self.world.fold.bytes() }
    }

    /// Runs until a time, and injects meanwhile what is planned.
    fn run_until(&mut self, until: Micros) {
        loop {
            let due = self.later.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            let Some((index, at)) = due.map(|(i, (at, _))| (i, *at)).filter(|(_, at)| *at <= until)
            else {
                break;
            };
            let (_, fault) = self.later.swap_remove(index);
            self.world.run_until(at.max(self.world.now), |_| false);
            self.inject(&fault);
        }
        if until > self.world.now {
            self.world.run_until(until, |_| false);
        }
    }

    fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::StartNode(n) => self.world.start_ended(*n),
            fault => self.world.inject(fault),
        }
    }

    fn after(&mut self, span: Micros, fault: Fault) {
        self.later.push((self.world.now + span, fault));
    }

    /// How long a fault lasts: mostly around what the protocol's timings are about.
    fn a_while(&mut self) -> Micros {
        let most = match self.random.below(10) {
            0..3 => self.ttl / 2,
            3..9 => 5 * self.ttl / 2,
            _ => 5 * self.ttl,
        };
        1_000 + self.random.below(most)
    }

    fn node(&mut self) -> usize {
        self.random.below(self.world.nodes.len() as u64) as usize
    }

    /// A node, and rather one that leads something.
    fn target(&mut self) -> usize {
        let e = self.election();
        let leader =
            (0..self.world.nodes.len()).find(|n| self.world.nodes[*n].effects[e].is_some());
        let any = self.node();
        leader.filter(|_| self.random.chance(50)).unwrap_or(any)
    }

    fn election(&mut self) -> usize {
        self.random.below(self.world.elections.len() as u64) as usize
    }

    fn disturb(&mut self) {
        match self.random.below(100) {
            0..4 => self.fade(),
            4..12 => self.at_the_worst_moment(),
            12..27 => self.disturb_link(),
            27..37 => self.disturb_watch_or_clocks(),
            37..45 => self.disturb_store(),
            45..69 => self.disturb_processes(),
            69..80 => self.disturb_files(),
            80..88 => self.disturb_policy(),
            _ => self.operate(),
        }
    }

    /// Injects a fault now, and what mends it after a while.
    fn for_a_while(&mut self, fault: Fault, mend: Fault) {
        let span = self.a_while();
        self.world.inject(&fault);
        self.after(span, mend);
    }

    /// A link gets slow and then breaks, as links do: the last replies come just in time, and
    /// whoever counts from their receipt counts too long.
    fn fade(&mut self) {
        let n = self.target();
        self.world.inject(&Fault::SlowLink(n));
        let cut = self.random.below(3 * self.ttl / 2);
        self.after(cut, Fault::LoseRequests(n));
        self.after(cut + 6 * self.ttl / 5, Fault::Heal(n));
    }

    fn disturb_link(&mut self) {
        let n = self.target();
        let fault = match self.random.below(8) {
            0..2 => Fault::LoseRequests(n),
            2..4 => Fault::LoseReplies(n),
            4 => Fault::Partition(n),
            _ => Fault::SlowLink(n),
        };
        self.for_a_while(fault, Fault::Heal(n));
    }

    fn disturb_watch_or_clocks(&mut self) {
        let n = self.target();
        let fault = match self.random.below(9) {
            0 => Fault::BreakWatch(n),
            1..3 => Fault::HangWatch(n),
            3..5 => Fault::SkipWatch(n),
            5 => {
                // One that is behind when the store forgets.
                self.world.inject(&Fault::LoseReplies(n));
                let span = self.a_while();
                self.after(span, Fault::Compact);
                return self.after(span + 1, Fault::Heal(n));
            }
            6 => Fault::Compact,
            7 => Fault::ChangeClocks(n),
            _ => return self.for_a_while(Fault::SlewClocks(n), Fault::ChangeClocks(n)),
        };
        self.world.inject(&fault);
    }

    fn disturb_store(&mut self) {
        let fault = if self.random.chance(40) { Fault::StopStore } else { Fault::HangStore };
        self.for_a_while(fault, Fault::StartStore);
    }

    fn disturb_processes(&mut self) {
        let n = self.target();
        let fault = match self.random.below(24) {
            0..5 => return self.world.inject(&Fault::KillDaemon(n)),
            5..9 => return self.for_a_while(Fault::Freeze(n), Fault::Thaw(n)),
            9..12 => return self.for_a_while(Fault::PauseGuard(n), Fault::ResumeGuard(n)),
            12..14 => {
                // The two go on at nearly one time, in either order.
                let span = self.a_while();
                self.world.inject(&Fault::Suspend(n));
                let apart = self.random.below(4_000);
                self.after(span + apart, Fault::Thaw(n));
                return self.after(span + 2_000, Fault::ResumeGuard(n));
            }
            14..16 => Fault::KillGuard(n),
            16..18 => Fault::KillPair(n),
            18..20 => Fault::KillNode(n),
            _ => Fault::Stop(n),
        };
        self.for_a_while(fault, Fault::StartNode(n));
    }

    fn disturb_files(&mut self) {
        let (n, e) = (self.target(), self.election());
        match self.random.below(7) {
            0 => self.for_a_while(Fault::RefuseUnlinks(n), Fault::MendDisk(n)),
            1 => self.for_a_while(Fault::FillDisk(n), Fault::MendDisk(n)),
            2 => self.for_a_while(Fault::HangDisk(n), Fault::MendDisk(n)),
            3 => self.for_a_while(Fault::ForeignFile(n, e), Fault::TakeForeignFile(n, e)),
            _ => self.for_a_while(Fault::FailCheck(n, e), Fault::PassCheck(n, e)),
        }
    }

    fn disturb_policy(&mut self) {
        let (n, liked) = (self.target(), self.node());
        let mode = match self.random.below(7) {
            0 => PolicyMode::Fail,
            1 => PolicyMode::Hang,
            2 => PolicyMode::Slow,
            3 => PolicyMode::Lie,
            4 => PolicyMode::Prefer(names::node(liked)),
            _ => {
                let version = self.random.below(2);
                return self.world.inject(&Fault::Version(n, version));
            }
        };
        self.for_a_while(Fault::Policy(n, mode), Fault::Policy(n, PolicyMode::Builtin));
    }

    fn operate(&mut self) {
        let (n, e) = (self.target(), self.election());
        match self.random.below(10) {
            0..2 => self.for_a_while(Fault::Pause(e), Fault::Resume(e)),
            2..4 => self.for_a_while(Fault::Cordon(e, n), Fault::Uncordon(e, n)),
            4..7 => self.transfer(e),
            _ => {
                let (suffix, leased) = (self.random.below(1 << 20) as u32, self.random.chance(80));
                let competitor = Fault::Compete { e, suffix, leased };
                self.for_a_while(competitor, Fault::GiveWay(e, suffix));
            }
        }
    }

    fn transfer(&mut self, e: usize) {
        let to = self.node();
        let to = self.random.chance(60).then_some(to);
        let stale = self.random.chance(20);
        self.world.inject(&Fault::Transfer { e, to, stale });
    }

    /// A term is made to move, and just then something else goes wrong.
    fn at_the_worst_moment(&mut self) {
        let (e, n) = (self.election(), self.target());
        match self.random.below(3) {
            0 => self.transfer(e),
            1 => self.for_a_while(Fault::Cordon(e, n), Fault::Uncordon(e, n)),
            _ => self.for_a_while(Fault::Stop(n), Fault::StartNode(n)),
        }
        let before = self.world.moments;
        let which = self.random.below(4);
        let until = self.world.now + self.ttl / 2;
        self.world.run_until(until, |world| {
            let now = world.moments;
            match which {
                0 => now.offers > before.offers,
                1 => now.givings_up > before.givings_up,
                2 => now.takings > before.takings,
                _ => now.placings > before.placings,
            }
        });
        let between = self.world.now + self.random.below(2_000);
        self.world.run_until(between, |_| false);
        self.world.coverage.fault(WORST_MOMENT);
        let m = self.node();
        match self.random.below(9) {
            0 => self.for_a_while(Fault::Stop(m), Fault::StartNode(m)),
            1 => self.world.inject(&Fault::KillDaemon(m)),
            2 => self.for_a_while(Fault::Cordon(e, m), Fault::Uncordon(e, m)),
            3 => self.for_a_while(Fault::LoseReplies(m), Fault::Heal(m)),
            4 => self.for_a_while(Fault::Freeze(m), Fault::Thaw(m)),
            5 => self.for_a_while(Fault::HangDisk(m), Fault::MendDisk(m)),
            6 => self.for_a_while(Fault::HangStore, Fault::StartStore),
            7 => self.transfer(e),
            _ => self.operate(),
        }
    }

    /// A copy of the store is made, and later the store is lost and that copy stands in.
    fn plan_a_restoration(&mut self) {
        let copied = self.ttl + self.random.below(FAULTY * self.ttl / 2);
        self.run_until(self.world.now + copied);
        self.world.announce();
        self.world.backup = Some(self.world.store.backup());
        let lost = self.ttl + self.random.below(5 * self.ttl);
        self.after(lost, Fault::RestoreStore);
        // Each operator accepts it in their own time.
        for n in 0..self.world.nodes.len() {
            let accepted = lost + 2 * self.ttl + self.random.below(2 * self.ttl);
            self.after(accepted, Fault::StartNode(n));
        }
    }

    /// Faults stop. They have not before the last delayed request was applied, the last silent gap
    /// in a watch was found by reading everything again, and whoever was told to stop is back.
    fn settle(&mut self) {
        self.later.clear();
        self.world.heal();
        for _ in 0..100 {
            let quiet = self.world.now >= self.world.quiet_from && !self.world.restoring;
            let up = self.world.nodes.iter().all(|node| node.core.is_some() && !node.stopping);
            if quiet && up {
                break;
            }
            let step = if quiet {
                self.ttl / 4
            } else {
                (self.world.quiet_from + 1).saturating_sub(self.world.now).max(self.ttl / 4)
            };
            self.world.run_until(self.world.now + step, |_| false);
            for n in 0..self.world.nodes.len() {
                self.world.start_ended(n);
            }
        }
        self.world.heal();
    }

    /// S7, and that what is led stays led.
    fn check_liveness(&mut self) {
        let timings = self.world.settings.timings.clone();
        let delays = self.world.settings.elections.iter().map(|e| e.takeover_delay);
        let delay = delays.max().unwrap_or_default();
        let nodes = u32::try_from(self.world.nodes.len()).unwrap_or(u32::MAX);
        let bound = timings.silence(timings.ttl)
            + (timings.stagger * nodes).min(timings.stagger_cap)
            + timings.ranking_timeout
            + delay
            + Duration::from_millis(500);
        self.world.run(bound);
        for _ in 0..8 {
            for election in self.world.elections.clone() {
                let holders = self.world.holders(&election);
                // On its way to the preferred node it may be nowhere for a takeover delay.
                let moves = self.world.settings.prefer.is_some() && holders.is_empty();
                assert!(
                    holders.len() == 1 || moves,
                    "seed {}: S7, {election} is led by {holders:?} at {:?}",
                    self.world.settings.seed,
                    self.world.elapsed()
                );
            }
            self.world.run(Duration::from_micros(self.ttl / 8));
        }
        if let Some(preferred) = self.world.settings.prefer.clone() {
            self.world.run(timings.minimum_term + delay + Duration::from_secs(2));
            for election in self.world.elections.clone() {
                let holders = self.world.holders(&election);
                let seed = self.world.settings.seed;
                assert_eq!(holders, [&preferred], "seed {seed}: S7, the best leads {election}");
            }
        }
    }
}

fn settings(seed: u64, trace: bool, random: &mut Random) -> WorldSettings {
    let nodes = match random.below(100) {
        0..90 => 3,
        90..97 => 4,
        _ => 5,
    };
    let elections = match random.below(100) {
        0..75 => 1,
        75..95 => 2,
        _ => 3,
    };
    let ttl = Duration::from_millis(match random.below(1_000) {
        0..900 => 500,
        900..980 => 1_000,
        980..998 => 2_000,
        _ => 10_000,
    });
    let mut settings = WorldSettings::new(seed, nodes, elections);
    settings.trace = trace;
    settings.timings = Timings::for_ttl(ttl);
    settings.timings.minimum_term = 2 * ttl;
    settings.timings.beat = ttl / [3, 3, 4, 4, 5][random.below(5) as usize];
    settings.timings.relist = ttl * (3 + random.below(20) as u32);
    settings.timings.history = if random.chance(25) { 3 } else { 100 };
    settings.stale_after = ttl * if random.chance(50) { 3 } else { 40 };
    for election in &mut settings.elections {
        *election = ElectionSettings {
            stop_check: random.chance(30),
            hold_on_policy_failure: random.chance(20),
            takeover_delay: Duration::ZERO,
        };
        if random.chance(30) {
            let ttl = micros(ttl);
            election.takeover_delay = Duration::from_micros(1 + random.below(3 * ttl / 2));
        }
    }
    if random.chance(12) {
        settings.prefer = Some(names::node(random.below(nodes as u64) as usize));
    }
    settings
}

//! A random schedule: a world, faults at random times, then healing, and the promise that
//! everything is led again.

use std::time::Duration;

use conclave_core::record::{Fitness, MarkRecord, TransferRecord};
use conclave_core::{ElectionName, Key, NodeName, Token, Value};

use crate::faults::Fault;
use crate::network::SLOWEST;
use crate::policy::PolicyMode;
use crate::random::Random;
use crate::store::terms;
use crate::world::{World, WorldSettings};

/// One seed's world and the chances in it.
pub struct Schedule {
    world: World,
    random: Random,
    seed: u64,
    /// The keys that competitors have under leader prefixes.
    foreign: Vec<Key>,
}

/// For how long faults are injected, in TTLs of 1 s.
const FAULTY: u64 = 14;

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        Self::with_trace(seed, false)
    }

    /// The schedule of a seed, with everything that happens written to standard error if wanted.
    pub fn with_trace(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed.wrapping_add(0x5eed));
        let mut settings = WorldSettings::new(seed, 3, 2 + random.below(2) as usize);
        settings.trace = trace;
        settings.timings.relist = Duration::from_secs(2);
        // Without guards the daemons alone keep S1; then only what leaves them alive is injected.
        settings.guards = random.chance(70);
        for election in settings.elections.values_mut() {
            election.stop_check = random.chance(30);
            election.hold_on_policy_failure = random.chance(20);
            if random.chance(40) {
                election.takeover_delay = Duration::from_millis(1 + random.below(1_500));
            }
        }
        if random.chance(30) {
            settings.prefer = Some(NodeName::new(format!("n{}", random.below(3))));
        }
        Schedule { world: World::new(settings), random, seed, foreign: Vec::new() }
    }

    /// Plays it. Panics, naming the seed, when a promise is broken.
    pub fn play(mut self) -> World {
        // The faults' density varies, so that some schedules are nearly calm: races of one or
        // two faults show there.
        let faults = 8 + self.random.below(40);
        let pause = FAULTY * 1_000_000 / faults;
        for _ in 0..faults {
            self.world.run(Duration::from_micros(self.random.below(2 * pause)));
            self.disturb();
        }
        self.heal();
        self.check_liveness();
        self.world
    }

    fn disturb(&mut self) {
        match self.random.below(11) {
            0 => self.fade(),
            1..5 => {
                let fault = self.fault();
                self.world.inject(&fault);
            }
            5..8 => self.mend(),
            8 => self.flap(),
            9 => self.operate(),
            _ => self.compete(),
        }
    }

    /// A link gets slow and then breaks, as links do: the last replies come just in time, and
    /// whoever counts from their receipt counts too long.
    fn fade(&mut self) {
        let n = self.node();
        self.world.inject(&Fault::SlowLink(n));
        self.world.run(Duration::from_micros(self.random.below(1_500_000)));
        self.world.inject(&Fault::LoseRequests(n));
        self.world.run(Duration::from_millis(1_200));
    }

    fn node(&mut self) -> usize {
        self.random.below(self.world.nodes.len() as u64) as usize
    }

    fn election(&mut self) -> ElectionName {
        let elections = &self.world.settings.elections;
        let index = self.random.below(elections.len() as u64) as usize;
        elections.keys().nth(index).cloned().unwrap_or_else(|| "e0".into())
    }

    fn fault(&mut self) -> Fault {
        let n = self.node();
        match self.random.below(18) {
            0 => Fault::LoseRequests(n),
            1 => Fault::LoseReplies(n),
            2..5 => Fault::SlowLink(n),
            5 => Fault::BreakWatch(n),
            6 => Fault::HangWatch(n),
            7 => Fault::SkipWatch(n),
            8 | 9 if self.world.settings.guards => Fault::KillDaemon(n),
            10 if self.world.settings.guards => Fault::Freeze(n),
            8..11 => Fault::Stop(n),
            11 => Fault::KillNode(n),
            12 => Fault::Stop(n),
            13 => Fault::BreakDisk(n),
            14 => Fault::StopStore,
            15 => Fault::HangStore,
            16 => Fault::Policy(n, self.policy()),
            _ => Fault::Version(n, self.random.below(2)),
        }
    }

    fn policy(&mut self) -> PolicyMode {
        match self.random.below(6) {
            0 => PolicyMode::Builtin,
            1 => PolicyMode::Prefer(NodeName::new(format!("n{}", self.random.below(3)))),
            2 => PolicyMode::Fail,
            3 => PolicyMode::Hang,
            4 => PolicyMode::Slow,
            _ => PolicyMode::Lie,
        }
    }

    fn mend(&mut self) {
        let n = self.node();
        for fault in [Fault::StartStore, Fault::Heal(n), Fault::Thaw(n), Fault::StartNode(n)] {
            self.world.inject(&fault);
        }
        if self.random.chance(50) {
            self.world.inject(&Fault::MendDisk(n));
        }
    }

    fn flap(&mut self) {
        let (n, election) = (self.node(), self.election());
        let fit = self.random.chance(50);
        let fitness = if fit { Fitness::fit() } else { Fitness::unfit("no source") };
        self.world.set_fitness(n, &election, fitness);
    }

    /// Operators write the store and take back what they wrote, whatever state nodes are in.
    fn operate(&mut self) {
        let election = self.election();
        let node = NodeName::new(format!("n{}", self.random.below(3)));
        let (key, value) = match self.random.below(4) {
            0 => (Key::Pause(election), Value::Mark(MarkRecord::default())),
            1 => (Key::Cordon(election, node), Value::Mark(MarkRecord::default())),
            _ => {
                let standing = terms(&self.world.store).into_iter().find(|(e, _)| *e == election);
                let token = standing.map_or(Token(7), |(_, token)| token);
                let to = self.random.chance(70).then_some(node);
                let record = TransferRecord { token, to, note: String::new() };
                (Key::Transfer(election), Value::Transfer(record))
            }
        };
        if self.world.store.get(&key).is_some() {
            self.world.store.delete(&key);
        } else {
            self.world.store.put(key, value, false);
        }
    }

    /// Competitors queue under a leader prefix, as `etcdctl elect` does, and go again.
    fn compete(&mut self) {
        if !self.foreign.is_empty() && self.random.chance(60) {
            let index = self.random.below(self.foreign.len() as u64) as usize;
            let key = self.foreign.swap_remove(index);
            return self.world.store.delete(&key);
        }
        let suffix = format!("694d{:x}", self.random.below(1 << 20));
        let key = Key::Leader(self.election(), suffix);
        // One without a lease stays foreign by its value.
        let leased = self.random.chance(80);
        self.world.store.put(key.clone(), Value::Garbage, leased);
        self.foreign.push(key);
    }

    fn heal(&mut self) {
        for key in std::mem::take(&mut self.foreign) {
            self.world.store.delete(&key);
        }
        let control =
            |key: &&Key| matches!(key, Key::Pause(_) | Key::Cordon(..) | Key::Transfer(_));
        let keys: Vec<Key> =
            self.world.store.keys().map(|(key, _)| key).filter(control).cloned().collect();
        for key in keys {
            self.world.store.delete(&key);
        }
        self.world.heal();
        for n in 0..self.world.nodes.len() {
            for election in self.world.settings.elections.keys().cloned().collect::<Vec<_>>() {
                self.world.set_fitness(n, &election, Fitness::fit());
            }
        }
        // Faults have not stopped before the last delayed request was applied and the last
        // silent gap in a watch was found by reading everything again. One that was killed
        // because it could not stop in time comes back meanwhile.
        let relist = self.world.settings.timings.relist;
        self.world.run(Duration::from_micros(2 * SLOWEST) + relist);
        self.world.heal();
    }

    /// S7, and that what is led stays led.
    fn check_liveness(&mut self) {
        let timings = self.world.settings.timings.clone();
        let elections = self.world.settings.elections.clone();
        let delay = elections.values().map(|e| e.takeover_delay).max().unwrap_or_default();
        let bound = timings.silence(timings.ttl)
            + timings.stagger * 3
            + timings.ranking_timeout
            + delay
            + Duration::from_millis(500);
        self.world.run(bound);
        for _ in 0..20 {
            for election in elections.keys() {
                let holders = self.world.holders(election);
                // On its way to the preferred node it may be nowhere for a takeover delay.
                let moves = self.world.settings.prefer.is_some() && holders.is_empty();
                assert!(
                    holders.len() == 1 || moves,
                    "seed {}: S7, {election} is led by {holders:?} at {:?}",
                    self.seed,
                    self.world.elapsed()
                );
            }
            self.world.run(Duration::from_millis(50));
        }
        if let Some(preferred) = self.world.settings.prefer.clone() {
            self.world.run(timings.minimum_term + delay + Duration::from_secs(2));
            for election in elections.keys() {
                let holders = self.world.holders(election);
                assert_eq!(holders, [&preferred], "seed {}: the best leads {election}", self.seed);
            }
        }
    }
}

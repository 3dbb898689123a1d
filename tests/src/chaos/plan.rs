//! From a seed to the steps of a run.

use std::time::Duration;

use crate::chaos::fault::{Fault, Group, Kind, Target};
use crate::seed::Seed;

/// One in so many steps has several faults at once.
const SEVERAL: u64 = 3;

/// The most faults of one step.
const AT_ONCE: usize = 3;

/// Faults that strike together, are held together and healed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The faults, in the order of their striking.
    pub faults: Vec<Fault>,
    /// How long they are held, from the first strike.
    pub hold: Duration,
    /// How long the step waits before it strikes: another moment of everybody's beat each time.
    pub rest: Duration,
}

/// The steps of a run, without end.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: Seed,
    kinds: Vec<Kind>,
    nodes: usize,
    ttl: Duration,
    /// The kinds still to come before any comes again.
    bag: Vec<Kind>,
}

impl Plan {
    /// A plan for a run with these kinds of faults, so many nodes and this TTL.
    pub fn new(seed: Seed, kinds: &[Kind], nodes: usize, ttl: Duration) -> Self {
        Plan { seed, kinds: kinds.to_vec(), nodes, ttl, bag: Vec::new() }
    }

    /// The next step, of `most` faults at most.
    pub fn step(&mut self, most: usize) -> Step {
        let several = self.seed.below(SEVERAL) == 0;
        let count = if several { 2 + self.seed.below(AT_ONCE as u64 - 1) as usize } else { 1 };
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..count.min(most) {
            let fault = self.fault(faults.is_empty());
            let same = |other: &Fault| {
                (other.kind.group(), other.target) == (fault.kind.group(), fault.target)
            };
            if faults.iter().any(same) {
                // Two of one group cannot be told apart on one node: it comes another time.
                self.bag.push(fault.kind);
            } else {
                faults.push(fault);
            }
        }
        faults.sort_by_key(|fault| fault.after);
        let hold = self.hold(faults.iter().any(|fault| fault.kind.lasts()));
        Step { faults, hold, rest: self.within(self.ttl / 5) }
    }

    fn fault(&mut self, first: bool) -> Fault {
        let kind = self.kind();
        let target = match kind.group() {
            Group::Store => Target::Store,
            // What happens to the holder is what matters most.
            _ if self.seed.below(5) < 3 => Target::Holder,
            _ => Target::Standby(self.seed.below(self.nodes as u64 - 1) as usize),
        };
        let after = if first { Duration::ZERO } else { self.within(self.ttl) };
        Fault { kind, target, after, chance: self.seed.number() }
    }

    /// Draws from the bag, so that every kind comes equally often.
    fn kind(&mut self) -> Kind {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
        }
        let drawn = self.seed.below(self.bag.len() as u64) as usize;
        self.bag.swap_remove(drawn)
    }

    /// Some faults are over before anybody's time is up, some last longer than that.
    fn hold(&mut self, lasts: bool) -> Duration {
        match self.seed.below(3) {
            _ if !lasts => self.within(self.ttl / 2),
            0 => self.within(self.ttl),
            _ => self.ttl + self.within(self.ttl),
        }
    }

    fn within(&mut self, span: Duration) -> Duration {
        Duration::from_micros(self.seed.below(span.as_micros() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    fn plan(seed: u64) -> Plan {
        Plan::new(Seed::new(seed), &Kind::ALL, 3, TTL)
    }

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        let mut plan = plan(seed);
        (0..count).map(|_| plan.step(usize::MAX)).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(steps(1, 100), steps(1, 100));
        assert_ne!(steps(1, 100), steps(2, 100));
    }

    #[test]
    fn every_kind_comes_equally_often() {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        let steps = steps(3, 1000);
        for fault in steps.iter().flat_map(|step| &step.faults) {
            *counts.entry(fault.kind).or_default() += 1;
        }
        assert_eq!(counts.len(), Kind::ALL.len());
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(most - least <= AT_ONCE, "{counts:?}");
    }

    #[test]
    fn no_two_of_a_group_strike_one_target_at_once() {
        let mut several = 0;
        for step in steps(4, 1000) {
            let mut struck: Vec<_> =
                step.faults.iter().map(|fault| (fault.kind.group(), fault.target)).collect();
            several += usize::from(struck.len() > 1);
            struck.sort();
            struck.dedup();
            assert_eq!(struck.len(), step.faults.len(), "{step:?}");
            assert!(!step.faults.is_empty() && step.hold < TTL * 2, "{step:?}");
            assert!(step.faults.is_sorted_by_key(|fault| fault.after));
        }
        assert!((200..500).contains(&several), "{several}");
    }

    #[test]
    fn a_step_is_no_longer_than_it_may_be() {
        let mut plan = plan(5);
        assert!((0..100).all(|_| plan.step(1).faults.len() == 1));
    }
}

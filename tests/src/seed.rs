//! Seeds for random tests, printed so that a failure can be run again.

use std::hash::{BuildHasher, RandomState};

/// The environment variable that fixes the seed.
pub const VARIABLE: &str = "CONCLAVE_TEST_SEED";

/// A small deterministic generator (SplitMix64): enough to choose faults and moments by.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// Takes the seed from the environment, or a fresh one, and prints it with how to use it
    /// again. The test runner shows the line only when the test fails.
    pub fn announce(test: &str) -> Self {
        let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(Self::fresh);
        println!("seed of {test}: run again with {VARIABLE}={seed}");
        Seed(seed)
    }

    /// A number that nobody has chosen.
    pub fn fresh() -> u64 {
        RandomState::new().hash_one(VARIABLE)
    }

    /// The generator that begins with this number.
    pub fn new(number: u64) -> Self {
        Seed(number)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// One of these; there must be at least one.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut other) = (Seed(7), Seed(7));
        let numbers: Vec<u64> = (0..20).map(|_| one.below(10)).collect();
        assert_eq!(numbers, (0..20).map(|_| other.below(10)).collect::<Vec<_>>());
        assert!(numbers.iter().any(|number| *number != numbers[0]), "{numbers:?}");
    }
}

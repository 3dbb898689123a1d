//! A small seeded generator, so that every run can be replayed from one number.

/// xorshift64*, after Vigna, "An experimental exploration of Marsaglia's xorshift generators".
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed; every seed gives another sequence.
    pub fn new(seed: u64) -> Self {
        // A zero state would stay zero; the golden ratio spreads small seeds.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.number() >> 16) % bound
    }

    /// Whether an event of this probability, in percent, happens.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

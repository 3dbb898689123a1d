//! Numbers from a seed, so that what was found can be found again.

/// A generator; the same seed gives the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number, by SplitMix64 (Steele, Lea and Flood, 2014): any seed will do.
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; zero where there is none.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // A bound fits 64 bits, and a remainder of it the machine's size.
        (self.number() % (bound.max(1) as u64)) as usize
    }

    /// Whether something of this probability, in percent, happens.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of some; `None` where there is none.
    pub(crate) fn pick<'a, T>(&mut self, some: &'a [T]) -> Option<&'a T> {
        some.get(self.below(some.len()))
    }

    /// So many of some, in any order.
    pub(crate) fn sample<T: Clone>(&mut self, some: &[T], count: usize) -> Vec<T> {
        let mut left = some.to_vec();
        let take = |_| (!left.is_empty()).then(|| left.swap_remove(self.below(left.len())));
        (0..count).map_while(take).collect()
    }
}

//! Bytes as a script of choices: what a fuzzer mutates, and what a property test makes up.

/// Reads choices from bytes. Once they are used up every choice is the first one.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    /// A script of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Script { rest: bytes }
    }

    /// Whether nothing is left to choose.
    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Whether something happens that happens in one of `often` cases.
    pub fn once_in(&mut self, often: usize) -> bool {
        self.below(often) == often - 1
    }

    /// One of these; there must be at least one.
    pub fn choose<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    /// A number: mostly small, sometimes at the ends of what fits.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..200 => small.into(),
            200..220 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            220..240 => i64::MAX.cast_unsigned() - u64::from(self.byte()),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    /// The next bytes, at most `most`: how many, the script says.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let wanted = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % (most + 1);
        let (bytes, rest) = self.rest.split_at(wanted.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

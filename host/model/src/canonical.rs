//! One hash for states that differ only in how far the counters got.
//!
//! The core hashes every number with its kind before it (`conclave_core::ids::Kind`):
//!
//! - *Revisions* are compared with each other and never computed with, so only their order
//!   matters: they are hashed as their rank among those that the state mentions. A leader key's
//!   name is a revision in hexadecimal; nothing else here is named by four hexadecimal digits.
//! - *Operations* are only told apart, node by node: they are hashed as their rank too.
//! - *The revision as of which a key is known* counts only if news that is not newer may still
//!   come: all that are below any news to come are the same.
//! - *Counts* decide nothing and are left out.
//! - *Times* so long ago that whatever counts from them is over are all the same, and so are those
//!   that the bounded time does not reach. For the latter everything that the core waits for
//!   must be a whole number of ticks or longer than that.

use std::hash::{Hash, Hasher};

use conclave_core::ids::Kind;
use conclave_core::{Revision, Time};

/// What of a node's numbers is told apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// All news that may still come to the node are as of a later revision.
    pub(crate) settled: Revision,
    pub(crate) long_ago: Time,
    pub(crate) never: Time,
}

/// Hashes with ranks in place of numbers.
pub(crate) fn hash<H: Hasher>(value: &impl Hash, scopes: &[Scope], state: &mut H) {
    let (ranks, pass): (_, Pass<'_, H>) = (Ranks::default(), Pass::Collect);
    let mut collector = Renaming { ranks, scopes, scope: 0, next: None, pass };
    value.hash(&mut collector);
    let mut ranks = collector.ranks;
    for numbers in ranks.operations.iter_mut().chain([&mut ranks.revisions]) {
        numbers.sort_unstable();
        numbers.dedup();
    }
    value.hash(&mut Renaming { ranks, scopes, scope: 0, next: None, pass: Pass::Hash(state) });
}

/// Says that operations and times from here on are the next node's.
pub(crate) fn begin_scope<H: Hasher>(state: &mut H) {
    state.write_i8(SCOPE);
}

/// No [`Kind`].
const SCOPE: i8 = 0;

/// The numbers that a state mentions.
#[derive(Default)]
struct Ranks {
    revisions: Vec<u64>,
    /// By scope.
    operations: Vec<Vec<u64>>,
}

impl Ranks {
    fn of(&mut self, kind: i8, scope: usize) -> &mut Vec<u64> {
        if kind != Kind::Operation as i8 {
            return &mut self.revisions;
        }
        let scopes = self.operations.len().max(scope + 1);
        self.operations.resize_with(scopes, Vec::new);
        &mut self.operations[scope]
    }
}

enum Pass<'h, H> {
    Collect,
    Hash(&'h mut H),
}

struct Renaming<'h, H> {
    ranks: Ranks,
    scopes: &'h [Scope],
    /// Counts from one; before the first there are none of its numbers.
    scope: usize,
    /// The kind of the number that comes next.
    next: Option<i8>,
    pass: Pass<'h, H>,
}

impl<H: Hasher> Renaming<'_, H> {
    fn marked(&mut self, kind: i8, number: u64) {
        if kind == Kind::Time as i8 {
            self.time(number);
        } else if kind == Kind::AsOf as i8 {
            let settled = self.scope().map_or(0, |scope| scope.settled.0);
            self.number(kind, number.max(settled));
        } else if kind != Kind::Count as i8 {
            self.number(kind, number);
        }
    }

    fn scope(&self) -> Option<&Scope> {
        self.scopes.get(self.scope.checked_sub(1)?)
    }

    fn time(&mut self, time: u64) {
        let range = self.scope().map_or(0..=u64::MAX, |scope| scope.long_ago.0..=scope.never.0);
        if let Pass::Hash(inner) = &mut self.pass {
            inner.write_u64(time.clamp(*range.start(), *range.end()));
        }
    }

    fn number(&mut self, kind: i8, number: u64) {
        let numbers = self.ranks.of(kind, self.scope);
        match &mut self.pass {
            // Many a number is mentioned twice in a row.
            Pass::Collect if numbers.last() == Some(&number) => {}
            Pass::Collect => numbers.push(number),
            Pass::Hash(inner) => {
                inner.write_i8(kind);
                // Zero stands for "no such key", whatever else is mentioned.
                let rank =
                    if number == 0 { 0 } else { 1 + numbers.partition_point(|n| *n < number) };
                inner.write_usize(rank);
            }
        }
    }
}

/// The number that a leader key's name is, if this is one.
fn suffix(bytes: &[u8]) -> Option<u64> {
    let digits: &[u8; 4] = bytes.try_into().ok()?;
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number * 16 + u64::from(digit))
    })
}

macro_rules! forward {
    ($($method:ident($number:ty)),*) => {
        $(fn $method(&mut self, number: $number) {
            if let Pass::Hash(inner) = &mut self.pass {
                inner.$method(number);
            }
        })*
    };
}

impl<H: Hasher> Hasher for Renaming<'_, H> {
    fn finish(&self) -> u64 {
        match &self.pass {
            Pass::Collect => 0,
            Pass::Hash(inner) => inner.finish(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(number) = suffix(bytes) {
            self.number(Kind::Revision as i8, number);
        } else if let Pass::Hash(inner) = &mut self.pass {
            inner.write(bytes);
        }
    }

    fn write_i8(&mut self, kind: i8) {
        if kind == SCOPE {
            self.scope += 1;
        } else {
            self.next = Some(kind);
        }
    }

    fn write_u64(&mut self, number: u64) {
        match self.next.take() {
            Some(kind) => self.marked(kind, number),
            None => {
                if let Pass::Hash(inner) = &mut self.pass {
                    inner.write_u64(number);
                }
            }
        }
    }

    forward!(
        write_u8(u8),
        write_u16(u16),
        write_u32(u32),
        write_u128(u128),
        write_usize(usize),
        write_i16(i16),
        write_i32(i32),
        write_i64(i64),
        write_i128(i128),
        write_isize(isize)
    );
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use conclave_core::{OpId, Revision, Token};

    use super::*;

    fn hashed(value: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        hash(&value, &[], &mut hasher);
        hasher.finish()
    }

    #[test]
    fn only_the_order_of_counters_counts() {
        let of = |a, b, c| hashed((Revision(a), Token(b), "1001", Revision(c), OpId(a)));
        assert_eq!(of(4, 5, 0), of(7, 900, 0));
        assert_eq!(of(4, 0x1001, 9), of(4, 0x1001, 8), "a name is the number that it is");
        assert_ne!(of(4, 0x1001, 9), of(4, 0x1000, 9));
        assert_ne!(of(4, 5, 0), of(5, 4, 0));
        assert_ne!(of(4, 4, 0), of(4, 5, 0));
        assert_ne!(of(4, 5, 0), of(4, 5, 1), "zero is no revision");
        assert_ne!(hashed(Time(4)), hashed(Time(5)), "times are what they are");
        assert_ne!(hashed((7_u64, OpId(1))), hashed((8_u64, OpId(1))));
    }
}

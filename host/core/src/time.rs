//! Time as the core knows it: integers that the caller supplies.
//!
//! The core reads no clock. Every call brings a [`Now`] with two readings, because a clock's
//! rate may be off: what a node must *stop* doing is judged by the faster of its clocks, what it
//! concludes about *others* by the slower (protocol, "Sessions").

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, Sub};
use std::time::Duration;

use crate::ids::Kind;

/// Microseconds on one of this node's clocks, from an arbitrary origin. Never comparable
/// between machines, nor between the two clocks of a [`Now`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Hash for Time {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Kind::Time.hash(self.0, state);
    }
}

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(micros(span)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(micros(span)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The present, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Now {
    /// Advances by the larger elapsed time of CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW: for this
    /// node's own deadlines and timers.
    pub fast: Time,
    /// Advances by the smaller of the two: for judging another node silent.
    pub slow: Time,
    /// Milliseconds since 1970 by the wall clock. It goes into records for people to read;
    /// nothing is ever decided by it.
    pub unix_ms: u64,
}

impl Now {
    /// Both clocks at the same reading, as tests and simulations have it.
    pub fn at(micros: u64) -> Self {
        Now { fast: Time(micros), slow: Time(micros), unix_ms: 0 }
    }

    /// This instant moved on by `span` on both clocks.
    pub fn after(self, span: Duration) -> Self {
        Now { fast: self.fast + span, slow: self.slow + span, unix_ms: self.unix_ms }
    }
}

//! A machine's clocks: their rates are off, change, and are slewed, but never go back.

use conclave_core::{Now, Time};

/// Microseconds of simulated time.
pub(crate) type Micros = u64;

/// Rate errors in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Of the clock by which a node judges itself: at least the true rate less the bound.
    pub(crate) fast: i64,
    /// Of the clock by which it judges others: at most the true rate and the bound.
    pub(crate) slow: i64,
}

/// Two clocks, since the moment at which their rates were last set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    rates: Rates,
    since: Micros,
    fast: u64,
    slow: u64,
}

impl Clock {
    /// Clocks that read `origin` at the time `now`: every boot has its own.
    pub(crate) fn new(now: Micros, origin: u64, rates: Rates) -> Self {
        Clock { rates, since: now, fast: origin, slow: origin }
    }

    pub(crate) fn set_rates(&mut self, now: Micros, rates: Rates) {
        let read = self.read(now);
        *self = Clock { rates, since: now, fast: read.fast.0, slow: read.slow.0 };
    }

    pub(crate) fn read(&self, now: Micros) -> Now {
        let passed = now - self.since;
        let fast = self.fast + scaled(passed, self.rates.fast);
        let slow = self.slow + scaled(passed, self.rates.slow);
        Now { fast: Time(fast), slow: Time(slow), unix_ms: 0 }
    }

    /// The first simulated time at which the fast clock reads `at` or more.
    pub(crate) fn when_fast(&self, now: Micros, at: Time) -> Micros {
        let left = at.0.saturating_sub(self.read(now).fast.0);
        // A little early is looked at again; the rate errors are small.
        now + left * 1_000_000 / u64::try_from(1_000_000 + self.rates.fast).unwrap_or(1) + 1
    }
}

fn scaled(passed: Micros, ppm: i64) -> u64 {
    let error = passed.cast_signed() * ppm / 1_000_000;
    passed.saturating_add_signed(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_keep_their_reading_when_their_rates_change() {
        let mut clock = Clock::new(1_000_000, 50, Rates { fast: 1_000, slow: -1_000 });
        let read = clock.read(2_000_000);
        assert_eq!((read.fast.0, read.slow.0), (1_001_050, 999_050));
        clock.set_rates(2_000_000, Rates { fast: 50_000, slow: 0 });
        let read = clock.read(2_000_100);
        assert_eq!((read.fast.0, read.slow.0), (1_001_155, 999_150));
        let due = clock.when_fast(2_000_000, Time(2_001_050));
        assert!(clock.read(due).fast >= Time(2_001_050));
        assert!(clock.read(due - 3).fast < Time(2_001_050));
    }
}

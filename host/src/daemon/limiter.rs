//! Keeps a repeated log line from flooding the log in an outage.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::Time;

/// How often a condition that goes on is told again.
const REPEAT: Duration = Duration::from_secs(30);

/// How often one that comes and goes is told within that.
const BURST: u32 = 3;

/// Lets the first line of a kind through, then one every [`REPEAT`] with the number of those
/// that were held back.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    kinds: BTreeMap<&'static str, Told>,
}

/// What was told of a kind since some time, [`REPEAT`] ago at most.
#[derive(Debug)]
struct Told {
    since: Time,
    lines: u32,
    held_back: u64,
    /// The condition was over, and has not been told of since.
    over: bool,
}

impl Limiter {
    /// Whether to tell a line of this kind now, and how many like it were not told before.
    pub(crate) fn admit(&mut self, kind: &'static str, now: Time) -> Option<u64> {
        let new = Told { since: now, lines: 0, held_back: 0, over: false };
        let told = self.kinds.entry(kind).or_insert(new);
        if now.since(told.since) >= REPEAT {
            (told.since, told.lines) = (now, 0);
        }
        let again = told.over && told.lines < BURST;
        if told.lines > 0 && !again {
            told.held_back += 1;
            return None;
        }
        told.lines += 1;
        told.over = false;
        Some(std::mem::take(&mut told.held_back))
    }

    /// The conditions are over: their next lines are told at once, unless they come and go all
    /// the time.
    pub(crate) fn clear(&mut self) {
        self.kinds.values_mut().for_each(|told| told.over = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    #[test]
    fn a_flood_becomes_one_line_and_a_count() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.admit("refused", at(0)), Some(0));
        for second in 1..30 {
            assert_eq!(limiter.admit("refused", at(second)), None);
        }
        assert_eq!(limiter.admit("timeout", at(29)), Some(0));
        assert_eq!(limiter.admit("refused", at(30)), Some(29));
        assert_eq!(limiter.admit("refused", at(31)), None);
    }

    #[test]
    fn the_next_outage_is_told_at_once() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.admit("refused", at(0)), Some(0));
        assert_eq!(limiter.admit("refused", at(1)), None);
        limiter.clear();
        assert_eq!(limiter.admit("refused", at(2)), Some(1));
        assert_eq!(limiter.admit("refused", at(3)), None);
    }

    #[test]
    fn a_condition_that_comes_and_goes_floods_nothing_either() {
        let mut limiter = Limiter::default();
        let mut told = 0;
        for second in 0..600 {
            told += u32::from(limiter.admit("refused", at(second)).is_some());
            limiter.clear();
        }
        assert_eq!(told, 600 / 30 * BURST);
    }
}

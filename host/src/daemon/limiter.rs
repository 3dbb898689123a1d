//! Keeps a repeated log line from flooding the log in an outage.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::Time;

/// How often a condition that goes on is told again.
const REPEAT: Duration = Duration::from_secs(30);

/// Lets the first line of a kind through, then one every [`REPEAT`] with the number of those
/// that were held back.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    told: BTreeMap<&'static str, (Time, u64)>,
}

impl Limiter {
    /// Whether to tell a line of this kind now, and how many like it were not told before.
    pub(crate) fn admit(&mut self, kind: &'static str, now: Time) -> Option<u64> {
        match self.told.get_mut(kind) {
            Some((at, held_back)) if now.since(*at) < REPEAT => {
                *held_back += 1;
                None
            }
            told => {
                let held_back = told.map_or(0, |(_, held_back)| *held_back);
                self.told.insert(kind, (now, 0));
                Some(held_back)
            }
        }
    }

    /// The condition is over: its next line is told at once. Says whether there was one.
    pub(crate) fn clear(&mut self) -> bool {
        let any = !self.told.is_empty();
        self.told.clear();
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_one_line_and_a_count() {
        let mut limiter = Limiter::default();
        let at = |seconds: u64| Time(seconds * 1_000_000);
        assert_eq!(limiter.admit("refused", at(0)), Some(0));
        for second in 1..30 {
            assert_eq!(limiter.admit("refused", at(second)), None);
        }
        assert_eq!(limiter.admit("timeout", at(29)), Some(0));
        assert_eq!(limiter.admit("refused", at(30)), Some(29));
        assert!(limiter.clear());
        assert!(!limiter.clear());
        assert_eq!(limiter.admit("refused", at(31)), Some(0));
    }
}

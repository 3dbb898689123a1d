//! How long to wait before the next start of a daemon that ended by itself.

use std::time::Duration;

/// Not at all after a long life, longer and longer after short ones.
#[derive(Default)]
pub(crate) struct Backoff {
    short_lives: u32,
}

impl Backoff {
    /// A daemon that lived for so long was well.
    const LONG_LIFE: Duration = Duration::from_secs(10);
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The wait after a life that lasted for so long.
    pub(crate) fn next(&mut self, lived: Duration) -> Duration {
        if lived >= Self::LONG_LIFE {
            self.short_lives = 0;
        }
        let delay = match self.short_lives {
            0 => Duration::ZERO,
            lives => Self::FIRST * 2_u32.pow((lives - 1).min(10)),
        };
        self.short_lives += 1;
        delay.min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_immediate_once_and_then_rarer_until_the_daemon_lives_long() {
        let mut backoff = Backoff::default();
        for (lived_s, delay_ms) in
            [(1, 0), (1, 100), (1, 200), (9, 400), (0, 800), (0, 1_600), (0, 3_200), (0, 5_000)]
        {
            let delay = backoff.next(Duration::from_secs(lived_s));
            assert_eq!(delay, Duration::from_millis(delay_ms));
        }
        assert_eq!(backoff.next(Duration::from_secs(10)), Duration::ZERO);
        assert_eq!(backoff.next(Duration::ZERO), Duration::from_millis(100));
    }
}

//! The one place that reads clocks for deadlines.
//!
//! `CLOCK_BOOTTIME` counts while the machine is suspended, but time daemons may slew it by
//! percents; `CLOCK_MONOTONIC_RAW` is never slewed, but stands still during suspend. What this
//! node must *stop* doing is therefore judged by whichever of the two says more time has passed,
//! and what it concludes about *others* by whichever says less (protocol, "Sessions"). Rust's
//! `Instant` is `CLOCK_MONOTONIC`: slewed *and* blind to suspend, so no deadline uses it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conclave_core::time::{Now, Time};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// One moment, or one deadline, on both clocks. Comparable only within one boot of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Reading {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC_RAW`.
    pub raw_ns: u64,
}

impl Reading {
    /// Reads both clocks.
    pub fn now() -> Self {
        Reading { boot_ns: nanos(ClockId::Boottime), raw_ns: nanos(ClockId::MonotonicRaw) }
    }

    /// Whether this moment is at or past `deadline` on either clock: the larger elapsed time
    /// rules.
    pub fn is_past(self, deadline: Reading) -> bool {
        self.boot_ns >= deadline.boot_ns || self.raw_ns >= deadline.raw_ns
    }

    /// How long until [`is_past`](Self::is_past) holds; zero when it does.
    pub fn until(self, deadline: Reading) -> Duration {
        Duration::from_nanos(
            deadline
                .boot_ns
                .saturating_sub(self.boot_ns)
                .min(deadline.raw_ns.saturating_sub(self.raw_ns)),
        )
    }

    /// This moment moved on by `span` on both clocks.
    pub fn after(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Reading {
            boot_ns: self.boot_ns.saturating_add(span),
            raw_ns: self.raw_ns.saturating_add(span),
        }
    }
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither clock is ever negative: both count from the boot.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Makes the core's [`Now`] out of readings.
///
/// The fast clock sums up the larger, the slow clock the smaller of the elapsed times between
/// one reading and the next. The fast clock thus never lags behind either real clock, nor does the
/// slow one ever lead, over any span.
#[derive(Clone, Debug)]
pub struct Clock {
    last: Reading,
    fast_ns: u64,
    slow_ns: u64,
}

impl Clock {
    /// A clock that starts at this moment.
    pub fn new() -> Self {
        Clock::starting_at(Reading::now())
    }

    fn starting_at(last: Reading) -> Self {
        Clock { last, fast_ns: last.boot_ns, slow_ns: last.raw_ns }
    }

    /// Reads the clocks.
    pub fn now(&mut self) -> Now {
        self.advance(Reading::now());
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            fast: self.fast(),
            slow: Time(self.slow_ns / 1_000),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The shared page's form of a deadline by the fast clock.
    ///
    /// Counted from the last call of [`now`](Self::now). As the fast clock runs ahead of both
    /// real ones, the result is never later, on either clock, than the deadline that the core
    /// counted from a beat's sending.
    pub fn to_reading(&self, deadline: Time) -> Reading {
        let shift = i128::from(deadline.0) * 1_000 - i128::from(self.fast_ns);
        let moved = |ns: u64| u64::try_from((i128::from(ns) + shift).max(0)).unwrap_or(u64::MAX);
        Reading { boot_ns: moved(self.last.boot_ns), raw_ns: moved(self.last.raw_ns) }
    }

    /// The fast clock's form of a deadline on the shared page; the inverse of
    /// [`to_reading`](Self::to_reading), never later than the page's. For adoption.
    pub fn to_time(&self, deadline: Reading) -> Time {
        let left = |deadline: u64, last: u64| i128::from(deadline) - i128::from(last);
        let left =
            left(deadline.boot_ns, self.last.boot_ns).min(left(deadline.raw_ns, self.last.raw_ns));
        let at = (i128::from(self.fast_ns) + left).max(0) / 1_000;
        Time(u64::try_from(at).unwrap_or(u64::MAX))
    }

    fn fast(&self) -> Time {
        Time(self.fast_ns / 1_000)
    }

    fn advance(&mut self, now: Reading) {
        let boot = now.boot_ns.saturating_sub(self.last.boot_ns);
        let raw = now.raw_ns.saturating_sub(self.last.raw_ns);
        self.fast_ns += boot.max(raw);
        self.slow_ns += boot.min(raw);
        self.last = now;
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

/// A timer on `CLOCK_BOOTTIME`, so that a deadline that passed during suspend fires on waking.
///
/// It is a file descriptor, readable once the time has come: poll it, or wrap it in tokio's
/// `AsyncFd`. It is set in the time of one clock only, so whoever waits re-checks the
/// [`Reading`] on waking and sets it anew where time is left.
#[derive(Debug)]
pub struct BootTimer(OwnedFd);

impl BootTimer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the process may open no further file.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(BootTimer(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Fires once after `span`, at once for zero; replaces what was set.
    ///
    /// # Errors
    /// The kernel's, which has none for a valid timer.
    pub fn set(&self, span: Duration) -> io::Result<()> {
        // Zero would disarm it.
        self.arm(span.max(Duration::from_nanos(1)))
    }

    /// Fires no more.
    ///
    /// # Errors
    /// The kernel's, which has none for a valid timer.
    pub fn clear(&self) -> io::Result<()> {
        self.arm(Duration::ZERO)
    }

    /// Takes note of the timer having fired, so that it is no longer readable; says whether it
    /// had.
    ///
    /// # Errors
    /// The kernel's, which has none for a valid timer.
    pub fn consume(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn arm(&self, span: Duration) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A hundred years serve as "for ever", and fit every kernel's arithmetic.
        let span = span.min(Duration::from_secs(100 * 365 * 86_400));
        let it_value = Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: never, it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

impl AsFd for BootTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for BootTimer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn at(boot_ms: u64, raw_ms: u64) -> Reading {
        Reading { boot_ns: boot_ms * 1_000_000, raw_ns: raw_ms * 1_000_000 }
    }

    #[test]
    fn either_clock_passes_a_deadline() {
        for (now, past) in
            [(at(99, 49), false), (at(100, 0), true), (at(0, 50), true), (at(101, 51), true)]
        {
            assert_eq!(now.is_past(at(100, 50)), past, "{now:?}");
            assert_eq!(now.until(at(100, 50)).is_zero(), past, "{now:?}");
        }
        assert_eq!(at(90, 48).until(at(100, 50)), Duration::from_millis(2));
    }

    #[test]
    fn the_fast_clock_takes_the_larger_step_and_the_slow_one_the_smaller() {
        let mut clock = Clock::starting_at(at(1_000, 500));
        let (fast, slow) = (clock.fast_ns, clock.slow_ns);
        // Suspended for 100 ms, then BOOTTIME slewed to run at half the rate.
        for (reading, fast_ms, slow_ms) in
            [(at(1_010, 510), 10, 10), (at(1_110, 510), 110, 10), (at(1_120, 530), 130, 20)]
        {
            clock.advance(reading);
            assert_eq!(clock.fast_ns - fast, fast_ms * 1_000_000);
            assert_eq!(clock.slow_ns - slow, slow_ms * 1_000_000);
        }
    }

    #[test]
    fn a_deadline_for_the_page_is_never_later_than_the_one_counted_from_sending() {
        let ttl = Duration::from_millis(1_000);
        let sent = at(5_000, 3_000);
        let mut clock = Clock::starting_at(sent);
        let deadline = clock.fast() + ttl;
        for reading in [at(5_100, 3_090), at(5_200, 3_250), at(5_900, 3_300)] {
            clock.advance(reading);
            let page = clock.to_reading(deadline);
            let counted = sent.after(ttl);
            assert!(page.boot_ns <= counted.boot_ns && page.raw_ns <= counted.raw_ns);
            assert!(clock.to_time(page) <= deadline);
            assert!(deadline - Duration::from_micros(1) <= clock.to_time(page));
        }
    }

    #[test]
    fn a_deadline_long_past_stays_past() {
        let clock = Clock::starting_at(at(10, 5));
        assert_eq!(clock.to_reading(Time::ZERO), Reading::default());
        assert!(clock.to_time(Reading::default()) <= clock.fast());
    }

    #[test]
    fn real_clocks_move_on() {
        let mut clock = Clock::new();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        let after = clock.now();
        assert!(after.fast > before.fast && after.slow > before.slow);
        assert!(after.unix_ms > 1_600_000_000_000);
    }

    #[test]
    fn the_timer_fires_once_and_not_when_cleared() {
        let timer = BootTimer::new().unwrap();
        let readable = |ms: u64| {
            let wait = Timespec { tv_sec: 0, tv_nsec: (ms * 1_000_000).try_into().unwrap() };
            poll(&mut [PollFd::new(&timer, PollFlags::IN)], Some(&wait)).unwrap() == 1
        };
        assert!(!timer.consume().unwrap());
        timer.set(Duration::ZERO).unwrap();
        assert!(readable(900));
        assert!(timer.consume().unwrap());
        assert!(!timer.consume().unwrap());
        timer.set(Duration::from_millis(1)).unwrap();
        timer.clear().unwrap();
        assert!(!readable(20));
    }
}

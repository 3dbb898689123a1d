//! One table of deadlines per clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ElectionName, NodeName};
use crate::time::Time;

/// Everything that the core waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The terms on our session end.
    Deadline,
    /// The next beat.
    Beat,
    /// The session's next step: a creation or an ending to try again.
    Session,
    /// Everything is read again.
    List,
    /// Our confirmed beat must have come through the watch.
    WatchLag,
    /// Stopping has taken long enough.
    Stop,
    /// An election has something to do.
    Election(ElectionName),
    /// A session is silent if its record has not changed by then. By the slow clock.
    Silence(NodeName),
    /// A silent session that holds nothing is ended.
    Sweep(NodeName),
}

/// Deadlines on one clock, each timer at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Time>,
    queue: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        match self.at.get_mut(&timer) {
            Some(known) if *known == at => {}
            Some(known) => {
                let before = (std::mem::replace(known, at), timer);
                self.queue.remove(&before);
                self.queue.insert((at, before.1));
            }
            None => {
                self.at.insert(timer.clone(), at);
                self.queue.insert((at, timer));
            }
        }
    }

    /// Sets a timer unless it is already due earlier.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Time) {
        if self.at.get(&timer).is_none_or(|&known| at < known) {
            self.set(timer, at);
        }
    }

    /// Forgets a timer.
    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    /// Whether a timer is set.
    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.at.contains_key(timer)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one timer that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.queue.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_timer_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Beat, Time(10));
        timers.set(Timer::Beat, Time(20));
        timers.set(Timer::List, Time(15));
        assert_eq!(timers.next(), Some(Time(15)));
        assert_eq!(timers.pop_due(Time(14)), None);
        assert_eq!(timers.pop_due(Time(20)), Some(Timer::List));
        assert_eq!(timers.pop_due(Time(20)), Some(Timer::Beat));
        assert_eq!(timers.pop_due(Time(99)), None);
    }

    #[test]
    fn set_earlier_never_postpones() {
        let mut timers = Timers::default();
        timers.set_earlier(Timer::Beat, Time(10));
        timers.set_earlier(Timer::Beat, Time(20));
        assert_eq!(timers.next(), Some(Time(10)));
        timers.set_earlier(Timer::Beat, Time(5));
        assert_eq!(timers.next(), Some(Time(5)));
    }
}

//! What was done in a run, and when: the one thing besides the observation and the store's
//! history that the checker reads.

use std::time::{Duration, Instant};

use crate::chaos::fault::{Fault, Group, Kind};

/// A fault that struck.
#[derive(Debug, Clone)]
pub struct Strike {
    /// What was planned.
    pub fault: Fault,
    /// The number of its step.
    pub step: usize,
    /// Whom it struck: a node, or a member of etcd.
    pub at: String,
    /// Whether that was the node that led when the step began.
    pub holder: bool,
    /// Right before it struck.
    pub struck: Instant,
    /// Right after it had struck.
    pub took: Instant,
    /// Right after its healing; the observation's end where it never came to that.
    pub healed: Option<Instant>,
}

/// What makes a node unable to withdraw although nothing is wrong with Conclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Guard and daemon were killed.
    Killed,
    /// Guard and daemon were frozen.
    Frozen,
    /// The destination refused or hung every removal, and the node's term could not be kept alive
    /// either, because something else was wrong at the same time.
    Disk,
}

impl Cause {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Killed => "killed",
            Cause::Frozen => "frozen",
            Cause::Disk => "disk",
        }
    }
}

/// A time in which a node could not withdraw.
#[derive(Debug, Clone)]
pub struct Helpless {
    /// Which node.
    pub node: String,
    /// Why.
    pub cause: Cause,
    /// Right before the second of its two processes was struck, or the second of the two faults.
    pub from: Instant,
    /// Right before the first process ran again, or the disk was mended; `None` while it lasted.
    pub to: Option<Instant>,
}

/// A step that was played.
#[derive(Debug, Clone)]
pub struct Played {
    /// Its number.
    pub step: usize,
    /// Right before the first strike.
    pub struck: Instant,
    /// When everything was healed.
    pub healed: Instant,
    /// When the store answered a read again.
    pub store: Instant,
    /// When everything had settled: one node led and all stood as candidates.
    pub settled: Instant,
}

/// A guard that ended although nobody had struck it.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whose.
    pub node: String,
    /// With which code; `None` for a signal.
    pub code: Option<i32>,
    /// When that was noticed.
    pub at: Instant,
}

/// Everything that was done in a run.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The faults, in the order of their striking.
    pub strikes: Vec<Strike>,
    /// When nodes could not withdraw.
    pub helpless: Vec<Helpless>,
    /// The steps.
    pub steps: Vec<Played>,
    /// Guards that ended by themselves.
    pub ended: Vec<Ended>,
}

impl Record {
    /// The faults of a step.
    pub fn strikes_of(&self, step: usize) -> impl Iterator<Item = &Strike> {
        self.strikes.iter().filter(move |strike| strike.step == step)
    }

    /// The nodes' times with this cause.
    pub fn helpless_by(&self, cause: Cause) -> impl Iterator<Item = &Helpless> {
        self.helpless.iter().filter(move |helpless| helpless.cause == cause)
    }

    /// Notes when removing from a node's destination was impossible while something else was
    /// wrong with it or with the store: together they are outside of what can be promised.
    pub fn note_disks(&mut self) {
        let stuck = self
            .strikes
            .iter()
            .filter(|strike| matches!(strike.fault.kind, Kind::DiskReadOnly | Kind::DiskHung));
        let disks = stuck.filter_map(|disk| {
            let others = self.strikes_of(disk.step).filter(|other| other.cripples(&disk.at));
            let second = others.map(|other| other.struck).min()?;
            Some(Helpless {
                node: disk.at.clone(),
                cause: Cause::Disk,
                from: second.max(disk.struck),
                to: disk.healed,
            })
        });
        let disks: Vec<Helpless> = disks.collect();
        self.helpless.extend(disks);
    }
}

impl Strike {
    /// Whether it may keep a node from renewing its session.
    fn cripples(&self, node: &str) -> bool {
        match self.fault.kind.group() {
            Group::Store => true,
            Group::Process | Group::Link => self.at == node,
            Group::Disk | Group::Source => false,
        }
    }
}

/// How long after a beginning, in seconds.
pub fn seconds(began: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(began).as_secs_f64()
}

/// A duration in milliseconds.
pub fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

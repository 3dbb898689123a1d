//! Checks of the outside world: is this node able to run the manifests, and has what ran here
//! really stopped.
//!
//! `probe` looks once, `counter` decides when looks that change their mind are believed, and
//! `run` repeats them on a schedule and reports what changed.

mod counter;
mod http;
mod probe;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use counter::Counter;
pub use probe::{Address, BadTarget, HttpTarget, Probe};
pub use run::{Report, Watch, check_stopped, watch};

/// Something that must hold for a node to be fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitnessCheck {
    /// Unique in its election; candidates publish it with the result.
    pub name: String,
    /// What is looked at.
    pub probe: Probe,
    /// The time between the start of one look and the next.
    pub interval: Duration,
    /// A look that takes longer has failed.
    pub timeout: Duration,
    /// How many good looks in a row make a failing check pass.
    pub rise: u32,
    /// How many bad looks in a row make a passing check fail.
    pub fall: u32,
}

/// Something that must be gone before a term counts as cleanly ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopCheck {
    /// What must no longer answer; a command must say by exit code 0 that all has stopped.
    pub probe: Probe,
    /// The time between the start of one look and the next.
    pub interval: Duration,
    /// A look that takes longer has said nothing.
    pub timeout: Duration,
    /// When to give up.
    pub within: Duration,
}

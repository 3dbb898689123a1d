//! What a guard is told, and why it could not do its work.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::error::PageError;
use crate::heartbeat::Rhythm;
use crate::lock::LockError;
use crate::page::DEFAULT_SLOTS;

/// What the guard is to do.
#[derive(Debug)]
pub struct GuardConfig {
    /// The node's state directory: one pair of guard and daemon at a time.
    pub state_dir: PathBuf,
    /// Starts the daemon. The guard adds to its environment and gives it a process group of its own.
    pub command: Command,
    /// What every daemon finds as its standard input, from the beginning: what must not change
    /// between one daemon and the next. `None` stands for nothing.
    pub input: Option<File>,
    /// The directories that exclusive manifests and role files are placed in, spelled as in the
    /// daemon's claims. Each gets a thread of its own; others share a few.
    pub destinations: Vec<PathBuf>,
    /// Exit codes of the daemon that mean that starting it again is of no use. Zero always is.
    pub final_codes: Vec<u8>,
    /// How many exclusive files the node can have in place at once.
    pub slots: usize,
    /// How often guard and daemon beat, and when either counts as hung.
    pub rhythm: Rhythm,
}

impl GuardConfig {
    /// With the defaults, for a state directory and a daemon.
    pub fn new(state_dir: impl Into<PathBuf>, command: Command) -> Self {
        GuardConfig {
            state_dir: state_dir.into(),
            command,
            input: None,
            destinations: Vec::new(),
            final_codes: Vec::new(),
            slots: DEFAULT_SLOTS,
            rhythm: Rhythm::default(),
        }
    }
}

/// Why the guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The state directory is another pair's, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no shared page to be had.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The daemon could not even be started.
    #[error("cannot start the daemon {program}")]
    Start {
        /// What was to be run.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A resource that the guard needs beforehand is missing.
    #[error("cannot set up the guard's {what}")]
    Setup {
        /// Which.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The guard ends, and could not withdraw everything. Other nodes will lead while this is in
    /// place.
    #[error(
        "{count} exclusive effects are still in place, first of all {path}: remove them by hand"
    )]
    StillInPlace {
        /// How many.
        count: usize,
        /// One of them.
        path: PathBuf,
    },
}

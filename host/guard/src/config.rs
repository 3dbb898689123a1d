//! What a guard is told, and why it could not do its work.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::error::PageError;
use crate::handover::Handover;
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
    /// Whether the daemon starts processes that only the leader may have.
    pub has_processes: bool,
    /// Whether the guard tells only what is wrong.
    pub quiet: bool,
    /// How often guard and daemon beat, and when either counts as hung.
    pub rhythm: Rhythm,
    /// How guard and daemon are replaced by another version; `None` where they never are.
    pub upgrade: Option<Upgrade>,
    /// The guard that this one replaces. What that one had is taken over as it is: state
    /// directory, input, destinations, slots, rhythm and daemon.
    pub handover: Option<Handover>,
}

/// How a guard executes another version of its program.
#[derive(Debug)]
pub struct Upgrade {
    /// What the guard was called with, the program's own name first.
    pub call: Vec<OsString>,
    /// Runs the program by the name of its file, as it is installed then, and asks it whether it
    /// can take over. It gets the daemons' input. Its exit code says: 0, yes;
    /// [`NOT_IN_PLACE`](Self::NOT_IN_PLACE), only once everything is given up; anything
    /// else, not at all.
    pub question: Command,
}

impl Upgrade {
    /// With which exit code the other version says that it cannot go on with what this one has.
    pub const NOT_IN_PLACE: u8 = 6;
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
            has_processes: false,
            quiet: false,
            rhythm: Rhythm::default(),
            upgrade: None,
            handover: None,
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
    /// What the program before handed over is not usable. Its daemon notices that nobody watches
    /// over it, gives everything up and ends.
    #[error("cannot take over from the program before")]
    Handover(#[source] io::Error),
    /// The newly installed program was to be started anew.
    #[error("gave everything up to start {program} anew, and cannot")]
    StartAnew {
        /// The program's file.
        program: PathBuf,
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

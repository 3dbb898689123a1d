//! `conclave demo`: the main job in one command, with nothing installed.
//!
//! Three nodes on this machine, each a `conclave run` of its own on a shared embedded store, and
//! a stand-in for each node's kubelet that runs a process for every manifest it finds. The story
//! is told while a table shows who runs what; every start and every end of a pod is counted, so
//! that the last line is a fact and not a hope.
//!
//! `story` says what happens, `node` and `kubelet` are what it happens to, `census` counts, and
//! `screen` shows. Nothing outlives the demo: its files are in one temporary directory, and what
//! it starts ends with it, even where it is killed itself (`stand_in`).

mod census;
mod kubelet;
mod node;
mod processes;
mod screen;
pub mod stand_in;
mod story;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;

/// Why a demo did not come to its good end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Something on this machine was refused.
    #[error("cannot {what}")]
    Machine {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What the story was waiting for did not happen.
    #[error(
        "waited {} for {what}, in vain; the end of the nodes' logs:\n{logs}",
        humantime::format_duration(*.limit)
    )]
    Waited {
        /// For what.
        what: String,
        /// How long.
        limit: Duration,
        /// What the nodes said last.
        logs: String,
    },
    /// The guarantee was broken.
    #[error("{most} pods of `{pod}` ran at once")]
    TwoRan {
        /// Which pod.
        pod: String,
        /// How many.
        most: usize,
    },
    /// Something changed that should have stayed.
    #[error("{what}; the end of the nodes' logs:\n{logs}")]
    Unexpected {
        /// What.
        what: String,
        /// What the nodes said last.
        logs: String,
    },
    /// Somebody pressed Ctrl-C, or asked the demo to end.
    #[error("interrupted; everything has been stopped and removed")]
    Interrupted,
}

impl DemoError {
    fn machine(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| DemoError::Machine { what, source }
    }
}

/// Runs the demo.
///
/// # Errors
///
/// Whatever kept it from its good end; everything has been stopped and removed in any case.
pub fn run() -> Result<(), DemoError> {
    let interrupt = Interrupt::listen().map_err(DemoError::machine("listen for signals"))?;
    story::tell(&interrupt)
}

/// Whether somebody wants the demo to end.
#[derive(Clone, Debug)]
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    fn check(&self) -> Result<(), DemoError> {
        if self.0.load(Ordering::Relaxed) { Err(DemoError::Interrupted) } else { Ok(()) }
    }
}

/// This program, for what it starts.
fn own_program() -> Result<PathBuf, DemoError> {
    std::env::current_exe().map_err(DemoError::machine("find this program's own file"))
}

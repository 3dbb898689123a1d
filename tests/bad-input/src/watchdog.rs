//! A watchdog for tests: what stalls fails too, and the input of every failure is saved.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{panic, thread};

use crate::Target;

/// Far longer than any input may take, also on a machine that has hardly any time for it: this is
/// for what would never end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Feeds a target, on a thread of its own.
#[derive(Debug)]
pub struct Feeder {
    target: Target,
    inputs: Sender<Vec<u8>>,
    results: Receiver<Result<(), String>>,
    stalled: Cell<bool>,
}

impl Feeder {
    /// Starts the thread.
    pub fn new(target: Target) -> Self {
        let (inputs, queue) = channel::<Vec<u8>>();
        let (done, results) = channel();
        let work = move || {
            for input in queue {
                let fed = panic::catch_unwind(|| (target.run)(&input));
                // Nobody waits any more for one that took too long.
                let _ = done.send(fed.map_err(|panic| message(&*panic)));
            }
        };
        thread::Builder::new().name(target.name.to_owned()).spawn(work).expect("a thread");
        Feeder { target, inputs, results, stalled: Cell::new(false) }
    }

    /// Feeds one input.
    ///
    /// # Errors
    ///
    /// What went wrong: a panic's message, or that it took too long. After that nothing is fed
    /// any more, and nothing fails.
    pub fn feed(&self, input: &[u8]) -> Result<(), String> {
        if self.stalled.get() {
            return Ok(());
        }
        self.inputs.send(input.to_vec()).expect("the thread lives as long as its queue");
        self.results.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            self.stalled.set(true);
            Err(match error {
                RecvTimeoutError::Timeout => format!("it took longer than {PATIENCE:?}"),
                RecvTimeoutError::Disconnected => "its thread died".to_owned(),
            })
        })
    }

    /// Saves an input, under the build's own directory so that the checkout stays clean, and says
    /// what to do with it.
    pub fn save(&self, input: &[u8]) -> String {
        let name = self.target.name;
        // The directory that the tests themselves were built in.
        let target = std::env::current_exe().ok();
        let target = target.as_deref().and_then(|test| test.ancestors().nth(3));
        let directory = target.unwrap_or(Path::new("target")).join("bad-input");
        let file: PathBuf = directory.join(format!("{name}-{}", std::process::id()));
        let saved = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&file, input));
        match saved {
            Ok(()) => format!("the input is in {}; keep it in fuzz/corpus/{name}", file.display()),
            Err(error) => format!("the input cannot be saved ({error}): {input:?}"),
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

//! The thread that advances wasmtime's epoch, by which a call's wall-clock backstop is kept.
//!
//! It runs as long as the engine does, whatever else is configured: a backstop that depends on a
//! second setting is one that is silently missing. After a stall (a suspended machine, a busy
//! one) it ticks once and not for every tick missed, which would end innocent calls.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

pub(crate) struct Ticker {
    /// Dropped to end the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine, tick: Duration) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let engine = engine.clone();
        let thread = thread::Builder::new().name("policy-epoch".into()).spawn(move || {
            while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        })?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and if it had, there would be nothing to be done.
            let _ = thread.join();
        }
    }
}

//! Tells when the machine or the store was too slow for anybody: a bystander that writes a key of
//! its own again and again, over connections without faults.
//!
//! Whoever promises to lead within some time after the last fault needs a store that answers and a
//! processor to run on. A machine that is busy with other work gives neither, and that is a fault
//! as well: the bound counts from its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::chaos::availability::Span;
use crate::etcd::Etcd;
use crate::gateway::Gateway;

/// How often it writes.
const EVERY: Duration = Duration::from_millis(25);

/// Its key; not one of Conclave's.
const KEY: &str = "/witness";

#[derive(Default)]
struct Shared {
    stalls: Mutex<Vec<Span>>,
    closing: AtomicBool,
}

/// Writes until it is finished or dropped.
pub struct Witness {
    shared: Arc<Shared>,
    writing: Option<JoinHandle<()>>,
}

impl Witness {
    /// Starts to write. Whatever takes longer than `limit`, from when it was due to when it was
    /// confirmed, is a stall.
    pub fn start(etcd: &[Etcd], limit: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let hosts: Vec<_> = etcd.iter().map(Etcd::address).collect();
        let writing = Arc::clone(&shared);
        let writing = std::thread::spawn(move || {
            let mut gateway = None;
            let mut turns = hosts.iter().cycle();
            while !writing.closing.load(Ordering::Relaxed) {
                let due = Instant::now() + EVERY;
                std::thread::sleep(EVERY);
                let connected = gateway.take().or_else(|| Gateway::connect(*turns.next()?).ok());
                gateway = connected.and_then(|mut to| to.put(KEY, "").ok().map(|()| to));
                if gateway.is_none() || due.elapsed() > limit {
                    note(&writing, Span { from: due, to: Some(Instant::now()) });
                }
            }
        });
        Witness { shared, writing: Some(writing) }
    }

    /// The stalls so far, in order.
    pub fn stalls(&self) -> Vec<Span> {
        self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when everything was quick enough, if that was after `since`.
    pub fn calm_since(&self, since: Instant) -> Instant {
        let stalls = self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.last().and_then(|last| last.to).map_or(since, |last| last.max(since))
    }

    /// Ends it, and returns the stalls.
    ///
    /// # Errors
    ///
    /// When it had stopped looking.
    pub fn finish(mut self) -> Result<Vec<Span>> {
        self.shared.closing.store(true, Ordering::Relaxed);
        if self.writing.take().is_some_and(|writing| writing.join().is_err()) {
            bail!("the witness panicked");
        }
        Ok(self.stalls())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may be waiting for a member that never answers; nobody waits for it.
        self.shared.closing.store(true, Ordering::Relaxed);
    }
}

/// Adds a stall; one that goes on where the last one ended is the same.
fn note(shared: &Shared, stall: Span) {
    let mut stalls = shared.stalls.lock().unwrap_or_else(PoisonError::into_inner);
    match stalls.last_mut() {
        Some(last) if last.to.is_some_and(|to| to + EVERY * 2 >= stall.from) => last.to = stall.to,
        _ => stalls.push(stall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Version;
    use crate::{PATIENCE, eventually};

    #[test]
    fn a_frozen_store_stalls_and_a_thawed_one_does_not() {
        let etcd = Etcd::start_cluster(Version::V3_4, 1).unwrap();
        let limit = Duration::from_secs(1);
        let witness = Witness::start(&etcd, limit);
        etcd[0].pause().unwrap();
        let paused = Instant::now();
        std::thread::sleep(limit * 2);
        let resumed = Instant::now();
        etcd[0].resume().unwrap();
        let covers =
            |stall: &Span| stall.from <= paused + limit && stall.to.is_some_and(|to| to >= resumed);
        eventually("the stall", PATIENCE, || witness.stalls().iter().any(covers).then_some(()))
            .unwrap();
        assert!(witness.calm_since(paused) >= resumed);
        witness.finish().unwrap();
    }
}

//! The trait that both stores implement, and what passes through it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use conclave_core::record::{MarkRecord, TransferRecord};
use conclave_core::{ElectionName, Entry, NodeName, Outcome, Request, Revision};
use tokio::sync::mpsc;

use crate::error::StoreError;
use crate::keys::Keys;
use crate::plan::{self, Plan};

/// A boxed future, which keeps [`Store`] usable as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A linearizable store that Conclave's nodes share.
pub trait Store: fmt::Debug + Send + Sync {
    /// Runs one request, within `timeout`.
    ///
    /// `Ok` carries [`Outcome::Applied`] or [`Outcome::Rejected`]. Every error means that the
    /// outcome is unknown: the request may have been applied, and after a timeout still may be.
    fn execute(
        &self,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>>;

    /// Sets or clears an operator's intent, whatever it was before, within `timeout`.
    fn control(
        &self,
        control: Control,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>>;

    /// Reports the cluster's changes above revision `after`, which is that of a listing. It
    /// survives lost connections by resuming where it was, and ends in
    /// [`WatchEvent::Broken`] when that is impossible; then list again.
    ///
    /// Must be called within a tokio runtime.
    fn watch(&self, after: Revision) -> Watch;

    /// Measures how long a linearizable read and a write to a scratch key take, each within
    /// `timeout`.
    fn measure(&self, timeout: Duration) -> BoxFuture<'_, Result<Latency, StoreError>>;
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The identity of the store itself: another one means another store, or one restored from
    /// a backup.
    pub cluster: u64,
    /// What became of the request; never [`Outcome::Unknown`], which is what errors are for.
    pub outcome: Outcome,
}

/// An operator's intent, one key each; `None` clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stops voluntary changes of an election.
    Pause {
        /// Which election.
        election: ElectionName,
        /// Who wants it, and why.
        mark: Option<MarkRecord>,
    },
    /// Ends a pause that has served its time, if it is still the one that was seen.
    EndPause {
        /// Which election.
        election: ElectionName,
        /// The revision of the pause that was seen.
        seen: Revision,
    },
    /// Asks that a term move to another node.
    Transfer {
        /// Which election.
        election: ElectionName,
        /// Which term, and to whom.
        transfer: Option<TransferRecord>,
    },
    /// Keeps a node from leading.
    Cordon {
        /// In which election.
        election: ElectionName,
        /// Which node.
        node: NodeName,
        /// Who wants it, and why.
        mark: Option<MarkRecord>,
    },
}

/// How quick a store is, the median of a few attempts each; and whether it will stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// A linearizable read.
    pub read: Duration,
    /// A durable write.
    pub write: Duration,
    /// The store's newest revision, if it still keeps every revision since its first: when that
    /// is large, nothing compacts it, and every beat makes it grow.
    pub uncompacted: Option<Revision>,
}

/// News from a [`Watch`].
#[derive(Debug)]
pub enum WatchEvent {
    /// What changed, oldest first. A state that was superseded before it could be told may be
    /// missing; the newest state of a key never is.
    Changes {
        /// The revision up to which everything has now been told.
        at: Revision,
        /// The changed keys.
        entries: Vec<Entry>,
    },
    /// Nothing of this cluster changed up to here.
    Progress {
        /// The revision up to which everything has now been told.
        at: Revision,
    },
    /// The watch is over and may have missed changes.
    Broken(StoreError),
}

/// How many undelivered reports a watch holds before its sender waits.
pub(crate) const WATCH_QUEUE: usize = 64;

/// A running watch; it ends when dropped.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
}

impl Watch {
    pub(crate) fn new(events: mpsc::Receiver<WatchEvent>) -> Self {
        Watch { events }
    }

    /// The next news; `None` after [`WatchEvent::Broken`]. Nothing is lost when the returned
    /// future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }
}

/// The middle one of a few measurements.
pub(crate) fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// How often each of a [`Latency`]'s figures is taken.
const SAMPLES: usize = 5;

/// Measures a store by what it does with a plan.
pub(crate) async fn measure<F>(keys: &Keys, run: impl Fn(Plan) -> F) -> Result<Latency, StoreError>
where
    F: Future<Output = Result<Reply, StoreError>>,
{
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    // The first round only opens the connection.
    for round in 0..=SAMPLES {
        let begun = Instant::now();
        run(Plan::Read(plan::scratch_range(keys))).await?;
        let read = begun.elapsed();
        let begun = Instant::now();
        run(Plan::Write(plan::scratch_write(keys))).await?;
        if round > 0 {
            reads.push(read);
            writes.push(begun.elapsed());
        }
    }
    run(Plan::Write(plan::scratch_delete(keys))).await?;
    Ok(Latency { read: median(reads), write: median(writes), uncompacted: None })
}

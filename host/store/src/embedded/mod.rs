//! The embedded store: one SQLite file for several daemons on one machine.
//!
//! One thread per store owns the connection that requests go through, so that a slow disk holds
//! up nobody else; each watch has a thread and a connection of its own. A daemon that is frozen
//! in the middle of a write holds the others up until it goes on or dies; their requests then
//! time out, and sessions do what they do when a store is gone.

mod database;
mod place;
mod transaction;
mod watch;

use std::path::PathBuf;
use std::sync::mpsc as jobs;
use std::thread;
use std::time::{Duration, Instant};

use conclave_core::{Request, Revision};
use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;
use crate::keys::Keys;
use crate::plan::{self, Plan};
use crate::store::{self, BoxFuture, Control, Latency, Reply, Store, WATCH_QUEUE, Watch};
use database::{Database, Missing};
use place::Files;

/// How long opening the file may wait for others who are writing to it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an embedded store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The database file, created if it is missing; its directory must exist. Beside it lie
    /// SQLite's `-wal` and `-shm` files and the `-bell` by which daemons wake each other.
    pub path: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// For how many revisions deletions are remembered; a watch that starts earlier is broken.
    pub remember: u64,
}

impl EmbeddedConfig {
    /// The file at `path` for the cluster of this name, remembering 10,000 revisions.
    pub fn new(path: impl Into<PathBuf>, cluster: impl Into<String>) -> Self {
        EmbeddedConfig { path: path.into(), cluster: cluster.into(), remember: 10_000 }
    }
}

/// An open embedded store.
#[derive(Debug)]
pub struct EmbeddedStore {
    config: EmbeddedConfig,
    keys: Keys,
    files: Files,
    jobs: jobs::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    plan: Plan,
    deadline: Instant,
    reply: oneshot::Sender<Result<Reply, StoreError>>,
}

impl EmbeddedStore {
    /// Opens or creates the file. Blocks for as long as the disk needs, and up to five seconds
    /// for other daemons.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is no store of this version, lies on a network file
    /// system or belongs to another machine.
    pub fn open(config: EmbeddedConfig) -> Result<Self, StoreError> {
        Self::start(config, Missing::Create)
    }

    /// As [`open`](Self::open), but only if there is a store already: what only looks at one
    /// leaves nothing behind where there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`StoreError::NoStore`].
    pub fn open_existing(config: EmbeddedConfig) -> Result<Self, StoreError> {
        Self::start(config, Missing::Refuse)
    }

    fn start(config: EmbeddedConfig, missing: Missing) -> Result<Self, StoreError> {
        let mut database = Database::open(&config, missing, Instant::now() + OPEN_TIMEOUT)?;
        let files = database.files().clone();
        let (jobs, queue) = jobs::channel::<Job>();
        let work = move || {
            for job in queue {
                let late = Instant::now() >= job.deadline || job.reply.is_closed();
                if !late {
                    // The asker may have stopped waiting; then nobody wants the answer.
                    let _ = job.reply.send(database.run(&job.plan, job.deadline));
                }
            }
        };
        thread::Builder::new().name("store".into()).spawn(work).map_err(|source| {
            StoreError::File { action: "start a thread for", path: config.path.clone(), source }
        })?;
        Ok(EmbeddedStore { keys: Keys::new(&config.cluster), config, files, jobs })
    }

    async fn run(&self, plan: Plan, timeout: Duration) -> Result<Reply, StoreError> {
        let place = || self.config.path.display().to_string();
        let (reply, answer) = oneshot::channel();
        let job = Job { plan, deadline: Instant::now() + timeout, reply };
        self.jobs.send(job).map_err(|_| StoreError::Closed { place: place() })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(result)) => result,
            // The thread drops a job unanswered when its time has passed.
            Ok(Err(_)) | Err(_) => Err(StoreError::TimedOut { place: place(), after: timeout }),
        }
    }
}

impl Store for EmbeddedStore {
    fn execute(
        &self,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move { self.run(plan::plan(&self.keys, &request)?, timeout).await })
    }

    fn control(
        &self,
        control: Control,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            let transaction = plan::plan_control(&self.keys, &control)?;
            self.run(Plan::Write(transaction), timeout).await
        })
    }

    fn watch(&self, after: Revision) -> Watch {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        watch::start(self.config.clone(), self.files.clone(), after, events);
        Watch::new(receiver)
    }

    fn measure(&self, timeout: Duration) -> BoxFuture<'_, Result<Latency, StoreError>> {
        Box::pin(store::measure(&self.keys, move |plan| self.run(plan, timeout)))
    }
}

//! Hooks: an operator's commands on what happens to a role. They are told and decide nothing.
//!
//! Each election's hooks run one at a time, in the order of what happened, each within its time; one that fails, hangs
//! or is behind is told of in the log and the metrics, and costs nothing else. Who was told that it leads is told that
//! it no longer does, also by a later daemon: a mark in the state directory says so until then. A daemon that goes
//! on with a term tells again that it leads.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{ElectionName, NodeName, Token};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{Config, HooksConfig, encode_name};
use crate::http::Metrics;

/// How many may wait; whoever is that far behind will not catch up.
const WAITING: usize = 64;

/// Beneath the state directory: a file for each election whose `gained` was told last.
const MARKS: &str = "hooks";

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// This node leads, and what follows the leader is in place.
    Gained(Token),
    /// It no longer does, and that is withdrawn.
    Lost,
    /// The holder in store is another.
    Changed(Option<(NodeName, Token)>),
}

impl Happened {
    fn name(&self) -> &'static str {
        match self {
            Happened::Gained(_) => "gained",
            Happened::Lost => "lost",
            Happened::Changed(_) => "changed",
        }
    }

    fn command<'a>(&self, hooks: &'a HooksConfig) -> Option<&'a Vec<String>> {
        match self {
            Happened::Gained(_) => hooks.gained.as_ref(),
            Happened::Lost => hooks.lost.as_ref(),
            Happened::Changed(_) => hooks.changed.as_ref(),
        }
    }
}

/// The elections that have hooks.
#[derive(Debug)]
pub(crate) struct Hooks {
    queues: BTreeMap<ElectionName, Sender<Happened>>,
    metrics: Arc<Metrics>,
}

impl Hooks {
    /// Starts to wait for what happens. What an earlier daemon left untold, because what it had was withdrawn for
    /// it, is told first, but for those whose term goes on. Needs a tokio runtime.
    pub(crate) fn start(
        config: &Config,
        goes_on: impl Fn(&ElectionName) -> bool,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let mut queues = BTreeMap::new();
        for election in &config.elections {
            let Some(hooks) = election.hooks.clone() else { continue };
            let (queue, happened) = channel(WAITING);
            let marks = config.state_directory.join(MARKS);
            let worker = Worker {
                election: election.name.clone(),
                node: config.node.name.clone(),
                mark: marks.join(encode_name(election.name.as_str())),
                hooks,
                metrics: Arc::clone(metrics),
            };
            if worker.mark.exists() && !goes_on(&election.name) {
                // There is room for the first.
                let _ = queue.try_send(Happened::Lost);
            }
            tokio::spawn(worker.work(happened));
            queues.insert(election.name.clone(), queue);
        }
        Hooks { queues, metrics: Arc::clone(metrics) }
    }

    /// Has the election's hook for this run, in its turn.
    pub(crate) fn tell(&self, election: &ElectionName, happened: Happened) {
        let Some(queue) = self.queues.get(election) else { return };
        let hook = happened.name();
        if queue.try_send(happened).is_err() {
            self.metrics.hook(election, hook, "dropped");
            warn!(%election, hook, "the hooks are too far behind: this one is left out");
        }
    }
}

/// Runs an election's hooks.
struct Worker {
    election: ElectionName,
    node: NodeName,
    /// There while `gained` was told, and `lost` was not.
    mark: PathBuf,
    hooks: HooksConfig,
    metrics: Arc<Metrics>,
}

impl Worker {
    async fn work(self, mut happened: Receiver<Happened>) {
        while let Some(what) = happened.recv().await {
            let told = match &what {
                Happened::Gained(_) => set(&self.mark),
                // One that was told nothing has lost nothing.
                Happened::Lost if !self.mark.exists() => continue,
                Happened::Lost | Happened::Changed(_) => Ok(()),
            };
            if let Err(error) = told {
                warn!(election = %self.election, %error, "cannot note that `gained` was told");
            }
            if let Some(command) = what.command(&self.hooks) {
                let outcome = self.run(command, &what).await;
                self.metrics.hook(&self.election, what.name(), outcome);
            }
            if what == Happened::Lost
                && let Err(error) = fs::remove_file(&self.mark)
            {
                warn!(election = %self.election, %error, "cannot note that `lost` was told");
            }
        }
    }

    /// Runs a hook, and says what came of it.
    async fn run(&self, command: &[String], what: &Happened) -> &'static str {
        let Some((program, arguments)) = command.split_first() else { return "failed" };
        let (election, hook) = (&self.election, what.name());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("CONCLAVE_HOOK", hook)
            .env("CONCLAVE_ELECTION", election.as_str())
            .env("CONCLAVE_NODE", self.node.as_str())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        match what {
            Happened::Gained(token) => {
                command.env("CONCLAVE_TERM", token.to_string());
            }
            Happened::Changed(Some((holder, token))) => {
                command.env("CONCLAVE_HOLDER", holder.as_str());
                command.env("CONCLAVE_TERM", token.to_string());
            }
            Happened::Lost | Happened::Changed(None) => {}
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                warn!(%election, hook, %error, "a hook cannot be started");
                return "failed";
            }
        };
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        match timeout(self.hooks.timeout, child.wait()).await {
            Ok(Ok(status)) if status.success() => {
                info!(%election, hook, "a hook has run");
                "succeeded"
            }
            Ok(Ok(status)) => {
                warn!(%election, hook, %status, "a hook failed");
                "failed"
            }
            Ok(Err(error)) => {
                warn!(%election, hook, %error, "nobody knows what became of a hook");
                "failed"
            }
            Err(_) => {
                let limit = self.hooks.timeout;
                warn!(%election, hook, ?limit, "a hook took too long, and is killed");
                if let Some(group) = group {
                    // It may have ended just now; its leader is not reaped yet.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = timeout(Duration::from_secs(1), child.wait()).await;
                "timed_out"
            }
        }
    }
}

fn set(mark: &Path) -> io::Result<()> {
    if let Some(directory) = mark.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(mark, "")
}

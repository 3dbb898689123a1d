//! Nodes as an operator runs them: `conclave run --config FILE`, a guard and its daemon.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::disk::{Disk, Thaw};
use crate::process::{Pid, Process, Signal, alive, send};
use crate::{PATIENCE, binary, eventually, pod, scratch};

/// The election of [`control_plane`].
pub const ELECTION: &str = "control-plane";

/// The TTL that tests use unless it matters: short enough to wait for.
pub const TTL: std::time::Duration = std::time::Duration::from_secs(2);

/// A node: its directories and configuration, which outlive its processes.
pub struct Node {
    /// Thaws the disk before anything else: whoever hangs in it cannot be ended.
    thaw: Option<Thaw>,
    /// Ended before the directory goes.
    process: Option<Process>,
    /// Earlier guards; what they left running is for the next one to deal with, not for us.
    past: Vec<Process>,
    name: String,
    /// Gone when nobody uses it any more.
    disk: Option<Disk>,
    dir: TempDir,
    destinations: PathBuf,
    config: Value,
}

impl Node {
    /// A node with this configuration, of which name, state directory and log are added. Paths in
    /// the configuration are relative to [`Node::root`].
    ///
    /// # Errors
    ///
    /// When its directories cannot be made.
    pub fn new(name: &str, config: Value) -> Result<Self> {
        let dir = scratch::directory(name)?;
        for directory in ["src", "dst"] {
            fs::create_dir(dir.path().join(directory))?;
        }
        let destinations = dir.path().join("dst");
        let (name, process, past) = (name.to_owned(), None, Vec::new());
        let mut node =
            Node { thaw: None, process, past, name, disk: None, dir, destinations, config };
        node.config["node"]["name"] = json!(node.name);
        node.config["state_directory"] = json!("state");
        Ok(node)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of all that is the node's own.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the source manifests.
    pub fn sources(&self) -> PathBuf {
        self.root().join("src")
    }

    /// The static-pod directory.
    pub fn destinations(&self) -> PathBuf {
        self.destinations.clone()
    }

    /// Has another directory be the static-pod directory from the next start on.
    pub fn place_in(&mut self, directory: &Path) {
        let elections = self.config["elections"].as_array_mut().into_iter().flatten();
        let lists = elections.filter_map(|election| election["manifests"].as_array_mut());
        for destination in lists.flatten().map(|manifest| &mut manifest["destination"]) {
            let file = Path::new(destination.as_str().unwrap_or_default()).file_name();
            *destination = json!(directory.join(file.unwrap_or_default()));
        }
        self.destinations = directory.to_owned();
    }

    /// Has a disk of the node's own be the static-pod directory from the next start on.
    ///
    /// # Errors
    ///
    /// When this machine does not allow it.
    pub fn have_a_disk(&mut self) -> Result<()> {
        let disk = Disk::make(&self.name)?;
        self.place_in(&disk.directory());
        (self.thaw, self.disk) = (Some(disk.thaw()), Some(disk));
        Ok(())
    }

    /// The disk of the static-pod directory.
    ///
    /// # Errors
    ///
    /// When it has none of its own.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().with_context(|| format!("{} has no disk of its own", self.name))
    }

    /// The configuration, to be changed before the next start.
    pub fn config(&mut self) -> &mut Value {
        &mut self.config
    }

    /// Writes the configuration and returns its path. JSON is YAML.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<PathBuf> {
        let path = self.root().join("conclave.yaml");
        fs::write(&path, serde_json::to_string_pretty(&self.config)?)?;
        Ok(path)
    }

    /// Starts guard and daemon.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.start_as(|command| command)
    }

    /// Starts guard and daemon by a command that is made of the usual one.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_as(&mut self, change: impl FnOnce(Command) -> Command) -> Result<()> {
        let command = change(self.command()?);
        let process = Process::start(&self.name, self.root(), command)?;
        self.past.extend(self.process.replace(process));
        // A node that is started again and again does not pile up what has long ended.
        self.past.retain(|past| !past.family().is_empty());
        Ok(())
    }

    /// Starts guard and daemon from a copy of the program that is the node's own, and returns its
    /// path.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or started.
    pub fn start_own_copy(&mut self) -> Result<PathBuf> {
        let program = self.root().join("conclave");
        binary::install_at(&program)?;
        self.start_as(|usual| same_call(&usual, &program))?;
        Ok(program)
    }

    /// Starts guard and daemon, who log everything to `output` instead of the node's log.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start_logging_into(&mut self, output: &impl AsFd) -> Result<()> {
        let mut command = self.command()?;
        command.env("CONCLAVE_LOG", "trace");
        let process = Process::start_into(&self.name, self.root(), command, output)?;
        self.past.extend(self.process.replace(process));
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary::conclave());
        command.arg("run").arg("--config").arg(self.write_config()?).current_dir(self.root());
        Ok(command)
    }

    /// The guard's process.
    ///
    /// # Errors
    ///
    /// When the node was never started.
    pub fn guard(&mut self) -> Result<&mut Process> {
        let name = &self.name;
        self.process.as_mut().with_context(|| format!("{name} was not started"))
    }

    /// Waits for the guard to have a daemon other than `old`, and returns its process id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn daemon_after(&mut self, old: Option<Pid>) -> Result<Pid> {
        let guard = self.guard()?;
        eventually("a daemon", PATIENCE, || {
            guard.children().into_iter().find(|pid| Some(*pid) != old && alive(*pid))
        })
    }

    /// The daemon's process id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn daemon(&mut self) -> Result<Pid> {
        self.daemon_after(None)
    }

    /// Sends a signal to the guard, as a supervisor would.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.guard()?.signal(signal)
    }

    /// Asks the node to stop and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let guard = self.guard()?;
        guard.signal(Signal::TERM)?;
        guard.wait(PATIENCE)
    }

    /// Waits for the daemon `old` to be dead and followed by another, whose process id it returns.
    /// Meanwhile the guard may have other children.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn daemon_replaced(&mut self, old: Pid) -> Result<Pid> {
        eventually("the daemon to be replaced", PATIENCE, || (!alive(old)).then_some(()))?;
        self.daemon_after(Some(old))
    }

    /// Kills the daemon alone and returns what its process id was.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn kill_daemon(&mut self) -> Result<Pid> {
        let daemon = self.daemon()?;
        send(daemon, Signal::KILL)?;
        Ok(daemon)
    }

    /// Everything of this node that lives: guard, daemon, and what an earlier guard left running.
    pub fn processes(&self) -> Vec<Pid> {
        self.past.iter().chain(&self.process).flat_map(Process::family).collect()
    }

    /// Kills guard and daemon at once, as a power cut would.
    ///
    /// # Errors
    ///
    /// When something survives.
    pub fn kill(&mut self) -> Result<()> {
        self.guard()?.kill_family()
    }

    /// What guard and daemon have written to their standard output and error.
    ///
    /// # Errors
    ///
    /// When the node was never started.
    pub fn output(&mut self) -> Result<String> {
        self.guard()?.output()
    }
}

/// The call of `usual`, of another program.
fn same_call(usual: &Command, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(usual.get_args());
    if let Some(directory) = usual.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// The configuration of a node of a control plane: scheduler and controller manager with the
/// holder, the API server everywhere.
pub fn control_plane(cluster: &str, endpoints: &[String]) -> Value {
    let manifest = |file: &str, exclusive: bool| {
        json!({
            "source": format!("src/{file}"),
            "destination": format!("dst/{file}"),
            "exclusive": exclusive,
        })
    };
    json!({
        "cluster": cluster,
        "store": { "etcd": { "endpoints": endpoints } },
        "timings": { "ttl": "2s" },
        "elections": [{
            "name": ELECTION,
            "policy": "cold-standby",
            "manifests": [
                manifest(pod::SCHEDULER, true),
                manifest(pod::CONTROLLER_MANAGER, true),
                manifest(pod::API_SERVER, false),
            ],
            "overlap": "accepted",
        }],
    })
}

/// A node of a control plane with its manifests, not yet started.
///
/// # Errors
///
/// When its directories cannot be made.
pub fn control_plane_node(name: &str, cluster: &str, endpoints: &[String]) -> Result<Node> {
    let node = Node::new(name, control_plane(cluster, endpoints))?;
    for file in [pod::SCHEDULER, pod::CONTROLLER_MANAGER, pod::API_SERVER] {
        pod::copy(file, &node.sources())?;
    }
    Ok(node)
}

/// A node of one election `masters` over the scheduler's manifest, on an embedded store; its
/// configuration is changed so. Not yet started.
///
/// # Errors
///
/// When its directories cannot be made.
pub fn scheduler_node(
    name: &str,
    cluster: &str,
    store: &Path,
    change: impl FnOnce(&mut Value),
) -> Result<Node> {
    let file = pod::SCHEDULER;
    let mut config = json!({
        "cluster": cluster,
        "store": { "embedded": { "path": store } },
        "timings": { "ttl": "2s" },
        "elections": [{
            "name": "masters",
            "overlap": "accepted",
            "manifests": [{ "source": format!("src/{file}"), "destination": format!("dst/{file}") }],
        }],
    });
    change(&mut config);
    let node = Node::new(name, config)?;
    pod::copy(file, &node.sources())?;
    Ok(node)
}

/// The prefix of an election's leader keys.
pub fn leader_prefix(cluster: &str, election: &str) -> String {
    format!("/conclave/{cluster}/elections/{election}/leader/")
}

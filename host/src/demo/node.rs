//! One node of the demo: its directories and configuration, its `conclave run`, its kubelet.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::census::Census;
use super::kubelet::{Kubelet, Post};
use super::{DemoError, own_program, processes, stand_in};

/// The demo's only election.
pub(super) const ELECTION: &str = "masters";

/// The pods that follow its leader.
pub(super) const PODS: [&str; 2] = ["scheduler", "controller-manager"];

/// How long a node may take to stop when the demo is over, or broken off.
const TIDY_TIME: Duration = Duration::from_secs(5);

/// How many lines of each node's log go into an error.
const LOG_TAIL: usize = 15;

/// A node as the story moves it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    directory: PathBuf,
    census: Arc<Census>,
    guard: Option<Child>,
    asked_to_stop: bool,
    kubelet: Option<Kubelet>,
}

/// What a role file says, as far as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Role {
    pub(super) role: String,
    pub(super) token: Option<u64>,
    pub(super) holder: Option<String>,
}

impl Node {
    /// Lays out a node's directories below the demo's.
    pub(super) fn new(
        name: &'static str,
        demo: &Path,
        census: Arc<Census>,
    ) -> Result<Self, DemoError> {
        let directory = demo.join(name);
        let lay_out = || {
            fs::create_dir_all(directory.join("manifests"))?;
            fs::create_dir(directory.join("run"))?;
            fs::write(directory.join("conclave.yaml"), configuration(name))
        };
        lay_out().map_err(DemoError::machine(format!("lay out node {name}")))?;
        Ok(Node { name, directory, census, guard: None, asked_to_stop: false, kubelet: None })
    }

    /// Starts its guard, which starts its daemon.
    pub(super) fn start_conclave(&mut self) -> Result<(), DemoError> {
        let program = own_program()?;
        let start = || {
            let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
            Command::new(program)
                .args(stand_in::NODE)
                .arg(self.directory.join("conclave.yaml"))
                .env_remove("CONCLAVE_LOG")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                // Ctrl-C is for the demo, which then stops its nodes in order.
                .process_group(0)
                .spawn()
        };
        let guard = start().map_err(DemoError::machine(format!("start node {}", self.name)))?;
        self.guard = Some(guard);
        self.asked_to_stop = false;
        Ok(())
    }

    /// Starts its kubelet.
    pub(super) fn start_kubelet(&mut self) -> Result<(), DemoError> {
        let post = Post {
            node: self.name,
            manifests: self.directory.join("manifests"),
            running: self.directory.join("run/pods"),
        };
        let kubelet = Kubelet::start(post, own_program()?, Arc::clone(&self.census))
            .map_err(DemoError::machine("start a stand-in kubelet"))?;
        self.kubelet = Some(kubelet);
        Ok(())
    }

    fn guard_pid(&self) -> Option<Pid> {
        self.guard.as_ref().map(Pid::from_child)
    }

    /// The daemon under the guard.
    pub(super) fn daemon(&self) -> Option<Pid> {
        self.guard_pid().and_then(|guard| processes::children(guard).first().copied())
    }

    /// Whether its guard was started and has not been seen to end.
    pub(super) fn is_on(&self) -> bool {
        self.guard.is_some()
    }

    /// Kills guard, daemon, kubelet and pods at once. What a machine keeps in memory is gone, its
    /// disk stays as it is.
    pub(super) fn cut_power(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            processes::cut_power(Pid::from_child(&guard));
            let _ = guard.wait();
        }
        self.kubelet = None;
        for file in ["role.json", "pods"] {
            let _ = fs::remove_file(self.directory.join("run").join(file));
        }
    }

    /// Asks its guard to stop, as a supervisor does; only once, for a second time would be an
    /// order to abort.
    pub(super) fn ask_to_stop(&mut self) -> io::Result<()> {
        match self.guard_pid() {
            Some(guard) if !self.asked_to_stop => {
                self.asked_to_stop = true;
                Ok(kill_process(guard, Signal::TERM)?)
            }
            _ => Ok(()),
        }
    }

    /// How its guard ended, once it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(guard) = &mut self.guard else { return Ok(None) };
        let status = guard.try_wait()?;
        if status.is_some() {
            self.guard = None;
        }
        Ok(status)
    }

    /// Whether a file lies in its static-pod directory.
    pub(super) fn has_manifest(&self, pod: &str) -> bool {
        self.directory.join("manifests").join(format!("{pod}.yaml")).exists()
    }

    /// What its role file says.
    pub(super) fn role(&self) -> Option<Role> {
        let text = fs::read(self.directory.join("run/role.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(LOG_TAIL));
        tail.map(|line| format!("  {}: {line}\n", self.name)).collect()
    }
}

impl Drop for Node {
    /// Gives it the time to tidy up after itself, and then no more.
    fn drop(&mut self) {
        let end = Instant::now() + TIDY_TIME;
        if self.ask_to_stop().is_ok() {
            while self.is_on() && matches!(self.ended(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.cut_power();
    }
}

/// A node's configuration; all paths in it are below the demo's directory.
fn configuration(name: &str) -> String {
    let manifests: String = PODS
        .iter()
        .map(|pod| format!("      - {{source: ../sources/{pod}.yaml, destination: manifests/}}\n"))
        .collect();
    format!(
        "cluster: demo
node: {{name: {name}}}
store: {{embedded: {{path: ../store.db}}}}
state_directory: state
timings: {{ttl: 2s}}
elections:
  - name: {ELECTION}
    manifests:
{manifests}    stop_check: {{file: run/pods, interval: 5ms, within: 5s}}
    role_file: run/role.json
"
    )
}

/// A manifest for a pod that is only a process here.
pub(super) fn manifest(pod: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  namespace: kube-system
spec:
  hostNetwork: true
  containers:
    - name: {pod}
      image: stand-in
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_a_node_takes_without_a_warning() {
        let demo = tempfile::tempdir().unwrap();
        fs::create_dir(demo.path().join("sources")).unwrap();
        for pod in PODS {
            fs::write(demo.path().join(format!("sources/{pod}.yaml")), manifest(pod)).unwrap();
        }
        let node = Node::new("a", demo.path(), Arc::default()).unwrap();
        let file = node.directory.join("conclave.yaml");
        let (config, warnings) = crate::config::load(&file, &["cold-standby"])
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(warnings, []);
        assert_eq!(config.elections[0].name.as_str(), ELECTION);
        let names: Vec<&str> =
            config.elections[0].manifests.iter().map(|manifest| manifest.name.as_str()).collect();
        assert_eq!(names, PODS);
    }
}

//! Nodes in podmaster mode: `conclave podmaster`, with podmaster's own command line.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::etcd::Etcd;
use crate::gateway::Gateway;
use crate::observer::Observer;
use crate::process::Process;
use crate::timeline::Timeline;
use crate::{PATIENCE, binary, eventually, pod, scratch};

/// The manifest's file name at source and destination.
pub const FILE: &str = "pod.yaml";

/// What a node of a [`Group`] puts in place.
pub const POD: &[&str] = &[FILE];

/// Flags for a TTL that is short enough to wait for: two seconds.
pub const SHORT: &[&str] = &["--ttl-secs=2", "--sleep=500ms"];

/// Flags for a TTL that outlasts a test: whatever happens did not happen because a session ran out.
pub const LONG: &[&str] = &["--ttl-secs=600", "--sleep=500ms"];

/// A node's place on disk; it outlives the processes that run on it.
pub struct Place {
    dir: TempDir,
    whoami: String,
}

impl Place {
    /// A place with a source manifest and an empty destination directory.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn new(whoami: &str) -> Result<Self> {
        let dir = scratch::directory(whoami)?;
        fs::create_dir(dir.path().join("src"))?;
        fs::create_dir(dir.path().join("dst"))?;
        let place = Place { dir, whoami: whoami.to_owned() };
        fs::write(place.source(), pod::manifest("pod"))?;
        Ok(place)
    }

    /// The node's name.
    pub fn whoami(&self) -> &str {
        &self.whoami
    }

    /// The source manifest's path.
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("src").join(FILE)
    }

    /// The destination directory.
    pub fn destination_dir(&self) -> PathBuf {
        self.dir.path().join("dst")
    }

    /// The destination manifest's path.
    pub fn destination(&self) -> PathBuf {
        self.destination_dir().join(FILE)
    }

    /// The node's own directory, for logs.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the node with the usual flags, and `more`.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start(&self, servers: &str, key: &str, more: &[&str]) -> Result<Process> {
        let mut command = Command::new(binary::conclave());
        command
            .arg("podmaster")
            .arg(format!("--etcd-servers={servers}"))
            .arg(format!("--key={key}"))
            .arg(format!("--whoami={}", self.whoami))
            .arg(flag("--source-file", &self.source()))
            .arg(flag("--dest-file", &self.destination()))
            .args(more);
        Process::start(&self.whoami, self.root(), command)
    }

    /// What is at the destination now, if anything.
    pub fn placed(&self) -> Option<String> {
        fs::read_to_string(self.destination()).ok()
    }

    /// Waits until this is at the destination.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn wait_for(&self, what: &str, text: &str) -> Result<()> {
        eventually(what, PATIENCE, || (self.placed().as_deref() == Some(text)).then_some(()))
    }
}

fn flag(name: &str, value: &Path) -> String {
    format!("{name}={}", OsStr::to_string_lossy(value.as_os_str()))
}

/// Some nodes that share a key, and what is seen of them.
pub struct Group {
    key: String,
    /// Each node's process and place. Processes first: they end before their directories go.
    pub nodes: Vec<(Option<Process>, Place)>,
    /// What is seen of them.
    pub observer: Observer,
}

impl Group {
    /// Nodes of these names, not yet started.
    ///
    /// # Errors
    ///
    /// When their places cannot be made.
    pub fn new(key: &str, names: &[&str]) -> Result<Self> {
        let places = names.iter().map(|name| Place::new(name)).collect::<Result<Vec<_>>>()?;
        let seen: Vec<(&str, PathBuf)> =
            places.iter().map(|place| (place.whoami(), place.destination_dir())).collect();
        let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
        let nodes = places.into_iter().map(|place| (None, place)).collect();
        Ok(Group { key: key.to_owned(), nodes, observer })
    }

    /// A group whose nodes all run against this server, one of them with the manifest.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn running(etcd: &Etcd, key: &str, names: &[&str], flags: &[&str]) -> Result<Self> {
        let mut group = Group::new(key, names)?;
        names.iter().try_for_each(|name| group.start(name, &etcd.url(), flags))?;
        group.wait_for_sessions(etcd, names.len())?;
        group.leader()?;
        Ok(group)
    }

    /// Starts a node.
    ///
    /// # Errors
    ///
    /// When the binary cannot be started.
    pub fn start(&mut self, name: &str, servers: &str, flags: &[&str]) -> Result<()> {
        let key = self.key.clone();
        let (process, place) = self.node(name);
        *process = Some(place.start(servers, &key, flags)?);
        Ok(())
    }

    fn node(&mut self, name: &str) -> (&mut Option<Process>, &Place) {
        let node = self.nodes.iter_mut().find(|(_, place)| place.whoami() == name);
        let (process, place) = node.expect("a node of the group");
        (process, place)
    }

    /// A node's place on disk.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    pub fn place(&mut self, name: &str) -> &Place {
        self.node(name).1
    }

    /// A node's process.
    ///
    /// # Panics
    ///
    /// When it was never started.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.node(name).0.as_mut().expect("a node that was started")
    }

    /// Waits until one node has the manifest, and returns its name.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn leader(&self) -> Result<String> {
        self.observer.wait_for_holder(POD)
    }

    /// Waits until the store knows this many nodes of the group as alive.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn wait_for_sessions(&self, etcd: &Etcd, count: usize) -> Result<()> {
        eventually(&format!("{count} sessions of {}", self.key), PATIENCE, || {
            let prefix = format!("/conclave/{}/sessions/", self.key);
            let sessions = Gateway::connect(etcd.address()).ok()?.list(&prefix).ok()?;
            (sessions.len() == count).then_some(())
        })
    }

    /// Ends the observation; no two ever had the manifest at once.
    ///
    /// # Errors
    ///
    /// When that does not hold.
    pub fn finish(self) -> Result<Timeline> {
        let Group { nodes, observer, .. } = self;
        let story = observer.finish()?;
        story.at_most_one_holder(POD)?;
        story.only_renamed(POD)?;
        drop(nodes);
        Ok(story)
    }
}

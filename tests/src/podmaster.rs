//! Nodes in podmaster mode: `conclave podmaster`, with podmaster's own command line.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::Process;
use crate::{binary, pod, scratch};

/// The manifest's file name at source and destination.
pub const FILE: &str = "pod.yaml";

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
}

fn flag(name: &str, value: &Path) -> String {
    format!("{name}={}", OsStr::to_string_lossy(value.as_os_str()))
}

//! A directory that can be made to refuse every change, whoever asks: also root, who is not stopped
//! by permissions.
//!
//! It becomes a small file system of its own (mounting it needs root), which is remounted
//! read-only; where mounting is not allowed, the directory is marked immutable instead. Both are
//! undone on drop, and by the janitor (see [`scratch`](crate::scratch)) when there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{PATIENCE, eventually};

/// How changes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Mounted,
    Marked,
}

/// A directory whose files can be frozen.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    means: Means,
}

impl Disk {
    /// Puts one at an existing, empty directory.
    ///
    /// # Errors
    ///
    /// When this machine allows neither way, with what each said.
    pub fn at(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        let mount = ["-t", "tmpfs", "-o", "size=4m,mode=0755", "conclave-tests"];
        let Err(no_mount) = run("mount", &mount, &directory) else {
            return Ok(Disk { directory, means: Means::Mounted });
        };
        let disk = Disk { directory, means: Means::Marked };
        if let Err(no_mark) = disk.freeze().and_then(|()| disk.thaw()) {
            bail!(
                "this test needs a directory that refuses changes; run it as root. Mounting a \
                 small file system: {no_mount:#}. Marking it immutable: {no_mark:#}"
            );
        }
        Ok(disk)
    }

    /// From now on nothing in the directory changes.
    ///
    /// # Errors
    ///
    /// When it cannot be done.
    pub fn freeze(&self) -> Result<()> {
        self.change("remount,ro", "+i")
    }

    /// Changes are possible again.
    ///
    /// # Errors
    ///
    /// When it cannot be done.
    pub fn thaw(&self) -> Result<()> {
        self.change("remount,rw", "-i")
    }

    fn change(&self, options: &str, mark: &str) -> Result<()> {
        let once = || match self.means {
            Means::Mounted => run("mount", &["-o", options], &self.directory),
            Means::Marked => run("chattr", &[mark], &self.directory),
        };
        // A file that is being written at this moment keeps its disk from becoming read-only.
        let mut last = None;
        let done = eventually(&format!("{options} to succeed"), PATIENCE, || match once() {
            Ok(()) => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        });
        done.map_err(|error| last.unwrap_or(error))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = match self.means {
            Means::Mounted => run("umount", &["--lazy"], &self.directory),
            Means::Marked => run("chattr", &["-i"], &self.directory),
        };
        if !std::thread::panicking() {
            gone.expect("a test's disks end with it");
        }
    }
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).arg(directory).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;
    use std::fs;

    #[test]
    fn refuses_changes_while_it_is_frozen_and_leaves_nothing_behind() {
        let scratch = scratch::directory("disk").unwrap();
        let file = scratch.path().join("file");
        let disk = Disk::at(scratch.path()).unwrap();
        fs::write(&file, "x").unwrap();
        disk.freeze().unwrap();
        assert!(fs::remove_file(&file).is_err());
        assert!(fs::write(scratch.path().join("other"), "x").is_err());
        disk.thaw().unwrap();
        fs::remove_file(&file).unwrap();
        disk.freeze().unwrap();
        drop(disk);
        fs::write(&file, "x").unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(scratch.path().to_str().unwrap()), "{mounts}");
    }
}

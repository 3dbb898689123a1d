//! A small disk of a node's own, which can be full, read-only or hung: a loop-mounted ext4.
//!
//! Its three ways to fail are the kernel's own: no space left, a remount, and a freeze, in which
//! whoever writes sleeps without end and not even SIGKILL takes effect before the thaw. Mounting
//! takes root and a kernel that lets it; where that is missing [`Disk::make`] says so.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{PATIENCE, eventually, scratch};

/// Room for some manifests and little else.
const SIZE_BYTES: u64 = 8 << 20;

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Not a byte is left.
    Full,
    /// It can only be read.
    ReadOnly,
    /// Writing to it does not come back.
    Hung,
}

/// A mounted disk; unmounted on drop, whatever state it is in.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Makes one and mounts it.
    ///
    /// # Errors
    ///
    /// When this machine does not let us, with what it said.
    pub fn make(name: &str) -> Result<Self> {
        let dir = scratch::directory(&format!("disk-{name}"))?;
        let image = dir.path().join("image");
        File::create(&image)?.set_len(SIZE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "1024"]).arg(&image))?;
        let disk = Disk { dir };
        fs::create_dir(disk.mount())?;
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(disk.mount()))?;
        fs::create_dir(disk.directory())?;
        Ok(disk)
    }

    /// Whether this machine lets us have such disks.
    ///
    /// # Errors
    ///
    /// When it does not, with what it said.
    pub fn possible() -> Result<()> {
        Self::make("trial").map(drop)
    }

    /// The directory on it that is used.
    pub fn directory(&self) -> PathBuf {
        self.mount().join("manifests")
    }

    /// What thaws it, and may outlive it.
    pub fn thaw(&self) -> Thaw {
        Thaw(self.mount())
    }

    /// Lets it fail.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn fail(&self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Full => self.fill(),
            Failure::ReadOnly => self.remount("remount,ro"),
            Failure::Hung => run(Command::new("fsfreeze").arg("--freeze").arg(self.mount())),
        }
    }

    /// Ends a failure.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub fn mend(&self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Full => fs::remove_file(self.filler()).context("remove what fills the disk"),
            Failure::ReadOnly => self.remount("remount,rw"),
            Failure::Hung => run(Command::new("fsfreeze").arg("--unfreeze").arg(self.mount())),
        }
    }

    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        // In smaller and smaller pieces, until not even one of the smallest fits.
        for piece in [64 * 1024, 1024, 1] {
            let bytes = vec![b'.'; piece];
            let full = loop {
                if let Err(error) = file.write_all(&bytes) {
                    break error;
                }
            };
            if full.kind() != ErrorKind::StorageFull {
                return Err(full).context("fill the disk");
            }
        }
        Ok(file.sync_all()?)
    }

    /// A file that is being written forbids it for a moment.
    fn remount(&self, how: &str) -> Result<()> {
        eventually(&format!("{how} of {}", self.mount().display()), PATIENCE, || {
            run(Command::new("mount").args(["-o", how]).arg(self.mount())).ok()
        })
    }

    fn filler(&self) -> PathBuf {
        self.mount().join("filler")
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.thaw());
        let mount = self.mount();
        if !mounted(&mount) {
            return;
        }
        let unmounted = run(Command::new("umount").arg(&mount));
        if std::thread::panicking() {
            // Whoever still uses it is on his way out.
            let _ = unmounted.or_else(|_| run(Command::new("umount").arg("--lazy").arg(&mount)));
        } else {
            unmounted.expect("a disk that nobody uses any more is unmounted");
        }
    }
}

/// Thaws a hung disk when dropped, so that whoever hangs in it can be ended.
#[derive(Debug)]
pub struct Thaw(PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        if mounted(&self.0) {
            // It fails where nothing is frozen.
            let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).output();
        }
    }
}

/// Whether something is mounted there.
fn mounted(mount: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let wanted = mount.to_string_lossy();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&wanted))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Signal};
    use std::time::Duration;

    /// Where nothing can be mounted there is nothing to test, and the suite that would use disks
    /// says so.
    fn disk() -> Option<Disk> {
        Disk::make("test").inspect_err(|error| eprintln!("no disks here: {error:#}")).ok()
    }

    #[test]
    fn fails_and_mends() {
        let Some(disk) = disk() else { return };
        let file = disk.directory().join("file");
        let write = |file: &Path| fs::write(file, "x").map_err(|error| error.kind());
        for (failure, kind) in [
            (Failure::Full, ErrorKind::StorageFull),
            (Failure::ReadOnly, ErrorKind::ReadOnlyFilesystem),
        ] {
            disk.fail(failure).unwrap();
            assert_eq!(write(&file), Err(kind), "{failure:?}");
            disk.mend(failure).unwrap();
            write(&file).unwrap();
            fs::remove_file(&file).unwrap();
        }
        let mount = disk.mount();
        drop(disk);
        assert!(!mounted(&mount));
    }

    #[test]
    fn hangs_whoever_writes_and_lets_go_on_drop() {
        let Some(disk) = disk() else { return };
        let file = disk.directory().join("file");
        fs::write(&file, "x").unwrap();
        disk.fail(Failure::Hung).unwrap();
        let log = scratch::directory("remover").unwrap();
        let mut command = Command::new("rm");
        command.arg(&file);
        let mut remover = Process::start("rm", log.path(), command).unwrap();
        assert!(remover.wait(Duration::from_millis(300)).is_err(), "it hangs");
        remover.signal(Signal::KILL).unwrap();
        assert!(file.exists());
        let (mount, thaw) = (disk.mount(), disk.thaw());
        drop(thaw);
        remover.wait(PATIENCE).unwrap();
        drop(disk);
        assert!(!mounted(&mount));
    }
}

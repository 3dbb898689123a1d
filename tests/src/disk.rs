//! A small disk of a node's own, which can be full, read-only or hung.
//!
//! It is a loop-mounted ext4, and its three ways to fail are the kernel's own: no space left, a
//! remount, and a freeze, in which whoever writes sleeps without end and not even SIGKILL takes
//! effect before the thaw. Where mounting is not allowed it is a plain directory, which can only
//! refuse every change, by being marked immutable: root is not stopped by permissions. All of it is
//! undone on drop, and by the janitor (see [`scratch`]) when there is none.

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

impl Failure {
    /// All of them.
    const ALL: [Failure; 3] = [Failure::Full, Failure::ReadOnly, Failure::Hung];
}

/// What it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Mounted,
    Marked,
}

/// A disk, whole again and gone on drop, whatever state it is in.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    means: Means,
}

impl Disk {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// When this machine allows neither way, with what each said.
    pub fn make(name: &str) -> Result<Self> {
        let dir = scratch::directory(&format!("disk-{name}"))?;
        let mut disk = Disk { dir, means: Means::Mounted };
        fs::create_dir(disk.mount())?;
        let mounted = disk.format_and_mount();
        fs::create_dir(disk.directory())?;
        if let Err(no_mount) = mounted {
            disk.means = Means::Marked;
            let marked = disk.fail(Failure::ReadOnly).and_then(|()| disk.mend(Failure::ReadOnly));
            if let Err(no_mark) = marked {
                bail!(
                    "a disk that fails takes root. Mounting one: {no_mount:#}. Marking a \
                     directory immutable: {no_mark:#}"
                );
            }
        }
        Ok(disk)
    }

    fn format_and_mount(&self) -> Result<()> {
        let image = self.dir.path().join("image");
        File::create(&image)?.set_len(SIZE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "1024"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(self.mount()))
    }

    /// How disks can fail on this machine.
    ///
    /// # Errors
    ///
    /// When they cannot, with the reason.
    pub fn possible() -> Result<&'static [Failure]> {
        Ok(match Self::make("trial")?.means {
            Means::Mounted => &Failure::ALL,
            Means::Marked => &[Failure::ReadOnly],
        })
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
        match (failure, self.means) {
            (Failure::ReadOnly, Means::Mounted) => self.remount("remount,ro"),
            (Failure::ReadOnly, Means::Marked) => self.mark("+i"),
            (_, Means::Marked) => bail!("only a mounted disk can be {failure:?}"),
            (Failure::Full, _) => self.fill(),
            (Failure::Hung, _) => run(Command::new("fsfreeze").arg("--freeze").arg(self.mount())),
        }
    }

    /// Ends a failure.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub fn mend(&self, failure: Failure) -> Result<()> {
        match (failure, self.means) {
            (Failure::ReadOnly, Means::Mounted) => self.remount("remount,rw"),
            (Failure::ReadOnly, Means::Marked) => self.mark("-i"),
            (_, Means::Marked) => bail!("only a mounted disk can have been {failure:?}"),
            (Failure::Full, _) => {
                fs::remove_file(self.filler()).context("remove what fills the disk")
            }
            (Failure::Hung, _) => run(Command::new("fsfreeze").arg("--unfreeze").arg(self.mount())),
        }
    }

    fn mark(&self, how: &str) -> Result<()> {
        run(Command::new("chattr").arg(how).arg(self.directory()))
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
        let mut last = None;
        let done = eventually(how, PATIENCE, || {
            match run(Command::new("mount").args(["-o", how]).arg(self.mount())) {
                Ok(()) => Some(()),
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        });
        done.map_err(|error| last.unwrap_or(error))
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
        if self.means == Means::Marked {
            // It may be unmarked already.
            let _ = self.mark("-i");
        }
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

    fn write(file: &Path) -> Result<(), ErrorKind> {
        fs::write(file, "x").map_err(|error| error.kind())
    }

    #[test]
    fn fails_in_every_way_that_is_possible_and_mends() {
        let disk = Disk::make("test").unwrap();
        let file = disk.directory().join("file");
        for failure in Disk::possible().unwrap().iter().filter(|way| **way != Failure::Hung) {
            disk.fail(*failure).unwrap();
            assert!(write(&file).is_err(), "{failure:?}");
            disk.mend(*failure).unwrap();
            write(&file).unwrap();
            fs::remove_file(&file).unwrap();
        }
        disk.fail(Failure::ReadOnly).unwrap();
        let (mount, root) = (disk.mount(), disk.dir.path().to_owned());
        drop(disk);
        assert!(!mounted(&mount) && !root.exists());
    }

    #[test]
    fn without_a_mount_it_still_refuses_changes() {
        let dir = scratch::directory("marked").unwrap();
        let disk = Disk { dir, means: Means::Marked };
        fs::create_dir_all(disk.directory()).unwrap();
        let (file, root) = (disk.directory().join("file"), disk.dir.path().to_owned());
        write(&file).unwrap();
        disk.fail(Failure::ReadOnly).unwrap();
        assert!(fs::remove_file(&file).is_err());
        assert!(disk.fail(Failure::Full).is_err());
        disk.mend(Failure::ReadOnly).unwrap();
        fs::remove_file(&file).unwrap();
        disk.fail(Failure::ReadOnly).unwrap();
        drop(disk);
        assert!(!root.exists());
    }

    #[test]
    fn hangs_whoever_writes_and_lets_go_on_drop() {
        let disk = Disk::make("test").unwrap();
        if disk.means == Means::Marked {
            return assert!(disk.fail(Failure::Hung).is_err());
        }
        let file = disk.directory().join("file");
        write(&file).unwrap();
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

//! The locks on the state directory: one pair of guard and daemon at a time.
//!
//! Guard and daemon hold a lock each. The kernel lets go of a lock when the last thread of its
//! process is gone, so holding one proves that every earlier holder is dead, which no process id
//! could. With two, a new guard that gets the first but not the second knows that an old guard's
//! daemon still lives.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The two locks, and who may hold them beside their namesakes.
const GUARD: &str = "guard";
const DAEMON: &str = "daemon";
const CLEANER: &str = "cleaner";

/// Why a lock on a state directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another pair is at work there.
    #[error(
        "the state directory {state_dir} is in use by {holder}: stop that one, or give this node a state directory of its own"
    )]
    Held {
        /// The state directory.
        state_dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Others than its user could put something there, machine code for example.
    #[error(
        "others may write to the state directory {state_dir} (mode {mode:o}): see that nobody has put anything there, then chmod 700 it"
    )]
    Exposed {
        /// The state directory.
        state_dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The lock file could not be made or read.
    #[error("cannot lock the state directory {state_dir}")]
    Io {
        /// The state directory.
        state_dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Who holds a lock, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holder {
    /// `guard`, `daemon` or `cleaner`.
    pub role: String,
    /// Its process id, in its own process namespace.
    pub pid: i32,
    /// When it started, in the kernel's ticks since the boot; tells it from a later process of the
    /// same id.
    pub started: u64,
    /// The boot that it runs in.
    pub boot_id: String,
}

impl Holder {
    fn this_process(role: &str) -> io::Result<Self> {
        let pid = std::process::id().try_into().map_err(io::Error::other)?;
        Ok(Holder { role: role.to_owned(), pid, started: started(pid)?, boot_id: boot_id()? })
    }

    /// Whether the process of this id is the holder, and not a later one.
    pub(crate) fn is_running(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && started(self.pid).is_ok_and(|started| started == self.started)
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => f.write_str("a process that has not said its id"),
            pid => write!(f, "the {} with process id {pid}", self.role),
        }
    }
}

/// A daemon's lock on its state directory. While it is held, no earlier daemon of this directory is
/// alive, on this machine.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock, for the rest of the process's life or until dropped. Makes the directory
    /// where it is missing.
    ///
    /// # Errors
    /// [`LockError::Held`] while another daemon lives, with who it is.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        Ok(DaemonLock { _file: acquire(state_dir, DAEMON, DAEMON)? })
    }

    /// As [`acquire`](Self::acquire), for a process that only cleans up.
    pub(crate) fn acquire_to_clean(state_dir: &Path) -> Result<Self, LockError> {
        Ok(DaemonLock { _file: acquire(state_dir, DAEMON, CLEANER)? })
    }

    /// Whether the daemon that wrote into this state directory, in the boot `boot_id`, is proven
    /// dead. The lock proves it for the present boot only: a state directory that was written in
    /// another boot may be a copy of a disk whose owner lives elsewhere.
    pub fn previous_daemon_dead(&self, boot_id: &str) -> bool {
        self::boot_id().is_ok_and(|present| present == boot_id)
    }

    /// Who holds a daemon's lock on `state_dir` now; `None` when nobody does.
    pub(crate) fn holder(state_dir: &Path) -> Result<Option<Holder>, LockError> {
        match lock(state_dir, DAEMON) {
            Ok(_dropped_at_once) => Ok(None),
            Err(LockError::Held { holder, .. }) => Ok(Some(holder)),
            Err(error) => Err(error),
        }
    }
}

/// A guard's lock on the state directory.
#[derive(Debug)]
pub(crate) struct GuardLock {
    file: File,
}

impl GuardLock {
    pub(crate) fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        Ok(GuardLock { file: acquire(state_dir, GUARD, GUARD)? })
    }

    /// As [`acquire`](Self::acquire), for a process that only cleans up.
    pub(crate) fn acquire_to_clean(state_dir: &Path) -> Result<Self, LockError> {
        Ok(GuardLock { file: acquire(state_dir, GUARD, CLEANER)? })
    }

    /// The lock that this process had before it executed another program. What its file says of
    /// the holder is still true.
    pub(crate) fn handed_over(file: OwnedFd) -> Self {
        GuardLock { file: file.into() }
    }
}

impl AsFd for GuardLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The machine's boot, as the kernel names it.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Takes the lock of that name and says in its file who has it.
fn acquire(state_dir: &Path, name: &str, role: &str) -> Result<File, LockError> {
    let mut file = lock(state_dir, name)?;
    let io = |source| LockError::Io { state_dir: state_dir.to_owned(), source };
    let holder = Holder::this_process(role).map_err(io)?;
    let text = serde_json::to_vec(&holder).map_err(|error| io(error.into()))?;
    file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    file.write_all(&text).map_err(io)?;
    Ok(file)
}

/// Takes a lock. Its file stays for ever: removing it would let two processes lock two files of
/// the same name.
fn lock(state_dir: &Path, name: &str) -> Result<File, LockError> {
    let io = |source| LockError::Io { state_dir: state_dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(io)?;
    let mode = fs::metadata(state_dir).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(LockError::Exposed { state_dir: state_dir.to_owned(), mode });
    }
    let path = state_dir.join(format!("{name}.lock"));
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            // It may be writing this very moment; then it is not known yet who it is.
            let mut text = String::new();
            let read = file.read_to_string(&mut text).ok();
            let holder = read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
            Err(LockError::Held { state_dir: state_dir.to_owned(), holder })
        }
        Err(error) => Err(io(error.into())),
    }
}

/// When a process started, in ticks since the boot: field 22 of `/proc/<pid>/stat`.
fn started(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name, in parentheses, may itself contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let started = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    started.ok_or_else(|| io::Error::other("the kernel's process status has an unknown form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_name_until_the_first_lets_go() {
        let state = tempfile::tempdir().unwrap();
        let first = DaemonLock::acquire(state.path()).unwrap();
        let refused = DaemonLock::acquire(state.path()).unwrap_err();
        let LockError::Held { holder, .. } = &refused else { panic!("{refused}") };
        assert_eq!(holder.pid, i32::try_from(std::process::id()).unwrap());
        assert!(holder.is_running());
        assert!(refused.to_string().contains(&format!("process id {}", holder.pid)), "{refused}");
        assert!(!Holder { started: holder.started + 1, ..holder.clone() }.is_running());
        drop(first);
        assert_eq!(DaemonLock::holder(state.path()).unwrap(), None);
        DaemonLock::acquire(state.path()).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let state = tempfile::tempdir().unwrap();
        for (mode, refused) in [(0o700, false), (0o755, false), (0o775, true), (0o777, true)] {
            fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).unwrap();
            let locked = GuardLock::acquire(state.path());
            let exposed = matches!(locked, Err(LockError::Exposed { .. }));
            assert_eq!(exposed, refused, "{mode:o}");
        }
    }

    #[test]
    fn guard_and_daemon_do_not_exclude_each_other() {
        let state = tempfile::tempdir().unwrap();
        let _guard = GuardLock::acquire(state.path()).unwrap();
        let daemon = DaemonLock::acquire(state.path()).unwrap();
        assert!(daemon.previous_daemon_dead(&boot_id().unwrap()));
        assert!(!daemon.previous_daemon_dead("another boot"));
    }
}

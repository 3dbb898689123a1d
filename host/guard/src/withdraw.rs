//! Withdrawing one exclusive effect, by the guard.
//!
//! Runs at the deadline, so it allocates nothing, takes no lock and trusts nothing but the slot.
//! Withdrawing is idempotent: the daemon may be doing the same, and what is gone is gone.

use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;

use rustix::fs::{Mode, OFlags, fsync, lstat, open, rename, unlink};
use rustix::io::{Errno, Result, retry_on_intr};

use crate::layout::{PATH_LEN, Paths, Slot};
use crate::processes::{end_cgroup, end_group};
use crate::slot::Kind;

/// Room for the paths of one slot, made before it is needed.
pub(crate) struct Buffers {
    dest: [u8; PATH_LEN],
    staged: [u8; PATH_LEN],
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Buffers { dest: [0; PATH_LEN], staged: [0; PATH_LEN] }
    }
}

/// Withdraws the effect of a pinned slot; with `sync`, so that it stays away after a power loss.
pub(crate) fn withdraw(
    slot: &Slot,
    paths: &Paths,
    buffers: &mut Buffers,
    sync: bool,
) -> Result<()> {
    paths.dest.load(&mut buffers.dest);
    paths.staged.load(&mut buffers.staged);
    let (dest, staged) = (path(&buffers.dest)?, path(&buffers.staged)?);
    match slot.kind() {
        Kind::Manifest => {
            // In this order: a rename in flight either comes first, and its result goes with the
            // destination, or finds nothing to rename.
            let unstaged = remove(staged);
            remove(dest).and(unstaged)?;
        }
        Kind::RoleFile => reset(slot, dest, staged)?,
        // What has ended stays away without a sync.
        Kind::ControlGroup => return end_cgroup(dest, staged),
        Kind::ProcessGroup => return end_group(dest),
    }
    if sync { sync_directory(&mut buffers.dest) } else { Ok(()) }
}

/// Puts the staged standby role file in place. The second time there is none left: then what is
/// in place must be the first one, or goes.
fn reset(slot: &Slot, dest: &CStr, staged: &CStr) -> Result<()> {
    let standby = lstat(staged).map(|stat| stat.st_ino);
    if let Ok(inode) = standby
        && retry_on_intr(|| rename(staged, dest)).is_ok()
    {
        slot.reset_inode.store(inode, SeqCst);
        return Ok(());
    }
    let reset = slot.reset_inode.load(SeqCst);
    match lstat(dest) {
        Ok(stat) if stat.st_ino == reset && reset != 0 => Ok(()),
        _ => remove(dest),
    }
}

/// Unlinks a file; that it is not there, or not a file, is as good.
fn remove(path: &CStr) -> Result<()> {
    match retry_on_intr(|| unlink(path)) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
        outcome => outcome,
    }
}

/// Syncs the directory of a path, which is cut off at its last slash for that.
fn sync_directory(dest: &mut [u8; PATH_LEN]) -> Result<()> {
    let end = dest.iter().position(|&byte| byte == 0).unwrap_or(0);
    let slash = dest[..end].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    dest[slash.max(1)] = 0;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match retry_on_intr(|| open(path(dest)?, flags, Mode::empty())) {
        // The directory is gone, and the file with it.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        opened => opened?,
    };
    match retry_on_intr(|| fsync(&directory)) {
        // This file system has nothing to sync.
        Err(Errno::INVAL) => Ok(()),
        outcome => outcome,
    }
}

fn path(bytes: &[u8; PATH_LEN]) -> Result<&CStr> {
    CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::NAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::MaybeUninit;
    use std::time::Duration;

    use conclave_core::{SessionId, Token};
    use rustix::fs::inotify;

    use super::*;
    use crate::clock::Reading;
    use crate::page::tests::page;
    use crate::session::SessionWriter;

    #[test]
    fn what_is_staged_goes_before_the_destination() {
        let (_page, page) = page(1);
        let mut session = SessionWriter::new(page, None);
        let deadline = Reading::now().after(Duration::from_secs(3_600));
        session.begin(SessionId(1), deadline, Duration::ZERO).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let [dest, staged] = ["dest", "staged"].map(|name| directory.path().join(name));
        page.claim(Kind::Manifest, Token(1), &dest, &staged).unwrap();
        fs::write(&dest, "").unwrap();
        fs::write(&staged, "").unwrap();
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).unwrap();
        inotify::add_watch(&watch, directory.path(), inotify::WatchFlags::DELETE).unwrap();

        withdraw(&page.slots()[0], page.paths(0), &mut Buffers::new(), true).unwrap();

        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        for expected in [c"staged", c"dest"] {
            assert_eq!(events.next().unwrap().file_name(), Some(expected));
        }
    }
}

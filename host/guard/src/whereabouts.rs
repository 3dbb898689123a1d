//! Where pages lie, and which of them nobody will ever come back to.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use crate::error::PageError;
use crate::layout::{MAGIC, PATH_LEN, STATE_DIR_OFFSET, VERSION};
use crate::page::lock;

/// Where pages may lie.
const RUN: &str = "/run/conclave";
const SHM: &str = "/dev/shm";

/// What the names of page files begin and end with.
const PREFIX: &str = "conclave-";
const SUFFIX: &str = ".page";

/// Where the page of a state directory lies: on tmpfs, under a name that any guard of that
/// directory finds again, where it was left, even if this one may write elsewhere. The directory
/// must be spelled canonically.
pub(crate) fn page_path(state_dir: &Path) -> Result<PathBuf, PageError> {
    let digest = Sha256::digest(state_dir.as_os_str().as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{PREFIX}{hex}{SUFFIX}");
    // In the one for everybody, others may put what they like.
    let ours = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw())
    };
    match [RUN, SHM].map(|directory| Path::new(directory).join(&name)).into_iter().find(ours) {
        Some(left) => Ok(left),
        None => Ok(memory_directory()?.join(name)),
    }
}

/// Removes the pages beside `page` whose guard is dead and whose state directory no longer exists:
/// nobody would ever come back to them.
pub(crate) fn sweep(page: &Path) -> io::Result<()> {
    let Some(directory) = page.parent() else { return Ok(()) };
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_bytes();
        if name.starts_with(PREFIX.as_bytes())
            && name.ends_with(SUFFIX.as_bytes())
            && is_abandoned(&entry.path()).unwrap_or(false)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_abandoned(page: &Path) -> io::Result<bool> {
    let file = fs::File::open(page)?;
    let mut head = [0; 16];
    file.read_exact_at(&mut head, 0)?;
    if head[..8] != MAGIC.to_ne_bytes() || head[8..] != VERSION.to_ne_bytes() {
        return Ok(false);
    }
    let mut path = [0; PATH_LEN];
    file.read_exact_at(&mut path, STATE_DIR_OFFSET.try_into().unwrap_or(u64::MAX))?;
    let len = path.iter().position(|&byte| byte == 0).unwrap_or(0);
    // One that is not noted down, or not yet, is never swept. The lock is only tried where it
    // cannot be in a living guard's way.
    Ok(len > 0 && !Path::new(OsStr::from_bytes(&path[..len])).try_exists()? && lock(page).is_ok())
}

/// A directory on tmpfs for pages.
fn memory_directory() -> Result<PathBuf, PageError> {
    let mut tried = Vec::new();
    match private_run() {
        Ok(()) => return Ok(RUN.into()),
        Err(error) => tried.push(format!("{RUN} ({error})")),
    }
    match usable(SHM) {
        Ok(()) => return Ok(SHM.into()),
        Err(error) => tried.push(format!("{SHM} ({error})")),
    }
    Err(PageError::NoTmpfs { tried: tried.join(", ") })
}

/// A service manager may have made it, where nothing else of `/run` is ours to write to.
fn private_run() -> io::Result<()> {
    if !Path::new(RUN).try_exists()? {
        usable("/run")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(RUN)?;
    }
    usable(RUN)
}

fn usable(directory: &str) -> io::Result<()> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let kind = statfs(directory)?.f_type;
    if kind != TMPFS && kind != RAMFS {
        return Err(io::Error::other("not in memory"));
    }
    Ok(rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Rhythm;
    use crate::page::PageFile;

    #[test]
    fn only_pages_without_guard_and_state_directory_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(format!("conclave-{name}.page"));
        let make = |name: &str, state_dir: &Path| {
            let file = PageFile::create(&at(name), 1).unwrap();
            file.page.take_over(7, Rhythm::default(), state_dir);
            file
        };
        let gone = Path::new("/nowhere/at/all");
        drop(make("abandoned", gone));
        drop(make("waiting", directory.path()));
        let _guard = make("running", gone);
        fs::write(at("garbage"), "not a page").unwrap();
        drop(PageFile::create(&directory.path().join("another.page"), 1).unwrap());
        sweep(&at("mine")).unwrap();
        assert!(!at("abandoned").exists());
        for name in ["waiting", "running", "garbage"] {
            assert!(at(name).exists(), "{name}");
        }
        assert!(directory.path().join("another.page").exists());
    }
}

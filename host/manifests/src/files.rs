//! File operations, each of which either happens or says what failed and where.
//!
//! Nothing here follows a symbolic link at a destination, opens a pipe, or leaves a file
//! half-written under a name that anybody reads.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};

use crate::error::{FileError, phrase};

/// The directory for staging, inside each destination directory: the same file system, and a dot
/// name that no kubelet reads.
pub(crate) const STAGING: &str = ".conclave";

/// How the names of what waits for a term in the staging directory end.
const PREPARED: &str = "prepared";

/// A file to put in place, and the names beside it that belong to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    path: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Target {
    /// `None` when `path` does not name a file in a directory, or is not UTF-8 text, which the
    /// ledger could not hold.
    pub(crate) fn new(path: &Path) -> Option<Target> {
        let path = std::path::absolute(path).ok()?;
        path.to_str()?;
        let dir = path.parent()?.to_owned();
        let name = path.file_name()?.to_str()?.to_owned();
        Some(Target { path, dir, name })
    }

    /// The destination.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its next content is staged.
    pub(crate) fn staged(&self) -> PathBuf {
        self.beside("staged")
    }

    /// Where content waits that was made ready for a term which may begin.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.beside(PREPARED)
    }

    /// Where the file that says `standby` waits while a role file says `leader`.
    pub(crate) fn standby(&self) -> PathBuf {
        self.beside("standby")
    }

    /// Its name in its directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// In the staging directory, under its name and what it is.
    pub(crate) fn beside(&self, what: &str) -> PathBuf {
        self.dir.join(STAGING).join(format!("{}.{what}", self.name))
    }
}

/// Tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    dev: u64,
    ino: u64,
    links: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(crate) fn of(meta: &fs::Metadata) -> Fingerprint {
        Fingerprint {
            dev: meta.dev(),
            ino: meta.ino(),
            links: meta.nlink(),
            size: meta.size(),
            mode: meta.mode(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// The permission bits.
    pub(crate) fn mode(&self) -> u32 {
        self.mode & 0o777
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file has no other name.
    pub(crate) fn is_alone(&self) -> bool {
        self.links == 1
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, or the directory is not there either.
    Nothing,
    /// A regular file.
    File(Fingerprint),
    /// A directory: no manifest to any kubelet, and never touched.
    Directory,
    /// A symbolic link, a pipe, a socket or a device, in words.
    Other(&'static str),
}

/// Looks at a path without following a link.
pub(crate) fn inspect(path: &Path) -> Result<Found, FileError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Found::File(Fingerprint::of(&meta))),
        Ok(meta) if meta.is_dir() => Ok(Found::Directory),
        Ok(meta) if meta.is_symlink() => Ok(Found::Other("a symbolic link")),
        Ok(_) => Ok(Found::Other("a special file")),
        Err(error) if is_absent(&error) => Ok(Found::Nothing),
        Err(error) => Err(FileError::of("look at", path)(error)),
    }
}

/// Reads at most `limit` bytes of a regular file at a destination, with its state from before the
/// reading: whoever changes it later also changes its state.
pub(crate) fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Fingerprint), FileError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(FileError::of("open", path))?;
    let meta = file.metadata().map_err(FileError::of("look at", path))?;
    // Room for all of it and the end, found by one more reading.
    let room = usize::try_from(meta.len().min(limit)).unwrap_or(0) + 32;
    let mut bytes = Vec::with_capacity(room);
    (&file).take(limit).read_to_end(&mut bytes).map_err(FileError::of("read", path))?;
    Ok((bytes, Fingerprint::of(&meta)))
}

/// Writes and syncs a file in the staging directory, replacing what is left from before.
pub(crate) fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    write_new(path, bytes, mode)
        .and_then(|file| file.sync_all().map_err(FileError::of("sync", path)))
        .inspect_err(|_| {
            // What could not be written whole is of no use; the error is the news.
            let _ = fs::remove_file(path);
        })
}

/// Removes what an earlier daemon made ready and did not use. What another daemon that uses the
/// same directory has just made ready may go too; then it makes it again.
pub(crate) fn sweep_prepared(dir: &Path) {
    let Some(Ok(entries)) = staging(dir).map(fs::read_dir) else { return };
    let paths = entries.flatten().map(|entry| entry.path());
    for path in paths.filter(|path| path.extension().is_some_and(|end| end == PREPARED)) {
        if let Err(error) = remove(&path) {
            tracing::warn!(error = phrase(&error), "a prepared file stays behind");
        }
    }
}

/// The staging directory, if it is there and is one: no link is followed.
pub(crate) fn staging(dir: &Path) -> Option<PathBuf> {
    let staging = dir.join(STAGING);
    matches!(inspect(&staging), Ok(Found::Directory)).then_some(staging)
}

/// Removes what is staged. It is no effect yet: that it cannot be removed is no reason to stop.
pub(crate) fn clear_staged(target: &Target) {
    if staging(target.dir()).is_some()
        && let Err(error) = remove(&target.staged())
    {
        tracing::warn!(error = phrase(&error), "a staged file stays behind");
    }
}

/// Creates a file that was not there a moment ago: no link is followed, no open file shared.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<File, FileError> {
    remove(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(FileError::of("create", path))?;
    file.write_all(bytes).map_err(FileError::of("write", path))?;
    file.set_permissions(Permissions::from_mode(mode & 0o777))
        .map_err(FileError::of("set the mode of", path))?;
    Ok(file)
}

/// Makes sure that a destination directory can be written now, by writing as much as the next
/// manifest may need. Creates the staging directory, but never the destination directory.
pub(crate) fn probe(dir: &Path, name: &str, bytes: usize) -> Result<(), FileError> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(FileError::of("use the destination directory", dir)(error));
        }
        Err(error) => return Err(FileError::of("use the destination directory", dir)(error)),
    }
    create_staging(dir)?;
    // Permissions, marks and mounts can forbid new names here and allow them in there.
    accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|error| FileError::of("use the destination directory", dir)(error.into()))?;
    let path = dir.join(STAGING).join(name);
    let written = write_new(&path, &vec![b'#'; bytes], 0o600);
    remove(&path)?;
    written.map(drop)
}

/// Creates `.conclave/`, for its owner only.
pub(crate) fn create_staging(dir: &Path) -> Result<(), FileError> {
    let staging = dir.join(STAGING);
    match DirBuilder::new().mode(0o700).create(&staging) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if inspect(&staging)? == Found::Directory {
                return Ok(());
            }
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            Err(FileError::of("use the staging directory", &staging)(error))
        }
        other => other.map_err(FileError::of("create the staging directory", &staging)),
    }
}

/// Renames within a directory tree.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::of("put in place", to))
}

/// Removes a file or link; that there is none is fine, and a read-only file system does not say so.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) && !matches!(inspect(path), Ok(Found::Nothing)) => {
            Err(FileError::of("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes renames and removals in a directory survive a power loss. File systems that cannot sync a
/// directory are taken at their word that they need not.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput || is_absent(&error) => Ok(()),
        other => other.map_err(FileError::of("sync the directory", dir)),
    }
}

/// Replaces a file of the state directory as a whole, durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let next = path.with_extension("next");
    stage(&next, bytes, 0o600)?;
    rename(&next, path)?;
    sync_dir(dir)
}

/// Milliseconds since 1970, for names that people read; no decision depends on it.
pub(crate) fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// Whether the path leads to no file: it, or a directory on the way, does not exist.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

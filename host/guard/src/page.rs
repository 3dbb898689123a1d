//! The shared page: the file on tmpfs that guard and daemon both map.
//!
//! The guard creates it and is the only one to do so, under its lock on the state directory; its
//! daemon finds it through the environment. What is on it outlives either process, but not the
//! boot.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, getppid};

use crate::clock::Reading;
use crate::error::PageError;
use crate::heartbeat::{GuardWatch, Rhythm};
use crate::layout::{
    Header, Layout, MAGIC, PATH_LEN, Paths, Slot, VERSION, file_len, map, reserve_head,
};
use crate::lock::{DaemonLock, boot_id};
use crate::session::SessionWriter;

/// How many exclusive files one node has in place at once, unless the guard is told otherwise.
pub const DEFAULT_SLOTS: usize = 256;

/// The most slots that a page may have: half a gigabyte of paths.
const MAX_SLOTS: usize = 65_536;

const ENV_PAGE: &str = "CONCLAVE_PAGE";
const ENV_PID: &str = "CONCLAVE_GUARD_PID";
const ENV_NONCE: &str = "CONCLAVE_GUARD_NONCE";

/// The mapped page. Copies are the same page.
#[derive(Clone, Copy)]
pub struct Page {
    layout: Layout,
}

/// What a daemon that runs under a guard has of it.
#[derive(Debug)]
pub struct Attached {
    /// The page, for claims and heartbeats.
    pub page: Page,
    /// The session's deadline, for the one owner of the session.
    pub session: SessionWriter,
    /// Tells whether the guard is still there.
    pub guard: GuardWatch,
}

impl Page {
    /// Attaches a daemon to the page of the guard that started it; `None` when none did.
    ///
    /// The lock must be held already: a guard that takes over names itself on the page and only
    /// then looks at the lock, so that an old guard's daemon that starts late is noticed by one of
    /// the two.
    ///
    /// # Errors
    /// [`PageError::GuardGone`] when the guard has died meanwhile, [`PageError::Environment`] when
    /// its variables are incomplete, and others when its page is not usable.
    pub fn attach_from_env(_lock: &DaemonLock) -> Result<Option<Attached>, PageError> {
        let Some(path) = env::var_os(ENV_PAGE).map(PathBuf::from) else { return Ok(None) };
        let number = |variable: &'static str| {
            let text = env::var(variable).ok();
            let number = text.and_then(|text| text.parse::<u64>().ok());
            number.ok_or(PageError::Environment { variable })
        };
        let (nonce, pid) = (number(ENV_NONCE)?, number(ENV_PID)?);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(PageError::Environment { variable: ENV_PID })?;

        let page = PageFile::open(&path)?;
        let io = |source: Errno| PageError::Io { path: path.clone(), source: source.into() };
        let guard = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(PageError::GuardGone),
            opened => Arc::new(opened.map_err(io)?),
        };
        // Once it is our parent after opening, it was our parent, and no other, while opening.
        if getppid() != Some(pid) || page.header().guard_nonce.load(SeqCst) != nonce {
            return Err(PageError::GuardGone);
        }
        page.beat(Reading::now());
        Ok(Some(Attached {
            page,
            session: SessionWriter::new(page, Some(Arc::clone(&guard))),
            guard: GuardWatch::new(page, guard),
        }))
    }

    /// Shows the guard that the daemon is alive: called from the daemon's main loop at least once
    /// every [`beat_period`](Self::beat_period), with the present.
    pub fn beat(&self, now: Reading) {
        let header = self.header();
        header.daemon_beat_ns.store(now.boot_ns, SeqCst);
        header.daemon_beats.fetch_add(1, SeqCst);
    }

    /// Shows the guard that the daemon has started, and now does what it is there for.
    pub fn show_ready(&self) {
        self.header().daemon_ready.store(1, SeqCst);
    }

    /// Whether the daemon has shown itself ready since the guard last started one.
    pub(crate) fn is_daemon_ready(&self) -> bool {
        self.header().daemon_ready.load(SeqCst) != 0
    }

    /// A daemon is about to be started.
    pub(crate) fn forget_ready(&self) {
        self.header().daemon_ready.store(0, SeqCst);
    }

    /// How often guard and daemon beat on the page.
    pub fn beat_period(&self) -> Duration {
        self.rhythm().period
    }

    /// How many exclusive effects the page can hold at once.
    pub fn capacity(&self) -> usize {
        self.layout.slots.len()
    }

    /// The process id of the guard.
    pub fn guard_pid(&self) -> u64 {
        self.header().guard_pid.load(SeqCst)
    }

    /// When the guard last beat, in nanoseconds of `CLOCK_BOOTTIME`; for people.
    pub fn guard_beat_ns(&self) -> u64 {
        self.header().guard_beat_ns.load(SeqCst)
    }

    pub(crate) fn beat_as_guard(&self, now: Reading) {
        let header = self.header();
        header.guard_beat_ns.store(now.boot_ns, SeqCst);
        header.guard_beats.fetch_add(1, SeqCst);
    }

    /// How often the daemon has beaten, whichever it was.
    pub(crate) fn daemon_beats(&self) -> u64 {
        self.header().daemon_beats.load(SeqCst)
    }

    pub(crate) fn rhythm(&self) -> Rhythm {
        let header = self.header();
        Rhythm {
            period: Duration::from_nanos(header.beat_period_ns.load(SeqCst)),
            stale_after: Duration::from_nanos(header.stale_after_ns.load(SeqCst)),
        }
    }

    /// Makes the page a new guard's. What the old one's daemon has on it stays until that daemon
    /// is known to be dead.
    pub(crate) fn take_over(&self, nonce: u64, rhythm: Rhythm, state_dir: &Path) {
        let header = self.header();
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let state_dir = state_dir.as_os_str().as_bytes();
        header.state_dir.store(if state_dir.len() < PATH_LEN { state_dir } else { b"" });
        header.guard_nonce.store(nonce, SeqCst);
        header.guard_pid.store(std::process::id().into(), SeqCst);
        header.beat_period_ns.store(nanos(rhythm.period), SeqCst);
        header.stale_after_ns.store(nanos(rhythm.stale_after), SeqCst);
    }

    pub(crate) fn header(&self) -> &'static Header {
        self.layout.header
    }

    pub(crate) fn slots(&self) -> &'static [Slot] {
        self.layout.slots
    }

    /// Makes room for the paths of a slot.
    pub(crate) fn reserve_paths(&self, index: usize) -> Result<(), PageError> {
        self.layout.reserve_paths(index).map_err(|error| PageError::NoRoom { source: error.into() })
    }

    /// The paths of a slot of that index.
    pub(crate) fn paths(&self, index: usize) -> &'static Paths {
        &self.layout.paths[index]
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page")
            .field("guard_pid", &self.guard_pid())
            .field("session", &self.session())
            .field("claimed", &self.claimed())
            .finish_non_exhaustive()
    }
}

/// The page with its file, as the guard holds it: locked, so that no other guard uses the same
/// file, were it to come by the same name.
#[derive(Debug)]
pub(crate) struct PageFile {
    pub(crate) page: Page,
    path: PathBuf,
    locked: OwnedFd,
}

impl PageFile {
    /// Opens the page that an earlier guard of this boot left at `path`, or makes a new one.
    pub(crate) fn open_or_create(path: &Path, slots: usize) -> Result<Self, PageError> {
        match PageFile::open_existing(path) {
            Ok(file) => Ok(file),
            Err(PageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                PageFile::create(path, slots)
            }
            // Another version's, or another boot's: nothing on it can be read.
            Err(PageError::Foreign { .. }) => {
                fs::remove_file(path).map_err(|source| io_error(path, source))?;
                PageFile::create(path, slots)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the page that an earlier guard of this boot left at `path`.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, PageError> {
        let page = PageFile::open(path)?;
        let file = PageFile { page, path: path.to_owned(), locked: lock(path)? };
        page.unpin_all();
        Ok(file)
    }

    /// Makes a new page in place of this one, if that is not of the wished size.
    pub(crate) fn resized(self, slots: usize) -> Result<Self, PageError> {
        if self.page.capacity() == slots || self.page.claimed() > 0 {
            return Ok(self);
        }
        let path = self.path.clone();
        self.remove()?;
        PageFile::create(&path, slots)
    }

    /// Removes the file; the mapping stays.
    pub(crate) fn remove(self) -> Result<(), PageError> {
        fs::remove_file(&self.path).map_err(|source| io_error(&self.path, source))
    }

    /// What the daemon needs in its environment to find the page.
    pub(crate) fn environment(&self) -> [(&'static str, std::ffi::OsString); 3] {
        let header = self.page.header();
        [
            (ENV_PAGE, self.path.clone().into_os_string()),
            (ENV_PID, self.page.guard_pid().to_string().into()),
            (ENV_NONCE, header.guard_nonce.load(SeqCst).to_string().into()),
        ]
    }

    pub(crate) fn create(path: &Path, slots: usize) -> Result<Self, PageError> {
        let slots = slots.clamp(1, MAX_SLOTS);
        let errno = |source: Errno| io_error(path, source.into());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(errno)?;
        let locked = lock(path)?;
        let len = u64::try_from(file_len(slots)).unwrap_or(u64::MAX);
        rustix::fs::ftruncate(&file, len).map_err(errno)?;
        reserve_head(&file, slots).map_err(errno)?;
        let page = Page { layout: map(file, slots).map_err(errno)? };
        let header = page.header();
        header.version.store(VERSION, SeqCst);
        header.slots.store(u64::try_from(slots).unwrap_or(u64::MAX), SeqCst);
        for (word, half) in header.boot_id.iter().zip(boot_words(path)?) {
            word.store(half, SeqCst);
        }
        header.magic.store(MAGIC, SeqCst);
        Ok(PageFile { page, path: path.to_owned(), locked })
    }

    /// The page that this process had, with its lock, before it executed another program.
    pub(crate) fn handed_over(
        path: PathBuf,
        file: OwnedFd,
        locked: OwnedFd,
    ) -> Result<Self, PageError> {
        let page = PageFile::map(&path, file)?;
        if page.guard_pid() != u64::from(std::process::id()) {
            return Err(PageError::Foreign { path, reason: "it is another guard's" });
        }
        // No thread of the old program is left that could be at one.
        page.unpin_all();
        Ok(PageFile { page, path, locked })
    }

    /// The page's file and its lock, for the program that this process is about to execute.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.page.layout.file.as_fd(), self.locked.as_fd()]
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens and maps a page, once it is known to be one.
    fn open(path: &Path) -> Result<Page, PageError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::empty());
        PageFile::map(path, file.map_err(|source| io_error(path, source.into()))?)
    }

    /// Maps an open page, once it is known to be one.
    fn map(path: &Path, file: OwnedFd) -> Result<Page, PageError> {
        let errno = |source: Errno| io_error(path, source.into());
        let foreign = |reason| PageError::Foreign { path: path.to_owned(), reason };
        let stat = fstat(&file).map_err(errno)?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(io_error(path, io::ErrorKind::PermissionDenied.into()));
        }
        let mut head = [0; 40];
        let read = rustix::io::pread(&file, &mut head, 0).map_err(errno)?;
        let word = |i: usize| {
            let bytes = head[i * 8..][..8].try_into().unwrap_or_default();
            u64::from_ne_bytes(bytes)
        };
        if read < head.len() || word(0) != MAGIC {
            return Err(foreign("it does not begin like one"));
        }
        if word(1) != VERSION {
            return Err(foreign("its layout is another version's"));
        }
        if [word(3), word(4)] != boot_words(path)? {
            return Err(foreign("it is from another boot"));
        }
        let slots = usize::try_from(word(2)).unwrap_or(usize::MAX);
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        if !(1..=MAX_SLOTS).contains(&slots) || u64::try_from(file_len(slots)) != Ok(len) {
            return Err(foreign("its size is wrong"));
        }
        Ok(Page { layout: map(file, slots).map_err(errno)? })
    }
}

/// Locks the page's file, through a descriptor of its own: a mapping would keep the lock of the
/// descriptor that it was made from for as long as the process lives.
pub(crate) fn lock(path: &Path) -> Result<OwnedFd, PageError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let locked = rustix::fs::open(path, flags, Mode::empty())
        .and_then(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file));
    match locked {
        Err(Errno::WOULDBLOCK) => Err(PageError::InUse { path: path.to_owned() }),
        locked => locked.map_err(|error| io_error(path, error.into())),
    }
}

fn boot_words(path: &Path) -> Result<[u64; 2], PageError> {
    let text = boot_id().map_err(|source| io_error(path, source))?.replace('-', "");
    let id = u128::from_str_radix(&text, 16).unwrap_or_default();
    let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).unwrap_or_default();
    Ok([half(id >> 64), half(id)])
}

fn io_error(path: &Path, source: io::Error) -> PageError {
    PageError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A page of its own for a test.
    pub(crate) fn page(slots: usize) -> (tempfile::TempDir, Page) {
        let directory = tempfile::tempdir().unwrap();
        let file = PageFile::create(&directory.path().join("page"), slots).unwrap();
        (directory, file.page)
    }

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("page")
    }

    #[test]
    fn a_page_is_found_again_and_excludes_a_second_guard() {
        let directory = tempfile::tempdir().unwrap();
        let first = PageFile::open_or_create(&path(&directory), 3).unwrap();
        first.page.take_over(7, Rhythm::default(), Path::new("/"));
        let second = PageFile::open_or_create(&path(&directory), 3);
        assert!(matches!(second, Err(PageError::InUse { .. })), "{second:?}");
        drop(first);
        let third = PageFile::open_or_create(&path(&directory), 5).unwrap();
        assert_eq!(third.page.capacity(), 3);
        assert_eq!(third.page.header().guard_nonce.load(SeqCst), 7);
        assert_eq!(third.resized(5).unwrap().page.capacity(), 5);
    }

    #[test]
    fn what_is_no_page_of_this_boot_is_replaced() {
        for spoil in [
            |bytes: &mut Vec<u8>| bytes.clear(),
            |bytes: &mut Vec<u8>| bytes[0] ^= 1,
            |bytes: &mut Vec<u8>| bytes[8] ^= 1,
            |bytes: &mut Vec<u8>| bytes[16] ^= 1,
            |bytes: &mut Vec<u8>| bytes[24] ^= 1,
            |bytes: &mut Vec<u8>| bytes.truncate(5_000),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let old = PageFile::open_or_create(&path(&directory), 3).unwrap();
            old.page.take_over(7, Rhythm::default(), Path::new("/"));
            let mut bytes = fs::read(path(&directory)).unwrap();
            drop(old);
            spoil(&mut bytes);
            // Another file in its place: the mapping of the old one must keep its length.
            fs::remove_file(path(&directory)).unwrap();
            fs::write(path(&directory), bytes).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(path(&directory), private).unwrap();
            assert!(matches!(PageFile::open(&path(&directory)), Err(PageError::Foreign { .. })));
            let new = PageFile::open_or_create(&path(&directory), 3).unwrap();
            assert_eq!(new.page.header().guard_nonce.load(SeqCst), 0);
        }
    }

    #[test]
    fn a_page_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(PageFile::open_or_create(&path(&directory), 3).unwrap());
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(path(&directory), open).unwrap();
        let refused = PageFile::open_or_create(&path(&directory), 3);
        assert!(matches!(refused, Err(PageError::Io { .. })), "{refused:?}");
    }
}

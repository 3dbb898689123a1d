//! One inotify instance for all threads: each registers the directories that it cares about, and
//! a thread that touches no disk passes the events on.
//!
//! inotify is a hint. It knows nothing of network file systems, its queue overflows, and watches
//! run out; so everybody also looks again periodically, and here nothing fails for good.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::ManifestsError;

/// A change in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The directory, as it was registered; without one, any: events were lost.
    pub(crate) dir: Option<Arc<Path>>,
    /// What changed in it; without a name, the directory itself, or any part of it.
    pub(crate) name: Option<OsString>,
    /// Whether it was moved there, and so is whole; otherwise somebody may be writing it.
    pub(crate) moved: bool,
}

/// Receives the changes of one directory.
pub(crate) type Listener = Box<dyn Fn(Change) + Send>;

/// Not `CREATE` and `MODIFY`: a file is of interest when its writer is done with it. A link that is
/// created is found by the next rescan.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The shared inotify instance. Its thread ends when it is dropped.
pub(crate) struct Watcher {
    shared: Option<Arc<Shared>>,
}

/// By inotify's watch: the directory as it was registered, the owner, and whom to tell.
type Listeners = HashMap<i32, Vec<(Arc<Path>, u64, Listener)>>;

struct Shared {
    inotify: OwnedFd,
    stop: OwnedFd,
    listeners: Mutex<Listeners>,
}

impl Watcher {
    /// Starts watching. Where inotify is not to be had, says so once and leaves it to rescans.
    pub(crate) fn start() -> Result<Watcher, ManifestsError> {
        let fds = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .and_then(|inotify| Ok((inotify, eventfd(0, EventfdFlags::CLOEXEC)?)));
        let (inotify, stop) = match fds {
            Ok(fds) => fds,
            Err(error) => {
                tracing::warn!(%error, "inotify is not available, changes are found by rescans only");
                return Ok(Watcher { shared: None });
            }
        };
        let shared = Arc::new(Shared { inotify, stop, listeners: Mutex::default() });
        let name = "manifests-watch".to_owned();
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || theirs.run())
            .map_err(|source| ManifestsError::Thread { name, source })?;
        Ok(Watcher { shared: Some(shared) })
    }

    /// Watches a directory on behalf of `owner`; registering it again costs a system call and
    /// follows a directory that was replaced. A directory that cannot be watched is left to rescans.
    pub(crate) fn watch(&self, dir: &Arc<Path>, owner: u64, listener: impl FnOnce() -> Listener) {
        let Some(shared) = &self.shared else { return };
        match inotify::add_watch(&shared.inotify, &**dir, EVENTS) {
            Ok(id) => {
                let mut listeners = shared.lock();
                let there = listeners.entry(id).or_default();
                if !there.iter().any(|(path, who, _)| path == dir && *who == owner) {
                    there.push((Arc::clone(dir), owner, listener()));
                }
            }
            // Its absence is reported by whoever needs it.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => {
                tracing::debug!(dir = %dir.display(), %error, "cannot watch, left to rescans");
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            // Adding one to an eventfd's counter of zero cannot fail.
            let _ = rustix::io::write(&shared.stop, &1u64.to_ne_bytes());
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut fds =
                [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "watching failed, changes are found by rescans only");
                    return;
                }
            }
            let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
            while let Ok(event) = reader.next() {
                self.pass_on(event.wd(), event.events(), event.file_name());
            }
        }
    }

    fn pass_on(&self, id: i32, events: ReadFlags, name: Option<&CStr>) {
        let mut listeners = self.lock();
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            tracing::info!("inotify events were lost, looking at everything again");
            for (_, _, listener) in listeners.values().flatten() {
                listener(Change { dir: None, name: None, moved: false });
            }
            return;
        }
        let name = name.map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
        for (dir, _, listener) in listeners.get(&id).into_iter().flatten() {
            let moved = events.contains(ReadFlags::MOVED_TO);
            listener(Change { dir: Some(Arc::clone(dir)), name: name.clone(), moved });
        }
        if events.contains(ReadFlags::IGNORED) {
            listeners.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    fn listen(watcher: &Watcher, dir: &Path) -> Receiver<Change> {
        let (sender, receiver) = channel();
        watcher.watch(&Arc::from(dir), 1, || Box::new(move |change| drop(sender.send(change))));
        receiver
    }

    fn next(changes: &Receiver<Change>) -> Change {
        changes.recv_timeout(Duration::from_secs(30)).expect("a change is reported")
    }

    #[test]
    fn names_what_changed_once_its_writer_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::start().unwrap();
        let changes = listen(&watcher, dir.path());
        fs::write(dir.path().join("a.yaml"), "x").unwrap();
        let named = |name: &str, moved| Change {
            dir: Some(Arc::from(dir.path())),
            name: Some(name.into()),
            moved,
        };
        assert_eq!(next(&changes), named("a.yaml", false));
        fs::rename(dir.path().join("a.yaml"), dir.path().join("b.yaml")).unwrap();
        assert_eq!(next(&changes), named("a.yaml", false));
        assert_eq!(next(&changes), named("b.yaml", true));
    }

    #[test]
    fn a_directory_may_vanish_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let watcher = Watcher::start().unwrap();
        let changes = listen(&watcher, &sub);
        fs::remove_dir(&sub).unwrap();
        assert_eq!(next(&changes).name, None);
        fs::create_dir(&sub).unwrap();
        let changes = listen(&watcher, &sub);
        fs::write(sub.join("a"), "x").unwrap();
        assert_eq!(next(&changes).name, Some("a".into()));
    }

    #[test]
    fn lost_events_concern_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::start().unwrap();
        let changes = listen(&watcher, dir.path());
        let shared = watcher.shared.as_ref().expect("inotify is available");
        shared.pass_on(-1, ReadFlags::QUEUE_OVERFLOW, None);
        assert_eq!(next(&changes), Change { dir: None, name: None, moved: false });
    }

    #[test]
    fn a_directory_has_many_listeners() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::start().unwrap();
        let first = listen(&watcher, dir.path());
        let (sender, second) = channel();
        watcher
            .watch(&Arc::from(dir.path()), 2, || Box::new(move |change| drop(sender.send(change))));
        fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(next(&first).name, Some("a".into()));
        assert_eq!(next(&second).name, Some("a".into()));
    }
}

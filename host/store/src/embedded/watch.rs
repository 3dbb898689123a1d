//! Watching the file: a thread that sleeps on the bell and reads what is newer than it has told.
//!
//! The bell is a file of its own because the log's last write comes before the commit is
//! visible: whoever woke by that would look too early.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use conclave_core::{Entry, Revision};
use rusqlite::TransactionBehavior;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use tokio::sync::mpsc;

use super::EmbeddedConfig;
use super::database::{Database, open_bell};
use super::place::Files;
use super::transaction::row;
use crate::error::StoreError;
use crate::store::WatchEvent;

/// How often the file is read although no bell rang: its writer may have died before ringing.
const FALLBACK: Duration = Duration::from_millis(100);
/// How long one reading waits for a lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts a watch; it ends when `events` is closed.
pub(super) fn start(
    config: EmbeddedConfig,
    files: Files,
    after: Revision,
    events: mpsc::Sender<WatchEvent>,
) {
    let failed = events.clone();
    let path = config.path.clone();
    let work = move || {
        let error = watch(&config, &files, after.0, &events);
        // Nobody is left to tell when the receiver is gone.
        let _ = events.blocking_send(WatchEvent::Broken(error));
    };
    if let Err(source) = thread::Builder::new().name("store-watch".into()).spawn(work) {
        let error = StoreError::File { action: "start a thread for", path, source };
        // The queue of a new watch has room.
        let _ = failed.try_send(WatchEvent::Broken(error));
    }
}

/// Tells changes until the watch breaks or nobody listens any more.
fn watch(
    config: &EmbeddedConfig,
    files: &Files,
    mut after: u64,
    events: &mpsc::Sender<WatchEvent>,
) -> StoreError {
    let opened = Database::open_again(config, files, Instant::now() + PATIENCE);
    let (mut database, bell) = match opened.and_then(|it| Bell::hang(it.bell()).map(|b| (it, b))) {
        Ok(both) => both,
        Err(error) => return error,
    };
    let closed = || StoreError::Closed { place: config.path.display().to_string() };
    loop {
        let news = match changes(&mut database, after) {
            Ok(Some((at, entries))) if entries.is_empty() => {
                Some((at, WatchEvent::Progress { at }))
            }
            Ok(Some((at, entries))) => Some((at, WatchEvent::Changes { at, entries })),
            Ok(None) | Err(StoreError::TimedOut { .. }) => None,
            Err(error) => return error,
        };
        if let Some((at, event)) = news {
            after = at.0;
            if events.blocking_send(event).is_err() {
                return closed();
            }
        }
        if let Err(error) = bell.wait(database.bell()) {
            return error;
        }
        if events.is_closed() {
            return closed();
        }
    }
}

/// What changed after a revision, and up to which; `None` when nothing did.
fn changes(
    database: &mut Database,
    after: u64,
) -> Result<Option<(Revision, Vec<Entry>)>, StoreError> {
    database.files().check()?;
    let (path, keys) = (database.path().to_owned(), database.keys.clone());
    let failed = Database::error(&path);
    let deadline = Instant::now() + PATIENCE;
    let (txn, head) = database.begin(TransactionBehavior::Deferred, deadline)?;
    if head.revision < after {
        let place = path.display().to_string();
        return Err(StoreError::WentBack { place, known: after, seen: head.revision });
    }
    if after < head.compacted {
        return Err(StoreError::Compacted { after, compacted: head.compacted });
    }
    if head.revision == after {
        return Ok(None);
    }
    let range = keys.all();
    let mut statement = txn
        .prepare(
            "SELECT key, created, modified, value FROM entry
             WHERE modified > ?1 AND key >= ?2 AND key < ?3 ORDER BY modified, key",
        )
        .map_err(&failed)?;
    let rows = statement.query_map((after, &range.start, &range.end), row).map_err(&failed)?;
    let mut entries = Vec::new();
    for row in rows {
        let row = row.map_err(&failed)?;
        let Some(entry) = row.entry(&keys, row.modified) else { continue };
        entries.push(match row.create {
            0 => Entry { stored: None, ..entry },
            _ => entry,
        });
    }
    Ok(Some((Revision(head.revision), entries)))
}

/// An ear for the bell.
struct Bell {
    inotify: OwnedFd,
}

impl Bell {
    fn hang(path: &Path) -> Result<Self, StoreError> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let failed = |errno: rustix::io::Errno| bell_error("watch", path, errno.into());
        let bell = Bell { inotify: inotify::init(flags).map_err(failed)? };
        bell.listen(path)?;
        Ok(bell)
    }

    /// Listens to whichever file the path names; asking again costs nothing when it is the same.
    fn listen(&self, path: &Path) -> Result<(), StoreError> {
        open_bell(path).map_err(|source| bell_error("create", path, source))?;
        inotify::add_watch(&self.inotify, path, inotify::WatchFlags::MODIFY)
            .map_err(|errno| bell_error("watch", path, errno.into()))?;
        Ok(())
    }

    /// Waits for the bell, but not for long.
    fn wait(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |errno: rustix::io::Errno| bell_error("watch", path, errno.into());
        let timeout = Timespec::try_from(FALLBACK).expect("a fraction of a second fits");
        let rang = match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => true,
            Err(errno) => return Err(failed(errno)),
        };
        if !rang {
            // Somebody may have replaced the bell.
            return self.listen(path);
        }
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut events) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn bell_error(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { action, path: path.to_owned(), source }
}

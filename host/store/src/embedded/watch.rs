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
    let mut database = match Database::open_again(config, files, Instant::now() + PATIENCE) {
        Ok(database) => database,
        Err(error) => return error,
    };
    let mut bell = Bell::hang(database.bell());
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
        bell.wait(database.bell());
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

/// An ear for the bell. Where none is to be had (the system hands out few inotify instances, and
/// other programs like them too), news are only later: the file is read every now and then anyway.
struct Bell {
    inotify: Option<OwnedFd>,
}

impl Bell {
    fn hang(path: &Path) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let made = inotify::init(flags).map_err(std::io::Error::from);
        let inotify = made.and_then(|inotify| listen(&inotify, path).map(|()| inotify));
        let inotify = inotify.inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot hear the store's bell; looking every 100 ms instead");
        });
        Bell { inotify: inotify.ok() }
    }

    /// Waits for the bell, but not for long.
    fn wait(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else { return thread::sleep(FALLBACK) };
        if let Err(error) = hear(inotify, path) {
            tracing::debug!(path = %path.display(), %error, "the store's bell is out of order");
            self.inotify = None;
        }
    }
}

/// Listens to whichever file the path names; asking again costs nothing when it is the same.
fn listen(inotify: &OwnedFd, path: &Path) -> std::io::Result<()> {
    open_bell(path)?;
    inotify::add_watch(inotify, path, inotify::WatchFlags::MODIFY)?;
    Ok(())
}

fn hear(inotify: &OwnedFd, path: &Path) -> std::io::Result<()> {
    let timeout = Timespec::try_from(FALLBACK).expect("a fraction of a second fits");
    let rang = match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => true,
        Err(errno) => return Err(errno.into()),
    };
    if !rang {
        // Somebody may have replaced the bell.
        return listen(inotify, path);
    }
    let mut events = [0; 4096];
    loop {
        match rustix::io::read(inotify, &mut events) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

//! The independent observer: what is in the nodes' destination directories, and in what order it
//! came and went.
//!
//! It asks nothing of the program under test. One inotify descriptor over all directories gives
//! the order of events; a thread that lists the directories every few milliseconds is a
//! cross-check, because a watch can be wrong (a directory replaced, a queue overrun). Like a
//! kubelet it sees only final names: what begins with a dot is nobody's manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, poll};

use crate::timeline::{Change, Overlap, Sighting, Timeline};
use crate::{PATIENCE, eventually, pod};

/// How often the directories are listed.
const POLL_EVERY: Duration = Duration::from_millis(3);

#[derive(Default)]
struct Seen {
    sightings: Vec<Sighting>,
    /// What is in place after the last of them, as pairs of node and file.
    present: BTreeSet<(String, String)>,
    overlaps: Vec<Overlap>,
    /// Why nothing that was seen can be trusted, if so.
    blind: Option<String>,
    closing: bool,
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Observes until finished.
pub struct Observer {
    began: Instant,
    directories: BTreeMap<String, PathBuf>,
    seen: Shared,
    waker: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Begins to observe these nodes' directories, which must exist.
    ///
    /// # Errors
    ///
    /// When one of them cannot be watched.
    pub fn start<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Result<Self> {
        let began = Instant::now();
        let directories: BTreeMap<String, PathBuf> =
            nodes.into_iter().map(|(node, path)| (node.to_owned(), path.to_owned())).collect();
        let inotify = Inotify::init()?;
        let mut watches = BTreeMap::new();
        for (node, path) in &directories {
            let mask = WatchMask::CREATE
                | WatchMask::MODIFY
                | WatchMask::MOVE
                | WatchMask::DELETE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::ONLYDIR;
            let watch = inotify.watches().add(path, mask);
            let watch = watch.with_context(|| format!("watch {}", path.display()))?;
            watches.insert(watch, (node.clone(), path.clone()));
        }
        // Listed after watching: a file that came in between is seen twice, not never.
        let seen = Shared::default();
        for (node, path) in &directories {
            for file in listing(path)? {
                note(&seen, node, path, &file, Change::Found);
            }
        }
        let (waker, woken) = UnixStream::pair()?;
        let (reading, polling) = (Arc::clone(&seen), Arc::clone(&seen));
        let polled = directories.clone();
        let threads = vec![
            std::thread::spawn(move || read_events(inotify, &watches, &woken, &reading)),
            std::thread::spawn(move || poll_directories(&polled, &polling)),
        ];
        Ok(Observer { began, directories, seen, waker: Some(waker), threads })
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Timeline {
        let seen = lock(&self.seen);
        Timeline::new(self.began, seen.sightings.clone(), seen.overlaps.clone())
    }

    /// The nodes that have any of these files now.
    pub fn holders(&self, files: &[&str]) -> Vec<String> {
        let mut nodes = self.having(files);
        nodes.dedup();
        nodes
    }

    /// The one node that has any of these files now, if it is one and it has all of them.
    pub fn holder(&self, files: &[&str]) -> Option<String> {
        let mut nodes = self.having(files);
        let complete = nodes.len() == files.len();
        nodes.dedup();
        (complete && nodes.len() == 1).then(|| nodes.remove(0))
    }

    /// The nodes of these files as they are in place now, in order, once for each file.
    fn having(&self, files: &[&str]) -> Vec<String> {
        let seen = lock(&self.seen);
        let present = seen.present.iter().filter(|(_, file)| files.contains(&file.as_str()));
        present.map(|(node, _)| node.clone()).collect()
    }

    /// Waits until exactly one node has any of these files and has all of them; returns it.
    ///
    /// # Errors
    ///
    /// When it does not come to that, with what was seen.
    pub fn wait_for_holder(&self, files: &[&str]) -> Result<String> {
        self.wait_for_new_holder(files, "")
    }

    /// Waits as [`Observer::wait_for_holder`] does, for a node other than `old`.
    ///
    /// # Errors
    ///
    /// When it does not come to that, with what was seen.
    pub fn wait_for_new_holder(&self, files: &[&str], old: &str) -> Result<String> {
        let found = eventually(&format!("a new holder of all of {files:?}"), PATIENCE, || {
            self.holder(files).filter(|holder| holder != old)
        });
        found.with_context(|| format!("what was seen:\n{}", self.so_far()))
    }

    /// Waits until no node has any of these files.
    ///
    /// # Errors
    ///
    /// When it does not come to that, with what was seen.
    pub fn wait_for_nobody(&self, files: &[&str]) -> Result<()> {
        let found = eventually(&format!("no holder of {files:?}"), PATIENCE, || {
            self.holders(files).is_empty().then_some(())
        });
        found.with_context(|| format!("what was seen:\n{}", self.so_far()))
    }

    /// Ends the observation and returns it.
    ///
    /// # Errors
    ///
    /// When the observer lost its sight meanwhile: a full event queue, a directory that went
    /// away, or events that do not add up to what is in the directories.
    pub fn finish(mut self) -> Result<Timeline> {
        // Events are read a moment after they happen, and nodes may still be at work.
        let agreed = eventually("events to add up to what is in place", PATIENCE, || {
            let blind = lock(&self.seen).blind.is_some();
            (blind || self.present().ok()? == lock(&self.seen).present).then_some(())
        });
        self.close()?;
        if let Some(reason) = &lock(&self.seen).blind {
            bail!("the observer lost its sight: {reason}");
        }
        let timeline = self.so_far();
        agreed.with_context(|| format!("{:?}\n{timeline}", self.present()))?;
        Ok(timeline)
    }

    /// What is in the directories now, as pairs of node and file.
    fn present(&self) -> Result<BTreeSet<(String, String)>> {
        let mut present = BTreeSet::new();
        for (node, path) in &self.directories {
            present.extend(listing(path)?.into_iter().map(|file| (node.clone(), file)));
        }
        Ok(present)
    }

    fn close(&mut self) -> Result<()> {
        lock(&self.seen).closing = true;
        // Closing it wakes the reader.
        self.waker = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                bail!("an observer's thread panicked");
            }
        }
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let closed = self.close();
        if std::thread::panicking() {
            eprintln!("---- what the observer saw\n{}", self.so_far());
        } else {
            closed.expect("the observer's threads end");
        }
    }
}

/// The visible names in a directory.
fn listing(path: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<BTreeSet<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.starts_with('.')).collect())
}

fn note(seen: &Shared, node: &str, directory: &Path, file: &str, change: Change) {
    let at = Instant::now();
    let text = || std::fs::read_to_string(directory.join(file)).ok();
    let term =
        if change == Change::Vanished { None } else { text().as_deref().and_then(pod::term) };
    let (node, file) = (node.to_owned(), file.to_owned());
    let mut seen = lock(seen);
    if change == Change::Vanished {
        seen.present.remove(&(node.clone(), file.clone()));
    } else {
        seen.present.insert((node.clone(), file.clone()));
    }
    seen.sightings.push(Sighting { at, node, file, change, term });
}

/// Reads events until the observer closes, then whatever is still queued.
fn read_events(
    mut inotify: Inotify,
    watches: &BTreeMap<WatchDescriptor, (String, PathBuf)>,
    woken: &UnixStream,
    seen: &Shared,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut sources = [
            PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN),
        ];
        // An interrupted poll only means another look.
        let _ = poll(&mut sources, None);
        let closing = sources[1].revents() != PollFlags::empty();
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => events.for_each(|event| {
                    let node = watches.get(&event.wd);
                    let name = event.name.map(|name| name.to_string_lossy());
                    record(seen, node, name.as_deref(), event.mask);
                }),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    lock(seen).blind = Some(format!("reading events failed: {error}"));
                    return;
                }
            }
        }
        if closing {
            let _ = (&*woken).read(&mut [0]);
            return;
        }
    }
}

/// Enters one event; a watch that can no longer be trusted blinds the observer.
fn record(seen: &Shared, node: Option<&(String, PathBuf)>, name: Option<&str>, mask: EventMask) {
    let (Some((node, directory)), Some(file)) = (node, name) else {
        if mask.intersects(EventMask::Q_OVERFLOW | EventMask::DELETE_SELF | EventMask::MOVE_SELF) {
            lock(seen).blind = Some(format!("{mask:?} of {node:?}"));
        }
        return;
    };
    if file.starts_with('.') {
        return;
    }
    let change = if mask.contains(EventMask::MOVED_TO) {
        Change::MovedIn
    } else if mask.contains(EventMask::CREATE) {
        Change::Created
    } else if mask.contains(EventMask::MODIFY) {
        Change::Written
    } else if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        Change::Vanished
    } else {
        return;
    };
    note(seen, node, directory, file, change);
}

/// Lists the directories again and again, and notes a file that two nodes have at once.
fn poll_directories(directories: &BTreeMap<String, PathBuf>, seen: &Shared) {
    while !lock(seen).closing {
        let at = Instant::now();
        let mut having: BTreeMap<String, Vec<&String>> = BTreeMap::new();
        for (node, path) in directories {
            // A directory that is missing has no files; the watch tells why it is missing.
            for file in listing(path).unwrap_or_default() {
                having.entry(file).or_default().push(node);
            }
        }
        for (file, nodes) in having {
            let [one, other, ..] = nodes[..] else { continue };
            // The lists were not made at once: the file may have moved from the first to the
            // second in between. If the first still has it, both had it.
            if directories[one].join(&file).exists() {
                let nodes = [one.clone(), other.clone()];
                lock(seen).overlaps.push(Overlap { at, file, nodes });
            }
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;
    use std::fs;

    fn place(dir: &Path, file: &str) {
        let staged = dir.join(".conclave").join(file);
        fs::create_dir_all(staged.parent().unwrap()).unwrap();
        fs::write(&staged, "x").unwrap();
        fs::rename(staged, dir.join(file)).unwrap();
    }

    fn two() -> (tempfile::TempDir, tempfile::TempDir, Observer) {
        let (a, b) = (scratch::directory("a").unwrap(), scratch::directory("b").unwrap());
        let observer = Observer::start([("a", a.path()), ("b", b.path())]).unwrap();
        (a, b, observer)
    }

    #[test]
    fn tells_order_and_holders() {
        let (a, b, observer) = two();
        place(a.path(), "s");
        assert_eq!(observer.wait_for_holder(&["s"]).unwrap(), "a");
        fs::remove_file(a.path().join("s")).unwrap();
        place(b.path(), "s");
        assert_eq!(observer.wait_for_new_holder(&["s"], "a").unwrap(), "b");
        let story = observer.finish().unwrap();
        story.at_most_one_holder(&["s"]).unwrap();
        story.only_renamed(&["s"]).unwrap();
        assert_eq!(story.gaps(&["s"]).len(), 1);
    }

    #[test]
    fn a_planted_overlap_is_caught_by_order_even_when_short() {
        let (a, b, observer) = two();
        place(a.path(), "s");
        place(b.path(), "s");
        fs::remove_file(a.path().join("s")).unwrap();
        assert!(observer.finish().unwrap().at_most_one_holder(&["s"]).is_err());
    }

    #[test]
    fn a_planted_overlap_is_caught_by_polling() {
        let (a, b, observer) = two();
        place(a.path(), "s");
        place(b.path(), "s");
        eventually("polling to see it", PATIENCE, || {
            (!lock(&observer.seen).overlaps.is_empty()).then_some(())
        })
        .unwrap();
        drop(observer);
    }

    #[test]
    fn polling_does_not_mistake_a_quick_change_for_an_overlap() {
        let (a, b, observer) = two();
        let names: Vec<String> = (0..300).map(|number| format!("s{number}")).collect();
        for name in &names {
            place(a.path(), name);
            fs::remove_file(a.path().join(name)).unwrap();
            place(b.path(), name);
        }
        let story = observer.finish().unwrap();
        names.iter().for_each(|name| story.at_most_one_holder(&[name]).unwrap());
    }

    #[test]
    fn a_directory_that_goes_away_blinds() {
        let (a, _b, observer) = two();
        let elsewhere = scratch::directory("elsewhere").unwrap();
        fs::rename(a.path(), elsewhere.path().join("gone")).unwrap();
        fs::create_dir(a.path()).unwrap();
        assert!(observer.finish().is_err());
    }

    #[test]
    fn what_was_there_before_counts() {
        let (a, b) = (scratch::directory("a").unwrap(), scratch::directory("b").unwrap());
        place(a.path(), "s");
        let observer = Observer::start([("a", a.path()), ("b", b.path())]).unwrap();
        place(b.path(), "s");
        assert!(observer.finish().unwrap().at_most_one_holder(&["s"]).is_err());
    }
}

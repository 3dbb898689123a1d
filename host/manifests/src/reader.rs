//! Source readers: one thread per directory that sources come from, so that a hung one holds up
//! nothing but news from it. In particular no withdrawal ever waits for a source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::error::{FileError, phrase};
use crate::source::{self, Contents, Look, SETTLE, Source, Watched};
use crate::watch::{Change, Watcher};

/// A file that vanished from a source directory counts as removed only when it stays away this
/// long: many tools replace a file by removing and creating it.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// How long the first report on a directory waits for files that are being written.
const FIRST_REPORT: Duration = Duration::from_secs(1);

/// A directory with more manifests than this is taken for a mistake.
const MAX_MANIFESTS: usize = 1000;

/// What a reader is told.
pub(crate) enum ReaderMessage {
    /// Something changed in a watched directory.
    Changed(Change),
    /// The loop ends.
    Stop,
}

/// Something to read, and where the news goes.
pub(crate) enum Subject {
    /// One file.
    File { watched: Watched, path: PathBuf, deliver: Deliver<Result<Arc<Source>, String>> },
    /// Every manifest in the reader's directory.
    Directory(DirectorySubject),
}

/// Takes news to a worker.
pub(crate) type Deliver<T> = Box<dyn Fn(T) + Send>;

/// A source directory across many looks.
pub(crate) struct DirectorySubject {
    literal: bool,
    files: BTreeMap<String, Member>,
    /// What was said of names that are no text.
    nameless: BTreeSet<String>,
    since: Instant,
    last_error: Option<String>,
    delivered: bool,
    deliver: Deliver<Result<Contents, String>>,
}

struct Member {
    watched: Watched,
    latest: Option<Result<Arc<Source>, String>>,
    missing_since: Option<Instant>,
}

impl Subject {
    pub(crate) fn file(
        path: PathBuf,
        literal: bool,
        deliver: Deliver<Result<Arc<Source>, String>>,
    ) -> Self {
        Subject::File { watched: Watched::new(path.clone(), literal), path, deliver }
    }

    pub(crate) fn directory(literal: bool, deliver: Deliver<Result<Contents, String>>) -> Self {
        Subject::Directory(DirectorySubject {
            literal,
            files: BTreeMap::new(),
            nameless: BTreeSet::new(),
            since: Instant::now(),
            last_error: None,
            delivered: false,
            deliver,
        })
    }
}

/// The thread of one source directory.
pub(crate) struct Reader {
    pub(crate) id: u64,
    pub(crate) dir: Arc<Path>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rescan: Duration,
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) inbox: Receiver<ReaderMessage>,
    /// For listeners.
    pub(crate) sender: Sender<ReaderMessage>,
}

impl Reader {
    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut whole = BTreeSet::new();
        loop {
            self.watch();
            let soon = self.look(&whole);
            whole.clear();
            let wait = if soon { SETTLE.min(self.rescan) } else { self.rescan };
            let mut message = self.inbox.recv_timeout(wait);
            loop {
                match message {
                    Ok(ReaderMessage::Changed(change)) => self.note(change, &mut whole),
                    Ok(ReaderMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                message = self.inbox.recv_timeout(Duration::ZERO);
            }
        }
    }

    /// Files that were moved into our own directory are whole. One that is written in place may
    /// be opened by its next writer before it is read, so it has to rest first.
    fn note(&self, change: Change, whole: &mut BTreeSet<String>) {
        if change.moved
            && change.dir.as_deref() == Some(&*self.dir)
            && let Some(name) = change.name.and_then(|name| name.into_string().ok())
        {
            whole.insert(name);
        }
    }

    /// Before every look, so that nothing happens unseen between the two. Links are watched at
    /// both ends.
    fn watch(&self) {
        self.watch_dir(&self.dir);
        let mut ends = BTreeSet::new();
        for subject in &self.subjects {
            match subject {
                Subject::File { path, .. } => ends.extend(link_end(path)),
                Subject::Directory(directory) => {
                    let paths = directory.files.keys().map(|name| self.dir.join(name));
                    ends.extend(paths.filter_map(|path| link_end(&path)));
                }
            }
        }
        for dir in ends {
            self.watch_dir(&Arc::from(dir));
        }
    }

    fn watch_dir(&self, dir: &Arc<Path>) {
        self.watcher.watch(dir, self.id, || {
            let sender = self.sender.clone();
            // A reader that is gone needs no news.
            Box::new(move |change| drop(sender.send(ReaderMessage::Changed(change))))
        });
    }

    /// Looks at everything; whether to look again soon.
    fn look(&mut self, whole: &BTreeSet<String>) -> bool {
        let mut soon = false;
        for subject in &mut self.subjects {
            match subject {
                Subject::File { watched, path, deliver } => {
                    let name = path.file_name().and_then(|name| name.to_str());
                    match watched.look(name.is_some_and(|name| whole.contains(name))) {
                        Look::Same => {}
                        Look::Unsettled => soon = true,
                        Look::Read(result) => deliver(result.map_err(|error| phrase(&error))),
                    }
                }
                Subject::Directory(directory) => soon |= directory.look(&self.dir, whole),
            }
        }
        soon
    }
}

impl DirectorySubject {
    fn look(&mut self, dir: &Path, whole: &BTreeSet<String>) -> bool {
        let names = match source::list(dir) {
            Ok(names) if names.len() > MAX_MANIFESTS => {
                return self
                    .fail(format!("{} has more than {MAX_MANIFESTS} manifests", dir.display()));
            }
            Ok(names) => names,
            Err(error) => return self.fail(phrase(&error)),
        };
        let mut soon = false;
        let mut changed = !self.delivered || self.last_error.is_some();
        let (mut seen, mut nameless) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            match name {
                Ok(name) => {
                    let literal = self.literal;
                    let member = self.files.entry(name.clone()).or_insert_with(|| Member {
                        watched: Watched::new(dir.join(&name), literal),
                        latest: None,
                        missing_since: None,
                    });
                    match member.watched.look(whole.contains(&name)) {
                        Look::Same => {}
                        Look::Unsettled => soon = true,
                        Look::Read(result) => {
                            member.latest = Some(result.map_err(|error| phrase(&error)));
                            changed = true;
                        }
                    }
                    member.missing_since = None;
                    seen.insert(name);
                }
                Err(error) => {
                    let reason = phrase(&error);
                    if !self.nameless.contains(&reason) {
                        tracing::warn!(error = reason, "not a manifest's name");
                    }
                    nameless.insert(reason);
                }
            }
        }
        self.nameless = nameless;
        let (gone, waiting) = self.forget_missing(&seen);
        self.report(dir, changed || gone);
        soon || waiting
    }

    /// Whether a file is gone for good, and whether one may be.
    fn forget_missing(&mut self, seen: &BTreeSet<String>) -> (bool, bool) {
        let before = self.files.len();
        let mut waiting = false;
        self.files.retain(|name, member| {
            if seen.contains(name) {
                return true;
            }
            let since = *member.missing_since.get_or_insert_with(Instant::now);
            let stays = since.elapsed() < GONE_AFTER;
            waiting |= stays;
            stays
        });
        (self.files.len() != before, waiting)
    }

    /// An empty directory is what an unmounted volume looks like: it is an error, and what was
    /// read before stays good.
    fn report(&mut self, dir: &Path, changed: bool) {
        if self.files.is_empty() {
            let error = FileError::of("use", dir)(source::empty_directory(dir));
            self.fail(phrase(&error));
            return;
        }
        let pending = self.files.values().any(|member| member.latest.is_none());
        let hold = pending && !self.delivered && self.since.elapsed() < FIRST_REPORT;
        if !changed || hold {
            return;
        }
        let contents = self
            .files
            .iter()
            .filter_map(|(name, member)| Some((name.clone(), member.latest.clone()?)))
            .collect();
        self.delivered = true;
        self.last_error = None;
        (self.deliver)(Ok(contents));
    }

    /// Reports an error that is news.
    fn fail(&mut self, reason: String) -> bool {
        if self.last_error.as_ref() != Some(&reason) {
            self.last_error = Some(reason.clone());
            (self.deliver)(Err(reason));
        }
        false
    }
}

/// The directory that a symbolic link leads into.
fn link_end(path: &Path) -> Option<PathBuf> {
    if !fs::symlink_metadata(path).ok()?.is_symlink() {
        return None;
    }
    Some(fs::canonicalize(path).ok()?.parent()?.to_owned())
}

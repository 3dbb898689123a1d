//! Writing: beside whoever asks, by one thread. A slow disk costs lines and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use conclave_core::ElectionName;
use tracing::{error, info, warn};

use super::{Decision, Question};

/// The newest lines, and those before them.
pub(super) const NEW: &str = "log.jsonl";
pub(super) const OLD: &str = "log.old.jsonl";

/// A file that has become larger is put away, in the place of the one before it.
const LARGEST_FILE: u64 = 4 << 20;

/// A line that is larger, as with manifests of megabytes, is left out.
const LARGEST_LINE: usize = 512 << 10;

/// How many decisions may wait for the disk.
const BACKLOG: usize = 256;

/// Where decisions go. Clones write to the same files.
#[derive(Clone, Debug)]
pub(crate) struct DecisionLog {
    queue: SyncSender<Decision>,
    missed: Arc<AtomicU64>,
}

impl DecisionLog {
    /// Starts to write below a state directory. It always begins: that nothing can be written is told,
    /// and no more.
    pub(crate) fn start(state_directory: &Path) -> Self {
        let directory = state_directory.join(super::DIRECTORY);
        let (queue, inbox) = sync_channel(BACKLOG);
        let missed = Arc::new(AtomicU64::new(0));
        let log = DecisionLog { queue, missed: Arc::clone(&missed) };
        let mut writer = Writer::new(directory, missed);
        let run = move || writer.run(&inbox);
        if let Err(error) = thread::Builder::new().name("decisions".to_owned()).spawn(run) {
            error!(%error, "decisions are not logged");
        }
        log
    }

    /// Writes a decision, soon; leaves it out where too many wait.
    pub(crate) fn write(&self, decision: Decision) {
        if self.queue.try_send(decision).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What tells repetitions: which election, function, and whether by the shadow.
type Kind = (ElectionName, &'static str, bool);

struct Writer {
    directory: PathBuf,
    file: Option<File>,
    size: u64,
    /// What was written last of each kind, by a digest, and how often it came again.
    last: BTreeMap<Kind, (u64, u64)>,
    missed: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    fn new(directory: PathBuf, missed: Arc<AtomicU64>) -> Self {
        Writer { directory, file: None, size: 0, last: BTreeMap::new(), missed, failing: false }
    }

    fn run(&mut self, inbox: &Receiver<Decision>) {
        while let Ok(decision) = inbox.recv() {
            match self.take(decision) {
                Ok(()) if self.failing => {
                    self.failing = false;
                    info!("decisions are logged again");
                }
                Ok(()) => {}
                Err(error) => {
                    self.file = None;
                    self.missed.fetch_add(1, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        let directory = self.directory.display();
                        warn!(%directory, %error, "decisions cannot be logged");
                    }
                }
            }
        }
    }

    fn take(&mut self, mut decision: Decision) -> io::Result<()> {
        let function = decision.question.function();
        let kind = (decision.election.clone(), function, decision.shadow);
        let digest = digest(&decision)?;
        if let Some((last, repeated)) = self.last.get_mut(&kind) {
            if *last == digest {
                *repeated += 1;
                return Ok(());
            }
            decision.repeated = *repeated;
        }
        decision.missed = self.missed.swap(0, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&decision)?;
        if line.len() > LARGEST_LINE {
            self.missed.fetch_add(decision.missed + 1, Ordering::Relaxed);
            return Ok(());
        }
        line.push(b'\n');
        self.append(&line)?;
        self.last.insert(kind, (digest, 0));
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size + line.len() as u64 > LARGEST_FILE {
            fs::rename(self.directory.join(NEW), self.directory.join(OLD))?;
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (file, size) = open(&self.directory)?;
                self.size = size;
                self.file.insert(file)
            }
        };
        file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

/// Opens the file to go on with; a line that was torn is ended, so that the next is whole.
fn open(directory: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(NEW);
    let mut file =
        OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

/// Of what was asked and answered, not of when and at what cost.
fn digest(decision: &Decision) -> io::Result<u64> {
    let Decision { component, config, question, answer, .. } = decision;
    let mut hasher = DefaultHasher::new();
    component.hash(&mut hasher);
    config.hash(&mut hasher);
    serde_json::to_vec::<Question>(question)?.hash(&mut hasher);
    serde_json::to_vec(answer)?.hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{read, sample};
    use super::*;

    fn writer(directory: &Path) -> Writer {
        Writer::new(directory.join("decisions"), Arc::new(AtomicU64::new(0)))
    }

    fn orders(directory: &Path) -> Vec<(usize, u64, u64)> {
        let decisions = read(&directory.join("decisions")).unwrap();
        decisions.iter().map(|it| (it.answer.lines().len(), it.repeated, it.missed)).collect()
    }

    #[test]
    fn repetitions_are_counted_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        for order in [&["a"][..], &["a"], &["a"], &["a", "b"], &["a"]] {
            writer.take(sample("e", order)).unwrap();
            writer.take(sample("other", &["x"])).unwrap();
        }
        writer.missed.store(3, Ordering::Relaxed);
        writer.take(sample("e", &["a", "b", "c"])).unwrap();
        assert_eq!(orders(dir.path()), [(1, 0, 0), (1, 0, 0), (2, 2, 0), (1, 0, 0), (3, 0, 3)]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&writer.directory), 0o700);
        assert_eq!(mode(&writer.directory.join(NEW)), 0o600);
    }

    #[test]
    fn files_are_bounded_and_the_newest_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let long = "x".repeat(100_000);
        for number in 0..120 {
            writer.take(sample("e", &[&format!("{number}-{long}")])).unwrap();
        }
        let sizes = [NEW, OLD].map(|name| fs::metadata(writer.directory.join(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= LARGEST_FILE), "{sizes:?}");
        let kept = read(&writer.directory).unwrap();
        assert!(kept.len() > 40 && kept.len() < 120, "{}", kept.len());
        assert!(kept.last().unwrap().answer.lines()[0].starts_with("119-"));
        writer.take(sample("e", &[&"y".repeat(LARGEST_LINE)])).unwrap();
        assert_eq!(writer.missed.load(Ordering::Relaxed), 1, "a line that is too large");
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = writer(dir.path());
        first.take(sample("e", &["a"])).unwrap();
        first.append(b"{\"version\": 1, \"at_un").unwrap();
        writer(dir.path()).take(sample("e", &["a", "b"])).unwrap();
        assert_eq!(orders(dir.path()), [(1, 0, 0), (2, 0, 0)]);
    }

    #[test]
    fn who_asks_never_waits_for_the_disk() {
        let (queue, inbox) = sync_channel(1);
        let missed = Arc::new(AtomicU64::new(0));
        let log = DecisionLog { queue, missed };
        for _ in 0..5 {
            log.write(sample("e", &["a"]));
        }
        assert_eq!(log.missed.load(Ordering::Relaxed), 4);
        drop(inbox);
        log.write(sample("e", &["a"]));
        assert_eq!(log.missed.load(Ordering::Relaxed), 5);
    }
}

//! The handle: starts the threads, takes the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use conclave_core::ids::{ElectionName, NodeName, OpId, Token};
use conclave_core::view::Placement;

use crate::contest::{Contest, Report};
use crate::digest::Digest;
use crate::error::ManifestsError;
use crate::event::{EventSink, ManifestEvent};
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::manifest::Scope;
use crate::reader::{Reader, ReaderMessage, Subject};
use crate::settings::{ElectionManifests, ManifestSettings};
use crate::watch::Watcher;
use crate::worker::{Message, Shared, Worker};

/// The running manifest loop. Commands return at once; what comes of them is reported as events.
/// Dropping it ends its threads soon, but leaves what is in place where it is.
pub struct Manifests {
    shared: Arc<Shared>,
    workers: Vec<Sender<Message>>,
    by_election: BTreeMap<ElectionName, Sender<Message>>,
    readers: Vec<Sender<ReaderMessage>>,
}

impl Manifests {
    /// Starts the loop: it reads the sources and reports fitness and manifests, but touches no
    /// destination until it is told this node's stand in an election. [`clean`](crate::clean())
    /// comes first.
    ///
    /// # Errors
    /// When the settings contradict themselves, or a thread cannot be started.
    pub fn start(
        settings: &ManifestSettings,
        ledger: Ledger,
        gate: Arc<dyn Gate>,
        emit: EventSink,
    ) -> Result<Manifests, ManifestsError> {
        settings.check()?;
        let watcher = Arc::new(Watcher::start()?);
        let shared = Arc::new(Shared {
            mark: Digest::of(settings.state_dir.as_os_str().as_bytes()).as_str()[..12].to_owned(),
            state_dir: settings.state_dir.clone(),
            rescan: settings.rescan,
            ledger: Arc::new(ledger),
            gate,
            emit,
            watcher,
        });
        let mut manifests = Manifests {
            shared,
            workers: Vec::new(),
            by_election: BTreeMap::new(),
            readers: Vec::new(),
        };
        manifests.start_workers(settings)?;
        manifests.start_readers(settings)?;
        Ok(manifests)
    }

    /// This node leads: its exclusive manifests are put in place, as far as the gate lets them,
    /// and kept as they should be; the role file says `leader`. Said again in the same term, also
    /// after an adoption, it touches nothing that is right.
    ///
    /// # Errors
    /// When the election is not configured.
    pub fn lead(
        &self,
        election: &ElectionName,
        token: Token,
        placements: Vec<Placement>,
    ) -> Result<(), ManifestsError> {
        self.send(election, Message::Lead { election: election.clone(), token, placements })
    }

    /// A term may begin here in a moment: copies of the exclusive manifests are made, so that
    /// [`lead`](Self::lead) has less to do, and once the term is known the ledger is told ahead.
    /// Nothing is put in place, and what is not used soon goes away by itself.
    ///
    /// # Errors
    /// When the election is not configured.
    pub fn prepare(
        &self,
        election: &ElectionName,
        token: Option<Token>,
    ) -> Result<(), ManifestsError> {
        self.send(election, Message::Prepare { election: election.clone(), token })
    }

    /// What the policy would place if this node led. Nothing is put in place: a manifest that cannot
    /// be rendered so makes this node unfit before it has a term, not once it has one. Ignored
    /// while this node leads.
    ///
    /// # Errors
    /// When the election is not configured.
    pub fn rehearse(
        &self,
        election: &ElectionName,
        placements: Vec<Placement>,
    ) -> Result<(), ManifestsError> {
        self.send(election, Message::Rehearse { election: election.clone(), placements })
    }

    /// This node does not lead: what runs everywhere is put in place, and the role file says who
    /// leads. Anything exclusive that is still in place is withdrawn.
    ///
    /// # Errors
    /// When the election is not configured.
    pub fn follow(
        &self,
        election: &ElectionName,
        holder: Option<(NodeName, Token)>,
        placements: Vec<Placement>,
    ) -> Result<(), ManifestsError> {
        self.send(election, Message::Follow { election: election.clone(), holder, placements })
    }

    /// The policy answers differently while the stand is the same. A manifest that is not named
    /// is withheld.
    ///
    /// # Errors
    /// When the election is not configured.
    pub fn place(
        &self,
        election: &ElectionName,
        placements: Vec<Placement>,
    ) -> Result<(), ManifestsError> {
        self.send(election, Message::Place { election: election.clone(), placements })
    }

    /// Removes the election's exclusive effects and makes sure, then answers with
    /// [`ManifestEvent::Withdrawn`]; late, if the disk hangs. What runs everywhere stays. Of an
    /// election that is not configured, [`clean`](crate::clean()) withdrew everything at the start,
    /// or the ledger still names it.
    pub fn withdraw(&self, election: &ElectionName, op: OpId) {
        let message = Message::Withdraw { election: election.clone(), op };
        if self.send(election, message).is_ok() {
            return;
        }
        let left = self.shared.ledger.entries().into_iter();
        let left: Vec<String> = left
            .filter(|entry| entry.exclusive && entry.election == *election)
            .map(|entry| entry.path.display().to_string())
            .collect();
        let result = if left.is_empty() {
            Ok(())
        } else {
            Err(format!("could not be removed at the start: {}", left.join(", ")))
        };
        (self.shared.emit)(ManifestEvent::Withdrawn { op, election: election.clone(), result });
    }

    /// Ends the threads once they have done what they were told so far. `false` when some were
    /// not done within `patience`; they end as soon as the disk lets them.
    pub fn stop(self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let (done, finished) = mpsc::channel();
        let told = self.workers.iter().filter(|w| w.send(Message::Stop(done.clone())).is_ok());
        let told = told.count();
        drop(done);
        (0..told)
            .all(|_| finished.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok())
    }

    fn send(&self, election: &ElectionName, message: Message) -> Result<(), ManifestsError> {
        let unknown = || ManifestsError::UnknownElection { election: election.clone() };
        // A worker ends only when it is told to.
        self.by_election.get(election).ok_or_else(unknown)?.send(message).map_err(|_| unknown())
    }

    fn start_workers(&mut self, settings: &ManifestSettings) -> Result<(), ManifestsError> {
        let ledger = self.shared.ledger.entries();
        let variables = Arc::new(settings.variables.clone());
        let mut groups: BTreeMap<BTreeSet<PathBuf>, Vec<Contest>> = BTreeMap::new();
        for set in &settings.elections {
            let scope = Scope {
                node: settings.node.clone(),
                election: set.election.clone(),
                variables: Arc::clone(&variables),
            };
            let contest = Contest::new(set, scope, &ledger);
            let dirs = contest.dirs().into_iter().map(Path::to_owned).collect();
            groups.entry(dirs).or_default().push(contest);
        }
        for (number, contests) in (1u64..).zip(groups.into_values()) {
            let (sender, inbox) = mpsc::channel();
            for contest in &contests {
                self.by_election.insert(contest.election().clone(), sender.clone());
            }
            self.workers.push(sender.clone());
            let shared = Arc::clone(&self.shared);
            let worker = Worker::new(number, shared, contests, (sender, inbox));
            spawn(format!("manifests-{number}"), move || worker.run())?;
        }
        Ok(())
    }

    fn start_readers(&mut self, settings: &ManifestSettings) -> Result<(), ManifestsError> {
        let mut by_dir: BTreeMap<PathBuf, Vec<Subject>> = BTreeMap::new();
        for set in &settings.elections {
            let Some(worker) = self.by_election.get(&set.election) else { continue };
            for (dir, subject) in subjects(set, worker) {
                by_dir.entry(dir).or_default().push(subject);
            }
        }
        // Owners of watches are told apart by number; the workers have the low ones.
        for (number, (dir, subjects)) in (1u64..).zip(by_dir) {
            let (sender, inbox) = mpsc::channel();
            self.readers.push(sender.clone());
            let reader = Reader {
                id: u64::from(u32::MAX) + number,
                dir: Arc::from(dir),
                subjects,
                rescan: settings.rescan,
                watcher: Arc::clone(&self.shared.watcher),
                inbox,
                sender,
            };
            spawn(format!("sources-{number}"), move || reader.run())?;
        }
        Ok(())
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // Those that have ended already need not be told.
        for reader in &self.readers {
            let _ = reader.send(ReaderMessage::Stop);
        }
        for worker in &self.workers {
            let _ = worker.send(Message::Stop(mpsc::channel().0));
        }
    }
}

/// What an election's sources are, and by which directory they are read.
fn subjects(set: &ElectionManifests, worker: &Sender<Message>) -> Vec<(PathBuf, Subject)> {
    let mut subjects = Vec::new();
    for file in &set.files {
        let source = std::path::absolute(&file.source).unwrap_or_else(|_| file.source.clone());
        let dir = source.parent().unwrap_or(Path::new("/")).to_owned();
        let (worker, election, name) = (worker.clone(), set.election.clone(), file.name.clone());
        let subject = Subject::file(
            source,
            !file.handling.render,
            Box::new(move |result| {
                let report = Report::File { manifest: name.clone(), result };
                // A worker that is gone needs no news.
                let _ = worker.send(Message::Read { election: election.clone(), report });
            }),
        );
        subjects.push((dir, subject));
    }
    for (index, directory) in set.directories.iter().enumerate() {
        let dir = std::path::absolute(&directory.source).unwrap_or(directory.source.clone());
        let (worker, election) = (worker.clone(), set.election.clone());
        let subject = Subject::directory(
            !directory.handling.render,
            Box::new(move |result| {
                let report = Report::Directory { index, result };
                let _ = worker.send(Message::Read { election: election.clone(), report });
            }),
        );
        subjects.push((dir, subject));
    }
    subjects
}

/// A thread that panics takes the process along: the guard starts another daemon, which goes on
/// where this one stopped, while one that had lost a thread would never place or withdraw again.
fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), ManifestsError> {
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if thread::panicking() {
                process::abort();
            }
        }
    }
    let run = move || {
        let _abort = AbortOnPanic;
        run();
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run);
    thread.map(drop).map_err(|source| ManifestsError::Thread { name, source })
}

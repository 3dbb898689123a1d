//! A worker: one thread for the elections that write to the same directories.
//!
//! Elections that share all their directories share a worker, so that an election's manifests are
//! moved by plain sequential code, and a directory that hangs holds up only those elections that
//! write to it. Whatever has queued up is taken at once: what should go goes first, and what should
//! come costs one ledger write together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use conclave_core::ids::{ElectionName, NodeName, OpId, Token};
use conclave_core::view::Placement;

use crate::aside;
use crate::contest::{Contest, Report, Stand};
use crate::error::phrase;
use crate::event::{EventSink, ManifestEvent};
use crate::files;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::settle::{Plan, Tools};
use crate::watch::{Change, Watcher};

/// How many elections are placed between two looks at the queue, lest a withdrawal wait behind a
/// mass takeover.
const BATCH: usize = 32;

/// A probe writes at least this much: a small file may fit where a manifest would not.
const PROBE_BYTES: usize = 4096;

/// What a worker is told.
pub(crate) enum Message {
    Lead { election: ElectionName, token: Token, placements: Vec<Placement> },
    Follow { election: ElectionName, holder: Option<(NodeName, Token)>, placements: Vec<Placement> },
    Place { election: ElectionName, placements: Vec<Placement> },
    Rehearse { election: ElectionName, placements: Vec<Placement> },
    Prepare { election: ElectionName, token: Option<Token> },
    Withdraw { election: ElectionName, op: OpId },
    Read { election: ElectionName, report: Report },
    Changed(Change),
    Stop(Sender<()>),
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) state_dir: PathBuf,
    /// Tells this daemon's probes from those of others that use the same directory.
    pub(crate) mark: String,
    pub(crate) rescan: Duration,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) emit: EventSink,
    pub(crate) watcher: Arc<Watcher>,
}

/// The thread of one set of directories.
pub(crate) struct Worker {
    id: u64,
    shared: Arc<Shared>,
    contests: BTreeMap<ElectionName, Contest>,
    inbox: Receiver<Message>,
    /// For listeners.
    sender: Sender<Message>,
    /// By directory, why it cannot be written, if it cannot.
    probes: BTreeMap<Arc<Path>, Option<String>>,
    dirty: BTreeSet<ElectionName>,
    /// What waits until the effects are settled.
    left: Leftovers,
    started: Instant,
    next_rescan: Instant,
    stopping: Option<Sender<()>>,
}

impl Worker {
    pub(crate) fn new(
        id: u64,
        shared: Arc<Shared>,
        contests: Vec<Contest>,
        (sender, inbox): (Sender<Message>, Receiver<Message>),
    ) -> Worker {
        let contests: BTreeMap<_, _> =
            contests.into_iter().map(|contest| (contest.election().clone(), contest)).collect();
        let dirs: BTreeSet<&Path> = contests.values().flat_map(Contest::dirs).collect();
        let probes = dirs.into_iter().map(|dir| (Arc::from(dir), None)).collect();
        let now = Instant::now();
        Worker {
            id,
            shared,
            contests,
            inbox,
            sender,
            probes,
            dirty: BTreeSet::new(),
            left: Leftovers::default(),
            started: now,
            next_rescan: now,
            stopping: None,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        self.contests.values_mut().for_each(Contest::look_back);
        loop {
            if Instant::now() >= self.next_rescan {
                self.rescan();
            }
            self.settle();
            if let Some(done) = self.stopping.take() {
                // Nobody may be waiting any more.
                let _ = done.send(());
                return;
            }
            if !self.receive() {
                return;
            }
        }
    }

    /// Takes all that has queued up, waiting for it if there is nothing to do.
    fn receive(&mut self) -> bool {
        let due = self.contests.values().filter_map(|contest| contest.due).min();
        let next = due.map_or(self.next_rescan, |due| due.min(self.next_rescan));
        let mut wait = next.saturating_duration_since(Instant::now());
        if !self.dirty.is_empty() {
            wait = Duration::ZERO;
        }
        let mut message = self.inbox.recv_timeout(wait);
        loop {
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
            message = self.inbox.recv_timeout(Duration::ZERO);
        }
        let now = Instant::now();
        for (election, contest) in &self.contests {
            if contest.due.is_some_and(|due| due <= now) {
                self.dirty.insert(election.clone());
            }
        }
        true
    }

    fn take(&mut self, message: Message) {
        let election = match message {
            Message::Lead { election, token, placements } => {
                self.with(&election, |contest| {
                    contest.take_stand(Stand::Leading(token));
                    contest.place(placements);
                });
                election
            }
            Message::Follow { election, holder, placements } => {
                self.with(&election, |contest| {
                    contest.take_stand(Stand::Standby(holder));
                    contest.place(placements);
                });
                election
            }
            Message::Place { election, placements } => {
                self.with(&election, |contest| {
                    contest.place(placements);
                    // Perhaps this answer can be carried out.
                    contest.failed = None;
                });
                election
            }
            Message::Rehearse { election, placements } => {
                self.with(&election, |contest| contest.rehearse(&placements));
                election
            }
            Message::Prepare { election, token } => {
                self.with(&election, |contest| contest.preparation.expect(token));
                election
            }
            Message::Read { election, report } => {
                self.with(&election, |contest| contest.read(report));
                election
            }
            Message::Withdraw { election, op } => {
                self.withdraw(&election, op);
                election
            }
            Message::Changed(change) => return self.changed(&change),
            Message::Stop(done) => {
                self.stopping = Some(done);
                return;
            }
        };
        self.dirty.insert(election);
    }

    fn with(&mut self, election: &ElectionName, act: impl FnOnce(&mut Contest)) {
        if let Some(contest) = self.contests.get_mut(election) {
            act(contest);
        }
    }

    /// At once, and answered before the ledger is touched.
    fn withdraw(&mut self, election: &ElectionName, op: OpId) {
        let shared = Arc::clone(&self.shared);
        let Some(contest) = self.contests.get_mut(election) else { return };
        if !matches!(contest.stand, Stand::Standby(_)) {
            contest.take_stand(Stand::Standby(None));
        }
        contest.problems.clear();
        let mut tools = tools(&shared);
        let result = contest.withdraw(&mut tools);
        if let Err(reason) = &result {
            // Whoever asked says it aloud, and not again at every attempt.
            tracing::debug!(%election, reason, "cannot withdraw");
        }
        (shared.emit)(ManifestEvent::Withdrawn { op, election: election.clone(), result });
        self.left.add(tools);
    }

    fn changed(&mut self, change: &Change) {
        let name = change.name.as_deref().map(Path::new);
        if name.is_none() {
            // The directory itself, or lost events: look at it all.
            self.next_rescan = Instant::now();
        }
        for (election, contest) in &mut self.contests {
            if contest.suspect(change.dir.as_deref(), name) {
                self.dirty.insert(election.clone());
            }
        }
    }

    /// Watches first and looks then, so that nothing happens unseen between the two.
    fn rescan(&mut self) {
        self.next_rescan = Instant::now() + self.shared.rescan;
        for (dir, result) in &mut self.probes {
            self.shared.watcher.watch(dir, self.id, || {
                let sender = self.sender.clone();
                // A worker that is gone needs no news.
                Box::new(move |change| drop(sender.send(Message::Changed(change))))
            });
            let largest = self.contests.values().map(|contest| contest.largest(dir)).max();
            let bytes = largest.unwrap_or(0).max(PROBE_BYTES);
            let name = format!("probe-{}-{}", self.shared.mark, self.id);
            *result = files::probe(dir, &name, bytes).err().map(|error| phrase(&error));
        }
        for contest in self.contests.values_mut() {
            contest.closed = None;
        }
        self.dirty.extend(self.contests.keys().cloned());
        // Makes up for a write that failed.
        if let Err(error) = self.shared.ledger.forget(&[]) {
            tracing::warn!(error = phrase(&error), "the ledger is behind");
        }
    }

    fn settle(&mut self) {
        let batch: Vec<ElectionName> = self.dirty.iter().take(BATCH).cloned().collect();
        if batch.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut tools = tools(&shared);
        let now = Instant::now();
        let mut plans = Vec::new();
        for election in batch {
            self.dirty.remove(&election);
            if let Some(contest) = self.contests.get_mut(&election) {
                contest.begin(now);
                contest.remove_unwanted(&mut tools);
                plans.push((election, contest.plan()));
            }
        }
        self.enter(&mut plans);
        for entry in plans.iter().flat_map(|(_, plan)| &plan.entries) {
            // What went a moment ago comes back.
            self.left.forget.remove(&entry.path);
            tools.forget.remove(&entry.path);
        }
        let overdue = now.saturating_duration_since(self.started) >= shared.rescan;
        for (election, mut plan) in plans {
            if let Some(contest) = self.contests.get_mut(&election) {
                contest.prepare(&mut plan, shared.rescan);
                contest.carry_out(plan, &mut tools);
                contest.clear_preparation(&mut tools);
                contest.tell(&self.probes, overdue, &|event| (shared.emit)(event));
            }
        }
        self.left.add(tools);
        if self.dirty.is_empty() {
            self.left.clear_up(&shared);
        }
    }

    /// Enters everything into the ledger with one write; where that is refused, one by one.
    fn enter(&mut self, plans: &mut [(ElectionName, Plan)]) {
        let all = plans.iter().flat_map(|(_, plan)| plan.entries.iter().cloned()).collect();
        if self.shared.ledger.record(all).is_ok() {
            return;
        }
        for (election, plan) in plans {
            if let Err(error) = self.shared.ledger.record(plan.entries.clone())
                && let Some(contest) = self.contests.get_mut(election)
            {
                contest.give_up(plan, &error);
            }
        }
    }
}

fn tools(shared: &Shared) -> Tools<'_> {
    Tools {
        gate: &*shared.gate,
        emit: &*shared.emit,
        grudge: shared.rescan * 2,
        forget: BTreeSet::new(),
        asides: Vec::new(),
    }
}

/// What can wait until the effects are settled: no withdrawal waits for it.
#[derive(Default)]
struct Leftovers {
    forget: BTreeSet<PathBuf>,
    asides: Vec<(PathBuf, files::Target)>,
}

impl Leftovers {
    fn add(&mut self, tools: Tools<'_>) {
        self.forget.extend(tools.forget);
        self.asides.extend(tools.asides);
    }

    /// A ledger that names too much costs the next start a look.
    fn clear_up(&mut self, shared: &Shared) {
        aside::save_all(std::mem::take(&mut self.asides), &shared.state_dir);
        let forget: Vec<PathBuf> = std::mem::take(&mut self.forget).into_iter().collect();
        if !forget.is_empty()
            && let Err(error) = shared.ledger.forget(&forget)
        {
            tracing::warn!(error = phrase(&error), "the ledger is behind");
        }
    }
}

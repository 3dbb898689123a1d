//! A node in a temporary directory: sources, destinations, a gate to open and close, and the events.
#![allow(dead_code, reason = "each suite uses its part")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conclave_core::ids::{ElectionName, OpId, Token};
use conclave_core::record::Fitness;
use conclave_core::view::{ManifestView, Placement};
use conclave_manifests::{
    CleanReport, Effect, ElectionManifests, Gate, GateError, Handling, Ledger, LedgerDamage,
    ManifestDirectory, ManifestEvent, ManifestFile, ManifestSettings, Manifests, RoleRecord, Slot,
    Start, clean,
};
use tempfile::TempDir;

/// Longer than anything takes on the noisiest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ELECTION: &str = "masters";

/// A small manifest that can be told from others.
pub(crate) fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

/// Stands in for the guard.
#[derive(Default)]
pub(crate) struct FakeGate {
    pub(crate) closed: AtomicBool,
    /// Closes when it is asked for this many times more.
    pub(crate) asks_left: Mutex<Option<usize>>,
    pub(crate) claims: Mutex<Vec<(Token, Effect, PathBuf, PathBuf)>>,
    pub(crate) standing: Arc<AtomicUsize>,
    /// Called at every question, with the claimed paths.
    pub(crate) on_ask: Mutex<Option<OnAsk>>,
}

pub(crate) type OnAsk = Arc<dyn Fn(&Path, &Path) + Send + Sync>;

struct FakeSlot {
    gate: Arc<FakeGate>,
    destination: PathBuf,
    staged: PathBuf,
}

/// The gate as the loop gets it.
pub(crate) struct GateHandle(pub(crate) Arc<FakeGate>);

impl Gate for GateHandle {
    fn claim(
        &self,
        _election: &ElectionName,
        token: Token,
        effect: Effect,
        destination: &Path,
        staged: &Path,
    ) -> Result<Box<dyn Slot>, GateError> {
        if self.0.closed.load(SeqCst) {
            return Err(GateError::Closed { token });
        }
        let (destination, staged) = (destination.to_owned(), staged.to_owned());
        let claim = (token, effect, destination.clone(), staged.clone());
        self.0.claims.lock().unwrap().push(claim);
        self.0.standing.fetch_add(1, SeqCst);
        Ok(Box::new(FakeSlot { gate: Arc::clone(&self.0), destination, staged }))
    }
}

impl Slot for FakeSlot {
    fn open(&self) -> bool {
        let on_ask = self.gate.on_ask.lock().unwrap().clone();
        if let Some(on_ask) = on_ask {
            on_ask(&self.destination, &self.staged);
        }
        if let Some(left) = &mut *self.gate.asks_left.lock().unwrap() {
            if *left == 0 {
                self.gate.closed.store(true, SeqCst);
            }
            *left = left.saturating_sub(1);
        }
        !self.gate.closed.load(SeqCst)
    }

    fn release(&self) -> bool {
        self.gate.standing.fetch_sub(1, SeqCst);
        true
    }
}

/// One node's directories and settings, before and between the lives of its daemon.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) settings: ManifestSettings,
    pub(crate) gate: Arc<FakeGate>,
}

impl Node {
    /// Nothing but empty directories `src`, `dst` and `state`.
    pub(crate) fn empty() -> Node {
        let dir = tempfile::tempdir().unwrap();
        for name in ["src", "dst", "state"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let election = ElectionManifests {
            election: ELECTION.into(),
            files: Vec::new(),
            directories: Vec::new(),
            role_file: None,
        };
        let settings = ManifestSettings {
            node: "a".into(),
            variables: [("IP".to_owned(), "10.0.0.1".to_owned())].into(),
            state_dir: dir.path().join("state"),
            // Long, so that what these tests see comes from inotify unless they ask for rescans.
            rescan: Duration::from_secs(30),
            elections: vec![election],
        };
        Node { dir, settings, gate: Arc::default() }
    }

    /// With these manifests, exclusive and with sources in `src`.
    pub(crate) fn with(names: &[&str]) -> Node {
        let mut node = Node::empty();
        for name in names {
            node.add(name, Handling::default());
            fs::write(node.src(name), pod(name)).unwrap();
        }
        node
    }

    pub(crate) fn add(&mut self, name: &str, handling: Handling) {
        let (source, destination) = (self.src(name), self.dst(name));
        let file = ManifestFile { name: name.into(), source, destination, handling };
        self.election().files.push(file);
    }

    pub(crate) fn add_directory(&mut self, handling: Handling) {
        let directory = ManifestDirectory {
            source: self.dir.path().join("src"),
            destination: self.dir.path().join("dst"),
            handling,
        };
        self.election().directories.push(directory);
    }

    pub(crate) fn add_role_file(&mut self) -> PathBuf {
        let path = self.dir.path().join("dst").join("role.json");
        self.election().role_file = Some(path.clone());
        path
    }

    pub(crate) fn election(&mut self) -> &mut ElectionManifests {
        &mut self.settings.elections[0]
    }

    pub(crate) fn handle(&mut self, change: impl Fn(&mut Handling)) {
        let election = self.election();
        election.files.iter_mut().for_each(|file| change(&mut file.handling));
        election.directories.iter_mut().for_each(|directory| change(&mut directory.handling));
    }

    pub(crate) fn src(&self, name: &str) -> PathBuf {
        self.dir.path().join("src").join(format!("{name}.yaml"))
    }

    pub(crate) fn dst(&self, name: &str) -> PathBuf {
        self.dir.path().join("dst").join(format!("{name}.yaml"))
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    /// The names in the destination directory, without `.conclave`.
    pub(crate) fn placed(&self) -> Vec<String> {
        names(&self.dir.path().join("dst")).into_iter().filter(|name| name != ".conclave").collect()
    }

    /// The names left in the staging directory.
    pub(crate) fn staged(&self) -> Vec<String> {
        names(&self.dir.path().join("dst").join(".conclave"))
    }

    /// The contents of what was saved, oldest first.
    pub(crate) fn saved(&self) -> Vec<String> {
        let dir = self.state("saved");
        names(&dir).iter().map(|name| fs::read_to_string(dir.join(name)).unwrap()).collect()
    }

    pub(crate) fn ledger_paths(&self) -> Vec<PathBuf> {
        let (ledger, damage) = Ledger::open(&self.settings.state_dir).unwrap();
        assert_eq!(damage, None);
        ledger.entries().into_iter().map(|entry| entry.path).collect()
    }

    pub(crate) fn open_ledger(&self) -> (Ledger, Option<LedgerDamage>) {
        Ledger::open(&self.settings.state_dir).unwrap()
    }

    /// Begins a life of the daemon.
    pub(crate) fn start(&self, start: Start) -> (Loop, CleanReport) {
        let (ledger, damage) = self.open_ledger();
        let report = clean(&self.settings, &ledger, damage.as_ref(), start);
        let (sender, events) = channel();
        let emit = Box::new(move |event| drop(sender.send(event)));
        let gate = Arc::new(GateHandle(Arc::clone(&self.gate)));
        let manifests = Manifests::start(&self.settings, ledger, gate, emit).unwrap();
        let running =
            Loop { manifests, events, names: Vec::new(), seen: Vec::new(), fitness: None };
        (running, report)
    }

    /// Begins a first life, and waits until the sources are known.
    pub(crate) fn run(&self) -> Loop {
        let (mut running, report) = self.start(Start::Fresh);
        assert_eq!(report, CleanReport::default());
        running.wait_for_sources();
        running
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A life of the daemon.
pub(crate) struct Loop {
    pub(crate) manifests: Manifests,
    events: Receiver<ManifestEvent>,
    /// The manifests as last reported.
    pub(crate) names: Vec<String>,
    /// Every event so far.
    pub(crate) seen: Vec<ManifestEvent>,
    /// The fitness as last reported.
    pub(crate) fitness: Option<Fitness>,
}

impl Loop {
    /// Waits for an event that `pick` takes.
    pub(crate) fn wait<T>(&mut self, what: &str, pick: impl Fn(&ManifestEvent) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("no {what}; so far: {:#?}", self.seen);
            };
            match &event {
                ManifestEvent::Sources { manifests, .. } => {
                    self.names = manifests.iter().map(|manifest| manifest.name.clone()).collect();
                }
                ManifestEvent::Fitness { fitness, .. } => self.fitness = Some(fitness.clone()),
                _ => {}
            }
            let picked = pick(&event);
            self.seen.push(event);
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    pub(crate) fn wait_for_sources(&mut self) -> Vec<ManifestView> {
        self.wait("sources", |event| match event {
            ManifestEvent::Sources { manifests, .. } => Some(manifests.clone()),
            _ => None,
        })
    }

    pub(crate) fn wait_for_fitness(
        &mut self,
        what: &str,
        test: impl Fn(&Fitness) -> bool,
    ) -> Fitness {
        if let Some(fitness) = self.fitness.clone().filter(|fitness| test(fitness)) {
            return fitness;
        }
        self.wait(what, |event| match event {
            ManifestEvent::Fitness { fitness, .. } if test(fitness) => Some(fitness.clone()),
            _ => None,
        })
    }

    pub(crate) fn wait_until_unfit(&mut self, reason: &str) {
        self.wait_for_fitness(reason, |fitness| {
            !fitness.fit && fitness.reasons.iter().any(|text| text.contains(reason))
        });
    }

    pub(crate) fn wait_until_fit(&mut self) {
        self.wait_for_fitness("being fit", |fitness| *fitness == Fitness::fit());
    }

    /// Fit, with a reason.
    pub(crate) fn wait_until_degraded(&mut self, reason: &str) {
        self.wait_for_fitness(reason, |fitness| {
            fitness.fit && fitness.reasons.iter().any(|text| text.contains(reason))
        });
    }

    pub(crate) fn wait_until_placed(&mut self, token: u64) {
        self.wait("placing", |event| match event {
            ManifestEvent::Placed { token: Token(placed), .. } if *placed == token => Some(()),
            _ => None,
        });
    }

    pub(crate) fn wait_until_not_placed(&mut self) -> String {
        self.wait("failure to place", |event| match event {
            ManifestEvent::NotPlaced { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    }

    pub(crate) fn wait_for_repair(&mut self, path: &Path) {
        self.wait("repair", |event| match event {
            ManifestEvent::Repaired { path: repaired, .. } if repaired == path => Some(()),
            _ => None,
        });
    }

    /// Everything runs.
    pub(crate) fn all(&self) -> Vec<Placement> {
        self.names.iter().map(|name| run(name)).collect()
    }

    pub(crate) fn lead(&self, token: u64) {
        self.manifests.lead(&ELECTION.into(), Token(token), self.all()).unwrap();
    }

    pub(crate) fn follow(&self) {
        self.manifests.follow(&ELECTION.into(), None, self.all()).unwrap();
    }

    /// Leads, and waits until everything is in place.
    pub(crate) fn lead_and_wait(&mut self, token: u64) {
        self.lead(token);
        self.wait_until_placed(token);
    }

    pub(crate) fn withdraw(&mut self) -> Result<(), String> {
        let asked = OpId(self.seen.len() as u64 + 1000);
        self.manifests.withdraw(&ELECTION.into(), asked);
        self.wait("withdrawal", |event| match event {
            ManifestEvent::Withdrawn { op, result, .. } if *op == asked => Some(result.clone()),
            _ => None,
        })
    }

    /// Ends this life in order, and looks at all that was reported in it.
    pub(crate) fn end_and_look(mut self, look: impl Fn(&[ManifestEvent])) {
        assert!(self.manifests.stop(PATIENCE), "the threads end");
        self.seen.extend(self.events.try_iter());
        look(&self.seen);
    }

    /// Ends this life in order; what is in place stays.
    pub(crate) fn end(self) {
        assert!(self.manifests.stop(PATIENCE), "the threads end");
    }
}

/// A placement that runs a manifest.
pub(crate) fn run(name: &str) -> Placement {
    Placement { manifest: name.into(), run: true, variables: Default::default() }
}

/// Waits for what the loop reports by no event.
pub(crate) fn eventually(what: &str, test: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A whole new file in one step.
pub(crate) fn replace(path: &Path, text: &str) {
    let next = path.with_extension("new");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

pub(crate) fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

pub(crate) fn role(path: &Path) -> RoleRecord {
    RoleRecord::from_json(&fs::read(path).unwrap(), &ELECTION.into()).expect("a role file")
}

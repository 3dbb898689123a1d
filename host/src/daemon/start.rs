//! One life of the daemon, from the lock to the end.
//!
//! 1. Take the lock and attach to the guard's page: no daemon runs without a guard.
//! 2. Decide between adoption and a fresh start (`adoption`); a fresh start withdraws what an
//!    earlier life left before it does anything else (`cleaning`).
//! 3. Load the policies (the first daemon of a guard refuses a configuration that they refuse).
//! 4. Open the store, start the manifest loop and the checks, create the core, run the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{Action, Core, ElectionName, NodeName, Nonce, Past, Revision};
use conclave_guard::{Attached, Clock, DaemonLock, LockError, Page, PageError, Reading, boot_id};
use conclave_manifests::{
    Ledger, LedgerError, Manifests, ManifestsError, Memory, MemoryError, Start,
};
use conclave_store::Store;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use crate::check;
use crate::config::{Config, ConfigErrors, ElectionConfig, Instance, Occasion};
use crate::daemon::adoption::{Adopted, adopt};
use crate::daemon::binding::Recorder;
use crate::daemon::cleaning::clean_up;
use crate::daemon::fitness::FitnessBook;
use crate::daemon::gate::PageGate;
use crate::daemon::hooks::Hooks;
use crate::daemon::limiter::Limiter;
use crate::daemon::memory::{Keeper, Lineage};
use crate::daemon::pauses::Pauses;
use crate::daemon::placing::Places;
use crate::daemon::plugins::{self, Stamps};
use crate::daemon::policies::PolicySet;
use crate::daemon::shell::{Input, Shell};
use crate::daemon::stops::Stops;
use crate::daemon::stores::{self, OpenError};
use crate::daemon::stuck::Stuck;
use crate::decisions::DecisionLog;
use crate::exec::Runner;
use crate::http::{self, Board, Metrics, Outlook, Shown};

/// How long standing as a candidate waits for policies to be compiled (design, "Policies").
const COMPILE_LIMIT: Duration = Duration::from_secs(30);

/// A loop that has not come round for so many of its own beats hangs; each takes a fraction of a second.
const MISSED_ROUNDS: u32 = 20;

/// How long the last writes to disk get.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How the daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and gave everything up.
    Stopped,
    /// What it led for, a command, ended with this status; it gave everything up.
    Command(u8),
    /// It was told to stop twice, or before it could withdraw what an earlier life left: the guard
    /// withdraws what is left.
    Aborted,
    /// It made room for another daemon, which goes on with its session and its terms.
    SteppedAside,
    /// Its guard did not watch over it any more; it gave everything up.
    Unwatched,
    /// Another live daemon has this node's name.
    NameTaken {
        /// Its instance nonce.
        nonce: Nonce,
        /// Where it says it is.
        addresses: Vec<String>,
    },
    /// The store's revisions went back.
    StoreWentBack {
        /// The highest revision seen before.
        known: Revision,
        /// What it now says.
        seen: Revision,
    },
    /// A node of the cluster writes what this version cannot read.
    NewerFormat {
        /// Which node.
        node: NodeName,
        /// The version of its records.
        format: u32,
    },
    /// Another store answers than the one this node knows.
    OtherStore(String),
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Policies refuse the configuration.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The daemon was started by hand.
    #[error("the daemon is started by its guard; use `conclave run`")]
    NoGuard,
    /// The lock is not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The guard's page is not usable.
    #[error(transparent)]
    Page(#[from] PageError),
    /// What an earlier life remembered is not readable.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What an earlier life placed is not readable.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store can never work as configured.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The manifest loop refuses its settings.
    #[error(transparent)]
    Manifests(#[from] ManifestsError),
    /// Something of the system is missing.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { action, source }
}

/// Runs one life of the daemon.
///
/// # Errors
/// When it cannot start; once the core runs, everything else is an [`Ended`].
pub async fn run(config: Config) -> Result<Ended, StartError> {
    let mut stops = Stops::listen().map_err(system("listen for signals"))?;
    let config = Arc::new(config);
    // Never let go of by hand: work that hangs in a thread could still touch files that a next
    // pair has placed. The kernel lets go when the last thread is gone.
    let lock = ManuallyDrop::new(DaemonLock::acquire(&config.state_directory)?);
    let mut attached = Page::attach_from_env(&lock)?.ok_or(StartError::NoGuard)?;
    let page = attached.page;
    let lineage = Lineage {
        boot_id: boot_id().map_err(system("read the machine's boot id"))?,
        guard_nonce: std::env::var("CONCLAVE_GUARD_NONCE").unwrap_or_default(),
        ttl_ms: config.timings.protocol.ttl.as_millis() as u64,
    };

    let memory = remembered(&config)?;
    let (ledger, damage) = Ledger::open(&config.state_directory)?;
    if let Some(damage) = &damage {
        error!(kept = %damage.kept.display(), reason = damage.reason, "the ledger was damaged");
    }
    let clock = Clock::new();
    let adopted = adopt(page, memory.session.as_ref(), &ledger.entries(), &clock, &lineage);
    // Whether a daemon of this guard stood here before: then nobody waits to mend what is wrong. The
    // page knows at once, and for as long as that session may have left something.
    let again = page.session().is_some()
        || memory.session.as_ref().is_some_and(|last| last.guard_nonce == lineage.guard_nonce);

    let (inputs, received) = unbounded_channel();
    let (ledger, policies) = if adopted.is_some() {
        let ledger = clean_up(&config, &mut attached, ledger, damage, Start::Adopt).await?;
        // A restarted daemon must not lose a term to a policy that was replaced by a bad one, nor
        // to the time that compiling takes.
        let seen = Stamps::of(&config);
        policies_later(
            &config,
            seen,
            PolicySet::begin(Arc::clone(&config), Occasion::Again),
            &inputs,
        );
        (ledger, PolicySet::none())
    } else {
        let cleaning = clean_up(&config, &mut attached, ledger, damage, Start::Fresh);
        let Some(ledger) = stops.unless(cleaning).await else {
            warn!("told to stop before everything that an earlier daemon left was withdrawn");
            return Ok(Ended::Aborted);
        };
        let loading = beating(page, first_policies(&config, again, &inputs));
        let Some(policies) = stops.unless(loading).await else { return Ok(Ended::Stopped) };
        (ledger?, policies?)
    };
    let session = memory.session.as_ref().filter(|s| lock.previous_daemon_dead(&s.boot_id));
    let dead = session.map(|session| session.nonce.clone());
    let life =
        Life { config, attached, lineage, memory, dead, clock, adopted, ledger, policies, inputs };
    let (shell, first) = life.begin().await?;
    live(shell, first, received, stops).await
}

/// What a life has once everything before it is cleaned up.
struct Life {
    config: Arc<Config>,
    attached: Attached,
    lineage: Lineage,
    memory: Memory,
    /// The nonce of the daemon before, if that is proven dead.
    dead: Option<Nonce>,
    clock: Clock,
    adopted: Option<Adopted>,
    ledger: Ledger,
    policies: PolicySet,
    inputs: UnboundedSender<Input>,
}

impl Life {
    /// Starts everything that the loop works with.
    async fn begin(mut self) -> Result<(Shell, Vec<Action>), StartError> {
        let config = self.config;
        let store = beating(self.attached.page, stores::open(&config)).await?;
        let manifests = start_manifests(&config, self.ledger, &self.attached, &self.inputs)?;
        let (adopt, slots) = match self.adopted {
            None => (None, BTreeMap::new()),
            Some(Adopted { adoption, slots }) => (Some(adoption), slots),
        };
        let (revision, tokens) = (self.memory.revision, self.memory.tokens.clone());
        let past = Past { dead: self.dead, adopt, revision, tokens };
        let settings = config.settings(instance(self.lineage.boot_id.clone(), past)?);
        let (core, first) = Core::new(settings, self.clock.now());
        let directory = config.state_directory.clone();
        let metrics = Arc::new(Metrics::new());
        let shown = shown(&config, &self.attached, &metrics, &store);
        let log = DecisionLog::start(&config.state_directory);
        let node = config.node.name.clone();
        let recorder = Recorder { log, metrics: Arc::clone(&metrics), node };
        let policies = self.policies.recorded_by(&recorder);
        if let Some(shown) = &shown {
            shown.outlook.rank_by(policies.clone());
        }
        let names = config.elections.iter().map(|election| election.name.clone());
        let shell = Shell {
            index: names.zip(0..).collect(),
            shown,
            recorder,
            placed: BTreeMap::new(),
            hooks: Hooks::start(&config, |election| slots.contains_key(election), &metrics),
            metrics,
            runner: runner(&config, self.attached.page, &self.inputs),
            command_ended: None,
            pauses: Pauses::new(Arc::clone(&store), config.timings.protocol.request_timeout),
            core,
            clock: self.clock,
            store,
            manifests,
            attached: self.attached,
            adopted: slots,
            memory: Keeper::start(self.memory, directory, self.lineage),
            fitness: fitness(&config),
            _checks: start_checks(&config, &self.inputs),
            places: Places::default(),
            policies,
            failing: BTreeMap::new(),
            asking_again: BTreeSet::new(),
            limiter: Limiter::default(),
            inputs: self.inputs,
            watch: None,
            watches: 0,
            outage: false,
            other_store: None,
            unwatched: false,
            ended: None,
            stuck: Stuck::new(&config),
            config,
        };
        Ok((shell, first))
    }
}

/// What runs commands while this node leads, and has the loop hear of their ends.
fn runner(config: &Config, page: Page, inputs: &UnboundedSender<Input>) -> Runner {
    let command = |it: &ElectionConfig| Some((it.name.clone(), it.command.clone()?));
    let commands = config.elections.iter().filter_map(command).collect();
    let inputs = inputs.clone();
    Runner::new(page, config.node.name.clone(), commands, move |finished| {
        // The loop has ended, and the command with it.
        let _ = inputs.send(Input::Command(finished));
    })
}

/// What others read of this node, where somebody may, and who answers with it.
fn shown(
    config: &Config,
    attached: &Attached,
    metrics: &Arc<Metrics>,
    store: &Arc<dyn Store>,
) -> Option<Shown> {
    let http = config.http.as_ref()?;
    let (cluster, node) = (config.cluster.clone(), config.node.name.clone());
    let patience = attached.page.beat_period() * MISSED_ROUNDS;
    let board = Board::new(cluster.clone(), node.clone(), attached.page, patience);
    let limit = config.timings.protocol.request_timeout;
    let outlook = Outlook::start(cluster, node, store, limit);
    let shown = Shown { board: Arc::new(board), metrics: Arc::clone(metrics), outlook };
    http::serve(http, shown.clone());
    Some(shown)
}

/// Runs the loop to its end, and gives the last writes a moment.
async fn live(
    shell: Shell,
    first: Vec<Action>,
    received: UnboundedReceiver<Input>,
    stops: Stops,
) -> Result<Ended, StartError> {
    let (ended, memory, manifests) =
        shell.run(first, received, stops).await.map_err(system("wait for events"))?;
    if timeout(LAST_WRITES, memory.finish()).await.is_err() {
        warn!("the daemon's memory could not be written in time");
    }
    let stopping = tokio::task::spawn_blocking(|| manifests.stop(LAST_WRITES));
    if !stopping.await.unwrap_or(false) {
        warn!("the manifest loop's last writes did not finish in time");
    }
    Ok(ended)
}

/// Shows the guard that the daemon is alive while it still starts and has no loop.
pub(crate) async fn beating<T>(page: Page, work: impl Future<Output = T>) -> T {
    let mut beats = interval(page.beat_period());
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beats.tick() => page.beat(Reading::now()),
        }
    }
}

/// What earlier lives remember of this node.
fn remembered(config: &Config) -> Result<Memory, StartError> {
    let mut memory = Memory::load(&config.state_directory)?;
    if memory.node.as_ref().is_some_and(|node| *node != config.node.name) {
        memory.session = None; // remembered for another name
    }
    memory.node = Some(config.node.name.clone());
    Ok(memory)
}

fn instance(boot_id: String, past: Past) -> Result<Instance, StartError> {
    let nonce = new_nonce().map_err(system("make an instance nonce"))?;
    Ok(Instance { nonce, boot_id, addresses: vec![address()], past })
}

fn start_manifests(
    config: &Config,
    ledger: Ledger,
    attached: &Attached,
    inputs: &UnboundedSender<Input>,
) -> Result<Manifests, ManifestsError> {
    let sink = inputs.clone();
    Manifests::start(
        &config.manifest_settings(),
        ledger,
        Arc::new(PageGate::new(attached.page)),
        Box::new(move |event| {
            // The loop has ended: nobody waits for the event.
            let _ = sink.send(Input::Manifest(event));
        }),
    )
}

fn fitness(config: &Config) -> FitnessBook {
    FitnessBook::new(config.elections.iter().map(|election| {
        let checks = config.node.fitness.iter().chain(&election.fitness);
        (election.name.clone(), checks.map(|check| check.name.as_str()).collect())
    }))
}

/// The policies of a fresh start, which are watched from then on. Those that take longer than they
/// may come later. `again`: nobody waits to mend what is wrong with them.
async fn first_policies(
    config: &Arc<Config>,
    again: bool,
    inputs: &UnboundedSender<Input>,
) -> Result<PolicySet, ConfigErrors> {
    let seen = Stamps::of(config);
    let occasion = if again { Occasion::Again } else { Occasion::Start };
    let mut loading = PolicySet::begin(Arc::clone(config), occasion);
    let Ok(loaded) = timeout(COMPILE_LIMIT, &mut loading).await else {
        policies_later(config, seen, loading, inputs);
        return Ok(PolicySet::failed(config, "its policy is still being compiled"));
    };
    let policies =
        match loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            // A component that was half copied while its daemon died must not cost the node.
            Err(errors) if again => stand_in(config, &errors),
            loaded => loaded?,
        };
    plugins::watch(Arc::clone(config), seen, policies.clone(), inputs.clone());
    Ok(policies)
}

/// What decides in the place of policies that cannot be used.
fn stand_in(config: &Config, errors: &ConfigErrors) -> PolicySet {
    error!(%errors, "policies cannot be used; what stands in for them decides");
    PolicySet::failed(config, &errors.to_string())
}

/// Has the loop take the policies in when they are there, and whenever they change.
fn policies_later(
    config: &Arc<Config>,
    seen: Stamps,
    loading: JoinHandle<Result<PolicySet, ConfigErrors>>,
    inputs: &UnboundedSender<Input>,
) {
    let (config, inputs) = (Arc::clone(config), inputs.clone());
    tokio::spawn(async move {
        let policies = match loading.await {
            Ok(Ok(policies)) => policies,
            Ok(Err(errors)) => stand_in(&config, &errors),
            Err(panic) => {
                error!(%panic, "loading the policies failed; what stands in for them decides");
                PolicySet::failed(&config, "loading it failed")
            }
        };
        // The loop may have ended meanwhile.
        let _ = inputs.send(Input::Policies(policies.clone()));
        plugins::watch(config, seen, policies, inputs);
    });
}

fn start_checks(config: &Config, inputs: &UnboundedSender<Input>) -> Vec<check::Watch> {
    let (reports, mut received) = unbounded_channel();
    let inputs = inputs.clone();
    tokio::spawn(async move {
        while let Some(report) = received.recv().await {
            if inputs.send(Input::Check(report)).is_err() {
                return;
            }
        }
    });
    let all: Vec<ElectionName> = config.elections.iter().map(|e| e.name.clone()).collect();
    let node = check::watch(&all, &config.node.fitness, &reports);
    let of_election = |election: &ElectionConfig| {
        check::watch(std::slice::from_ref(&election.name), &election.fitness, &reports)
    };
    std::iter::once(node).chain(config.elections.iter().map(of_election)).collect()
}

fn new_nonce() -> std::io::Result<Nonce> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(Nonce::new(uuid.trim()))
}

/// Where a person finds this daemon.
fn address() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}, process {}", std::process::id())
}

//! One life of the daemon, from the lock to the end.
//!
//! 1. Take the lock and attach to the guard's page: no daemon runs without a guard.
//! 2. Decide between adoption and a fresh start; a fresh start withdraws what an earlier life
//!    left before it does anything else.
//! 3. Load the policies (a fresh start refuses a configuration that they refuse).
//! 4. Open the store, start the manifest loop and the checks, create the core, run the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{Adoption, Core, ElectionName, Nonce, Past, Revision, Token};
use conclave_guard::{Attached, Clock, DaemonLock, LockError, Page, PageError, Reading, boot_id};
use conclave_manifests::{
    Ledger, LedgerError, Manifests, ManifestsError, Memory, MemoryError, Start, clean,
};
use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};

use crate::check;
use crate::config::{Config, ConfigErrors, Instance};
use crate::daemon::fitness::FitnessBook;
use crate::daemon::gate::PageGate;
use crate::daemon::limiter::Limiter;
use crate::daemon::memory::{Keeper, Lineage};
use crate::daemon::placing::Places;
use crate::daemon::policies::PolicySet;
use crate::daemon::shell::{Input, Shell};
use crate::daemon::stores::{self, OpenError};

/// How long standing as a candidate waits for policies to be compiled (design, "Policies").
const COMPILE_LIMIT: Duration = Duration::from_secs(30);

/// How long the manifest loop gets to finish its last writes.
const MANIFESTS_PATIENCE: Duration = Duration::from_secs(2);

/// Between attempts to clean up what an earlier life left.
const CLEAN_AGAIN: Duration = Duration::from_secs(1);

/// How the daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and gave everything up.
    Stopped,
    /// It was told to stop twice: the guard withdraws what is left.
    Aborted,
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
    let config = Arc::new(config);
    let state_dir = config.state_directory.clone();
    let lock = DaemonLock::acquire(&state_dir)?;
    let attached = Page::attach_from_env(&lock)?.ok_or(StartError::NoGuard)?;
    let boot = boot_id().map_err(system("read the machine's boot id"))?;
    let lineage = Lineage {
        boot_id: boot.clone(),
        guard_nonce: std::env::var("CONCLAVE_GUARD_NONCE").unwrap_or_default(),
        ttl_ms: config.timings.protocol.ttl.as_millis() as u64,
    };

    let mut memory = Memory::load(&state_dir)?;
    if memory.node.as_ref().is_some_and(|node| *node != config.node.name) {
        memory.session = None; // remembered for another name
    }
    memory.node = Some(config.node.name.clone());
    let (ledger, damage) = Ledger::open(&state_dir)?;
    if let Some(damage) = &damage {
        error!(kept = %damage.kept.display(), reason = damage.reason, "the ledger was damaged");
    }

    let mut clock = Clock::new();
    let now = clock.now();
    let adopt = adoption(&attached, &memory, &ledger, &clock, &lineage);
    let start = if adopt.is_some() { Start::Adopt } else { Start::Fresh };
    let attached = clean_up(&config, attached, &ledger, damage.as_ref(), start).await?;

    // A restarted daemon must not lose a term to a policy that was replaced by a bad one.
    let policies = match start {
        Start::Fresh => PolicySet::load(Arc::clone(&config), COMPILE_LIMIT).await?,
        Start::Adopt => PolicySet::none(),
    };

    let store = stores::open(&config).await?;
    let (inputs, received) = unbounded_channel();
    let sink = inputs.clone();
    let manifests = Manifests::start(
        &config.manifest_settings(),
        ledger,
        Arc::new(PageGate::new(attached.page)),
        Box::new(move |event| {
            // The loop has ended: nobody waits for the event.
            let _ = sink.send(Input::Manifest(event));
        }),
    )?;
    let _checks = start_checks(&config, &inputs);
    if start == Start::Adopt {
        load_policies_later(Arc::clone(&config), &inputs);
    }

    let session = memory.session.as_ref().filter(|s| lock.previous_daemon_dead(&s.boot_id));
    let past = Past {
        dead: session.map(|session| session.nonce.clone()),
        adopt,
        revision: memory.revision,
        tokens: memory.tokens.clone(),
    };
    let nonce = new_nonce().map_err(system("make an instance nonce"))?;
    let instance = Instance { nonce, boot_id: boot.clone(), addresses: vec![address()], past };
    let (core, first) = Core::new(config.settings(instance), now);
    let shell = Shell {
        core,
        clock,
        store,
        manifests,
        attached,
        memory: Keeper::start(memory, state_dir, lineage),
        fitness: FitnessBook::new(config.elections.iter().map(|election| {
            let checks = election.fitness.iter().map(|check| check.name.as_str()).collect();
            (election.name.clone(), checks)
        })),
        places: Places::default(),
        policies,
        limiter: Limiter::default(),
        inputs,
        watch: None,
        watches: 0,
        outage: false,
        other_store: None,
        ended: None,
        stuck_told: BTreeMap::new(),
        config,
    };
    let (ended, memory, manifests) =
        shell.run(first, received).await.map_err(system("wait for events"))?;
    memory.finish().await;
    if !tokio::task::block_in_place(|| manifests.stop(MANIFESTS_PATIENCE)) {
        warn!("the manifest loop's last writes did not finish in time");
    }
    drop(lock);
    Ok(ended)
}

/// The session to go on with: made by a daemon of this very guard, in this boot, for this node,
/// with the same TTL, and with its deadline still ahead.
fn adoption(
    attached: &Attached,
    memory: &Memory,
    ledger: &Ledger,
    clock: &Clock,
    lineage: &Lineage,
) -> Option<Adoption> {
    let page = attached.page.session().filter(|session| session.stands(Reading::now()))?;
    let session = memory.session.as_ref();
    let session = session.filter(|session| session.id == page.id && lineage.made(session))?;
    let placed = ledger.entries();
    let mut terms: BTreeMap<ElectionName, Token> = BTreeMap::new();
    for claim in attached.page.claims() {
        let entry = placed.iter().find(|e| e.path == claim.dest && e.token == Some(claim.token));
        match entry {
            Some(entry) => {
                terms.insert(entry.election.clone(), claim.token);
            }
            // Claimed, but nothing appeared before the daemon died.
            None => {
                let _ = attached.page.release(claim.id);
            }
        }
    }
    info!(session = %page.id, terms = terms.len(), "adopting the session of the daemon before");
    Some(Adoption {
        session: session.id,
        nonce: session.nonce.clone(),
        deadline: clock.to_time(page.deadline),
        terms,
    })
}

/// Withdraws what an earlier life left, and does not go on before that has succeeded: its session
/// must not be ended while something exclusive may be in place.
async fn clean_up(
    config: &Arc<Config>,
    mut attached: Attached,
    ledger: &Ledger,
    damage: Option<&conclave_manifests::LedgerDamage>,
    start: Start,
) -> Result<Attached, StartError> {
    let settings = config.manifest_settings();
    let mut told: Vec<(PathBuf, String)> = Vec::new();
    loop {
        let report = tokio::task::block_in_place(|| clean(&settings, ledger, damage, start));
        for path in &report.withdrawn {
            warn!(path = %path.display(), "withdrew what an earlier daemon left");
        }
        for path in &report.doubtful {
            error!(path = %path.display(), "this file may be ours, but nothing proves it; left alone");
        }
        if report.failed.is_empty() {
            break;
        }
        if told != report.failed {
            for (path, reason) in &report.failed {
                error!(path = %path.display(), reason, "cannot withdraw what an earlier daemon left; not starting before that");
            }
            told = report.failed;
        }
        attached.page.beat(Reading::now());
        tokio::time::sleep(CLEAN_AGAIN.min(attached.page.beat_period())).await;
    }
    if start == Start::Fresh {
        for claim in attached.page.claims() {
            attached.page.release(claim.id)?;
        }
        attached.session.end()?;
    }
    Ok(attached)
}

fn start_checks(
    config: &Config,
    inputs: &tokio::sync::mpsc::UnboundedSender<Input>,
) -> Vec<check::Watch> {
    let (reports, mut received) = unbounded_channel();
    let inputs = inputs.clone();
    tokio::spawn(async move {
        while let Some(report) = received.recv().await {
            if inputs.send(Input::Check(report)).is_err() {
                return;
            }
        }
    });
    config
        .elections
        .iter()
        .map(|election| check::watch(&election.name, &election.fitness, &reports))
        .collect()
}

fn load_policies_later(config: Arc<Config>, inputs: &tokio::sync::mpsc::UnboundedSender<Input>) {
    let inputs = inputs.clone();
    tokio::spawn(async move {
        let policies = match PolicySet::load(Arc::clone(&config), COMPILE_LIMIT).await {
            Ok(policies) => policies,
            Err(errors) => {
                error!(%errors, "policies cannot be used; what stands in for them decides");
                PolicySet::failed(&config, &errors.to_string())
            }
        };
        let _ = inputs.send(Input::Policies(policies));
    });
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

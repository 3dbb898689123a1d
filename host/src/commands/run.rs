//! `conclave run` and `conclave podmaster`: the guard, and the daemon that it starts.
//!
//! The guard reads the configuration, so that mistakes are told by the process that the operator
//! started, and hands the same text to every daemon that it starts (`kept`): an edit takes effect when
//! somebody asks for it and is there to see it (`upgrade`), not when a daemon happens to die. It
//! loads no policy and opens no store: it stays tiny.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use conclave_core::record::FORMAT;
use conclave_guard::{DaemonLock, GuardConfig, Handover, Lines, LinesEnd, LogFormat};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::cli::{self, Cli, exit};
use crate::commands::{exec, kept, say, say_warnings, upgrade};
use crate::config::{self, Config, Warning};
use crate::daemon::{self, BUILT_IN, Ended, StartError};
use crate::podmaster::{self, Parsed};
use crate::terminal::takes_colours;

/// `conclave run --config FILE`.
pub(super) fn guard_config(file: &Path, accept_store: bool) -> Result<u8> {
    let call = ["run".into(), "--config".into(), file.into()];
    if let Some(code) = go_on(&call)? {
        return Ok(code);
    }
    let text = config::read(file)?;
    let (config, warnings) = config::parse(file, &text, &BUILT_IN)?;
    say_warnings(&warnings);
    if accept_store {
        forget_store(&config)?;
    }
    guard(&config, &call, &text)
}

/// `conclave podmaster FLAGS…`.
pub(super) fn guard_podmaster(arguments: &[OsString]) -> Result<u8> {
    let mut call = vec![OsString::from("podmaster")];
    call.extend_from_slice(arguments);
    if let Some(code) = go_on(&call)? {
        return Ok(code);
    }
    let podmaster = match podmaster::parse(arguments.to_vec())? {
        Parsed::Run(podmaster) => podmaster,
        Parsed::Help(text) => {
            print!("{text}");
            return Ok(exit::SUCCESS);
        }
    };
    say_warnings(&podmaster.warnings);
    say(&format!("conclave: {}", podmaster::OVERLAP_NOTICE));
    guard(&podmaster.config, &call, "")
}

/// Starts the daemon under a guard and stays as the guard. `call` is what the daemon is told, and
/// `text` the configuration that it finds as its standard input.
fn guard(config: &Config, call: &[OsString], text: &str) -> Result<u8> {
    let mut guard = for_guard(config.state_directory.clone(), call)?;
    guard.destinations = config.exclusive_directories();
    guard.slots = config.exclusive_slots();
    guard.input = Some(kept::keep(text).context("cannot keep the configuration in memory")?);
    Ok(conclave_guard::run(guard)?)
}

/// As [`guard`], for a node that is there for a command: it is not replaced by another version.
pub(super) fn guard_exec(config: &Config, call: &[OsString], text: &str) -> Result<u8> {
    let mut guard = for_guard(config.state_directory.clone(), call)?;
    guard.upgrade = None;
    guard.has_processes = true;
    guard.quiet = true;
    guard.input = Some(kept::keep(text).context("cannot keep the configuration in memory")?);
    Ok(conclave_guard::run(guard)?)
}

/// Goes on as the guard that this process was before it executed this program; `None` when it was
/// started otherwise. The configuration is not even read: between the old program and this one the guard
/// must wait for no disk.
fn go_on(call: &[OsString]) -> Result<Option<u8>> {
    let handover = Handover::take().context("cannot take over from the program before")?;
    let Some(handover) = handover else { return Ok(None) };
    let mut guard = for_guard(PathBuf::new(), call)?;
    guard.handover = Some(handover);
    Ok(Some(conclave_guard::run(guard)?))
}

fn for_guard(state_directory: PathBuf, call: &[OsString]) -> Result<GuardConfig> {
    // Not the file of that name: a daemon that dies while somebody replaces the program is followed
    // by one of the same version, which knows the guard's page and the ledger.
    let mut command = Command::new("/proc/self/exe");
    // By its own name, not podmaster's, whose flags are all that it would understand.
    command.arg0("conclave").arg("daemon").args(call);
    let mut guard = GuardConfig::new(state_directory, command);
    guard.final_codes = vec![exit::USAGE, exit::NAME_TAKEN, exit::OTHER_STORE];
    guard.upgrade = Some(upgrade::to_installed(call)?);
    Ok(guard)
}

/// The operator accepts a store that was restored or replaced: what is known of the old one goes.
fn forget_store(config: &Config) -> Result<()> {
    let dir = &config.state_directory;
    // A daemon that runs would write what it knows over it; this also makes the directory.
    let _lock = DaemonLock::acquire(dir)?;
    let mut memory = conclave_manifests::Memory::load(dir)?;
    memory.cluster_id = None;
    memory.revision = conclave_core::Revision(0);
    memory.tokens.clear();
    memory.store(dir)?;
    Ok(())
}

/// What a guard tells those that it starts: by its call, and by their standard input.
pub(super) struct Told {
    pub(super) config: Config,
    warnings: Vec<Warning>,
    /// What is logged unless the environment says.
    log: &'static str,
    /// The configuration's file, and its text as the guard keeps it; none where there is no file.
    pub(super) source: Option<(PathBuf, String)>,
}

/// Reads what the guard was called with, and what it hands over.
pub(super) fn told(arguments: Vec<OsString>) -> Result<Told> {
    let program = std::iter::once(OsString::from("conclave"));
    let text = kept::handed_over()?;
    match Cli::read(program.chain(arguments)).map(|cli| cli.command) {
        Ok(cli::Command::Run { config: file, .. }) => {
            let (config, warnings) = config::parse_again(&file, &text, &BUILT_IN)?;
            Ok(Told { config, warnings, log: LOG, source: Some((file, text)) })
        }
        Ok(cli::Command::Podmaster { arguments }) => match podmaster::parse_again(arguments)? {
            Parsed::Run(it) => {
                let log = if it.verbosity >= 2 { LOG_MORE } else { LOG };
                Ok(Told { config: it.config, warnings: it.warnings, log, source: None })
            }
            Parsed::Help(_) => bail!("the daemon is started by its guard"),
        },
        Ok(cli::Command::Exec(wanted)) => {
            let config = exec::configuration(&wanted, &text)?;
            Ok(Told { config, warnings: Vec::new(), log: LOG_LESS, source: None })
        }
        _ => bail!("the daemon is started by its guard; use `conclave run`"),
    }
}

/// The daemon, with what the guard was called with.
pub(super) fn daemon(arguments: Vec<OsString>) -> Result<u8> {
    // Otherwise process lists would show the name by which the guard started it: `exe`.
    rustix::thread::set_name(c"conclave").context("cannot name the process")?;
    let Told { config, warnings, log, .. } = told(arguments)?;
    let state_directory = config.state_directory.clone();
    let (log, _written_at_the_end) = start_log(log)?;
    for Warning(problem) in warnings {
        let place = problem.place.map(tracing::field::display);
        warn!(place, message = problem.message, "configuration");
    }
    let (code, words) = match live(config) {
        Ok(Ended::Command(status)) => {
            exec::leave_status(&state_directory, status)?;
            (exit::SUCCESS, None)
        }
        Ok(ended) => tell(&ended),
        Err(error) => {
            let (code, words) = super::failure(&error);
            (code, Some(words))
        }
    };
    if let Some(words) = words {
        log.put(format!("{words}\n").into_bytes());
    }
    Ok(code)
}

fn live(config: Config) -> Result<Ended> {
    // One thread for the loop and the store's connections: between threads, every step of a
    // handover would wait for another to wake up. What blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(daemon::run(config));
    // What still hangs (a disk, a request) must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(ended) => Ok(ended),
        Err(StartError::Config(errors)) => Err(errors.into()),
        Err(StartError::Store(error)) if error.is_final() => Err(super::Usage(error.into()).into()),
        Err(error) => Err(error.into()),
    }
}

/// Lines that may wait for a reader of standard error. They are enough for a moment's trouble, and
/// little enough for what they take in memory.
const LOG_BACKLOG: usize = 4096;

/// What is logged; with podmaster's `--v=2`; and beside a command, whose words matter more.
pub(super) const LOG: &str = "info";
const LOG_MORE: &str = "conclave=debug,info";
const LOG_LESS: &str = "warn";

/// The environment decides what is logged, then the call. Nothing that logs ever waits
/// for whoever reads: the loop would, and its session would end.
pub(super) fn start_log(default: &str) -> Result<(Lines, LinesEnd)> {
    let filter =
        EnvFilter::try_from_env("CONCLAVE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let (lines, end) = Lines::to_stderr(LOG_BACKLOG).context("cannot start to log")?;
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(takes_colours(&std::io::stderr()));
    match LogFormat::from_env() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_ansi(false).init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    Ok((lines, end))
}

/// The exit status, and what there is to say to whoever started the node.
fn tell(ended: &Ended) -> (u8, Option<String>) {
    match ended {
        // The guard knows which of the two it asked for.
        Ended::Stopped | Ended::SteppedAside | Ended::Command(_) => (exit::SUCCESS, None),
        // Neither is final: a guard that watches again starts another daemon.
        Ended::Aborted | Ended::Unwatched => (exit::FAILURE, None),
        Ended::NameTaken { nonce, addresses } => {
            let words = format!(
                "conclave: another live daemon has this node's name: instance {nonce} at {}; give every node a name of its own (`node.name`, or podmaster's --whoami)",
                addresses.join(", ")
            );
            (exit::NAME_TAKEN, Some(words))
        }
        Ended::StoreWentBack { known, seen } => {
            let words = format!(
                "conclave: the store went back from revision {known} to {seen}: it was restored from a backup, or it is another; see that no two stores are in use, then start once with --accept-store"
            );
            (exit::OTHER_STORE, Some(words))
        }
        Ended::NewerFormat { node, format } => {
            let words = format!(
                "conclave: node {node} writes records of format {format}, and this version reads {FORMAT}: install the version that runs there; nothing was changed"
            );
            (exit::USAGE, Some(words))
        }
        Ended::OtherStore(what) => {
            let words = format!(
                "conclave: {what}; check the endpoints, and if the store was replaced on purpose start once with --accept-store"
            );
            (exit::OTHER_STORE, Some(words))
        }
    }
}

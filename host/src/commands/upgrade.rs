//! Replacing a running program by another version, and its configuration by a changed one: what the guard
//! executes on SIGUSR2, and what that version answers when it is asked first. It takes both over, or neither.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use conclave_guard::{Upgrade, handover_version};
use conclave_manifests::LEDGER_VERSION;

use crate::cli::exit;
use crate::commands::run::{Told, told};
use crate::commands::{kept, say, say_warnings};
use crate::config::{self, Config, Occasion, StoreConfig};
use crate::daemon::{BUILT_IN, PolicySet};

/// How long policies of a changed configuration may take to compile: less than the guard waits for an answer.
const COMPILE_LIMIT: Duration = Duration::from_secs(15);

/// How the guard is replaced by what is installed under this program's name. `call` is what the
/// daemon is told.
pub(super) fn to_installed(call: &[OsString]) -> Result<Upgrade> {
    let program = installed(env::args_os().next().as_deref(), env::current_exe);
    let mut question = Command::new(program.context("cannot find this program's own file")?);
    // By its own name, not podmaster's, whose flags are all that it would understand.
    question.arg0("conclave").arg("takes-over").arg(version()).args(call);
    // What was accepted once is not accepted for ever.
    let call = env::args_os().filter(|argument| argument != "--accept-store").collect();
    Ok(Upgrade { call, question })
}

/// Where this program is installed: where it was called, so that a symbolic link may point to
/// another version by then, or else where it was found.
fn installed(
    called: Option<&OsStr>,
    found: impl FnOnce() -> io::Result<PathBuf>,
) -> io::Result<PathBuf> {
    match called.map(Path::new) {
        Some(path) if path.as_os_str().as_bytes().contains(&b'/') => std::path::absolute(path),
        _ => {
            let found = found()?;
            // What the kernel says once the file has been replaced.
            let bytes = found.as_os_str().as_bytes();
            let path = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
            Ok(PathBuf::from(OsStr::from_bytes(path)))
        }
    }
}

/// What two versions must have in common for a term to go on from one to the other: what guard
/// and daemon share, what a guard hands over, and the ledger.
fn version() -> String {
    format!("{}.{LEDGER_VERSION}", handover_version())
}

/// `conclave takes-over`: whether this program can go on with what a guard of `version` has.
pub(super) fn answer(version: &str, arguments: Vec<OsString>) -> Result<u8> {
    let Told { config, source, .. } = told(arguments)?;
    let own = self::version();
    if version != own {
        say(&format!(
            "conclave: the program that runs keeps its state in layout {version}, the installed one in layout {own}: it cannot go on with the term"
        ));
        return Ok(Upgrade::NOT_IN_PLACE);
    }
    match source {
        Some((file, text)) => take_over(&config, &file, &text),
        None => Ok(exit::SUCCESS),
    }
}

/// Whether a changed configuration can be gone on with, of a file whose text was `text`; if so it is what
/// daemons find from now on.
fn take_over(old: &Config, file: &Path, text: &str) -> Result<u8> {
    let now = config::read(file)?;
    if now == text {
        return Ok(exit::SUCCESS);
    }
    let (new, warnings) = config::parse(file, &now, &BUILT_IN)?;
    say_warnings(&warnings);
    let fixed = fixed_for_life(old, &new);
    if !fixed.is_empty() {
        bail!(
            "{}: what was changed takes effect only when the node is started anew: {}; nothing of it is taken over",
            file.display(),
            fixed.join(", ")
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loading = PolicySet::load(Arc::new(new), Occasion::Start, COMPILE_LIMIT);
    let loaded = runtime.block_on(loading);
    runtime.shutdown_background();
    if let Some(reason) = loaded?.failure() {
        bail!("{}: the policies were not asked: {reason}", file.display());
    }
    kept::replace(&now).context("cannot hand the configuration over")?;
    say(&format!("conclave: taking over what was changed in {}", file.display()));
    Ok(exit::SUCCESS)
}

/// What a session, its guard and its store are by, and so cannot be changed under a term.
fn fixed_for_life(old: &Config, new: &Config) -> Vec<&'static str> {
    let room = conclave_guard::DEFAULT_SLOTS.max(old.exclusive_slots());
    [
        ("cluster", old.cluster != new.cluster),
        ("node.name", old.node.name != new.node.name),
        ("store", !same_place(&old.store, &new.store)),
        ("state_directory", old.state_directory != new.state_directory),
        ("timings.ttl", old.timings.protocol.ttl != new.timings.protocol.ttl),
        ("more manifests than the guard has room for", new.exclusive_slots() > room),
    ]
    .into_iter()
    .filter_map(|(what, changed)| changed.then_some(what))
    .collect()
}

/// Whether it is the same kind of store; an etcd may have moved to other members, and a daemon finds out whether it
/// is still the one that it knows.
fn same_place(old: &StoreConfig, new: &StoreConfig) -> bool {
    match (old, new) {
        (StoreConfig::Etcd(_), StoreConfig::Etcd(_)) => true,
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_installed_where_it_was_called() {
        for (called, found, installed_at) in [
            (Some("/usr/bin/conclave"), "/opt/conclave-2/conclave", "/usr/bin/conclave"),
            (Some("conclave"), "/usr/bin/conclave", "/usr/bin/conclave"),
            (Some("podmaster"), "/usr/bin/conclave (deleted)", "/usr/bin/conclave"),
            (None, "/usr/bin/conclave", "/usr/bin/conclave"),
        ] {
            let path = installed(called.map(OsStr::new), || Ok(found.into())).unwrap();
            assert_eq!(path, Path::new(installed_at), "{called:?}");
        }
        let relative = installed(Some(OsStr::new("./conclave")), || Ok("/a".into())).unwrap();
        assert_eq!(relative, env::current_dir().unwrap().join("conclave"));
    }
}

//! `conclave exec`: a node that takes part in one election for the sake of one command.
//!
//! It is a guard and its daemon as with `conclave run`, with a state directory that goes with it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use conclave_core::Timings;

use crate::cli::{Exec, StoreArguments};
use crate::commands::{cluster, run};
use crate::config::{self, Config, TimingsConfig, host_name, name_mistake};
use crate::exec::{self, CommandConfig, Part};

/// Where the daemon leaves the status with which the command ended, for the guard.
const STATUS_FILE: &str = "command-status";

/// The command, as the process that somebody started: the guard.
pub(super) fn exec(wanted: &Exec) -> Result<u8> {
    let text = match &wanted.store.config {
        Some(file) => config::read(file)?,
        None => String::new(),
    };
    let directory = tempfile::Builder::new().prefix("conclave-exec-").tempdir();
    let directory = directory.context("cannot make a directory for the node's state")?;
    let own_name = || format!("{}-{}", host_name(), std::process::id());
    let wanted = Exec {
        name: Some(wanted.name.clone().unwrap_or_else(own_name)),
        state_directory: Some(directory.path().to_owned()),
        ..wanted.clone()
    };
    let config = configuration(&wanted, &text)?;
    let code = run::guard_exec(&config, &call(&wanted), &text)?;
    Ok(match fs::read_to_string(directory.path().join(STATUS_FILE)) {
        Ok(status) => status.parse().context("the daemon left no status of the command")?,
        Err(_) => code,
    })
}

/// The daemon's last word: with which status the command ended.
pub(super) fn leave_status(state_directory: &Path, status: u8) -> Result<()> {
    let file = state_directory.join(STATUS_FILE);
    fs::write(&file, status.to_string()).context("cannot tell the guard how the command ended")
}

/// What this node is, by the call, and the text of the configuration that the call names, if it names one.
pub(super) fn configuration(wanted: &Exec, text: &str) -> Result<Config> {
    let (store, cluster, configured) = cluster::place_of(&wanted.store, text)?;
    let timings = match (wanted.ttl, configured) {
        (None, Some(config)) => config.timings.clone(),
        (ttl, _) => TimingsConfig::for_ttl(ttl.unwrap_or(Timings::default().ttl)),
    };
    if let Some(mistake) = timings.mistakes().into_iter().next() {
        bail!(super::Usage(anyhow::anyhow!("--ttl: {}: {}", mistake.message, mistake.help)));
    }
    let node = wanted.name.clone().unwrap_or_default();
    for (what, name) in [("--name", &node), ("the election", &wanted.election)] {
        if let Some(mistake) = name_mistake(name) {
            bail!(super::Usage(anyhow::anyhow!("{what}: the name `{name}` {mistake}")));
        }
    }
    Ok(exec::config(Part {
        cluster,
        store,
        timings,
        election: wanted.election.clone(),
        node,
        state_directory: wanted.state_directory.clone().context("no state directory")?,
        command: CommandConfig { arguments: wanted.command.clone(), grace: wanted.grace },
    }))
}

/// What the daemon is told.
fn call(wanted: &Exec) -> Vec<OsString> {
    let mut call: Vec<OsString> = vec!["exec".into()];
    let mut add = |flag: &str, value: OsString| call.extend([flag.into(), value]);
    let StoreArguments { config, endpoints, embedded, cluster } = &wanted.store;
    if let Some(file) = config {
        add("--config", file.into());
    }
    if !endpoints.is_empty() {
        add("--endpoints", endpoints.join(",").into());
    }
    if let Some(file) = embedded {
        add("--embedded", file.into());
    }
    if let Some(cluster) = cluster {
        add("--cluster", cluster.into());
    }
    if let Some(name) = &wanted.name {
        add("--name", name.into());
    }
    if let Some(directory) = &wanted.state_directory {
        add("--state-directory", directory.into());
    }
    if let Some(ttl) = wanted.ttl {
        add("--ttl", humantime::format_duration(ttl).to_string().into());
    }
    add("--grace", humantime::format_duration(wanted.grace).to_string().into());
    call.extend([OsString::from(&wanted.election), "--".into()]);
    call.extend(wanted.command.iter().cloned());
    call
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_daemon_is_told_what_the_guard_was() {
        for call in [
            "exec --endpoints http://a:1,http://b:2 --cluster c e -- make -j 2",
            "exec --embedded /s.db --cluster c --ttl 1500ms --grace 0s --name n e -- x -- --flag",
            "exec --config /etc/c.yaml e -- true",
        ] {
            let read = |call: Vec<OsString>| {
                let program = std::iter::once(OsString::from("conclave"));
                match Cli::read(program.chain(call)).map(|cli| cli.command) {
                    Ok(Command::Exec(exec)) => exec,
                    other => panic!("{call:?}: {other:?}", call = other),
                }
            };
            let mut wanted = read(call.split(' ').map(OsString::from).collect());
            wanted.state_directory = Some("/tmp/state".into());
            assert_eq!(read(super::call(&wanted)), wanted, "{call}");
            assert!(wanted.grace <= Duration::from_secs(10));
        }
    }
}

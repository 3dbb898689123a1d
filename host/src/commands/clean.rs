//! `conclave clean`: withdraws what a dead pair left in place, without a store.
//!
//! For the cases that neither guard nor daemon can see to because both died at once: a service
//! manager that killed the whole unit, or a machine that lost power, before its kubelet starts
//! again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use conclave_core::{ElectionName, NodeName};
use conclave_guard::{LockError, Vacant, VacantError};
use conclave_manifests::{
    ElectionManifests, LEDGER_FILE, Ledger, LedgerDamage, ManifestSettings, Memory, Start,
};

use crate::cli::{Clean, exit};
use crate::commands::{run, say};
use crate::config;
use crate::daemon::{BUILT_IN, withdraw_left};

pub(super) fn clean(whose: &Clean) -> Result<u8> {
    let (_log, _written_at_the_end) = run::start_log(run::LOG)?;
    let settings = match (&whose.config, &whose.state_dir) {
        (Some(file), _) => {
            let (config, _) = config::parse_again(file, &config::read(file)?, &BUILT_IN)?;
            Whose::Configured(config.manifest_settings())
        }
        (None, dir) => Whose::Ledger(dir.clone().context("clap requires one of the two")?),
    };
    let state_dir = settings.state_dir();
    if !state_dir.try_exists().with_context(|| format!("cannot see {}", state_dir.display()))? {
        return Ok(exit::SUCCESS); // it never ran
    }
    let vacant = match Vacant::hold(state_dir) {
        Err(VacantError::Lock(error @ LockError::Held { .. })) => {
            say(&format!("conclave: nothing to clean up after: {error}"));
            return Ok(exit::RUNNING);
        }
        held => held?,
    };
    let (ledger, damage) = Ledger::open(state_dir)?;
    if let (Whose::Ledger(dir), Some(damage)) = (&settings, &damage) {
        return leave_damaged(dir, damage);
    }
    let settings = settings.resolve(&ledger)?;
    let done = withdraw_left(&settings, &ledger, damage.as_ref(), &vacant.claims(), Start::Fresh);
    for path in &done.paths {
        println!("{}", path.display());
    }
    for (path, reason) in &done.failed {
        say(&format!("conclave: {} is still in place: {reason}", path.display()));
    }
    if !done.failed.is_empty() {
        return Ok(exit::FAILURE);
    }
    vacant.forget()?;
    Ok(if done.doubtful.is_empty() { exit::SUCCESS } else { exit::FAILURE })
}

/// What is known of the node beside its ledger.
enum Whose {
    Configured(ManifestSettings),
    /// Nothing but its state directory.
    Ledger(PathBuf),
}

impl Whose {
    fn state_dir(&self) -> &Path {
        match self {
            Whose::Configured(settings) => &settings.state_dir,
            Whose::Ledger(dir) => dir,
        }
    }

    fn resolve(self, ledger: &Ledger) -> Result<ManifestSettings> {
        match self {
            Whose::Configured(settings) => Ok(settings),
            Whose::Ledger(state_dir) => {
                let elections: BTreeSet<ElectionName> =
                    ledger.entries().into_iter().map(|entry| entry.election).collect();
                Ok(ManifestSettings {
                    node: Memory::load(&state_dir)?
                        .node
                        .unwrap_or_else(|| NodeName::from("unknown")),
                    variables: Default::default(),
                    state_dir,
                    rescan: ManifestSettings::RESCAN,
                    // Named, so that what runs everywhere stays where it is.
                    elections: elections.into_iter().map(nothing_known).collect(),
                })
            }
        }
    }
}

fn nothing_known(election: ElectionName) -> ElectionManifests {
    ElectionManifests { election, files: Vec::new(), directories: Vec::new(), role_file: None }
}

/// Only the configuration could tell what is ours: the ledger is put back for whoever has that.
fn leave_damaged(state_dir: &Path, damage: &LedgerDamage) -> Result<u8> {
    let ledger = state_dir.join(LEDGER_FILE);
    fs::rename(&damage.kept, &ledger)
        .with_context(|| format!("cannot put {} back", damage.kept.display()))?;
    say(&format!(
        "conclave: {} is damaged ({}): call `conclave clean --config FILE`, which knows where to look",
        ledger.display(),
        damage.reason
    ));
    Ok(exit::FAILURE)
}

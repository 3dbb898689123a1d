//! Cleaning up after an earlier daemon, before anything else is done.
//!
//! Every start that is not an adoption begins with nothing exclusive in place.

use std::fs;
use std::path::{Path, PathBuf};

use conclave_core::ids::{ElectionName, NodeName};

use crate::digest::Digest;
use crate::error::{FileError, phrase};
use crate::files::{self, Found, Target};
use crate::held::Held;
use crate::ledger::{Ledger, LedgerDamage, LedgerEntry, LedgerFile};
use crate::role::{RoleRecord, RoleWord};
use crate::settings::{ElectionManifests, ManifestFile, ManifestSettings};
use crate::settle::save;
use crate::validate::MAX_MANIFEST_BYTES;

/// How this daemon comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// On its own: what the ledger names as exclusive is withdrawn.
    Fresh,
    /// As the successor of a daemon of the same guard whose deadline has not come: what is in
    /// place stays, except for elections that are no longer configured.
    Adopt,
}

/// What cleaning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// What was taken out of its place.
    pub withdrawn: Vec<PathBuf>,
    /// What could not be, and why. While this is not empty, the old session must not be ended:
    /// its exclusive effects may be in place.
    pub failed: Vec<(PathBuf, String)>,
    /// What stands at an exclusive destination and may be ours, but nothing proves it, because the
    /// ledger was damaged. It is left alone, and the node is unfit for the election.
    pub doubtful: Vec<PathBuf>,
}

/// Withdraws what an earlier daemon left: what the ledger names, role files that say `leader`, stale
/// files where `adopt` is set, and what was staged. After damage to the ledger, exclusive
/// destinations whose content is that of their source count as ours too. Blocks for as long as
/// the disk does.
pub fn clean(
    settings: &ManifestSettings,
    ledger: &Ledger,
    damage: Option<&LedgerDamage>,
    start: Start,
) -> CleanReport {
    let mut cleaner = Cleaner { settings, report: CleanReport::default(), forget: Vec::new() };
    for entry in ledger.entries() {
        cleaner.entry(&entry, start);
    }
    for set in &settings.elections {
        cleaner.election(set, ledger, damage.is_some(), start);
    }
    if let Err(error) = ledger.forget(&cleaner.forget) {
        tracing::warn!(error = phrase(&error), "the ledger is behind");
    }
    cleaner.report
}

struct Cleaner<'a> {
    settings: &'a ManifestSettings,
    report: CleanReport,
    forget: Vec<PathBuf>,
}

impl Cleaner<'_> {
    fn entry(&mut self, entry: &LedgerEntry, start: Start) {
        let set = self.settings.elections.iter().find(|set| set.election == entry.election);
        let goes = set.is_none() || (start == Start::Fresh && entry.exclusive);
        if !goes {
            return;
        }
        let Some(target) = Target::new(&entry.path) else { return };
        let result = match &entry.file {
            LedgerFile::RoleFile => {
                reset(&target, &entry.election, &self.settings.node, set.is_some())
            }
            LedgerFile::Manifest(name) => self.take_out(&Held::from_ledger(entry, name, target)),
        };
        self.note(&entry.path, result);
    }

    fn election(&mut self, set: &ElectionManifests, ledger: &Ledger, damaged: bool, start: Start) {
        if let Some(target) = set.role_file.as_deref().and_then(Target::new)
            && start == Start::Fresh
            && says_leader(&target, &set.election)
        {
            let result = reset(&target, &set.election, &self.settings.node, true);
            self.note(target.path(), result);
        }
        for file in &set.files {
            let Some(target) = Target::new(&file.destination) else { continue };
            if start == Start::Fresh && file.handling.exclusive && !ledger.names(target.path()) {
                self.unnamed(set, file, &target, damaged);
            }
            if let Err(error) = files::remove(&target.staged()) {
                tracing::warn!(error = phrase(&error), "a staged file stays behind");
            }
            files::sweep_prepared(target.dir());
        }
        for directory in &set.directories {
            files::sweep_prepared(&directory.destination);
        }
    }

    /// A file at an exclusive destination that the ledger does not name.
    fn unnamed(
        &mut self,
        set: &ElectionManifests,
        file: &ManifestFile,
        target: &Target,
        damaged: bool,
    ) {
        if !matches!(files::inspect(target.path()), Ok(Found::File(_) | Found::Other(_))) {
            return;
        }
        let source = fs::read(&file.source).map(|bytes| Digest::of(&bytes)).ok();
        let there = files::read(target.path(), MAX_MANIFEST_BYTES + 1);
        let there = there.map(|(bytes, _)| Digest::of(&bytes)).ok();
        let copy = source.is_some() && source == there;
        if file.handling.adopt || (damaged && copy) {
            let entry = LedgerEntry {
                path: target.path().to_owned(),
                election: set.election.clone(),
                file: LedgerFile::Manifest(file.name.clone()),
                exclusive: true,
                token: None,
                // Unless it is a copy of the source, it is saved.
                digest: source.unwrap_or_else(|| Digest::of(b"")),
            };
            let held = Held::from_ledger(&entry, &file.name, target.clone());
            let result = self.take_out(&held);
            self.note(target.path(), result);
        } else if damaged {
            self.report.doubtful.push(target.path().to_owned());
        }
    }

    fn take_out(&self, held: &Held) -> Result<(), FileError> {
        if let Some(aside) = held.take_out()? {
            save(vec![(aside, held.target.clone())], &self.settings.state_dir);
        }
        files::sync_dir(held.target.dir())
    }

    fn note(&mut self, path: &Path, result: Result<(), FileError>) {
        match result {
            Ok(()) => {
                self.forget.push(path.to_owned());
                self.report.withdrawn.push(path.to_owned());
            }
            Err(error) => self.report.failed.push((path.to_owned(), phrase(&error))),
        }
    }
}

fn says_leader(target: &Target, election: &ElectionName) -> bool {
    let Ok((bytes, _)) = files::read(target.path(), 64 * 1024) else { return false };
    RoleRecord::from_json(&bytes, election).is_some_and(|record| record.role == RoleWord::Leader)
}

/// Makes a role file say standby, or removes it, which means the same.
fn reset(
    target: &Target,
    election: &ElectionName,
    node: &NodeName,
    keep: bool,
) -> Result<(), FileError> {
    for staged in [target.staged(), target.standby()] {
        files::remove(&staged)?;
    }
    let standby = RoleRecord::standby(election, node, None).to_json();
    let written = keep
        && files::create_staging(target.dir())
            .and_then(|()| files::stage(&target.staged(), &standby, 0o644))
            .and_then(|()| files::rename(&target.staged(), target.path()))
            .is_ok();
    if !written && files::inspect(target.path())? != Found::Directory {
        files::remove(target.path())?;
    }
    files::sync_dir(target.dir())
}

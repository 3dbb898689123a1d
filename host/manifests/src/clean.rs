//! Cleaning up after an earlier daemon, before anything else is done.
//!
//! Every start that is not an adoption begins with nothing exclusive in place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use conclave_core::ids::ElectionName;

use crate::aside;
use crate::digest::Digest;
use crate::error::{FileError, phrase};
use crate::files::{self, Found, Target};
use crate::held::Held;
use crate::ledger::{Ledger, LedgerDamage, LedgerEntry, LedgerFile};
use crate::render::may_come_of;
use crate::role::{RoleRecord, RoleWord};
use crate::settings::{ElectionManifests, ManifestDirectory, ManifestFile, ManifestSettings};
use crate::source;
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
/// destinations whose content is that of their source, or what a template makes with any values,
/// count as ours too. Blocks for as long as
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
    if start == Start::Fresh {
        cleaner.bring_home(ledger);
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
        let exclusive = set.is_none_or(|set| set.is_exclusive(entry));
        let goes = set.is_none() || (start == Start::Fresh && exclusive);
        if !goes {
            return;
        }
        let Some(target) = Target::new(&entry.path) else { return };
        let result = match &entry.file {
            LedgerFile::RoleFile => self.reset(&target, &entry.election, set.is_some()),
            LedgerFile::Manifest(name) => {
                self.take_out(&Held::from_ledger(entry, name, target, exclusive))
            }
        };
        self.note(&entry.path, result);
    }

    fn election(&mut self, set: &ElectionManifests, ledger: &Ledger, damaged: bool, start: Start) {
        if let Some(target) = set.role_file.as_deref().and_then(Target::new)
            && start == Start::Fresh
            && says_leader(&target, &set.election)
        {
            let result = self.reset(&target, &set.election, true);
            self.note(target.path(), result);
        }
        for file in &set.files {
            let Some(target) = Target::new(&file.destination) else { continue };
            if start == Start::Fresh && file.handling.exclusive && !ledger.names(target.path()) {
                self.unnamed(set, file, &target, damaged);
            }
            files::clear_staged(&target);
            files::sweep_prepared(target.dir());
        }
        for directory in &set.directories {
            if start == Start::Fresh && directory.handling.exclusive && damaged {
                self.unnamed_of(set, directory, ledger);
            }
            files::sweep_prepared(&directory.destination);
        }
    }

    /// The files of a source directory, which are known only as long as that can be read.
    fn unnamed_of(&mut self, set: &ElectionManifests, from: &ManifestDirectory, ledger: &Ledger) {
        for name in source::list(&from.source).unwrap_or_default().into_iter().flatten() {
            let file = ManifestFile {
                source: from.source.join(&name),
                destination: from.destination.join(&name),
                handling: from.handling,
                name,
            };
            let Some(target) = Target::new(&file.destination) else { continue };
            if !ledger.names(target.path()) {
                self.unnamed(set, &file, &target, true);
            }
        }
    }

    /// A file at an exclusive destination that the ledger does not name. Its source, which may be on
    /// a disk that hangs, is asked only where nothing else can tell.
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
        let digest = if file.handling.adopt {
            // Whatever it is goes, and is saved.
            Digest::of(b"")
        } else if !damaged {
            return;
        } else if let Some(digest) = digest_of_ours(file, target) {
            digest
        } else {
            return self.report.doubtful.push(target.path().to_owned());
        };
        let entry = LedgerEntry {
            path: target.path().to_owned(),
            election: set.election.clone(),
            file: LedgerFile::Manifest(file.name.clone()),
            exclusive: true,
            token: None,
            digest,
        };
        let result = self.take_out(&Held::from_ledger(&entry, &file.name, target.clone(), true));
        self.note(target.path(), result);
    }

    fn take_out(&self, held: &Held) -> Result<(), FileError> {
        if let Some(aside) = held.take_out()? {
            self.save(aside, &held.target);
        }
        files::sync_dir(held.target.dir())
    }

    fn save(&self, aside: PathBuf, target: &Target) {
        aside::save_all(vec![(aside, target.clone())], &self.settings.state_dir);
    }

    /// Makes a role file say standby, or removes it, which means the same.
    fn reset(&self, target: &Target, election: &ElectionName, keep: bool) -> Result<(), FileError> {
        let standby = RoleRecord::standby(election, &self.settings.node, None).to_json();
        if files::staging(target.dir()).is_some() {
            files::remove(&target.staged())?;
            files::remove(&target.standby())?;
        }
        let found = files::inspect(target.path())?;
        let changed = match found {
            Found::Nothing | Found::Directory => false,
            Found::File(_) => role_record(target, election).is_none(),
            Found::Other(_) => true,
        };
        if changed && let Ok(aside) = aside::set_aside(target) {
            self.save(aside, target);
        }
        let written = keep
            && files::create_staging(target.dir())
                .and_then(|()| files::stage(&target.staged(), &standby, 0o644))
                .and_then(|()| files::rename(&target.staged(), target.path()))
                .is_ok();
        if !written && found != Found::Directory {
            files::remove(target.path())?;
        }
        files::sync_dir(target.dir())
    }

    /// Saves what an earlier daemon set aside and could not save.
    fn bring_home(&self, ledger: &Ledger) {
        let sets = self.settings.elections.iter();
        let files = sets.clone().flat_map(|set| &set.files).map(|file| file.destination.clone());
        let roles = sets.filter_map(|set| set.role_file.clone());
        let named = ledger.entries().into_iter().map(|entry| entry.path);
        let paths: BTreeSet<PathBuf> = files.chain(roles).chain(named).collect();
        for target in paths.iter().filter_map(|path| Target::new(path)) {
            for aside in aside::asides(&target) {
                self.save(aside, &target);
            }
        }
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

/// The digest of what stands at a destination, if it is what its source makes of it: of a template,
/// with some values or other.
fn digest_of_ours(file: &ManifestFile, target: &Target) -> Option<Digest> {
    let (source, _) = source::read_stable(&file.source).ok()?;
    let (there, _) = files::read(target.path(), MAX_MANIFEST_BYTES + 1).ok()?;
    let ours = match (str::from_utf8(&there), str::from_utf8(&source)) {
        (Ok(there), Ok(template)) if file.handling.render => may_come_of(there, template),
        _ => source == there,
    };
    ours.then(|| Digest::of(&there))
}

fn role_record(target: &Target, election: &ElectionName) -> Option<RoleRecord> {
    let (bytes, _) = files::read(target.path(), 64 * 1024).ok()?;
    RoleRecord::from_json(&bytes, election)
}

fn says_leader(target: &Target, election: &ElectionName) -> bool {
    role_record(target, election).is_some_and(|record| record.role == RoleWord::Leader)
}

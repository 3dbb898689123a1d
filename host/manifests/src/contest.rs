//! One election's manifests on this node: what is known of them, what should be in place, and how
//! fit that makes the node. [`settle`](crate::settle) then makes it so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use conclave_core::ids::{ElectionName, NodeName, Token};
use conclave_core::record::Fitness;
use conclave_core::view::{ManifestView, Placement};

use crate::digest::Digest;
use crate::event::{Alarm, ManifestEvent};
use crate::files::Target;
use crate::held::Held;
use crate::ledger::{LedgerEntry, LedgerFile};
use crate::manifest::{Manifest, Scope};
use crate::prepare::Preparation;
use crate::role_file::RoleFile;
use crate::settings::{ElectionManifests, Handling, ManifestDirectory};
use crate::source::{Contents, Source};

/// How many reasons a fitness has, and how long each may be.
const MAX_REASONS: usize = 10;
const MAX_REASON_CHARS: usize = 400;

/// Where this node stands in the election, as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It was told nothing yet: what an earlier daemon left stays untouched.
    Untold,
    /// It does not lead; the holder, if known, for the role file.
    Standby(Option<(NodeName, Token)>),
    /// It leads.
    Leading(Token),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: String,
    /// Whether the node cannot run the manifests because of it.
    pub(crate) unfit: bool,
    pub(crate) alarm: Option<Alarm>,
}

impl Problem {
    pub(crate) fn unfit(reason: impl Into<String>) -> Self {
        Problem { reason: reason.into(), unfit: true, alarm: None }
    }

    pub(crate) fn foreign(path: &Path, kind: &'static str) -> Self {
        let alarm = Alarm::Foreign { path: path.to_owned(), kind };
        let reason = format!("{kind} that is not ours stands at {}", path.display());
        Problem { reason, unfit: true, alarm: Some(alarm) }
    }
}

/// What a source reader found.
pub(crate) enum Report {
    /// One manifest's source.
    File { manifest: String, result: Result<Arc<Source>, String> },
    /// A whole source directory, by number.
    Directory { index: usize, result: Result<Contents, String> },
}

/// A source directory, as the contest knows it.
pub(crate) struct Directory {
    settings: ManifestDirectory,
    /// Whether the reader has said anything yet.
    read: bool,
    /// Whether the last report was a list of its manifests.
    listed: bool,
    trouble: Option<String>,
    /// Manifests whose names are taken.
    clashes: BTreeSet<String>,
}

/// One election's manifests on this node.
pub(crate) struct Contest {
    pub(crate) scope: Scope,
    pub(crate) manifests: BTreeMap<String, Manifest>,
    directories: Vec<Directory>,
    pub(crate) role_file: Option<RoleFile>,
    pub(crate) stand: Stand,
    /// The policy's last answer; none before the first.
    pub(crate) placements: Option<BTreeMap<String, Placement>>,
    /// What of ours is in place, by destination.
    pub(crate) held: BTreeMap<PathBuf, Held>,
    /// What is ready for a term that may begin.
    pub(crate) preparation: Preparation,
    /// What inotify named since the last look.
    pub(crate) suspects: BTreeSet<PathBuf>,
    /// What the last settling found wrong.
    pub(crate) problems: Vec<Problem>,
    /// Placing failed: until when that counts against this node though it no longer tries.
    pub(crate) failed: Option<(String, Instant)>,
    /// The term whose gate was found closed: it is not asked again before the next rescan.
    pub(crate) closed: Option<Token>,
    /// The term that was reported as placed.
    pub(crate) placed: Option<Token>,
    /// When to look again before the next rescan.
    pub(crate) due: Option<Instant>,
    told: Told,
}

/// What was reported last; only changes are news.
#[derive(Default)]
struct Told {
    fitness: Option<Fitness>,
    sources: Option<Vec<(String, bool, Option<Digest>)>>,
    alarms: BTreeSet<Alarm>,
    not_placed: Option<(Token, String)>,
}

impl Contest {
    /// From the configuration, and what the ledger says of an earlier daemon's files.
    pub(crate) fn new(set: &ElectionManifests, scope: Scope, ledger: &[LedgerEntry]) -> Contest {
        let file = |path: &PathBuf, handling: Handling| {
            Target::new(path).map(|target| Manifest::new(target, handling, None))
        };
        let manifests = set
            .files
            .iter()
            .filter_map(|f| Some((f.name.clone(), file(&f.destination, f.handling)?)))
            .collect();
        let role_file = set.role_file.as_deref().and_then(Target::new).map(|target| {
            let inherited = ledger
                .iter()
                .any(|entry| entry.path == target.path() && entry.file == LedgerFile::RoleFile);
            RoleFile::new(target, scope.election.clone(), scope.node.clone(), inherited)
        });
        let held = ledger
            .iter()
            .filter(|entry| entry.election == scope.election)
            .filter_map(|entry| match &entry.file {
                LedgerFile::Manifest(name) => {
                    let target = Target::new(&entry.path)?;
                    let exclusive = set.is_exclusive(entry);
                    Some((entry.path.clone(), Held::from_ledger(entry, name, target, exclusive)))
                }
                LedgerFile::RoleFile => None,
            })
            .collect();
        Contest {
            scope,
            manifests,
            directories: set.directories.iter().cloned().map(Directory::new).collect(),
            role_file,
            stand: Stand::Untold,
            placements: None,
            held,
            preparation: Preparation::default(),
            suspects: BTreeSet::new(),
            problems: Vec::new(),
            failed: None,
            closed: None,
            placed: None,
            due: None,
            told: Told::default(),
        }
    }

    /// Looks at what an earlier daemon left, once, and apart from whoever must not wait for a disk.
    pub(crate) fn look_back(&mut self) {
        self.held.values_mut().for_each(Held::look_back);
    }

    pub(crate) fn election(&self) -> &ElectionName {
        &self.scope.election
    }

    /// The term that this node was told to lead in.
    pub(crate) fn token(&self) -> Option<Token> {
        match self.stand {
            Stand::Leading(token) => Some(token),
            Stand::Untold | Stand::Standby(_) => None,
        }
    }

    /// Before every settling: what was wrong is found out anew.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.problems.clear();
        if self.token().is_none() && self.failed.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.failed = None;
        }
    }

    /// Takes a stand, and what the policy answers for it.
    pub(crate) fn take_stand(&mut self, stand: Stand) {
        self.closed = None;
        self.preparation.end();
        if self.stand != stand {
            self.stand = stand;
            self.placed = None;
        }
    }

    /// Takes the policy's answer.
    pub(crate) fn place(&mut self, placements: Vec<Placement>) {
        for placement in placements.iter().filter(|placement| placement.run) {
            if let Some(manifest) = self.manifests.get_mut(&placement.manifest) {
                manifest.place(&placement.variables, &self.scope);
            }
        }
        let by_name = placements.into_iter().map(|p| (p.manifest.clone(), p)).collect();
        self.placements = Some(by_name);
    }

    /// Takes what the policy would answer to the leader, while this node is not.
    pub(crate) fn rehearse(&mut self, placements: &[Placement]) {
        if self.token().is_some() {
            return; // the real thing has begun
        }
        for placement in placements.iter().filter(|placement| placement.run) {
            if let Some(manifest) = self.manifests.get_mut(&placement.manifest) {
                manifest.rehearse(&placement.variables, &self.scope);
            }
        }
    }

    /// Takes what a reader found.
    pub(crate) fn read(&mut self, report: Report) {
        self.failed = None;
        match report {
            Report::File { manifest, result } => {
                if let Some(manifest) = self.manifests.get_mut(&manifest) {
                    manifest.read(result, &self.scope);
                }
            }
            Report::Directory { index, result: Err(reason) } => {
                let directory = &mut self.directories[index];
                directory.read = true;
                directory.listed = false;
                directory.trouble = Some(reason);
            }
            Report::Directory { index, result: Ok(contents) } => self.list(index, contents),
        }
    }

    fn list(&mut self, index: usize, contents: Contents) {
        let Contest { directories, manifests, role_file, scope, placements, .. } = self;
        let directory = &mut directories[index];
        directory.read = true;
        directory.listed = true;
        directory.trouble = None;
        directory.clashes.clear();
        manifests.retain(|name, manifest| {
            manifest.directory != Some(index) || contents.contains_key(name)
        });
        let others = manifests.values().filter(|manifest| manifest.directory != Some(index));
        let others = others.map(|manifest| &manifest.target);
        let taken: BTreeSet<PathBuf> = others
            .chain(role_file.iter().map(|role| &role.target))
            .map(|target| target.path().to_owned())
            .collect();
        for (name, result) in contents {
            let path = directory.settings.destination.join(&name);
            let Some(target) = Target::new(&path) else { continue };
            if taken.contains(target.path()) {
                directory.clashes.insert(name);
                continue;
            }
            let manifest = manifests.entry(name.clone()).or_insert_with(|| {
                let mut new = Manifest::new(target, directory.settings.handling, Some(index));
                let known = placements.as_ref().and_then(|known| known.get(&name));
                if let Some(placement) = known.filter(|placement| placement.run) {
                    new.place(&placement.variables, scope);
                }
                new
            });
            if manifest.directory == Some(index) {
                manifest.read(result, scope);
            } else {
                directory.clashes.insert(name);
            }
        }
    }

    /// Whether every source has been looked at.
    pub(crate) fn is_read(&self) -> bool {
        self.directories.iter().all(|directory| directory.read)
            && self.manifests.values().all(Manifest::is_read)
    }

    /// Whether a manifest that is not among the known ones is known to be gone.
    pub(crate) fn is_complete(&self) -> bool {
        self.directories.iter().all(|directory| directory.listed)
    }

    /// The directories that are written to.
    pub(crate) fn dirs(&self) -> BTreeSet<&Path> {
        let targets = self.manifests.values().map(|manifest| manifest.target.dir());
        let role = self.role_file.as_ref().map(|role| role.target.dir());
        let directories = self.directories.iter().map(|d| d.settings.destination.as_path());
        targets.chain(role).chain(directories).collect()
    }

    /// How much the largest manifest needs in a directory.
    pub(crate) fn largest(&self, dir: &Path) -> usize {
        let there = self.manifests.values().filter(|manifest| manifest.target.dir() == dir);
        there.map(Manifest::size).max().unwrap_or(0)
    }

    /// Marks what inotify named; without a name, everything in that directory. Whether it
    /// concerns this election.
    pub(crate) fn suspect(&mut self, dir: Option<&Path>, name: Option<&Path>) -> bool {
        let manifests = self.manifests.values().map(|manifest| &manifest.target);
        let role = self.role_file.as_ref().map(|role| &role.target);
        let held = self.held.values().map(|held| &held.target);
        let before = self.suspects.len();
        let known: Vec<PathBuf> = manifests
            .chain(role)
            .chain(held)
            .filter(|target| dir.is_none_or(|dir| target.dir() == dir))
            .filter(|target| name.is_none_or(|name| target.path().ends_with(name)))
            .map(|target| target.path().to_owned())
            .collect();
        self.suspects.extend(known);
        self.suspects.len() > before
    }

    /// Sends what changed since the last time.
    pub(crate) fn tell(
        &mut self,
        probes: &BTreeMap<Arc<Path>, Option<String>>,
        overdue: bool,
        emit: &dyn Fn(ManifestEvent),
    ) {
        let election = self.scope.election.clone();
        self.tell_alarms(emit);
        if !self.is_read() && !overdue {
            return;
        }
        let sources = self.sources();
        if self.told.sources.as_ref() != Some(&sources) {
            self.told.sources = Some(sources);
            let manifests = self.manifests.iter().map(|(name, manifest)| ManifestView {
                name: name.clone(),
                exclusive: manifest.handling.exclusive,
                content: manifest.text().to_owned(),
            });
            let manifests = manifests.collect();
            emit(ManifestEvent::Sources { election: election.clone(), manifests });
        }
        let fitness = self.judge(probes);
        if self.told.fitness.as_ref() != Some(&fitness) {
            self.told.fitness = Some(fitness.clone());
            emit(ManifestEvent::Fitness { election, fitness });
        }
    }

    /// Reports once per term and reason that placing failed.
    pub(crate) fn tell_not_placed(
        &mut self,
        token: Token,
        reason: String,
        emit: &dyn Fn(ManifestEvent),
    ) {
        let news = (token, reason);
        if self.told.not_placed.as_ref() != Some(&news) {
            let reason = news.1.clone();
            emit(ManifestEvent::NotPlaced { election: self.election().clone(), token, reason });
            self.told.not_placed = Some(news);
        }
    }

    fn sources(&self) -> Vec<(String, bool, Option<Digest>)> {
        let row = |(name, manifest): (&String, &Manifest)| {
            (name.clone(), manifest.handling.exclusive, manifest.digest().cloned())
        };
        self.manifests.iter().map(row).collect()
    }

    fn tell_alarms(&mut self, emit: &dyn Fn(ManifestEvent)) {
        let now: BTreeSet<Alarm> =
            self.problems.iter().filter_map(|problem| problem.alarm.clone()).collect();
        for alarm in now.difference(&self.told.alarms) {
            let election = self.scope.election.clone();
            emit(ManifestEvent::Alarm { election, alarm: alarm.clone() });
        }
        self.told.alarms = now;
    }

    /// Fit, unless something stands in the way; reasons without being unfit mean that a good copy
    /// stands in.
    fn judge(&self, probes: &BTreeMap<Arc<Path>, Option<String>>) -> Fitness {
        let mut unfit = Vec::new();
        let mut degraded = Vec::new();
        for dir in self.dirs() {
            unfit.extend(probes.get(dir).cloned().flatten());
        }
        for directory in &self.directories {
            directory.judge(self.has_good(), &mut unfit, &mut degraded);
        }
        for (name, manifest) in &self.manifests {
            let (reason, usable) = match manifest.trouble() {
                None if manifest.is_read() => continue,
                None => ("the source has not been read yet", false),
                Some(trouble) => trouble,
            };
            let text = format!("{name}: {reason}");
            // One bad file among a directory's good ones must not stop the rest on every node.
            let stands_in = usable
                || self.held_content(name)
                || (manifest.directory.is_some() && self.has_good());
            if stands_in { degraded.push(text) } else { unfit.push(text) }
        }
        for problem in &self.problems {
            let list = if problem.unfit { &mut unfit } else { &mut degraded };
            list.push(problem.reason.clone());
        }
        if let Some((reason, _)) = &self.failed
            && !unfit.contains(reason)
        {
            unfit.push(reason.clone());
        }
        let fit = unfit.is_empty();
        unfit.append(&mut degraded);
        Fitness { fit, reasons: bounded(unfit), checks: BTreeMap::new() }
    }

    fn has_good(&self) -> bool {
        self.manifests.values().any(|manifest| manifest.digest().is_some())
            || self.held.values().any(|held| held.content.is_some())
    }

    fn held_content(&self, name: &str) -> bool {
        self.held.values().any(|held| held.manifest == name && held.content.is_some())
    }
}

/// Reasons travel in the candidacy's record, which must stay small.
fn bounded(mut reasons: Vec<String>) -> Vec<String> {
    let more = reasons.len().saturating_sub(MAX_REASONS);
    reasons.truncate(MAX_REASONS);
    for reason in &mut reasons {
        if let Some((end, _)) = reason.char_indices().nth(MAX_REASON_CHARS) {
            reason.truncate(end);
            reason.push('…');
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    reasons
}

impl Directory {
    fn new(settings: ManifestDirectory) -> Directory {
        Directory { settings, read: false, listed: false, trouble: None, clashes: BTreeSet::new() }
    }

    fn judge(&self, has_good: bool, unfit: &mut Vec<String>, degraded: &mut Vec<String>) {
        if !self.read {
            let dir = self.settings.source.display();
            unfit.push(format!("the source directory {dir} has not been read yet"));
        }
        if let Some(reason) = &self.trouble {
            if has_good { degraded.push(reason.clone()) } else { unfit.push(reason.clone()) }
        }
        for name in &self.clashes {
            let dir = self.settings.source.display();
            degraded
                .push(format!("{name} in {dir} has the name or the destination of something else"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stay_few_and_short() {
        let many = (0..12).map(|n| format!("{n}{}", "ü".repeat(1000))).collect();
        let reasons = bounded(many);
        assert_eq!(reasons.len(), 11);
        assert!(reasons[..10].iter().all(|reason| reason.chars().count() == 401));
        assert_eq!(reasons[10], "and 2 more");
        assert_eq!(bounded(vec!["one".into()]), ["one"]);
    }
}

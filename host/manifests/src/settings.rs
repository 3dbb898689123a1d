//! What the manifest loop is told about this node and its elections.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_core::ids::{ElectionName, NodeName};
use conclave_core::record::Attributes;

use crate::error::ManifestsError;
use crate::files::Target;
use crate::ledger::{LedgerEntry, LedgerFile};

/// Everything that the manifest loop needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ManifestSettings {
    /// This node.
    pub node: NodeName,
    /// This node's variables, for rendering.
    pub variables: Attributes,
    /// Where the ledger and saved files are kept.
    pub state_dir: PathBuf,
    /// How often everything is looked at again, whatever inotify said or missed.
    pub rescan: Duration,
    /// The elections; one without manifests and role file is fine and always fit.
    pub elections: Vec<ElectionManifests>,
}

impl ManifestSettings {
    /// The design's default for [`rescan`](Self::rescan).
    pub const RESCAN: Duration = Duration::from_secs(5);

    /// Refuses what can be seen to contradict itself without looking at the disk: an election
    /// twice, a manifest's name twice in an election, one destination for two things.
    pub(crate) fn check(&self) -> Result<(), ManifestsError> {
        let mut elections = BTreeMap::new();
        let mut destinations: BTreeMap<&Path, &ElectionName> = BTreeMap::new();
        for set in &self.elections {
            if elections.insert(&set.election, ()).is_some() {
                return Err(ManifestsError::RepeatedElection { election: set.election.clone() });
            }
            let mut names = BTreeMap::new();
            for file in &set.files {
                if names.insert(file.name.as_str(), ()).is_some() {
                    return Err(ManifestsError::RepeatedManifest {
                        election: set.election.clone(),
                        name: file.name.clone(),
                    });
                }
            }
            let paths = set.files.iter().map(|file| file.destination.as_path());
            for path in paths.chain(set.role_file.as_deref()) {
                if Target::new(path).is_none() {
                    return Err(ManifestsError::NotAFileName { path: path.to_owned() });
                }
                if let Some(other) = destinations.insert(path, &set.election) {
                    return Err(ManifestsError::RepeatedDestination {
                        path: path.to_owned(),
                        first: other.clone(),
                        second: set.election.clone(),
                    });
                }
            }
        }
        let dirs = self.elections.iter().flat_map(|set| &set.directories);
        for path in dirs.map(|directory| &directory.destination) {
            if Target::new(&path.join("manifest.yaml")).is_none() {
                return Err(ManifestsError::NotAFileName { path: path.to_owned() });
            }
        }
        Ok(())
    }
}

/// One election's manifests.
#[derive(Clone, Debug)]
pub struct ElectionManifests {
    /// The election.
    pub election: ElectionName,
    /// Manifests named one by one.
    pub files: Vec<ManifestFile>,
    /// Directories of manifests; a new file needs no restart.
    pub directories: Vec<ManifestDirectory>,
    /// Where the role file is kept, if the election has one.
    pub role_file: Option<PathBuf>,
}

impl ElectionManifests {
    /// Whether only the term's holder may have what the ledger names: then, or by the
    /// configuration that has come since.
    pub(crate) fn is_exclusive(&self, entry: &LedgerEntry) -> bool {
        let LedgerFile::Manifest(name) = &entry.file else { return true };
        let files = self.files.iter().filter(|file| file.name == *name).map(|file| file.handling);
        let there = |d: &&ManifestDirectory| Some(&*d.destination) == entry.path.parent();
        let directories = self.directories.iter().filter(there).map(|d| d.handling);
        entry.exclusive || files.chain(directories).any(|handling| handling.exclusive)
    }
}

/// How manifests are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// Whether only the term's holder may have it.
    pub exclusive: bool,
    /// Whether `${NAME}` is filled in; otherwise bytes are copied exactly.
    pub render: bool,
    /// Whether what stands at the destination is ours, whoever put it there: a stale file is
    /// then removed on a standby and replaced on the leader, as podmaster did.
    pub adopt: bool,
}

impl Default for Handling {
    fn default() -> Self {
        Handling { exclusive: true, render: false, adopt: false }
    }
}

/// A manifest that is named in the configuration.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    /// Its name in the election, by which policies place it.
    pub name: String,
    /// The file to copy.
    pub source: PathBuf,
    /// The file to put in place.
    pub destination: PathBuf,
    /// How it is handled.
    pub handling: Handling,
}

/// A directory whose manifests (`.yaml`, `.yml`, `.json`; no dot names, no editors' backups)
/// are each named after their file.
#[derive(Clone, Debug)]
pub struct ManifestDirectory {
    /// Where the manifests come from.
    pub source: PathBuf,
    /// The directory to put them into, under the same names.
    pub destination: PathBuf,
    /// How they are handled.
    pub handling: Handling,
}

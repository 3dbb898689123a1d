//! From the configuration to what the manifest loop is told.

use std::path::PathBuf;

use conclave_manifests::{
    ElectionManifests, Handling, ManifestDirectory, ManifestFile, ManifestSettings,
};

use crate::config::{Config, ElectionConfig};

impl Config {
    /// The manifest loop's settings.
    pub fn manifest_settings(&self) -> ManifestSettings {
        ManifestSettings {
            node: self.node.name.clone(),
            variables: self.node.variables.clone(),
            state_dir: self.state_directory.clone(),
            rescan: self.timings.rescan,
            elections: self.elections.iter().map(election).collect(),
        }
    }

    /// The directories in which exclusive effects appear: the guard keeps a thread for each.
    pub fn exclusive_directories(&self) -> Vec<PathBuf> {
        let mut directories: Vec<PathBuf> = Vec::new();
        for election in &self.elections {
            let files = election.manifests.iter().filter(|m| m.exclusive).map(|m| &m.destination);
            let files = files.chain(&election.role_file);
            directories.extend(files.filter_map(|file| Some(file.parent()?.to_owned())));
            let whole = election.manifest_directory.iter().filter(|d| d.exclusive);
            directories.extend(whole.map(|directory| directory.destination.clone()));
        }
        directories.sort();
        directories.dedup();
        directories
    }

    /// How many slots the guard's page needs for what can be in place at once. Of a directory
    /// nobody knows how many files it will have.
    pub fn exclusive_slots(&self) -> usize {
        const OF_A_DIRECTORY: usize = 1024;
        let of = |election: &ElectionConfig| {
            let files = election.manifests.iter().filter(|m| m.exclusive).count();
            let directories = election.manifest_directory.iter().filter(|d| d.exclusive).count();
            files
                + directories * OF_A_DIRECTORY
                + usize::from(election.role_file.is_some())
                + usize::from(election.command.is_some())
        };
        self.elections.iter().map(of).sum::<usize>().max(conclave_guard::DEFAULT_SLOTS)
    }
}

fn election(election: &ElectionConfig) -> ElectionManifests {
    let files = election.manifests.iter().map(|manifest| ManifestFile {
        name: manifest.name.clone(),
        source: manifest.source.clone(),
        destination: manifest.destination.clone(),
        handling: Handling {
            exclusive: manifest.exclusive,
            render: manifest.render,
            adopt: manifest.adopt,
        },
    });
    let directories = election.manifest_directory.iter().map(|directory| ManifestDirectory {
        source: directory.source.clone(),
        destination: directory.destination.clone(),
        handling: Handling {
            exclusive: directory.exclusive,
            render: directory.render,
            adopt: directory.adopt,
        },
    });
    ElectionManifests {
        election: election.name.clone(),
        files: files.collect(),
        directories: directories.collect(),
        role_file: election.role_file.clone(),
    }
}

//! What of an election follows its leader, or runs everywhere: sources, destinations, the role file,
//! and that no two of them want the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use conclave_yaml::{Part, Path, Resolver};

use super::elections::{OurFiles, line, unique};
use super::paths::{SourceError, canonical, canonical_destination, readable_file};
use super::resolve::plain_name;
use super::{DirectoryConfig, ManifestConfig, StoreConfig, raw};

/// The manifests that are named one by one.
pub(super) fn listed(
    r: &mut Resolver<'_>,
    written: Vec<raw::Manifest>,
    election: &Path,
    election_name: &str,
    files: &mut Files,
) -> Vec<ManifestConfig> {
    let list = election.key("manifests");
    let mut names = BTreeMap::new();
    let mut manifests = Vec::new();
    for (path, written) in r.items(&list, written.len()).into_iter().zip(written) {
        manifests.extend(manifest(r, written, &path, election_name, &mut names, files));
    }
    manifests
}

fn manifest(
    r: &mut Resolver<'_>,
    written: raw::Manifest,
    path: &Path,
    election: &str,
    names: &mut BTreeMap<String, Path>,
    files: &mut Files,
) -> Option<ManifestConfig> {
    let source = r.required(path, "source", written.source, "name the manifest to copy");
    let destination = r.required(
        path,
        "destination",
        written.destination,
        "name the file in the kubelet's static-pod directory, for instance `/etc/kubernetes/manifests/scheduler.yaml`",
    );
    let (source_text, destination_text) = (source?, destination?);
    let source = r.file(&path.key("source"), &source_text);
    let render = written.render.unwrap_or(false);
    check_source(r, &source, render, &path.key("source"));
    let at = path.key("destination");
    let mut destination = r.file(&at, &destination_text);
    if destination_text.ends_with('/') {
        destination.extend(source.file_name());
    }
    let destination = canonical_destination(&destination);
    let mistake = destination_mistake(&destination);
    if mistake.is_none() && !destination.parent().is_some_and(FilePath::is_dir) {
        warn_of_missing_directory(r, &at, destination.parent().unwrap_or(&destination));
    }
    let stem = || destination.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let (name, named_at) = match written.name {
        Some(name) => (name, path.key("name")),
        None => (stem().unwrap_or_default(), at.clone()),
    };
    if let Some((message, help)) = mistake {
        r.wrong(&at, message, help);
    } else {
        unique(r, names, &named_at, "manifest", &name);
        let what = format!("the manifest `{name}` of election `{election}`");
        files.destination(r, &at, &destination, what);
    }
    let name = if name.is_empty() && named_at == at {
        name // of a destination that is none
    } else {
        plain_name(r, &named_at, "manifest's name", name)
    };
    // Where it is, and where it leads: a kubelet follows links.
    for place in BTreeSet::from([canonical_destination(&source), canonical(&source)]) {
        files.sources.push((place, path.key("source")));
    }
    Some(ManifestConfig {
        name,
        source,
        destination,
        exclusive: written.exclusive.unwrap_or(true),
        render,
        adopt: written.adopt.unwrap_or(false),
        place: r.document().place(path, Part::Value),
    })
}

/// What to do about a source that no kubelet would run.
const NO_MANIFEST: &str = "mend it: a kubelet runs YAML or JSON with `apiVersion` and `kind`, and without one this node cannot lead";

/// A kubelet's directory may come later, and until then this node is unfit and says so.
fn warn_of_missing_directory(r: &mut Resolver<'_>, path: &Path, directory: &FilePath) {
    r.warn(
        path,
        format!("the destination directory {} does not exist", directory.display()),
        "correct the path, or make it: this node cannot lead before",
    );
}

fn check_source(r: &mut Resolver<'_>, source: &FilePath, render: bool, path: &Path) {
    let Err(error) = readable_file(source) else {
        if let Some(reason) = conclave_manifests::unusable_source(source, render) {
            r.wrong(path, format!("the source {reason}"), NO_MANIFEST);
        }
        return;
    };
    let help = match error {
        SourceError::Missing(_) => {
            "put the manifest there, or correct the path; relative paths start at this file's directory"
        }
        SourceError::Directory(_) => {
            "name a file in it, or use `manifest_directory` for all of them"
        }
        SourceError::Unreadable { .. } => "make it readable for the user that runs conclave",
    };
    r.wrong(path, format!("the source {error}"), help);
}

/// What is wrong with a place for a manifest, and what to do.
pub(crate) fn destination_mistake(destination: &FilePath) -> Option<(String, &'static str)> {
    let shown = destination.display();
    let name = destination.file_name().map(|name| name.to_string_lossy());
    if name.is_none() || destination.is_dir() {
        Some((
            format!("the destination {shown} is a directory"),
            "name the file in it, or end it with `/` to keep the source's name",
        ))
    } else if name.is_some_and(|name| name.starts_with('.')) {
        Some((
            format!("the destination {shown} is a hidden file"),
            "kubelets skip names that begin with a dot: choose another",
        ))
    } else {
        None
    }
}

/// A directory of manifests.
pub(super) fn directory(
    r: &mut Resolver<'_>,
    written: raw::Directory,
    path: &Path,
    election: &str,
    files: &mut Files,
) -> Option<DirectoryConfig> {
    let source = r.required(
        path,
        "source",
        written.source,
        "name the directory whose files are the manifests",
    );
    let destination = r.required(
        path,
        "destination",
        written.destination,
        "name the kubelet's static-pod directory",
    );
    let (source, destination) = (source?, destination?);
    let from = path.key("source");
    let source = r.file(&from, &source);
    if !source.is_dir() {
        r.wrong(
            &from,
            format!("the source {} is not a directory", source.display()),
            "make it, or use `manifests` to name single files",
        );
    }
    let to = path.key("destination");
    let destination = canonical(&r.file(&to, &destination));
    if destination.is_file() {
        r.wrong(
            &to,
            format!("the destination {} is not a directory", destination.display()),
            "name the kubelet's static-pod directory",
        );
    } else if !destination.exists() {
        warn_of_missing_directory(r, &to, &destination);
    }
    let render = written.render.unwrap_or(false);
    for name in manifest_files(&source) {
        if let Some(reason) = conclave_manifests::unusable_source(&source.join(&name), render) {
            r.warn(
                &from,
                format!("the source {reason}"),
                "mend it: it is not put in place as it is",
            );
        }
        let what = format!("the file {name} in the manifest directory of election `{election}`");
        files.destination(r, &to, &destination.join(&name), what);
    }
    files.directories.insert(destination.clone());
    files.sources.push((canonical(&source).join("*"), from));
    Some(DirectoryConfig {
        source,
        destination,
        exclusive: written.exclusive.unwrap_or(true),
        render,
        adopt: written.adopt.unwrap_or(false),
        place: r.document().place(path, Part::Value),
    })
}

/// The files that a manifest directory has now.
fn manifest_files(directory: &FilePath) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

pub(super) fn role_file(
    r: &mut Resolver<'_>,
    text: &str,
    path: &Path,
    election: &str,
    files: &mut Files,
) -> PathBuf {
    let file = canonical_destination(&r.file(path, text));
    if file.is_dir() {
        r.wrong(
            path,
            format!("the role file {} is a directory", file.display()),
            "name a file in it",
        );
    }
    files.claim(r, path, &file, format!("the role file of election `{election}`"));
    files.ours.push((file.clone(), path.clone(), "the role file"));
    file
}

/// Who wants which file, over all elections.
#[derive(Default)]
pub(super) struct Files {
    taken: BTreeMap<PathBuf, (String, Path)>,
    /// Where manifests go: kubelets read every file there.
    directories: BTreeSet<PathBuf>,
    sources: Vec<(PathBuf, Path)>,
    /// Files that no kubelet should read.
    ours: Vec<(PathBuf, Path, &'static str)>,
}

impl Files {
    fn destination(&mut self, r: &mut Resolver<'_>, path: &Path, file: &FilePath, what: String) {
        self.claim(r, path, file, what);
        self.directories.extend(file.parent().map(FilePath::to_path_buf));
    }

    fn claim(&mut self, r: &mut Resolver<'_>, path: &Path, file: &FilePath, what: String) {
        match self.taken.get(file) {
            None => {
                self.taken.insert(file.to_path_buf(), (what, path.clone()));
            }
            Some((first, first_path)) => {
                let line = line(r, first_path);
                r.wrong(
                    path,
                    format!("{what} has the destination {}, which is taken", file.display()),
                    format!("{first} goes there, {line}; every file needs a place of its own"),
                );
            }
        }
    }

    /// Looks across all elections, once they are known.
    pub(super) fn check(&self, r: &mut Resolver<'_>, ours: &OurFiles<'_>) {
        for (source, path) in &self.sources {
            if source.parent().is_some_and(|directory| self.directories.contains(directory)) {
                r.wrong(
                    path,
                    "the source is in a directory that a kubelet reads: it would run there on every node".to_owned(),
                    "keep sources in a directory of their own, for instance /srv/kubernetes/manifests",
                );
            }
        }
        let mut hidden = self.ours.clone();
        if let Some(StoreConfig::Embedded { path }) = ours.store {
            hidden.push((
                path.clone(),
                Path::default().key("store").key("embedded").key("path"),
                "the store",
            ));
        }
        for (file, path, what) in &hidden {
            if file.parent().is_some_and(|directory| self.directories.contains(directory)) {
                r.wrong(
                    path,
                    format!("{what} {} is in a directory that a kubelet reads", file.display()),
                    "keep it elsewhere: the kubelet would take it for a manifest",
                );
            }
        }
        for (file, path, what) in &hidden {
            let directory = file.parent().map(|directory| directory.join("*"));
            if let Some((_, source)) = self
                .sources
                .iter()
                .find(|(source, _)| source == file || Some(source) == directory.as_ref())
            {
                let line = line(r, source);
                r.wrong(
                    path,
                    format!("{what} {} is where a manifest's source is, {line}", file.display()),
                    "give it a place of its own: it would be taken for a manifest, or replace it",
                );
            }
        }
        let state = Path::default().key("state_directory");
        let inside =
            self.directories.iter().find(|directory| directory.starts_with(ours.state_directory));
        if let Some(directory) = inside {
            r.wrong_field(
                &state,
                format!(
                    "the destination directory {} is inside the state directory {}",
                    directory.display(),
                    ours.state_directory.display()
                ),
                "keep what Conclave remembers and what kubelets read apart",
            );
        }
    }
}

//! The elections' section: what each election is about, and that no two settings want the same
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use conclave_core::ElectionName;
use conclave_yaml::{Part, Path, Resolver};

use super::paths::{SourceError, canonical, canonical_destination, readable_file};
use super::resolve::{plain_name, unknown_policy};
use super::{
    DEFAULT_POLICY, DirectoryConfig, ElectionConfig, ElectionPlaces, ManifestConfig,
    OnPolicyFailure, Place, StoreConfig, checks, raw, timings,
};

/// How long a kubelet may take to notice that a manifest has gone.
pub(crate) const KUBELET_NOTICES: Duration = Duration::from_secs(20);

/// How long a pod may then take to end, unless it sets another grace period.
pub(crate) const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Files that Conclave itself keeps.
pub(super) struct OurFiles<'a> {
    pub(super) state_directory: &'a FilePath,
    pub(super) store: Option<&'a StoreConfig>,
}

pub(super) fn resolve(
    r: &mut Resolver<'_>,
    written: Option<Vec<raw::Election>>,
    top: &Path,
    policies: &[String],
    ours: &OurFiles<'_>,
) -> Vec<ElectionConfig> {
    const HELP: &str =
        "add at least one election with the manifests that one node at a time shall run";
    let list = top.key("elections");
    let Some(written) = r.required(top, "elections", written, HELP) else { return Vec::new() };
    if written.is_empty() && !r.is_faulty(&list) {
        r.wrong_field(&list, "there are no elections", HELP);
    }
    let mut files = Files::default();
    let mut names = BTreeMap::new();
    let mut elections = Vec::new();
    for (path, election) in r.items(&list, written.len()).into_iter().zip(written) {
        elections.extend(self::election(r, election, &path, policies, &mut names, &mut files));
    }
    files.check(r, ours);
    elections
}

fn election(
    r: &mut Resolver<'_>,
    written: raw::Election,
    path: &Path,
    policies: &[String],
    names: &mut BTreeMap<String, Path>,
    files: &mut Files,
) -> Option<ElectionConfig> {
    let name =
        r.required(path, "name", written.name, "name the election, for instance `name: masters`");
    if let Some(name) = &name {
        unique(r, names, &path.key("name"), "election", name);
    }
    let name = name
        .map(|name| plain_name(r, &path.key("name"), "election's name", name))
        .unwrap_or_default();
    let policy = written.policy.unwrap_or_else(|| DEFAULT_POLICY.to_owned());
    if !policies.contains(&policy) {
        let (message, help) = unknown_policy(&policy, policies);
        r.wrong(&path.key("policy"), message, help);
    }
    let policy_config = policy_config(r, written.policy_config, &path.key("policy_config"));
    let nothing = written.manifests.as_ref().is_none_or(Vec::is_empty)
        && written.manifest_directory.is_none()
        && written.role_file.is_none();
    nothing_to_do(r, path, nothing);
    let manifests = manifests(r, written.manifests.unwrap_or_default(), path, &name, files);
    let manifest_directory = written.manifest_directory.and_then(|directory| {
        self::directory(r, directory, &path.key("manifest_directory"), &name, files)
    });
    let role_file =
        written.role_file.map(|text| role_file(r, &text, &path.key("role_file"), &name, files));
    let fitness = checks::fitness(r, written.fitness.unwrap_or_default(), &path.key("fitness"));
    let stop_check =
        written.stop_check.and_then(|check| checks::stop(r, check, &path.key("stop_check")));
    let takeover_delay = written.takeover_delay.map(|span| span.0).unwrap_or_default();
    let at = path.key("takeover_delay");
    let takeover_delay = checks::not_for_ever(r, &at, "takeover_delay", takeover_delay);
    if let Some(command) = &written.on_stuck {
        checks::command(r, command, &path.key("on_stuck"));
    }
    let on_policy_failure =
        written.on_policy_failure.unwrap_or_else(|| OnPolicyFailure::of_policy(&policy));
    let config = ElectionConfig {
        name: ElectionName::new(name),
        policy,
        places: places(r, path, &policy_config),
        policy_config,
        on_policy_failure,
        manifests,
        manifest_directory,
        fitness,
        stop_check,
        takeover_delay,
        overlap_accepted: written.overlap.is_some(),
        role_file,
        on_stuck: written.on_stuck,
    };
    warn_of_overlap(r, path, &config);
    Some(config)
}

/// What the policy is configured with: an object, whatever was written.
fn policy_config(
    r: &mut Resolver<'_>,
    written: Option<serde_json::Value>,
    path: &Path,
) -> serde_json::Value {
    match written {
        None | Some(serde_json::Value::Null) => {}
        Some(config) if config.is_object() => return config,
        Some(_) => r.wrong(
            path,
            format!("{path} is not a mapping"),
            "write the policy's settings as fields, for instance `policy_config: {prefer: [a]}`",
        ),
    }
    serde_json::Value::Object(serde_json::Map::new())
}

fn places(r: &Resolver<'_>, path: &Path, policy_config: &serde_json::Value) -> ElectionPlaces {
    let place = |field: &str, part| r.document().place(&path.key(field), part);
    let mut settings = BTreeMap::new();
    settings_of(r, &path.key("policy_config"), String::new(), policy_config, &mut settings);
    ElectionPlaces {
        election: place("name", Part::Value),
        policy: place("policy", Part::Value),
        policy_config: place("policy_config", Part::Key),
        settings,
    }
}

/// Notes where everything inside a policy's configuration stands, by JSON pointer.
fn settings_of(
    r: &Resolver<'_>,
    path: &Path,
    pointer: String,
    value: &serde_json::Value,
    settings: &mut BTreeMap<String, Place>,
) {
    let mut note = |path: Path, step: &str, value| {
        let pointer = format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"));
        settings.extend(r.document().place(&path, Part::Key).map(|place| (pointer.clone(), place)));
        settings_of(r, &path, pointer, value, settings);
    };
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| note(path.key(name), name, value));
        }
        serde_json::Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(at, value)| note(path.index(at), &at.to_string(), value));
        }
        _ => {}
    }
}

fn nothing_to_do(r: &mut Resolver<'_>, path: &Path, nothing: bool) {
    let faulty = ["manifests", "manifest_directory", "role_file"]
        .iter()
        .any(|field| r.is_faulty(&path.key(field)));
    if nothing && !faulty {
        r.wrong(
            path,
            "this election has nothing that follows its leader",
            "add `manifests`, a `manifest_directory` or a `role_file`",
        );
    }
}

/// Removing a manifest is not stopping a pod: says so where the operator has not.
fn warn_of_overlap(r: &mut Resolver<'_>, path: &Path, election: &ElectionConfig) {
    let exclusive = election.manifests.iter().any(|manifest| manifest.exclusive)
        || election.manifest_directory.as_ref().is_some_and(|directory| directory.exclusive);
    let faulty = ["stop_check", "takeover_delay", "overlap"]
        .iter()
        .any(|field| r.is_faulty(&path.key(field)));
    let settled = election.stop_check.is_some()
        || !election.takeover_delay.is_zero()
        || election.overlap_accepted;
    if exclusive && !faulty && !settled {
        let (message, help) = overlap_warning(election.name.as_str());
        r.warn(&path.key("name"), message, help);
    }
}

/// What to say of an election that settles nothing about pods that outlive their manifests.
fn overlap_warning(election: &str) -> (String, String) {
    let both = KUBELET_NOTICES + GRACE_PERIOD;
    (
        format!(
            "after a change of leader in `{election}` the old pods can run beside the new ones for up to {}: a kubelet notices a removed manifest after up to {}, and the pod then has up to {} to end",
            timings::text(both),
            timings::text(KUBELET_NOTICES),
            timings::text(GRACE_PERIOD),
        ),
        format!(
            "set a `stop_check` for planned changes and `takeover_delay: {}` for crashes, or say `overlap: accepted`",
            timings::text(both).replace(' ', "")
        ),
    )
}

fn unique(
    r: &mut Resolver<'_>,
    seen: &mut BTreeMap<String, Path>,
    path: &Path,
    what: &str,
    name: &str,
) {
    match seen.get(name) {
        None => {
            seen.insert(name.to_owned(), path.clone());
        }
        Some(first) => {
            let first = line(r, first);
            r.wrong(
                path,
                format!("there are two {what}s `{name}`"),
                format!("the other one is {first}; give one of them another name"),
            );
        }
    }
}

/// "in line 12", for a second place in a message.
fn line(r: &Resolver<'_>, path: &Path) -> String {
    match r.document().place(path, Part::Value) {
        Some(Place::File { line, .. }) => format!("in line {line}"),
        _ => format!("at {path}"),
    }
}

fn manifests(
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
    check_source(r, &source, &path.key("source"));
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
        render: written.render.unwrap_or(false),
        adopt: written.adopt.unwrap_or(false),
        place: r.document().place(path, Part::Value),
    })
}

/// A kubelet's directory may come later, and until then this node is unfit and says so.
fn warn_of_missing_directory(r: &mut Resolver<'_>, path: &Path, directory: &FilePath) {
    r.warn(
        path,
        format!("the destination directory {} does not exist", directory.display()),
        "correct the path, or make it: this node cannot lead before",
    );
}

fn check_source(r: &mut Resolver<'_>, source: &FilePath, path: &Path) {
    let Err(error) = readable_file(source) else { return };
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

fn directory(
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
    for name in manifest_files(&source) {
        let what = format!("the file {name} in the manifest directory of election `{election}`");
        files.destination(r, &to, &destination.join(&name), what);
    }
    files.directories.insert(destination.clone());
    files.sources.push((canonical(&source).join("*"), from));
    Some(DirectoryConfig {
        source,
        destination,
        exclusive: written.exclusive.unwrap_or(true),
        render: written.render.unwrap_or(false),
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

fn role_file(
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
struct Files {
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
    fn check(&self, r: &mut Resolver<'_>, ours: &OurFiles<'_>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_names_the_seconds() {
        let (message, help) = overlap_warning("masters");
        assert_eq!(
            message,
            "after a change of leader in `masters` the old pods can run beside the new ones for up to 50s: a kubelet notices a removed manifest after up to 20s, and the pod then has up to 30s to end"
        );
        assert_eq!(
            help,
            "set a `stop_check` for planned changes and `takeover_delay: 50s` for crashes, or say `overlap: accepted`"
        );
    }
}

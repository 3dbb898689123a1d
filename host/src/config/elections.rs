//! The elections' section: what each election is about.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::time::Duration;

use conclave_core::ElectionName;
use conclave_yaml::{Part, Path, Resolver};

use super::manifests::{self, Files};
use super::resolve::{plain_name, unknown_policy};
use super::{
    DEFAULT_POLICY, ElectionConfig, ElectionPlaces, HooksConfig, OnPolicyFailure, Place,
    ShadowConfig, StoreConfig, checks, raw, timings,
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
    let manifests = manifests::listed(r, written.manifests.unwrap_or_default(), path, &name, files);
    let manifest_directory = written.manifest_directory.and_then(|directory| {
        manifests::directory(r, directory, &path.key("manifest_directory"), &name, files)
    });
    let role_file = written
        .role_file
        .map(|text| manifests::role_file(r, &text, &path.key("role_file"), &name, files));
    let fitness = checks::fitness(r, written.fitness.unwrap_or_default(), &path.key("fitness"));
    let stop_check =
        written.stop_check.and_then(|check| checks::stop(r, check, &path.key("stop_check")));
    let takeover_delay = written.takeover_delay.map(|span| span.0).unwrap_or_default();
    let at = path.key("takeover_delay");
    let takeover_delay = checks::not_for_ever(r, &at, "takeover_delay", takeover_delay);
    if let Some(command) = &written.on_stuck {
        checks::command(r, command, &path.key("on_stuck"));
    }
    let hooks = written.hooks.map(|written| hooks(r, written, &path.key("hooks")));
    let on_policy_failure =
        written.on_policy_failure.unwrap_or_else(|| OnPolicyFailure::of_policy(&policy));
    let shadow = written.shadow.and_then(|it| shadow(r, it, &path.key("shadow"), policies));
    let config = ElectionConfig {
        name: ElectionName::new(name),
        policy,
        places: places(r, path, &policy_config),
        policy_config,
        on_policy_failure,
        shadow,
        manifests,
        manifest_directory,
        fitness,
        stop_check,
        takeover_delay,
        overlap_accepted: written.overlap.is_some(),
        role_file,
        on_stuck: written.on_stuck,
        hooks,
        command: None,
    };
    warn_of_overlap(r, path, &config);
    Some(config)
}

fn hooks(r: &mut Resolver<'_>, written: raw::Hooks, path: &Path) -> HooksConfig {
    const TIMEOUT: Duration = Duration::from_secs(30);
    let raw::Hooks { gained, lost, changed, timeout } = written;
    for (field, command) in [("gained", &gained), ("lost", &lost), ("changed", &changed)] {
        if let Some(command) = command {
            checks::command(r, command, &path.key(field));
        }
    }
    let timeout = timeout.map_or(TIMEOUT, |span| span.0);
    let timeout = checks::not_for_ever(r, &path.key("timeout"), "timeout", timeout);
    HooksConfig { gained, lost, changed, timeout }
}

fn shadow(
    r: &mut Resolver<'_>,
    written: raw::Shadow,
    path: &Path,
    policies: &[String],
) -> Option<ShadowConfig> {
    const HELP: &str = "name the policy that is asked the same, and decides nothing";
    let policy = r.required(path, "policy", written.policy, HELP)?;
    if !policies.contains(&policy) {
        let (message, help) = unknown_policy(&policy, policies);
        r.wrong(&path.key("policy"), message, help);
    }
    let policy_config = policy_config(r, written.policy_config, &path.key("policy_config"));
    Some(ShadowConfig { policy, policy_config })
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

pub(super) fn unique(
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
pub(super) fn line(r: &Resolver<'_>, path: &Path) -> String {
    match r.document().place(path, Part::Value) {
        Some(Place::File { line, .. }) => format!("in line {line}"),
        _ => format!("at {path}"),
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

//! What speaks against an election's policy before anything runs: the policy's own word on its
//! configuration, and whether the manifests can be put in place as it would have them.

use std::path::Path;
use std::sync::Arc;

use conclave_core::view::{ManifestView, NodeView, Placement};
use conclave_manifests::{Scope, Variables, try_rendering};
use conclave_policy::{Cause, Policy, PolicyError};
use tracing::warn;

use crate::config::{ElectionConfig, Place, Problem};
use crate::daemon::phrase::phrase;

/// How often a policy that ran out of time is asked again while a configuration is checked.
pub(super) const ATTEMPTS: usize = 10;

/// Asks again when a call ran out of time, and gives up without an answer: a machine that is busy
/// for a moment makes no configuration wrong. Runaway policies are stopped by their fuel.
pub(super) fn patiently<T>(
    ask: impl Fn() -> Result<T, PolicyError>,
) -> Result<Option<T>, PolicyError> {
    for _ in 0..ATTEMPTS {
        match ask() {
            Err(error) if matches!(*error.cause, Cause::Deadline { .. }) => {
                warn!(
                    error = phrase(&error),
                    "a policy ran out of time while its configuration was checked"
                );
            }
            answered => return answered.map(Some),
        }
    }
    Ok(None)
}

/// What an election's policy says against its configuration and its manifests.
pub(super) fn refused(election: &ElectionConfig, policy: &Policy, node: &NodeView) -> Vec<Problem> {
    let config = election.policy_config.to_string();
    let place = election.places.setting("").cloned();
    let named = |text: String| format!("policy {}: {text}", election.policy);
    let said = match patiently(|| policy.validate(&election.name, &config)) {
        Err(error) => return vec![Problem::new(place, phrase(&error))],
        Ok(answer) => answer.map(|answer| answer.value).unwrap_or_default(),
    };
    if !said.is_empty() {
        return said
            .into_iter()
            .map(|problem| {
                let path = if problem.path.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", problem.path)
                };
                let place = election.places.setting(&problem.path).cloned();
                Problem::new(place, named(format!("{path}{}", problem.message)))
            })
            .collect();
    }
    let manifests = manifests(election);
    if let Err(error) =
        patiently(|| policy.check_refusals(&election.name, node, &manifests, &config))
    {
        return vec![Problem::new(place, phrase(&error))];
    }
    match patiently(|| policy.check_exclusive(&election.name, node, &manifests, &config)) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let places = &election.places;
            let place = match &*error.cause {
                Cause::BadAnswer(answer) => {
                    answer.manifest().and_then(|name| place_of(election, name))
                }
                _ => places.policy.clone(),
            };
            let place = place.or_else(|| places.election.clone());
            vec![Problem::new(place, phrase(&error))]
        }
    }
}

/// Manifests that lack a variable, or become none once they are filled in. One that is among a
/// directory's is left out, and only warned of.
pub(super) fn unrenderable(
    election: &ElectionConfig,
    policy: &Policy,
    node: &NodeView,
) -> Vec<Problem> {
    let config = election.policy_config.to_string();
    let manifests = manifests(election);
    let rendered = |manifest: &&ManifestView| {
        renders(election, &manifest.name) && !manifest.content.is_empty()
    };
    if !manifests.iter().any(|manifest| rendered(&manifest)) {
        return Vec::new();
    }
    // What speaks against the policy itself is said elsewhere.
    let asked = patiently(|| policy.check_exclusive(&election.name, node, &manifests, &config));
    let Ok(Some(roles)) = asked else { return Vec::new() };
    let scope = Scope {
        node: node.name.clone(),
        election: election.name.clone(),
        variables: Arc::new(node.variables.clone()),
    };
    let wrong = |manifest: &ManifestView| {
        let placements = if manifest.exclusive { &roles.leader } else { &roles.standby };
        let placed = placed(placements, &manifest.name)?;
        let fault = try_rendering(&manifest.content, manifest.exclusive, &scope, placed).err()?;
        let name = &manifest.name;
        if election.manifests.iter().all(|listed| listed.name != *name) {
            warn!(election = %election.name, manifest = name, reason = phrase(&fault), "a manifest of the directory cannot be put in place");
            return None;
        }
        let message = format!("the manifest `{name}`: {}", phrase(&fault));
        Some(Problem::new(place_of(election, name), message))
    };
    manifests.iter().filter(rendered).filter_map(wrong).collect()
}

/// The variables with which a manifest would run; `None` if it would not.
fn placed<'a>(placements: &'a [Placement], manifest: &str) -> Option<&'a Variables> {
    let placement = placements.iter().find(|placement| placement.manifest == manifest)?;
    placement.run.then_some(&placement.variables)
}

fn renders(election: &ElectionConfig, name: &str) -> bool {
    match election.manifests.iter().find(|manifest| manifest.name == name) {
        Some(manifest) => manifest.render,
        None => election.manifest_directory.as_ref().is_some_and(|directory| directory.render),
    }
}

/// Where a manifest stands in the configuration, or the directory that it is in.
fn place_of(election: &ElectionConfig, name: &str) -> Option<Place> {
    match election.manifests.iter().find(|manifest| manifest.name == name) {
        Some(manifest) => manifest.place.clone(),
        None => election.manifest_directory.as_ref()?.place.clone(),
    }
}

/// The election's manifests as far as they can be read now.
fn manifests(election: &ElectionConfig) -> Vec<ManifestView> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut views: Vec<ManifestView> = election
        .manifests
        .iter()
        .map(|manifest| ManifestView {
            name: manifest.name.clone(),
            exclusive: manifest.exclusive,
            content: read(&manifest.source),
        })
        .collect();
    if let Some(directory) = &election.manifest_directory {
        let files = std::fs::read_dir(&directory.source).into_iter().flatten().flatten();
        views.extend(files.filter_map(|file| {
            let path = file.path();
            let known = ["yaml", "yml", "json"];
            let suffix = path.extension()?.to_str()?;
            let name = path.file_name()?.to_str()?.to_owned();
            (known.contains(&suffix) && !name.starts_with('.')).then(|| ManifestView {
                content: read(&path),
                exclusive: directory.exclusive,
                name,
            })
        }));
    }
    views
}

//! The policy `oldest-version`: the candidate with the oldest version leads.
//!
//! That is the rule of Kubernetes' coordinated leader election. While a control plane is upgraded
//! node by node, the new version leads nothing before the last old one is gone, so that what it
//! writes is never read by a leader that does not understand it; and a rollback finds its leader
//! still there.
//!
//! - **Who leads:** candidates by version, the oldest first; of one version the incumbent, and then
//!   the longest-standing. One whose version is not known stands last. An older node that comes
//!   takes the lead once it has stood for `settle_seconds`.
//! - **Where the version comes from:** the node's label `version`, or another `label`; or one of its
//!   `variable`s, which then also fills in its manifests. A variable is seen by the node alone,
//!   so the node publishes it as a fact.
//! - **What runs where:** exclusive manifests on the leader, all others on every node, which is the
//!   host's default, so there is no `place` here.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

mod version;

use conclave_policy_sdk::{
    Attributes, Candidate, Config, Info, Manifest, Node, Policy, Problem, Ranking, Refusal, View,
    export_policy, ranking,
};
use serde::Deserialize;

use version::Version;

/// The policy. It has no state: every call gets a fresh instance.
pub struct OldestVersion;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The label that has the version; `version` unless a variable is named.
    pub label: Option<String>,
    /// The variable that has it.
    pub variable: Option<String>,
    /// How long an older node must have stood before it takes the lead from another.
    pub settle_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { label: None, variable: None, settle_seconds: 60 }
    }
}

impl Config for Settings {}

/// The fact by which a variable travels.
const FACT: &str = "version";

impl Policy for OldestVersion {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "oldest-version".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "The candidate with the oldest version leads.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: &str| {
            problems.push(Problem { path: path.to_owned(), message: message.to_owned() });
        };
        for (path, name) in [("/label", &settings.label), ("/variable", &settings.variable)] {
            if name.as_deref() == Some("") {
                problem(path, "the name is missing");
            }
        }
        if settings.label.is_some() && settings.variable.is_some() {
            problem("/variable", "the version comes from a label or from a variable: remove one");
        }
        if settings.settle_seconds > 86_400 {
            let message = "more than a day (86400) would never be reached in practice";
            problem("/settle_seconds", message);
        }
        problems
    }

    fn describe(node: &Node, _: &[Manifest], settings: &Settings) -> Result<Attributes, Refusal> {
        let value = settings.variable.as_ref().and_then(|name| node.variable(name));
        Ok(value.map(|value| (FACT.to_owned(), value.to_owned())).into_iter().collect())
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        // Candidates that get the same key stay in the view's order, the longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            let incumbent = ranking::is_incumbent(view, candidate);
            let waits = view.incumbent.is_some()
                && !incumbent
                && candidate.standing_ms / 1_000 < settings.settle_seconds;
            let stated = version_of(settings, candidate);
            let version = stated.and_then(Version::parse);
            let reason = match (&version, stated, waits) {
                (Some(_), Some(text), false) => format!("version {text}"),
                (Some(_), Some(text), true) => format!("version {text}, but has not settled"),
                (None, Some(text), _) => format!("`{text}` is not a version such as 1.28.3"),
                (_, None, _) => "its version is not known".to_owned(),
            };
            // `None` comes before any version: those that are not known are told apart first.
            ((waits, version.is_none(), version, !incumbent), reason)
        }))
    }
}

fn version_of<'a>(settings: &Settings, candidate: &'a Candidate) -> Option<&'a str> {
    match settings.variable {
        Some(_) => candidate.fact(FACT),
        None => candidate.label(settings.label.as_deref().unwrap_or("version")),
    }
}

export_policy!(OldestVersion);

#[cfg(test)]
mod tests;

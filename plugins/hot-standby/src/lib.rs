//! The policy `hot-standby`: every manifest runs on every node, and only the role moves.
//!
//! The copies learn their role from the election's role file or from the leader check, so a
//! change of role restarts no pod.
//!
//! - **Who leads:** because moving is cheap here, nodes whose labels match `prefer` lead whenever
//!   they can, once they have stood for `settle_seconds`; otherwise whoever leads already, and
//!   then the longest-standing.
//! - **What runs where:** everything everywhere. An exclusive manifest contradicts that and is
//!   refused as a mistake in the configuration.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

use std::collections::BTreeMap;

use conclave_policy_sdk::{
    Candidate, Config, Info, Manifest, Node, Placement, Policy, Problem, Ranking, Refusal, Role,
    View, export_policy, placement, ranking,
};
use serde::Deserialize;

/// The policy. It has no state: every call gets a fresh instance.
pub struct HotStandby;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Labels and the values that a preferred node has; all must match. Empty: none is preferred.
    pub prefer: BTreeMap<String, String>,
    /// How long a preferred node must have stood before it takes the lead from another. It keeps
    /// a node that comes and goes from pulling leadership to and fro.
    pub settle_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { prefer: BTreeMap::new(), settle_seconds: 60 }
    }
}

impl Config for Settings {}

impl Policy for HotStandby {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "hot-standby".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Every manifest runs on every node; only the role moves.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        if settings.prefer.contains_key("") {
            problems
                .push(Problem { path: "/prefer".into(), message: "a label has no name".into() });
        }
        if settings.settle_seconds > 86_400 {
            problems.push(Problem {
                path: "/settle_seconds".into(),
                message: "more than a day (86400) would never be reached in practice".into(),
            });
        }
        problems
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        // Candidates that get the same key stay in the view's order, the longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            let incumbent = ranking::is_incumbent(view, candidate);
            let preferred = is_preferred(settings, candidate);
            match (preferred, incumbent) {
                (true, true) => (0, "preferred by its labels, and holds the term".into()),
                (true, false) if has_settled(view, settings, candidate) => {
                    (1, "preferred by its labels".into())
                }
                (false, true) => (2, "holds the term".into()),
                (true, false) => (3, "preferred by its labels, but has not settled".into()),
                (false, false) => (4, "in order of standing".into()),
            }
        }))
    }

    fn place(
        _: &View,
        _: &Node,
        _: Role,
        manifests: &[Manifest],
        _: &Settings,
    ) -> Result<Vec<Placement>, Refusal> {
        if let Some(manifest) = manifests.iter().find(|manifest| manifest.exclusive) {
            return Err(Refusal::Configuration(format!(
                "manifest `{}` is exclusive, but hot-standby runs every manifest on every node: \
                 declare it `exclusive: false`, or choose cold-standby",
                manifest.name
            )));
        }
        Ok(manifests.iter().map(|manifest| placement::of(manifest, true)).collect())
    }
}

fn is_preferred(settings: &Settings, candidate: &Candidate) -> bool {
    !settings.prefer.is_empty()
        && settings.prefer.iter().all(|(label, value)| candidate.label(label) == Some(value))
}

/// On a vacancy nothing would be pulled away from anybody, so there is nothing to wait for.
fn has_settled(view: &View, settings: &Settings, candidate: &Candidate) -> bool {
    view.incumbent.is_none() || candidate.standing_ms / 1_000 >= settings.settle_seconds
}

export_policy!(HotStandby);

#[cfg(test)]
mod tests;

//! The policy `cold-standby`: one node runs the exclusive manifests, the others wait.
//!
//! - **Who leads:** whoever leads already, because moving costs a restart of the pods. On a
//!   vacancy the nodes under `prefer`, in that order, and then the longest-standing.
//! - **What runs where:** exclusive manifests on the leader, all others on every node. That is
//!   also the host's default, so there is no `place` here.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

use conclave_policy_sdk::{
    Candidate, Config, Info, Policy, Problem, Ranking, Refusal, View, export_policy, ranking,
};
use serde::Deserialize;

/// The policy. It has no state: every call gets a fresh instance.
pub struct ColdStandby;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Names of nodes that shall lead after a vacancy, the best first.
    pub prefer: Vec<String>,
}

impl Config for Settings {}

impl Policy for ColdStandby {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "cold-standby".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Leadership stays where it is; exclusive manifests run on the leader only."
                .into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, node) in settings.prefer.iter().enumerate() {
            let message = if node.is_empty() {
                "the name of a node is missing".to_owned()
            } else if settings.prefer[..index].contains(node) {
                format!("node `{node}` is named twice; keep its first place")
            } else {
                continue;
            };
            problems.push(Problem { path: format!("/prefer/{index}"), message });
        }
        problems
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        // Candidates that get the same key stay in the view's order, the longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            if ranking::is_incumbent(view, candidate) {
                (0, "holds the term, and leadership stays where it is".into())
            } else if let Some(place) = preference(settings, candidate) {
                (1 + place, format!("number {} in `prefer`", 1 + place))
            } else {
                (usize::MAX, "in order of standing".into())
            }
        }))
    }
}

fn preference(settings: &Settings, candidate: &Candidate) -> Option<usize> {
    settings.prefer.iter().position(|node| *node == candidate.name)
}

export_policy!(ColdStandby);

#[cfg(test)]
mod tests;

//! The policy `preferred`: the node with the greatest weight leads, once it has settled.
//!
//! - **Who leads:** each candidate weighs what its name has under `weights` and, in addition, what
//!   each matching rule under `labels` gives; the heaviest leads. Three settings keep leadership
//!   from wandering: with `preempt: false` nobody is displaced; an incumbent stays for
//!   `stay_seconds`; and a heavier candidate that has not stood for `settle_seconds` waits, so that
//!   one that comes and goes pulls nothing to and fro. Also on a vacancy those that have settled
//!   come first.
//! - **What runs where:** exclusive manifests on the leader, all others on every node, which is the
//!   host's default, so there is no `place` here.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

use std::cmp::Reverse;
use std::collections::BTreeMap;

use conclave_policy_sdk::{
    Candidate, Config, Info, Policy, Problem, Ranking, Refusal, View, export_policy, ranking,
};
use serde::Deserialize;

/// The policy. It has no state: every call gets a fresh instance.
pub struct Preferred;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What nodes weigh, by name; the others weigh nothing.
    pub weights: BTreeMap<String, i32>,
    /// What a label's value adds.
    pub labels: Vec<LabelWeight>,
    /// Whether a heavier node displaces an incumbent.
    pub preempt: bool,
    /// How long an incumbent leads before it is displaced.
    pub stay_seconds: u64,
    /// How long a node must have stood before it displaces an incumbent.
    pub settle_seconds: u64,
}

/// A weight for all nodes with a label.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelWeight {
    /// The label.
    pub label: String,
    /// The value that it must have; any, unless given.
    #[serde(default)]
    pub value: Option<String>,
    /// What it adds; less than zero to avoid such nodes.
    pub weight: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            weights: BTreeMap::new(),
            labels: Vec::new(),
            preempt: true,
            stay_seconds: 0,
            settle_seconds: 60,
        }
    }
}

impl Config for Settings {}

/// Longer than this, in seconds, would never be reached in practice.
const DAY: u64 = 86_400;

/// Where a candidate stands before weights are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The incumbent, while nobody may displace it.
    Stays,
    /// Whoever may lead now, by weight.
    MayLead,
    /// Those that have not settled, by weight.
    Unsettled,
}

impl Policy for Preferred {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "preferred".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "The node with the greatest weight leads, once it has settled.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(Problem { path, message: message.to_owned() });
        };
        if settings.weights.contains_key("") {
            problem("/weights".into(), "the name of a node is missing");
        }
        for (index, rule) in settings.labels.iter().enumerate() {
            if rule.label.is_empty() {
                problem(format!("/labels/{index}/label"), "the name of the label is missing");
            }
        }
        let spans =
            [("stay_seconds", settings.stay_seconds), ("settle_seconds", settings.settle_seconds)];
        for (name, seconds) in spans {
            if seconds > DAY {
                let message = "more than a day (86400) would never be reached in practice";
                problem(format!("/{name}"), message);
            }
        }
        if !settings.preempt && settings.stay_seconds > 0 {
            let message = "means nothing with `preempt: false`, where nobody is displaced";
            problem("/stay_seconds".into(), message);
        }
        problems
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        // Candidates that get the same key stay in the view's order, the longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            let weight = weight(settings, candidate);
            let incumbent = ranking::is_incumbent(view, candidate);
            let (group, reason) = if incumbent {
                stays(view, settings)
                    .map_or((Group::MayLead, format!("weight {weight}, holds the term")), |why| {
                        (Group::Stays, why)
                    })
            } else if has_settled(settings, candidate) {
                (Group::MayLead, format!("weight {weight}"))
            } else {
                let (stood, wanted) = (candidate.standing_ms / 1_000, settings.settle_seconds);
                let reason =
                    format!("weight {weight}, but has stood for {stood} s of {wanted} only");
                (Group::Unsettled, reason)
            };
            // Of equal weights, the incumbent's counts for more.
            ((group, Reverse(weight), !incumbent), reason)
        }))
    }
}

fn weight(settings: &Settings, candidate: &Candidate) -> i64 {
    let own = settings.weights.get(&candidate.name).copied().unwrap_or_default();
    let matches = |rule: &&LabelWeight| match (candidate.label(&rule.label), &rule.value) {
        (Some(value), Some(wanted)) => value == wanted,
        (value, _) => value.is_some(),
    };
    let rules = settings.labels.iter().filter(matches).map(|rule| i64::from(rule.weight));
    i64::from(own) + rules.sum::<i64>()
}

/// Why the incumbent is not to be displaced, if it is not.
fn stays(view: &View, settings: &Settings) -> Option<String> {
    let held = view.incumbent.as_ref()?.held_ms / 1_000;
    if !settings.preempt {
        return Some("holds the term, and nobody is displaced".to_owned());
    }
    (held < settings.stay_seconds)
        .then(|| format!("has led for {held} s of the {} that it stays", settings.stay_seconds))
}

fn has_settled(settings: &Settings, candidate: &Candidate) -> bool {
    candidate.standing_ms / 1_000 >= settings.settle_seconds
}

export_policy!(Preferred);

#[cfg(test)]
mod tests;

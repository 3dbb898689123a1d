//! The policy `{{name}}`: nodes in a preferred rack lead; in the same rack whoever leads already.

use conclave_policy_sdk::{
    Candidate, Config, Info, Policy, Problem, Ranking, Refusal, View, export_policy, ranking,
};
use serde::Deserialize;

/// The policy. It has no state: every call gets a fresh instance.
pub struct Decide;

/// What an operator may write under `policy_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Values of the label `rack`, the best first.
    pub racks: Vec<String>,
}

impl Config for Settings {}

impl Policy for Decide {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Nodes in a preferred rack lead.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let empty = settings.racks.iter().position(String::is_empty);
        let message = "the name of a rack is missing".to_owned();
        empty.map(|i| Problem { path: format!("/racks/{i}"), message }).into_iter().collect()
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        // The smallest key comes first. Candidates with the same key stay in the view's order, the
        // longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            let place = place(settings, candidate);
            let incumbent = ranking::is_incumbent(view, candidate);
            let reason = match place {
                Some(place) => format!("in rack number {}", place + 1),
                None => "in none of the racks".to_owned(),
            };
            ((place.unwrap_or(usize::MAX), !incumbent), reason)
        }))
    }
}

fn place(settings: &Settings, candidate: &Candidate) -> Option<usize> {
    let rack = candidate.label("rack")?;
    settings.racks.iter().position(|name| name == rack)
}

export_policy!(Decide);

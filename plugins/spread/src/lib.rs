//! The policy `spread`: many elections are shared out evenly among the nodes, with few moves.
//!
//! Every election decides for itself, on its own node, by what each candidate `holds`. So that
//! they do not all run to the same place, everybody works out the same plan from the same numbers:
//! how many elections each node should hold, which ones are too many where they are, and which of
//! these goes where. An election that the plan does not name stays. See `share.rs`.
//!
//! - **Who leads:** the node that the plan gives the election; otherwise whoever leads already. On a
//!   vacancy one of those that hold no more than their share, chosen by a hash of the election's
//!   name, so that what a dead node held is scattered over all that are left.
//! - **Capacity:** a node whose label `capacity` says 3 gets three times as much as one with 1,
//!   which is what a node without the label has. A node with 0 gets what nobody else can take.
//! - **What counts:** the elections whose names begin with `prefix`. Elections that other policies
//!   decide about, and that `spread` could not move, should not begin so.
//! - **What runs where:** exclusive manifests on the leader, all others on every node, which is the
//!   host's default, so there is no `place` here.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

mod share;

use conclave_policy_sdk::{
    Candidate, Config, Info, Policy, Problem, Ranking, Refusal, View, export_policy, ranking,
};
use serde::Deserialize;

use share::{Plan, Share};

/// The policy. It has no state: every call gets a fresh instance.
pub struct Spread;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which elections are shared out: those whose names begin so.
    pub prefix: String,
    /// The label that says how much a node can hold, beside the others.
    pub capacity_label: String,
    /// How long a node must have stood before elections are moved to it, so that one that comes
    /// and goes does not pull them to and fro.
    pub settle_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let prefix = String::new();
        Settings { prefix, capacity_label: "capacity".into(), settle_seconds: 60 }
    }
}

impl Config for Settings {}

impl Policy for Spread {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "spread".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Elections are shared out evenly among the nodes, with few moves.".into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        if settings.capacity_label.is_empty() {
            let (path, message) =
                ("/capacity_label".into(), "the name of the label is missing".into());
            problems.push(Problem { path, message });
        }
        if settings.settle_seconds > 86_400 {
            let message = "more than a day (86400) would never be reached in practice".into();
            problems.push(Problem { path: "/settle_seconds".into(), message });
        }
        problems
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        let shares = shares(view, settings);
        let plan = Plan::new(&shares, &view.election, view.incumbent.as_ref().map(|i| &*i.name));
        // Candidates that get the same key stay in the view's order, the longest-standing first.
        Ok(ranking::by_key(view, |candidate| {
            let Some(index) = shares.iter().position(|share| share.node == candidate.name) else {
                return ((3, 0), "may not lead, or has not settled".to_owned());
            };
            let share = &shares[index];
            let holds = format!("holds {} of {}", share.held.len(), plan.quotas[index]);
            if plan.target == Some(index) {
                ((0, 0), format!("{holds}, and is to have this one"))
            } else if !ranking::is_incumbent(view, candidate) {
                ((2, share.fullness()), holds)
            } else if plan.target.is_some() {
                ((1, 0), format!("{holds}, and this one is too many"))
            } else {
                ((1, 0), format!("{holds}, this one among them"))
            }
        }))
    }
}

/// What each candidate that elections may be moved to, or that holds some, can have and has.
fn shares<'a>(view: &'a View, settings: &Settings) -> Vec<Share<'a>> {
    let may_lead = |candidate: &&Candidate| candidate.fitness.fit && !candidate.cordoned;
    let counts = |election: &&String| election.starts_with(&settings.prefix);
    let share = |candidate: &'a Candidate| Share {
        node: &candidate.name,
        capacity: capacity(settings, candidate),
        held: candidate.holds.iter().filter(counts).map(String::as_str).collect(),
    };
    let settled = |candidate: &&Candidate| candidate.standing_ms / 1_000 >= settings.settle_seconds;
    let candidates: Vec<&Candidate> = view.candidates.iter().filter(may_lead).collect();
    // Where nobody has settled, as when all were started together, all count.
    let any_settled = candidates.iter().any(settled);
    let ready =
        |candidate: &&&Candidate| !any_settled || settled(candidate) || !candidate.holds.is_empty();
    candidates.iter().filter(ready).map(|candidate| share(candidate)).collect()
}

/// A label that is no whole number counts as if it were not there.
fn capacity(settings: &Settings, candidate: &Candidate) -> u64 {
    /// The most that is told apart: shares stay numbers that can be computed with.
    const MOST: u64 = 1_000_000;
    let label = candidate.label(&settings.capacity_label);
    label.and_then(|text| text.trim().parse().ok()).map_or(1, |capacity: u64| capacity.min(MOST))
}

export_policy!(Spread);

#[cfg(test)]
mod tests;

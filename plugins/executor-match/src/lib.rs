//! The policy `executor-match`: only a candidate whose scheduler can go on with the last one's
//! executors leads.
//!
//! A scheduler of Kubernetes on Mesos starts executors that outlive it. Its successor takes them over
//! only if its own flags make the same configuration of an executor, and its advertised address the
//! same executor's name; otherwise it declines every offer ("Declining incompatible offer") and the
//! pods are lost. So before a node leads, its flags are compared with those of the last leader, also
//! when that one is dead and cannot be asked any more.
//!
//! - **What a node brings:** the flags in its scheduler's manifest that matter to executors, with the
//!   node's variables filled in, and a hash over them.
//! - **Who leads:** whoever leads already, then the longest-standing. Excluded is who differs
//!   from the incumbent, or on a vacancy from the last holder, unless its hash is under `accept`.
//!   An incumbent is never excluded: what runs, runs.
//! - **What runs where:** exclusive manifests on the leader, all others on every node, which is the
//!   host's default, so there is no `place` here.
//!
//! With this policy an election holds when the policy fails (`on_policy_failure: hold` is its
//! default): no scheduler is better than one that loses the pods.
//!
//! This file is meant to be read as an example: a policy is one type that implements [`Policy`].

mod command;
mod flags;

use conclave_policy_sdk::{
    Attributes, Candidate, Config, Info, Manifest, Node, Policy, Problem, Ranked, Ranking, Refusal,
    View, export_policy, get, log, ranking,
};
use serde::Deserialize;

use flags::Flags;

/// The policy. It has no state: every call gets a fresh instance.
pub struct ExecutorMatch;

/// What an operator may write under `policy_config`; `schema.json` says the same for tools.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The scheduler's manifest; the only one that runs a scheduler, unless given.
    pub manifest: Option<String>,
    /// The flags that matter, each a name or, with `*` at its end, the beginning of names; what the
    /// schedulers of Kubernetes on Mesos look at, unless given.
    pub flags: Option<Vec<String>>,
    /// Hashes that may lead whatever the last holder's was: an operator's override. `any` lets
    /// everybody.
    pub accept: Vec<String>,
}

impl Config for Settings {}

/// The facts: the hash that is compared, and what it is made of, for whoever has to be told.
const HASH: &str = "executor-hash";
const FLAGS: &str = "executor-flags";

impl Policy for ExecutorMatch {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "executor-match".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Only a node whose scheduler goes on with the last one's executors leads."
                .into(),
            config_schema: include_str!("../schema.json").into(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(Problem { path, message: message.to_owned() });
        };
        if settings.manifest.as_deref() == Some("") {
            problem("/manifest".into(), "the name of the manifest is missing");
        }
        for (index, pattern) in settings.flags.iter().flatten().enumerate() {
            let name = pattern.trim_start_matches('-').trim_end_matches('*');
            if name.contains(['*', '=', ' ']) || (name.is_empty() && !pattern.ends_with('*')) {
                let message = "name a flag, `--proxy-path`, or the beginning of some, `--proxy-*`";
                problem(format!("/flags/{index}"), message);
            }
        }
        if settings.flags.as_ref().is_some_and(Vec::is_empty) {
            problem(
                "/flags".into(),
                "without any flag every node matches: leave it out, or name some",
            );
        }
        for (index, hash) in settings.accept.iter().enumerate() {
            let digits = hash.len() == flags::DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit());
            if hash != "any" && !digits {
                let message =
                    "copy the hash from `conclave status`: 16 hexadecimal digits; or `any`";
                problem(format!("/accept/{index}"), message);
            }
        }
        problems
    }

    fn describe(
        node: &Node,
        manifests: &[Manifest],
        settings: &Settings,
    ) -> Result<Attributes, Refusal> {
        let Some(manifest) = scheduler(manifests, settings)? else {
            log::warn("the scheduler's manifest cannot be read now: nothing is known of its flags");
            return Ok(Vec::new());
        };
        let commands = command::commands(&manifest.content, |name| node.variable(name))
            .map_err(Refusal::Undecided)?;
        let flags = Flags::of(commands.iter().flatten(), settings.flags.as_deref());
        Ok(vec![(FLAGS.to_owned(), flags.to_string()), (HASH.to_owned(), flags.hash())])
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        let Some(last) = last_facts(view).filter(|facts| get(facts, HASH).is_some()) else {
            return Ok(ranking::sticky(view)); // nobody has led yet, or not by this policy
        };
        let mut ranking = ranking::sticky(view);
        for candidate in &view.candidates {
            if ranking::is_incumbent(view, candidate) {
                continue;
            }
            let reason = match judge(candidate, last, settings) {
                Ok(reason) => {
                    let ranked = ranking.order.iter_mut().find(|r| r.node == candidate.name);
                    ranked.into_iter().for_each(|ranked| ranked.reason.clone_from(&reason));
                    continue;
                }
                Err(reason) => reason,
            };
            ranking.order.retain(|ranked| ranked.node != candidate.name);
            ranking.excluded.push(Ranked { node: candidate.name.clone(), reason });
        }
        Ok(ranking)
    }
}

/// The scheduler's manifest; `None` if it cannot be read now.
fn scheduler<'a>(
    manifests: &'a [Manifest],
    settings: &Settings,
) -> Result<Option<&'a Manifest>, Refusal> {
    let names = || {
        let names: Vec<_> = manifests.iter().map(|m| format!("`{}`", m.name)).collect();
        names.join(", ")
    };
    let mut found = match &settings.manifest {
        Some(name) => {
            let named: Vec<_> = manifests.iter().filter(|m| m.name == *name).collect();
            if named.is_empty() {
                let text = format!("/manifest: there is none `{name}`; there are {}", names());
                return Err(Refusal::Configuration(text));
            }
            named
        }
        None if manifests.iter().any(|manifest| manifest.content.is_empty()) => Vec::new(),
        None => {
            let found: Vec<_> =
                manifests.iter().filter(|m| command::runs_scheduler(&m.content)).collect();
            if found.len() != 1 {
                let text = format!(
                    "/manifest: {} of these run a scheduler, say which is meant: {}",
                    if found.is_empty() { "none" } else { "several" },
                    names()
                );
                return Err(Refusal::Configuration(text));
            }
            found
        }
    };
    Ok(found.pop().filter(|manifest| !manifest.content.is_empty()))
}

/// What executors run for now: the incumbent's as it is now, since an edited manifest is carried over
/// while it leads; else as it was when the term began; without an incumbent the last holder's.
fn last_facts(view: &View) -> Option<&Attributes> {
    let Some(incumbent) = &view.incumbent else {
        return view.previous.as_ref().map(|previous| &previous.facts);
    };
    let now = view.candidates.iter().find(|candidate| candidate.name == incumbent.name);
    let now = now.map(|candidate| &candidate.facts).filter(|facts| get(facts, HASH).is_some());
    Some(now.unwrap_or(&incumbent.facts))
}

/// Why a candidate may lead, or why not.
fn judge(candidate: &Candidate, last: &Attributes, settings: &Settings) -> Result<String, String> {
    let Some(hash) = candidate.fact(HASH) else {
        let any = settings.accept.iter().any(|accepted| accepted == "any");
        let unknown = "nothing is known of its executor flags".to_owned();
        return if any { Ok(unknown) } else { Err(unknown) };
    };
    if get(last, HASH) == Some(hash) {
        return Ok(format!("its executors match, {hash}"));
    }
    let differences = flags::differences(get(last, FLAGS), candidate.fact(FLAGS));
    let accepts = |accepted: &String| accepted == "any" || accepted.eq_ignore_ascii_case(hash);
    if settings.accept.iter().any(accepts) {
        return Ok(format!("accepted by the operator, though its executors differ: {differences}"));
    }
    Err(format!("its executors ({hash}) would not match: {differences}"))
}

export_policy!(ExecutorMatch);

#[cfg(test)]
mod tests;

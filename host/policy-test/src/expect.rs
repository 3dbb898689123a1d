//! What a case expects, checked against what it asks.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::NodeName;
use conclave_core::view::{CandidateView, ManifestView, NodeView, Role, View};
use conclave_yaml::{Part, Path, Resolver, quoted, similar};

use crate::build::{each, known};
use crate::case::{Expectation, Expected, Question, role};
use crate::raw;

/// The fields of `expect`, and the question that each is for; none for any.
const FIELDS: [(&str, Option<&str>); 13] = [
    ("order", Some("rank")),
    ("first", Some("rank")),
    ("leads", Some("rank")),
    ("excluded", Some("rank")),
    ("forgotten", Some("rank")),
    ("reasons", Some("rank")),
    ("runs", Some("place")),
    ("exclusive_only_on", Some("place")),
    ("variables", Some("place")),
    ("facts", Some("describe")),
    ("has_facts", Some("describe")),
    ("problems", Some("validate")),
    ("refused", None),
];

/// Makes expectations of what stands under `expect` of the case at `case`.
pub(crate) fn resolve(
    r: &mut Resolver<'_>,
    raw: raw::Expect,
    question: &Question,
    case: &Path,
) -> Vec<Expected> {
    let path = case.key("expect");
    let function = question.function().name();
    for (field, of) in FIELDS {
        let misplaced = of.is_some_and(|of| of != function) && r.document().has(&path.key(field));
        if misplaced {
            let fitting = FIELDS.iter().filter(|(_, of)| of.is_none_or(|of| of == function));
            let help = format!("here fit {}", quoted(fitting.map(|(field, _)| *field)));
            r.wrong_field(
                &path.key(field),
                format!("`{field}` says nothing about an answer to `{function}`"),
                help,
            );
        }
    }
    let refused = raw.refused.clone().map(|text| ("refused", Expectation::Refused(text)));
    let mut found: Vec<(&'static str, Expectation)> = match question {
        Question::Rank(view) => ranking(r, raw, view, &path),
        Question::Place { view, nodes, manifests } => {
            placements(r, raw, view, nodes, manifests, &path)
        }
        Question::Describe { .. } => [
            raw.facts.map(|facts| ("facts", Expectation::Facts(facts))),
            raw.has_facts.map(|facts| ("has_facts", Expectation::HasFacts(facts))),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Question::Validate => {
            let problems = raw.problems.map(|all| ("problems", Expectation::Problems(all)));
            problems.into_iter().collect()
        }
    };
    if refused.is_some() && !found.is_empty() {
        r.wrong_field(
            &path.key("refused"),
            "a policy that refuses answers nothing else",
            "keep `refused`, or what else is expected",
        );
    }
    found.extend(refused);
    let place = |field: &str| r.document().place(&path.key(field), Part::Key);
    let expected = |(field, what)| Expected { field, place: place(field), what };
    found.into_iter().map(expected).collect()
}

/// A list of candidates that are expected somewhere.
fn names(
    r: &mut Resolver<'_>,
    raw: Vec<String>,
    candidates: &[CandidateView],
    path: &Path,
) -> Vec<NodeName> {
    let mut names: Vec<NodeName> = Vec::new();
    for (path, name) in r.items(path, raw.len()).into_iter().zip(raw) {
        if known(r, &name, candidates, &path, Part::Value).is_none() {
            continue;
        }
        if names.iter().any(|other| other.as_str() == name) {
            r.wrong(&path, format!("`{name}` is there twice"), "keep it once");
        }
        names.push(name.as_str().into());
    }
    names
}

fn one(
    r: &mut Resolver<'_>,
    raw: Option<String>,
    candidates: &[CandidateView],
    path: &Path,
) -> Option<NodeName> {
    let name = raw?;
    known(r, &name, candidates, path, Part::Value).map(|_| name.as_str().into())
}

fn ranking(
    r: &mut Resolver<'_>,
    raw: raw::Expect,
    view: &View,
    path: &Path,
) -> Vec<(&'static str, Expectation)> {
    let candidates = &view.candidates[..];
    let mut found = Vec::new();
    if let Some(raw) = raw.order {
        let order = names(r, raw, candidates, &path.key("order"));
        found.push(("order", Expectation::Order(order)));
    }
    let first = one(r, raw.first, candidates, &path.key("first"));
    found.extend(first.map(|node| ("first", Expectation::First(node))));
    let leads = one(r, raw.leads, candidates, &path.key("leads"));
    found.extend(leads.map(|node| ("leads", Expectation::Leads(node))));
    if raw.excluded.is_some() {
        let mut excluded = BTreeMap::new();
        for (path, name, reason) in each(r, raw.excluded, &path.key("excluded")) {
            if known(r, &name, candidates, &path, Part::Key).is_some() {
                excluded.insert(NodeName::from(name.as_str()), reason);
            }
        }
        found.push(("excluded", Expectation::Excluded(excluded)));
    }
    if let Some(raw) = raw.forgotten {
        let forgotten = names(r, raw, candidates, &path.key("forgotten"));
        found.push(("forgotten", Expectation::Forgotten(forgotten.into_iter().collect())));
    }
    if let Some(raw) = raw.reasons {
        let mut reasons = BTreeMap::new();
        for (name, reason) in raw {
            if known(r, &name, candidates, &path.key("reasons").key(&name), Part::Key).is_some() {
                reasons.insert(NodeName::from(name.as_str()), reason);
            }
        }
        found.push(("reasons", Expectation::Reasons(reasons)));
    }
    found
}

fn placements(
    r: &mut Resolver<'_>,
    raw: raw::Expect,
    view: &View,
    nodes: &[NodeView],
    manifests: &[ManifestView],
    path: &Path,
) -> Vec<(&'static str, Expectation)> {
    let mut found = Vec::new();
    if let Some(raw) = raw.runs {
        let path = path.key("runs");
        let mut runs = BTreeMap::new();
        for (node, list) in raw {
            let path = path.key(&node);
            let mut names = BTreeSet::new();
            for (path, name) in r.items(&path, list.len()).into_iter().zip(list) {
                if known_manifest(r, &name, manifests, &path) {
                    names.insert(name);
                }
            }
            runs.extend(asked(r, &node, nodes, &path).map(|node| (node, names)));
        }
        found.push(("runs", Expectation::Runs(runs)));
    }
    if let Some(name) = raw.exclusive_only_on {
        let path = path.key("exclusive_only_on");
        let node = asked(r, &name, nodes, &path);
        if node.as_ref().is_some_and(|node| role(view, node) == Role::Standby) {
            let message = format!(
                "`{name}` does not lead here, and exclusive manifests run on the leader only"
            );
            r.wrong(&path, message, format!("say so in the view: `leader: {name}`"));
        }
        found.extend(node.map(|node| ("exclusive_only_on", Expectation::ExclusiveOnlyOn(node))));
    }
    if let Some(raw) = raw.variables {
        let path = path.key("variables");
        let mut variables = BTreeMap::new();
        for (node, of_manifests) in raw {
            let path = path.key(&node);
            for name in of_manifests.keys() {
                known_manifest(r, name, manifests, &path.key(name));
            }
            variables.extend(asked(r, &node, nodes, &path).map(|node| (node, of_manifests)));
        }
        found.push(("variables", Expectation::Variables(variables)));
    }
    found
}

/// A node of those that are asked about; reports one that is not.
fn asked(r: &mut Resolver<'_>, name: &str, nodes: &[NodeView], path: &Path) -> Option<NodeName> {
    let found = nodes.iter().find(|node| node.name.as_str() == name);
    if found.is_none() && !nodes.is_empty() {
        let names = nodes.iter().map(|node| node.name.as_str());
        let help = format!("asked is what runs on {}", quoted(names));
        r.wrong_field(path, format!("nobody asks what runs on `{name}`"), help);
    }
    found.map(|node| node.name.clone())
}

fn known_manifest(
    r: &mut Resolver<'_>,
    name: &str,
    manifests: &[ManifestView],
    path: &Path,
) -> bool {
    let there = manifests.iter().any(|manifest| manifest.name == name);
    if !there && !manifests.is_empty() {
        let names = || manifests.iter().map(|manifest| manifest.name.as_str());
        let help = match similar(name, names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the manifests are {}", quoted(names())),
        };
        r.wrong_field(path, format!("there is no manifest `{name}`"), help);
    }
    there
}

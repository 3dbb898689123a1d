//! Checks of answers: whatever a policy says, only what makes sense gets further.

use std::collections::BTreeMap;

use conclave_core::NodeName;
use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, Placement, Ranked, Ranking, Role, View};

use crate::bindings::exports::conclave::policy::{about, leadership, placement};
use crate::error::BadAnswer;
use crate::limits;
use crate::text::phrase;

/// A checked ranking, and the candidates that it leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// The ranking as the policy gave it.
    pub ranking: Ranking,
    /// Candidates that it neither ordered nor excluded; they stand last.
    pub forgotten: Vec<NodeName>,
}

/// A policy's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is called.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does, in one line.
    pub summary: String,
    /// A JSON Schema of its configuration; none if it takes none.
    pub config_schema: Option<String>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON pointer; empty for the whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

pub(crate) fn about(info: about::Info) -> Result<About, BadAnswer> {
    let schema = info.config_schema;
    if !schema.is_empty() {
        serde_json::from_str::<serde::de::IgnoredAny>(&schema).map_err(BadAnswer::Schema)?;
    }
    Ok(About {
        name: phrase(info.name, limits::SUMMARY),
        version: phrase(info.version, limits::SUMMARY),
        summary: phrase(info.summary, limits::SUMMARY),
        config_schema: (!schema.is_empty()).then_some(schema),
    })
}

pub(crate) fn problems(problems: Vec<about::Problem>) -> Vec<Problem> {
    problems
        .into_iter()
        .map(|problem| Problem {
            path: phrase(problem.path, limits::MESSAGE),
            message: phrase(problem.message, limits::MESSAGE),
        })
        .collect()
}

pub(crate) fn ranks(answer: leadership::Ranking, view: &View) -> Result<Ranks, BadAnswer> {
    let mut left: BTreeMap<&str, &NodeName> =
        view.candidates.iter().map(|c| (c.name.as_str(), &c.name)).collect();
    let mut take = |list: Vec<leadership::Ranked>| -> Result<Vec<Ranked>, BadAnswer> {
        list.into_iter()
            .map(|ranked| match left.remove(ranked.node.as_str()) {
                Some(node) => {
                    let reason = phrase(ranked.reason, limits::REASON);
                    Ok(Ranked { node: node.clone(), reason })
                }
                None if view.candidates.iter().any(|c| c.name.as_str() == ranked.node) => {
                    Err(BadAnswer::RepeatedNode { node: ranked.node })
                }
                None => Err(BadAnswer::UnknownNode { node: phrase(ranked.node, limits::REASON) }),
            })
            .collect()
    };
    let ranking = Ranking { order: take(answer.order)?, excluded: take(answer.excluded)? };
    let forgotten = view
        .candidates
        .iter()
        .filter(|candidate| left.contains_key(candidate.name.as_str()))
        .map(|candidate| candidate.name.clone())
        .collect();
    Ok(Ranks { ranking, forgotten })
}

pub(crate) fn facts(answer: Vec<(String, String)>) -> Result<Attributes, BadAnswer> {
    let mut facts = Attributes::new();
    let mut total = 0;
    for (key, value) in answer {
        total += key.len() + value.len();
        let fault = if key.is_empty() {
            Some("has no key")
        } else if key.len() > limits::FACT_KEY {
            Some("has a key of more than 128 bytes")
        } else if key.chars().any(char::is_control) {
            Some("has a control character in its key")
        } else if value.len() > limits::FACT_VALUE {
            Some("has a value of more than 4 KB")
        } else if facts.contains_key(&key) {
            Some("is there twice")
        } else if facts.len() == limits::FACTS {
            Some("is one too many; 64 are the most")
        } else if total > limits::FACTS_TOTAL {
            Some("brings all facts together to more than 16 KB")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(BadAnswer::Fact { key: phrase(key, limits::FACT_KEY), fault });
        }
        facts.insert(key, value);
    }
    Ok(facts)
}

pub(crate) fn placements(
    answer: Vec<placement::Placement>,
    role: Role,
    manifests: &[ManifestView],
) -> Result<Vec<Placement>, BadAnswer> {
    let mut left: BTreeMap<&str, &ManifestView> =
        manifests.iter().map(|manifest| (manifest.name.as_str(), manifest)).collect();
    let mut placements = Vec::with_capacity(manifests.len());
    for placement in answer {
        let Some(manifest) = left.remove(placement.manifest.as_str()) else {
            let known = manifests.iter().any(|m| m.name == placement.manifest);
            let manifest = phrase(placement.manifest, limits::REASON);
            return Err(if known {
                BadAnswer::RepeatedManifest { manifest }
            } else {
                BadAnswer::UnknownManifest { manifest }
            });
        };
        if placement.run && manifest.exclusive && role == Role::Standby {
            return Err(BadAnswer::ExclusiveOnStandby { manifest: manifest.name.clone() });
        }
        placements.push(Placement {
            manifest: placement.manifest,
            run: placement.run,
            variables: variables(&manifest.name, placement.variables)?,
        });
    }
    match left.into_keys().next() {
        Some(manifest) => Err(BadAnswer::MissingManifest { manifest: manifest.to_owned() }),
        None => Ok(placements),
    }
}

fn variables(manifest: &str, answer: Vec<(String, String)>) -> Result<Attributes, BadAnswer> {
    let mut variables = Attributes::new();
    for (name, value) in answer {
        let fault = if !is_variable_name(&name) {
            Some("has a name that is none: letters, digits and `_`, no digit first")
        } else if name.starts_with("CONCLAVE_") {
            Some("is one that only the host sets")
        } else if value.len() > limits::VARIABLE {
            Some("has a value of more than 64 KB")
        } else if variables.contains_key(&name) {
            Some("is there twice")
        } else {
            None
        };
        if let Some(fault) = fault {
            let variable = phrase(name, limits::REASON);
            return Err(BadAnswer::Variable { manifest: manifest.to_owned(), variable, fault });
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What runs in both roles must not differ between them: content that depends on the role goes
/// into exclusive manifests only.
pub(crate) fn same_in_both_roles(
    leader: &[Placement],
    standby: &[Placement],
) -> Result<(), BadAnswer> {
    let standby: BTreeMap<&str, &Placement> =
        standby.iter().filter(|p| p.run).map(|p| (p.manifest.as_str(), p)).collect();
    let differs = |leading: &&Placement| {
        let other = standby.get(leading.manifest.as_str());
        leading.run && other.is_some_and(|other| other.variables != leading.variables)
    };
    match leader.iter().find(differs) {
        Some(placement) => Err(BadAnswer::VariablesByRole { manifest: placement.manifest.clone() }),
        None => Ok(()),
    }
}

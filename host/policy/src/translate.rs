//! From the host's types to those of the interface, borrowing every string.
//!
//! The interface's records hold slices, so what they point to is collected first, in a
//! [`Lists`], and the records are made of that.

use conclave_core::record::Attributes;
use conclave_core::view::{CandidateView, ManifestView, NodeView, Role, View};

use crate::bindings::conclave::policy::types as wit;
use crate::error::Refusal;
use crate::limits;
use crate::text::phrase;

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The slices of a view.
pub(crate) struct Lists<'a> {
    candidates: Vec<CandidateLists<'a>>,
    incumbent_facts: Pairs<'a>,
    previous_facts: Pairs<'a>,
}

struct CandidateLists<'a> {
    labels: Pairs<'a>,
    facts: Pairs<'a>,
    reasons: Vec<&'a str>,
    checks: Vec<(&'a str, bool)>,
    holds: Vec<&'a str>,
}

impl<'a> Lists<'a> {
    pub(crate) fn of(view: &'a View) -> Self {
        Lists {
            candidates: view.candidates.iter().map(CandidateLists::of).collect(),
            incumbent_facts: view.incumbent.as_ref().map(|i| pairs(&i.facts)).unwrap_or_default(),
            previous_facts: view.previous.as_ref().map(|p| pairs(&p.facts)).unwrap_or_default(),
        }
    }
}

impl<'a> CandidateLists<'a> {
    fn of(candidate: &'a CandidateView) -> Self {
        let fitness = &candidate.fitness;
        CandidateLists {
            labels: pairs(&candidate.labels),
            facts: pairs(&candidate.facts),
            reasons: fitness.reasons.iter().map(String::as_str).collect(),
            checks: fitness.checks.iter().map(|(name, pass)| (name.as_str(), *pass)).collect(),
            holds: candidate.holds.iter().map(|election| election.as_str()).collect(),
        }
    }
}

fn pairs(attributes: &Attributes) -> Pairs<'_> {
    attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// The candidates of a view, for [`view`].
pub(crate) fn candidates<'a>(view: &'a View, lists: &'a Lists<'a>) -> Vec<wit::Candidate<'a>> {
    let candidate =
        |(candidate, lists): (&'a CandidateView, &'a CandidateLists<'a>)| wit::Candidate {
            name: candidate.name.as_str(),
            labels: &lists.labels,
            facts: &lists.facts,
            fitness: wit::Fitness {
                fit: candidate.fitness.fit,
                reasons: &lists.reasons,
                checks: &lists.checks,
            },
            cordoned: candidate.cordoned,
            holds: &lists.holds,
            standing_ms: candidate.standing_ms,
        };
    view.candidates.iter().zip(&lists.candidates).map(candidate).collect()
}

pub(crate) fn view<'a>(
    view: &'a View,
    lists: &'a Lists<'a>,
    candidates: &'a [wit::Candidate<'a>],
) -> wit::View<'a> {
    wit::View {
        election: view.election.as_str(),
        me: view.me.as_str(),
        candidates,
        incumbent: view.incumbent.as_ref().map(|incumbent| wit::Incumbent {
            name: incumbent.name.as_str(),
            facts: &lists.incumbent_facts,
            held_ms: incumbent.held_ms,
        }),
        previous: view.previous.as_ref().map(|previous| wit::Previous {
            name: previous.name.as_str(),
            facts: &lists.previous_facts,
            clean: previous.clean,
        }),
        transfer: view
            .transfer
            .as_ref()
            .map(|transfer| wit::Transfer { to: transfer.to.as_ref().map(|node| node.as_str()) }),
        paused: view.paused,
    }
}

/// The slices of a node.
pub(crate) struct NodeLists<'a> {
    labels: Pairs<'a>,
    variables: Pairs<'a>,
}

impl<'a> NodeLists<'a> {
    pub(crate) fn of(node: &'a NodeView) -> Self {
        NodeLists { labels: pairs(&node.labels), variables: pairs(&node.variables) }
    }
}

pub(crate) fn node<'a>(node: &'a NodeView, lists: &'a NodeLists<'a>) -> wit::Node<'a> {
    wit::Node { name: node.name.as_str(), labels: &lists.labels, variables: &lists.variables }
}

pub(crate) fn manifests(manifests: &[ManifestView]) -> Vec<wit::Manifest<'_>> {
    let manifest = |manifest| {
        let ManifestView { name, exclusive, content }: &ManifestView = manifest;
        wit::Manifest { name, exclusive: *exclusive, content }
    };
    manifests.iter().map(manifest).collect()
}

pub(crate) fn role(role: Role) -> wit::Role {
    match role {
        Role::Leader => wit::Role::Leader,
        Role::Standby => wit::Role::Standby,
    }
}

pub(crate) fn refusal(refusal: wit::Refusal) -> Refusal {
    match refusal {
        wit::Refusal::Configuration(message) => {
            Refusal::Configuration(phrase(message, limits::MESSAGE))
        }
        wit::Refusal::Undecided(message) => Refusal::Undecided(phrase(message, limits::MESSAGE)),
    }
}

//! From the host's types to those of the interface, borrowing every string.
//!
//! The interface's records hold slices, so what they point to is collected first, all of a view
//! in a few lists: a decision over many candidates would otherwise spend its time allocating.

use conclave_core::record::Attributes;
use conclave_core::view::{CandidateView, ManifestView, NodeView, Role, View};

use crate::bindings::conclave::policy::types as wit;
use crate::error::Refusal;
use crate::limits;
use crate::text::phrase;

/// What the slices of a view or a node point to, in the order of its parts.
#[derive(Default)]
pub(crate) struct Lists<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    checks: Vec<(&'a str, bool)>,
    texts: Vec<&'a str>,
}

impl<'a> Lists<'a> {
    pub(crate) fn of_view(view: &'a View) -> Self {
        let pairs = view.candidates.iter().map(|c| c.labels.len() + c.facts.len()).sum();
        let mut lists = Lists { pairs: Vec::with_capacity(pairs), ..Lists::default() };
        for candidate in &view.candidates {
            let fitness = &candidate.fitness;
            lists.add(&candidate.labels);
            lists.add(&candidate.facts);
            lists.texts.extend(fitness.reasons.iter().map(String::as_str));
            lists.checks.extend(fitness.checks.iter().map(|(name, pass)| (name.as_str(), *pass)));
            lists.texts.extend(candidate.holds.iter().map(|election| election.as_str()));
        }
        view.incumbent.iter().for_each(|incumbent| lists.add(&incumbent.facts));
        view.previous.iter().for_each(|previous| lists.add(&previous.facts));
        lists
    }

    pub(crate) fn of_node(node: &'a NodeView) -> Self {
        let mut lists = Lists::default();
        lists.add(&node.labels);
        lists.add(&node.variables);
        lists
    }

    fn add(&mut self, attributes: &'a Attributes) {
        self.pairs.extend(attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }

    /// Hands the lists out again, part by part, in the order in which they were collected.
    pub(crate) fn slices(&'a self) -> Slices<'a> {
        Slices { pairs: &self.pairs, checks: &self.checks, texts: &self.texts }
    }
}

/// What is left of some [`Lists`].
pub(crate) struct Slices<'a> {
    pairs: &'a [(&'a str, &'a str)],
    checks: &'a [(&'a str, bool)],
    texts: &'a [&'a str],
}

impl<'a> Slices<'a> {
    fn attributes(&mut self, attributes: &Attributes) -> wit::Attributes<'a> {
        next(&mut self.pairs, attributes.len())
    }

    /// The candidates of a view, for [`view`].
    pub(crate) fn candidates(&mut self, view: &'a View) -> Vec<wit::Candidate<'a>> {
        view.candidates.iter().map(|candidate| self.candidate(candidate)).collect()
    }

    fn candidate(&mut self, candidate: &'a CandidateView) -> wit::Candidate<'a> {
        let fitness = &candidate.fitness;
        wit::Candidate {
            name: candidate.name.as_str(),
            labels: self.attributes(&candidate.labels),
            facts: self.attributes(&candidate.facts),
            fitness: wit::Fitness {
                fit: fitness.fit,
                reasons: next(&mut self.texts, fitness.reasons.len()),
                checks: next(&mut self.checks, fitness.checks.len()),
            },
            cordoned: candidate.cordoned,
            holds: next(&mut self.texts, candidate.holds.len()),
            standing_ms: candidate.standing_ms,
        }
    }
}

fn next<'a, T>(left: &mut &'a [T], count: usize) -> &'a [T] {
    let (slice, rest) = left.split_at(count);
    *left = rest;
    slice
}

/// What is left after [`Slices::candidates`] is the view's own.
pub(crate) fn view<'a>(
    view: &'a View,
    mut slices: Slices<'a>,
    candidates: &'a [wit::Candidate<'a>],
) -> wit::View<'a> {
    wit::View {
        election: view.election.as_str(),
        me: view.me.as_str(),
        candidates,
        incumbent: view.incumbent.as_ref().map(|incumbent| wit::Incumbent {
            name: incumbent.name.as_str(),
            facts: slices.attributes(&incumbent.facts),
            held_ms: incumbent.held_ms,
        }),
        previous: view.previous.as_ref().map(|previous| wit::Previous {
            name: previous.name.as_str(),
            facts: slices.attributes(&previous.facts),
            clean: previous.clean,
        }),
        transfer: view
            .transfer
            .as_ref()
            .map(|transfer| wit::Transfer { to: transfer.to.as_ref().map(|node| node.as_str()) }),
        paused: view.paused,
    }
}

pub(crate) fn node<'a>(node: &'a NodeView, lists: &'a Lists<'a>) -> wit::Node<'a> {
    let mut slices = lists.slices();
    wit::Node {
        name: node.name.as_str(),
        labels: slices.attributes(&node.labels),
        variables: slices.attributes(&node.variables),
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use conclave_core::record::Fitness;
    use conclave_core::view::{IncumbentView, PreviousView, TransferView};

    use super::*;

    fn attributes(of: &str, count: usize) -> Attributes {
        (0..count).map(|i| (format!("{of}{i}"), format!("{of}{i} value"))).collect()
    }

    fn is(slice: &[(&str, &str)], of: &str, count: usize) -> bool {
        let expected = attributes(of, count);
        slice.iter().copied().eq(expected.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    fn candidate(name: &str, lists: usize) -> CandidateView {
        CandidateView {
            name: name.into(),
            labels: attributes(&format!("{name} label"), lists),
            facts: attributes(&format!("{name} fact"), lists + 1),
            fitness: Fitness {
                fit: false,
                reasons: vec![format!("{name} reason"); lists],
                checks: BTreeMap::from([(format!("{name} check"), true)]),
            },
            cordoned: true,
            holds: vec![format!("{name} election").as_str().into()],
            standing_ms: 7_000,
        }
    }

    #[test]
    fn every_part_of_a_view_gets_its_own_lists() {
        let given = View {
            election: "masters".into(),
            me: "b".into(),
            candidates: vec![candidate("a", 2), candidate("b", 0), candidate("c", 3)],
            incumbent: Some(IncumbentView {
                name: "a".into(),
                facts: attributes("incumbent", 2),
                held_ms: 9_000,
            }),
            previous: Some(PreviousView {
                name: "z".into(),
                facts: attributes("previous", 1),
                clean: true,
            }),
            transfer: Some(TransferView { to: Some("c".into()) }),
            paused: true,
        };
        let lists = Lists::of_view(&given);
        let mut slices = lists.slices();
        let candidates = slices.candidates(&given);
        let view = view(&given, slices, &candidates);

        assert_eq!((view.election, view.me, view.paused), ("masters", "b", true));
        assert_eq!(view.candidates.len(), 3);
        for (candidate, (name, lists)) in view.candidates.iter().zip([("a", 2), ("b", 0), ("c", 3)])
        {
            assert_eq!(candidate.name, name);
            assert!(is(candidate.labels, &format!("{name} label"), lists), "{candidate:?}");
            assert!(is(candidate.facts, &format!("{name} fact"), lists + 1), "{candidate:?}");
            assert_eq!(candidate.fitness.reasons, vec![format!("{name} reason"); lists]);
            assert_eq!(candidate.fitness.checks, [(format!("{name} check").as_str(), true)]);
            assert_eq!(candidate.holds, [format!("{name} election")]);
            assert!(!candidate.fitness.fit && candidate.cordoned);
            assert_eq!(candidate.standing_ms, 7_000);
        }
        let incumbent = view.incumbent.expect("an incumbent");
        assert!(is(incumbent.facts, "incumbent", 2), "{incumbent:?}");
        assert_eq!((incumbent.name, incumbent.held_ms), ("a", 9_000));
        let previous = view.previous.expect("a previous term");
        assert!(is(previous.facts, "previous", 1), "{previous:?}");
        assert_eq!((previous.name, previous.clean), ("z", true));
        assert_eq!(view.transfer.expect("a transfer").to, Some("c"));
    }

    #[test]
    fn a_node_gets_its_labels_and_variables() {
        let given = NodeView {
            name: "a".into(),
            labels: attributes("label", 2),
            variables: attributes("variable", 3),
        };
        let lists = Lists::of_node(&given);
        let node = node(&given, &lists);
        assert_eq!(node.name, "a");
        assert!(is(node.labels, "label", 2) && is(node.variables, "variable", 3), "{node:?}");
    }
}

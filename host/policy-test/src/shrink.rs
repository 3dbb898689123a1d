//! Makes a question as simple as it can be while a policy still answers it wrongly.
//!
//! Simpler is what a case need not say: every step takes something away or makes it ordinary.

use conclave_core::NodeName;
use conclave_core::record::{Attributes, Fitness};
use conclave_core::view::{CandidateView, ManifestView, NodeView, View};

use crate::build::{HELD_MS, STANDING_MS, letters, ordinary, pod};
use crate::case::Question;

/// More steps are not tried: each asks the policy a few times.
const MOST_STEPS: usize = 1_000;

/// The simplest question found that is `wrong`, which `question` is. `wrong` may say that enough
/// was tried, by answering no.
pub(crate) fn shrink(question: Question, mut wrong: impl FnMut(&Question) -> bool) -> Question {
    let mut best = question;
    let mut steps = 0;
    'simpler: loop {
        for candidate in simpler(&best) {
            if steps == MOST_STEPS {
                return best;
            }
            steps += 1;
            if candidate != best && wrong(&candidate) {
                best = candidate;
                continue 'simpler;
            }
        }
        return best;
    }
}

/// Simpler questions, those that are much simpler first.
fn simpler(question: &Question) -> Vec<Question> {
    match question {
        Question::Rank(view) => views(view).into_iter().map(Question::Rank).collect(),
        Question::Place { view, nodes, manifests } => {
            let of_views = views(view).into_iter().filter_map(|view| {
                let nodes = nodes.iter().map(|node| seen(node, &view)).collect::<Option<_>>()?;
                Some(Question::Place { view, nodes, manifests: manifests.clone() })
            });
            let of_manifests = fewer_manifests(manifests).into_iter().map(|manifests| {
                Question::Place { view: view.clone(), nodes: nodes.clone(), manifests }
            });
            let of_nodes = nodes.iter().enumerate().flat_map(|(at, node)| {
                plainer_node(node, false).into_iter().map(move |plainer| {
                    let mut nodes = nodes.clone();
                    nodes[at] = plainer;
                    Question::Place { view: view.clone(), nodes, manifests: manifests.clone() }
                })
            });
            of_views.chain(of_manifests).chain(of_nodes).collect()
        }
        Question::Describe { election, node, manifests } => {
            let with = |node: NodeView, manifests: Vec<ManifestView>| Question::Describe {
                election: election.clone(),
                node,
                manifests,
            };
            let nodes = plainer_node(node, true).into_iter().map(|n| with(n, manifests.clone()));
            let fewer = fewer_manifests(manifests).into_iter().map(|m| with(node.clone(), m));
            nodes.chain(fewer).collect()
        }
        Question::Validate => Vec::new(),
    }
}

/// A node as a simpler view has it; nothing where it is no longer a candidate.
fn seen(node: &NodeView, view: &View) -> Option<NodeView> {
    let candidate = view.candidates.iter().find(|candidate| candidate.name == node.name)?;
    Some(NodeView { labels: candidate.labels.clone(), ..node.clone() })
}

fn plainer_node(node: &NodeView, labels_too: bool) -> Vec<NodeView> {
    let mut found = vec![NodeView { variables: Default::default(), ..node.clone() }];
    let mut drop_each = |all: &[String], apply: &dyn Fn(&mut NodeView, &str)| {
        for key in all {
            let mut plainer = node.clone();
            apply(&mut plainer, key);
            found.push(plainer);
        }
    };
    let keys = |attributes: &Attributes| -> Vec<String> { attributes.keys().cloned().collect() };
    drop_each(&keys(&node.variables), &|node, key| drop(node.variables.remove(key)));
    if labels_too {
        drop_each(&keys(&node.labels), &|node, key| drop(node.labels.remove(key)));
    }
    found
}

fn fewer_manifests(manifests: &[ManifestView]) -> Vec<Vec<ManifestView>> {
    let mut found = Vec::new();
    for at in 0..manifests.len() {
        let mut fewer = manifests.to_vec();
        fewer.remove(at);
        found.push(fewer);
    }
    for (at, manifest) in manifests.iter().enumerate() {
        let plain =
            ManifestView { exclusive: true, content: pod(&manifest.name), ..manifest.clone() };
        let mut plainer = manifests.to_vec();
        plainer[at] = plain;
        found.push(plainer);
    }
    found
}

fn views(view: &View) -> Vec<View> {
    let mut found = Vec::new();
    let mut change = |apply: &dyn Fn(&mut View)| {
        let mut simpler = view.clone();
        apply(&mut simpler);
        consistent(&mut simpler);
        found.push(simpler);
    };
    let count = view.candidates.len();
    change(&|view| drop(view.candidates.drain(..count / 2)));
    change(&|view| view.candidates.truncate(count.div_ceil(2)));
    for at in 0..count {
        change(&|view| drop(view.candidates.remove(at)));
    }
    change(&|view| view.incumbent = None);
    change(&|view| view.previous = None);
    change(&|view| view.transfer = None);
    change(&|view| view.paused = false);
    change(&|view| {
        if let Some(first) = view.candidates.first() {
            view.me = first.name.clone();
        }
    });
    change(&renamed);
    for at in 0..count {
        for plainer in plainer_candidates(&view.candidates[at]) {
            change(&|view| view.candidates[at] = plainer.clone());
        }
    }
    change(&|view| {
        let candidates = &view.candidates;
        if let Some(incumbent) = &mut view.incumbent {
            let own = candidates.iter().find(|candidate| candidate.name == incumbent.name);
            incumbent.facts = own.map(|own| own.facts.clone()).unwrap_or_default();
        }
    });
    change(&|view| view.incumbent.iter_mut().for_each(|incumbent| incumbent.held_ms = HELD_MS));
    change(&|view| view.previous.iter_mut().for_each(|previous| previous.facts.clear()));
    change(&|view| view.previous.iter_mut().for_each(|previous| previous.clean = true));
    change(&|view| view.transfer.iter_mut().for_each(|transfer| transfer.to = None));
    found
}

/// Names the candidates a, b, c, as a case does that says only how many there are.
fn renamed(view: &mut View) {
    let new = |name: &NodeName, names: &[NodeName]| -> NodeName {
        let at = names.iter().position(|other| other == name);
        at.map_or_else(|| name.clone(), |at| letters(at as u64).as_str().into())
    };
    let names: Vec<NodeName> = view.candidates.iter().map(|c| c.name.clone()).collect();
    for (candidate, name) in view.candidates.iter_mut().zip(&names) {
        candidate.name = new(name, &names);
    }
    let incumbent = view.incumbent.iter_mut().map(|incumbent| &mut incumbent.name);
    let transfer = view.transfer.iter_mut().filter_map(|transfer| transfer.to.as_mut());
    for name in incumbent.chain(transfer).chain([&mut view.me]) {
        *name = new(name, &names);
    }
}

fn plainer_candidates(candidate: &CandidateView) -> Vec<CandidateView> {
    let with = |apply: &dyn Fn(&mut CandidateView)| {
        let mut plainer = candidate.clone();
        apply(&mut plainer);
        plainer
    };
    let mut found = vec![
        ordinary(candidate.name.as_str()),
        with(&|c| c.labels.clear()),
        with(&|c| c.facts.clear()),
        with(&|c| c.fitness = Fitness::fit()),
        with(&|c| c.cordoned = false),
        with(&|c| c.holds.clear()),
        with(&|c| c.standing_ms = STANDING_MS),
    ];
    if candidate.labels.len() > 1 {
        found.extend(candidate.labels.keys().map(|key| with(&|c| drop(c.labels.remove(key)))));
    }
    found
}

/// Makes a view again one that a case can say: the holder holds the election, a transfer is asked
/// of a holder and names a candidate, the longest-standing come first.
fn consistent(view: &mut View) {
    let holder = view.incumbent.as_ref().map(|incumbent| incumbent.name.clone());
    let election = view.election.clone();
    for candidate in &mut view.candidates {
        candidate.holds.retain(|held| *held != election);
        if Some(&candidate.name) == holder.as_ref() {
            candidate.holds.push(election.clone());
            candidate.holds.sort();
        }
    }
    view.candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.standing_ms));
    if holder.is_none() {
        view.transfer = None;
    }
    let there = |name: &NodeName| view.candidates.iter().any(|c| c.name == *name);
    let gone = |name: &NodeName| !there(name);
    if view.transfer.as_ref().is_some_and(|transfer| transfer.to.as_ref().is_some_and(gone)) {
        view.transfer = None;
    }
    if gone(&view.me) {
        let first = view.candidates.first().map(|candidate| candidate.name.clone());
        view.me = first.unwrap_or_else(|| "a".into());
    }
}

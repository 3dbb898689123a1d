//! From what is known to who should lead: the view for the policy, the built-in ranking, and
//! the order that the host makes of an answer.

use std::collections::BTreeSet;

use crate::ids::{ElectionName, NodeName, SessionId};
use crate::node::Node;
use crate::record::PolicyVersion;
use crate::replica::Replica;
use crate::request::Target;
use crate::view::{
    CandidateView, IncumbentView, PreviousView, Ranking, TransferView, View, round_ms,
};

/// The built-in order of candidates: the incumbent first, so that nothing moves without need,
/// then the longest-standing. Views list candidates longest-standing first already.
pub fn builtin_order(view: &View) -> Vec<NodeName> {
    let incumbent = view.incumbent.as_ref().map(|i| &i.name);
    let names = || view.candidates.iter().map(|c| &c.name);
    let first = names().filter(|name| Some(*name) == incumbent);
    let rest = names().filter(|name| Some(*name) != incumbent);
    first.chain(rest).cloned().collect()
}

/// The eligible candidates, best first: the policy's order without those that may not lead, then
/// those that it forgot in built-in order. The host excludes unfit and cordoned nodes itself.
pub fn effective_order(view: &View, ranking: Option<&Ranking>) -> Vec<NodeName> {
    let excluded: BTreeSet<&NodeName> =
        ranking.map(|r| r.excluded.iter().map(|x| &x.node).collect()).unwrap_or_default();
    let eligible: BTreeSet<&NodeName> = view
        .candidates
        .iter()
        .filter(|c| c.fitness.fit && !c.cordoned && !excluded.contains(&c.name))
        .map(|c| &c.name)
        .collect();
    let ranked = ranking.map(|r| r.order.as_slice()).unwrap_or_default();
    let mut order: Vec<NodeName> = Vec::with_capacity(eligible.len());
    let builtin = builtin_order(view);
    for node in ranked.iter().map(|r| &r.node).chain(&builtin) {
        if eligible.contains(node) && !order.contains(node) {
            order.push(node.clone());
        }
    }
    order
}

impl Replica {
    /// What a policy on node `me` sees of an election; `stands` says which sessions do.
    pub(crate) fn view(
        &self,
        election: &ElectionName,
        me: &NodeName,
        held_ms: u64,
        stands: &dyn Fn(&NodeName, SessionId) -> bool,
    ) -> View {
        let mut standing: Vec<(SessionId, CandidateView)> = self
            .candidacies(election)
            .filter(|(node, _, record)| stands(node, record.session))
            .filter_map(|(node, _, record)| {
                let (_, session) = self.session(node)?;
                let candidate = CandidateView {
                    name: node.clone(),
                    labels: session.labels.clone(),
                    facts: record.facts.clone(),
                    fitness: record.fitness.clone(),
                    cordoned: self.cordoned(election, node),
                    holds: self.holds(record.session).cloned().collect(),
                    standing_ms: round_ms(session.age_ms),
                };
                Some((record.session, candidate))
            })
            .collect();
        // A session's create revision orders them by age without any clock.
        standing.sort_by_key(|(session, _)| *session);

        let leader = self.leaders(election).into_iter().next();
        let incumbent = leader.as_ref().and_then(|l| l.term).and_then(|term| {
            stands(&term.holder, term.session).then(|| IncumbentView {
                name: term.holder.clone(),
                facts: term.facts.clone(),
                held_ms: round_ms(held_ms),
            })
        });
        // A dead holder whose key still stands is the previous term: policies compare with it.
        let previous = match leader.as_ref().and_then(|l| l.term) {
            Some(term) if incumbent.is_none() => Some(PreviousView {
                name: term.holder.clone(),
                facts: term.facts.clone(),
                clean: false,
            }),
            _ => self.previous(election).map(|(_, record)| PreviousView {
                name: record.holder.clone(),
                facts: record.facts.clone(),
                clean: record.clean,
            }),
        };
        let transfer = self.transfer(election).and_then(|transfer| {
            (Some(transfer.token) == leader.as_ref().map(|l| l.token))
                .then(|| TransferView { to: transfer.to.clone() })
        });
        View {
            election: election.clone(),
            me: me.clone(),
            candidates: standing.into_iter().map(|(_, candidate)| candidate).collect(),
            incumbent,
            previous,
            transfer,
            paused: self.paused(election),
        }
    }
}

impl Node {
    /// What a policy sees of an election now.
    pub(crate) fn view(&self, election: &ElectionName, held_ms: u64) -> View {
        let stands = |node: &NodeName, session| self.stands(node, session);
        self.replica.view(election, self.me(), held_ms, &stands)
    }

    /// The standing candidates that decide by another policy version than `mine`.
    pub(crate) fn differing(&self, election: &ElectionName, mine: &PolicyVersion) -> Vec<NodeName> {
        self.replica
            .candidacies(election)
            .filter(|(node, _, record)| record.policy != *mine && self.stands(node, record.session))
            .map(|(node, _, _)| node.clone())
            .collect()
    }

    /// A candidate as the receiver of a handover, if its session stands.
    pub(crate) fn target(&self, election: &ElectionName, node: &NodeName) -> Option<Target> {
        let (candidacy, record) = self.replica.candidacy(election, node)?;
        self.stands(node, record.session).then(|| Target {
            node: node.clone(),
            session: record.session,
            candidacy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Attributes, Fitness};
    use crate::view::Ranked;

    fn candidate(name: &str, fit: bool, cordoned: bool) -> CandidateView {
        CandidateView {
            name: name.into(),
            labels: Attributes::new(),
            facts: Attributes::new(),
            fitness: if fit { Fitness::fit() } else { Fitness::unfit("no source") },
            cordoned,
            holds: Vec::new(),
            standing_ms: 0,
        }
    }

    fn view(incumbent: Option<&str>) -> View {
        View {
            election: "e".into(),
            me: "a".into(),
            candidates: vec![
                candidate("a", true, false),
                candidate("b", true, false),
                candidate("unfit", false, false),
                candidate("cordoned", true, true),
                candidate("c", true, false),
            ],
            incumbent: incumbent.map(|name| IncumbentView {
                name: name.into(),
                facts: Attributes::new(),
                held_ms: 0,
            }),
            previous: None,
            transfer: None,
            paused: false,
        }
    }

    fn ranking(order: &[&str], excluded: &[&str]) -> Ranking {
        let ranked = |names: &[&str]| {
            names.iter().map(|n| Ranked { node: (*n).into(), reason: String::new() }).collect()
        };
        Ranking { order: ranked(order), excluded: ranked(excluded) }
    }

    #[test]
    fn the_host_excludes_and_completes_whatever_a_policy_answers() {
        let cases = [
            (None, None, vec!["a", "b", "c"]),
            (Some("c"), None, vec!["c", "a", "b"]),
            (None, Some(ranking(&["c", "b", "a"], &[])), vec!["c", "b", "a"]),
            (None, Some(ranking(&["unfit", "cordoned", "b"], &[])), vec!["b", "a", "c"]),
            (None, Some(ranking(&["b", "b", "nobody"], &["a"])), vec!["b", "c"]),
            (None, Some(ranking(&[], &["a", "b", "c"])), vec![]),
            (Some("b"), Some(ranking(&[], &[])), vec!["b", "a", "c"]),
        ];
        for (incumbent, ranking, expected) in cases {
            let order = effective_order(&view(incumbent), ranking.as_ref());
            let expected: Vec<NodeName> = expected.into_iter().map(NodeName::from).collect();
            assert_eq!(order, expected, "{incumbent:?} {ranking:?}");
        }
    }
}

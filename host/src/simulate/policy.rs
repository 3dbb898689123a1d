//! Real components for the simulator: it numbers nodes and elections, policies know them by name.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, NodeView, Ranked, Ranking, View};
use conclave_core::{ElectionName, NodeName};
use conclave_policy::Policy;

use super::scenario::Scenario;

/// A policy with what it is asked about.
#[derive(Debug)]
pub(crate) struct AskedPolicy {
    policy: Policy,
    config: String,
    nodes: Vec<NodeView>,
    elections: Vec<ElectionName>,
    asked: Mutex<Asked>,
}

/// What came of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Asked {
    pub(crate) rankings: u64,
    pub(crate) fuel: u64,
    /// How often it gave no answer, and the last reason.
    pub(crate) failures: u64,
    pub(crate) failure: Option<String>,
}

impl AskedPolicy {
    pub(crate) fn new(scenario: &Scenario, policy: Policy, config: String) -> Self {
        let node = |(name, labels): &(String, Attributes)| NodeView {
            name: NodeName::new(name.as_str()),
            labels: labels.clone(),
            variables: Attributes::new(),
        };
        AskedPolicy {
            policy,
            config,
            nodes: scenario.nodes.iter().map(node).collect(),
            elections: scenario.elections.iter().map(|it| ElectionName::new(it.as_str())).collect(),
            asked: Mutex::default(),
        }
    }

    /// What came of it so far.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn node(&self, numbered: &NodeName) -> NodeName {
        let node = number(numbered.as_str()).and_then(|n| self.nodes.get(n));
        node.map_or_else(|| numbered.clone(), |node| node.name.clone())
    }

    fn election(&self, numbered: &ElectionName) -> ElectionName {
        let named = number(numbered.as_str()).and_then(|e| self.elections.get(e));
        named.unwrap_or(numbered).clone()
    }

    fn named(&self, view: &View) -> View {
        let mut view = view.clone();
        view.election = self.election(&view.election);
        view.me = self.node(&view.me);
        for candidate in &mut view.candidates {
            candidate.name = self.node(&candidate.name);
            candidate.holds = candidate.holds.iter().map(|held| self.election(held)).collect();
        }
        if let Some(incumbent) = &mut view.incumbent {
            incumbent.name = self.node(&incumbent.name);
        }
        if let Some(previous) = &mut view.previous {
            previous.name = self.node(&previous.name);
        }
        if let Some(to) = view.transfer.as_mut().and_then(|transfer| transfer.to.as_mut()) {
            *to = self.node(to);
        }
        view
    }

    fn note(&self, fuel: u64, failure: Option<String>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.rankings += 1;
        asked.fuel += fuel;
        if failure.is_some() {
            asked.failures += 1;
            asked.failure = failure;
        }
    }
}

/// `n3` and `e3` are number 3.
fn number(name: &str) -> Option<usize> {
    name.get(1..)?.parse().ok()
}

impl conclave_sim::Policy for AskedPolicy {
    fn describe(&self, election: &ElectionName, node: &NodeName) -> Attributes {
        let Some(node) = number(node.as_str()).and_then(|n| self.nodes.get(n)) else {
            return Attributes::new();
        };
        let manifest = ManifestView {
            name: "service.yaml".to_owned(),
            exclusive: true,
            content: "apiVersion: v1\nkind: Pod\n".to_owned(),
        };
        let answer =
            self.policy.describe(&self.election(election), node, &[manifest], &self.config);
        answer.map(|answer| answer.value).unwrap_or_default()
    }

    fn rank(&self, view: &View) -> Result<Ranking, String> {
        match self.policy.rank(&self.named(view), &self.config) {
            Ok(answer) => {
                self.note(answer.usage.fuel, None);
                let numbers: BTreeMap<&NodeName, usize> =
                    self.nodes.iter().enumerate().map(|(n, node)| (&node.name, n)).collect();
                let back = |all: Vec<Ranked>| {
                    let back = |it: Ranked| match numbers.get(&it.node) {
                        Some(n) => Ranked { node: NodeName::new(format!("n{n}")), ..it },
                        None => it,
                    };
                    all.into_iter().map(back).collect()
                };
                let Ranking { order, excluded } = answer.value.ranking;
                Ok(Ranking { order: back(order), excluded: back(excluded) })
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                self.note(0, Some(reason.clone()));
                Err(reason)
            }
        }
    }
}

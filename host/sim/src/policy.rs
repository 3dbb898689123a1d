//! What the nodes' policies answer: sense, nonsense, late, or nothing.

use std::fmt;

use conclave_core::record::Attributes;
use conclave_core::view::{Ranked, Ranking, View};
use conclave_core::{ElectionName, Event, NodeName, OpId};

use crate::world::{Happening, World};

/// A policy from outside, which answers as a daemon's would: the same question, the same answer.
pub trait Policy: fmt::Debug + Send + Sync {
    /// What a node brings to an election.
    fn describe(&self, election: &ElectionName, node: &NodeName) -> Attributes;

    /// Who should lead.
    ///
    /// # Errors
    /// Why there is no answer.
    fn rank(&self, view: &View) -> Result<Ranking, String>;
}

/// How a node's policy answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyMode {
    /// As the built-in ranking does.
    Builtin,
    /// Like that, with one node first.
    Prefer(NodeName),
    /// It fails.
    Fail,
    /// It never answers.
    Hang,
    /// It answers late, often too late.
    Slow,
    /// Unknown and repeated nodes, any order, anybody excluded.
    Lie,
}

impl World {
    /// Tells a node's core by which policy version it decides.
    pub(crate) fn describe(&mut self, n: usize) {
        for e in 0..self.elections.len() {
            let election = self.elections[e].clone();
            let policy = self.nodes[n].policy_version.clone();
            let facts = match &self.settings.policy {
                Some(asked) => asked.describe(&election, &self.nodes[n].name),
                None => Attributes::new(),
            };
            self.deliver(n, Event::Described { election, facts, policy });
        }
    }

    pub(crate) fn ask_policy(&mut self, n: usize, op: OpId, view: &View) {
        let mut after = 20 + self.random.below(100);
        if let Some(asked) = &self.settings.policy {
            let event = Event::Ranked { op, result: asked.rank(view) };
            return self.schedule(n, after, Happening::Deliver(Box::new(event)));
        }
        if matches!(self.nodes[n].policy, PolicyMode::Fail | PolicyMode::Hang | PolicyMode::Slow) {
            self.policy_failed = Some(self.now);
        }
        let mut order = conclave_core::ranking::builtin_order(view);
        let mut excluded = Vec::new();
        match self.nodes[n].policy.clone() {
            PolicyMode::Builtin => {}
            PolicyMode::Prefer(name) => {
                if let Some(at) = order.iter().position(|known| *known == name) {
                    let name = order.remove(at);
                    order.insert(0, name);
                }
            }
            PolicyMode::Fail => {
                let result = Err("trap: unreachable".to_owned());
                let event = Event::Ranked { op, result };
                return self.schedule(n, after, Happening::Deliver(Box::new(event)));
            }
            PolicyMode::Hang => return,
            PolicyMode::Slow => after = self.random.below(400_000),
            PolicyMode::Lie => {
                order.push("nobody".into());
                for _ in 0..self.random.below(4) {
                    let at = self.random.below(order.len() as u64) as usize;
                    let name = order.swap_remove(at);
                    order.insert(0, name.clone());
                    order.push(name);
                }
                excluded = order.clone();
                excluded.retain(|_| self.random.chance(25));
            }
        }
        let ranked = |nodes: Vec<NodeName>| {
            nodes.into_iter().map(|node| Ranked { node, reason: String::new() }).collect()
        };
        let ranking = Ranking { order: ranked(order), excluded: ranked(excluded) };
        let event = Event::Ranked { op, result: Ok(ranking) };
        self.schedule(n, after, Happening::Deliver(Box::new(event)));
    }
}

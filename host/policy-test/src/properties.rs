//! What every policy must meet, whatever it is for, on one question.
//!
//! - Every answer is usable: it names candidates and manifests that there are, each once, and comes
//!   within the limits. The policy host checks that; a refusal is no answer and passes.
//! - A ranking names every candidate, as ranked or as excluded, so that whoever asks why a node does
//!   not lead gets an answer.
//! - The same question gets the same answer, and every node that asks gets the same ranking.
//! - Whoever a ranking puts in the lead stays there once it leads and nothing else has changed:
//!   otherwise nodes would hand the term on and on.
//! - What runs in both roles runs with the same variables.

use conclave_core::ElectionName;
use conclave_core::NodeName;
use conclave_core::ranking::effective_order;
use conclave_core::record::Attributes;
use conclave_core::view::{
    IncumbentView, ManifestView, NodeView, Placement, PreviousView, Role, View,
};
use conclave_policy::{Answer, Cause, Function, Interface, Policy, PolicyError, Ranks};

use crate::case::{Question, role};
use crate::run::{Spent, take, words};

/// What is asked: a policy with a configuration.
pub(crate) trait Asked {
    fn rank(&self, view: &View) -> Result<Answer<Ranks>, PolicyError>;
    fn place(
        &self,
        view: &View,
        node: &NodeView,
        role: Role,
        manifests: &[ManifestView],
    ) -> Result<Answer<Vec<Placement>>, PolicyError>;
    fn in_both_roles(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<(), PolicyError>;
    fn describe(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<Answer<Attributes>, PolicyError>;
}

/// A policy with a configuration.
pub(crate) struct Configured<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) config: &'a str,
}

/// The interface that has a function.
pub(crate) fn interface(function: Function) -> Interface {
    match function {
        Function::Introduce | Function::Validate => Interface::About,
        Function::Describe => Interface::Facts,
        Function::Rank => Interface::Leadership,
        Function::Place => Interface::Placement,
    }
}

impl Asked for Configured<'_> {
    fn rank(&self, view: &View) -> Result<Answer<Ranks>, PolicyError> {
        self.policy.rank(view, self.config)
    }

    fn place(
        &self,
        view: &View,
        node: &NodeView,
        role: Role,
        manifests: &[ManifestView],
    ) -> Result<Answer<Vec<Placement>>, PolicyError> {
        self.policy.place(view, node, role, manifests, self.config)
    }

    fn in_both_roles(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<(), PolicyError> {
        self.policy.check_exclusive(election, node, manifests, self.config).map(drop)
    }

    fn describe(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<Answer<Attributes>, PolicyError> {
        self.policy.describe(election, node, manifests, self.config)
    }
}

/// What a policy must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// Every answer is usable.
    Usable,
    /// A ranking names every candidate.
    Complete,
    /// The same question gets the same answer.
    Repeatable,
    /// Every node that asks gets the same ranking.
    Impartial,
    /// Whoever is put in the lead stays there.
    Stable,
}

/// How a property is broken.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) property: Property,
    /// In words.
    pub(crate) what: String,
    /// The question that shows it by itself, where it is not the one that was checked.
    pub(crate) shown_by: Option<Box<Question>>,
    /// Who ought to lead there.
    pub(crate) leads: Option<NodeName>,
    /// Whether asking again costs so much that nobody should do so often.
    pub(crate) slow: bool,
}

impl Broken {
    fn new(property: Property, what: impl Into<String>) -> Self {
        Broken { property, what: what.into(), shown_by: None, leads: None, slow: false }
    }

    fn unusable(error: &PolicyError, limit: u64) -> Self {
        let slow = matches!(*error.cause, Cause::Deadline { .. });
        Broken { slow, ..Broken::new(Property::Usable, words(error, limit)) }
    }
}

/// Whether a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Answered,
    Refused,
}

/// Asks about properties, and counts what that costs.
pub(crate) struct Checker<'a> {
    pub(crate) asked: &'a dyn Asked,
    pub(crate) fuel_limit: u64,
    pub(crate) spent: Spent,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(asked: &'a dyn Asked, fuel_limit: u64) -> Self {
        Checker { asked, fuel_limit, spent: Spent::default() }
    }

    /// Checks all that applies to a question.
    pub(crate) fn check(&mut self, question: &Question) -> Result<Met, Broken> {
        match question {
            Question::Rank(view) => self.rank(view),
            Question::Place { view, nodes, manifests } => {
                let mut met = Met::Answered;
                for node in nodes {
                    if self.place(view, node, manifests)? == Met::Refused {
                        met = Met::Refused;
                    }
                }
                Ok(met)
            }
            Question::Describe { election, node, manifests } => {
                let asked = self.asked;
                self.twice(|| asked.describe(election, node, manifests)).map(|(_, met)| met)
            }
            Question::Validate => Ok(Met::Answered),
        }
    }

    /// The value of an answer; nothing for a refusal.
    fn usable<T>(&mut self, answer: Result<Answer<T>, PolicyError>) -> Result<Option<T>, Broken> {
        match take(answer, &mut self.spent) {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(*error.cause, Cause::Refused(_)) => Ok(None),
            Err(error) => Err(Broken::unusable(&error, self.fuel_limit)),
        }
    }

    fn twice<T: PartialEq>(
        &mut self,
        ask: impl Fn() -> Result<Answer<T>, PolicyError>,
    ) -> Result<(Option<T>, Met), Broken> {
        let first = self.usable(ask())?;
        let second = self.usable(ask())?;
        if first != second {
            return Err(Broken::new(
                Property::Repeatable,
                "asked the same twice, it gives two answers",
            ));
        }
        let met = if first.is_some() { Met::Answered } else { Met::Refused };
        Ok((first, met))
    }

    fn rank(&mut self, view: &View) -> Result<Met, Broken> {
        let asked = self.asked;
        let (ranks, met) = self.twice(|| asked.rank(view))?;
        self.impartial(view, ranks.as_ref())?;
        if let Some(ranks) = ranks {
            complete(&ranks)?;
            self.stable(view, &ranks)?;
        }
        Ok(met)
    }

    /// Asks as the first and the last candidate, too.
    fn impartial(&mut self, view: &View, ranks: Option<&Ranks>) -> Result<(), Broken> {
        let names = |ranks: &Ranks| -> (Vec<NodeName>, Vec<NodeName>) {
            let of = |list: &[conclave_core::view::Ranked]| {
                list.iter().map(|r| r.node.clone()).collect()
            };
            (of(&ranks.ranking.order), of(&ranks.ranking.excluded))
        };
        let ends = [view.candidates.first(), view.candidates.last()];
        for other in ends.into_iter().flatten().filter(|other| other.name != view.me) {
            let seen = View { me: other.name.clone(), ..view.clone() };
            let answer = self.usable(self.asked.rank(&seen))?;
            if answer.as_ref().map(names) != ranks.map(names) {
                let what = format!(
                    "it ranks otherwise when `{}` asks than when `{}` does; nodes that rank \
                     differently hand a term back and forth",
                    other.name, view.me
                );
                return Err(Broken::new(Property::Impartial, what));
            }
        }
        Ok(())
    }

    /// Asks again as if the first had taken over and nothing else had changed.
    fn stable(&mut self, view: &View, ranks: &Ranks) -> Result<(), Broken> {
        let Some(first) = effective_order(view, Some(&ranks.ranking)).into_iter().next() else {
            return Ok(());
        };
        let then = taken_over(view, &first);
        if then == *view {
            return Ok(());
        }
        let Some(ranks) = self.usable(self.asked.rank(&then))? else { return Ok(()) };
        let next = effective_order(&then, Some(&ranks.ranking)).into_iter().next();
        if next.as_ref() == Some(&first) {
            return Ok(());
        }
        let next = next.map_or("nobody".to_owned(), |next| format!("`{next}`"));
        let what = format!(
            "it puts `{first}` in the lead, and once that leads, {next}: the term would not stay \
             anywhere"
        );
        Err(Broken {
            shown_by: Some(Box::new(Question::Rank(then))),
            leads: Some(first),
            ..Broken::new(Property::Stable, what)
        })
    }

    fn place(
        &mut self,
        view: &View,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<Met, Broken> {
        let asked = self.asked;
        let seen = View { me: node.name.clone(), ..view.clone() };
        let role = role(view, &node.name);
        let (_, met) = self.twice(|| asked.place(&seen, node, role, manifests))?;
        match asked.in_both_roles(&view.election, node, manifests) {
            Err(error) if !matches!(*error.cause, Cause::Refused(_)) => {
                self.spent.add(*error.usage);
                Err(Broken::unusable(&error, self.fuel_limit))
            }
            _ => Ok(met),
        }
    }
}

/// That no candidate is left out.
fn complete(ranks: &Ranks) -> Result<(), Broken> {
    let Some(forgotten) = ranks.forgotten.first() else { return Ok(()) };
    let what = format!("it neither ranks nor excludes `{forgotten}`");
    Err(Broken::new(Property::Complete, what))
}

/// The view after a candidate has taken over, or has been handed the term, and nothing else changed.
fn taken_over(view: &View, leader: &NodeName) -> View {
    let mut then = view.clone();
    let before = then.incumbent.take();
    if let Some(before) = before {
        if before.name == *leader {
            return view.clone();
        }
        then.previous = Some(PreviousView { name: before.name, facts: before.facts, clean: true });
    }
    // A transfer is asked of one term.
    then.transfer = None;
    for candidate in &mut then.candidates {
        candidate.holds.retain(|held| *held != view.election);
        if candidate.name == *leader {
            candidate.holds.push(view.election.clone());
            candidate.holds.sort();
            then.incumbent = Some(IncumbentView {
                name: leader.clone(),
                facts: candidate.facts.clone(),
                held_ms: 0,
            });
        }
    }
    then
}

//! Holding a term: waiting out a takeover delay, placing, and deciding when to let go.
//!
//! A term is let go of its own accord only to somebody: the target is offered the term while
//! this node still leads, and nothing is withdrawn before it accepted. Stopping and cordons let
//! go even when nobody accepts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::action::{Action, Notice};
use crate::election::{Advice, Election, State, Term};
use crate::ids::{NodeName, OpId};
use crate::leave::Goal;
use crate::node::{Node, Purpose, Step};
use crate::record::{EndReason, Offer, OfferId};
use crate::request::{Outcome, Request};
use crate::time::Time;

/// A term that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holding {
    pub(crate) term: Term,
    pub(crate) began: Time,
    /// Nothing is placed before this; `None` once placing was allowed.
    place_at: Option<Time>,
    /// An earlier daemon on this session may have placed for it, and withdrawn.
    pub(crate) inherited: bool,
    offering: Option<Offering>,
    offers: u64,
    /// Who did not accept, while the same change is wanted.
    refused: BTreeSet<NodeName>,
    /// A voluntary change is not tried again before this.
    not_before: Time,
    differing: Vec<NodeName>,
}

/// An offer under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Offering {
    id: OfferId,
    to: NodeName,
    why: EndReason,
    /// The rewrite of the leader key that carries the offer.
    op: Option<OpId>,
    /// Whether that rewrite is confirmed, and until when an answer counts.
    until: Option<Time>,
    retry_at: Time,
}

/// A change of leader that is wanted.
struct Change {
    why: EndReason,
    /// To whom, best first.
    targets: Vec<NodeName>,
    /// Whether the term is given up even if nobody accepts.
    must: bool,
}

/// Whether a change of leader is wanted.
enum Wish {
    /// The policy has not answered yet.
    Unknown,
    Stay,
    Change(Change),
}

impl From<Option<Change>> for Wish {
    fn from(change: Option<Change>) -> Self {
        change.map_or(Wish::Stay, Wish::Change)
    }
}

/// Before a voluntary change that nobody accepted is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Holding {
    pub(crate) fn new(term: Term, began: Time, delay: Duration, placed: bool) -> Self {
        Holding {
            term,
            began,
            place_at: (!placed).then_some(began + delay),
            inherited: false,
            offering: None,
            offers: 0,
            refused: BTreeSet::new(),
            not_before: Time::ZERO,
            differing: Vec::new(),
        }
    }

    pub(crate) fn placed(&self) -> bool {
        self.place_at.is_none()
    }

    /// What is left of the takeover delay.
    pub(crate) fn unserved(&self, now: Time) -> Duration {
        self.place_at.map_or(Duration::ZERO, |at| at.since(now))
    }
}

impl Election {
    fn holding(&mut self) -> Option<&mut Holding> {
        match &mut self.state {
            State::Holding(holding) => Some(holding),
            _ => None,
        }
    }

    pub(crate) fn hold(&mut self, node: &mut Node) {
        if !self.check_key(node) {
            return;
        }
        self.place(node);
        match self.wanted_change(node) {
            Wish::Unknown => {}
            Wish::Stay => {
                if let Some(holding) = self.holding() {
                    holding.offering = None;
                    holding.refused.clear();
                }
            }
            Wish::Change(change) => self.pursue(node, change),
        }
    }

    /// The leader key must still be there: a reading that lacks it ends the term.
    fn check_key(&mut self, node: &mut Node) -> bool {
        let Some(holding) = self.holding() else { return false };
        let (token, session) = (holding.term.token, holding.term.session);
        let own = self.own_key(node, session).filter(|(term, _)| term.token == token);
        match own {
            Some((term, true)) => {
                if let Some(holding) = self.holding() {
                    // A late write of our own may have moved it on.
                    holding.term.modified = term.modified;
                }
                true
            }
            Some((_, false)) => {
                self.leave(node, EndReason::Competitor, Goal::Resign);
                false
            }
            None => {
                self.leave(node, EndReason::Unsettled, Goal::Forget);
                false
            }
        }
    }

    fn place(&mut self, node: &mut Node) {
        if !self.may_hold(node) || !self.is_fit() || !self.is_described() {
            return; // it is about to go, or nothing could be placed yet
        }
        let now = node.now.fast;
        let Some(holding) = self.holding() else { return };
        let Some(at) = holding.place_at else { return };
        if now < at {
            return node.wake(&self.name, at);
        }
        holding.place_at = None;
        let token = holding.term.token;
        node.act(Action::Lead { election: self.name.clone(), token, adopted: false });
    }

    fn wanted_change(&mut self, node: &mut Node) -> Wish {
        let must = if node.stopping.is_some() {
            Some(EndReason::Stopping)
        } else if node.replica.cordoned(&self.name, node.me()) {
            Some(EndReason::Cordon)
        } else if self.is_described() {
            None
        } else {
            return Wish::Stay; // just adopted: the policy is still being loaded
        };
        let Some(began) = self.holding().map(|holding| holding.began) else { return Wish::Stay };
        let order = match self.consult(node, node.now.fast.since(began)) {
            // A stop need not wait for a slow policy for long: the question has a time limit.
            Advice::Waiting => return Wish::Unknown,
            Advice::Held => Vec::new(),
            Advice::Order(order) => order,
        };
        self.wake_at_next_step(node, began);
        let me = node.me().clone();
        let others = || order.iter().filter(|name| **name != me).cloned().collect::<Vec<_>>();
        if let Some(why) = must {
            return Wish::Change(Change { why, targets: others(), must: true });
        }
        if self.is_unfit() {
            let targets = others();
            return if targets.is_empty() {
                Wish::Stay
            } else {
                Wish::Change(Change { why: EndReason::Unfit, targets, must: false })
            };
        }
        if node.replica.paused(&self.name) {
            return Wish::Stay;
        }
        let transfer = self.asked_transfer(node, &order);
        transfer.or_else(|| self.better_leader(node, &order, began)).into()
    }

    /// The view's durations are rounded; crossing a step is a change that re-ranks.
    fn wake_at_next_step(&self, node: &mut Node, began: Time) {
        let held = u64::try_from(node.now.fast.since(began).as_millis()).unwrap_or(u64::MAX);
        let next = crate::view::next_step_ms(held);
        node.wake(&self.name, began + Duration::from_millis(next));
    }

    fn asked_transfer(&mut self, node: &Node, order: &[NodeName]) -> Option<Change> {
        let token = self.holding()?.term.token;
        let transfer = node.replica.transfer(&self.name).filter(|t| t.token == token)?;
        let me = node.me();
        let targets: Vec<NodeName> = match &transfer.to {
            Some(to) => order.iter().filter(|name| *name == to && *name != me).cloned().collect(),
            None => order.iter().filter(|name| *name != me).cloned().collect(),
        };
        (!targets.is_empty()).then_some(Change { why: EndReason::Transfer, targets, must: false })
    }

    fn better_leader(
        &mut self,
        node: &mut Node,
        order: &[NodeName],
        began: Time,
    ) -> Option<Change> {
        let first = order.first().filter(|name| *name != node.me())?.clone();
        let may_change = began + node.settings.timings.minimum_term;
        if node.now.fast < may_change {
            node.wake(&self.name, may_change);
            return None;
        }
        // Two nodes that decide differently would hand the term back and forth.
        let differing = node.differing(&self.name, &self.policy_version());
        let election = self.name.clone();
        let holding = self.holding()?;
        if holding.differing != differing {
            holding.differing.clone_from(&differing);
            if !differing.is_empty() {
                node.notice(Notice::VersionsDiffer { election, nodes: differing.clone() });
            }
        }
        let excluded = !order.contains(node.me());
        let why = if excluded { EndReason::Excluded } else { EndReason::Ranking };
        differing.is_empty().then(|| Change { why, targets: vec![first], must: false })
    }

    /// Offers the term to the targets, one after the other, and leaves when one accepted.
    fn pursue(&mut self, node: &mut Node, change: Change) {
        let competitor = node.replica.leaders(&self.name).len() > 1;
        if competitor {
            // A queued competitor would lead beside the target: it leads, and alone. A mere
            // preference among our own candidates is no reason to let it.
            if !matches!(change.why, EndReason::Ranking | EndReason::Excluded) {
                self.leave(node, change.why, Goal::Resign);
            }
            return;
        }
        if let Some(target) = self.acceptance(node, &change) {
            return self.leave(node, change.why, Goal::HandOver(target));
        }
        let now = node.now.fast;
        let name = self.name.clone();
        let Some(holding) = self.holding() else { return };
        if let Some(offering) = &mut holding.offering {
            offering.why = change.why;
            if !change.targets.contains(&offering.to) {
                holding.refused.insert(offering.to.clone());
                holding.offering = None;
            }
        }
        if let Some(offering) = &holding.offering {
            match offering.until {
                Some(until) if until <= now => {
                    holding.refused.insert(offering.to.clone());
                    holding.offering = None;
                }
                Some(until) => return node.wake(&name, until),
                None if offering.op.is_some() => return,
                None if now < offering.retry_at => return node.wake(&name, offering.retry_at),
                None => return self.send_offer(node),
            }
        }
        let next = change.targets.iter().find(|to| !holding.refused.contains(*to)).cloned();
        match next {
            Some(to) if change.must || holding.not_before <= now => {
                self.offer(to, change.why);
                self.send_offer(node);
            }
            Some(_) => {
                let at = holding.not_before;
                node.wake(&name, at);
            }
            None if change.must => self.leave(node, change.why, Goal::Resign),
            None => {
                holding.refused.clear();
                holding.not_before = now + TRY_AGAIN;
                let at = holding.not_before;
                node.wake(&name, at);
            }
        }
    }

    fn offer(&mut self, to: NodeName, why: EndReason) {
        let Some(holding) = self.holding() else { return };
        // Never a number that an earlier daemon gave on the same term.
        holding.offers = (holding.offers + 1).max(holding.term.modified.0);
        let id = OfferId { token: holding.term.token, number: holding.offers };
        holding.offering =
            Some(Offering { id, to, why, op: None, until: None, retry_at: Time::ZERO });
    }

    fn send_offer(&mut self, node: &mut Node) {
        let election = self.name.clone();
        let Some(Holding { term, offering: Some(offering), .. }) = self.holding() else { return };
        term.record.offer = Some(Offer { id: offering.id, to: offering.to.clone() });
        let request = Request::RewriteLeader {
            election: election.clone(),
            node: node.me().clone(),
            session: term.session,
            modified: term.modified,
            record: term.record.clone(),
        };
        offering.op = Some(node.send(Purpose::Election(election, Step::Rewrite), request));
    }

    pub(crate) fn offer_answered(&mut self, node: &mut Node, op: OpId, outcome: &Outcome) {
        let backoff = node.backoff(1);
        let stopping = node.stopping.is_some();
        let Some(Holding { offering: Some(offering), .. }) = self.holding() else { return };
        if offering.op != Some(op) {
            return;
        }
        offering.op = None;
        match outcome {
            Outcome::Applied { .. } => {
                offering.until = Some(node.now.fast + node.settings.timings.offer_timeout);
            }
            // Our key as it is now came with the answer; the offer is made again on top of it.
            Outcome::Rejected { .. } => offering.retry_at = node.now.fast + backoff,
            Outcome::Unknown => {
                offering.retry_at = node.now.fast + backoff;
                if stopping {
                    // The store does not answer, and this node is to go: withdraw now.
                    let why = offering.why;
                    self.leave(node, why, Goal::Resign);
                }
            }
        }
    }

    /// Whether the node that was offered the term has accepted this very offer.
    fn acceptance(&mut self, node: &Node, change: &Change) -> Option<crate::request::Target> {
        let name = self.name.clone();
        let offering = self.holding()?.offering.as_ref()?;
        offering.until?;
        if !change.targets.contains(&offering.to) {
            return None;
        }
        let (_, candidacy) = node.replica.candidacy(&name, &offering.to)?;
        if candidacy.accepted != Some(offering.id) {
            return None;
        }
        node.target(&name, &offering.to)
    }
}

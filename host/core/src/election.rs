//! One election on this node: its state, its candidacy, and the policy's advice.
//!
//! [`Election::advance`] is level-triggered: after any change it looks at everything it knows
//! and takes the next step, so that no lost event can leave it waiting for ever.

use std::time::Duration;

use crate::action::{Action, Notice};
use crate::ids::{ElectionName, NodeName, OpId, SessionId, Token};
use crate::leave::Leaving;
use crate::node::{Node, Purpose, Step};
use crate::ranking::effective_order;
use crate::record::{Attributes, CandidacyRecord, Fitness, LeaderRecord, OfferId, PolicyVersion};
use crate::request::{Outcome, Request};
use crate::settings::ElectionSettings;
use crate::tenure::Holding;
use crate::time::Time;
use crate::view::{Ranking, View};

/// What a term is, once its key is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    pub(crate) token: Token,
    pub(crate) session: SessionId,
    /// The leader key's mod revision, as far as we know the newest write, which is ours.
    pub(crate) modified: crate::ids::Revision,
    pub(crate) record: LeaderRecord,
}

/// Where an election stands on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// No term of ours; following a holder or waiting for a turn to campaign.
    Watching,
    /// A transaction that takes the term is under way.
    Taking { op: OpId },
    /// A leader key of ours is being made certain of.
    Confirming(Confirming),
    /// The term is ours.
    Holding(Holding),
    /// The term is being given up.
    Leaving(Leaving),
}

/// A leader key on our session that is not yet acted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Confirming {
    pub(crate) token: Token,
    /// Its exclusive effects are in place, from an earlier daemon under the same guard.
    pub(crate) adopted: bool,
    /// An earlier daemon on this session may have placed for it, and withdrawn.
    pub(crate) inherited: bool,
    /// It must be rewritten first, so that earlier writes of ours fail.
    pub(crate) rewrite: bool,
    pub(crate) op: Option<OpId>,
    pub(crate) began: Time,
}

/// The newest question to the policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    view: View,
    op: OpId,
    /// When it was asked, or an earlier question that was overtaken before it was answered: a
    /// policy that hangs must not gain time whenever something changes.
    at: Time,
    result: Option<Result<Ranking, String>>,
}

/// What the policy, or what stands in for it, says.
pub(crate) enum Advice {
    /// It has not answered yet.
    Waiting,
    /// The eligible candidates, best first.
    Order(Vec<NodeName>),
    /// The policy fails and nobody new shall be elected.
    Held,
}

/// A failed policy is asked again after this, even if nothing changed: it may have been slow.
const ASK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    pub(crate) name: ElectionName,
    pub(crate) settings: ElectionSettings,
    /// Whether it is still configured; otherwise its term is only withdrawn and resigned.
    pub(crate) configured: bool,
    fitness: Option<Fitness>,
    described: Option<(Attributes, PolicyVersion)>,
    accepted: Option<OfferId>,
    candidacy_op: Option<OpId>,
    /// The candidacy was written by this daemon on this session.
    candidacy_of: Option<SessionId>,
    candidacy_retry: Time,
    asked: Option<Asked>,
    pub(crate) fallback: bool,
    pub(crate) state: State,
    pub(crate) vacant_since: Option<Time>,
    pub(crate) not_before: Time,
    pub(crate) failures: u32,
    /// The highest token acted for.
    pub(crate) highest: Token,
    told: Option<Option<(NodeName, Token)>>,
    foreign: Option<String>,
}

impl Election {
    pub(crate) fn new(
        name: ElectionName,
        settings: Option<ElectionSettings>,
        highest: Token,
        adopted: Option<Token>,
        now: Time,
    ) -> Self {
        let state = match adopted {
            None => State::Watching,
            Some(token) => State::Confirming(Confirming {
                token,
                adopted: true,
                inherited: false,
                rewrite: true,
                op: None,
                began: now,
            }),
        };
        Election {
            name,
            configured: settings.is_some(),
            settings: settings.unwrap_or_default(),
            fitness: None,
            described: None,
            accepted: None,
            candidacy_op: None,
            candidacy_of: None,
            candidacy_retry: Time::ZERO,
            asked: None,
            fallback: false,
            state,
            vacant_since: None,
            not_before: Time::ZERO,
            failures: 0,
            highest,
            told: None,
            foreign: None,
        }
    }

    pub(crate) fn set_fitness(&mut self, fitness: Fitness) {
        self.fitness = Some(fitness);
    }

    pub(crate) fn set_description(&mut self, facts: Attributes, policy: PolicyVersion) {
        if self.described.as_ref().is_none_or(|(_, known)| *known != policy) {
            // Another policy may answer the same question differently.
            self.asked = None;
            self.fallback = false;
        }
        self.described = Some((facts, policy));
    }

    /// Takes the next steps that everything known allows.
    pub(crate) fn advance(&mut self, node: &mut Node) {
        if node.session.is_lost() {
            self.session_lost(node);
        }
        self.keep_candidacy(node);
        match &self.state {
            State::Watching => self.watch(node),
            State::Taking { .. } => {}
            State::Confirming(_) => self.confirm(node),
            State::Holding(_) => self.hold(node),
            State::Leaving(_) => self.leave_on(node),
        }
        self.tell(node);
    }

    fn session_lost(&mut self, node: &mut Node) {
        self.vacant_since = None;
        self.candidacy_of = None;
        match &self.state {
            State::Watching | State::Leaving(_) => {}
            State::Confirming(confirming) if confirming.adopted => {
                let token = confirming.token;
                self.abandon(node, token);
            }
            State::Taking { .. } | State::Confirming(_) => self.state = State::Watching,
            State::Holding(_) => self.leave_lost(node),
        }
    }

    /// Whether nothing of this election keeps the session from being ended.
    pub(crate) fn is_clear(&self) -> bool {
        matches!(self.state, State::Watching)
    }

    pub(crate) fn is_stuck(&self) -> bool {
        matches!(&self.state, State::Leaving(leaving) if leaving.is_stuck())
    }

    /// Whether this node may lead now, by the host's own judgement.
    pub(crate) fn eligible(&self, node: &Node) -> bool {
        self.configured
            && node.session.valid(node.now).is_some()
            && node.stopping.is_none()
            && node.fatal.is_none()
            && self.is_fit()
            && !node.replica.cordoned(&self.name, node.me())
    }

    /// Whether this node may keep a key of its own: what it does not know yet, just started, is
    /// no reason to give it up.
    pub(crate) fn may_hold(&self, node: &Node) -> bool {
        self.configured
            && node.stopping.is_none()
            && node.fatal.is_none()
            && !self.is_unfit()
            && !node.replica.cordoned(&self.name, node.me())
    }

    pub(crate) fn is_fit(&self) -> bool {
        self.fitness.as_ref().is_some_and(|fitness| fitness.fit)
    }

    /// Whether it is known to be unfit: after an adoption nothing is known at first.
    pub(crate) fn is_unfit(&self) -> bool {
        self.fitness.as_ref().is_some_and(|fitness| !fitness.fit)
    }

    /// Whether the policy that decides here is loaded.
    pub(crate) fn is_described(&self) -> bool {
        self.described.is_some()
    }

    pub(crate) fn fitness(&self) -> Option<&Fitness> {
        self.fitness.as_ref()
    }

    pub(crate) fn facts(&self) -> Attributes {
        self.described.as_ref().map(|(facts, _)| facts.clone()).unwrap_or_default()
    }

    /// What decides here, the fallback in force included.
    pub(crate) fn policy_version(&self) -> PolicyVersion {
        let mut policy = self.described.as_ref().map(|(_, p)| p.clone()).unwrap_or_default();
        policy.fallback = self.falls_back();
        policy
    }

    /// Whether the built-in ranking stands in for the policy.
    fn falls_back(&self) -> bool {
        self.fallback && !self.settings.hold_on_policy_failure
    }

    /// Whether a record names what decides here: [`Election::policy_version`] without a copy.
    fn is_policy(&self, named: &PolicyVersion) -> bool {
        let fallback = self.falls_back();
        match &self.described {
            Some((_, PolicyVersion { name, component, config, .. })) => {
                (name, component, config, fallback)
                    == (&named.name, &named.component, &named.config, named.fallback)
            }
            None => *named == PolicyVersion { fallback, ..PolicyVersion::default() },
        }
    }

    fn keep_candidacy(&mut self, node: &mut Node) {
        let Some(session) = node.session.valid(node.now) else { return };
        if !self.configured || !node.replica.listed || self.candidacy_op.is_some() {
            return;
        }
        if node.stopping.is_some() || self.fitness.is_none() || self.described.is_none() {
            return;
        }
        self.accept_offers(node);
        let (Some(fitness), Some((facts, _))) = (&self.fitness, &self.described) else { return };
        let known = node.replica.candidacy(&self.name, node.me()).map(|(_, record)| record);
        let as_wanted = |known: &CandidacyRecord| {
            known.session == session
                && known.accepted == self.accepted
                && known.fitness == *fitness
                && known.facts == *facts
                && self.is_policy(&known.policy)
        };
        if self.candidacy_of == Some(session) && known.is_some_and(as_wanted) {
            return;
        }
        if node.now.fast < self.candidacy_retry {
            node.wake(&self.name, self.candidacy_retry);
            return;
        }
        let record = CandidacyRecord {
            session,
            fitness: fitness.clone(),
            facts: facts.clone(),
            policy: self.policy_version(),
            accepted: self.accepted,
        };
        let (election, me) = (self.name.clone(), node.me().clone());
        let purpose = Purpose::Election(election.clone(), Step::Candidacy);
        self.candidacy_op =
            Some(node.send(purpose, Request::PutCandidacy { election, node: me, record }));
        self.candidacy_of = Some(session);
    }

    /// A standing offer to this node is accepted by naming it in the candidacy.
    fn accept_offers(&mut self, node: &mut Node) {
        if !self.eligible(node) || !matches!(self.state, State::Watching) {
            return;
        }
        let leaders = node.replica.leaders(&self.name);
        if let Some(leader) = leaders.first()
            && let Some(offer) = leader.term.and_then(|term| term.offer.as_ref())
            && offer.to == *node.me()
            && offer.id.token == leader.token
            && self.accepted != Some(offer.id)
        {
            self.accepted = Some(offer.id);
            node.act(Action::Prepare { election: self.name.clone(), token: None });
        }
    }

    /// The term whose offer this node accepted last.
    pub(crate) fn accepted_term(&self) -> Option<Token> {
        self.accepted.map(|offer| offer.token)
    }

    pub(crate) fn candidacy_answered(&mut self, node: &Node, op: OpId, outcome: &Outcome) {
        if self.candidacy_op != Some(op) {
            return;
        }
        self.candidacy_op = None;
        if !matches!(outcome, Outcome::Applied { .. }) {
            self.candidacy_of = None;
            self.candidacy_retry = node.now.fast + node.backoff(2);
        }
    }

    /// Our candidacy's mod revision, if it is the one we want to stand with.
    pub(crate) fn candidacy(&self, node: &Node) -> Option<crate::ids::Revision> {
        let session = node.session.valid(node.now)?;
        if self.candidacy_op.is_some() || self.candidacy_of != Some(session) {
            return None;
        }
        let (modified, record) = node.replica.candidacy(&self.name, node.me())?;
        (record.session == session).then_some(modified)
    }

    /// Whether our candidacy names what decides here now: a rewriting under way would make the
    /// compares of a campaign fail.
    pub(crate) fn is_current(&self, node: &Node) -> bool {
        let record = node.replica.candidacy(&self.name, node.me()).map(|(_, record)| record);
        record.is_some_and(|record| self.is_policy(&record.policy))
    }

    /// Asks the policy about what is known now, at most once for the same view.
    pub(crate) fn consult(&mut self, node: &mut Node, held: Duration) -> Advice {
        let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let view = node.view(&self.name, held_ms);
        let timeout = node.settings.timings.ranking_timeout;
        let now = node.now.fast;
        if self.asked.as_ref().is_none_or(|asked| asked.view != view) {
            let op = node.begin(Purpose::Election(self.name.clone(), Step::Rank));
            node.act(Action::Rank { op, view: Box::new(view.clone()) });
            let unanswered = self.asked.as_ref().filter(|asked| asked.result.is_none());
            let at = unanswered.map_or(now, |asked| asked.at);
            self.asked = Some(Asked { view, op, at, result: None });
        }
        let Some(asked) = &mut self.asked else { return Advice::Waiting };
        if asked.result.is_none() && asked.at + timeout <= now {
            asked.result = Some(Err("the policy host did not answer in time".to_owned()));
        }
        match &asked.result {
            None => {
                let at = asked.at + timeout;
                node.wake(&self.name, at);
                Advice::Waiting
            }
            Some(Ok(ranking)) => {
                let order = effective_order(&asked.view, Some(ranking));
                if std::mem::take(&mut self.fallback) {
                    node.dirty.insert(self.name.clone()); // the candidacy says so
                }
                Advice::Order(order)
            }
            Some(Err(reason)) => {
                let (reason, at) = (reason.clone(), asked.at + ASK_AGAIN);
                let order = effective_order(&asked.view, None);
                self.policy_failed(node, reason, at);
                if self.settings.hold_on_policy_failure {
                    Advice::Held
                } else {
                    Advice::Order(order)
                }
            }
        }
    }

    fn policy_failed(&mut self, node: &mut Node, reason: String, again: Time) {
        if !self.fallback {
            self.fallback = true;
            node.dirty.insert(self.name.clone()); // the candidacy says so
            let fallback = !self.settings.hold_on_policy_failure;
            let election = self.name.clone();
            node.notice(Notice::PolicyFailed { election, reason, fallback });
        }
        if again <= node.now.fast {
            self.asked = None;
            node.wake(&self.name, node.now.fast);
        } else {
            node.wake(&self.name, again);
        }
    }

    pub(crate) fn ranked(&mut self, op: OpId, result: Result<Ranking, String>) {
        if let Some(asked) = &mut self.asked
            && asked.op == op
            && asked.result.is_none()
        {
            asked.result = Some(result);
        }
    }

    /// Our own leader key on a session, wherever it stands under the prefix.
    pub(crate) fn own_key(&self, node: &Node, session: SessionId) -> Option<(Term, bool)> {
        let leaders = node.replica.leaders(&self.name);
        // A key counts as a term only if its name is that of the session in it.
        let ours = |term: &LeaderRecord| term.session == session;
        let index = leaders.iter().position(|leader| leader.term.is_some_and(ours))?;
        let leader = &leaders[index];
        let record = leader.term?.clone();
        let term = Term { token: leader.token, session, modified: leader.modified, record };
        Some((term, index == 0))
    }

    /// Tells the shell whom to follow, once per change, while nothing of ours is in place.
    fn tell(&mut self, node: &mut Node) {
        match &self.state {
            State::Watching | State::Taking { .. } => {}
            State::Confirming(confirming) if !confirming.adopted => {
                if !confirming.rewrite && self.told.is_some() {
                    return; // one reading later it leads, or follows whoever does
                }
            }
            State::Holding(holding) if !holding.placed() => {}
            _ => {
                self.told = None;
                return;
            }
        }
        let leaders = node.replica.leaders(&self.name);
        let first = leaders.first();
        let holder = first.and_then(|l| l.term.map(|term| (term.holder.clone(), l.token)));
        let foreign = first.filter(|l| l.term.is_none()).map(|l| l.suffix.to_owned());
        let election = self.name.clone();
        if self.foreign != foreign {
            self.foreign.clone_from(&foreign);
            if let Some(suffix) = foreign {
                node.notice(Notice::ForeignHolder { election: election.clone(), suffix });
            }
        }
        if self.told.as_ref() != Some(&holder) {
            node.notice(Notice::HolderChanged {
                election: election.clone(),
                holder: holder.clone(),
            });
            node.act(Action::Follow { election, holder: holder.clone() });
            self.told = Some(holder);
        }
    }
}

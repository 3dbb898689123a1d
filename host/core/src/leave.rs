//! Giving a term up: withdraw first, then, and only then, the key.
//!
//! S2 is this file's shape: the request that deletes the leader key is sent from one place, and
//! that place is reached only after the withdrawal was confirmed. A withdrawal that fails makes
//! the term stuck: it is never given up, and the session is kept alive so that nobody takes it.

use std::time::Duration;

use crate::action::{Action, Notice};
use crate::campaign::millis;
use crate::election::{Election, State, Term};
use crate::ids::{NodeName, OpId, Token};
use crate::node::{Node, Purpose, Step};
use crate::record::{EndReason, HistoryRecord, LeaderRecord};
use crate::request::{Ending, Outcome, Request, Target};
use crate::time::Time;

/// What becomes of the term once its effects are withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    /// It goes to the node that accepted it.
    HandOver(Target),
    /// It is given up.
    Resign,
    /// It is gone already, or its session is: there is nothing to give up.
    Forget,
}

/// A term that is being given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leaving {
    token: Token,
    /// `None` for an adopted term whose key was not found.
    term: Option<Term>,
    why: EndReason,
    goal: Goal,
    stage: Stage,
    /// Whether exclusive effects were, or may have been, ever allowed.
    placed: bool,
    /// What was, or may have been, unserved of the takeover delay when leaving began.
    unserved: Duration,
    /// Whether a stop check confirmed that what the term ran has stopped.
    stopped: bool,
    failures: u32,
    /// The session was found lost: a withdrawal that had failed was tried again at once.
    hurried: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Withdrawing {
        op: OpId,
    },
    /// The withdrawal failed; it is tried again.
    Stuck {
        retry_at: Time,
    },
    StopChecking {
        op: OpId,
    },
    GivingUp {
        op: OpId,
    },
    /// The store did not say whether the term is given up.
    Asking {
        retry_at: Time,
    },
}

/// Between attempts to withdraw what is stuck.
const WITHDRAW_AGAIN: Duration = Duration::from_secs(1);

/// The same once the session is lost, when somebody else may lead before long: as often as the
/// guard tries.
const WITHDRAW_LOST_AGAIN: Duration = Duration::from_millis(100);

impl Leaving {
    pub(crate) fn is_stuck(&self) -> bool {
        match self.stage {
            Stage::Stuck { .. } => true,
            // A retried withdrawal under way is still stuck until it succeeds.
            Stage::Withdrawing { .. } => self.failures > 0,
            _ => false,
        }
    }

    /// Whether the withdrawal was confirmed.
    pub(crate) fn is_withdrawn(&self) -> bool {
        !matches!(self.stage, Stage::Withdrawing { .. } | Stage::Stuck { .. })
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }
}

impl Election {
    /// Starts giving up the term that is held.
    pub(crate) fn leave(&mut self, node: &mut Node, why: EndReason, goal: Goal) {
        let State::Holding(holding) = &self.state else { return };
        let unserved = holding.unserved(node.now.fast);
        let (term, placed) = (holding.term.clone(), holding.placed() || holding.inherited);
        self.start_leaving(node, term.token, Some(term), why, goal, placed, unserved);
    }

    /// The session under the term is lost: withdraw, and that is all.
    pub(crate) fn leave_lost(&mut self, node: &mut Node) {
        self.leave(node, EndReason::Silent, Goal::Forget);
    }

    /// A key of ours that nothing was placed for is deleted.
    pub(crate) fn leave_unplaced(&mut self, node: &mut Node, term: Term, why: EndReason) {
        let unserved = Duration::from_millis(term.record.delay_ms);
        self.start_leaving(node, term.token, Some(term), why, Goal::Resign, false, unserved);
    }

    /// A key of ours that was not expected is deleted. An earlier daemon on the same session may
    /// have placed for it and withdrawn, and then its stop is not confirmed; or it may still have
    /// been waiting, and then all of the delay can be left.
    pub(crate) fn leave_found(&mut self, node: &mut Node, term: Term, why: EndReason) {
        let unserved = Duration::from_millis(term.record.delay_ms);
        let placed = inherited(node, &term);
        self.start_leaving(node, term.token, Some(term), why, Goal::Resign, placed, unserved);
    }

    /// An adopted term is withdrawn, then resigned.
    pub(crate) fn leave_adopted(&mut self, node: &mut Node, term: Term, why: EndReason) {
        let token = term.token;
        self.start_leaving(node, token, Some(term), why, Goal::Resign, true, Duration::ZERO);
    }

    /// An adopted term that is gone from the store: its effects are withdrawn.
    pub(crate) fn abandon(&mut self, node: &mut Node, token: Token) {
        let why = EndReason::Silent;
        self.start_leaving(node, token, None, why, Goal::Forget, true, Duration::ZERO);
    }

    #[expect(clippy::too_many_arguments, reason = "the one constructor of the state")]
    fn start_leaving(
        &mut self,
        node: &mut Node,
        token: Token,
        term: Option<Term>,
        why: EndReason,
        goal: Goal,
        placed: bool,
        unserved: Duration,
    ) {
        let op = self.send_withdraw(node);
        self.state = State::Leaving(Leaving {
            token,
            term,
            why,
            goal,
            stage: Stage::Withdrawing { op },
            placed,
            unserved,
            stopped: false,
            failures: 0,
            hurried: false,
        });
    }

    fn send_withdraw(&self, node: &mut Node) -> OpId {
        let op = node.begin(Purpose::Election(self.name.clone(), Step::Withdraw));
        node.act(Action::Withdraw { op, election: self.name.clone() });
        op
    }

    fn leaving(&mut self) -> Option<&mut Leaving> {
        match &mut self.state {
            State::Leaving(leaving) => Some(leaving),
            _ => None,
        }
    }

    /// Goes on with what is waiting for time or for the session.
    pub(crate) fn leave_on(&mut self, node: &mut Node) {
        let lost = node.session.is_lost();
        let now = node.now.fast;
        let name = self.name.clone();
        let Some(leaving) = self.leaving() else { return };
        if lost {
            leaving.goal = Goal::Forget;
            // From the deadline to the expiry is too short to wait for the next attempt: what
            // could not be withdrawn earlier is tried now, when it has to go.
            if let (Stage::Stuck { retry_at }, false) = (&mut leaving.stage, leaving.hurried) {
                *retry_at = now;
            }
            leaving.hurried = true;
        }
        match leaving.stage {
            Stage::Withdrawing { .. } => {}
            Stage::Stuck { retry_at } if now < retry_at => node.wake(&name, retry_at),
            Stage::Stuck { .. } => {
                let op = self.send_withdraw(node);
                if let Some(leaving) = self.leaving() {
                    leaving.stage = Stage::Withdrawing { op };
                }
            }
            // Withdrawn already, and the term went with the session.
            _ if lost => self.left(node, None),
            Stage::StopChecking { .. } | Stage::GivingUp { .. } => {}
            Stage::Asking { retry_at } if now < retry_at => node.wake(&name, retry_at),
            Stage::Asking { .. } => self.give_up(node),
        }
    }

    pub(crate) fn withdrawn(&mut self, node: &mut Node, op: OpId, result: Result<(), String>) {
        let election = self.name.clone();
        let has_stop_check = self.settings.stop_check;
        let again = if node.session.is_lost() { WITHDRAW_LOST_AGAIN } else { WITHDRAW_AGAIN };
        let retry_at = node.now.fast + again;
        let Some(leaving) = self.leaving() else { return };
        if leaving.stage != (Stage::Withdrawing { op }) {
            return;
        }
        let was_stuck = leaving.failures > 0;
        match result {
            Err(reason) => {
                leaving.failures += 1;
                leaving.stage = Stage::Stuck { retry_at };
                let token = leaving.token;
                node.notice(Notice::Stuck { election, token, reason });
            }
            Ok(()) => {
                if was_stuck {
                    node.notice(Notice::Unstuck { election: election.clone() });
                }
                leaving.failures = 0;
                let check = has_stop_check && leaving.placed && leaving.goal != Goal::Forget;
                if check && !node.session.is_lost() {
                    let op = node.begin(Purpose::Election(election.clone(), Step::StopCheck));
                    node.act(Action::StopCheck { op, election });
                    leaving.stage = Stage::StopChecking { op };
                } else {
                    self.give_up(node);
                }
            }
        }
    }

    pub(crate) fn stop_checked(&mut self, node: &mut Node, op: OpId, stopped: bool) {
        let Some(leaving) = self.leaving() else { return };
        if leaving.stage == (Stage::StopChecking { op }) {
            leaving.stopped = stopped;
            if !stopped {
                // It is no planned handover any more.
                leaving.goal = Goal::Resign;
            }
            self.give_up(node);
        }
    }

    /// Sends the request that ends the term. Reached only after the withdrawal was confirmed.
    fn give_up(&mut self, node: &mut Node) {
        if node.session.is_lost() {
            return self.left(node, None);
        }
        let takeover_delay = self.settings.takeover_delay;
        let trim = self.trim(node);
        let election = self.name.clone();
        let Some(leaving) = self.leaving() else { return };
        let (Some(term), false) = (leaving.term.clone(), leaving.goal == Goal::Forget) else {
            return self.left(node, None);
        };
        if matches!(&leaving.goal, Goal::HandOver(to) if node.replica.cordoned(&election, &to.node))
        {
            leaving.goal = Goal::Resign; // it was cordoned after it had accepted
        }
        let target = match &leaving.goal {
            Goal::HandOver(target) => Some(target.clone()),
            _ => None,
        };
        let ending = leaving.ending(&term, takeover_delay, trim, node.now.unix_ms);
        let (session, modified) = (term.session, term.modified);
        let request = match target {
            Some(target) => Request::HandOver {
                record: received(node, &election, &target, &ending, &term),
                election: election.clone(),
                node: node.me().clone(),
                session,
                modified,
                target,
                ending,
            },
            None => Request::Resign { election: election.clone(), session, modified, ending },
        };
        let op = node.send(Purpose::Election(election, Step::GiveUp), request);
        if let Some(leaving) = self.leaving() {
            leaving.stage = Stage::GivingUp { op };
        }
    }

    pub(crate) fn give_up_answered(&mut self, node: &mut Node, op: OpId, outcome: &Outcome) {
        let retry_at = node.now.fast + node.backoff(1);
        let Some(leaving) = self.leaving() else { return };
        if leaving.stage != (Stage::GivingUp { op }) {
            return;
        }
        let successor = match &leaving.goal {
            Goal::HandOver(target) => Some(target.node.clone()),
            _ => None,
        };
        // Whatever happened, from here on the term is only given up, never handed over: a
        // resignation compares the same key, so that only one of the two can be applied.
        leaving.goal = Goal::Resign;
        match outcome {
            Outcome::Applied { .. } => self.left(node, successor),
            Outcome::Unknown => leaving.stage = Stage::Asking { retry_at },
            Outcome::Rejected { .. } => self.give_up_rejected(node),
        }
    }

    /// The compared keys came with the rejection: is our key still there?
    fn give_up_rejected(&mut self, node: &mut Node) {
        let Some(leaving) = self.leaving() else { return };
        let Some(term) = leaving.term.clone() else { return };
        let own = self.own_key(node, term.session).filter(|(own, _)| own.token == term.token);
        match own {
            None => self.left(node, None),
            Some((own, _)) => {
                if let Some(Leaving { term: Some(term), .. }) = self.leaving() {
                    term.modified = own.modified;
                }
                self.give_up(node);
            }
        }
    }

    fn left(&mut self, node: &mut Node, successor: Option<NodeName>) {
        let Some(leaving) = self.leaving() else { return };
        let (token, why) = (leaving.token, leaving.why);
        self.state = State::Watching;
        self.vacant_since = None;
        self.failures = 0;
        self.not_before = node.now.fast;
        node.notice(Notice::TermEnded { election: self.name.clone(), token, successor, why });
        node.dirty.insert(self.name.clone());
    }
}

impl Leaving {
    /// The history entry: what is owed to the successor of this term.
    fn ending(&self, term: &Term, takeover_delay: Duration, trim: Vec<Token>, now: u64) -> Ending {
        let (clean, owed) = match (self.placed, self.stopped) {
            (true, false) => (false, takeover_delay.max(self.unserved)),
            _ => (self.unserved.is_zero(), self.unserved),
        };
        Ending {
            token: term.token,
            record: HistoryRecord {
                holder: term.record.holder.clone(),
                successor: match &self.goal {
                    Goal::HandOver(target) => Some(target.node.clone()),
                    _ => None,
                },
                from_unix_ms: term.record.since_unix_ms,
                to_unix_ms: now,
                why: self.why,
                clean,
                delay_ms: millis(owed),
                facts: term.record.facts.clone(),
            },
            trim,
        }
    }
}

/// Whether an earlier daemon may have placed for a term that is found on the session: one that
/// this daemon has adopted from it.
pub(crate) fn inherited(node: &Node, term: &Term) -> bool {
    let adopted = node.settings.past.adopt.as_ref().map(|adoption| adoption.session);
    adopted == Some(term.session)
}

/// The leader key's value that the target of a handover receives.
fn received(
    node: &Node,
    election: &crate::ids::ElectionName,
    target: &Target,
    ending: &Ending,
    term: &Term,
) -> LeaderRecord {
    let facts = node.replica.candidacy(election, &target.node).map(|(_, c)| c.facts.clone());
    LeaderRecord {
        holder: target.node.clone(),
        session: target.session,
        facts: facts.unwrap_or_default(),
        since_unix_ms: node.now.unix_ms,
        delay_ms: ending.record.delay_ms,
        why: format!("handed over by {}", term.record.holder),
        offer: None,
    }
}

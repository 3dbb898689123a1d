//! Getting a term: noticing a vacancy, waiting for one's turn, taking, and making certain.
//!
//! A term is acted for only after its leader key was read back: lowest create revision under the
//! prefix, on the current session (S3). Until then nothing is placed.

use std::time::Duration;

use crate::action::{Action, Exit, Notice};
use crate::election::{Advice, Confirming, Election, State, Term};
use crate::ids::{NodeName, OpId, Revision, SessionId, Token};
use crate::leave::inherited;
use crate::node::{Node, Purpose, Step};
use crate::record::{EndReason, HistoryRecord, LeaderRecord};
use crate::request::{Ending, Evidence, Outcome, Request};
use crate::tenure::Holding;

/// An election without a holder that stands.
#[derive(Clone, Debug)]
enum Vacancy {
    /// No key under the leader prefix.
    Empty,
    /// A holder that fell silent, or whose session ended.
    Dead { token: Token, term: LeaderRecord, evidence: Evidence, foreign_behind: bool },
}

impl Election {
    /// Follows the holder, or campaigns when there is none.
    pub(crate) fn watch(&mut self, node: &mut Node) {
        let Some(session) = node.session.proven(node.now) else {
            self.vacant_since = None;
            return;
        };
        if !node.replica.listed {
            return;
        }
        if let Some((term, _)) = self.own_key(node, session) {
            return self.found_own_key(node, term);
        }
        let Some(vacancy) = self.vacancy(node) else {
            self.vacant_since = None;
            self.failures = 0;
            // A fallback in force blocks voluntary changes everywhere, that of a node that may not
            // lead now as well: is it still needed?
            if self.fallback && self.configured && node.stopping.is_none() {
                self.consult(node, Duration::ZERO);
            }
            return;
        };
        let since = *self.vacant_since.get_or_insert(node.now.fast);
        if !self.eligible(node) || self.candidacy(node).is_none() {
            return;
        }
        if node.now.fast < self.not_before {
            return node.wake(&self.name, self.not_before);
        }
        let Advice::Order(order) = self.consult(node, Duration::ZERO) else { return };
        if !self.is_current(node) {
            return; // the candidacy says first that a fallback is in force, or no longer
        }
        let Some(rank) = order.iter().position(|name| name == node.me()) else { return };
        let timings = &node.settings.timings;
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let turn = since + timings.stagger.saturating_mul(rank).min(timings.stagger_cap);
        if node.now.fast < turn {
            return node.wake(&self.name, turn);
        }
        self.campaign(node, session, vacancy);
    }

    fn vacancy(&self, node: &Node) -> Option<Vacancy> {
        let leaders = node.replica.leaders(&self.name);
        let Some(first) = leaders.first() else { return Some(Vacancy::Empty) };
        let term = first.term?;
        if node.stands(&term.holder, term.session) {
            return None;
        }
        let record = node.replica.session_key(&term.holder);
        let evidence = match record.filter(|stored| stored.create.0 == term.session.0) {
            None => Evidence::Ended,
            Some(_) if term.holder == *node.me() => return None,
            Some(_) => Evidence::Silent(node.replica.heard(&term.holder)?.modified),
        };
        Some(Vacancy::Dead {
            token: first.token,
            term: term.clone(),
            evidence,
            foreign_behind: leaders.iter().skip(1).any(|leader| leader.term.is_none()),
        })
    }

    /// A leader key stands on our session: received by handover, taken by a transaction whose
    /// outcome was unknown, or left by an earlier daemon.
    fn found_own_key(&mut self, node: &mut Node, term: Term) {
        if !self.may_hold(node) {
            return self.leave_found(node, term, EndReason::Unsettled);
        }
        // Expected only as the outcome of the offer that we accepted: then the term before this
        // one, which history names, is the one that was offered.
        let ended = node.replica.previous(&self.name).map(|(token, _)| token);
        let expected = ended.is_some() && ended == self.accepted_term();
        self.state = State::Confirming(Confirming {
            token: term.token,
            adopted: false,
            inherited: !expected && inherited(node, &term),
            rewrite: !expected,
            op: None,
            began: node.now.fast,
        });
        self.confirm(node);
    }

    fn campaign(&mut self, node: &mut Node, session: SessionId, vacancy: Vacancy) {
        let Some(candidacy) = self.candidacy(node) else { return };
        let me = node.me().clone();
        let election = self.name.clone();
        let request = match vacancy {
            Vacancy::Empty => {
                let previous = node.replica.previous(&election);
                let owed = previous.map_or(0, |(_, p)| if p.clean { 0 } else { p.delay_ms });
                Request::Take {
                    history: node.replica.history_revision(&election),
                    record: self.leader_record(node, session, owed, "took a vacant election"),
                    election,
                    node: me,
                    candidacy,
                }
            }
            Vacancy::Dead { token, term, evidence, foreign_behind } => {
                let owed = millis(self.settings.takeover_delay).max(term.delay_ms);
                let why = format!("took over from {}", term.holder);
                // Nobody can say when it ended; this is when it was last heard of.
                let heard = node.replica.heard_at(&term.holder, term.session);
                let silent = heard.map_or(0, |at| node.now.fast.since(at).as_millis() as u64);
                let record =
                    (!foreign_behind).then(|| self.leader_record(node, session, owed, &why));
                let ending = Ending {
                    token,
                    record: HistoryRecord {
                        holder: term.holder.clone(),
                        successor: record.as_ref().map(|_| me.clone()),
                        from_unix_ms: term.since_unix_ms,
                        to_unix_ms: node.now.unix_ms.saturating_sub(silent),
                        why: EndReason::Silent,
                        clean: false,
                        delay_ms: owed,
                        facts: term.facts,
                    },
                    trim: self.trim(node),
                };
                Request::TakeOver {
                    election,
                    node: me,
                    session,
                    candidacy,
                    holder: term.holder,
                    holder_session: term.session,
                    evidence,
                    ending,
                    record,
                }
            }
        };
        let purpose = Purpose::Election(self.name.clone(), Step::Take);
        let op = node.send(purpose, request);
        self.state = State::Taking { op };
    }

    pub(crate) fn leader_record(
        &self,
        node: &Node,
        session: SessionId,
        delay_ms: u64,
        why: &str,
    ) -> LeaderRecord {
        LeaderRecord {
            holder: node.me().clone(),
            session,
            facts: self.facts(),
            since_unix_ms: node.now.unix_ms,
            delay_ms,
            why: why.to_owned(),
            offer: None,
        }
    }

    pub(crate) fn trim(&self, node: &Node) -> Vec<Token> {
        node.replica.history_surplus(&self.name, node.settings.timings.history)
    }

    pub(crate) fn take_answered(&mut self, node: &mut Node, op: OpId, outcome: &Outcome) {
        if self.state != (State::Taking { op }) {
            return;
        }
        self.state = State::Watching;
        let own = node.session.valid(node.now).and_then(|session| self.own_key(node, session));
        match (outcome, own) {
            (Outcome::Applied { .. }, Some((term, _))) => {
                self.failures = 0;
                self.state = State::Confirming(Confirming {
                    token: term.token,
                    adopted: false,
                    inherited: false,
                    rewrite: false,
                    op: None,
                    began: node.now.fast,
                });
            }
            (Outcome::Applied { .. }, None) => {}
            // What the store returned is known now, and one more try is worth it at once: where
            // several elections of a silent holder are taken, the first ends its session.
            (Outcome::Rejected { .. }, _) if self.failures == 0 => self.failures = 1,
            (Outcome::Rejected { .. } | Outcome::Unknown, _) => {
                // A vacancy that still stands is tried again, a little later each time.
                self.not_before = node.now.fast + node.backoff(self.failures);
                self.failures += 1;
            }
        }
    }

    /// Makes certain of a leader key: rewrite it where earlier writes could be under way, then
    /// read it back.
    pub(crate) fn confirm(&mut self, node: &mut Node) {
        let State::Confirming(confirming) = &self.state else { return };
        if confirming.op.is_some() || !node.replica.listed {
            return;
        }
        if node.session.proven(node.now).is_none() {
            return; // looked at again when the first beat is confirmed
        }
        if node.now.fast < self.not_before {
            return node.wake(&self.name, self.not_before);
        }
        let (token, adopted, rewrite) = (confirming.token, confirming.adopted, confirming.rewrite);
        let Some(session) = node.session.id() else { return };
        let own = self.own_key(node, session).filter(|(term, _)| term.token == token);
        let Some((term, _)) = own else {
            if adopted {
                return self.abandon(node, token);
            }
            self.state = State::Watching;
            node.dirty.insert(self.name.clone());
            return;
        };
        if !self.configured {
            return self.leave_adopted(node, term, EndReason::Unconfigured);
        }
        let election = self.name.clone();
        let (step, request) = if rewrite {
            let (modified, mut record) = (term.modified, term.record);
            record.offer = None;
            let me = node.me().clone();
            let rewrite = Request::RewriteLeader { election, node: me, session, modified, record };
            (Step::Rewrite, rewrite)
        } else {
            if !adopted {
                node.act(Action::Prepare { election: election.clone(), token: Some(token) });
            }
            (Step::ReadBack, Request::ReadLeader { election })
        };
        let op = node.send(Purpose::Election(self.name.clone(), step), request);
        if let State::Confirming(confirming) = &mut self.state {
            confirming.op = Some(op);
        }
    }

    /// A rewrite or a reading of a key that is being made certain of was answered.
    pub(crate) fn confirm_answered(
        &mut self,
        node: &mut Node,
        op: OpId,
        step: Step,
        outcome: &Outcome,
    ) {
        let State::Confirming(confirming) = &mut self.state else { return };
        if confirming.op != Some(op) {
            return;
        }
        confirming.op = None;
        match outcome {
            Outcome::Applied { .. } if step == Step::Rewrite => confirming.rewrite = false,
            Outcome::Applied { .. } => self.read_back(node),
            // What was compared came with the rejection: the key is gone, or was moved on by
            // another write of ours, or the session ended.
            Outcome::Rejected { .. } | Outcome::Unknown => {
                self.not_before = node.now.fast + node.backoff(self.failures);
                self.failures += 1;
            }
        }
    }

    fn read_back(&mut self, node: &mut Node) {
        let State::Confirming(confirming) = &self.state else { return };
        let (token, adopted, began) = (confirming.token, confirming.adopted, confirming.began);
        let inherited = confirming.inherited;
        let Some(session) = node.session.valid(node.now) else { return };
        let own = self.own_key(node, session).filter(|(term, _)| term.token == token);
        let Some((term, lowest)) = own else { return };
        self.failures = 0;
        if token < self.highest {
            // Tokens only grow: this store has forgotten a term that we saw.
            let (known, seen) = (Revision(self.highest.0), Revision(token.0));
            node.fatal = Some(Exit::StoreWentBack { known, seen });
            // Everything is withdrawn, and nothing is written to such a store.
            return node.lose_session(false);
        }
        if !lowest {
            let why = EndReason::Competitor;
            return match (adopted, inherited) {
                (true, _) => self.leave_adopted(node, term, why),
                (false, true) => self.leave_found(node, term, why),
                (false, false) => self.leave_unplaced(node, term, why),
            };
        }
        self.highest = token;
        self.vacant_since = None;
        let delay =
            if adopted { Duration::ZERO } else { Duration::from_millis(term.record.delay_ms) };
        let from = node.replica.previous(&self.name).map(|(_, previous)| previous.holder.clone());
        self.announce(node, &term, delay, from, adopted);
        if adopted {
            node.act(Action::Lead { election: self.name.clone(), token, adopted });
        }
        let mut holding = Holding::new(term, began, delay, adopted);
        holding.inherited = inherited;
        self.state = State::Holding(holding);
        self.hold(node);
    }

    fn announce(
        &self,
        node: &mut Node,
        term: &Term,
        delay: Duration,
        from: Option<NodeName>,
        adopted: bool,
    ) {
        let ended = node.replica.previous(&self.name).map(|(_, previous)| previous.to_unix_ms);
        let gap = |ended| Duration::from_millis(term.record.since_unix_ms.saturating_sub(ended));
        node.notice(Notice::TermBegan {
            election: self.name.clone(),
            token: term.token,
            delay,
            from,
            gap: ended.filter(|_| !adopted).map(gap),
            why: term.record.why.clone(),
        });
    }
}

/// Whole milliseconds, rounded up: an owed delay is never cut short.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

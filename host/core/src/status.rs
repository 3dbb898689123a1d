//! What a node says of itself: the snapshot behind status, checks and metrics.
//!
//! S8: only the node itself can say "leading", and only while its own deadline has not passed.

use std::time::Duration;

use crate::election::{Election, State};
use crate::ids::{ElectionName, NodeName, Revision, SessionId, Token};
use crate::machine::Core;
use crate::record::Fitness;
use crate::time::Now;

/// A node's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The session, while terms on it are valid.
    pub session: Option<SessionId>,
    /// How long terms on the session stay valid without a further confirmed beat.
    pub valid_for: Duration,
    /// The highest revision seen.
    pub revision: Revision,
    /// The elections by name.
    pub elections: Vec<ElectionStatus>,
}

/// One election, as seen from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionStatus {
    /// Which.
    pub election: ElectionName,
    /// What this node does in it.
    pub phase: Phase,
    /// The term of this node, if it has one.
    pub token: Option<Token>,
    /// The holder in store.
    pub holder: Option<(NodeName, Token)>,
    /// Whether this node can run the manifests; `None` before that is known.
    pub fitness: Option<Fitness>,
}

/// What a node does in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// It has no part in it now: no session, or not a candidate.
    Spectating,
    /// It is a candidate.
    Standby,
    /// It is taking the term, or making certain of it.
    Campaigning,
    /// It holds the term and waits out the takeover delay.
    Waiting,
    /// It leads.
    Leading,
    /// It is giving the term up.
    Withdrawing,
    /// It cannot withdraw, and keeps the term so that nobody else leads.
    Stuck,
}

impl Core {
    /// What this node does now.
    pub fn status(&self, now: Now) -> NodeStatus {
        let valid_for = match &self.node.session {
            crate::session::Session::Standing(s) if !s.lost => {
                s.deadline.map_or(Duration::ZERO, |deadline| deadline.since(now.fast))
            }
            _ => Duration::ZERO,
        };
        NodeStatus {
            session: self.node.session.valid(now),
            valid_for,
            revision: self.node.replica.highest,
            elections: self.elections.values().map(|e| self.election_status(e, now)).collect(),
        }
    }

    /// The token of the term by which this node leads an election now, within its deadline.
    pub fn leading(&self, election: &ElectionName, now: Now) -> Option<Token> {
        self.node.session.valid(now)?;
        match &self.elections.get(election)?.state {
            State::Holding(holding) if holding.placed() => Some(holding.term.token),
            _ => None,
        }
    }

    /// The session, while terms on it are valid.
    pub fn session(&self, now: Now) -> Option<SessionId> {
        self.node.session.valid(now)
    }

    /// What this node does in one election now.
    pub fn status_of(&self, election: &ElectionName, now: Now) -> Option<ElectionStatus> {
        Some(self.election_status(self.elections.get(election)?, now))
    }

    /// What this node does in an election now, and the term it has in it.
    pub fn phase(&self, election: &ElectionName, now: Now) -> Option<(Phase, Option<Token>)> {
        Some(self.phase_of(self.elections.get(election)?, now))
    }

    /// What a policy on this node sees of an election now, for placing manifests.
    pub fn view(&self, election: &ElectionName) -> crate::view::View {
        self.node.view(election, 0)
    }

    fn election_status(&self, election: &Election, now: Now) -> ElectionStatus {
        let leaders = self.node.replica.leaders(&election.name);
        let holder = leaders.first().and_then(|l| l.term.map(|t| (t.holder.clone(), l.token)));
        let (phase, token) = self.phase_of(election, now);
        ElectionStatus {
            election: election.name.clone(),
            phase,
            token,
            holder,
            fitness: election.fitness().cloned(),
        }
    }

    fn phase_of(&self, election: &Election, now: Now) -> (Phase, Option<Token>) {
        let valid = self.node.session.valid(now).is_some();
        match &election.state {
            State::Watching if valid && election.candidacy(&self.node).is_some() => {
                (Phase::Standby, None)
            }
            State::Watching => (Phase::Spectating, None),
            State::Taking { .. } => (Phase::Campaigning, None),
            State::Confirming(confirming) => (Phase::Campaigning, Some(confirming.token)),
            State::Holding(holding) => {
                let phase = match (valid, holding.placed()) {
                    (false, _) => Phase::Withdrawing,
                    (true, true) => Phase::Leading,
                    (true, false) => Phase::Waiting,
                };
                (phase, Some(holding.term.token))
            }
            State::Leaving(leaving) if leaving.is_stuck() => (Phase::Stuck, Some(leaving.token())),
            State::Leaving(leaving) => (Phase::Withdrawing, Some(leaving.token())),
        }
    }
}

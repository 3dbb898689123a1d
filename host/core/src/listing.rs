//! What a reader of the store can say of a cluster: for `status` and other commands.
//!
//! A reader times nobody, so it cannot tell a silent session from a live one: it says "holder in
//! store", never "leading" (S8).

use std::collections::BTreeSet;

use crate::ids::{ElectionName, NodeName, Revision, SessionId, Token};
use crate::record::{CandidacyRecord, LeaderRecord, SessionRecord};
use crate::replica::{Replica, Source};
use crate::request::{Entry, Key};
use crate::time::Time;
use crate::view::View;

/// One complete reading of a cluster.
#[derive(Clone, Debug)]
pub struct Listing {
    replica: Replica,
    elections: BTreeSet<ElectionName>,
    nodes: BTreeSet<NodeName>,
}

/// Who holds an election in store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its fencing token.
    pub token: Token,
    /// The term; `None` for a foreign key.
    pub term: Option<LeaderRecord>,
    /// The last part of the leader key.
    pub suffix: String,
    /// Whether the session that it stands on has a record.
    pub session_stands: bool,
}

impl Listing {
    /// Takes in what a [`Request::List`](crate::Request::List) read.
    pub fn new(at: Revision, entries: Vec<Entry>) -> Self {
        let mut listing = Listing {
            replica: Replica::default(),
            elections: BTreeSet::new(),
            nodes: BTreeSet::new(),
        };
        for entry in entries {
            match &entry.key {
                Key::Session(node) => {
                    listing.nodes.insert(node.clone());
                }
                Key::Candidacy(election, _)
                | Key::Leader(election, _)
                | Key::Pause(election)
                | Key::Transfer(election)
                | Key::Cordon(election, _)
                | Key::History(election, _) => {
                    listing.elections.insert(election.clone());
                }
            }
            listing.replica.learn(entry, Source::Read, Time::ZERO);
        }
        listing.replica.listed = true;
        listing.replica.watched = at;
        listing
    }

    /// The elections that the store knows of.
    pub fn elections(&self) -> impl Iterator<Item = &ElectionName> {
        self.elections.iter()
    }

    /// The nodes that have a session record.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, Option<&SessionRecord>)> {
        self.nodes.iter().map(|node| (node, self.replica.session(node).map(|(_, record)| record)))
    }

    /// Who holds an election.
    pub fn holder(&self, election: &ElectionName) -> Option<Holder> {
        let leader = self.replica.leaders(election).into_iter().next()?;
        let stands = |term: &LeaderRecord| self.has_session(&term.holder, term.session);
        Some(Holder {
            token: leader.token,
            suffix: leader.suffix.to_owned(),
            session_stands: leader.term.is_none_or(stands),
            term: leader.term.cloned(),
        })
    }

    /// An election's candidacies whose session has a record.
    pub fn candidacies(
        &self,
        election: &ElectionName,
    ) -> impl Iterator<Item = (&NodeName, &CandidacyRecord)> {
        self.replica
            .candidacies(election)
            .filter(|(node, _, record)| self.has_session(node, record.session))
            .map(|(node, _, record)| (node, record))
    }

    /// What a policy on node `me` would see of an election if every session with a record stands;
    /// how long the term has stood is for the caller to say.
    pub fn view(&self, election: &ElectionName, me: &NodeName, held_ms: u64) -> View {
        let stands = |node: &NodeName, session| self.has_session(node, session);
        self.replica.view(election, me, held_ms, &stands)
    }

    fn has_session(&self, node: &NodeName, session: SessionId) -> bool {
        self.replica.session_key(node).is_some_and(|stored| stored.create.0 == session.0)
    }
}

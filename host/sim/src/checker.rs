//! The judge: what must hold, as seen from outside the cores.
//!
//! It knows the machines' disks and the store, and nothing of a core's state.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::request::leader_suffix;
use conclave_core::{ElectionName, Key, NodeName, Request, Token};

use crate::world::{Micros, World, micros};

/// What the judge remembers.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// The newest token that anybody acted for.
    newest: BTreeMap<ElectionName, Token>,
    /// The terms that anything was ever placed for.
    placed: BTreeSet<(ElectionName, Token)>,
    /// Whose stop check confirmed, since it placed last, that what it ran has stopped.
    stopped: BTreeSet<(ElectionName, NodeName)>,
    /// Until when nobody may place, after an unclean end.
    owed: BTreeMap<ElectionName, Micros>,
}

impl World {
    /// Nobody else has the effect; the term's key is the lowest; tokens only grow; a takeover
    /// delay has been waited out.
    pub(crate) fn check_placing(&mut self, n: usize, election: &ElectionName, token: Token) {
        let (seed, now, name) = (self.settings.seed, self.now, self.nodes[n].name.clone());
        let with = format!("seed {seed} at {now} µs: {name} places {election} for {token}");
        let others: Vec<&NodeName> = self
            .nodes
            .iter()
            .filter(|node| node.name != name)
            .filter(|node| node.effects.get(election).is_some_and(|effect| !effect.excused))
            .map(|node| &node.name)
            .collect();
        assert!(others.is_empty(), "{with}: S1, {others:?} has it");
        let lowest = self.lowest(election).map(|(_, lowest)| lowest);
        assert_eq!(lowest, Some(token), "{with}: S3, its key is not the lowest");
        let newest = self.checker.newest.entry(election.clone()).or_default();
        assert!(*newest <= token, "{with}: S3, {newest} was acted for");
        *newest = token;
        // Clocks are off by a thousandth at most, and so is a delay waited out by them.
        let owed = self.checker.owed.get(election).copied().unwrap_or(0);
        assert!(owed <= now + now.saturating_sub(owed) / 100 + 5_000, "{with}: owes until {owed}");
        self.checker.placed.insert((election.clone(), token));
        self.checker.stopped.remove(&(election.clone(), name));
    }

    pub(crate) fn confirm_stopped(&mut self, n: usize, election: &ElectionName) {
        self.checker.stopped.insert((election.clone(), self.nodes[n].name.clone()));
    }

    /// Every effect belongs to a term that stands: its session's record is there, its key is,
    /// and it is the lowest. Whoever ends a term or a session finds everything withdrawn, and
    /// nobody of ours has anything while a competitor holds the election.
    pub(crate) fn check_effects(&self) {
        for node in &self.nodes {
            let effects = node.effects.iter().filter(|(_, effect)| !effect.excused);
            for (election, effect) in effects {
                let with = || {
                    let (seed, now, name) = (self.settings.seed, self.now, &node.name);
                    format!("seed {seed} at {now} µs: {name} has {election} for {}", effect.token)
                };
                let session = self.store.get(&Key::Session(node.name.clone()));
                let stands = session.is_some_and(|stored| stored.create.0 == effect.session.0);
                assert!(stands, "{}: S1, its session was ended", with());
                let (lowest, create) = self.lowest(election).unwrap_or_default();
                let ours = lowest == leader_suffix(effect.session) && create == effect.token;
                assert!(ours, "{}: S2, but {lowest} holds it since {create}", with());
            }
        }
    }

    /// Keeps account of what a successor has to wait out.
    pub(crate) fn account(&mut self, request: &Request) {
        match request {
            Request::TakeOver { election, .. } => self.owe(election),
            Request::HandOver { election, ending, .. }
            | Request::Resign { election, ending, .. } => {
                let holder = ending.record.holder.clone();
                let placed = self.checker.placed.contains(&(election.clone(), ending.token));
                if placed && !self.checker.stopped.contains(&(election.clone(), holder)) {
                    self.owe(election);
                }
            }
            Request::Batch(requests) => requests.iter().for_each(|request| self.account(request)),
            _ => {}
        }
    }

    fn owe(&mut self, election: &ElectionName) {
        let delay = self.settings.elections.get(election).map(|e| e.takeover_delay);
        let until = self.now + micros(delay.unwrap_or_default());
        self.checker.owed.insert(election.clone(), until);
    }

    /// The last part of the leader key that was created first, and its create revision.
    fn lowest(&self, election: &ElectionName) -> Option<(String, Token)> {
        let leaders = self.store.leaders(election);
        leaders
            .map(|(suffix, stored)| (suffix.to_owned(), Token(stored.create.0)))
            .min_by_key(|(_, token)| *token)
    }
}

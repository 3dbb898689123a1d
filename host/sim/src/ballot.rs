//! The judge of who may take part (S4): no unfit or cordoned node becomes the holder, whatever a
//! policy answers.
//!
//! Judged is what a node had been told when it sent its request, and what the store says when the
//! request is applied; what is still under way to it cannot be held against it.

use conclave_core::{Entry, Key, Request};

use crate::checker::violated;
use crate::clock::Micros;
use crate::names;

/// What is known of one node in one election.
#[derive(Clone, Debug, Default)]
struct Seat {
    /// Its candidacy in store: the session, and whether it is fit.
    candidacy: (u64, bool),
    /// Whether its daemon was last told that it is unfit.
    told_unfit: bool,
    /// The nodes of whose cordons its daemon was told, and the revision of that news.
    cordons: Vec<(bool, u64)>,
}

/// What is known of all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ballot {
    /// The seed, for the words of a violation.
    seed: u64,
    /// By election, then by node.
    seats: Vec<Vec<Seat>>,
    /// Whether the store's keys are being taken in, not its changes.
    reading: bool,
    /// By node, the readings of everything that are under way.
    lists: Vec<Vec<u64>>,
}

impl Ballot {
    pub(crate) fn new(nodes: usize, elections: usize) -> Self {
        let seat = Seat { cordons: vec![(false, 0); nodes], ..Seat::default() };
        let seats = vec![vec![seat; nodes]; elections];
        Ballot { seed: 0, seats, reading: false, lists: vec![Vec::new(); nodes] }
    }

    /// A candidacy is written.
    pub(crate) fn stands(&mut self, e: usize, n: usize, session: u64, fit: bool) {
        self.seats[e][n].candidacy = (session, fit);
    }

    /// A leader key is written for a node.
    pub(crate) fn elected(&mut self, seed: u64, now: Micros, e: usize, n: usize, session: u64) {
        self.seed = seed;
        if !self.reading && self.seats[e][n].candidacy != (session, true) {
            violated!(
                self,
                now,
                "S4: n{n} on {session} receives e{e}, its candidacy is {:?}",
                self.seats[e][n].candidacy
            );
        }
    }

    /// The store is restored: what is read now was all written earlier.
    pub(crate) fn restored(&mut self) {
        self.reading = true;
        for seat in self.seats.iter_mut().flatten() {
            seat.cordons.iter_mut().for_each(|cordon| *cordon = (false, 0));
        }
    }

    pub(crate) fn opened(&mut self) {
        self.reading = false;
    }

    /// A daemon is told whether its node is fit.
    pub(crate) fn told_fitness(&mut self, e: usize, n: usize, fit: bool) {
        self.seats[e][n].told_unfit = !fit;
    }

    /// A daemon is told about a key.
    pub(crate) fn told(&mut self, n: usize, entry: &Entry) {
        let Key::Cordon(election, node) = &entry.key else { return };
        let Some(of) = names::index(node.as_str()) else { return };
        let known = &mut self.seats[names::position(election.as_str())][n].cordons[of];
        if known.1 < entry.at.0 {
            *known = (entry.stored.is_some(), entry.at.0);
        }
    }

    /// A daemon asks for all keys.
    pub(crate) fn lists(&mut self, n: usize, op: u64) {
        self.lists[n].push(op);
    }

    /// A daemon no longer waits for an answer.
    pub(crate) fn gave_up(&mut self, n: usize, op: u64) {
        self.lists[n].retain(|known| *known != op);
    }

    /// A daemon is told of keys by an answer: if it asked for all, there are no others.
    pub(crate) fn answered(&mut self, n: usize, op: u64, at: u64, seen: &[Entry]) {
        if let Some(index) = self.lists[n].iter().position(|known| *known == op) {
            self.lists[n].swap_remove(index);
            for seats in &mut self.seats {
                let older = seats[n].cordons.iter_mut().filter(|known| known.1 < at);
                older.for_each(|known| *known = (false, at.saturating_sub(1)));
            }
        }
        seen.iter().for_each(|entry| self.told(n, entry));
    }

    /// Another daemon runs on the node: it knows nothing yet.
    pub(crate) fn forgot(&mut self, n: usize) {
        self.lists[n].clear();
        for seats in &mut self.seats {
            seats[n].told_unfit = false;
            seats[n].cordons.iter_mut().for_each(|cordon| *cordon = (false, 0));
        }
    }

    /// A daemon asks for a term, or gives one to another.
    pub(crate) fn asks(&self, seed: u64, now: Micros, n: usize, request: &Request) {
        let (election, to) = match request {
            Request::Take { election, .. } => (election, n),
            Request::TakeOver { election, record: Some(_), .. } => (election, n),
            Request::HandOver { election, target, .. } => {
                (election, names::position(target.node.as_str()))
            }
            Request::Batch(requests) => {
                return requests.iter().for_each(|request| self.asks(seed, now, n, request));
            }
            _ => return,
        };
        let seat = &self.seats[names::position(election.as_str())][n];
        if to == n && seat.told_unfit {
            panic!("seed {seed} at {now} µs: S4: n{n} is unfit and asks for {election}");
        }
        if seat.cordons[to].0 {
            panic!(
                "seed {seed} at {now} µs: S4: n{to} is cordoned, n{n} asks that it lead {election}"
            );
        }
    }
}

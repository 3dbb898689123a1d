//! The state machine's outside: creation, events in, actions out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::action::{Action, Exit, Notice};
use crate::election::{Election, State};
use crate::event::Event;
use crate::ids::{Count, ElectionName, NodeName, OpId, Revision, SessionId};
use crate::node::{Node, Op, Purpose, Step};
use crate::replica::Source;
use crate::request::{Entry, Key, Outcome, Request, Value};
use crate::session::{Effects, Session};
use crate::settings::Settings;
use crate::time::Now;
use crate::timers::Timer;

/// The election core of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) node: Node,
    pub(crate) elections: BTreeMap<ElectionName, Election>,
    /// The elections that keep the session from being ended.
    busy: BTreeSet<ElectionName>,
    /// The elections whose effects cannot be withdrawn.
    stuck: BTreeSet<ElectionName>,
    stray_replies: Count,
    exited: bool,
    looked_at: LookedAt,
}

/// The elections that the newest call looked at. It is about that call and decides nothing, so
/// cores that differ in it are the same.
#[derive(Clone, Debug, Default)]
struct LookedAt(Vec<ElectionName>);

impl PartialEq for LookedAt {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LookedAt {}

impl Hash for LookedAt {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Core {
    /// A core for these settings, and what it wants done first.
    pub fn new(mut settings: Settings, now: Now) -> (Self, Vec<Action>) {
        if let Some(adoption) = &settings.past.adopt {
            settings.nonce = adoption.nonce.clone();
        }
        let past = settings.past.clone();
        let adopted = past.adopt.as_ref().map(|a| a.terms.clone()).unwrap_or_default();
        let mut elections = BTreeMap::new();
        let names = settings.elections.keys().chain(adopted.keys()).cloned();
        for name in names.collect::<BTreeSet<_>>() {
            let election = Election::new(
                name.clone(),
                settings.elections.get(&name).cloned(),
                past.tokens.get(&name).copied().unwrap_or_default(),
                adopted.get(&name).copied(),
                now.fast,
            );
            elections.insert(name, election);
        }
        let busy = elections.iter().filter(|(_, e)| !e.is_clear()).map(|(n, _)| n.clone());
        let mut core = Core {
            node: Node::new(settings, now),
            busy: busy.collect(),
            stuck: BTreeSet::new(),
            elections,
            stray_replies: Count(0),
            exited: false,
            looked_at: LookedAt::default(),
        };
        if past.adopt.is_some() {
            core.node.watch_deadline();
            core.node.beat();
        }
        core.list();
        core.node.dirty.extend(core.elections.keys().cloned());
        core.node.check_deadline();
        core.settle();
        core.node.send_batches();
        let actions = std::mem::take(&mut core.node.actions);
        (core, actions)
    }

    /// Takes in one event at one time, and says what is to be done. This and
    /// [`Core::handle_all`] are the only mutation.
    ///
    /// `now` must never go back. Every action with an operation id is to be answered once.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.handle_all(now, [event])
    }

    /// Takes in, in their order, several events that wait at one time. What they make many
    /// elections want then shares transactions.
    pub fn handle_all(&mut self, now: Now, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        self.node.now = now;
        self.looked_at.0.clear();
        self.node.check_deadline();
        for event in events {
            self.take_in(event);
        }
        self.fire_timers();
        self.settle();
        self.node.send_batches();
        std::mem::take(&mut self.node.actions)
    }

    /// How long after `now` the core wants to be called with [`Event::Tick`].
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let fast = self.node.timers.next().map(|at| at.since(now.fast));
        let slow = self.node.slow_timers.next().map(|at| at.since(now.slow));
        [fast, slow].into_iter().flatten().min()
    }

    /// The elections that the newest call looked at, some perhaps more than once: what status says
    /// of any other is as it was before.
    pub fn looked_at(&self) -> &[ElectionName] {
        &self.looked_at.0
    }

    /// How many replies came that answered nothing.
    pub fn stray_replies(&self) -> u64 {
        self.stray_replies.0
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Reply { op, outcome } => self.reply(op, outcome),
            Event::Watched { at, entries } => self.watched(at, entries),
            Event::WatchBroken => self.rewatch(),
            Event::Ranked { op, result } => {
                if let Some(name) = self.finish_step(op, Step::Rank) {
                    self.with(&name, |election, _| election.ranked(op, result));
                }
            }
            Event::Withdrawn { op, result } => {
                if let Some(name) = self.finish_step(op, Step::Withdraw) {
                    self.with(&name, |election, node| election.withdrawn(node, op, result));
                }
            }
            Event::StopChecked { op, stopped } => {
                if let Some(name) = self.finish_step(op, Step::StopCheck) {
                    self.with(&name, |election, node| election.stop_checked(node, op, stopped));
                }
            }
            Event::Fitness { election, fitness } => {
                self.with(&election, |election, _| election.set_fitness(fitness));
            }
            Event::Described { election, facts, policy } => {
                self.with(&election, |election, _| election.set_description(facts, policy));
            }
            Event::GuardExpired => self.node.lose_session(true),
            Event::Stop => self.stop(),
        }
    }

    fn watched(&mut self, at: Revision, entries: Vec<Entry>) {
        self.learn(entries, Source::Watch);
        let node = &mut self.node;
        node.replica.watched = node.replica.watched.max(at);
        node.replica.highest = node.replica.highest.max(at);
        if node.replica.has_absences() {
            let floor = node.ops.values().filter_map(|op| op.floor).min();
            node.replica.forget_absences(floor);
        }
        if node.watch_due <= node.replica.watched {
            node.timers.clear(&Timer::WatchLag);
            node.watch_due = Revision(0);
        }
    }

    fn stop(&mut self) {
        if self.node.stopping.is_none() {
            let now = self.node.now.fast;
            self.node.stopping = Some(now);
            self.node.timers.set(Timer::Stop, now + self.node.settings.timings.ttl);
            self.node.dirty.extend(self.elections.keys().cloned());
        }
    }

    /// Runs something on an election and has it looked at afterwards.
    fn with(&mut self, name: &ElectionName, run: impl FnOnce(&mut Election, &mut Node)) {
        if let Some(election) = self.elections.get_mut(name) {
            run(election, &mut self.node);
            self.node.dirty.insert(name.clone());
            self.count(name);
        }
    }

    fn finish_step(&mut self, op: OpId, step: Step) -> Option<ElectionName> {
        match self.node.ops.remove(&op)?.purpose {
            Purpose::Election(name, begun) if begun == step => Some(name),
            _ => None,
        }
    }

    fn reply(&mut self, op: OpId, outcome: Outcome) {
        let Some(begun) = self.node.ops.remove(&op) else {
            self.stray_replies.0 += 1;
            self.node.notice(Notice::StrayReply { op });
            return;
        };
        if let Outcome::Applied { at, .. } | Outcome::Rejected { at, .. } = &outcome {
            self.check_revision(*at, begun.floor.unwrap_or_default());
        }
        if self.node.fatal.is_some() && self.went_back() {
            return; // nothing that such a store says is taken in
        }
        self.learn_outcome(&begun, &outcome);
        match begun.purpose {
            Purpose::List => self.listed(&outcome),
            Purpose::CreateSession { sent } => self.node.session_created(sent, &outcome),
            Purpose::Beat { session, sent } => self.node.beat_answered(session, sent, &outcome),
            Purpose::EndSession(node) => self.node.ending_answered(&node, &outcome),
            Purpose::Election(name, step) => self.step_answered(&name, op, step, &outcome),
            Purpose::Batch(members) => self.batch_answered(members, &outcome),
        }
    }

    pub(crate) fn step_answered(
        &mut self,
        name: &ElectionName,
        op: OpId,
        step: Step,
        outcome: &Outcome,
    ) {
        self.with(name, |election, node| match step {
            Step::Candidacy => election.candidacy_answered(node, op, outcome),
            Step::Take => election.take_answered(node, op, outcome),
            Step::ReadBack => election.confirm_answered(node, op, step, outcome),
            Step::Rewrite => {
                election.confirm_answered(node, op, step, outcome);
                election.offer_answered(node, op, outcome);
            }
            Step::GiveUp => election.give_up_answered(node, op, outcome),
            Step::Rank | Step::Withdraw | Step::StopCheck => {}
        });
    }

    /// A response to a request that was sent after a revision was known cannot show an earlier
    /// one: unless the store was restored from a backup, or is another.
    fn check_revision(&mut self, at: Revision, floor: Revision) {
        if at < floor && self.node.fatal.is_none() {
            self.node.fatal = Some(Exit::StoreWentBack { known: floor, seen: at });
            self.node.lose_session(false);
            self.node.dirty.extend(self.elections.keys().cloned());
        }
        self.node.replica.highest = self.node.replica.highest.max(at);
    }

    fn went_back(&self) -> bool {
        matches!(self.node.fatal, Some(Exit::StoreWentBack { .. }))
    }

    fn learn_outcome(&mut self, begun: &Op, outcome: &Outcome) {
        let (at, seen) = match outcome {
            Outcome::Applied { at, seen } | Outcome::Rejected { at, seen } => (*at, seen),
            Outcome::Unknown => return,
        };
        let mut entries = seen.clone();
        if let Outcome::Applied { .. } = outcome {
            entries.extend(self.absences(&begun.purpose, at, seen));
            // What the transaction wrote comes after what it deleted: a term may be received
            // under a key that is named like one that went.
            let written: BTreeSet<Key> = seen.iter().map(|entry| entry.key.clone()).collect();
            let gone = begun.deletes.iter().filter(|key| !written.contains(key)).cloned();
            entries.extend(gone.map(|key| Entry { key, at, stored: None }));
        }
        self.learn(entries, Source::Read);
    }

    /// What a complete reading shows to be gone.
    fn absences(&self, purpose: &Purpose, at: Revision, seen: &[Entry]) -> Vec<Entry> {
        let read: BTreeSet<&ElectionName> = match purpose {
            Purpose::List => return self.node.replica.absences(at, seen, |_| true),
            Purpose::Election(name, Step::ReadBack) => BTreeSet::from([name]),
            Purpose::Batch(members) => {
                let readings = members.iter().filter(|(_, request)| request.only_reads());
                readings.filter_map(|(_, request)| request.election()).collect()
            }
            _ => return Vec::new(),
        };
        let under = |key: &Key| matches!(key, Key::Leader(of, _) if read.contains(of));
        self.node.replica.absences(at, seen, under)
    }

    fn learn(&mut self, entries: Vec<Entry>, source: Source) {
        for entry in entries {
            let key = entry.key.clone();
            let before = match &key {
                Key::Session(node) => self.membership(node),
                _ => None,
            };
            if !self.node.replica.learn(entry, source, self.node.now.slow) {
                continue;
            }
            match &key {
                Key::Session(node) => {
                    let node = node.clone();
                    self.time_session(&node);
                    // A beat alone changes no election's inputs.
                    if self.membership(&node) != before {
                        self.node.dirty.extend(self.elections.keys().cloned());
                    }
                }
                Key::Candidacy(election, _)
                | Key::Leader(election, _)
                | Key::Pause(election)
                | Key::Transfer(election)
                | Key::Cordon(election, _)
                | Key::History(election, _) => {
                    self.node.dirty.insert(election.clone());
                }
            }
        }
    }

    /// What elections depend on in a session record.
    fn membership(&self, node: &NodeName) -> Option<(u64, u64, Option<crate::record::Attributes>)> {
        let stored = self.node.replica.session_key(node)?;
        Some(match &stored.value {
            Value::Session(record) => {
                let age = crate::view::round_ms(record.age_ms);
                (stored.create.0, age, Some(record.labels.clone()))
            }
            _ => (stored.create.0, 0, None),
        })
    }

    /// Sets the time at which another node's session will count as silent.
    fn time_session(&mut self, name: &NodeName) {
        if name == self.node.me() {
            return; // our own is timed only while somebody else's record stands under it
        }
        let timer = Timer::Silence(name.clone());
        match self.node.silent_at(name) {
            Some(at) => self.node.slow_timers.set(timer, at),
            None => self.node.slow_timers.clear(&timer),
        }
    }

    fn list(&mut self) {
        let listing = self.node.ops.values().any(|op| op.purpose == Purpose::List);
        if !listing {
            self.node.timers.clear(&Timer::List);
            self.node.send(Purpose::List, Request::List);
        }
    }

    fn rewatch(&mut self) {
        self.node.watching = false;
        self.node.timers.clear(&Timer::WatchLag);
        self.list();
    }

    fn listed(&mut self, outcome: &Outcome) {
        let now = self.node.now.fast;
        match outcome {
            Outcome::Applied { at, .. } => {
                let first = !self.node.replica.listed;
                self.node.replica.listed = true;
                if !self.node.watching {
                    // It begins here, even if an earlier one was ahead, which may have skipped
                    // something.
                    self.node.watching = true;
                    self.node.replica.watched = *at;
                    self.node.act(Action::Watch { after: *at });
                }
                self.node.timers.set(Timer::List, now + self.node.settings.timings.relist);
                if first {
                    self.node.dirty.extend(self.elections.keys().cloned());
                }
            }
            Outcome::Rejected { .. } | Outcome::Unknown => {
                self.node.timers.set(Timer::List, now + self.node.backoff(3));
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.node.timers.pop_due(self.node.now.fast) {
            self.fire(timer);
        }
        while let Some(timer) = self.node.slow_timers.pop_due(self.node.now.slow) {
            self.fire(timer);
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Deadline => self.node.check_deadline(),
            Timer::Beat => {
                let stuck = self.effects().stuck;
                if matches!(&self.node.session, Session::Standing(s) if !s.lost || stuck) {
                    self.node.beat();
                }
            }
            Timer::Session => self.node.retry_session(),
            Timer::List => self.list(),
            Timer::WatchLag => self.rewatch(),
            Timer::Stop => {}
            Timer::Election(name) => {
                self.node.dirty.insert(name);
            }
            Timer::Silence(name) => {
                self.node.dirty.extend(self.elections.keys().cloned());
                if name != *self.node.me() {
                    let sweep = self.node.now.fast + SWEEP_AFTER;
                    self.node.timers.set(Timer::Sweep(name), sweep);
                }
            }
            Timer::Sweep(name) => self.sweep(&name),
        }
    }

    /// Ends a silent session that holds nothing; one that holds something goes with its terms.
    fn sweep(&mut self, name: &NodeName) {
        if !self.node.is_silent(name) {
            return;
        }
        // Until it is gone: this may fail, or have to wait for a session of our own.
        let again = self.node.now.fast + SWEEP_AFTER + self.node.settings.timings.ttl;
        self.node.timers.set(Timer::Sweep(name.clone()), again);
        if self.node.session.valid(self.node.now).is_none() {
            return;
        }
        let replica = &self.node.replica;
        let (Some(heard), Some(stored)) = (replica.heard(name), replica.session_key(name)) else {
            return;
        };
        let session = SessionId(stored.create.0);
        if !replica.holds_any(session) {
            self.node.send_ending(name.clone(), session, heard.modified);
        }
    }

    /// Lets the session and every election with changed inputs take their next steps.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let effects = self.effects();
            self.node.advance_session(effects);
            let dirty = std::mem::take(&mut self.node.dirty);
            if dirty.is_empty() {
                break;
            }
            for name in dirty {
                if let Some(election) = self.elections.get_mut(&name) {
                    self.node.timers.clear(&Timer::Election(name.clone()));
                    election.advance(&mut self.node);
                    self.count(&name);
                    self.looked_at.0.push(name);
                }
            }
        }
        self.finish();
    }

    fn effects(&self) -> Effects {
        Effects { clear: self.busy.is_empty(), stuck: !self.stuck.is_empty() }
    }

    /// Keeps account of an election's state, so that a beat need not look at every one.
    fn count(&mut self, name: &ElectionName) {
        let Some(election) = self.elections.get(name) else { return };
        let keep = |set: &mut BTreeSet<ElectionName>, member: bool| {
            if !member {
                set.remove(name);
            } else if !set.contains(name) {
                set.insert(name.clone());
            }
        };
        keep(&mut self.busy, !election.is_clear());
        keep(&mut self.stuck, election.is_stuck());
    }

    /// Exits once nothing is left to do: everything is withdrawn and, if the store answers,
    /// given up.
    fn finish(&mut self) {
        if self.exited {
            return;
        }
        let clear = self.effects().clear;
        let exit = match (&self.node.fatal, self.node.stopping) {
            (Some(exit), _) if clear || self.nothing_in_place() => exit.clone(),
            (None, Some(_)) if clear && self.node.session.is_absent() => Exit::Stopped,
            (None, Some(since)) => {
                let overdue = since + self.node.settings.timings.ttl <= self.node.now.fast;
                if !overdue || !self.nothing_in_place() {
                    return;
                }
                Exit::Stopped
            }
            _ => return,
        };
        self.exited = true;
        self.node.act(Action::Exit(exit));
    }

    /// Whether every exclusive effect is known to be gone, even if the store does not answer.
    fn nothing_in_place(&self) -> bool {
        self.elections.values().all(|election| match &election.state {
            State::Watching | State::Taking { .. } => true,
            State::Confirming(confirming) => !confirming.adopted,
            State::Holding(holding) => !holding.placed(),
            State::Leaving(leaving) => leaving.is_withdrawn(),
        })
    }
}

/// Between a session's falling silent and its being swept: whoever takes over its terms ends it
/// in the same transaction, and should come first.
const SWEEP_AFTER: Duration = Duration::from_secs(1);

/// Steps taken in one call can make further steps possible, but never many.
const MAX_ROUNDS: usize = 16;

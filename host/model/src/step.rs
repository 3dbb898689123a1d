//! What happens in a step, and what the modelled shell and guard do about it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::record::Attributes;
use conclave_core::request::leader_suffix;
use conclave_core::view::{Ranked, Ranking, View};
use conclave_core::{
    Action, Adoption, Core, ElectionName, Event, Exit, Key, Nonce, OpId, Outcome, Past, Request,
    Settings, Token, Value,
};

use crate::bounds::Bounds;
use crate::faults::Fault;
use crate::machine::{Effect, Flight, Link, Page, Stage, Watch, Work};
use crate::state::State;

/// One thing that happens. Nodes go by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Time passes: requests time out, and cores that wanted to be called are.
    Tick,
    /// A request reaches the store, and its reply the node.
    Execute(usize, OpId),
    /// The worker does the next thing that it was told.
    Work(usize),
    /// The guard finds the deadline passed.
    Guard(usize),
    /// A fault, or an intervention.
    Break(Fault),
    /// A delayed request is executed.
    ExecuteLate(usize),
    /// A delayed request is lost for good.
    DropLate(usize),
    /// A delayed reply arrives.
    Receive(usize, OpId),
    /// A watch that hung and was given up delivers what it held back.
    WakeWatch(usize),
    /// The link works again.
    Heal(usize),
    /// The daemon goes on.
    Thaw(usize),
    /// The watch goes on where it hung.
    ReleaseWatch(usize),
    /// Files can be unlinked again.
    MendDisk(usize),
    /// The worker goes on.
    ReleaseWorker(usize),
    /// The daemon is started again.
    Start(usize),
    /// The competitor goes.
    Leave,
}

impl State {
    /// The state after a step.
    pub fn after(&self, bounds: &Bounds, step: &Step) -> State {
        let mut state = self.clone();
        match *step {
            Step::Tick => state.pass_time(bounds),
            Step::Execute(n, op) => state.execute(bounds, n, op),
            Step::Work(n) => state.work(bounds, n),
            Step::Guard(n) => state.guard(bounds, n),
            Step::Break(ref fault) => state.suffer(bounds, fault),
            Step::ExecuteLate(i) => {
                let request = state.late.remove(i);
                Arc::make_mut(&mut state.store).execute(&request);
            }
            Step::DropLate(i) => {
                state.late.remove(i);
            }
            Step::Receive(n, op) => state.receive(bounds, n, op),
            Step::WakeWatch(n) => state.wake_watch(bounds, n),
            Step::Heal(n) => state.machine(n).link = Link::Works,
            Step::Thaw(n) => {
                state.machine(n).frozen = false;
                state.call_if_due(bounds, n);
            }
            Step::ReleaseWatch(n) => {
                if let Some(watch) = &mut state.machine(n).watch {
                    watch.hung = false;
                }
            }
            Step::MendDisk(n) => state.machine(n).broken_disk = false,
            Step::ReleaseWorker(n) => state.machine(n).hung_worker = false,
            Step::Start(n) => state.start(bounds, n),
            Step::Leave => {
                state.competitor = None;
                Arc::make_mut(&mut state.store).delete(&Self::foreign_key());
            }
        }
        state.spread_news(bounds);
        state
    }

    fn suffer(&mut self, bounds: &Bounds, fault: &Fault) {
        if bounds.kinds.contains(&fault.kind) {
            self.faults -= 1;
        } else {
            self.operators -= 1;
        }
        self.leaderless = 0;
        self.break_it(bounds, fault);
    }

    fn pass_time(&mut self, bounds: &Bounds) {
        self.tick += 1;
        for n in 0..self.machines.len() {
            if !self.machines[n].runs() {
                continue;
            }
            let flights = self.machines[n].flights.iter();
            let due = flights.filter(|(_, flight)| flight.due <= self.tick).map(|(op, _)| *op);
            for op in due.collect::<Vec<_>>() {
                self.machine(n).flights.remove(&op);
                self.tell(bounds, n, Event::Reply { op, outcome: Outcome::Unknown });
            }
            self.call_if_due(bounds, n);
        }
        self.count_leaderless(bounds);
    }

    fn call_if_due(&mut self, bounds: &Bounds, n: usize) {
        let now = self.now(n);
        let due = |core: &Core| core.next_deadline(now) == Some(Duration::ZERO);
        if self.machines[n].core.as_ref().is_some_and(due) {
            self.tell(bounds, n, Event::Tick);
        }
    }

    fn execute(&mut self, bounds: &Bounds, n: usize, op: OpId) {
        self.execute_unanswered(n, op);
        match self.machines[n].link {
            Link::Works if self.machines[n].runs() => self.receive(bounds, n, op),
            Link::Works => {} // received when it is scheduled again, if in time
            _ => {
                if let Some(flight) = self.machine(n).flights.get_mut(&op) {
                    flight.stage = Stage::Lost;
                }
            }
        }
    }

    pub(crate) fn execute_unanswered(&mut self, n: usize, op: OpId) {
        let Some(flight) = self.machines[n].flights.get(&op) else { return };
        let outcome = Arc::make_mut(&mut self.store).execute(&flight.request);
        if let Some(flight) = self.machine(n).flights.get_mut(&op) {
            flight.stage = Stage::Answered(outcome);
        }
    }

    fn receive(&mut self, bounds: &Bounds, n: usize, op: OpId) {
        let Some(flight) = self.machine(n).flights.remove(&op) else { return };
        let Stage::Answered(outcome) = flight.stage else { return };
        self.note_reading(n, &flight.request, &outcome);
        self.tell(bounds, n, Event::Reply { op, outcome });
    }

    /// What a reading says of this node's own terms: for S3.
    fn note_reading(&mut self, n: usize, request: &Request, outcome: &Outcome) {
        let Outcome::Applied { seen, .. } = outcome else { return };
        let elections: Vec<ElectionName> = match request {
            Request::ReadLeader { election } => vec![election.clone()],
            Request::Batch(requests) if request.only_reads() => {
                requests.iter().filter_map(Request::election).cloned().collect()
            }
            _ => return,
        };
        let Some((session, _)) = self.machines[n].ledger.clone() else { return };
        let own = leader_suffix(session);
        for election in elections {
            let keys = seen.iter().filter_map(|entry| match (&entry.key, &entry.stored) {
                (Key::Leader(of, suffix), Some(stored)) if *of == election => {
                    Some((Token(stored.create.0), suffix))
                }
                _ => None,
            });
            let lowest = keys.min().filter(|(_, suffix)| **suffix == own).map(|(token, _)| token);
            let read_back = &mut self.machine(n).read_back;
            match lowest {
                Some(token) => read_back.insert(election, token),
                None => read_back.remove(&election),
            };
        }
    }

    /// Tells every watch that works what changed.
    fn spread_news(&mut self, bounds: &Bounds) {
        for n in 0..self.machines.len() {
            let machine = &self.machines[n];
            let (Some(watch), true) = (machine.watch, machine.runs() && self.is_linked(n)) else {
                continue;
            };
            let at = self.store.revision();
            if watch.hung || watch.after >= at {
                continue;
            }
            let entries = self.store.changes(watch.after);
            self.machine(n).watch = Some(Watch { after: at, ..watch });
            self.tell(bounds, n, Event::Watched { at, entries });
        }
        // What every watch has reported is of no use any more.
        let revision = self.store.revision();
        if self.watched() == revision && self.store.compacted() < revision {
            Arc::make_mut(&mut self.store).compact();
        }
    }

    fn wake_watch(&mut self, bounds: &Bounds, n: usize) {
        let Some(after) = self.machine(n).stale_watch.take() else { return };
        let (at, entries) = (self.store.revision(), self.store.changes(after));
        self.tell(bounds, n, Event::Watched { at, entries });
    }

    pub(crate) fn write(&mut self, key: Key, value: Value, leased: bool) {
        Arc::make_mut(&mut self.store).put(key, value, leased);
    }

    /// The worker: the page is the gate for whatever it places.
    fn work(&mut self, bounds: &Bounds, n: usize) {
        let Some(work) = self.machine(n).work.pop_front() else { return };
        match work {
            Work::Place { election, token, session } => {
                let open = self.machines[n].is_open(session, self.now(n).fast);
                let known = self.machines[n].effects.get(&election);
                if open && known.is_none_or(|effect| effect.token != token) {
                    self.check_placing(&election, token, session);
                    let effect = Effect { token, session, excused: false };
                    self.machine(n).effects.insert(election, effect);
                }
            }
            Work::Withdraw { op, election } => {
                let machine = self.machine(n);
                let result = if machine.broken_disk && machine.effects.contains_key(&election) {
                    Err("input/output error".to_owned())
                } else {
                    machine.effects.remove(&election);
                    Ok(())
                };
                self.tell(bounds, n, Event::Withdrawn { op, result });
            }
        }
    }

    /// The deadline has passed: the guard marks the page, withdraws, and ends a daemon that does
    /// not answer.
    fn guard(&mut self, bounds: &Bounds, n: usize) {
        let machine = self.machine(n);
        let Page::Open { session, .. } = machine.page else { return };
        machine.page = Page::Expired(session);
        if machine.broken_disk {
            machine.effects.values_mut().for_each(|effect| effect.excused = true);
        } else {
            machine.effects.clear();
        }
        if machine.frozen {
            self.end_life(n);
        } else if machine.core.is_some() {
            self.tell(bounds, n, Event::GuardExpired);
        }
    }

    pub(crate) fn end_life(&mut self, n: usize) {
        let now = self.now(n);
        let machine = self.machine(n);
        if let Some(core) = machine.core.take() {
            machine.revision = core.status(now).revision;
        }
        // What was under way outlives its sender.
        let flights = std::mem::take(&mut machine.flights).into_values();
        let sent = flights.filter(|flight| flight.stage == Stage::Sent);
        let requests: Vec<Request> = sent.map(|flight| flight.request).collect();
        machine.work.clear();
        machine.watch = None;
        machine.stale_watch = None;
        machine.frozen = false;
        machine.read_back.clear();
        machine.leads.clear();
        self.late.extend(requests.into_iter().filter(|request| !request.only_reads()));
    }

    /// Starts a daemon: as the successor of one before if the page, the memory and the disk allow
    /// it, else after withdrawing whatever is there.
    pub(crate) fn start(&mut self, bounds: &Bounds, n: usize) {
        let now = self.now(n);
        let machine = self.machine(n);
        let adopt = match (machine.page, &machine.ledger) {
            (Page::Open { session: on, deadline }, Some((session, nonce)))
                if on == *session && now.fast < deadline =>
            {
                let terms = machine.effects.iter();
                Some(Adoption {
                    session: *session,
                    nonce: nonce.clone(),
                    deadline,
                    terms: terms.map(|(name, effect)| (name.clone(), effect.token)).collect(),
                })
            }
            _ => None,
        };
        if adopt.is_none() {
            if machine.broken_disk && !machine.effects.is_empty() {
                return; // it cleans up before anything else, and cannot
            }
            machine.effects.clear();
            machine.page = Page::Empty;
        }
        machine.life += 1;
        (machine.stopping, machine.unfit) = (false, false);
        let past = Past {
            dead: machine.ledger.as_ref().map(|(_, nonce)| nonce.clone()),
            adopt,
            revision: std::mem::take(&mut machine.revision),
            tokens: machine.tokens.clone(),
        };
        let nonce = Nonce::new(format!("{}-{}", machine.name, machine.life));
        let (core, actions) = Core::new(Settings { nonce, past, ..bounds.settings(n) }, now);
        self.machine(n).core = Some(core);
        self.carry_out(bounds, n, actions);
        for election in bounds.election_names() {
            let fitness = conclave_core::record::Fitness::fit();
            self.tell(bounds, n, Event::Fitness { election: election.clone(), fitness });
            let (facts, policy) = (Attributes::new(), Default::default());
            self.tell(bounds, n, Event::Described { election, facts, policy });
        }
    }

    /// Tells a core something, and does what it wants.
    pub(crate) fn tell(&mut self, bounds: &Bounds, n: usize, event: Event) {
        let now = self.now(n);
        let Some(core) = &mut self.machine(n).core else { return };
        let actions = core.handle(now, event);
        self.carry_out(bounds, n, actions);
    }

    fn carry_out(&mut self, bounds: &Bounds, n: usize, actions: Vec<Action>) {
        let mut answers = VecDeque::new();
        for action in actions {
            self.carry_out_one(bounds, n, action, &mut answers);
        }
        for answer in answers {
            self.tell(bounds, n, answer);
        }
    }

    fn carry_out_one(
        &mut self,
        bounds: &Bounds,
        n: usize,
        action: Action,
        answers: &mut VecDeque<Event>,
    ) {
        let due = self.tick + bounds.timeout;
        let machine = self.machine(n);
        match action {
            Action::Send { op, mut request, .. } => {
                blank(&mut request);
                let lost = machine.link == Link::LosesRequests;
                let stage = if lost { Stage::Lost } else { Stage::Sent };
                machine.flights.insert(op, Flight { request, due, stage });
            }
            Action::Watch { after } => {
                let earlier = machine.watch.replace(Watch { after, hung: false });
                if let Some(earlier) = earlier.filter(|watch| watch.hung) {
                    machine.stale_watch = Some(earlier.after);
                }
            }
            Action::Session { session } => machine.ledger = session,
            Action::Extend { session, deadline } => {
                if machine.page != Page::Expired(session) {
                    machine.page = Page::Open { session, deadline };
                }
            }
            Action::Rank { op, view } => {
                answers.push_back(Event::Ranked { op, result: Ok(builtin(&view)) });
            }
            Action::Lead { election, token, adopted } => self.lead(n, election, token, adopted),
            Action::Withdraw { op, election } => {
                machine.read_back.remove(&election);
                machine.leads.remove(&election);
                machine.work.push_back(Work::Withdraw { op, election });
            }
            Action::StopCheck { op, .. } => {
                answers.push_back(Event::StopChecked { op, stopped: true });
            }
            Action::Follow { election, .. } => self.check_following(n, &election),
            Action::Prepare { .. } | Action::Notice(_) => {}
            Action::Exit(exit) => self.exit(n, &exit),
        }
    }

    fn lead(&mut self, n: usize, election: ElectionName, token: Token, adopted: bool) {
        self.check_leading(n, &election, token);
        if !adopted {
            self.check_eligible(n, &election);
        }
        let machine = self.machine(n);
        machine.leads.insert(election.clone(), token);
        let known = machine.tokens.entry(election.clone()).or_insert(token);
        *known = token.max(*known);
        if let Page::Open { session, .. } = machine.page {
            machine.work.push_back(Work::Place { election, token, session });
        }
    }

    fn exit(&mut self, n: usize, exit: &Exit) {
        self.check_exit(n, exit);
        self.end_life(n);
        self.machine(n).page = Page::Empty;
    }
}

/// Blanks what differs from one time to another and decides nothing: for people, or, as a beat's
/// number, never compared. What policies see of a session's age is zero within the bounds.
fn blank(request: &mut Request) {
    match request {
        Request::CreateSession { record, .. } | Request::Beat { record, .. } => {
            (record.beat, record.age_ms) = (0, 0);
        }
        Request::Take { record, .. } | Request::HandOver { record, .. } => record.why.clear(),
        Request::TakeOver { record: Some(record), .. } => record.why.clear(),
        Request::Batch(requests) => requests.iter_mut().for_each(blank),
        _ => {}
    }
}

/// The built-in ranking.
fn builtin(view: &View) -> Ranking {
    let order = conclave_core::ranking::builtin_order(view);
    let ranked = |node| Ranked { node, reason: String::new() };
    Ranking { order: order.into_iter().map(ranked).collect(), excluded: Vec::new() }
}

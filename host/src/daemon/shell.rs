//! The loop: select, handle, run actions. It owns the core and never waits for anything but
//! the next input.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::record::{Attributes, PolicyVersion};
use conclave_core::status::{ElectionStatus, Phase};
use conclave_core::view::Placement;
use conclave_core::{
    Action, Core, ElectionName, Entry, Event, Exit, Notice, Now, OpId, Outcome, Request, Revision,
    SessionId, Time, Token,
};
use conclave_guard::{Attached, BootTimer, Clock, GuardState, Reading, SlotId};
use conclave_manifests::{ManifestEvent, Manifests};
use conclave_store::{Reply, Store, StoreError, WatchEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{error, info, warn};

use crate::check::{self, Report, check_stopped};
use crate::config::{Config, ElectionConfig};
use crate::daemon::asking::Failing;
use crate::daemon::binding::Recorder;
use crate::daemon::fitness::FitnessBook;
use crate::daemon::hooks::{Happened, Hooks};
use crate::daemon::limiter::Limiter;
use crate::daemon::memory::Keeper;
use crate::daemon::pauses::Pauses;
use crate::daemon::phrase::phrase;
use crate::daemon::placing::{Ahead, Places, Wish};
use crate::daemon::policies::PolicySet;
use crate::daemon::promise::Promise;
use crate::daemon::start::Ended;
use crate::daemon::stops::{Ask, Stops};
use crate::daemon::stuck::{HANGS_AFTER, Stuck};
use crate::exec::{Finished, Runner};
use crate::http::{Board, ElectionSnapshot, Metrics, Shown};
use crate::reading::newer_format;

/// How many inputs that wait are taken in together: when hundreds of elections move at once, what
/// they want of the store then shares transactions. Taking them in takes a few milliseconds.
const AT_ONCE: usize = 256;

/// Everything that reaches the loop.
pub(crate) enum Input {
    /// For the core as it is.
    Core(Event),
    /// A request's reply.
    Reply { op: OpId, read: bool, result: Result<Reply, StoreError> },
    /// The watch of this number reports.
    Watch { number: u64, event: WatchEvent },
    /// The manifest loop reports.
    Manifest(ManifestEvent),
    /// A fitness check's judgement changed.
    Check(Report),
    /// Policies are compiled, or will not be in time.
    Policies(PolicySet),
    /// What keeps each election from the component that is in the plugin directory now, if anything.
    Plugins(BTreeMap<ElectionName, String>),
    /// A policy described this node, in answer to the question of this number.
    Described {
        election: ElectionName,
        number: u64,
        facts: Result<Attributes, String>,
        policy: PolicyVersion,
    },
    /// A policy said what would run in a term that may begin.
    PlacedAhead { election: ElectionName, number: u64, ahead: Ahead },
    /// A policy said what would run here if this node led, in answer to the question of this number.
    Rehearsed { election: ElectionName, number: u64, result: Result<Vec<Placement>, String> },
    /// A policy placed manifests.
    Placed { election: ElectionName, number: u64, result: Result<Vec<Placement>, String> },
    /// A policy that failed is to be asked again.
    AskAnew(ElectionName),
    /// A command that runs while this node leads has ended by itself.
    Command(Finished),
    /// Time has passed since this withdrawal began.
    WithdrawalOverdue { op: OpId, election: ElectionName },
}

/// Has the runtime wait on a descriptor.
#[expect(
    deprecated,
    reason = "its replacement is unsafe, for types that close or change their \
    descriptor while it is registered; these own theirs for as long as they live"
)]
fn wait_on<T: AsRawFd>(owner: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, Interest::READABLE)
}

/// What the loop owns.
pub(crate) struct Shell {
    pub(crate) config: Arc<Config>,
    /// Where in the configuration each election stands.
    pub(crate) index: BTreeMap<ElectionName, usize>,
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) manifests: Manifests,
    pub(crate) attached: Attached,
    /// The slots of adopted terms, to be released when their effects are withdrawn.
    pub(crate) adopted: BTreeMap<ElectionName, Vec<SlotId>>,
    pub(crate) memory: Keeper,
    pub(crate) fitness: FitnessBook,
    /// The fitness checks; they end with the loop.
    pub(crate) _checks: Vec<check::Watch>,
    pub(crate) places: Places,
    pub(crate) policies: PolicySet,
    /// Where policies fail, and why, as it was told.
    pub(crate) failing: BTreeMap<Failing, String>,
    /// Whose policies are to be asked again in a while.
    pub(crate) asking_again: BTreeSet<ElectionName>,
    pub(crate) limiter: Limiter,
    pub(crate) inputs: UnboundedSender<Input>,
    pub(crate) watch: Option<tokio::task::JoinHandle<()>>,
    pub(crate) watches: u64,
    pub(crate) outage: bool,
    /// The store turned out to be another one: what it said.
    pub(crate) other_store: Option<String>,
    /// The guard does not watch over this daemon any more.
    pub(crate) unwatched: bool,
    pub(crate) ended: Option<Ended>,
    pub(crate) stuck: Stuck,
    /// What others read of this node, where somebody may.
    pub(crate) shown: Option<Shown>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) pauses: Pauses,
    pub(crate) runner: Runner,
    pub(crate) hooks: Hooks,
    /// How the command ended, after which this node does.
    pub(crate) command_ended: Option<u8>,
    /// The terms whose exclusive effects were last reported to be in place.
    pub(crate) placed: BTreeMap<ElectionName, Token>,
}

impl Shell {
    /// Runs until the core is done. `first` are the actions of the core's creation.
    pub(crate) async fn run(
        mut self,
        first: Vec<Action>,
        mut inputs: UnboundedReceiver<Input>,
        mut told: Stops,
    ) -> std::io::Result<(Ended, Keeper, Manifests)> {
        let timer = wait_on(BootTimer::new()?)?;
        let guard = wait_on(self.attached.guard.as_fd().try_clone_to_owned()?)?;
        let mut guard_is_gone = false;
        let mut stops = 0_u32;
        self.attached.page.show_ready();
        if let Some(Shown { board, .. }) = &self.shown {
            let now = self.clock.now();
            let all: Vec<_> =
                self.core.status(now).elections.into_iter().map(|it| it.election).collect();
            self.publish(board, &all, now);
        }
        self.act(first);
        loop {
            if let Some(ended) = self.ended.take() {
                if let Some(watch) = self.watch.take() {
                    watch.abort();
                }
                return Ok((ended, self.memory, self.manifests));
            }
            let now = self.clock.now();
            timer.get_ref().set(self.sleep(now))?;
            let mut events: Vec<Event> = Vec::new();
            tokio::select! {
                biased;
                ready = timer.readable() => {
                    ready?.clear_ready();
                    timer.get_ref().consume()?;
                }
                _ = guard.readable(), if !guard_is_gone => {
                    guard_is_gone = true; // it stays readable; what follows is decided below
                }
                ask = told.any() => match ask {
                    Ask::Stop => { stops += 1; events.push(Event::Stop) }
                    // One that is giving everything up has nothing for another to go on with.
                    Ask::StepAside if stops == 0 && !self.unwatched => {
                        info!("making room for another daemon, which goes on with the session");
                        self.ended = Some(Ended::SteppedAside);
                        continue;
                    }
                    Ask::StepAside => {}
                },
                Some(input) = inputs.recv() => {
                    events.extend(self.translate(input));
                    while events.len() < AT_ONCE && let Ok(input) = inputs.try_recv() {
                        events.extend(self.translate(input));
                    }
                }
            };
            // Without a guard nobody else would withdraw, and it is stopping anyway.
            if stops > 1 && !self.unwatched {
                // The guard withdraws whatever this leaves in place.
                warn!("told to stop twice: aborting");
                return Ok((Ended::Aborted, self.memory, self.manifests));
            }
            let reading = Reading::now();
            self.attached.page.beat(reading);
            if let Some(shown) = &self.shown {
                shown.board.beat(reading);
            }
            self.handle(events);
            self.check_guard();
            self.check_other_store();
        }
    }

    fn sleep(&self, now: Now) -> Duration {
        let beat = self.attached.page.beat_period();
        let wait = self.core.next_deadline(now).map_or(beat, |wait| wait.min(beat));
        // A timer of zero would never fire.
        wait.max(Duration::from_micros(1))
    }

    fn handle(&mut self, events: Vec<Event>) {
        let now = self.clock.now();
        let idle = events.is_empty();
        let actions = self.core.handle_all(now, events);
        if let Some(Shown { board, .. }) = &self.shown
            && (!idle || !actions.is_empty())
        {
            // Before a withdrawal begins, so that nobody is sent here any more.
            self.publish(board, self.core.looked_at(), now);
        }
        self.act(actions);
    }

    /// Writes on the board what has become of these elections.
    pub(super) fn publish(&self, board: &Board, elections: &[ElectionName], now: Now) {
        let snapshot = |name: &ElectionName| {
            let it = self.core.status_of(name, now)?;
            let placed = self.placed.get(name).copied();
            let ElectionStatus { election, phase, token, holder, fitness } = it;
            Some((election, ElectionSnapshot { phase, token, holder, fitness, placed }))
        };
        let changed = elections.iter().filter_map(snapshot).collect();
        board.write(self.core.session(now), !self.outage, changed);
    }

    /// A daemon whose guard does not watch over it gives everything up and ends.
    fn check_guard(&mut self) {
        match self.attached.guard.check(Reading::now()) {
            GuardState::Alive => {}
            state @ (GuardState::Stale | GuardState::Gone) => {
                if self.limiter.admit("guard", self.clock.now().fast).is_some() {
                    error!(
                        ?state,
                        "the guard does not watch over this daemon any more; giving everything up"
                    );
                }
                self.unwatched = true;
                self.handle(vec![Event::Stop]);
            }
        }
    }

    /// Another store than the one this node knows: nothing of it is believed; once everything
    /// is withdrawn, the daemon ends and says so.
    fn check_other_store(&mut self) {
        let Some(what) = &self.other_store else { return };
        let status = self.core.status(self.clock.now());
        let idle = |phase| matches!(phase, Phase::Spectating | Phase::Standby | Phase::Campaigning);
        if status.elections.iter().all(|election| idle(election.phase)) {
            self.ended = Some(Ended::OtherStore(what.clone()));
        }
    }

    /// Makes an event for the core of an input, or takes the input in.
    fn translate(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Core(event) => Some(event),
            Input::Reply { op, read, result } => Some(self.reply(op, read, result)),
            Input::Watch { number, event } => self.watched(number, event),
            Input::Manifest(event) => self.manifest_event(event),
            Input::Check(report) => {
                let election = report.election.clone();
                info!(%election, check = report.check, passing = report.passing, reason = report.reason, "fitness check changed");
                let fitness = self.fitness.check(report)?;
                Some(Event::Fitness { election, fitness })
            }
            Input::Policies(policies) => {
                self.take_policies(policies);
                None
            }
            Input::Plugins(kept_out) => {
                for election in self.config.elections.iter().map(|election| &election.name) {
                    self.metrics.plugin(election, kept_out.contains_key(election));
                }
                let changed = self.fitness.plugins(&kept_out);
                let inputs = &self.inputs;
                for (election, fitness) in changed {
                    // The loop is what reads it.
                    let _ = inputs.send(Input::Core(Event::Fitness { election, fitness }));
                }
                None
            }
            Input::Described { election, number, facts, policy } => {
                self.described(election, number, facts, policy)
            }
            Input::Rehearsed { election, number, result } => {
                self.rehearsed(&election, number, result);
                None
            }
            Input::AskAnew(election) => {
                self.ask_anew(&election);
                None
            }
            Input::PlacedAhead { election, number, ahead } => {
                self.places.keep_ahead(&election, number, ahead);
                None
            }
            Input::Command(Finished { election, status }) => {
                info!(%election, status, "giving the term up: what it was for has ended");
                self.command_ended = Some(status);
                Some(Event::Stop)
            }
            Input::WithdrawalOverdue { op, election } => {
                self.stuck.overdue(&election, op);
                None
            }
            Input::Placed { election, number, result } => {
                self.placed(&election, number, result);
                None
            }
        }
    }

    fn reply(&mut self, op: OpId, read: bool, result: Result<Reply, StoreError>) -> Event {
        let now = self.clock.now().fast;
        let outcome = match result {
            Ok(reply) => {
                if std::mem::take(&mut self.outage) {
                    self.limiter.clear();
                    // A store may answer one request and fail the next for hours.
                    if let Some(held_back) = self.limiter.admit("answers", now) {
                        info!(held_back, "the store answers again");
                    }
                }
                let at = match &reply.outcome {
                    Outcome::Applied { at, .. } | Outcome::Rejected { at, .. } => *at,
                    Outcome::Unknown => Revision(0),
                };
                if let (true, Outcome::Applied { seen, .. }) = (read, &reply.outcome) {
                    self.pauses.seen(seen);
                    self.check_format(seen);
                }
                if self.same_store(reply.cluster, at) { reply.outcome } else { Outcome::Unknown }
            }
            Err(error) => {
                self.outage = true;
                self.metrics.store_error(error.kind());
                if let Some(held_back) = self.limiter.admit(error.kind(), now) {
                    warn!(error = phrase(&error), read, held_back, "the store did not answer");
                }
                Outcome::Unknown
            }
        };
        Event::Reply { op, outcome }
    }

    /// A node that has no session yet does not begin one among records that it may misread.
    fn check_format(&mut self, seen: &[Entry]) {
        if self.core.session(self.clock.now()).is_none()
            && let Some((node, format)) = newer_format(seen)
        {
            self.ended = Some(Ended::NewerFormat { node, format });
        }
    }

    fn same_store(&mut self, cluster: u64, at: Revision) -> bool {
        if self.other_store.is_some() {
            return false;
        }
        if self.memory.answered(cluster, at) {
            return true;
        }
        let known = self.memory.cluster_id().unwrap_or("unknown");
        self.other_store =
            Some(format!("this node knows the store {known}, but {cluster:016x} answers"));
        let _ = self.inputs.send(Input::Core(Event::GuardExpired));
        false
    }

    fn watched(&mut self, number: u64, event: WatchEvent) -> Option<Event> {
        if number != self.watches || self.other_store.is_some() {
            return None; // of a watch that was replaced
        }
        match event {
            WatchEvent::Changes { at, entries } => {
                self.pauses.seen(&entries);
                Some(Event::Watched { at, entries })
            }
            WatchEvent::Progress { at } => Some(Event::Watched { at, entries: Vec::new() }),
            WatchEvent::Broken(error) => {
                let now = self.clock.now().fast;
                if let Some(held_back) = self.limiter.admit("watch", now) {
                    warn!(
                        error = phrase(&error),
                        held_back, "the watch broke; reading everything again"
                    );
                }
                Some(Event::WatchBroken)
            }
        }
    }

    /// What is only told comes last: a log that is slow must not make the store wait.
    fn act(&mut self, actions: Vec<Action>) {
        let (told, done): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| matches!(action, Action::Notice(_)));
        for action in done.into_iter().chain(told) {
            self.run_action(action);
        }
    }

    fn run_action(&mut self, action: Action) {
        match action {
            Action::Send { op, request, timeout } => self.send(op, request, timeout),
            Action::Watch { after } => self.start_watch(after),
            Action::Session { session } => {
                if session.is_none()
                    && let Err(error) = self.attached.session.end()
                {
                    error!(%error, "cannot end the session on the guard's page");
                }
                self.memory.session(session);
            }
            Action::Extend { session, deadline } => self.extend(session, deadline),
            Action::Rank { op, view } => self.rank(op, *view),
            Action::Prepare { election, token } => self.prepare(&election, token),
            Action::Lead { election, token, .. } => {
                self.memory.token(&election, token);
                self.want(&election, Wish::Lead { token });
            }
            Action::Follow { election, holder } => {
                self.want(&election, Wish::Follow { holder });
            }
            Action::Withdraw { op, election } => {
                self.metrics.withdrawing(&election);
                self.tell_withdrawing(&election);
                self.want(&election, Wish::Withdraw);
                self.manifests.withdraw(&election, op);
                self.stuck.withdrawing(&election, op);
                let (inputs, patience) =
                    (self.inputs.clone(), HANGS_AFTER + self.runner.grace(&election));
                tokio::spawn(async move {
                    tokio::time::sleep(patience).await;
                    // A loop that has ended has nothing stuck.
                    let _ = inputs.send(Input::WithdrawalOverdue { op, election });
                });
            }
            Action::StopCheck { op, election } => self.stop_check(op, &election),
            Action::Notice(notice) => {
                self.metrics.notice(&notice);
                if let Notice::HolderChanged { election, holder } = &notice {
                    self.hooks.tell(election, Happened::Changed(holder.clone()));
                }
                self.stuck.notice(&notice);
            }
            Action::Exit(exit) => {
                self.ended = Some(match exit {
                    // A guard that comes back to life is to start another.
                    Exit::Stopped if self.unwatched => Ended::Unwatched,
                    Exit::Stopped => match self.command_ended {
                        Some(status) => Ended::Command(status),
                        None => Ended::Stopped,
                    },
                    Exit::NameTaken { nonce, addresses } => Ended::NameTaken { nonce, addresses },
                    Exit::StoreWentBack { known, seen } => Ended::StoreWentBack { known, seen },
                });
            }
        }
    }

    fn send(&self, op: OpId, request: Request, timeout: Duration) {
        let store = Arc::clone(&self.store);
        let read = request.only_reads();
        let place = "its client panicked".to_owned();
        let answer = move |result| Input::Reply { op, read, result };
        let promise = Promise::new(&self.inputs, answer(Err(StoreError::Closed { place })));
        let beat = matches!(request, Request::Beat { .. }).then(|| Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let sent = Instant::now();
            let result = store.execute(request, timeout).await;
            if let (Some(metrics), Ok(_)) = (beat, &result) {
                metrics.beat(sent.elapsed());
            }
            promise.keep(answer(result));
        });
    }

    fn start_watch(&mut self, after: Revision) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        self.watches += 1;
        let number = self.watches;
        let mut watch = self.store.watch(after);
        let inputs = self.inputs.clone();
        self.watch = Some(tokio::spawn(async move {
            while let Some(event) = watch.next().await {
                if inputs.send(Input::Watch { number, event }).is_err() {
                    return;
                }
            }
        }));
    }

    fn extend(&mut self, session: SessionId, deadline: Time) {
        let reading = self.clock.to_reading(deadline);
        let stands = self.attached.page.session().is_some_and(|s| s.id == session && !s.expired);
        let writer = &mut self.attached.session;
        let extended = if stands {
            writer.extend(session, reading)
        } else {
            writer.begin(session, reading, self.config.timings.protocol.margin)
        };
        if let Err(error) = extended {
            error!(%error, "the guard's page does not take the session's deadline");
            let _ = self.inputs.send(Input::Core(Event::GuardExpired));
        }
    }

    /// An election's configuration, while it has one.
    pub(super) fn configured(&self, election: &ElectionName) -> Option<&ElectionConfig> {
        self.index.get(election).and_then(|&at| self.config.elections.get(at))
    }

    fn stop_check(&self, op: OpId, election: &ElectionName) {
        let election = election.clone();
        let check = self.configured(&election);
        let check = check.and_then(|e| e.stop_check.clone());
        let answer = move |stopped| Input::Core(Event::StopChecked { op, stopped });
        let promise = Promise::new(&self.inputs, answer(false));
        tokio::spawn(async move {
            let stopped = match check {
                None => false,
                Some(check) => match check_stopped(&check).await {
                    Ok(()) => true,
                    Err(reason) => {
                        warn!(%election, reason, "the stop check did not confirm that everything stopped");
                        false
                    }
                },
            };
            promise.keep(answer(stopped));
        });
    }
}

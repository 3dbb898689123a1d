//! The loop: select, handle, run actions. It owns the core and never waits for anything but
//! the next input.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::record::{Attributes, PolicyVersion};
use conclave_core::status::Phase;
use conclave_core::view::{NodeView, Placement, Ranking, View};
use conclave_core::{
    Action, Core, ElectionName, Event, Exit, NodeName, Notice, Now, OpId, Outcome, Request,
    Revision, SessionId, Time,
};
use conclave_guard::{Attached, BootTimer, Clock, GuardState, Reading};
use conclave_manifests::{ManifestEvent, Manifests};
use conclave_store::{Reply, Store, StoreError, WatchEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{error, info, warn};

use crate::check::{Report, check_stopped};
use crate::config::{Config, OnPolicyFailure};
use crate::daemon::fitness::FitnessBook;
use crate::daemon::limiter::Limiter;
use crate::daemon::memory::Keeper;
use crate::daemon::notices;
use crate::daemon::placing::{Places, Question, Wish};
use crate::daemon::policies::{Binding, PolicySet};
use crate::daemon::start::Ended;

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
    /// A policy described this node.
    Described { election: ElectionName, facts: Result<Attributes, String>, policy: PolicyVersion },
    /// A policy placed manifests.
    Placed { election: ElectionName, number: u64, result: Result<Vec<Placement>, String> },
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
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) manifests: Manifests,
    pub(crate) attached: Attached,
    pub(crate) memory: Keeper,
    pub(crate) fitness: FitnessBook,
    pub(crate) places: Places,
    pub(crate) policies: PolicySet,
    pub(crate) limiter: Limiter,
    pub(crate) inputs: UnboundedSender<Input>,
    pub(crate) watch: Option<tokio::task::JoinHandle<()>>,
    pub(crate) watches: u64,
    pub(crate) outage: bool,
    /// The store turned out to be another one: what it said.
    pub(crate) other_store: Option<String>,
    pub(crate) ended: Option<Ended>,
    pub(crate) stuck_told: BTreeMap<ElectionName, String>,
}

impl Shell {
    /// Runs until the core is done. `first` are the actions of the core's creation.
    pub(crate) async fn run(
        mut self,
        first: Vec<Action>,
        mut inputs: UnboundedReceiver<Input>,
    ) -> std::io::Result<(Ended, Keeper, Manifests)> {
        let timer = wait_on(BootTimer::new()?)?;
        let guard = wait_on(self.attached.guard.as_fd().try_clone_to_owned()?)?;
        let mut guard_is_gone = false;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut stops = 0_u32;
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
            let event = tokio::select! {
                biased;
                ready = timer.readable() => {
                    ready?.clear_ready();
                    timer.get_ref().consume()?;
                    None
                }
                _ = guard.readable(), if !guard_is_gone => {
                    guard_is_gone = true; // it stays readable; what follows is decided below
                    None
                }
                _ = terminate.recv() => { stops += 1; Some(Event::Stop) }
                _ = interrupt.recv() => { stops += 1; Some(Event::Stop) }
                Some(input) = inputs.recv() => self.translate(input),
            };
            if stops > 1 {
                // The guard withdraws whatever this leaves in place.
                warn!("told to stop twice: aborting");
                return Ok((Ended::Aborted, self.memory, self.manifests));
            }
            self.attached.page.beat(Reading::now());
            self.handle(event.unwrap_or(Event::Tick));
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

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        let actions = self.core.handle(now, event);
        self.act(actions);
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
                self.handle(Event::Stop);
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
                self.policies = policies;
                let elections: Vec<_> =
                    self.config.elections.iter().map(|e| e.name.clone()).collect();
                for election in elections {
                    self.describe(&election);
                }
                None
            }
            Input::Described { election, facts, policy } => {
                let facts = facts.unwrap_or_else(|reason| {
                    error!(%election, policy = policy.name, reason, "policy could not describe this node; it stands without facts");
                    Attributes::new()
                });
                Some(Event::Described { election, facts, policy })
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
                    info!("the store answers again");
                }
                let at = match &reply.outcome {
                    Outcome::Applied { at, .. } | Outcome::Rejected { at, .. } => *at,
                    Outcome::Unknown => Revision(0),
                };
                if self.same_store(reply.cluster, at) { reply.outcome } else { Outcome::Unknown }
            }
            Err(error) => {
                self.outage = true;
                if let Some(held_back) = self.limiter.admit(error.kind(), now) {
                    let error = anyhow::Error::from(error);
                    warn!(
                        error = format!("{error:#}"),
                        read, held_back, "the store did not answer"
                    );
                }
                Outcome::Unknown
            }
        };
        Event::Reply { op, outcome }
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
            WatchEvent::Changes { at, entries } => Some(Event::Watched { at, entries }),
            WatchEvent::Progress { at } => Some(Event::Watched { at, entries: Vec::new() }),
            WatchEvent::Broken(error) => {
                let now = self.clock.now().fast;
                if let Some(held_back) = self.limiter.admit("watch", now) {
                    let error = anyhow::Error::from(error);
                    warn!(
                        error = format!("{error:#}"),
                        held_back, "the watch broke; reading everything again"
                    );
                }
                Some(Event::WatchBroken)
            }
        }
    }

    fn manifest_event(&mut self, event: ManifestEvent) -> Option<Event> {
        match event {
            ManifestEvent::Fitness { election, fitness } => {
                let fitness = self.fitness.manifests(&election, fitness)?;
                if !fitness.fit || !fitness.reasons.is_empty() {
                    warn!(%election, fit = fitness.fit, reasons = ?fitness.reasons, "fitness changed");
                } else {
                    info!(%election, fit = true, "fitness changed");
                }
                Some(Event::Fitness { election, fitness })
            }
            ManifestEvent::Sources { election, manifests } => {
                let question = self.places.manifests(&election, manifests);
                self.describe(&election);
                if let Some(question) = question {
                    self.ask_placement(&election, question);
                }
                None
            }
            ManifestEvent::Withdrawn { op, election, result } => {
                if result.is_ok() {
                    info!(%election, "exclusive effects withdrawn");
                }
                Some(Event::Withdrawn { op, result })
            }
            ManifestEvent::Placed { election, token, .. } => {
                info!(%election, %token, "leading: exclusive effects in place");
                None
            }
            ManifestEvent::NotPlaced { election, token, reason } => {
                error!(%election, %token, reason, "holds the term but could not place its manifests");
                None
            }
            ManifestEvent::Replaced { election, path } => {
                info!(%election, path = %path.display(), "changed source carried over");
                None
            }
            ManifestEvent::Repaired { election, path, damage } => {
                warn!(%election, path = %path.display(), ?damage, "repaired");
                None
            }
            ManifestEvent::Alarm { election, alarm } => {
                error!(%election, ?alarm, "manifest alarm");
                None
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
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
            Action::Lead { election, token, .. } => {
                self.memory.token(&election, token);
                self.want(&election, Wish::Lead { token });
            }
            Action::Follow { election, holder } => {
                self.want(&election, Wish::Follow { holder });
            }
            Action::Withdraw { op, election } => {
                self.want(&election, Wish::Withdraw);
                self.manifests.withdraw(&election, op);
            }
            Action::StopCheck { op, election } => self.stop_check(op, &election),
            Action::Notice(notice) => self.notice(&notice),
            Action::Exit(exit) => {
                self.ended = Some(match exit {
                    Exit::Stopped => Ended::Stopped,
                    Exit::NameTaken { nonce, addresses } => Ended::NameTaken { nonce, addresses },
                    Exit::StoreWentBack { known, seen } => Ended::StoreWentBack { known, seen },
                });
            }
        }
    }

    fn send(&self, op: OpId, request: Request, timeout: Duration) {
        let (store, inputs) = (Arc::clone(&self.store), self.inputs.clone());
        let read = matches!(request, Request::List | Request::ReadLeader { .. });
        tokio::spawn(async move {
            let result = store.execute(request, timeout).await;
            // The loop has ended: nobody waits for the reply.
            let _ = inputs.send(Input::Reply { op, read, result });
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

    fn rank(&self, op: OpId, view: View) {
        let inputs = self.inputs.clone();
        let binding = self.policies.binding(&view.election);
        tokio::task::spawn_blocking(move || {
            let result: Result<Ranking, String> = match binding {
                Some(binding) => binding.rank(&view),
                None => Err("no policy is loaded yet".to_owned()),
            };
            let _ = inputs.send(Input::Core(Event::Ranked { op, result }));
        });
    }

    fn describe(&self, election: &ElectionName) {
        let Some(binding) = self.policies.binding(election) else { return };
        let Some(manifests) = self.places.known_manifests(election).cloned() else { return };
        let (node, election, inputs) = (self.node_view(), election.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let facts = binding.describe(&node, &manifests);
            let policy = binding.version();
            let _ = inputs.send(Input::Described { election, facts, policy });
        });
    }

    fn node_view(&self) -> NodeView {
        let node = &self.config.node;
        NodeView {
            name: node.name.clone(),
            labels: node.labels.clone(),
            variables: node.variables.clone(),
        }
    }

    fn want(&mut self, election: &ElectionName, wish: Wish) {
        if let Some(question) = self.places.wish(election, wish) {
            self.ask_placement(election, question);
        }
    }

    fn ask_placement(&self, election: &ElectionName, question: Question) {
        let binding = self.policies.binding(election);
        let (view, node) = (self.core.view(election), self.node_view());
        let (election, inputs) = (election.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let Question { number, role, manifests } = question;
            let result = match &binding {
                Some(binding) => binding.place(&view, &node, role, &manifests),
                None => Ok(Binding::builtin_place(role, &manifests)),
            };
            let result = result.or_else(|reason| {
                error!(%election, ?role, reason, "policy could not place manifests");
                match binding.map(|binding| binding.on_failure()) {
                    Some(OnPolicyFailure::Hold) => Err(reason),
                    _ => Ok(Binding::builtin_place(role, &manifests)),
                }
            });
            let _ = inputs.send(Input::Placed { election, number, result });
        });
    }

    fn placed(
        &mut self,
        election: &ElectionName,
        number: u64,
        result: Result<Vec<Placement>, String>,
    ) {
        let Some(wish) = self.places.answered(election, number).cloned() else { return };
        // With `hold`, what is in place stays as it is.
        let Ok(placements) = result else { return };
        let told = match wish {
            Wish::Lead { token } => self.manifests.lead(election, token, placements),
            Wish::Follow { holder } => self.manifests.follow(election, holder, placements),
            Wish::Withdraw => Ok(()),
        };
        if let Err(error) = told {
            // Terms of elections that are no longer configured are only withdrawn.
            error!(%election, %error, "the manifest loop does not know this election");
        }
    }

    fn stop_check(&self, op: OpId, election: &ElectionName) {
        let inputs = self.inputs.clone();
        let election = election.clone();
        let check = self.config.elections.iter().find(|e| e.name == election);
        let check = check.and_then(|e| e.stop_check.clone());
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
            let _ = inputs.send(Input::Core(Event::StopChecked { op, stopped }));
        });
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Stuck { election, reason, .. } => {
                let told = self.stuck_told.insert(election.clone(), reason.clone());
                if told.as_ref() == Some(reason) {
                    return; // tried again, the same is in the way
                }
                notices::log(notice);
                self.run_on_stuck(election, reason);
            }
            Notice::Unstuck { election } => {
                self.stuck_told.remove(election);
                notices::log(notice);
            }
            _ => notices::log(notice),
        }
    }

    fn run_on_stuck(&self, election: &ElectionName, reason: &str) {
        let found = self.config.elections.iter().find(|e| e.name == *election);
        let Some(command) = found.and_then(|e| e.on_stuck.clone()) else { return };
        let Some((program, arguments)) = command.split_first() else { return };
        let node: &NodeName = &self.config.node.name;
        let started = tokio::process::Command::new(program)
            .args(arguments)
            .env("CONCLAVE_ELECTION", election.as_str())
            .env("CONCLAVE_NODE", node.as_str())
            .env("CONCLAVE_REASON", reason)
            .stdin(std::process::Stdio::null())
            .spawn();
        match started {
            Err(error) => error!(%election, program, %error, "cannot run the on_stuck command"),
            Ok(mut child) => {
                let election = election.clone();
                tokio::spawn(async move {
                    let status = child.wait().await.map(|status| status.to_string());
                    warn!(%election, ?status, "the on_stuck command ended");
                });
            }
        }
    }
}

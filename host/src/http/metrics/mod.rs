//! Metrics, in the form that Prometheus reads. What counts is counted where it happens; what is so now is
//! read off the board when somebody asks (`now`).

mod now;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conclave_core::Notice;
use conclave_core::record::EndReason;
use conclave_core::{ElectionName, Token};
use conclave_policy::Usage;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::board::Board;
use now::Now;

/// Which election.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfElection {
    election: String,
}

/// Which election, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfReason {
    election: String,
    reason: &'static str,
}

/// Which election, and what happened to its manifests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfEvent {
    election: String,
    event: &'static str,
}

/// Which kind of error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    kind: &'static str,
}

/// Which hook, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfHook {
    election: String,
    hook: &'static str,
    outcome: &'static str,
}

/// Which policy, and which of its functions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfPolicy {
    policy: String,
    function: &'static str,
}

/// Which policy and function, and why it gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfCause {
    policy: String,
    function: &'static str,
    cause: &'static str,
}

/// A histogram of each election's spans.
type Spans = Family<OfElection, Histogram>;

/// When something began that is not over yet, in each election.
type Since = Mutex<BTreeMap<ElectionName, Instant>>;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    terms_began: Family<OfElection, Counter>,
    terms_ended: Family<OfReason, Counter>,
    holder_changes: Family<OfElection, Counter>,
    sessions_lost: Counter,
    policy_failures: Family<OfElection, Counter>,
    store_errors: Family<OfKind, Counter>,
    beats: Histogram,
    manifest_events: Family<OfEvent, Counter>,
    shadow_decisions: Family<OfDecision, Counter>,
    policy_kept_out: Family<OfElection, Gauge>,
    hook_runs: Family<OfHook, Counter>,
    policy_time: Family<OfPolicy, Histogram>,
    policy_fuel: Family<OfPolicy, Counter>,
    policy_errors: Family<OfCause, Counter>,
    /// How long nobody held it before a term of this node.
    gaps: Spans,
    /// From beginning to withdraw to the term being another's.
    handovers: Spans,
    withdrawing: Since,
    /// From taking a term to everything being in place.
    placings: Spans,
    began: Mutex<BTreeMap<ElectionName, (Token, Instant)>>,
}

/// Which decision, and how the shadow's compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfDecision {
    election: String,
    function: &'static str,
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Metrics {
            terms_began: Family::default(),
            terms_ended: Family::default(),
            holder_changes: Family::default(),
            sessions_lost: Counter::default(),
            policy_failures: Family::default(),
            store_errors: Family::default(),
            // From a quarter of a millisecond, an idle disk's, to 8 s, a lost one's.
            beats: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            manifest_events: Family::default(),
            shadow_decisions: Family::default(),
            policy_kept_out: Family::default(),
            hook_runs: Family::default(),
            // From 5 µs, an empty sandbox, to 0.16 s, more than one may take.
            policy_time: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_005, 2.0, 16))
            }),
            policy_fuel: Family::default(),
            policy_errors: Family::default(),
            gaps: Family::new_with_constructor(spans),
            handovers: Family::new_with_constructor(spans),
            withdrawing: Since::default(),
            placings: Family::new_with_constructor(spans),
            began: Mutex::default(),
        }
    }

    /// A hook was run, or left out.
    pub(crate) fn hook(&self, election: &ElectionName, hook: &'static str, outcome: &'static str) {
        let label = OfHook { election: election.to_string(), hook, outcome };
        self.hook_runs.get_or_create(&label).inc();
    }

    /// A policy was asked.
    pub(crate) fn policy(
        &self,
        policy: &str,
        function: &'static str,
        usage: Usage,
        failure: Option<&'static str>,
    ) {
        let label = OfPolicy { policy: policy.to_owned(), function };
        self.policy_time.get_or_create(&label).observe(usage.elapsed.as_secs_f64());
        self.policy_fuel.get_or_create(&label).inc_by(usage.fuel);
        if let Some(cause) = failure {
            let label = OfCause { policy: policy.to_owned(), function, cause };
            self.policy_errors.get_or_create(&label).inc();
        }
    }

    /// This node begins to withdraw what only the leader may have.
    pub(crate) fn withdrawing(&self, election: &ElectionName) {
        lock(&self.withdrawing).entry(election.clone()).or_insert_with(Instant::now);
    }

    /// What only the leader may have is in place.
    pub(crate) fn placed(&self, election: &ElectionName, token: Token) {
        let mut began = lock(&self.began);
        // A changed source is placed again in the same term.
        if let Some((_, since)) = began.get(election).filter(|(of, _)| *of == token) {
            let label = OfElection { election: election.to_string() };
            self.placings.get_or_create(&label).observe(since.elapsed().as_secs_f64());
            began.remove(election);
        }
    }

    /// A term of this node ended, perhaps by being handed over.
    fn left(&self, election: &ElectionName, handed_over: bool) {
        lock(&self.began).remove(election);
        let since = lock(&self.withdrawing).remove(election);
        if let Some(since) = since.filter(|_| handed_over) {
            let label = OfElection { election: election.to_string() };
            self.handovers.get_or_create(&label).observe(since.elapsed().as_secs_f64());
        }
    }

    /// The plugin directory was looked at: whether an election's component there cannot be used.
    pub(crate) fn plugin(&self, election: &ElectionName, kept_out: bool) {
        let label = OfElection { election: election.to_string() };
        self.policy_kept_out.get_or_create(&label).set(kept_out.into());
    }

    /// A shadow was asked what its election's policy decided.
    pub(crate) fn shadow(
        &self,
        election: &ElectionName,
        function: &'static str,
        outcome: &'static str,
    ) {
        let label = OfDecision { election: election.to_string(), function, outcome };
        self.shadow_decisions.get_or_create(&label).inc();
    }

    /// What an election's shadow was asked so far, by outcome; empty where there is none.
    pub(crate) fn shadow_counts(&self, election: &ElectionName) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for outcome in ["same", "different", "failed", "skipped"] {
            for function in ["rank", "describe", "place"] {
                let label = OfDecision { election: election.to_string(), function, outcome };
                if let Some(count) = self.shadow_decisions.get(&label) {
                    *counts.entry(outcome).or_default() += count.get();
                }
            }
        }
        counts
    }

    /// The core told something.
    pub(crate) fn notice(&self, notice: &Notice) {
        let of = |election: &ElectionName| OfElection { election: election.to_string() };
        match notice {
            Notice::TermBegan { election, token, gap, .. } => {
                self.terms_began.get_or_create(&of(election)).inc();
                if let Some(gap) = gap {
                    self.gaps.get_or_create(&of(election)).observe(gap.as_secs_f64());
                }
                lock(&self.began).insert(election.clone(), (*token, Instant::now()));
            }
            Notice::TermEnded { election, why, successor, .. } => {
                self.left(election, successor.is_some());
                let label = OfReason { election: election.to_string(), reason: reason(*why) };
                self.terms_ended.get_or_create(&label).inc();
            }
            Notice::HolderChanged { election, .. } => {
                self.holder_changes.get_or_create(&of(election)).inc();
            }
            Notice::SessionLost { .. } => {
                self.sessions_lost.inc();
            }
            Notice::PolicyFailed { election, .. } => {
                self.policy_failures.get_or_create(&of(election)).inc();
            }
            _ => {}
        }
    }

    /// The store did not answer.
    pub(crate) fn store_error(&self, kind: &'static str) {
        self.store_errors.get_or_create(&OfKind { kind }).inc();
    }

    /// A beat was confirmed after this long.
    pub(crate) fn beat(&self, took: Duration) {
        self.beats.observe(took.as_secs_f64());
    }

    /// Something happened to an election's manifests.
    pub(crate) fn manifest(&self, election: &ElectionName, event: &'static str) {
        let label = OfEvent { election: election.to_string(), event };
        self.manifest_events.get_or_create(&label).inc();
    }

    /// Everything, as text.
    pub(crate) fn encode(&self, board: &Arc<Board>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("conclave");
        self.register_counts(&mut registry);
        self.register_spans(&mut registry);
        registry.register_collector(Box::new(Now(Arc::clone(board))));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Metrics {
    fn register_counts(&self, registry: &mut Registry) {
        registry.register("terms_began", "Terms of this node that began", self.terms_began.clone());
        registry.register("terms_ended", "Terms of this node that ended", self.terms_ended.clone());
        registry.register(
            "holder_changes",
            "Changes of the holder in store that this node saw",
            self.holder_changes.clone(),
        );
        registry.register(
            "sessions_lost",
            "Sessions of this node that ended unasked",
            self.sessions_lost.clone(),
        );
        registry.register(
            "policy_failures",
            "Rankings that a policy did not give",
            self.policy_failures.clone(),
        );
        registry.register(
            "store_errors",
            "Requests that the store did not answer",
            self.store_errors.clone(),
        );
        registry.register(
            "manifest_events",
            "What happened to manifests: placed, not_placed, replaced, repaired, alarm, withdrawn, not_withdrawn",
            self.manifest_events.clone(),
        );
        registry.register(
            "policy_kept_out",
            "Whether the component in the plugin directory cannot be used, and an earlier one decides",
            self.policy_kept_out.clone(),
        );
        registry.register(
            "shadow_decisions",
            "What shadow policies were asked: same, different, failed, or skipped where they are behind",
            self.shadow_decisions.clone(),
        );
        registry.register("policy_fuel", "Fuel that a policy used", self.policy_fuel.clone());
        registry.register(
            "hook_runs",
            "Hooks that were run: succeeded, failed, timed_out; or dropped, as too many waited",
            self.hook_runs.clone(),
        );
        registry.register(
            "policy_errors",
            "Questions that a policy did not answer, by cause",
            self.policy_errors.clone(),
        );
    }

    fn register_spans(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "beat",
            "From sending a beat to its confirmation",
            Unit::Seconds,
            self.beats.clone(),
        );
        for (name, help, spans) in [
            ("gap", "How long nobody held an election before a term of this node", &self.gaps),
            (
                "handover",
                "From beginning to withdraw to the term being another node's",
                &self.handovers,
            ),
            ("placing", "From taking a term to everything being in place", &self.placings),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, spans.clone());
        }
        registry.register_with_unit(
            "policy_call",
            "What a policy's answer took",
            Unit::Seconds,
            self.policy_time.clone(),
        );
    }
}

/// From a millisecond, a handover on a quick machine, to half a minute, a takeover with its delay.
fn spans() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reason as a label.
fn reason(why: EndReason) -> &'static str {
    match why {
        EndReason::Silent => "silent",
        EndReason::Stopping => "stopping",
        EndReason::Ranking => "ranking",
        EndReason::Transfer => "transfer",
        EndReason::Cordon => "cordon",
        EndReason::Unfit => "unfit",
        EndReason::Excluded => "excluded",
        EndReason::Competitor => "competitor",
        EndReason::Unsettled => "unsettled",
        EndReason::Unconfigured => "unconfigured",
    }
}

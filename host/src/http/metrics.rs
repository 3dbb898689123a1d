//! Metrics, in the form that Prometheus reads. What counts is counted where it happens; what is so now is
//! read off the board when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use conclave_core::Notice;
use conclave_core::record::EndReason;
use conclave_core::status::Phase;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::answers;
use super::board::Board;

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
        }
    }

    /// The plugin directory was looked at: whether an election's component there cannot be used.
    pub(crate) fn plugin(&self, election: &conclave_core::ElectionName, kept_out: bool) {
        let label = OfElection { election: election.to_string() };
        self.policy_kept_out.get_or_create(&label).set(kept_out.into());
    }

    /// A shadow was asked what its election's policy decided.
    pub(crate) fn shadow(
        &self,
        election: &conclave_core::ElectionName,
        function: &'static str,
        outcome: &'static str,
    ) {
        let label = OfDecision { election: election.to_string(), function, outcome };
        self.shadow_decisions.get_or_create(&label).inc();
    }

    /// What an election's shadow was asked so far, by outcome; empty where there is none.
    pub(crate) fn shadow_counts(
        &self,
        election: &conclave_core::ElectionName,
    ) -> BTreeMap<&'static str, u64> {
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
        let of =
            |election: &conclave_core::ElectionName| OfElection { election: election.to_string() };
        match notice {
            Notice::TermBegan { election, .. } => {
                self.terms_began.get_or_create(&of(election)).inc();
            }
            Notice::TermEnded { election, why, .. } => {
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
    pub(crate) fn manifest(&self, election: &conclave_core::ElectionName, event: &'static str) {
        let label = OfEvent { election: election.to_string(), event };
        self.manifest_events.get_or_create(&label).inc();
    }

    /// Everything, as text.
    pub(crate) fn encode(&self, board: &std::sync::Arc<Board>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("conclave");
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
        registry.register_with_unit(
            "beat",
            "From sending a beat to its confirmation",
            Unit::Seconds,
            self.beats.clone(),
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
        registry.register_collector(Box::new(Now(std::sync::Arc::clone(board))));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
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

/// What is so at this moment.
#[derive(Clone)]
struct Now(std::sync::Arc<Board>);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// Every phase, each a series of its own.
const PHASES: [Phase; 7] = [
    Phase::Spectating,
    Phase::Standby,
    Phase::Campaigning,
    Phase::Waiting,
    Phase::Leading,
    Phase::Withdrawing,
    Phase::Stuck,
];

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let board = &self.0;
        let snapshot = board.read();
        let valid_for = board.valid_for(&snapshot);
        let mut gauge = |name: &str, help: &str, values: Vec<(Vec<(&str, String)>, f64)>| {
            let kind = ConstGauge::new(0.0_f64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in values {
                let encoder = metric.encode_family(&labels)?;
                ConstGauge::new(value).encode(encoder)?;
            }
            Ok::<(), fmt::Error>(())
        };
        let number = |holds: bool| if holds { 1.0 } else { 0.0 };
        let elections = || snapshot.elections.iter();
        let of = |election: &conclave_core::ElectionName| vec![("election", election.to_string())];
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let who = vec![
            ("cluster", board.cluster.clone()),
            ("node", board.node.to_string()),
            ("version", version),
        ];
        gauge("node_info", "Which node this is", vec![(who, 1.0)])?;
        gauge(
            "session_valid_seconds",
            "How long this node's terms stand if no beat is confirmed any more",
            vec![(Vec::new(), valid_for.as_secs_f64())],
        )?;
        gauge(
            "store_answers",
            "Whether the store answered when it was last asked",
            vec![(Vec::new(), number(snapshot.store_answers))],
        )?;
        let phases = elections().flat_map(|(name, it)| {
            PHASES.map(|phase| {
                let labels = vec![
                    ("election", name.to_string()),
                    ("phase", answers::phase(phase).to_owned()),
                ];
                (labels, number(it.phase == phase))
            })
        });
        gauge("phase", "What this node does in an election", phases.collect())?;
        let role = |it| answers::role(it, valid_for);
        let leads =
            elections().map(|(name, it)| (of(name), number(role(it) == answers::Role::Leader)));
        gauge("leader", "Whether this node leads, within its deadline", leads.collect())?;
        let without = elections().map(|(name, it)| {
            let leads = role(it) == answers::Role::Leader;
            (of(name), number(leads && it.placed != it.token))
        });
        gauge(
            "leader_without_manifests",
            "Whether this node leads and what follows the leader is not in place: look at once",
            without.collect(),
        )?;
        let tokens =
            elections().filter_map(|(name, it)| Some((of(name), it.holder.as_ref()?.1.0 as f64)));
        gauge("holder_token", "The fencing token of the holder in store", tokens.collect())?;
        let held = elections().map(|(name, it)| (of(name), number(it.holder.is_some())));
        gauge("held", "Whether the store names a holder", held.collect())?;
        let fit = elections().map(|(name, it)| {
            (of(name), number(it.fitness.as_ref().is_some_and(|fitness| fitness.fit)))
        });
        gauge("fit", "Whether this node could lead, by its manifests and checks", fit.collect())
    }
}

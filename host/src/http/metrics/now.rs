//! What is so at this moment, read off the board when somebody asks.

use std::fmt;
use std::sync::Arc;

use conclave_core::ElectionName;
use conclave_core::status::Phase;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::http::answers;
use crate::http::board::Board;

/// What is so at this moment.
#[derive(Clone)]
pub(super) struct Now(pub(super) Arc<Board>);

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
        let of = |election: &ElectionName| vec![("election", election.to_string())];
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

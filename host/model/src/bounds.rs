//! How far the exploration goes.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::{ElectionName, ElectionSettings, NodeName, Settings, Timings};

use crate::faults::FaultKind;

/// How the nodes are found at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All of them are being started, over an empty store.
    Scratch,
    /// They have run for a while without faults: the first one leads, the others stand by.
    Led,
}

/// The bounds of one exploration. Durations are in ticks.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How many nodes: `n0`, `n1`, …
    pub nodes: usize,
    /// How many elections: `x`, `y`, …
    pub elections: usize,
    /// What is found at the beginning.
    pub start: Start,
    /// How many ticks pass after that.
    pub ticks: u32,
    /// How many faults happen at most.
    pub faults: u8,
    /// Of which kinds they are.
    pub kinds: Vec<FaultKind>,
    /// How often operators intervene at most.
    pub operators: u8,
    /// In which ways they do.
    pub operations: Vec<FaultKind>,
    /// Whether guards act at the deadline. Without them the daemons alone must withdraw in time.
    pub guards: bool,
    /// The TTL.
    pub ttl: u32,
    /// How long before the expiry withdrawing starts.
    pub margin: u32,
    /// Between beats.
    pub beat: u32,
    /// After this a request's outcome is unknown.
    pub timeout: u32,
    /// Between the campaigns of successively ranked candidates. With none they race.
    pub stagger: u32,
    /// What a new leader waits after an unclean end.
    pub takeover_delay: u32,
    /// Whether a stop check must hold before a handover; it always does.
    pub stop_check: bool,
    /// The bound on the clocks' rate error, in parts per million.
    pub rate_bound: u32,
    /// The rate error of each node's clock, in parts per million; none for nodes beyond.
    pub rates: Vec<i64>,
}

/// One tick of the model: at least the core's first retry after a failure, and so short that what
/// policies are told in whole seconds never changes within the bounds.
pub(crate) const TICK: Duration = Duration::from_millis(40);

impl Bounds {
    /// Nodes that run one election which the first of them leads, with every kind of fault.
    pub fn led(nodes: usize, ticks: u32, faults: u8) -> Self {
        Bounds {
            nodes,
            elections: 1,
            start: Start::Led,
            ticks,
            faults,
            kinds: FaultKind::FAULTS.to_vec(),
            operators: 0,
            operations: FaultKind::OPERATIONS.to_vec(),
            guards: true,
            ttl: 4,
            margin: 1,
            beat: 2,
            timeout: 1,
            stagger: 0,
            takeover_delay: 0,
            stop_check: false,
            rate_bound: 0,
            rates: Vec::new(),
        }
    }

    /// Nodes that are started together over an empty store.
    pub fn started(nodes: usize, ticks: u32, faults: u8) -> Self {
        Bounds { start: Start::Scratch, ..Bounds::led(nodes, ticks, faults) }
    }

    /// The same without guards, and without what only they can answer for.
    pub fn without_guards(mut self) -> Self {
        self.guards = false;
        self.kinds.retain(|kind| !kind.needs_guard());
        self
    }

    /// The same with one intervention of an operator.
    pub fn with_operator(self) -> Self {
        Bounds { operators: 1, ..self }
    }

    /// The same with nothing but these faults and interventions.
    pub fn with_only(mut self, kinds: &[FaultKind]) -> Self {
        self.kinds.retain(|kind| kinds.contains(kind));
        self.operations.retain(|kind| kinds.contains(kind));
        self
    }

    /// The same with clocks of these rates, within this bound, in parts per million.
    pub fn with_rates(self, rate_bound: u32, rates: &[i64]) -> Self {
        Bounds { rate_bound, rates: rates.to_vec(), ..self }
    }

    /// How many ticks without a leader S7 allows, once nothing is disturbed: the protocol's
    /// bound with every part rounded up to ticks.
    pub fn patience(&self) -> u32 {
        let silence = self.timings().silence(TICK * self.ttl);
        let silence = u32::try_from(silence.as_micros().div_ceil(TICK.as_micros()));
        /// The protocol's half second is for the requests; each of the few that a takeover needs
        /// may find its retry rounded up to a tick.
        const REQUESTS: u32 = 4;
        let nodes = u32::try_from(self.nodes).unwrap_or(u32::MAX);
        silence.unwrap_or(u32::MAX) + self.stagger * nodes + self.takeover_delay + REQUESTS
    }

    /// How long anything that happened counts: the longest that anybody waits after something.
    pub(crate) fn memory(&self) -> Duration {
        let waits = [
            self.timings().silence(TICK * self.ttl),
            TICK * self.takeover_delay,
            TICK * self.stagger * u32::try_from(self.nodes).unwrap_or(u32::MAX),
        ];
        waits.into_iter().max().unwrap_or_default() + TICK
    }

    fn timings(&self) -> Timings {
        Timings {
            ttl: TICK * self.ttl,
            margin: TICK * self.margin,
            beat: TICK * self.beat,
            request_timeout: TICK * self.timeout,
            clock_rate_error_ppm: self.rate_bound,
            stagger: TICK * self.stagger,
            offer_timeout: TICK * self.timeout,
            ..Timings::for_ttl(TICK * self.ttl)
        }
    }

    pub(crate) fn election_names(&self) -> impl Iterator<Item = ElectionName> + use<> {
        // Names that are no hexadecimal numbers: see `canonical`.
        ["x", "y", "z"].into_iter().take(self.elections).map(ElectionName::from)
    }

    pub(crate) fn node_name(n: usize) -> NodeName {
        NodeName::new(format!("n{n}"))
    }

    /// The settings of a node without a past.
    pub(crate) fn settings(&self, n: usize) -> Settings {
        let election = ElectionSettings {
            takeover_delay: TICK * self.takeover_delay,
            stop_check: self.stop_check,
            ..ElectionSettings::default()
        };
        Settings {
            node: Self::node_name(n),
            nonce: "unset".into(),
            boot_id: String::new(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            version: String::new(),
            timings: self.timings(),
            elections: self.election_names().map(|name| (name, election.clone())).collect(),
            past: Default::default(),
        }
    }
}

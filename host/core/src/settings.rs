//! What the core is told once, at its creation.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{ElectionName, NodeName, Nonce, Revision, SessionId, Token};
use crate::record::Attributes;

/// A node's settings, already checked against each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This node's name.
    pub node: NodeName,
    /// Distinguishes this life of the daemon.
    pub nonce: Nonce,
    /// The machine's boot.
    pub boot_id: String,
    /// Where a person finds this daemon.
    pub addresses: Vec<String>,
    /// The node's labels.
    pub labels: Attributes,
    /// The daemon's version.
    pub version: String,
    /// The durations.
    pub timings: Timings,
    /// The elections that this node takes part in.
    pub elections: BTreeMap<ElectionName, ElectionSettings>,
    /// What a previous life of this node left behind.
    pub past: Past,
}

/// The durations of the protocol; see its "Defaults".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timings {
    /// How long a session outlives its newest beat.
    pub ttl: Duration,
    /// How long before the expiry withdrawing starts.
    pub margin: Duration,
    /// The time between beats.
    pub beat: Duration,
    /// After this a request's outcome is unknown.
    pub request_timeout: Duration,
    /// The bound on each clock's rate error, in parts per million.
    pub clock_rate_error_ppm: u32,
    /// The delay between campaigns of successively ranked candidates.
    pub stagger: Duration,
    /// The largest such delay.
    pub stagger_cap: Duration,
    /// For how long a term is not given up voluntarily.
    pub minimum_term: Duration,
    /// How long an offer stands before the next candidate is asked.
    pub offer_timeout: Duration,
    /// How long the core waits for a ranking before the built-in one stands in; longer than the
    /// policy's own limit, which the policy host enforces.
    pub ranking_timeout: Duration,
    /// How often everything is read again although the watch reports nothing.
    pub relist: Duration,
    /// How many ended terms of an election are kept.
    pub history: usize,
}

impl Default for Timings {
    fn default() -> Self {
        Timings::for_ttl(Duration::from_secs(10))
    }
}

impl Timings {
    /// The protocol's defaults for a TTL.
    pub fn for_ttl(ttl: Duration) -> Self {
        Timings {
            ttl,
            margin: (ttl / 10).max(Duration::from_millis(100)),
            beat: ttl / 5,
            request_timeout: ttl / 5,
            clock_rate_error_ppm: 1_000,
            stagger: Duration::from_millis(50),
            stagger_cap: Duration::from_secs(1),
            minimum_term: Duration::from_secs(30),
            offer_timeout: Duration::from_millis(200),
            ranking_timeout: Duration::from_millis(250),
            relist: ttl.max(Duration::from_secs(10)),
            history: 100,
        }
    }

    /// How long an observer must have seen no change of a session with this TTL before it may
    /// end it: `TTL × (1+ρ)/(1−ρ)`, rounded up.
    pub fn silence(&self, ttl: Duration) -> Duration {
        let rho = u128::from(self.clock_rate_error_ppm.min(500_000));
        let micros = (ttl.as_micros() * (1_000_000 + rho)).div_ceil(1_000_000 - rho);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// What one election asks of the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ElectionSettings {
    /// What a new leader waits before placing, after an unclean end.
    pub takeover_delay: Duration,
    /// Whether a stop check must hold before a planned handover goes on.
    pub stop_check: bool,
    /// While its policy fails: keep an incumbent and elect nobody new, rather than fall back to
    /// the built-in ranking.
    pub hold_on_policy_failure: bool,
}

/// What is known of earlier lives of this node, from the state directory and the shared page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Past {
    /// The instance nonce of a session record whose owner is proven dead: the lock is ours, and
    /// the ledger under it names this nonce and boot.
    pub dead: Option<Nonce>,
    /// The session that a daemon under the same guard left standing, with the terms on it.
    pub adopt: Option<Adoption>,
    /// The highest revision ever seen in a response.
    pub revision: Revision,
    /// The highest token ever seen, by election.
    pub tokens: BTreeMap<ElectionName, Token>,
}

/// A session to go on with. The shared page's deadline for it must not have passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adoption {
    /// The session.
    pub session: SessionId,
    /// Its record's nonce: the adopting daemon keeps it.
    pub nonce: Nonce,
    /// Its deadline as the shared page has it, by the fast clock of the `now` that creates the core.
    pub deadline: crate::time::Time,
    /// The terms with exclusive effects in place.
    pub terms: BTreeMap<ElectionName, Token>,
}

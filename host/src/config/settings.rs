//! From the configuration to what the core is told.

use std::time::Duration;

use conclave_core::{ElectionSettings, Nonce, Past, Settings};

use super::{Config, OnPolicyFailure};

/// How much longer than a policy may take the core waits for its answer: it may have to queue.
const RANKING_ROOM: Duration = Duration::from_millis(150);

/// What a life of the daemon adds to its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Distinguishes this life from every other.
    pub nonce: Nonce,
    /// The machine's boot.
    pub boot_id: String,
    /// Where a person finds this daemon.
    pub addresses: Vec<String>,
    /// What earlier lives left behind.
    pub past: Past,
}

impl Config {
    /// The core's settings for one life of the daemon.
    pub fn settings(&self, instance: Instance) -> Settings {
        let elections = self.elections.iter().map(|election| {
            let settings = ElectionSettings {
                takeover_delay: election.takeover_delay,
                stop_check: election.stop_check.is_some(),
                hold_on_policy_failure: election.on_policy_failure == OnPolicyFailure::Hold,
            };
            (election.name.clone(), settings)
        });
        let mut timings = self.timings.protocol.clone();
        if let Some(limit) = self.policies.longest_time() {
            // Otherwise the core would stop waiting before the policy may stop thinking.
            timings.ranking_timeout = timings.ranking_timeout.max(limit + RANKING_ROOM);
        }
        Settings {
            node: self.node.name.clone(),
            nonce: instance.nonce,
            boot_id: instance.boot_id,
            addresses: instance.addresses,
            labels: self.node.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timings,
            elections: elections.collect(),
            past: instance.past,
        }
    }
}

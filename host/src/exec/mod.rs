//! `conclave exec`: a command that runs while this node leads.
//!
//! The command's processes are an exclusive effect as manifests are: claimed on the guard's page before they can do
//! anything, and ended by the guard at the deadline, whatever the daemon is doing. They live in a control group of
//! their own, so that none of them escapes; where there is none to be had, in a process group.
//!
//! ```text
//! daemon: start a stub in the group ── claim it on the page ── gate open? ── tell the stub: it becomes the command
//!                                          guard, from then on: kills the group at the deadline
//! ```
//!
//! What a daemon started ends with it: the guard ends it before the next daemon begins.

mod group;
mod runner;
pub(crate) mod stub;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use conclave_core::{ElectionName, NodeName};

use crate::config::{
    Config, DEFAULT_POLICY, ElectionConfig, ElectionPlaces, NodeConfig, OnPolicyFailure,
    PoliciesConfig, StoreConfig, TimingsConfig,
};

pub(crate) use runner::{Finished, Runner};

/// What runs while this node leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// Program and arguments; never empty.
    pub arguments: Vec<OsString>,
    /// How long it has to end by itself when it is asked to, before it is killed. Past a deadline there is
    /// no time for that.
    pub grace: Duration,
}

/// Everything that a node needs to know that takes part for a command alone.
pub(crate) struct Part {
    pub(crate) cluster: String,
    pub(crate) store: StoreConfig,
    pub(crate) timings: TimingsConfig,
    pub(crate) election: String,
    pub(crate) node: String,
    pub(crate) state_directory: PathBuf,
    pub(crate) command: CommandConfig,
}

/// The configuration of such a node: one election, no manifests.
pub(crate) fn config(part: Part) -> Config {
    let election = ElectionConfig {
        name: ElectionName::new(part.election),
        policy: DEFAULT_POLICY.to_owned(),
        policy_config: serde_json::Value::Object(serde_json::Map::new()),
        shadow: None,
        on_policy_failure: OnPolicyFailure::Builtin,
        manifests: Vec::new(),
        manifest_directory: None,
        fitness: Vec::new(),
        stop_check: None,
        takeover_delay: Duration::ZERO,
        overlap_accepted: true,
        role_file: None,
        on_stuck: None,
        hooks: None,
        command: Some(part.command),
        places: ElectionPlaces::default(),
    };
    Config {
        cluster: part.cluster,
        node: NodeConfig {
            name: NodeName::new(part.node),
            labels: Default::default(),
            variables: Default::default(),
            fitness: Vec::new(),
        },
        store: part.store,
        timings: part.timings,
        policies: PoliciesConfig::default(),
        state_directory: part.state_directory,
        http: None,
        elections: vec![election],
    }
}

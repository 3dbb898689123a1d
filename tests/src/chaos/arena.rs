//! Where a run takes place: etcd, nodes, a link from each to each, and a disk and a policy of
//! each node's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::{Cluster, Plan};
use crate::disk::Failure;
use crate::etcd::{Etcd, Version};
use crate::gateway::Gateway;
use crate::node::Node;
use crate::pod::{CONTROLLER_MANAGER, EXCLUSIVE, SCHEDULER, manifest_naming_its_term};
use crate::process::alive;

/// How many members the store has.
pub const MEMBERS: usize = 3;

/// The nodes' names, of which a run takes as many as it wants.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The policy's name in the configuration, and of its file.
const POLICY: &str = "chosen";

/// How an arena is to be.
#[derive(Debug, Clone)]
pub struct Design {
    /// How many nodes: three to five.
    pub nodes: usize,
    /// Their TTL.
    pub ttl: Duration,
    /// Which etcd.
    pub version: Version,
    /// How the nodes' disks can fail; they have none of their own where these are none.
    pub failures: &'static [Failure],
}

/// The scene of a run.
pub struct Arena {
    /// Nodes, links, members and the observer.
    pub cluster: Cluster,
}

impl Arena {
    /// Sets everything up and starts the nodes.
    ///
    /// # Errors
    ///
    /// When something of it does not come up.
    pub fn start(design: &Design) -> Result<Self> {
        let ttl: &'static str = format!("{}ms", design.ttl.as_millis()).leak();
        let disks = !design.failures.is_empty();
        let plan = Plan { version: design.version, members: MEMBERS, ttl, disks };
        let names = &NAMES[..design.nodes];
        let mut cluster = Cluster::prepare_with(names, &plan, furnish)?;
        cluster.nodes.iter_mut().try_for_each(Node::start)?;
        Ok(Arena { cluster })
    }

    /// The node that leads, as far as can be seen, if exactly one does.
    pub fn leader(&self) -> Option<String> {
        self.cluster.observer.holder(&EXCLUSIVE)
    }

    /// What each node's session was last written at, if every node has a daemon, and a candidacy
    /// that belongs to the session that it has.
    pub fn standing(&mut self) -> Option<BTreeMap<String, u64>> {
        let standing = self.cluster.candidates().ok()?;
        if standing.len() < self.cluster.nodes.len() {
            return None;
        }
        // Last, because looking through all processes is the dearest.
        for node in &mut self.cluster.nodes {
            node.guard().ok()?.children().into_iter().find(|pid| alive(*pid))?;
        }
        Some(standing)
    }

    /// The members, the leader first.
    pub fn members(&self) -> Vec<usize> {
        let leads =
            |etcd: &Etcd| Gateway::connect(etcd.address()).and_then(|mut gateway| gateway.leads());
        let mut members: Vec<usize> = (0..self.cluster.etcd.len()).collect();
        members.sort_by_key(|member| !leads(&self.cluster.etcd[*member]).unwrap_or(false));
        members
    }

    /// Ends the observation; the store and the nodes' directories are still there.
    ///
    /// # Errors
    ///
    /// When the observer lost its sight.
    pub fn end(self) -> Result<Remains> {
        let Cluster { nodes, observer, links, etcd } = self.cluster;
        let story = observer.finish()?;
        drop(links);
        Ok(Remains { story, nodes, etcd })
    }
}

/// What is left of an arena when its observation has ended.
pub struct Remains {
    /// What was seen.
    pub story: crate::timeline::Timeline,
    /// The nodes, which still run.
    pub nodes: Vec<Node>,
    /// The store.
    pub etcd: Vec<Etcd>,
}

/// Gives a node a policy file of its own and manifests that name their term.
fn furnish(node: &mut Node) -> Result<()> {
    fs::create_dir(policies(node.root()))?;
    restore_policy(node.root())?;
    for file in EXCLUSIVE {
        fs::write(node.sources().join(file), source(file))?;
    }
    let config = node.config();
    config["policies"] = json!({ "directory": "policies" });
    // Leadership is free to move: that makes more handovers, and they may be struck.
    config["timings"]["minimum_term"] = json!("0s");
    let election = &mut config["elections"][0];
    election["policy"] = json!(POLICY);
    for at in 0..EXCLUSIVE.len() {
        election["manifests"][at]["render"] = json!(true);
    }
    Ok(())
}

/// An exclusive manifest's source, as it is while nothing is wrong with it.
pub fn source(file: &str) -> String {
    let name = if file == SCHEDULER { "kube-scheduler" } else { "kube-controller-manager" };
    debug_assert!(file == SCHEDULER || file == CONTROLLER_MANAGER);
    manifest_naming_its_term(name)
}

fn policies(root: &Path) -> PathBuf {
    root.join("policies")
}

/// The policy's file of a node.
pub fn policy(root: &Path) -> PathBuf {
    policies(root).join(POLICY).with_extension("wasm")
}

/// Puts the policy's component where it belongs, whatever is there.
///
/// # Errors
///
/// When it cannot be copied.
pub fn restore_policy(root: &Path) -> Result<()> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/built/cold-standby.wasm");
    let staged = policies(root).join(".staged");
    fs::copy(&built, &staged).with_context(|| format!("copy {}", built.display()))?;
    Ok(fs::rename(staged, policy(root))?)
}

//! Two nodes that differ in how they reach their store, and what is seen of them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::etcd::Etcd;
use crate::node::{Node, control_plane_node};
use crate::observer::Observer;
use crate::pod::EXCLUSIVE;
use crate::{PATIENCE, eventually};

/// The cluster's name in the store.
pub const CLUSTER: &str = "access";

/// Nodes `a` and `b` of one election.
pub struct Pair {
    /// The nodes.
    pub nodes: [Node; 2],
    /// What is seen of them.
    pub observer: Observer,
}

impl Pair {
    /// Starts two nodes that reach etcd by the same settings.
    ///
    /// # Errors
    ///
    /// When they cannot be started.
    pub fn start(store: &Value, ttl: &str) -> Result<Self> {
        Self::start_each([store, store], ttl)
    }

    /// Starts two nodes that reach etcd by settings of their own.
    ///
    /// # Errors
    ///
    /// When they cannot be started.
    pub fn start_each(stores: [&Value; 2], ttl: &str) -> Result<Self> {
        let mut nodes =
            [control_plane_node("a", CLUSTER, &[])?, control_plane_node("b", CLUSTER, &[])?];
        let seen: Vec<(&str, PathBuf)> =
            nodes.iter().map(|node| (node.name(), node.destinations())).collect();
        let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
        for (node, store) in nodes.iter_mut().zip(stores) {
            node.config()["store"]["etcd"] = store.clone();
            node.config()["timings"]["ttl"] = json!(ttl);
            node.start()?;
        }
        Ok(Pair { nodes, observer })
    }

    /// Waits until one leads, whose name it returns, and the other stands by.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn settle(&self, etcd: &Etcd) -> Result<String> {
        let prefix = format!("/conclave/{CLUSTER}/candidates/");
        eventually("both candidates", PATIENCE, || {
            (etcd.keys(&prefix).ok()?.len() == 2).then_some(())
        })?;
        self.observer.wait_for_holder(&EXCLUSIVE)
    }

    /// A node by name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name() == name);
        node.with_context(|| format!("no node {name}"))
    }

    /// Stops the leader, waits for the other, and returns its name.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn hand_over(&mut self, leader: &str) -> Result<String> {
        let status = self.node(leader)?.stop()?;
        ensure!(status.success(), "{status}");
        self.observer.wait_for_new_holder(&EXCLUSIVE, leader)
    }

    /// Ends both, and makes sure that never two led.
    ///
    /// # Errors
    ///
    /// When they did.
    pub fn finish(self) -> Result<()> {
        let story = self.observer.finish()?;
        story.at_most_one_holder(&EXCLUSIVE)?;
        drop(self.nodes);
        Ok(())
    }
}

/// How many beats a node's session has seen.
pub fn beats(etcd: &Etcd, node: &str) -> Option<u64> {
    let record = etcd.value(&format!("/conclave/{CLUSTER}/sessions/{node}")).ok()??;
    serde_json::from_str::<Value>(&record).ok()?["beat"].as_u64()
}

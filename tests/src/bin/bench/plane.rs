//! Nodes of one election, straight on the run's etcd: no link in between that costs time.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use conclave_tests::cluster::candidates;
use conclave_tests::etcd::Etcd;
use conclave_tests::gateway::{Entry, Gateway};
use conclave_tests::node::{ELECTION, Node, control_plane_node, leader_prefix};
use conclave_tests::observer::Observer;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::{PATIENCE, eventually};
use serde_json::json;

/// What just settled may still be at work for a moment.
const REST: Duration = Duration::from_millis(300);

/// Multiples of this, their whole parts taken off, spread evenly however many there are.
const GOLDEN_RATIO: f64 = 0.618_033_988_75;

/// The nodes' names.
pub(crate) const THREE: [&str; 3] = ["a", "b", "c"];

/// Nodes and what is seen of them. Every plane is a cluster of its own in the store.
pub(crate) struct Plane<'a> {
    /// The nodes; dropped, and so ended, first.
    pub(crate) nodes: Vec<Node>,
    /// Over their static-pod directories.
    pub(crate) observer: Observer,
    cluster: String,
    etcd: &'a Etcd,
    ttl: Duration,
}

impl<'a> Plane<'a> {
    /// Sets the nodes up, and starts none.
    ///
    /// # Errors
    ///
    /// When their directories cannot be made.
    pub(crate) fn prepare(
        etcd: &'a Etcd,
        cluster: &str,
        names: &[&str],
        ttl: Duration,
    ) -> Result<Self> {
        let mut nodes = Vec::new();
        for name in names {
            let mut node = control_plane_node(name, cluster, &[etcd.url()])?;
            node.config()["timings"]["ttl"] = json!(format!("{}ms", ttl.as_millis()));
            nodes.push(node);
        }
        let seen: Vec<(&str, PathBuf)> =
            nodes.iter().map(|node| (node.name(), node.destinations())).collect();
        let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
        Ok(Plane { nodes, observer, cluster: cluster.to_owned(), etcd, ttl })
    }

    /// Sets three nodes up, starts them, and waits until they have settled.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub(crate) fn three(etcd: &'a Etcd, cluster: &str, ttl: Duration) -> Result<Self> {
        let mut plane = Self::prepare(etcd, cluster, &THREE, ttl)?;
        plane.nodes.iter_mut().try_for_each(Node::start)?;
        plane.settle()?;
        Ok(plane)
    }

    /// Waits until every node is a candidate and has what runs everywhere, and one alone has all
    /// exclusive manifests; returns that one's name.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub(crate) fn settle(&self) -> Result<String> {
        let all = self.nodes.len();
        eventually(&format!("{all} candidates of {}", self.cluster), PATIENCE, || {
            let standing = candidates(&mut self.gateway().ok()?, &self.cluster).ok()?;
            (standing.len() == all).then_some(())
        })?;
        eventually("the API server on every node", PATIENCE, || {
            (self.observer.holders(&[API_SERVER]).len() == all).then_some(())
        })?;
        self.observer.wait_for_holder(&EXCLUSIVE)
    }

    /// Lets the nodes come to rest; every trial goes on at another moment of their beat.
    pub(crate) fn rest(&self, trial: usize) {
        thread::sleep(REST + self.part_of_beat(trial));
    }

    /// A part of the time between two beats: trials spread evenly over it.
    pub(crate) fn part_of_beat(&self, trial: usize) -> Duration {
        let beat = self.ttl / 5;
        beat.mul_f64((trial as f64 * GOLDEN_RATIO).fract())
    }

    /// Waits for a node other than `old` that got its exclusive manifests after `since`; returns
    /// when it had the last of them.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn complete_after(&self, old: &str, since: Instant) -> Result<Instant> {
        eventually("all exclusive manifests on another node", PATIENCE, || {
            let newest = self.observer.so_far().holdings(&EXCLUSIVE).pop()?;
            (newest.from >= since && newest.node != old).then_some(newest.complete?)
        })
    }

    /// A node by name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn node(&mut self, name: &str) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name() == name);
        node.with_context(|| format!("no node {name}"))
    }

    /// A connection to the store.
    ///
    /// # Errors
    ///
    /// When nothing listens.
    pub(crate) fn gateway(&self) -> Result<Gateway> {
        Gateway::connect(self.etcd.address())
    }

    /// The key of a node's session.
    pub(crate) fn session_key(&self, node: &str) -> String {
        format!("/conclave/{}/sessions/{node}", self.cluster)
    }

    /// The leader key that stands.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn leader_key(&self) -> Result<Entry> {
        let entries = self.gateway()?.list(&leader_prefix(&self.cluster, ELECTION))?;
        entries.into_iter().min_by_key(|entry| entry.created).context("no leader key")
    }

    /// Ends the nodes. Figures of a plane in which two led, even for a moment, are worth nothing.
    ///
    /// # Errors
    ///
    /// When two did.
    pub(crate) fn finish(self) -> Result<()> {
        self.observer.finish()?.at_most_one_holder(&EXCLUSIVE)
    }
}

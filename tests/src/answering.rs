//! Three nodes that answer over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::address::Loopback;
use crate::cluster::{Cluster, Plan};
use crate::http::ask;
use crate::node::Node;
use crate::{PATIENCE, eventually};

/// What the nodes are called.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes that answer, each on an address of its own.
pub struct Answering {
    /// The nodes and what is around them.
    pub cluster: Cluster,
    /// Where each answers.
    pub at: BTreeMap<String, SocketAddr>,
    _addresses: Vec<Loopback>,
}

impl Answering {
    /// Starts them, and waits until all take part.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn start(ttl: &'static str) -> Result<Self> {
        let answering = Self::start_with(ttl, |_, _| Ok(()))?;
        for name in NAMES {
            answering.wait_for(name, "/readyz", 200)?;
        }
        Ok(answering)
    }

    /// Starts nodes that differ from what is usual, by their settings for HTTP.
    ///
    /// # Errors
    ///
    /// When they do not come up.
    pub fn start_with(
        ttl: &'static str,
        mut change: impl FnMut(&mut Node, SocketAddr) -> Result<()>,
    ) -> Result<Self> {
        let (mut at, mut addresses) = (BTreeMap::new(), Vec::new());
        let mut cluster =
            Cluster::prepare_with(&NAMES, &Plan { ttl, ..Plan::default() }, |node| {
                let address = Loopback::claim()?;
                let listen = address.port(8437);
                node.config()["http"] = json!({ "listen": listen.to_string() });
                at.insert(node.name().to_owned(), listen);
                addresses.push(address);
                change(node, listen)
            })?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.settle()?;
        Ok(Answering { cluster, at, _addresses: addresses })
    }

    /// Asks a node.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn get(&self, node: &str, path: &str) -> Result<(u16, String)> {
        ask(self.at[node], "GET", path)
    }

    /// Asks a node for JSON.
    ///
    /// # Errors
    ///
    /// When it answers anything else.
    pub fn json(&self, node: &str, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(node, path)?.1)?)
    }

    /// Waits until a node answers with this status.
    ///
    /// # Errors
    ///
    /// When it never does.
    pub fn wait_for(&self, node: &str, path: &str, status: u16) -> Result<()> {
        eventually(&format!("{status} from {node} for {path}"), PATIENCE, || {
            (self.get(node, path).ok()?.0 == status).then_some(())
        })
    }
}

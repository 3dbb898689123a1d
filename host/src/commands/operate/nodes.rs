//! `conclave nodes`: who takes part, with what they hold and whether they may lead.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use conclave_core::{ElectionName, Key, NodeName};
use serde::Serialize;

use super::span;
use crate::cli::{Output, Status, exit};
use crate::commands::cluster::{self, Cluster, Reading};
use crate::terminal::columns;

#[derive(Debug, Serialize)]
struct Node {
    node: NodeName,
    /// Whether its session has a record. Whether its owner still beats only other nodes can tell.
    session_stands: bool,
    /// How long the session had stood at its newest beat.
    session_age_ms: Option<u64>,
    ttl_ms: Option<u64>,
    version: Option<String>,
    addresses: Vec<String>,
    labels: BTreeMap<String, String>,
    /// The elections that it holds in store.
    holds: Vec<ElectionName>,
    /// The elections in which it may not lead, with who said so.
    cordoned: BTreeMap<ElectionName, String>,
}

pub(in crate::commands) fn nodes(wanted: &Status) -> Result<u8> {
    let reading = cluster::block_on(async {
        let cluster = Cluster::open(&wanted.store).await?;
        cluster.read_known().await
    })?;
    let nodes = all(&reading);
    match wanted.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&nodes)?),
        Output::Table => print!("{}", table(&nodes)),
    }
    Ok(exit::SUCCESS)
}

/// Every node that has a session, or is cordoned although it has none.
fn all(reading: &Reading) -> Vec<Node> {
    let mut cordons: BTreeMap<NodeName, BTreeMap<ElectionName, String>> = BTreeMap::new();
    for entry in &reading.entries {
        if let Key::Cordon(election, node) = &entry.key {
            let note = reading.mark(&entry.key).unwrap_or_default().note;
            cordons.entry(node.clone()).or_default().insert(election.clone(), note);
        }
    }
    let sessions: BTreeMap<_, _> = reading.listing.nodes().collect();
    let mut names: Vec<NodeName> = sessions.keys().map(|name| (*name).clone()).collect();
    names.extend(cordons.keys().cloned());
    names.sort();
    names.dedup();
    let holds = |node: &NodeName| {
        let held = |election: &&ElectionName| {
            let holder = reading.listing.holder(election).and_then(|holder| holder.term);
            holder.is_some_and(|term| term.holder == *node)
        };
        reading.listing.elections().filter(held).cloned().collect()
    };
    let node = |name: NodeName| {
        let record = sessions.get(&name).copied().flatten();
        Node {
            session_stands: record.is_some(),
            session_age_ms: record.map(|record| record.age_ms),
            ttl_ms: record.map(|record| record.ttl_ms),
            version: record.map(|record| record.version.clone()),
            addresses: record.map(|record| record.addresses.clone()).unwrap_or_default(),
            labels: record.map(|record| record.labels.clone()).unwrap_or_default(),
            holds: holds(&name),
            cordoned: cordons.remove(&name).unwrap_or_default(),
            node: name,
        }
    };
    names.into_iter().map(node).collect()
}

fn table(nodes: &[Node]) -> String {
    let head = ["NODE", "VERSION", "UP", "TTL", "HOLDS", "CORDONED", "LABELS"].map(str::to_owned);
    let mut rows = vec![head];
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let millis = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| span(Duration::from_millis(ms)));
    for node in nodes {
        rows.push([
            node.node.to_string(),
            node.version.clone().unwrap_or_else(|| "no session".to_owned()),
            millis(node.session_age_ms),
            millis(node.ttl_ms),
            list(node.holds.iter().map(ToString::to_string).collect()),
            list(node.cordoned.keys().map(ToString::to_string).collect()),
            list(node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        ]);
    }
    columns(&rows)
}

//! `conclave cordon`, `uncordon` and `drain`: nodes that shall not lead.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use conclave_core::record::MarkRecord;
use conclave_core::{ElectionName, Key, NodeName};
use conclave_store::Control;
use serde::Serialize;

use super::{elections, known_election, note, now_unix_ms, print, span, wait};
use crate::cli::{Cordon, exit};
use crate::commands::cluster::{self, Cluster, Reading};

#[derive(Debug, Serialize)]
struct Report {
    node: NodeName,
    cordoned: bool,
    elections: Vec<ElectionName>,
    /// What it held when it was asked for, and where that is now; only where a drain was waited for.
    drained: Option<Vec<Moved>>,
    took_ms: u64,
}

#[derive(Debug, Serialize)]
struct Moved {
    election: ElectionName,
    to: Option<NodeName>,
}

pub(in crate::commands) fn cordon(wanted: &Cordon) -> Result<u8> {
    show(wanted, cluster::block_on(mark(wanted, false))?)
}

pub(in crate::commands) fn drain(wanted: &Cordon) -> Result<u8> {
    show(wanted, cluster::block_on(mark(wanted, !wanted.asking.no_wait))?)
}

pub(in crate::commands) fn uncordon(wanted: &Cordon) -> Result<u8> {
    show(wanted, cluster::block_on(unmark(wanted))?)
}

fn show(wanted: &Cordon, report: Report) -> Result<u8> {
    let names: Vec<&str> = report.elections.iter().map(ElectionName::as_str).collect();
    let state = if report.cordoned { "cordoned" } else { "may lead again" };
    let mut words = format!("{}: {state} in {}", report.node, names.join(", "));
    for Moved { election, to } in report.drained.iter().flatten() {
        let to = to.as_ref().map_or("nobody", NodeName::as_str);
        words.push_str(&format!("\n{election}: {to} holds it now"));
    }
    if report.drained.is_some() {
        let took = span(Duration::from_millis(report.took_ms));
        words.push_str(&format!("\n{} leads nothing, after {took}", report.node));
    }
    print(wanted.asking.output, &report, &words)?;
    Ok(exit::SUCCESS)
}

/// The elections that were named, or all.
fn meant(wanted: &Cordon, cluster: &Cluster, reading: &Reading) -> Result<Vec<ElectionName>> {
    if wanted.elections.is_empty() {
        return Ok(elections(cluster, reading));
    }
    wanted.elections.iter().map(|name| known_election(cluster, reading, name)).collect()
}

async fn mark(wanted: &Cordon, drain: bool) -> Result<Report> {
    let cluster = Cluster::open(&wanted.asking.store).await?;
    let reading = cluster.read_known().await?;
    let node = NodeName::new(wanted.node.as_str());
    let elections = meant(wanted, &cluster, &reading)?;
    if !wanted.force {
        refuse(&reading, &node, &elections)?;
    }
    let held = held(&reading, &node, &elections);
    let began = Instant::now();
    for election in &elections {
        let mark =
            MarkRecord { note: note(&wanted.asking), since_unix_ms: now_unix_ms(), for_ms: None };
        let (election, node, mark) = (election.clone(), node.clone(), Some(mark));
        cluster.tell(Control::Cordon { election, node, mark }).await?;
    }
    let mut drained = None;
    if drain {
        let what = format!("{node} to lead nothing");
        // Where nobody else can lead, nobody does.
        let gone = wait(&cluster, wanted.asking.timeout, &what, |reading| {
            self::held(reading, &node, &elections).is_empty().then(|| reading.clone())
        });
        let Some(after) = gone.await else {
            bail!(
                "{node} is cordoned, and still holds {} after {}: see `conclave status`",
                names(&still(&cluster, &node, &elections).await),
                span(wanted.asking.timeout)
            )
        };
        let holder =
            |election: &ElectionName| after.listing.holder(election)?.term.map(|t| t.holder);
        let moved = held.into_iter().map(|election| Moved { to: holder(&election), election });
        drained = Some(moved.collect());
    }
    let took_ms = began.elapsed().as_millis() as u64;
    Ok(Report { node, cordoned: true, elections, drained, took_ms })
}

async fn still(
    cluster: &Cluster,
    node: &NodeName,
    elections: &[ElectionName],
) -> Vec<ElectionName> {
    match cluster.read().await {
        Ok(reading) => held(&reading, node, elections),
        Err(_) => Vec::new(), // the store has gone; what is said beside it says enough
    }
}

async fn unmark(wanted: &Cordon) -> Result<Report> {
    let cluster = Cluster::open(&wanted.asking.store).await?;
    let reading = cluster.read_known().await?;
    let node = NodeName::new(wanted.node.as_str());
    let mut elections = meant(wanted, &cluster, &reading)?;
    let marked = |election: &ElectionName| {
        let key = Key::Cordon(election.clone(), node.clone());
        reading.entries.iter().any(|entry| entry.key == key)
    };
    elections.retain(marked);
    if elections.is_empty() {
        bail!("{node} is not cordoned");
    }
    for election in &elections {
        let (election, node) = (election.clone(), node.clone());
        cluster.tell(Control::Cordon { election, node, mark: None }).await?;
    }
    Ok(Report { node, cordoned: false, elections, drained: None, took_ms: 0 })
}

/// What it holds of these elections.
fn held(reading: &Reading, node: &NodeName, elections: &[ElectionName]) -> Vec<ElectionName> {
    let holds = |election: &&ElectionName| {
        let holder = reading.listing.holder(election).and_then(|holder| holder.term);
        holder.is_some_and(|term| term.holder == *node)
    };
    elections.iter().filter(holds).cloned().collect()
}

/// A node that is not there is misspelt or off; and one that alone can lead is better left.
fn refuse(reading: &Reading, node: &NodeName, elections: &[ElectionName]) -> Result<()> {
    let nodes: Vec<&NodeName> = reading.listing.nodes().map(|(name, _)| name).collect();
    if !nodes.contains(&node) {
        let names: Vec<&str> = nodes.iter().map(|name| name.as_str()).collect();
        bail!(
            "the store knows no node `{node}` now; there are {}; with --force one that is off is cordoned",
            names.join(", ")
        );
    }
    let alone = |election: &ElectionName| {
        let view = reading.listing.view(election, node, 0);
        !view
            .candidates
            .iter()
            .any(|other| other.name != *node && other.fitness.fit && !other.cordoned)
    };
    let left: Vec<ElectionName> =
        held(reading, node, elections).into_iter().filter(|election| alone(election)).collect();
    if !left.is_empty() {
        bail!(
            "nobody would lead {}: no other candidate is fit and not cordoned; with --force nobody does",
            names(&left)
        );
    }
    Ok(())
}

fn names(elections: &[ElectionName]) -> String {
    elections.iter().map(ElectionName::as_str).collect::<Vec<_>>().join(", ")
}

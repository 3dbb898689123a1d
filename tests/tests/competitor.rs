//! `etcdctl elect` watches our elections and may even compete: it and we never lead at once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::cluster::{Cluster, NAME, Plan};
use conclave_tests::etcd::Etcd;
use conclave_tests::node::{ELECTION, leader_prefix};
use conclave_tests::observer::Observer;
use conclave_tests::pod::{EXCLUSIVE, SCHEDULER};
use conclave_tests::process::{Process, Signal, send};
use conclave_tests::{Outcome, PATIENCE, eventually, scratch};
use tempfile::TempDir;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn patient() -> Plan {
    Plan { ttl: "60s", ..Plan::default() }
}

/// An `etcdctl elect` that campaigns. From winning until it is told to stop it has a file in a
/// directory of its own, so that an observer sees it leading just as it sees a node.
struct Competitor {
    dir: TempDir,
    process: Option<Process>,
}

impl Competitor {
    fn prepare() -> Result<Self> {
        Ok(Competitor { dir: scratch::directory("competitor")?, process: None })
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("dst").join(SCHEDULER)
    }

    /// Begins to campaign, and returns when it stands in the queue.
    fn campaign(&mut self, etcd: &Etcd) -> Result<()> {
        let prefix = leader_prefix(NAME, ELECTION);
        let before = etcd.keys(&prefix)?.len();
        // etcd's election recipe appends the slash itself.
        let elect = etcd.ctl_command()?;
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", r#""$@" | { read -r key && mv "$0.ready" "$0"; cat; }"#])
            .arg(self.file())
            .arg(elect.get_program())
            .args(elect.get_args())
            .args(["elect", prefix.trim_end_matches('/'), "competitor"])
            .env("ETCDCTL_API", "3");
        self.process = Some(Process::start("competitor", self.dir.path(), command)?);
        eventually("the competitor to stand in the queue", PATIENCE, || {
            (etcd.keys(&prefix).ok()?.len() > before || self.file().exists()).then_some(())
        })
    }

    /// Stops leading and resigns.
    fn resign(&mut self) -> Result<()> {
        std::fs::remove_file(self.file()).context("it leads")?;
        let process = self.process.as_mut().context("it campaigns")?;
        for pid in process.family() {
            // One that has ended because another of them did is no mistake; the wait below tells.
            let _ = send(pid, Signal::INT);
        }
        process.wait(PATIENCE).map(drop)
    }
}

/// A settled cluster and a competitor, seen by one observer of their own.
fn scene() -> Result<(Cluster, Competitor, Observer)> {
    let competitor = Competitor::prepare()?;
    let dst = competitor.dir.path().join("dst");
    std::fs::create_dir(&dst)?;
    std::fs::write(dst.join(format!("{SCHEDULER}.ready")), "")?;
    let cluster = Cluster::prepare(&NAMES, &patient())?;
    let mut seen: Vec<(&str, PathBuf)> =
        cluster.nodes.iter().map(|node| (node.name(), node.destinations())).collect();
    seen.push(("competitor", dst));
    let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
    Ok((cluster, competitor, observer))
}

#[test]
fn etcdctl_shows_our_leader() -> Outcome {
    let cluster = Cluster::start(&NAMES, &patient())?;
    let first = cluster.leader()?;
    let election = leader_prefix(NAME, ELECTION);
    let listener =
        cluster.etcd[0].ctl_start("listen", &["elect", "-l", election.trim_end_matches('/')])?;
    let shows = |node: &str, token: u64| {
        let output = listener.output().unwrap_or_default();
        let record = output.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let record: serde_json::Value = record?;
        (record["holder"] == node && token > 0).then_some(())
    };
    let term = cluster.term()?.context("a term")?;
    eventually("etcdctl to show the first", PATIENCE, || shows(&first, term.token))?;
    assert!(listener.output()?.contains(&term.key));
    let second = cluster.other(&first);
    cluster.transfer(&second)?;
    cluster.leader_after(&first)?;
    eventually("etcdctl to show the second", PATIENCE, || shows(&second, term.token))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_queued_competitor_and_we_never_lead_together_during_sigterm() -> Outcome {
    let (mut cluster, mut competitor, observer) = scene()?;
    cluster.nodes.iter_mut().try_for_each(conclave_tests::node::Node::start)?;
    let first = cluster.settle()?;
    competitor.campaign(&cluster.etcd[0])?;
    assert_eq!(cluster.node(&first).stop()?.code(), Some(0));
    eventually("the competitor to lead", PATIENCE, || competitor.file().exists().then_some(()))?;
    cluster.nobody_leads_for(Duration::from_secs(2))?;
    // A key that is not ours is left alone for as long as it stands.
    competitor.resign()?;
    cluster.leader_after(&first)?;
    observer.finish()?.at_most_one_holder(&EXCLUSIVE)?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_queued_competitor_and_we_never_lead_together_during_a_transfer() -> Outcome {
    let (mut cluster, mut competitor, observer) = scene()?;
    cluster.nodes.iter_mut().try_for_each(conclave_tests::node::Node::start)?;
    let first = cluster.settle()?;
    competitor.campaign(&cluster.etcd[0])?;
    // Handing over past the queue would make the target and the competitor both leaders; the
    // incumbent may refuse, or resign and let the queue go on.
    let transferred = cluster.other(&first);
    cluster.transfer(&transferred)?;
    let key = format!("/conclave/{NAME}/elections/{ELECTION}/control/transfer");
    eventually("the first to give way, or the request to be dropped", PATIENCE, || {
        let settled = cluster.etcd[0].value(&key).ok()?.is_none();
        (settled || competitor.file().exists()).then_some(())
    })?;
    if !competitor.file().exists() {
        cluster.node(&first).stop()?;
        eventually("the competitor to lead", PATIENCE, || {
            competitor.file().exists().then_some(())
        })?;
    }
    cluster.nobody_leads_for(Duration::from_secs(2))?;
    competitor.resign()?;
    cluster.leader()?;
    observer.finish()?.at_most_one_holder(&EXCLUSIVE)?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_competitor_that_came_first_is_waited_for() -> Outcome {
    let (mut cluster, mut competitor, observer) = scene()?;
    competitor.campaign(&cluster.etcd[0])?;
    eventually("the competitor to lead", PATIENCE, || competitor.file().exists().then_some(()))?;
    cluster.nodes.iter_mut().try_for_each(conclave_tests::node::Node::start)?;
    cluster.wait_for_candidates(3)?;
    cluster.nobody_leads_for(Duration::from_secs(2))?;
    competitor.resign()?;
    cluster.leader()?;
    observer.finish()?.at_most_one_holder(&EXCLUSIVE)?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_killed_leader_with_a_queued_competitor_is_followed_by_it_alone() -> Outcome {
    let (mut cluster, mut competitor, observer) = scene()?;
    for node in &mut cluster.nodes {
        node.config()["timings"]["ttl"] = serde_json::json!("2s");
        node.start()?;
    }
    let first = cluster.settle()?;
    competitor.campaign(&cluster.etcd[0])?;
    cluster.node(&first).kill()?;
    eventually("the competitor to lead", PATIENCE, || competitor.file().exists().then_some(()))?;
    // The first's leftovers are a dead machine's; neither of the others may place anything.
    let others = || observer.holders(&EXCLUSIVE).iter().all(|n| *n == first || n == "competitor");
    conclave_tests::holds_for("the others stand by", Duration::from_secs(3), others)?;
    competitor.resign()?;
    eventually("one of the others to lead", PATIENCE, || {
        cluster.observer.holders(&EXCLUSIVE).iter().any(|node| *node != first).then_some(())
    })?;
    Ok(())
}

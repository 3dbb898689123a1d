//! A leader whose manifests cannot be removed: its disk refuses every change. Whatever asks it to
//! go, the term is not given up before they are gone, and nobody else gets in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conclave_tests::cluster::{self, Cluster, Plan, Term};
use conclave_tests::disk::Failure;
use conclave_tests::gateway::{Entry, Gateway};
use conclave_tests::node::{Node, TTL};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, binary, eventually};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Far longer than a session lasts: long enough for whoever would take over.
const LONG: Duration = Duration::from_secs(6);

/// So rarely do nodes look at their disks that nothing but the test's own deed ends a term.
const RARELY: &str = "10m";

/// A cluster, its leader, and the term that the leader holds.
struct Scene {
    cluster: Cluster,
    leader: String,
    term: Term,
}

impl Scene {
    /// Three nodes with disks of their own; one leads.
    fn begin(rescan: &str) -> Result<Self> {
        let mut cluster = Cluster::prepare(&NAMES, &Plan { disks: true, ..Plan::default() })?;
        for node in &mut cluster.nodes {
            let told = told(node);
            let config = node.config();
            config["timings"]["rescan"] = json!(rescan);
            let script = "printenv CONCLAVE_ELECTION CONCLAVE_NODE CONCLAVE_REASON >>\"$0\"";
            config["elections"][0]["on_stuck"] = json!(["sh", "-c", script, told]);
            node.start()?;
        }
        let leader = cluster.settle()?;
        let term = cluster.term()?.context("a term")?;
        Ok(Scene { cluster, leader, term })
    }

    fn leader(&mut self) -> &mut Node {
        self.cluster.node(&self.leader)
    }

    fn freeze(&mut self) -> Result<()> {
        self.leader().disk()?.fail(Failure::ReadOnly)
    }

    fn thaw(&mut self) -> Result<()> {
        self.leader().disk()?.mend(Failure::ReadOnly)
    }

    /// The leader's session record.
    fn session(&self) -> Result<Entry> {
        let key = format!("/conclave/{}/sessions/{}", cluster::NAME, self.leader);
        let mut gateway = Gateway::connect(self.cluster.etcd[0].address())?;
        let mut found = gateway.list(&key)?.into_iter();
        found.find(|entry| entry.key == key).context("the leader's session")
    }

    /// Waits until the leader has said that it is stuck, in its log and to its operator, and makes
    /// sure that it keeps the term.
    fn is_stuck(&mut self) -> Result<()> {
        let leader = self.leader.clone();
        eventually("the log to say it", PATIENCE, || {
            let log = self.leader().output().ok()?;
            let line = log.lines().find(|line| line.contains("stuck: exclusive effects"))?;
            (line.contains("ERROR") && line.contains("control-plane")).then_some(())
        })?;
        let told = told(self.leader());
        eventually("the operator's command", PATIENCE, || {
            let words = fs::read_to_string(&told).ok()?;
            words.starts_with(&format!("control-plane\n{leader}\ncannot ")).then_some(())
        })?;
        self.keeps_the_term()
    }

    /// Waits until an operator who asks anywhere in the cluster is told what is in the way. A node
    /// that is about to stop is no candidate any more, and cannot say it there.
    fn status_says_why(&mut self) -> Result<()> {
        eventually("status to say why", PATIENCE, || {
            let candidate = self.candidate().ok()?;
            let reasons = candidate["fitness_reasons"].to_string();
            (candidate["fit"] == json!(false) && reasons.contains("cannot remove")).then_some(())
        })
    }

    /// How often the log says what cannot be removed.
    fn complaints(&mut self) -> Result<usize> {
        let log = self.leader().output()?;
        Ok(log.lines().filter(|line| line.contains("cannot remove")).count())
    }

    /// Nobody else gets in, and the session beats on.
    fn keeps_the_term(&mut self) -> Result<()> {
        let leader = self.leader.clone();
        let before = self.session()?;
        self.cluster.leads_for(&leader, LONG)?;
        let after = self.session()?;
        ensure!(after.created == before.created, "the session is the same");
        ensure!(after.modified > before.modified, "the session beats on");
        let term = self.cluster.term()?.context("a term")?;
        ensure!((&term.key, term.token) == (&self.term.key, self.term.token), "the same term");
        Ok(())
    }

    /// What `conclave status` says of the leader as a candidate.
    fn candidate(&mut self) -> Result<Value> {
        let config = self.leader().write_config()?;
        let output = Command::new(binary::conclave())
            .args(["status", "--output", "json", "--config"])
            .arg(config)
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let candidates = report["elections"][0]["candidates"].as_array().context("candidates")?;
        let found = candidates.iter().find(|candidate| candidate["node"] == json!(self.leader));
        found.cloned().context("the leader among the candidates")
    }

    /// Another leads, and there were never two.
    fn ends_with_another(self) -> Result<()> {
        let next = self.cluster.leader_after(&self.leader)?;
        self.cluster.leads_for(&next, TTL)?;
        let story = self.cluster.finish()?;
        assert_eq!(story.holdings(&EXCLUSIVE).len(), 2, "each of the two held it once\n{story}");
        Ok(())
    }
}

/// Where a node's operator is told.
fn told(node: &Node) -> PathBuf {
    node.root().join("stuck")
}

#[test]
fn a_stop_waits_until_the_manifests_are_gone() -> Outcome {
    let mut scene = Scene::begin(RARELY)?;
    scene.freeze()?;
    scene.leader().signal(Signal::TERM)?;
    scene.is_stuck()?;
    assert_eq!(scene.leader().guard()?.ended()?, None, "it has not stopped");
    scene.thaw()?;
    assert_eq!(scene.leader().guard()?.wait(PATIENCE)?.code(), Some(0));
    scene.ends_with_another()?;
    Ok(())
}

#[test]
fn an_unfit_node_leads_until_the_manifests_are_gone() -> Outcome {
    let mut scene = Scene::begin("500ms")?;
    scene.freeze()?;
    scene.is_stuck()?;
    scene.status_says_why()?;
    // Nor does a stop that comes on top of it end the term.
    scene.leader().signal(Signal::TERM)?;
    scene.keeps_the_term()?;
    scene.thaw()?;
    assert_eq!(scene.leader().guard()?.wait(PATIENCE)?.code(), Some(0));
    scene.ends_with_another()?;
    Ok(())
}

#[test]
fn a_transfer_waits_until_the_manifests_are_gone() -> Outcome {
    let mut scene = Scene::begin(RARELY)?;
    let next = scene.cluster.other(&scene.leader);
    scene.freeze()?;
    scene.cluster.transfer(&next)?;
    scene.is_stuck()?;
    scene.status_says_why()?;
    let words = fs::read_to_string(told(scene.leader()))?;
    let complaints = scene.complaints()?;
    scene.keeps_the_term()?;
    assert_eq!(fs::read_to_string(told(scene.leader()))?, words, "said once, not at each try");
    assert_eq!(scene.complaints()?, complaints, "nor does the log repeat it");
    scene.thaw()?;
    let leader = scene.leader.clone();
    let log = |scene: &mut Scene| scene.leader().output();
    eventually("the log to say that it is over", PATIENCE, || {
        log(&mut scene).ok()?.contains("no longer stuck").then_some(())
    })?;
    assert!(scene.leader().guard()?.ended()?.is_none(), "{leader} stays as a candidate");
    scene.ends_with_another()?;
    Ok(())
}

#[test]
fn a_stuck_term_outlives_its_daemon() -> Outcome {
    let mut scene = Scene::begin(RARELY)?;
    let next = scene.cluster.other(&scene.leader);
    scene.freeze()?;
    scene.cluster.transfer(&next)?;
    scene.is_stuck()?;
    let old = scene.leader().kill_daemon()?;
    scene.leader().daemon_after(Some(old))?;
    scene.keeps_the_term()?;
    scene.thaw()?;
    scene.cluster.settle()?;
    scene.cluster.finish()?;
    Ok(())
}

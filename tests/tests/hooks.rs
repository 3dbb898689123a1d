//! Hooks: run in order and one at a time, told of when they fail, and harmless.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::{ELECTION, TTL};
use conclave_tests::process::{Signal, send};
use conclave_tests::{Outcome, PATIENCE, eventually, holds_for};
use serde_json::json;

/// A program that notes that it was called, after a moment in which another one would be noticed.
fn program(directory: &Path, then: &str) -> Result<PathBuf> {
    let path = directory.join("hook");
    let at = directory.display();
    let text = format!(
        "#!/bin/sh\nmkdir {at}/alone || echo two >> {at}/told\nsleep 0.05\n\
         echo $CONCLAVE_HOOK $CONCLAVE_ELECTION $CONCLAVE_NODE >> {at}/told\nrmdir {at}/alone\n{then}\n"
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// What was told to the hooks of a node, `changed` excepted unless it is asked for.
fn told(cluster: &mut Cluster, name: &str, changed: bool) -> Vec<String> {
    let text = fs::read_to_string(cluster.node(name).root().join("told")).unwrap_or_default();
    let words = text.lines().map(|line| line.replace(&format!(" {ELECTION} {name}"), ""));
    words.filter(|word| changed || word != "changed").collect()
}

fn start(then: &str, timeout: &str) -> Result<Cluster> {
    let mut cluster = Cluster::prepare_with(&["a", "b"], &Plan::default(), |node| {
        let hook = program(node.root(), then)?;
        node.config()["elections"][0]["hooks"] = json!({
            "gained": [hook], "lost": [hook], "changed": [hook], "timeout": timeout,
        });
        Ok(())
    })?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    cluster.settle()?;
    Ok(cluster)
}

fn wait_for(cluster: &mut Cluster, name: &str, expected: &[&str]) -> Outcome {
    eventually(&format!("{name} to be told {expected:?}"), PATIENCE, || {
        (told(cluster, name, false) == expected).then_some(())
    })?;
    Ok(())
}

#[test]
fn each_change_is_told_once_and_in_order() -> Outcome {
    let mut cluster = start("", "30s")?;
    let (first, second) = {
        let first = cluster.leader()?;
        let second = cluster.other(&first);
        (first, second)
    };
    for to in [&second, &first, &second] {
        cluster.transfer(to)?;
        eventually("the term to move", PATIENCE, || {
            (cluster.term().ok()??.record["holder"] == json!(to)).then_some(())
        })?;
        cluster.settle()?;
    }
    wait_for(&mut cluster, &first, &["gained", "lost", "gained", "lost"])?;
    wait_for(&mut cluster, &second, &["gained", "lost", "gained"])?;
    for name in [&first, &second] {
        eventually(&format!("{name} to be told of three changes"), PATIENCE, || {
            let told = told(&mut cluster, name, true);
            (told.iter().filter(|word| *word == "changed").count() >= 3).then_some(())
        })?;
    }

    // A daemon that goes on tells that it leads again; one whose term ended with it tells that.
    let daemon = cluster.node(&second).kill_daemon()?;
    cluster.node(&second).daemon_replaced(daemon)?;
    wait_for(&mut cluster, &second, &["gained", "lost", "gained", "gained"])?;
    let daemon = cluster.node(&second).daemon()?;
    send(daemon, Signal::STOP)?;
    cluster.leader_after(&second)?;
    cluster.node(&second).daemon_replaced(daemon)?;
    wait_for(&mut cluster, &second, &["gained", "lost", "gained", "gained", "lost"])?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn one_that_fails_or_hangs_is_told_of_and_costs_nothing() -> Outcome {
    for (then, timeout, said) in
        [("exit 3", "30s", "a hook failed"), ("exec sleep 1000", "100ms", "a hook took too long")]
    {
        let mut cluster = start(then, timeout)?;
        let leader = cluster.leader()?;
        let node = cluster.node(&leader);
        eventually(said, PATIENCE, || node.output().ok()?.contains(said).then_some(()))?;
        cluster.leads_for(&leader, TTL)?;
        let to = cluster.other(&leader);
        cluster.transfer(&to)?;
        cluster.leader_after(&leader)?;
        holds_for("nothing twice at once", Duration::from_millis(300), || {
            !told(&mut cluster, &leader, true).contains(&"two".to_owned())
        })?;
        cluster.finish()?;
    }
    Ok(())
}

//! A changed configuration is taken over by a running node without ending a term, or refused whole.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use conclave_tests::cluster::Cluster;
use conclave_tests::node::{ELECTION, TTL};
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::{Value, json};

fn all() -> Vec<&'static str> {
    [&EXCLUSIVE[..], &[API_SERVER]].concat()
}

/// Changes a node's configuration and asks it to take that over.
fn reload(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    change(cluster.node(name).config());
    cluster.node(name).write_config()?;
    cluster.node(name).signal(Signal::USR2)
}

fn logged(cluster: &mut Cluster, name: &str, text: &str) -> Result<()> {
    let node = cluster.node(name);
    eventually(text, PATIENCE, || node.output().ok()?.contains(text).then_some(()))
}

#[test]
fn elections_come_and_go_while_another_ones_term_goes_on() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let (since, term) = (Instant::now(), cluster.term()?.context("a term")?);
    let old = cluster.node(&leader).daemon()?;
    let (source, placed) = {
        let node = cluster.node(&leader);
        (node.sources().join("extra.yaml"), node.destinations().join("extra.yaml"))
    };
    fs::write(&source, "apiVersion: v1\nkind: Pod\nmetadata: {name: extra}\n")?;
    let extra = json!({
        "name": "extra",
        "overlap": "accepted",
        "manifests": [{ "source": source, "destination": placed }],
    });
    reload(&mut cluster, &leader, |config| {
        config["node"]["labels"] = json!({ "rack": "new" });
        config["elections"].as_array_mut().expect("elections").push(extra);
    })?;
    let new = cluster.node(&leader).daemon_replaced(old)?;
    eventually("the added election's manifest", PATIENCE, || placed.exists().then_some(()))?;
    eventually("the label", PATIENCE, || {
        let sessions =
            cluster.etcd[0].value(&format!("/conclave/plane/sessions/{leader}")).ok()??;
        let session: Value = serde_json::from_str(&sessions).ok()?;
        (session["labels"]["rack"] == "new").then_some(())
    })?;

    // It goes again, with what it had in place.
    reload(&mut cluster, &leader, |config| {
        config["elections"].as_array_mut().expect("elections").pop();
    })?;
    cluster.node(&leader).daemon_replaced(new)?;
    eventually("its manifest to go", PATIENCE, || (!placed.exists()).then_some(()))?;
    eventually("its term to end", PATIENCE, || {
        let keys = cluster.etcd[0].keys("/conclave/plane/elections/extra/leader/").ok()?;
        keys.is_empty().then_some(())
    })?;
    cluster.leads_for(&leader, TTL * 2)?;
    let now = cluster.term()?.context("a term")?;
    assert_eq!((now.key, now.token), (term.key, term.token), "the same term of {ELECTION}");
    cluster.finish()?.untouched(&leader, &all(), since)?;
    Ok(())
}

#[test]
fn a_change_that_cannot_be_used_changes_nothing() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let (since, daemon) = (Instant::now(), cluster.node(&leader).daemon()?);
    let good = cluster.node(&leader).config().clone();
    let changes: [(&str, Value, &str); 6] = [
        ("/elections", json!([]), "conclave.yaml"),
        ("/elections/0/policy", json!("nobody-wrote-it"), "nobody-wrote-it"),
        ("/timings/ttl", json!("7s"), "only when the node is started anew: timings.ttl"),
        ("/cluster", json!("another"), "only when the node is started anew: cluster"),
        ("/store", json!({ "embedded": { "path": "s.db" } }), "started anew: store"),
        ("/surprise", json!(1), "surprise"),
    ];
    for (refused, (pointer, value, said)) in changes.into_iter().enumerate() {
        reload(&mut cluster, &leader, |config| {
            *config = good.clone();
            match pointer.rsplit_once('/') {
                Some(("", field)) => config[field] = value,
                _ => *config.pointer_mut(pointer).expect("it is there") = value,
            }
        })?;
        logged(&mut cluster, &leader, said)?;
        let node = cluster.node(&leader);
        eventually("the refusal", PATIENCE, || {
            let output = node.output().ok()?;
            let refusals = output.matches("the installed program cannot take over").count();
            (refusals > refused).then_some(())
        })?;
    }
    assert_eq!(cluster.node(&leader).daemon()?, daemon, "no other daemon was started");
    // What was refused does not come in by the back door of a daemon that dies.
    let dead = cluster.node(&leader).kill_daemon()?;
    cluster.node(&leader).daemon_replaced(dead)?;
    cluster.leads_for(&leader, TTL * 2)?;
    cluster.finish()?.untouched(&leader, &all(), since)?;
    Ok(())
}

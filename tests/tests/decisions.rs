//! Why a node leads: the decision log, replaying it, the shadow, and `conclave explain`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use conclave_tests::address::Loopback;
use conclave_tests::http::ask;
use conclave_tests::node::{Node, scheduler_node};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, holds_for, pod, scratch};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A node of one election over the scheduler's manifest, changed so.
fn node(name: &str, store: &Path, change: impl FnOnce(&mut Value)) -> Result<Node> {
    scheduler_node(name, "why", store, change)
}

fn leads(node: &Node) -> bool {
    node.destinations().join(pod::SCHEDULER).exists()
}

fn wait_to_lead(node: &Node) -> Result<()> {
    eventually(&format!("{} to lead", node.name()), PATIENCE, || leads(node).then_some(()))
}

fn conclave(arguments: &[&str]) -> Result<Output> {
    Command::new(binary::conclave()).args(arguments).output().context("cannot run conclave")
}

fn replay(node: &Node, policy: &str, more: &[&str]) -> Result<(Option<i32>, Value)> {
    let log = node.root().join("state");
    let log = log.to_str().context("a path of text")?;
    let call = [&["policy", "replay", log, "--policy", policy, "--output", "json"], more].concat();
    let output = conclave(&call)?;
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| error.into_owned())?;
    Ok((output.status.code(), report))
}

/// The lines of a node's decision log.
fn decisions(node: &Node) -> Vec<Value> {
    let log = fs::read_to_string(node.root().join("state/decisions/log.jsonl")).unwrap_or_default();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn decisions_are_logged_and_asked_again_of_other_policies() -> Outcome {
    let scratch = scratch::directory("replay")?;
    let store = scratch.path().join("store.db");
    let (mut a, mut b) = (node("a", &store, |_| {})?, node("b", &store, |_| {})?);
    a.start()?;
    wait_to_lead(&a)?;
    b.start()?;
    eventually("a ranking of both", PATIENCE, || {
        let both = |it: &Value| {
            let order = it["answer"]["ranking"]["order"].as_array();
            order.is_some_and(|order| order.len() == 2)
        };
        decisions(&a).iter().any(both).then_some(())
    })?;
    a.stop()?;
    let of = |function: &str| decisions(&a).iter().any(|it| it["question"]["function"] == function);
    assert!(of("rank") && of("describe") && of("place"), "{:?}", decisions(&a));

    let (code, same) = replay(&a, "cold-standby", &[])?;
    assert_eq!((code, &same["different"]), (Some(0), &json!(0)), "{same}");
    assert_eq!(same["fuel_then"], same["fuel_now"], "{same}");
    assert!(same["decisions"].as_u64() > Some(3), "{same}");

    let prefers_b = ["--config", "{prefer: [b]}"];
    let (code, other) = replay(&a, "cold-standby", &prefers_b)?;
    assert_eq!(code, Some(0), "who leads stays, whoever is preferred: {other}");
    let (code, other) =
        replay(&a, "preferred", &["--config", "{weights: {b: 10}, settle_seconds: 0}"])?;
    let changed = other["differences"].as_array().context("differences")?;
    let moved =
        changed.iter().find(|it| it["function"] == "rank").context("a ranking that differs")?;
    assert_eq!((code, &moved["election"]), (Some(1), &json!("masters")), "{other}");
    let first = moved["lines"].as_array().and_then(|lines| lines.first());
    assert!(first.is_some(), "{moved}");

    let refused = conclave(&["policy", "replay", "/nowhere", "--policy", "cold-standby"])?;
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("cannot read the decision log /nowhere"), "{error}");
    Ok(())
}

#[test]
fn a_shadow_is_asked_the_same_and_never_heard() -> Outcome {
    let scratch = scratch::directory("shadow")?;
    let store = scratch.path().join("store.db");
    let address = Loopback::claim()?;
    let listen = address.port(8437);
    // Another would lead if the shadow decided; and one that loops is as harmless.
    let mut a = node("a", &store, |config| {
        config["elections"][0]["shadow"] = json!({ "policy": "preferred", "policy_config": { "weights": { "b": 10 }, "settle_seconds": 0 } });
        config["http"] = json!({ "listen": listen.to_string() });
    })?;
    let mut b = node("b", &store, |config| {
        config["policies"] = json!({ "directory": "policies" });
        config["elections"][0]["shadow"] =
            json!({ "policy": "hostile", "policy_config": { "misdeed": "huge" } });
    })?;
    let policies = b.root().join("policies");
    fs::create_dir(&policies)?;
    let hostile = repository().join("host/policy/tests/fixtures/hostile.wasm");
    fs::copy(hostile, policies.join("hostile.wasm"))?;
    a.start()?;
    wait_to_lead(&a)?;
    b.start()?;
    eventually("the shadow to decide otherwise", PATIENCE, || {
        let differs =
            |it: &Value| it["shadow"] == true && it["answer"]["ranking"]["order"][0]["node"] == "b";
        decisions(&a).iter().any(differs).then_some(())
    })?;
    holds_for("a leads", Duration::from_secs(2), || leads(&a) && !leads(&b))?;
    assert!(a.output()?.contains("the shadow decides otherwise"), "{}", a.output()?);
    let (_, metrics) = ask(listen, "GET", "/metrics")?;
    let counted = "conclave_shadow_decisions_total{election=\"masters\",function=\"rank\",outcome=\"different\"}";
    assert!(metrics.contains(counted), "{metrics}");
    let (_, status) = ask(listen, "GET", "/v1/elections/masters")?;
    let status: Value = serde_json::from_str(&status)?;
    assert!(status["shadow"]["different"].as_u64() > Some(0), "{status}");
    // What is replayed are the decisions that counted.
    let (code, report) = replay(&a, "cold-standby", &[])?;
    assert_eq!(code, Some(0), "{report}");

    a.stop()?;
    wait_to_lead(&b)?;
    assert!(b.output()?.contains("outcome=\"failed\""), "{}", b.output()?);
    Ok(())
}

#[test]
fn a_shadow_that_cannot_be_asked_is_warned_of_and_no_mistake() -> Outcome {
    let scratch = scratch::directory("shadow")?;
    let store = scratch.path().join("store.db");
    let a = node("a", &store, |config| {
        config["elections"][0]["shadow"] =
            json!({ "policy": "preferred", "policy_config": { "wieghts": {} } });
    })?;
    let config = a.write_config()?;
    let checked = conclave(&["config", "check", config.to_str().context("a path of text")?])?;
    let warned = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{warned}");
    let words = "warning: the shadow of `masters` cannot be asked: /wieghts: unknown field";
    assert!(warned.contains(words), "{warned}");
    Ok(())
}

#[test]
fn who_leads_and_who_does_not_is_explained() -> Outcome {
    let scratch = scratch::directory("explain")?;
    let store = scratch.path().join("store.db");
    let checked = |config: &mut Value| {
        let check = json!({ "name": "disk", "file": "healthy", "interval": "20ms" });
        config["node"]["fitness"] = json!([check]);
    };
    let mut nodes = ["a", "b", "c", "d"].map(|name| node(name, &store, checked));
    for node in nodes.iter_mut().flatten() {
        fs::write(node.root().join("healthy"), "")?;
    }
    let [a, b, c, d] = nodes;
    let (mut a, mut b, mut c, mut d) = (a?, b?, c?, d?);
    fs::remove_file(c.root().join("healthy"))?;
    a.start()?;
    wait_to_lead(&a)?;
    for node in [&mut b, &mut c, &mut d] {
        node.start()?;
    }
    let config = a.write_config()?;
    let config = config.to_str().context("a path of text")?;
    let explain = || -> Option<Value> {
        let output =
            conclave(&["explain", "masters", "--config", config, "--output", "json"]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    };
    eventually("all to stand", PATIENCE, || {
        (explain()?["others"].as_array()?.len() == 3).then_some(())
    })?;
    let drained = conclave(&["cordon", "b", "--note", "new disk", "--config", config])?;
    assert!(drained.status.success());
    let paused = conclave(&["pause", "masters", "--config", config])?;
    assert!(paused.status.success());

    let said = explain().context("an explanation")?;
    assert_eq!(said["holder_in_store"], "a", "{said}");
    assert_eq!(said["why"], "holds the term, and leadership stays where it is", "{said}");
    assert!(said["held_by"][0].as_str().is_some_and(|it| it.starts_with("it is paused")), "{said}");
    let of = |name: &str| {
        let mut others = said["others"].as_array().into_iter().flatten();
        others.find(|it| it["node"] == name).cloned().context("a node")
    };
    for (name, why, until) in [
        ("b", "new disk", "conclave uncordon b"),
        ("c", "unfit: check disk fails", "mended on the node"),
        ("d", "number 2 in the ranking: in order of standing", "conclave transfer masters --to d"),
    ] {
        let it = of(name)?;
        assert!(it["why_not"].as_str().is_some_and(|words| words.contains(why)), "{it}");
        assert!(it["until"].as_str().is_some_and(|words| words.contains(until)), "{it}");
    }
    let words = String::from_utf8(conclave(&["explain", "masters", "--config", config])?.stdout)?;
    assert!(words.contains("why a: ") && words.contains("why not c: "), "{words}");
    let unknown = conclave(&["explain", "mastres", "--config", config])?;
    assert_eq!(unknown.status.code(), Some(1));
    Ok(())
}

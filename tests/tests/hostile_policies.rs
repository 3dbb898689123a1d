//! Hostile policies on three running nodes: whatever one does costs no leadership, and a leader that
//! ends is followed by another.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::Node;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::json;

/// What a policy is made to do, and what the nodes say of it.
const MISDEEDS: [(&str, &str); 11] = [
    ("loop", "units of fuel"),
    ("memory", "more memory than"),
    ("recurse", "it trapped"),
    ("panic", "it trapped"),
    ("shout", "larger than"),
    ("huge", "larger than"),
    ("many", "more memory than"),
    ("unknown", "which is no candidate"),
    ("twice", "twice"),
    ("both", "twice"),
    ("refuse", "not today"),
];

/// Gives a node the hostile policy, which is honest until another node's label says otherwise.
fn hostile(node: &mut Node) -> Result<()> {
    let directory = node.root().join("policies");
    fs::create_dir(&directory)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let component = root.join("host/policy/tests/fixtures/hostile.wasm");
    fs::copy(component, directory.join("hostile.wasm"))?;
    // So that each runs into its own limit, on a slow machine too.
    let limits = json!({ "time": "5s", "fuel": 20_000_000, "memory_mib": 4 });
    node.config()["policies"] = json!({ "directory": "policies", "limits": limits });
    node.config()["elections"][0]["policy"] = json!("hostile");
    Ok(())
}

#[test]
fn no_misdeed_of_a_policy_costs_a_leadership() -> Outcome {
    let names = ["a", "b", "c"];
    // Whatever happens does not happen because a session ran out.
    let plan = Plan { ttl: "60s", ..Plan::default() };
    let mut cluster = Cluster::prepare_with(&names, &plan, hostile)?;
    for name in ["a", "b"] {
        cluster.node(name).start()?;
    }
    cluster.wait_for_candidates(2)?;
    let leader = cluster.leader()?;
    let token = cluster.term()?.context("a term")?.token;
    for (misdeed, words) in MISDEEDS {
        // It comes, all others' rankings go wrong, and it goes.
        cluster.node("c").config()["node"]["labels"] = json!({ "misdeed": misdeed });
        let told = cluster.node(&leader).output()?.len();
        cluster.node("c").start()?;
        eventually(&format!("the leader to tell of `{misdeed}`"), PATIENCE, || {
            let told = cluster.node(&leader).output().ok()?.split_off(told);
            let mut lines = told.lines().filter(|line| line.contains("policy failed"));
            lines.any(|line| line.contains(words)).then_some(())
        })?;
        cluster.leads_for(&leader, Duration::from_millis(300))?;
        assert_eq!(cluster.term()?.context("a term")?.token, token, "{misdeed} cost the term");
        cluster.node("c").stop()?;
    }

    // And while all of them go wrong, one that leads can be followed.
    cluster.node("c").start()?;
    cluster.wait_for_candidates(3)?;
    cluster.node(&leader).stop()?;
    cluster.leader_after(&leader)?;
    cluster.finish()?;
    Ok(())
}

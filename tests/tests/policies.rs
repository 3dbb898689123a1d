//! A policy that the host has never heard of: built outside the workspace, dropped into the plugin
//! directory of an unmodified binary, it decides who leads and what runs where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use conclave_tests::node::Node;
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// Builds the example policy as its README says.
fn build(out: &Path) -> Result<()> {
    let root = repository();
    let status = Command::new(root.join("plugins/build"))
        .arg("--project")
        .arg(root.join("examples/policy-rust"))
        .arg("--out")
        .arg(out)
        .status()
        .context("cannot run plugins/build")?;
    ensure!(status.success(), "plugins/build failed: {status}");
    Ok(())
}

/// Runs the example's own cases against what was built of it.
fn hold_its_cases(component: &Path) -> Result<()> {
    let output = Command::new(binary::conclave())
        .args(["policy", "test", "--policy"])
        .arg(component)
        .arg(repository().join("examples/policy-rust"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .context("cannot run conclave policy test")?;
    let shown = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    ensure!(output.status.success(), "{}", shown.concat());
    ensure!(shown[0].contains("8 passed, 0 failed"), "{}", shown.concat());
    Ok(())
}

fn config(store: &Path, rack: &str, plugins: &Path) -> Value {
    let manifest = |file: &str, exclusive: bool| {
        json!({
            "source": format!("src/{file}"),
            "destination": format!("dst/{file}"),
            "exclusive": exclusive,
            "render": true,
        })
    };
    json!({
        "cluster": "policies",
        "node": { "labels": { "rack": rack } },
        "store": { "embedded": { "path": store } },
        "timings": { "ttl": "2s", "minimum_term": "1s" },
        "policies": { "directory": plugins },
        "elections": [{
            "name": "masters",
            "policy": "rack-first",
            "policy_config": { "racks": ["a"], "standby_only": ["warm"] },
            "overlap": "accepted",
            "manifests": [manifest("rack.yaml", true), manifest("warm.yaml", false)],
        }],
    })
}

fn node(name: &str, rack: &str, store: &Path, plugins: &Path) -> Result<Node> {
    let node = Node::new(name, config(store, rack, plugins))?;
    let rendered = format!("{}# rack ${{RACK}}\n", pod::manifest("rack"));
    fs::write(node.sources().join("rack.yaml"), rendered)?;
    fs::write(node.sources().join("warm.yaml"), pod::manifest("warm"))?;
    Ok(node)
}

fn placed(node: &Node) -> (bool, bool) {
    let has = |file: &str| node.destinations().join(file).exists();
    (has("rack.yaml"), has("warm.yaml"))
}

const LEADER: (bool, bool) = (true, false);
const STANDBY: (bool, bool) = (false, true);

#[test]
fn a_policy_from_outside_decides_the_leader_and_the_manifests() -> Outcome {
    let shared = scratch::directory("policies")?;
    let plugins = shared.path().join("plugins");
    fs::create_dir(&plugins)?;
    let component = plugins.join("rack-first.wasm");
    build(&component)?;
    hold_its_cases(&component)?;
    let store = shared.path().join("store.db");

    // The node in rack b is alone at first, so it leads: nobody else stands.
    let mut second = node("second", "b", &store, &plugins)?;
    second.start()?;
    let as_leader = || (placed(&second) == LEADER).then_some(());
    eventually("the only node leads", PATIENCE, as_leader)?;

    // The policy prefers rack a: once the minimum term is over, leadership moves there.
    let mut first = node("first", "a", &store, &plugins)?;
    first.start()?;
    let moved = || (placed(&first) == LEADER && placed(&second) == STANDBY).then_some(());
    eventually("the policy's choice leads", PATIENCE, moved)?;
    let text = fs::read_to_string(first.destinations().join("rack.yaml"))?;
    assert!(text.ends_with("# rack a\n"), "rendered by the policy's variables: {text}");

    // It goes back only as long as rack a is gone.
    first.signal(Signal::TERM)?;
    let back = || (placed(&second) == LEADER && !placed(&first).0).then_some(());
    eventually("the other rack stands in", PATIENCE, back)?;
    Ok(())
}

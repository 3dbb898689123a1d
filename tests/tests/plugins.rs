//! The plugin directory, live: what is put there decides, and whatever is wrong with it costs no term.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use conclave_tests::address::Loopback;
use conclave_tests::http::ask;
use conclave_tests::node::Node;
use conclave_tests::process::{Signal, send};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};
use serde_json::{Value, json};

fn config(store: &Path) -> Value {
    let file = pod::SCHEDULER;
    json!({
        "cluster": "bad-policy",
        "store": { "embedded": { "path": store } },
        "timings": { "ttl": "1s" },
        "policies": { "directory": "policies" },
        "elections": [{
            "name": "masters",
            "policy": "mine",
            "overlap": "accepted",
            "manifests": [{ "source": format!("src/{file}"), "destination": format!("dst/{file}") }],
        }],
    })
}

/// Whoever leads stays.
const STAYS: &str = "plugins/built/cold-standby.wasm";
/// The same, by another component.
const STAYS_TOO: &str = "host/policy/tests/fixtures/frozen/rack-c.wasm";
/// Nodes in rack a lead.
const RACK_A: &str = "host/policy/tests/fixtures/frozen/rack-first.wasm";

fn component(node: &Node) -> PathBuf {
    node.root().join("policies/mine.wasm")
}

fn bytes(policy: &str) -> Result<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(policy);
    fs::read(&file).with_context(|| file.display().to_string())
}

/// Puts a component there as careful people do, at once.
fn replace(node: &Node, policy: &str) -> Result<()> {
    let staged = node.root().join("policies/.staged");
    fs::write(&staged, bytes(policy)?)?;
    Ok(fs::rename(staged, component(node))?)
}

fn node(name: &str, store: &Path) -> Result<Node> {
    let node = Node::new(name, config(store))?;
    pod::copy(pod::SCHEDULER, &node.sources())?;
    fs::create_dir(node.root().join("policies"))?;
    replace(&node, STAYS)?;
    Ok(node)
}

/// Waits until a node has said something so many times.
fn wait_for_words(node: &mut Node, words: &str, times: usize) -> Result<()> {
    eventually(&format!("`{words}` {times} times"), PATIENCE, || {
        node.output().is_ok_and(|told| told.matches(words).count() >= times).then_some(())
    })
}

/// Waits until `conclave status` says something of this node's cluster, or no longer does.
fn wait_for_status(node: &Node, words: &str, said: bool) -> Result<()> {
    let config = node.write_config()?;
    eventually(&format!("status to say `{words}`: {said}"), PATIENCE, || {
        let mut status = Command::new(binary::conclave());
        let shown = status.args(["status", "--config"]).arg(&config).output().ok()?;
        let shown = String::from_utf8_lossy(&shown.stdout);
        (shown.contains("holder in store: first") && shown.contains(words) == said).then_some(())
    })
}

const TAKEN_IN: &str = "a policy is taken in";
const UNUSABLE: &str = "a changed policy cannot be used";

/// The manifest's file: another one when it was withdrawn and placed again.
fn placed(node: &Node) -> Result<u64> {
    Ok(fs::metadata(node.destinations().join(pod::SCHEDULER))?.ino())
}

fn wait_to_lead(node: &Node) -> Result<()> {
    let file = node.destinations().join(pod::SCHEDULER);
    eventually(&format!("{} to lead", node.name()), PATIENCE, || file.exists().then_some(()))
}

#[test]
fn a_daemon_that_starts_again_goes_on_without_a_broken_policy() -> Outcome {
    let shared = scratch::directory("bad-policy")?;
    let store = shared.path().join("store.db");
    let mut first = node("first", &store)?;
    first.start()?;
    wait_to_lead(&first)?;
    let mut second = node("second", &store)?;
    second.start()?;
    wait_for_words(&mut second, "session began", 1)?;

    // Frozen past its deadline, it is ended by its guard, and the next one starts afresh.
    let daemon = first.daemon()?;
    send(daemon, Signal::STOP)?;
    let half = fs::read(component(&first))?;
    fs::write(component(&first), &half[..half.len() / 2])?;
    wait_to_lead(&second)?;
    first.daemon_after(Some(daemon))?;

    second.stop()?;
    wait_to_lead(&first)?;
    let told = first.output()?;
    assert!(told.contains("the policy cannot be used; what stands in for it decides"), "{told}");
    first.stop()?;

    // To an operator who starts it the same is a mistake in the configuration.
    first.start()?;
    let status = first.guard()?.wait(PATIENCE)?;
    assert_eq!(status.code(), Some(2), "{}", first.output()?);
    let told = first.output()?;
    told.rfind("no policy `mine`").or(told.rfind("mine.wasm")).context(told)?;
    Ok(())
}

#[test]
fn a_changed_component_decides_without_a_restart() -> Outcome {
    let shared = scratch::directory("plugins")?;
    let store = shared.path().join("store.db");
    let (mut first, mut second) = (node("first", &store)?, node("second", &store)?);
    second.config()["node"]["labels"] = json!({ "rack": "a" });
    first.start()?;
    wait_to_lead(&first)?;
    second.start()?;
    for node in [&mut first, &mut second] {
        replace(node, RACK_A)?;
        wait_for_words(node, TAKEN_IN, 1)?;
    }
    wait_to_lead(&second)?;
    Ok(())
}

#[test]
fn what_is_wrong_in_the_directory_leaves_what_was_loaded_in_force() -> Outcome {
    let shared = scratch::directory("plugins")?;
    let mut node = node("first", &shared.path().join("store.db"))?;
    let address = Loopback::claim()?;
    let listen = address.port(8437);
    node.config()["http"] = json!({ "listen": listen.to_string() });
    let kept_out = |expected: &str| {
        let series = format!("conclave_policy_kept_out{{election=\"masters\"}} {expected}");
        eventually(&series, PATIENCE, || {
            ask(listen, "GET", "/metrics").ok()?.1.contains(&series).then_some(())
        })
    };
    node.start()?;
    wait_to_lead(&node)?;
    let before = placed(&node)?;

    // Half copied, for longer than anybody copies; then whole.
    let whole = bytes(STAYS_TOO)?;
    fs::write(component(&node), &whole[..whole.len() / 2])?;
    wait_for_words(&mut node, UNUSABLE, 1)?;
    fs::write(component(&node), &whole)?;
    wait_for_words(&mut node, TAKEN_IN, 1)?;

    fs::write(component(&node), "no component")?;
    wait_for_words(&mut node, UNUSABLE, 2)?;
    kept_out("1")?;
    wait_for_status(
        &node,
        "its policy stays as it was: the changed component cannot be used",
        true,
    )?;
    fs::remove_file(component(&node))?;
    wait_for_words(&mut node, "a policy in use was removed", 1)?;
    wait_for_status(&node, "mine.wasm was removed from the plugin directory", true)?;
    replace(&node, STAYS)?;
    wait_for_words(&mut node, TAKEN_IN, 2)?;
    wait_for_status(&node, "its policy stays as it was", false)?;
    kept_out("0")?;

    assert_eq!(placed(&node)?, before, "a reload cost the term");
    node.stop()?;
    Ok(())
}

#[test]
fn a_hundred_reloads_in_a_row_cost_no_term() -> Outcome {
    let shared = scratch::directory("plugins")?;
    let mut node = node("first", &shared.path().join("store.db"))?;
    node.start()?;
    wait_to_lead(&node)?;
    let before = placed(&node)?;
    for reload in 1..=100 {
        replace(&node, if reload % 2 == 1 { STAYS_TOO } else { STAYS })?;
        wait_for_words(&mut node, TAKEN_IN, reload)?;
        assert_eq!(placed(&node)?, before, "reload {reload} cost the term");
    }
    node.stop()?;
    let told = node.output()?;
    assert!(!told.contains(UNUSABLE), "{told}");
    Ok(())
}

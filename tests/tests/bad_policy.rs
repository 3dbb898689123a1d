//! A component that is half copied, or broken, while a daemon starts again costs its node nothing: no
//! operator waits there to read a message.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use conclave_tests::node::Node;
use conclave_tests::process::send;
use conclave_tests::{Outcome, PATIENCE, eventually, pod, scratch};
use rustix::process::Signal;
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

fn component(node: &Node) -> std::path::PathBuf {
    node.root().join("policies/mine.wasm")
}

fn node(name: &str, store: &Path) -> Result<Node> {
    let node = Node::new(name, config(store))?;
    pod::copy(pod::SCHEDULER, &node.sources())?;
    fs::create_dir(node.root().join("policies"))?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/built/cold-standby.wasm");
    fs::copy(built, component(&node))?;
    Ok(node)
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
    assert!(told.contains("policies cannot be used; what stands in for them decides"), "{told}");
    first.stop()?;

    // To an operator who starts it the same is a mistake in the configuration.
    first.start()?;
    let status = first.guard()?.wait(PATIENCE)?;
    assert_eq!(status.code(), Some(2), "{}", first.output()?);
    let told = first.output()?;
    told.rfind("no policy `mine`").or(told.rfind("mine.wasm")).context(told)?;
    Ok(())
}

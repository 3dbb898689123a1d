//! Settings of an election as an operator writes them: what each does on the real binary.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::node::{Node, scheduler_node};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, holds_for, pod, scratch};
use serde_json::{Value, json};

/// A node of one election over the scheduler's manifest, changed so.
fn node(name: &str, store: &Path, change: impl FnOnce(&mut Value)) -> Result<Node> {
    scheduler_node(name, "settings", store, |config| change(&mut config["elections"][0]))
}

fn runs(node: &Node, file: &str) -> bool {
    node.destinations().join(file).exists()
}

fn role(node: &Node) -> Option<Value> {
    serde_json::from_slice(&fs::read(node.root().join("role.json")).ok()?).ok()
}

/// Waits until a role file says so.
fn wait_for_role(node: &Node, expected: &str, holder: &str) -> Result<Value> {
    eventually(&format!("{} to be {expected}", node.name()), PATIENCE, || {
        let role = role(node)?;
        (role["role"] == expected && role["holder"] == holder).then_some(role)
    })
}

#[test]
fn hot_standbys_run_everywhere_and_learn_their_role_from_a_file() -> Outcome {
    let scratch = scratch::directory("hot-standby")?;
    let store = scratch.path().join("store.db");
    let hot = |election: &mut Value| {
        election["policy"] = json!("hot-standby");
        election["manifests"][0]["exclusive"] = json!(false);
        election["role_file"] = json!("role.json");
    };
    let (mut a, mut b) = (node("a", &store, hot)?, node("b", &store, hot)?);
    a.start()?;
    let first = wait_for_role(&a, "leader", "a")?;
    b.start()?;
    let other = wait_for_role(&b, "standby", "a")?;
    assert_eq!(first["token"], other["token"], "both name the term");
    let both = || runs(&a, pod::SCHEDULER) && runs(&b, pod::SCHEDULER);
    eventually("the manifest on both", PATIENCE, || both().then_some(()))?;

    a.stop()?;
    let next = wait_for_role(&b, "leader", "b")?;
    let token = |role: &Value| role["token"].as_u64().context("a token");
    assert!(token(&next)? > token(&first)?, "a later term has a larger token: {next} {first}");
    assert!(runs(&b, pod::SCHEDULER), "it ran all along");
    let left = role(&a);
    assert!(left.as_ref().is_none_or(|role| role["role"] == "standby"), "{left:?}");
    Ok(())
}

#[test]
fn a_manifest_directorys_files_follow_the_leader_without_a_restart() -> Outcome {
    let scratch = scratch::directory("directory")?;
    let store = scratch.path().join("store.db");
    let whole = |election: &mut Value| {
        election["manifests"] = Value::Null;
        election["manifest_directory"] = json!({ "source": "src", "destination": "dst" });
    };
    let (mut a, mut b) = (node("a", &store, whole)?, node("b", &store, whole)?);
    a.start()?;
    eventually("a to lead", PATIENCE, || runs(&a, pod::SCHEDULER).then_some(()))?;
    b.start()?;
    for node in [&a, &b] {
        pod::copy(pod::CONTROLLER_MANAGER, &node.sources())?;
        fs::write(node.sources().join("notes.txt"), "no manifest")?;
    }
    eventually("the new file on a", PATIENCE, || runs(&a, pod::CONTROLLER_MANAGER).then_some(()))?;
    assert!(!runs(&a, "notes.txt"));
    fs::remove_file(a.sources().join(pod::SCHEDULER))?;
    eventually("the removed file to go", PATIENCE, || (!runs(&a, pod::SCHEDULER)).then_some(()))?;
    assert!(!runs(&b, pod::CONTROLLER_MANAGER), "b does not lead");

    a.stop()?;
    assert!(!runs(&a, pod::CONTROLLER_MANAGER));
    eventually("both on b", PATIENCE, || {
        (runs(&b, pod::SCHEDULER) && runs(&b, pod::CONTROLLER_MANAGER)).then_some(())
    })?;
    Ok(())
}

/// A node whose policy ranks a node that does not exist.
fn with_a_lying_policy(name: &str, store: &Path, on_failure: &str) -> Result<Node> {
    let mut node = node(name, store, |election| {
        election["policy"] = json!("hostile");
        election["policy_config"] = json!({ "misdeed": "unknown" });
        election["on_policy_failure"] = json!(on_failure);
    })?;
    node.config()["policies"] = json!({ "directory": "policies" });
    let directory = node.root().join("policies");
    fs::create_dir(&directory)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::copy(root.join("host/policy/tests/fixtures/hostile.wasm"), directory.join("hostile.wasm"))?;
    Ok(node)
}

#[test]
fn while_its_policy_fails_an_election_holds_or_goes_on_as_it_is_told_to() -> Outcome {
    let scratch = scratch::directory("hold")?;
    let start = |store: &str, on_failure: &str| -> Result<[Node; 2]> {
        let store = scratch.path().join(store);
        let mut nodes = ["a", "b"].map(|name| with_a_lying_policy(name, &store, on_failure));
        for node in nodes.iter_mut().flatten() {
            node.start()?;
        }
        let [a, b] = nodes;
        Ok([a?, b?])
    };
    let leaders = |nodes: &[Node; 2]| nodes.iter().filter(|n| runs(n, pod::SCHEDULER)).count();

    let mut held = start("held.db", "hold")?;
    let words = "nobody new is elected";
    for node in &mut held {
        eventually("the failure in the log", PATIENCE, || {
            node.output().ok()?.contains(words).then_some(())
        })?;
    }
    holds_for("nobody leads", Duration::from_secs(3), || leaders(&held) == 0)?;

    let builtin = start("builtin.db", "builtin")?;
    eventually("one leader", PATIENCE, || (leaders(&builtin) == 1).then_some(()))?;
    holds_for("one leads", Duration::from_secs(1), || leaders(&builtin) == 1)?;
    assert_eq!(leaders(&held), 0);
    Ok(())
}

#[test]
fn a_node_that_could_not_fill_in_its_manifest_is_unfit_before_it_has_a_term() -> Outcome {
    let scratch = scratch::directory("unrendered")?;
    let store = scratch.path().join("store.db");
    let rendered = |election: &mut Value| election["manifests"][0]["render"] = json!(true);
    let (mut a, mut b) = (node("a", &store, rendered)?, node("b", &store, rendered)?);
    let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: scheduler-${CONCLAVE_TERM}}\n";
    for node in [&a, &b] {
        fs::write(node.sources().join(pod::SCHEDULER), good)?;
    }
    a.start()?;
    eventually("a to lead", PATIENCE, || runs(&a, pod::SCHEDULER).then_some(()))?;
    b.start()?;
    for words in ["fit=true", "session began"] {
        eventually("b to take part", PATIENCE, || b.output().ok()?.contains(words).then_some(()))?;
    }
    // A daemon that starts anew has no earlier copy to go on with.
    let source = b.sources().join(pod::SCHEDULER);
    fs::write(&source, format!("{good}# ${{NOBODY_GIVES_IT}}\n"))?;
    let killed = b.kill_daemon()?;
    b.daemon_replaced(killed)?;
    eventually("b to be unfit, and to say why", PATIENCE, || {
        let told = b.output().ok()?;
        (told.contains("unknown variable NOBODY_GIVES_IT") && told.contains("fit=false"))
            .then_some(())
    })?;
    assert!(runs(&a, pod::SCHEDULER));
    a.stop()?;
    holds_for("nobody leads", Duration::from_secs(3), || !runs(&b, pod::SCHEDULER))?;
    assert!(!b.output()?.contains("holds the term"), "it took a term that it cannot use");
    fs::write(&source, good)?;
    eventually("b to lead with a source that is mended", PATIENCE, || {
        runs(&b, pod::SCHEDULER).then_some(())
    })?;
    Ok(())
}

#[test]
fn a_node_that_is_started_twice_is_refused_as_a_name_that_is_taken() -> Outcome {
    let scratch = scratch::directory("twice")?;
    let store = scratch.path().join("store.db");
    let mut a = node("a", &store, |_| {})?;
    a.start()?;
    eventually("a to lead", PATIENCE, || runs(&a, pod::SCHEDULER).then_some(()))?;
    let mut again = Command::new(binary::conclave());
    let output = again.args(["run", "--config"]).arg(a.write_config()?).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("is in use by"), "{error}");
    assert!(runs(&a, pod::SCHEDULER), "the first one goes on");
    Ok(())
}

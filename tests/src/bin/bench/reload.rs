//! A changed policy: from the moment that its file is in place to the moment that it decides.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use conclave_tests::node::scheduler_node;
use conclave_tests::{PATIENCE, eventually, pod, scratch};
use serde_json::json;

use crate::figure::{Figure, Unit};

/// Two components that decide the same, by turns in the same file.
const COMPONENTS: [&str; 2] =
    ["plugins/built/cold-standby.wasm", "host/policy/tests/fixtures/frozen/rack-c.wasm"];

/// What the daemon says once a component decides.
const TAKEN_IN: &str = "a policy is taken in";

/// How often its log is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Replaces the component of a leader again and again.
///
/// # Errors
///
/// When the node does not lead, or does not take a component in.
pub(crate) fn reload(trials: usize) -> Result<Figure> {
    let scratch = scratch::directory("bench-reload")?;
    let store = scratch.path().join("store.db");
    let mut node = scheduler_node("a", "bench-reload", &store, |config| {
        config["policies"] = json!({ "directory": "policies" });
        config["elections"][0]["policy"] = json!("mine");
    })?;
    let policies = node.root().join("policies");
    fs::create_dir(&policies)?;
    put(&policies, COMPONENTS[0])?;
    node.start()?;
    let placed = node.destinations().join(pod::SCHEDULER);
    eventually("the node to lead", PATIENCE, || placed.exists().then_some(()))?;
    let mut samples = Vec::new();
    // The first two are compiled, which is another figure.
    for trial in 1..=trials + 2 {
        put(&policies, COMPONENTS[trial % 2])?;
        let began = Instant::now();
        while node.output()?.matches(TAKEN_IN).count() < trial {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the component was not taken in");
            thread::sleep(LOOK);
        }
        if trial > 2 {
            samples.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    node.stop()?;
    let what = "changed policy file in place to deciding (200 ms of it wait until it stands still)";
    Ok(Figure::new("reload", what, Unit::Milliseconds, samples))
}

fn put(policies: &Path, component: &str) -> Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(component);
    let staged = policies.join(".staged");
    fs::copy(&from, &staged).with_context(|| from.display().to_string())?;
    Ok(fs::rename(staged, policies.join("mine.wasm"))?)
}

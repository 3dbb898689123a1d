//! What an earlier version wrote is read by today's program; what a later one wrote is refused, with a word about what to
//! do. The samples in `tests/formats` are frozen: where a change breaks one, the change is what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::gateway::Gateway;
use conclave_tests::node::scheduler_node;
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};
use serde_json::{Value, json};

const CLUSTER: &str = "frozen";

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("formats/0.1").join(name)
}

/// A sample with a directory in the place of ROOT.
fn filled(name: &str, root: &Path) -> Result<String> {
    let text = fs::read_to_string(sample(name)).with_context(|| name.to_owned())?;
    Ok(text.replace("ROOT", &root.to_string_lossy()))
}

fn conclave(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary::conclave()).args(arguments).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_configuration_of_version_1_is_read_and_a_later_one_refused() -> Outcome {
    let root = scratch::directory("formats")?;
    for directory in ["src", "dst", "more", "policies"] {
        fs::create_dir(root.path().join(directory))?;
    }
    let pod = fs::read_to_string(sample("placed.yaml"))?;
    fs::write(root.path().join("src/p.yaml"), &pod)?;
    fs::write(root.path().join("token"), "t")?;
    let config = root.path().join("conclave.yaml");
    let text = filled("conclave.yaml", root.path())?;
    fs::write(&config, &text)?;
    let checked = conclave(&["config", "check", &config.to_string_lossy()])?;
    assert!(checked.status.success(), "{}", said(&checked));
    fs::write(&config, text.replace("version: 1\n", "version: 2\n"))?;
    let refused = conclave(&["config", "check", &config.to_string_lossy()])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("version 2, and this program reads 1"), "{}", said(&refused));
    Ok(())
}

/// Puts the sample's records, each changed so by its key, into a store. What they say of each other's revisions has to be said anew there.
fn put(etcd: &Etcd, change: impl Fn(&str, &mut Value)) -> Result<()> {
    let mut gateway = Gateway::connect(etcd.address())?;
    let text = fs::read_to_string(sample("store.json"))?;
    let records: serde_json::Map<String, Value> = serde_json::from_str(&text)?;
    let (sessions, others): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|(key, _)| key.contains("/sessions/"));
    let mut renamed = Vec::new();
    for (key, mut record) in sessions {
        change(&key, &mut record["value"]);
        gateway.put(&key, &record["value"].to_string())?;
        let stored = gateway.list(&key)?.into_iter().next().context("a session")?;
        renamed.push((record["created"].as_u64().context("a revision")?, stored.created));
    }
    for (mut key, record) in others {
        let mut value = record["value"].clone();
        change(&key, &mut value);
        for (old, new) in &renamed {
            if value["session"] == json!(old) {
                value["session"] = json!(new);
                key = key.replace(&format!("/leader/{old:x}"), &format!("/leader/{new:x}"));
            }
        }
        gateway.put(&key, &value.to_string())?;
    }
    Ok(())
}

/// What a command that succeeds says of the sample's cluster.
fn ask(etcd: &Etcd, command: &[&str]) -> Result<Value> {
    let url = etcd.url();
    let store = ["--endpoints", &url, "--cluster", CLUSTER, "--output", "json"];
    let output = conclave(&[command, &store].concat())?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn the_stores_records_of_0_1_are_read_and_later_ones_refused() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    put(&etcd, |_, _| {})?;
    let url = etcd.url();
    let status = ask(&etcd, &["status"])?;
    let election = &status["elections"][0];
    assert_eq!(election["election"], "masters", "{status:#}");
    let holder = &election["holder_in_store"];
    assert_eq!((&holder["node"], &holder["session_stands"]), (&json!("node-2"), &json!(true)));
    assert_eq!(election["pause"]["note"], "root@host: frozen");
    let candidates = election["candidates"].as_array().context("candidates")?;
    assert_eq!(candidates.len(), 2, "{status:#}");
    assert!(candidates.iter().any(|it| it["node"] == "node-1" && it["cordoned"] == true));
    let history = ask(&etcd, &["history", "masters"])?;
    assert_eq!(
        (&history["terms"][0]["token"], &history["terms"][0]["why"]),
        (&json!(4), &json!("transfer"))
    );

    // A node of a later version has written what today's could misread.
    put(&etcd, |key, record| {
        if key.contains("/sessions/") {
            record["format"] = json!(2);
        }
    })?;
    let store = ["--endpoints", &url, "--cluster", CLUSTER];
    let refused = conclave(&[&["status"], &store[..]].concat())?;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("format 2, and this program reads 1"), "{}", said(&refused));
    let nowhere = scratch::directory("formats")?;
    let mut node = scheduler_node("node-3", CLUSTER, &nowhere.path().join("none"), |config| {
        config["store"] = json!({ "etcd": { "endpoints": [url] } });
    })?;
    node.start()?;
    let status = node.guard()?.wait(PATIENCE)?;
    let output = node.output()?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("format 2, and this version reads 1"), "{output}");
    Ok(())
}

#[test]
fn what_later_records_say_beside_is_ignored() -> Outcome {
    let of = |later: bool| -> Result<[Value; 2]> {
        let etcd = Etcd::start(Version::V3_5)?;
        put(&etcd, |_, record| {
            if later {
                record["later"] = json!({ "of": ["any", { "shape": null }] });
            }
        })?;
        let mut seen = [ask(&etcd, &["status"])?, ask(&etcd, &["history", "masters"])?];
        // How long ago it was is another thing at another moment.
        seen[0]["elections"][0]["holder_in_store"]["age_ms"] = Value::Null;
        for term in seen[1]["terms"].as_array_mut().into_iter().flatten() {
            term["length_ms"] = Value::Null;
        }
        Ok(seen)
    };
    let [now, later] = [of(false)?, of(true)?];
    assert_eq!(now[0]["nodes"].as_array().map(Vec::len), Some(2), "{}", now[0]);
    assert_eq!(now, later);
    Ok(())
}

#[test]
fn a_record_that_is_not_understood_hides_no_other() -> Outcome {
    let etcd = Etcd::start(Version::V3_5)?;
    put(&etcd, |key, record| {
        if key.contains("/history/") {
            record["why"] = json!("a_later_reason");
        } else if key.ends_with("/candidates/masters/node-1") {
            record["fitness"] = json!("otherwise");
        }
    })?;
    let status = ask(&etcd, &["status"])?;
    let election = &status["elections"][0];
    assert_eq!(election["holder_in_store"]["node"], "node-2", "{status:#}");
    let candidates = election["candidates"].as_array().context("candidates")?;
    assert!(candidates.len() == 1 && candidates[0]["node"] == "node-2", "{status:#}");
    let history = ask(&etcd, &["history", "masters"])?;
    let terms = history["terms"].as_array().context("terms")?;
    assert!(terms.len() == 1 && terms[0]["node"] == "node-2", "{history:#}");
    Ok(())
}

#[test]
fn a_node_goes_on_from_the_records_of_nodes_that_are_gone() -> Outcome {
    let etcd = Etcd::start(Version::V3_5)?;
    put(&etcd, |_, _| {})?;
    let mut node = scheduler_node("node-3", CLUSTER, Path::new("none"), |config| {
        config["store"] = json!({ "etcd": { "endpoints": [etcd.url()] } });
    })?;
    node.start()?;
    let placed = node.destinations().join(pod::SCHEDULER);
    eventually("the silent holder to be replaced", PATIENCE, || placed.exists().then_some(()))?;
    let history = ask(&etcd, &["history", "masters"])?;
    let terms = history["terms"].as_array().context("terms")?;
    let [.., ended, standing] = &terms[..] else { panic!("{history:#}") };
    assert_eq!([&ended["node"], &ended["why"]], [&json!("node-2"), &json!("silent")]);
    assert_eq!(standing["node"], "node-3", "{history:#}");
    assert!(node.stop()?.success(), "{}", node.output()?);
    Ok(())
}

#[test]
fn a_later_decision_log_is_refused() -> Outcome {
    let dir = scratch::directory("formats")?;
    let log = dir.path().join("log.jsonl");
    let text = filled("state/decisions/log.jsonl", dir.path())?;
    let next = text.lines().count() + 1;
    fs::write(&log, text.trim_end().to_owned() + "\n{\"version\":2,\"asked\":\"otherwise\"}\n")?;
    let refused =
        conclave(&["policy", "replay", &log.to_string_lossy(), "--policy", "cold-standby"])?;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let expected = format!("line {next} is of version 2");
    assert!(said(&refused).contains(&expected), "{}", said(&refused));
    Ok(())
}

#[test]
fn a_state_directory_of_0_1_is_cleaned_and_a_later_one_refused() -> Outcome {
    let root = scratch::directory("formats")?;
    let state = root.path().join("state");
    fs::create_dir_all(state.join("decisions"))?;
    for file in ["ledger.json", "memory.json", "decisions/log.jsonl"] {
        fs::write(state.join(file), filled(&format!("state/{file}"), root.path())?)?;
    }
    let [placed, role] = ["p.yaml", "role.json"].map(|name| root.path().join(name));
    fs::copy(sample("placed.yaml"), &placed)?;
    fs::copy(sample("role.json"), &role)?;
    let log = state.join("decisions/log.jsonl");
    let replayed =
        conclave(&["policy", "replay", &log.to_string_lossy(), "--policy", "cold-standby"])?;
    assert!(replayed.status.success(), "{}", said(&replayed));

    let ledger = fs::read_to_string(state.join("ledger.json"))?;
    fs::write(state.join("ledger.json"), ledger.replace("\"version\": 1", "\"version\": 2"))?;
    let clean = || conclave(&["clean", "--state-dir", &state.to_string_lossy()]);
    let refused = clean()?;
    assert!(!refused.status.success() && placed.exists());
    assert!(said(&refused).contains("layout 2"), "{}", said(&refused));
    fs::write(state.join("ledger.json"), ledger)?;
    let cleaned = clean()?;
    assert!(cleaned.status.success(), "{}", said(&cleaned));
    let word = fs::read_to_string(&role).unwrap_or_default();
    assert!(!placed.exists() && !word.contains("leader"), "what the ledger names is withdrawn");
    Ok(())
}

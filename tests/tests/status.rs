//! What a reader of the store shows, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use conclave_tests::node::{Node, scheduler_node};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};
use serde_json::{Value, json};

fn status(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::conclave());
    command.arg("status").args(arguments).output().context("cannot run conclave status")
}

/// That it failed as a wrong call does, named `path`, and left `directory` as it was.
fn refused(output: &Output, path: &str, directory: &Path, files: usize) -> Result<()> {
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {words}", output.status);
    ensure!(words.contains("there is no Conclave store at") && words.contains(path), "{words}");
    ensure!(fs::read_dir(directory)?.count() == files, "it left something behind");
    Ok(())
}

#[test]
fn a_misspelt_store_is_not_created() -> Outcome {
    let scratch = scratch::directory("status")?;
    let directory = scratch.path();
    let typo = directory.join("stoer.db");
    let typo = typo.to_str().context("a path of text")?;
    refused(&status(&["--embedded", typo, "--cluster", "c"])?, typo, directory, 0)?;

    fs::create_dir(directory.join("pods"))?;
    let config = directory.join("conclave.yaml");
    fs::write(
        &config,
        "cluster: c\nnode: {name: a}\nstore: {embedded: {path: stoer.db}}\nelections:\n- name: e\n  \
         overlap: accepted\n  manifests: [{source: pod.yaml, destination: pods/pod.yaml}]\n",
    )?;
    let config = config.to_str().context("a path of text")?;
    refused(&status(&["--config", config])?, typo, directory, 2)?;
    Ok(())
}

/// A node of one election on an embedded store, started.
fn started(name: &str, store: &Path) -> Result<Node> {
    let mut node = scheduler_node(name, "shown", store, |config| {
        config["elections"][0]["policy"] = json!("oldest-version");
    })?;
    node.start()?;
    Ok(node)
}

fn words(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_living_cluster_is_shown_with_who_holds_and_who_stands_and_why() -> Outcome {
    let scratch = scratch::directory("shown")?;
    let store = scratch.path().join("store.db");
    let a = started("a", &store)?;
    eventually("a to lead", PATIENCE, || {
        a.destinations().join(pod::SCHEDULER).exists().then_some(())
    })?;
    let b = started("b", &store)?;
    let config = b.write_config()?;
    let config = config.to_str().context("a path of text")?;
    let shown = eventually("both to stand", PATIENCE, || {
        let output = status(&["--config", config, "--output", "json"]).ok()?;
        let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
        let candidates = shown["elections"][0]["candidates"].as_array()?.len();
        (candidates == 2).then_some(shown)
    })?;
    let election = &shown["elections"][0];
    assert!(election["election"] == "masters" && election["ranked_by_policy"] == true, "{shown}");
    let holder = &election["holder_in_store"];
    assert!(holder["node"] == "a" && holder["session_stands"] == true, "{shown}");
    assert!(holder["token"].as_u64() > Some(0) && holder["age_ms"].is_u64(), "{shown}");
    let candidates = election["candidates"].as_array().context("candidates")?;
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let candidate = &candidates[index];
        assert!(candidate["node"] == name && candidate["rank"] == index + 1, "{shown}");
        assert!(candidate["fit"] == true && candidate["policy"] == "oldest-version", "{shown}");
        assert!(candidate["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{shown}");
    }

    let (table, warnings) = words(&status(&["--config", config])?);
    assert!(table.contains("holder in store: a, token "), "{table}");
    let row = |rank: &str, name: &str| {
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row.starts_with(&[rank, name, "yes"]) && row.len() > 3)
    };
    assert!(row("1", "a") && row("2", "b"), "{table}");
    assert!(!warnings.contains("built-in order"), "{warnings}");
    Ok(())
}

#[test]
fn what_a_reader_without_the_configuration_cannot_know_is_said() -> Outcome {
    let scratch = scratch::directory("unconfigured")?;
    let store = scratch.path().join("store.db");
    let a = started("a", &store)?;
    eventually("a to lead", PATIENCE, || {
        a.destinations().join(pod::SCHEDULER).exists().then_some(())
    })?;
    let store = store.to_str().context("a path of text")?;
    let output = status(&["--embedded", store, "--cluster", "shown", "--output", "json"])?;
    let (shown, warnings) = words(&output);
    assert!(output.status.success(), "{warnings}");
    let shown: Value = serde_json::from_str(&shown)?;
    assert!(shown["elections"][0]["ranked_by_policy"] == false, "{shown}");
    assert!(warnings.contains("built-in order"), "{warnings}");

    let misspelt = status(&["--embedded", store, "--cluster", "shwon"])?;
    let (shown, error) = words(&misspelt);
    assert!(misspelt.status.code() == Some(1), "{shown}");
    assert!(error.contains("nothing of a cluster `shwon`"), "{error}");
    Ok(())
}

#[test]
fn a_check_of_a_configuration_makes_no_store() -> Outcome {
    let scratch = scratch::directory("checked")?;
    let store = scratch.path().join("store.db");
    let (file, config) = (pod::SCHEDULER, scratch.path().join("conclave.yaml"));
    fs::create_dir(scratch.path().join("dst"))?;
    pod::copy(file, scratch.path())?;
    let manifest = |more: &str| {
        format!(
            "cluster: c\nnode: {{name: a}}\nstore: {{embedded: {{path: store.db}}}}\n\
             state_directory: state\nelections:\n- name: e\n  overlap: accepted\n  manifests:\n  \
             - {{source: {file}, destination: dst/{more}}}\n"
        )
    };
    let check = || Command::new(binary::conclave()).args(["config", "check"]).arg(&config).output();
    fs::write(&config, manifest(""))?;
    let output = check()?;
    let (said, warned) = words(&output);
    assert!(output.status.success() && said.contains("no mistakes"), "{said}{warned}");
    assert!(warned.contains("there is no store at") && !store.exists(), "{warned}");

    // What would only be found out once a term began is found out now.
    fs::write(&config, manifest(", render: true"))?;
    let output = check()?;
    let (said, error) = words(&output);
    assert!(output.status.code() == Some(2), "{said}{error}");
    assert!(
        error.contains("unknown variable MY_IP") && error.contains("conclave.yaml:9:"),
        "{error}"
    );
    Ok(())
}

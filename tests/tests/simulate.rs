//! `conclave simulate` on the examples, as they are shipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use conclave_tests::{Outcome, binary, scratch};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn simulate(example: &str, more: &[&str]) -> Result<Output> {
    let file = root().join("examples/simulate").join(example);
    let mut command = Command::new(binary::conclave());
    command.arg("simulate").arg(file).args(more).output().context("cannot run conclave simulate")
}

/// What it prints, for programs.
fn played(example: &str, more: &[&str]) -> Result<Value> {
    let output = simulate(example, &[&["--output", "json"], more].concat())?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).with_context(|| error.into_owned())
}

fn figures<'a>(report: &'a Value, policy: &str) -> &'a Value {
    let mut outcomes = report["outcomes"].as_array().into_iter().flatten();
    let outcome = outcomes.find(|outcome| outcome["policy"] == policy);
    outcome.map_or(&Value::Null, |outcome| &outcome["figures"][0])
}

#[test]
fn the_same_seed_tells_the_same_story_and_draws_the_committed_picture() -> Outcome {
    let scratch = scratch::directory("simulate")?;
    let picture = scratch.path().join("day.svg");
    let drawn = picture.to_str().context("a path of text")?;
    let once = simulate("a-bad-day.yaml", &["--svg", drawn])?;
    let again = simulate("a-bad-day.yaml", &[])?;
    assert_eq!(once.stdout, again.stdout);
    let text = String::from_utf8(once.stdout)?;
    for words in
        ["cold-standby: service", "a loses power", "the store stops answering", "TAKEN OVER"]
    {
        assert!(text.contains(words), "{text}");
    }
    let picture = std::fs::read_to_string(picture)?;
    let elements = roxmltree::Document::parse(&picture)?.descendants().count();
    assert!(elements > 50, "{elements} elements");
    assert!(
        picture == std::fs::read_to_string(root().join("docs/simulate.svg")).unwrap_or_default(),
        "docs/simulate.svg is another picture; draw it anew: conclave simulate \
         examples/simulate/a-bad-day.yaml --svg docs/simulate.svg"
    );

    // A crash costs about a TTL of 5 s, and a store that is gone for 15 s longer than that some more.
    let report = played("a-bad-day.yaml", &[])?;
    let longest = figures(&report, "cold-standby")["longest_gap"].as_f64().context("a gap")?;
    assert!((10.0..15.0).contains(&longest), "{report}");
    let median = figures(&report, "cold-standby")["median_gap"].as_f64().context("a gap")?;
    assert!(median < 0.1, "most changes are planned: {report}");
    Ok(())
}

#[test]
fn an_unstable_favourite_flaps_only_where_nobody_waits_until_it_has_settled() -> Outcome {
    let report = played("an-unstable-favourite.yaml", &[])?;
    let (at_once, settled) = (figures(&report, "at once"), figures(&report, "once settled"));
    assert!(at_once["flaps"].as_u64() >= Some(10), "{report}");
    assert_eq!(settled["flaps"], 0, "{report}");
    assert!(settled["availability"].as_f64() > at_once["availability"].as_f64(), "{report}");
    Ok(())
}

#[test]
fn a_week_of_failures_is_told_for_every_policy() -> Outcome {
    let report = played("a-week.yaml", &[])?;
    for policy in ["cold-standby", "hot-standby", "preferred"] {
        let figures = figures(&report, policy);
        assert!(figures["availability"].as_f64() > Some(0.999), "{policy}: {report}");
        assert!(figures["takeovers"].as_u64() > Some(3), "{policy}: {report}");
    }
    Ok(())
}

#[test]
fn a_mistake_in_a_scenario_is_told_with_its_place() -> Outcome {
    let scratch = scratch::directory("scenario")?;
    let file = scratch.path().join("s.yaml");
    std::fs::write(&file, "nodes: [a]\nduration: 1m\nstory:\n  - {at: 1s, crash: b}\n")?;
    let mut command = Command::new(binary::conclave());
    let output = command.arg("simulate").arg(&file).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("there is no node `b`") && error.contains("s.yaml:4:21"), "{error}");
    Ok(())
}

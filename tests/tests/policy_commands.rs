//! `conclave policy inspect`, `test` and `bench`, as an author of policies types them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use conclave_tests::{Outcome, binary, scratch};
use serde_json::Value;
use tempfile::TempDir;

const HOSTILE: &str = "host/policy/tests/fixtures/hostile.wasm";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// What a call printed, and how it ended.
struct Ended {
    code: Option<i32>,
    data: String,
    words: String,
}

impl Ended {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.data).with_context(|| format!("{}{}", self.data, self.words))
    }
}

/// Calls `conclave policy …` in a directory. Compiled policies are kept for the other tests.
fn policy(directory: &Path, arguments: &[&str]) -> Result<Ended> {
    let output = Command::new(binary::conclave())
        .arg("policy")
        .args(arguments)
        .current_dir(directory)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .context("cannot run conclave policy")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (data, words) = (text(&output.stdout), text(&output.stderr));
    Ok(Ended { code: output.status.code(), data, words })
}

/// A policy's directory with one case file.
fn project(cases: &str) -> Result<TempDir> {
    let project = scratch::directory("policy")?;
    fs::create_dir(project.path().join("tests"))?;
    fs::write(project.path().join("tests/cases.yaml"), cases)?;
    Ok(project)
}

/// A case file about the hostile policy.
fn hostile(cases: &str) -> String {
    format!("policy: {}\ncases:\n{cases}", repository().join(HOSTILE).display())
}

#[test]
fn a_policy_is_shown() -> Outcome {
    let shown = policy(&repository(), &["inspect", "plugins/built/cold-standby.wasm"])?;
    assert_eq!((shown.code, shown.words.as_str()), (Some(0), ""));
    for line in [
        "policy      cold-standby\n",
        "interfaces  about 0.1.0\n",
        "            leadership 0.1.0\n",
        "host speaks conclave:policy@0.1\n",
        "imports     conclave:policy/logging@0.1.0\n",
        "                \"prefer\": {\n",
    ] {
        assert!(shown.data.contains(line), "{line:?} in {}", shown.data);
    }

    let built_in =
        policy(&repository(), &["inspect", "cold-standby", "--output", "json"])?.json()?;
    let bytes = fs::metadata(repository().join("plugins/built/cold-standby.wasm"))?.len();
    assert_eq!(built_in["bytes"], bytes);
    assert_eq!(built_in["about"]["name"], "cold-standby");
    assert_eq!(built_in["about"]["config_schema"]["properties"]["prefer"]["type"], "array");
    assert_eq!(built_in["interfaces"][2]["name"], "leadership");
    let digest = built_in["digest"].as_str().context("a digest")?;
    assert!(digest.len() == 64 && shown.data.contains(digest), "{digest}");
    Ok(())
}

#[test]
fn what_a_policy_says_of_itself_cannot_reach_the_terminal() -> Outcome {
    let shown = policy(&repository(), &["inspect", HOSTILE])?;
    assert!(shown.data.contains("summary     Misbehaves on request. [2J\n"), "{}", shown.data);
    assert!(!shown.data.contains('\u{1b}'));
    Ok(())
}

#[test]
fn what_is_no_policy_is_told_what_one_is() -> Outcome {
    let place = scratch::directory("no-policies")?;
    let exporting = |name: &str| {
        wat::parse_str(format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#))
    };
    let module = wat::parse_str(r#"(module (memory (export "memory") 1))"#)?;
    for (file, bytes, expected) in [
        (
            "other.wasm",
            exporting("conclave:policy/leadership@9.0.0")?,
            "it exports `conclave:policy/leadership@9.0.0`; this host speaks conclave:policy@0.1",
        ),
        (
            "none.wasm",
            exporting("a:b/c@1.0.0")?,
            "it exports `a:b/c@1.0.0`; a policy exports about, facts, leadership or placement of conclave:policy@0.1",
        ),
        (
            "module.wasm",
            module,
            "it is a core WebAssembly module, which exports `memory`; make it a component",
        ),
        ("text.wasm", b"#!/bin/sh\n".to_vec(), "it is not a WebAssembly component"),
    ] {
        fs::write(place.path().join(file), bytes)?;
        let refused = policy(place.path(), &["inspect", file])?;
        assert_eq!((refused.code, refused.data.as_str()), (Some(2), ""), "{}", refused.words);
        let beginning = format!("conclave: {file} is no usable policy: {expected}");
        assert!(refused.words.starts_with(&beginning), "{}", refused.words);
        assert!(refused.words.contains("conclave:policy@0.1"), "{}", refused.words);
    }
    Ok(())
}

#[test]
fn the_first_partys_cases_pass() -> Outcome {
    let ended = policy(&repository(), &["test", "plugins/cold-standby", "plugins/hot-standby"])?;
    assert_eq!((ended.code, ended.words.as_str()), (Some(0), ""), "{}", ended.data);
    assert!(ended.data.contains("plugins/hot-standby/tests/cases.yaml: policy hot-standby ("));
    assert!(ended.data.contains(" 0 failed; a call used "), "{}", ended.data);
    Ok(())
}

#[test]
fn a_failing_case_shows_the_difference() -> Outcome {
    let project = project(
        "policy: cold-standby\n\
         cases:\n\
         - name: somebody else leads\n  \
           rank: {candidates: 3, leader: b}\n  \
           expect: {order: [a, b, c]}\n\
         - name: and this is right\n  \
           rank: {candidates: 3, leader: b}\n  \
           expect: {first: b}\n",
    )?;
    let ended = policy(project.path(), &["test"])?;
    assert_eq!((ended.code, ended.words.as_str()), (Some(1), ""));
    let expected = "        tests/cases.yaml:5:12: the order differs\n          \
                    - a\n            \
                      b  (holds the term, and leadership stays where it is)\n          \
                    + a  (in order of standing)\n            \
                      c  (in order of standing)\n";
    assert!(ended.data.contains(expected), "{}", ended.data);
    assert!(ended.data.contains("\n4 passed, 1 failed; a call used "), "{}", ended.data);

    // What is asked for decides.
    let right = policy(project.path(), &["test", "--run", "this is right"])?;
    assert_eq!(right.code, Some(0), "{}", right.data);
    assert!(right.data.contains("1 passed, 0 failed"), "{}", right.data);
    let none = policy(project.path(), &["test", "--run", "no such"])?;
    assert_eq!(none.code, Some(2));
    assert_eq!(none.words, "conclave: no case has `no such` in its name\n");
    Ok(())
}

#[test]
fn programs_get_everything() -> Outcome {
    let project = project(
        "policy: cold-standby\ncases:\n- name: one\n  rank: {candidates: 2}\n  expect: {first: b}\n",
    )?;
    let ended = policy(project.path(), &["test", "--output", "json"])?;
    assert_eq!(ended.code, Some(1));
    let report = ended.json()?;
    assert_eq!(report["fuel_limit"], 100_000_000);
    let case = &report["suites"][0]["cases"][0];
    assert_eq!((&case["name"], &case["passed"]), (&"one".into(), &false.into()));
    assert_eq!((&case["line"], &case["function"]), (&3.into(), &"rank".into()));
    assert!(case["fuel"].as_u64().is_some_and(|fuel| fuel > 0), "{case}");
    assert_eq!(case["failures"][0]["what"], "`a` is first, not `b`");
    assert_eq!(case["failures"][0]["diff"][0]["side"], "expected");
    Ok(())
}

#[test]
fn mistakes_in_a_case_file_are_shown_with_their_place() -> Outcome {
    let project = project(
        "policy: cold-stanby\n\
         cases:\n\
         - name: one\n  \
           rank: {candidates: [a, b], leader: c}\n  \
           expect: {frist: a}\n",
    )?;
    let ended = policy(project.path(), &["test"])?;
    assert_eq!((ended.code, ended.data.as_str()), (Some(2), ""));
    for (message, place, help) in [
        ("there is no built-in policy `cold-stanby`", "1:9", "did you mean `cold-standby`?"),
        ("`c` is no candidate", "4:38", "the candidates are `a`, `b`"),
        ("unknown field `frist`", "5:12", "did you mean `first`?"),
    ] {
        let message = format!("error: {message}\n");
        let place = format!("--> tests/cases.yaml:{place}\n");
        for part in [message.as_str(), &place, &format!("= help: {help}")] {
            assert!(ended.words.contains(part), "{part:?} in {}", ended.words);
        }
    }
    Ok(())
}

#[test]
fn a_policy_that_is_missing_is_a_mistake_in_the_file() -> Outcome {
    let project = project("policy: ../mine.wasm\ncases:\n- name: one\n  rank: {candidates: 2}\n")?;
    let ended = policy(project.path(), &["test"])?;
    assert_eq!(ended.code, Some(2));
    let expected = "mine.wasm is no usable policy: cannot read it: No such file";
    assert!(ended.words.contains(expected), "{}", ended.words);
    assert!(ended.words.contains("--> tests/cases.yaml:1:9\n"), "{}", ended.words);

    // Another one can be named instead.
    let other = policy(project.path(), &["test", "--policy", "hot-standby"])?;
    assert_eq!(other.code, Some(0), "{}{}", other.data, other.words);
    Ok(())
}

#[test]
fn where_no_case_is_a_first_one_is_shown() -> Outcome {
    let empty = scratch::directory("empty")?;
    let ended = policy(empty.path(), &["test"])?;
    assert_eq!((ended.code, ended.data.as_str()), (Some(2), ""));
    assert!(ended.words.contains("there is no *.yaml in ./tests"), "{}", ended.words);
    // It is one that works.
    let (_, example) = ended.words.split_once(":\n\n").context("an example")?;
    let example = example.replace("../my-policy.wasm", "cold-standby");
    let lines: Vec<&str> = example.lines().map(|l| l.strip_prefix("    ").unwrap_or(l)).collect();
    let ended = policy(project(&lines.join("\n"))?.path(), &["test"])?;
    assert_eq!(ended.code, Some(0), "{}{}", ended.data, ended.words);
    Ok(())
}

#[test]
fn a_hostile_policy_fails_within_its_limits_and_is_named() -> Outcome {
    let case = |misdeed: &str| {
        format!(
            "- name: {misdeed}\n  config: {{misdeed: {misdeed}}}\n  \
             rank: {{candidates: 2, leader: b}}\n"
        )
    };
    let misdeeds = ["loop", "memory", "panic", "unknown", "huge", "recurse"];
    let project = project(&hostile(&misdeeds.map(case).concat()))?;
    let ended = policy(project.path(), &["test", "--output", "json"])?;
    assert_eq!(ended.code, Some(1), "{}", ended.words);
    let report = ended.json()?;
    for (at, misdeed, cause) in [
        (
            0,
            "loop",
            "it used up its 100000000 units of fuel; does it loop? (fuel: 100,000,000 of 100,000,000)",
        ),
        (1, "memory", "it needs more memory than 64 MiB or a larger table than allowed (fuel: "),
        (2, "panic", "it trapped"),
        (3, "unknown", "it ranked `nobody`, which is no candidate"),
        (4, "huge", "what it passed is larger than 1048576 bytes"),
        (5, "recurse", "it trapped"),
    ] {
        let case = &report["suites"][0]["cases"][at];
        assert_eq!(case["name"], misdeed);
        let what = case["failures"][0]["what"].as_str().context("a failure")?;
        assert!(what.starts_with("policy `hostile` ("), "{what}");
        assert!(
            what.contains(" gave no usable answer to `rank` for election `masters`: "),
            "{what}"
        );
        assert!(what.contains(cause) && what.ends_with(" of 100,000,000)"), "{what}");
        let fuel = case["fuel"].as_u64().context("fuel")?;
        assert!((1..=100_000_000).contains(&fuel), "{fuel}");
    }
    // What it left in its log.
    let log = report["suites"][0]["cases"][2]["log"].to_string();
    assert!(log.contains("panicked at") && log.contains("on request"), "{log}");
    Ok(())
}

#[test]
fn what_every_policy_must_meet_is_found_out_and_can_be_pasted() -> Outcome {
    let cases =
        hostile("- name: nobody leads\n  config: {misdeed: steal}\n  rank: {candidates: 2}\n");
    let project = project(&cases)?;
    let report = policy(project.path(), &["test", "--output", "json", "--seed", "3"])?;
    assert_eq!(report.code, Some(1), "{}", report.words);
    let report = report.json()?;
    assert_eq!(report["seed"], 3);
    let [own, rank, place, describe] =
        &report["suites"][0]["cases"].as_array().context("cases")?[..]
    else {
        panic!("{report}")
    };
    for good in [own, rank, describe] {
        assert_eq!(good["passed"], true, "{good}");
    }
    assert_eq!((&rank["views"], &rank["refused"]), (&200.into(), &0.into()));
    let failure = &place["failures"][0];
    let what = failure["what"].as_str().context("a failure")?;
    assert!(what.contains("its answer is wrong: it would run the exclusive manifest `"), "{what}");

    // The case says what matters and nothing else, and fails by itself.
    let case = failure["case"].as_str().context("a case")?;
    let lines: Vec<&str> = case.lines().collect();
    assert!(
        lines[0].starts_with("  - name: place view ") && lines[0].ends_with(" of seed 3"),
        "{case}"
    );
    assert_eq!(lines[1..4], ["    config: {misdeed: steal}", "    place:", "      candidates: 1"]);
    assert!(lines[4].starts_with("      manifests: [") && lines.len() == 5, "{case}");
    fs::write(project.path().join("tests/cases.yaml"), hostile("") + case)?;
    let again = policy(project.path(), &["test", "--views", "0"])?;
    assert_eq!(again.code, Some(1), "{}{}", again.data, again.words);
    assert!(again.data.contains("it would run the exclusive manifest `"), "{}", again.data);
    assert!(again.data.contains("\n0 passed, 1 failed"), "{}", again.data);
    Ok(())
}

#[test]
fn the_same_seed_finds_the_same() -> Outcome {
    let project = project(&hostile(
        "- name: one\n  config: {misdeed: fact-twice}\n  rank: {candidates: 2}\n",
    ))?;
    let shown =
        |seed: &str| policy(project.path(), &["test", "--seed", seed]).map(|ended| ended.data);
    assert_eq!(shown("5")?, shown("5")?);
    assert!(shown("5")?.contains("of seed 5\n") && shown("6")?.contains("of seed 6\n"));
    Ok(())
}

#[test]
fn a_policy_that_loops_costs_bounded_fuel_everywhere() -> Outcome {
    let text = hostile("- name: loop\n  rank: {candidates: 5, leader: c}\n");
    let project = project(&text.replace("cases:", "config: {misdeed: loop}\ncases:"))?;
    let report = policy(project.path(), &["test", "--output", "json"])?.json()?;
    let cases = report["suites"][0]["cases"].as_array().context("cases")?;
    assert_eq!(cases.len(), 4, "{report}");
    for case in cases {
        assert_eq!(
            (&case["passed"], &case["fuel"]),
            (&false.into(), &100_000_000.into()),
            "{case}"
        );
        let what = case["failures"][0]["what"].as_str().context("a failure")?;
        assert!(what.contains("it used up its 100000000 units of fuel"), "{what}");
    }
    Ok(())
}

#[test]
fn ci_systems_get_junits_xml() -> Outcome {
    let project = project(&hostile(
        "- name: a < b & \"c\"\n  rank: {candidates: 2}\n  expect: {first: b}\n\
         - name: right\n  rank: {candidates: 2}\n  expect: {first: a}\n\
         - name: speaks\n  config: {misdeed: panic}\n  rank: {candidates: 2}\n",
    ))?;
    let ended = policy(project.path(), &["test", "--views", "0", "--output", "junit"])?;
    assert_eq!((ended.code, ended.words.as_str()), (Some(1), ""));
    let document = roxmltree::Document::parse(&ended.data)?;
    let root = document.root_element();
    assert!(root.has_tag_name("testsuites"));
    assert_eq!((root.attribute("tests"), root.attribute("failures")), (Some("3"), Some("2")));
    let suite = root.first_element_child().context("a suite")?;
    assert_eq!(suite.attribute("name"), Some("tests/cases.yaml"));
    assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some("3"), Some("2")));
    let cases: Vec<_> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
    let [wrong, right, speaks] = &cases[..] else { panic!("{}", ended.data) };
    assert_eq!(
        (wrong.attribute("name"), wrong.attribute("line")),
        (Some("a < b & \"c\""), Some("3"))
    );
    assert_eq!(wrong.attribute("classname"), Some("hostile"));
    assert!(wrong.attribute("time").is_some_and(|time| time.parse::<f64>().is_ok()));
    let failure = |case: &roxmltree::Node<'_, '_>| {
        let failure = case.children().find(|node| node.has_tag_name("failure"))?;
        Some((failure.attribute("message")?.to_owned(), failure.text()?.to_owned()))
    };
    let (message, text) = failure(wrong).context("a failure")?;
    assert_eq!(message, "`a` is first, not `b`");
    assert!(text.starts_with("tests/cases.yaml:5:12: ") && text.contains("\n  - b\n"), "{text}");
    assert_eq!(failure(right), None);
    let (_, text) = failure(speaks).context("a failure")?;
    assert!(text.contains("the policy logged:\n  warn: panicked at"), "{text}");
    Ok(())
}

#[test]
fn what_decisions_cost_is_measured() -> Outcome {
    let here = repository();
    let arguments = ["bench", "executor-match", "--candidates", "3,30", "--calls", "5"];
    let shown = policy(&here, &arguments)?;
    assert_eq!(shown.code, Some(0), "{}{}", shown.data, shown.words);
    assert!(shown.data.starts_with("executor-match, sha256:"), "{}", shown.data);
    let report = policy(&here, &[&arguments[..], &["--output", "json"]].concat())?.json()?;
    let costs = report["costs"].as_array().context("costs")?;
    let kinds: Vec<_> =
        costs.iter().map(|cost| (cost["function"].as_str(), cost["candidates"].as_u64())).collect();
    let kind = |function, candidates| (Some(function), Some(candidates));
    assert_eq!(
        kinds,
        [
            kind("rank", 3),
            kind("rank", 30),
            kind("place", 3),
            kind("place", 30),
            kind("describe", 3)
        ]
    );
    for cost in costs {
        let spent = &cost["spent"];
        assert_eq!(spent["calls"], 5, "{cost}");
        assert!(spent["fuel"].as_u64() > Some(0) && spent["memory"].as_u64() > Some(0), "{cost}");
        assert!(spent["median_us"].as_f64() <= spent["most_us"].as_f64(), "{cost}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_measured_says_why() -> Outcome {
    let file = repository().join(HOSTILE).display().to_string();
    let few = ["--candidates", "2", "--calls", "3"];
    let config = ["--config", "misdeed: panic"];
    let failed = policy(&repository(), &[&["bench", &file], &few[..], &config].concat())?;
    assert_eq!(failed.code, Some(1), "{}", failed.words);
    assert!(failed.data.contains("rank               2  policy `hostile`"), "{}", failed.data);
    assert!(failed.data.contains("it trapped"), "{}", failed.data);
    for (arguments, words) in [
        (&["bench", "cold-standby", "--config", "a: ["][..], "--config is no YAML"),
        (&["bench", "cold-standby", "--fuel", "0"][..], "1..18446744073709551615"),
        (&["bench", "nothing.wasm"][..], "nothing.wasm"),
        (&["bench", "cold-standby", "--candidates", "0"][..], "1..=10000"),
    ] {
        let refused = policy(&repository(), arguments)?;
        assert_eq!(refused.code, Some(2), "{}", refused.words);
        assert!(refused.words.contains(words), "{}", refused.words);
    }
    Ok(())
}

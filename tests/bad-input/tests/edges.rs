//! Inputs that are too many, too large or too deep to be files of a corpus.

use std::fs;
use std::path::Path;

use conclave_bad_input::watchdog::Feeder;
use conclave_bad_input::{TARGETS, answer};

fn feeder(name: &str) -> Feeder {
    Feeder::new(*TARGETS.iter().find(|target| target.name == name).expect("a target"))
}

#[track_caller]
fn feed(feeder: &Feeder, what: &str, input: &[u8]) {
    if let Err(error) = feeder.feed(input) {
        panic!("{what}: {error}\n{}", feeder.save(input));
    }
}

fn file(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[test]
fn an_example_may_end_anywhere() {
    for (target, path) in [
        ("config", "examples/two-nodes/conclave.yaml"),
        ("manifest", "tests/manifests/scheduler.yaml"),
    ] {
        let text = String::from_utf8(file(path)).expect("examples are text");
        let (feeder, text) = (feeder(target), without_comments(&text));
        for end in 0..=text.len() {
            feed(&feeder, &format!("{path} up to byte {end}"), &text.as_bytes()[..end]);
        }
    }
}

#[test]
fn what_is_deep_overflows_no_stack() {
    const DEEP: usize = 100_000;
    let bombs = [
        "[".repeat(DEEP),
        "{a: ".repeat(DEEP),
        "{\"a\":".repeat(DEEP),
        "- ".repeat(DEEP),
        "? ".repeat(DEEP),
        "!a ".repeat(DEEP),
        "&a ".repeat(DEEP),
        format!("cluster: {}", "[".repeat(DEEP)),
        format!("elections: [{{policy_config: {}", "{a: ".repeat(DEEP)),
    ];
    for target in ["config", "manifest", "state", "values"] {
        let feeder = feeder(target);
        for bomb in &bombs {
            let input = match target {
                "values" => [b"sessions/b\xff", bomb.as_bytes()].concat(),
                _ => bomb.clone().into_bytes(),
            };
            feed(&feeder, &format!("{target}, {:.12}", bomb), &input);
        }
    }
}

#[test]
fn what_is_long_takes_no_longer_than_reading_it() {
    const LONG: usize = 100_000;
    let long = [
        "x".repeat(LONG),
        "\n".repeat(LONG),
        "a: 1\n".repeat(LONG / 5),
        "- a\n".repeat(LONG / 4),
        format!("cluster: \"{}\"", "\\u0041".repeat(LONG / 6)),
        format!("cluster: {}", "9".repeat(LONG)),
        format!("elections: [{}]", "{name: e}, ".repeat(LONG / 11)),
        format!("a: &a [{}]\nb: [{}]", "x, ".repeat(1_000), "*a, ".repeat(10_000)),
    ];
    for target in ["config", "manifest", "state", "flags"] {
        let feeder = feeder(target);
        for text in &long {
            feed(&feeder, &format!("{target}, {:.20}", text), text.as_bytes());
        }
    }
    let value = [b"sessions/b\xff{\"nonce\":\"", "n".repeat(10 * LONG).as_bytes(), b"\"}"].concat();
    feed(&feeder("values"), "a large value", &value);
}

#[test]
fn a_component_may_end_anywhere() {
    let feeder = feeder("component");
    let small = answer::component();
    for end in 0..small.len() {
        feed(&feeder, &format!("the puppet up to byte {end}"), &small[..end]);
    }
    // Whole ones compile, which takes a second.
    let large = file("plugins/built/cold-standby.wasm");
    for end in (0..large.len() - 1).step_by(1_999) {
        feed(&feeder, &format!("a policy up to byte {end}"), &large[..end]);
    }
}

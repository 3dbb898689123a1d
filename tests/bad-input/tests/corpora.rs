//! What fuzzers began with, and whatever broke something once, on the stable compiler.

use conclave_bad_input::watchdog::Feeder;
use conclave_bad_input::{TARGETS, corpus};

#[test]
fn every_corpus_passes() {
    let mut failures = Vec::new();
    for target in TARGETS {
        let feeder = Feeder::new(target);
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (path, input) in inputs {
            if let Err(what) = feeder.feed(&input) {
                failures.push(format!("{}: {what}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_target_has_a_fuzzer() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        let source = std::fs::read_to_string(directory.join(&path)).expect("a fuzz target");
        assert!(source.contains(&format!("{}::run", target.name)), "{path} feeds another");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml does not build {path}");
    }
}

//! Conclave's bad input: for every way in, one function that feeds it bytes and holds what comes
//! back to what was promised.
//!
//! ```text
//! fuzz/fuzz_targets/<name>.rs ─┐
//! tests/corpora.rs ────────────┼──> TARGETS: fn(&[u8]) ──> the real parser, store, policy, core
//! tests/properties.rs ─────────┘
//! ```
//!
//! Everywhere the same is asked: no panic, a bounded amount of work, an error that says what is
//! wrong and where, and nothing lost. Each function panics when that is broken.

pub mod answer;
pub mod cases;
pub mod component;
pub mod config;
pub mod core;
pub mod database;
pub mod flags;
pub mod manifest;
pub mod script;
pub mod state;
pub mod values;
pub mod watchdog;

/// A way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its fuzz target, and of its corpus' directory.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// Every way in.
pub const TARGETS: [Target; 10] = [
    Target { name: "answer", run: answer::run },
    Target { name: "cases", run: cases::run },
    Target { name: "component", run: component::run },
    Target { name: "config", run: config::run },
    Target { name: "core", run: core::run },
    Target { name: "database", run: database::run },
    Target { name: "flags", run: flags::run },
    Target { name: "manifest", run: manifest::run },
    Target { name: "state", run: state::run },
    Target { name: "values", run: values::run },
];

/// An error with its causes, as people get to see it; it must say something, in bounded length.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(!text.trim().is_empty(), "an error without a word: {error:?}");
    text
}

/// A directory in memory, where there is one: nothing here is about disks, and syncing takes time.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// The committed inputs of a target, sorted by name: seeds of the fuzzers, and every input that
/// ever broke something.
pub fn corpus(target: Target) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let directory = directory.join(target.name);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file of the corpus");
            (path, bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

/// How many lines a text has for YAML, to which more characters end one than to editors.
fn lines(text: &str) -> usize {
    text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count()
}

//! The deliberate bugs of `tests/mutations` still fit the tree: a cheap check that `scripts/mutate`
//! will find each of them to put in, with no need of git or patch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The patches by name.
fn patches() -> BTreeMap<String, String> {
    let directory = root().join("tests/mutations");
    let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let patches = files.map(|file| file.unwrap().path());
    let patches = patches.filter(|path| path.extension().is_some_and(|e| e == "patch"));
    patches
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The text before every hunk of a patch, with the file that it is of.
fn hunks(patch: &str) -> Vec<(String, String)> {
    let mut file = String::new();
    let mut hunks: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path.to_owned();
            inside = false;
        } else if line.starts_with("@@ ") {
            hunks.push((file.clone(), String::new()));
            inside = true;
        } else if inside
            && let Some((_, before)) = hunks.last_mut()
            && let Some(text) = line.strip_prefix(' ').or_else(|| line.strip_prefix('-'))
        {
            before.push_str(text);
            before.push('\n');
        }
    }
    hunks
}

#[test]
fn every_mutation_says_what_it_breaks_and_what_catches_it() {
    let mut of_promise = BTreeMap::new();
    let patches = patches();
    for (name, patch) in &patches {
        let mut lines = patch.lines();
        let statement = lines.next().unwrap_or_default();
        let promise = statement.get(..2).unwrap_or_default().to_owned();
        assert!(name.starts_with(&promise.to_lowercase()), "{name}: {statement}");
        assert!(statement.get(2..).is_some_and(|rest| rest.starts_with(": ")), "{name}");
        let catcher = lines.next().and_then(|line| line.strip_prefix("caught by: "));
        let catcher = catcher.unwrap_or_else(|| panic!("{name}: what catches it?"));
        let known = ["simulator", "model", "test"];
        assert!(known.contains(&catcher.split(' ').next().unwrap_or_default()), "{name}");
        *of_promise.entry(promise).or_insert(0) += 1;
    }
    assert!(patches.len() >= 24, "{} mutations", patches.len());
    for promise in 1..=8 {
        let promise = format!("S{promise}");
        let count = of_promise.get(&promise).copied().unwrap_or(0);
        assert!(count >= 2, "{promise} has {count} mutations");
    }
}

#[test]
fn every_mutation_applies() {
    for (name, patch) in patches() {
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name} changes nothing");
        for (file, before) in hunks {
            let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
            let at = text.match_indices(&before).filter(|(at, _)| {
                *at == 0 || text.as_bytes()[at - 1] == b'\n' // whole lines only
            });
            assert!(at.count() > 0, "{name} no longer applies to {file}:\n{before}");
        }
    }
}

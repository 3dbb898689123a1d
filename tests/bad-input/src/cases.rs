//! A file of a policy's test cases of any content.

use std::path::Path;

use conclave_policy_test::Suite;
use conclave_yaml::Document;

use crate::config::located;

/// What is read as a file of this name; relative paths in it lead nowhere.
const FILE: &str = "/nonexistent/cases.yaml";

/// Reads bytes as a case file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Suite::parse(Path::new(FILE), text, None) {
        Ok(suite) => {
            let document = Document::parse(FILE, text).expect("what was read can be parsed");
            sound(&suite, document.has_places());
        }
        Err(mistakes) => {
            assert!(!mistakes.problems().is_empty());
            located(FILE, text, mistakes.problems());
        }
    }
}

fn sound(suite: &Suite, has_places: bool) {
    assert!(!suite.cases.is_empty());
    for case in &suite.cases {
        let config: serde_json::Value = serde_json::from_str(&case.config).expect("JSON");
        assert!(config.is_object(), "{case:?}");
        assert_eq!(case.place.is_some(), has_places, "{case:?}");
    }
}

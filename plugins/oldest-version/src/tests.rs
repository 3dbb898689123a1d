//! The policy's logic, natively. The committed component is tested in `tests/component.rs`.

use conclave_policy_sdk::{Fitness, Incumbent};

use super::*;

/// A candidate whose label and fact both say a version; none if it is empty.
fn candidate(name: &str, version: &str, standing_s: u64) -> Candidate {
    let said = |key: &str| match version {
        "" => vec![],
        version => vec![(key.to_owned(), version.to_owned())],
    };
    Candidate {
        name: name.into(),
        labels: said("version"),
        facts: said(FACT),
        fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
        cordoned: false,
        holds: vec![],
        standing_ms: 1_000 * standing_s,
    }
}

fn view(candidates: &[(&str, &str, u64)], incumbent: Option<&str>) -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: candidates.iter().map(|(n, v, s)| candidate(n, v, *s)).collect(),
        incumbent: incumbent.map(|name| Incumbent {
            name: name.into(),
            facts: vec![],
            held_ms: 5_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn ranked(view: &View, json: &str) -> Vec<(String, String)> {
    let settings = Settings::parse(json).expect("a good configuration");
    assert_eq!(OldestVersion::validate(&settings), []);
    let ranking = OldestVersion::rank(view, &settings).expect("a ranking");
    assert!(ranking.excluded.is_empty());
    ranking.order.into_iter().map(|ranked| (ranked.node, ranked.reason)).collect()
}

#[test]
fn the_oldest_leads_and_of_one_version_the_incumbent() {
    let old = 900;
    for (candidates, incumbent, expected) in [
        (vec![("a", "1.29", old), ("b", "1.28", old), ("c", "1.28", old)], None, "b c a"),
        (vec![("a", "1.29", old), ("b", "1.28", old), ("c", "1.28", old)], Some("c"), "c b a"),
        (vec![("a", "1.29", old), ("b", "1.28", old)], Some("a"), "b a"),
        // An older one that has just come waits; on a vacancy nobody does.
        (vec![("a", "1.29", old), ("b", "1.28", 59)], Some("a"), "a b"),
        (vec![("a", "1.29", old), ("b", "1.28", 60)], Some("a"), "b a"),
        (vec![("a", "1.29", old), ("b", "1.28", 5)], None, "b a"),
        // Whose version is not known stands last, even the incumbent.
        (vec![("a", "", old), ("b", "latest", old), ("c", "1.30", old)], Some("a"), "c a b"),
        (vec![("a", "10.0", old), ("b", "9.9", old)], None, "b a"),
    ] {
        let view = view(&candidates, incumbent);
        for config in ["{}", r#"{"variable": "VERSION"}"#, r#"{"label": "version"}"#] {
            let order = ranked(&view, config);
            let order: Vec<_> = order.iter().map(|(node, _)| node.as_str()).collect();
            assert_eq!(order.join(" "), expected, "{candidates:?} {incumbent:?} {config}");
        }
    }
}

#[test]
fn reasons_name_the_versions() {
    let candidates = [("a", "1.28", 900), ("b", "1.27", 3), ("c", "latest", 900), ("d", "", 900)];
    let reasons = ranked(&view(&candidates, Some("a")), "{}");
    let expected = [
        ("a", "version 1.28"),
        ("c", "`latest` is not a version such as 1.28.3"),
        ("d", "its version is not known"),
        ("b", "version 1.27, but has not settled"),
    ];
    assert_eq!(reasons, expected.map(|(node, reason)| (node.to_owned(), reason.to_owned())));
}

#[test]
fn a_variable_is_published_as_a_fact() {
    let node = Node {
        name: "a".into(),
        labels: vec![],
        variables: vec![("VERSION".into(), "1.28.3".into())],
    };
    let describe = |json: &str| {
        let settings = Settings::parse(json).expect("a good configuration");
        OldestVersion::describe(&node, &[], &settings).expect("facts")
    };
    assert_eq!(describe("{}"), []);
    assert_eq!(describe(r#"{"variable": "VERSION"}"#), [(FACT.to_owned(), "1.28.3".to_owned())]);
    assert_eq!(describe(r#"{"variable": "OTHER"}"#), []);
}

#[test]
fn mistakes_in_the_configuration_are_all_reported_with_their_place() {
    for (json, paths) in [
        (r#"{"label": "x", "settle_seconds": 10}"#, vec![]),
        (
            r#"{"label": "", "variable": "V", "settle_seconds": 90000}"#,
            vec!["/label", "/variable", "/settle_seconds"],
        ),
        (r#"{"lable": "x"}"#, vec!["/lable"]),
    ] {
        let found = match Settings::parse(json) {
            Ok(settings) => OldestVersion::validate(&settings),
            Err(problem) => vec![problem],
        };
        let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(found, paths, "{json}");
    }
}

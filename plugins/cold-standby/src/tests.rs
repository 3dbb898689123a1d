//! The policy's logic, natively. The committed component is tested in `tests/component.rs`.

use conclave_policy_sdk::{Fitness, Incumbent};

use super::*;

fn view(candidates: &[&str], incumbent: Option<&str>) -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: candidates.iter().map(|name| candidate(name)).collect(),
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

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: name.into(),
        labels: vec![],
        facts: vec![],
        fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
        cordoned: false,
        holds: vec![],
        standing_ms: 60_000,
    }
}

fn ranked(view: &View, json: &str) -> Vec<String> {
    let config = Settings::parse(json).expect("a good configuration");
    let ranking = ColdStandby::rank(view, &config).expect("a ranking");
    assert!(ranking.excluded.is_empty());
    ranking.order.into_iter().map(|ranked| ranked.node).collect()
}

#[test]
fn the_incumbent_stays_then_the_preferred_then_the_longest_standing() {
    for (candidates, incumbent, config, expected) in [
        (vec!["a", "b", "c"], None, "{}", vec!["a", "b", "c"]),
        (vec!["a", "b", "c"], Some("c"), "{}", vec!["c", "a", "b"]),
        (vec!["a", "b", "c"], None, r#"{"prefer": ["c", "b"]}"#, vec!["c", "b", "a"]),
        (vec!["a", "b", "c"], Some("a"), r#"{"prefer": ["c"]}"#, vec!["a", "c", "b"]),
        (vec!["a", "b"], Some("gone"), r#"{"prefer": ["gone", "b"]}"#, vec!["b", "a"]),
        (vec![], None, "{}", vec![]),
    ] {
        assert_eq!(ranked(&view(&candidates, incumbent), config), expected, "{config}");
    }
}

#[test]
fn every_place_has_its_reason() {
    let config = Settings::parse(r#"{"prefer": ["c"]}"#).expect("a good configuration");
    let ranking = ColdStandby::rank(&view(&["a", "b", "c"], Some("b")), &config).expect("ranking");
    let reasons: Vec<_> = ranking.order.iter().map(|ranked| ranked.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "holds the term, and leadership stays where it is",
            "number 1 in `prefer`",
            "in order of standing"
        ]
    );
}

#[test]
fn mistakes_in_the_configuration_are_all_reported_with_their_place() {
    let problems = |json: &str| match Settings::parse(json) {
        Ok(config) => ColdStandby::validate(&config),
        Err(problem) => vec![problem],
    };
    assert_eq!(problems("{}"), []);
    assert_eq!(problems(r#"{"prefer": ["a", "b"]}"#), []);

    let found = problems(r#"{"prefer": ["a", "", "a"]}"#);
    let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["/prefer/1", "/prefer/2"]);

    let unknown = problems(r#"{"perfer": []}"#);
    assert_eq!(unknown[0].path, "/perfer");
    assert!(unknown[0].message.contains("expected `prefer`"), "{}", unknown[0].message);
}

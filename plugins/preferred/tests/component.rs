//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, View};
use conclave_policy::{Cause, Limits, Policy, PolicyHost, Refusal};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/preferred.wasm");
    host.load("preferred", bytes).expect("the committed component")
}

/// `a` leads; `b` has stood as long as given.
fn view(b_standing_ms: u64) -> View {
    let candidate = |name: &str, standing_ms| CandidateView {
        name: name.into(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms,
    };
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: vec![candidate("a", 600_000), candidate("b", b_standing_ms)],
        incumbent: Some(IncumbentView {
            name: "a".into(),
            facts: BTreeMap::new(),
            held_ms: 300_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

#[test]
fn the_heavier_node_leads_once_it_has_settled() {
    let policy = policy();
    let about = policy.about().expect("an answer").value.expect("about");
    assert_eq!((about.name.as_str(), about.version.as_str()), ("preferred", "0.1.0"));
    assert!(about.config_schema.expect("a schema").contains("\"weights\""));
    for (standing_ms, expected) in [(59_000, ["a", "b"]), (60_000, ["b", "a"])] {
        let answer =
            policy.rank(&view(standing_ms), r#"{"weights": {"b": 1}}"#).expect("an answer");
        let order: Vec<_> = answer.value.ranking.order.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(order, expected);
    }
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    let error = policy().rank(&view(0), r#"{"weight": {}}"#).expect_err("a misspelt setting");
    let Cause::Refused(Refusal::Configuration(text)) = *error.cause else { panic!("{error}") };
    assert!(text.starts_with("/weight: unknown field"), "{text}");
}

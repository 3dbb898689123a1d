//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, NodeView, View};
use conclave_policy::{Limits, Policy, PolicyHost};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/oldest-version.wasm");
    host.load("oldest-version", bytes).expect("the committed component")
}

#[test]
fn the_oldest_leads_by_label_and_by_variable() {
    let policy = policy();
    let variables = BTreeMap::from([("VERSION".to_owned(), "1.27.0".to_owned())]);
    let node = NodeView { name: "b".into(), labels: BTreeMap::new(), variables };
    let facts = policy
        .describe(&"masters".into(), &node, &[], r#"{"variable": "VERSION"}"#)
        .expect("an answer")
        .value;
    assert_eq!(facts, BTreeMap::from([("version".to_owned(), "1.27.0".to_owned())]));

    let candidate = |name: &str, label: &str, fact: &str| CandidateView {
        name: name.into(),
        labels: BTreeMap::from([("version".to_owned(), label.to_owned())]),
        facts: BTreeMap::from([("version".to_owned(), fact.to_owned())]),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 60_000,
    };
    let view = View {
        election: "masters".into(),
        me: "a".into(),
        candidates: vec![candidate("a", "1.9", "1.28"), candidate("b", "1.10", "1.27")],
        incumbent: Some(IncumbentView { name: "b".into(), facts: BTreeMap::new(), held_ms: 1_000 }),
        previous: None,
        transfer: None,
        paused: false,
    };
    for (config, expected) in [("{}", ["a", "b"]), (r#"{"variable": "VERSION"}"#, ["b", "a"])] {
        let answer = policy.rank(&view, config).expect("an answer");
        let order: Vec<_> = answer.value.ranking.order.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(order, expected, "{config}");
    }
}

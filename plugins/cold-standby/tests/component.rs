//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, ManifestView, NodeView, Role, View};
use conclave_policy::{Cause, Interface, Limits, Policy, PolicyHost, Refusal, builtin};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/cold-standby.wasm");
    host.load("cold-standby", bytes).expect("the committed component")
}

fn view(incumbent: Option<&str>) -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: ["a", "b", "c"].map(candidate).into(),
        incumbent: incumbent.map(|name| IncumbentView {
            name: name.into(),
            facts: BTreeMap::new(),
            held_ms: 0,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn candidate(name: &str) -> CandidateView {
    CandidateView {
        name: name.into(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 0,
    }
}

#[test]
fn it_introduces_itself_with_a_schema() {
    let policy = policy();
    assert_eq!(
        policy.interfaces(),
        [Interface::About, Interface::Facts, Interface::Leadership, Interface::Placement]
    );
    let about = policy.about().expect("an answer").value.expect("about");
    assert_eq!(about.name, "cold-standby");
    assert_eq!(about.version, env!("CARGO_PKG_VERSION"));
    assert!(about.config_schema.expect("a schema").contains("\"prefer\""));
}

#[test]
fn it_keeps_the_incumbent_and_prefers_on_a_vacancy() {
    let policy = policy();
    for (incumbent, config, expected) in [
        (None, "{}", ["a", "b", "c"]),
        (Some("b"), "{}", ["b", "a", "c"]),
        (None, r#"{"prefer": ["c"]}"#, ["c", "a", "b"]),
        (Some("b"), r#"{"prefer": ["c"]}"#, ["b", "c", "a"]),
    ] {
        let answer = policy.rank(&view(incumbent), config).expect("an answer");
        let order: Vec<_> = answer.value.ranking.order.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(order, expected, "incumbent {incumbent:?}, {config}");
        assert!(!answer.builtin && answer.usage.fuel > 0 && answer.value.forgotten.is_empty());
    }
}

#[test]
fn without_configuration_it_decides_as_the_host_does_by_itself() {
    let policy = policy();
    let manifests = [("scheduler.yaml", true), ("api.yaml", false)].map(|(name, exclusive)| {
        ManifestView { name: name.into(), exclusive, content: String::new() }
    });
    let node = NodeView { name: "a".into(), labels: BTreeMap::new(), variables: BTreeMap::new() };
    for role in [Role::Leader, Role::Standby] {
        let placed = policy.place(&view(None), &node, role, &manifests, "{}").expect("an answer");
        assert_eq!(placed.value, builtin::place(role, &manifests));
    }
    for incumbent in [None, Some("a"), Some("c"), Some("gone")] {
        let names = |ranks: conclave_policy::Ranks| {
            ranks.ranking.order.into_iter().map(|ranked| ranked.node).collect::<Vec<_>>()
        };
        let view = view(incumbent);
        let answer = policy.rank(&view, "{}").expect("an answer").value;
        assert_eq!(names(answer), names(builtin::rank(&view)));
    }
    policy
        .check_exclusive(&"masters".into(), &node, &manifests, "{}")
        .expect("nothing exclusive on a standby");
}

#[test]
fn it_refuses_a_bad_configuration() {
    let policy = policy();
    let election = "masters".into();
    let problems = policy.validate(&election, r#"{"prefer": ["a", "a"]}"#).expect("an answer");
    assert_eq!(problems.value.len(), 1);
    assert_eq!(problems.value[0].path, "/prefer/1");
    assert_eq!(policy.validate(&election, "{}").expect("an answer").value, []);
    let error = policy.rank(&view(None), r#"{"prefer": 7}"#).expect_err("a refusal");
    let Cause::Refused(Refusal::Configuration(message)) = *error.cause else { panic!("{error}") };
    assert!(message.starts_with("/prefer: invalid type"), "{message}");
}

//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, ManifestView, NodeView, Role, View};
use conclave_policy::{Cause, Limits, Policy, PolicyHost, Refusal};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/hot-standby.wasm");
    host.load("hot-standby", bytes).expect("the committed component")
}

/// `n1` in rack b has stood for long and leads; `n2` in rack a is as given.
fn view(n2_standing_ms: u64) -> View {
    let candidate = |name: &str, rack: &str, standing_ms| CandidateView {
        name: name.into(),
        labels: BTreeMap::from([("rack".into(), rack.into())]),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms,
    };
    View {
        election: "api".into(),
        me: "n1".into(),
        candidates: vec![candidate("n1", "b", 600_000), candidate("n2", "a", n2_standing_ms)],
        incumbent: Some(IncumbentView {
            name: "n1".into(),
            facts: BTreeMap::new(),
            held_ms: 300_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn manifest(name: &str, exclusive: bool) -> ManifestView {
    ManifestView { name: name.into(), exclusive, content: String::new() }
}

fn node() -> NodeView {
    NodeView { name: "n1".into(), labels: BTreeMap::new(), variables: BTreeMap::new() }
}

#[test]
fn it_introduces_itself_with_a_schema() {
    let policy = policy();
    let about = policy.about().expect("an answer").value.expect("about");
    assert_eq!(about.name, "hot-standby");
    assert!(about.config_schema.expect("a schema").contains("\"settle_seconds\""));
}

#[test]
fn a_settled_preferred_node_goes_before_the_incumbent() {
    let policy = policy();
    for (standing, config, expected) in [
        (120_000, r#"{"prefer": {"rack": "a"}}"#, ["n2", "n1"]),
        (30_000, r#"{"prefer": {"rack": "a"}}"#, ["n1", "n2"]),
        (30_000, r#"{"prefer": {"rack": "a"}, "settle_seconds": 20}"#, ["n2", "n1"]),
        (120_000, "{}", ["n1", "n2"]),
    ] {
        let ranks = policy.rank(&view(standing), config).expect("an answer").value;
        let order: Vec<_> = ranks.ranking.order.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(order, expected, "standing {standing} ms, {config}");
    }
}

#[test]
fn everything_runs_in_both_roles() {
    let policy = policy();
    let manifests = [manifest("api.yaml", false), manifest("proxy.yaml", false)];
    for role in [Role::Leader, Role::Standby] {
        let answer = policy.place(&view(0), &node(), role, &manifests, "{}").expect("an answer");
        assert_eq!(answer.value.len(), 2);
        assert!(answer.value.iter().all(|placement| placement.run));
    }
    policy.check_exclusive(&"api".into(), &node(), &manifests, "{}").expect("no contradiction");
}

#[test]
fn the_check_reports_an_exclusive_manifest_as_a_mistake_in_the_configuration() {
    let policy = policy();
    let manifests = [manifest("scheduler.yaml", true)];
    let error = policy
        .check_exclusive(&"api".into(), &node(), &manifests, "{}")
        .expect_err("a contradiction");
    let Cause::Refused(Refusal::Configuration(message)) = *error.cause else { panic!("{error}") };
    assert!(message.contains("`scheduler.yaml` is exclusive"), "{message}");
}

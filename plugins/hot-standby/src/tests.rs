//! The policy's logic, natively. The committed component is tested in `tests/component.rs`.

use conclave_policy_sdk::{Fitness, Incumbent};

use super::*;

const IN_RACK_A: &str = r#"{"prefer": {"rack": "a"}, "settle_seconds": 60}"#;

fn view(candidates: &[(&str, &str, u64)], incumbent: Option<&str>) -> View {
    View {
        election: "api".into(),
        me: "n1".into(),
        candidates: candidates
            .iter()
            .map(|&(name, rack, standing)| candidate(name, rack, standing))
            .collect(),
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

fn candidate(name: &str, rack: &str, standing_seconds: u64) -> Candidate {
    Candidate {
        name: name.into(),
        labels: vec![("rack".into(), rack.into())],
        facts: vec![],
        fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
        cordoned: false,
        holds: vec![],
        standing_ms: standing_seconds * 1_000,
    }
}

fn manifest(name: &str, exclusive: bool) -> Manifest {
    Manifest { name: name.into(), exclusive, content: String::new() }
}

fn place(role: Role, manifests: &[Manifest]) -> Result<Vec<Placement>, Refusal> {
    let node = Node { name: "n1".into(), labels: vec![], variables: vec![] };
    HotStandby::place(&view(&[], None), &node, role, manifests, &Settings::default())
}

#[test]
fn preferred_nodes_lead_once_they_have_settled() {
    let three = [("n1", "b", 900), ("n2", "a", 90), ("n3", "a", 10)];
    for (incumbent, config, expected) in [
        (None, "{}", ["n1", "n2", "n3"]),
        (Some("n3"), "{}", ["n3", "n1", "n2"]),
        (None, IN_RACK_A, ["n2", "n3", "n1"]),
        (Some("n1"), IN_RACK_A, ["n2", "n1", "n3"]),
        (Some("n3"), IN_RACK_A, ["n3", "n2", "n1"]),
    ] {
        let config_value = Settings::parse(config).expect("a good configuration");
        let ranking = HotStandby::rank(&view(&three, incumbent), &config_value).expect("ranking");
        let order: Vec<_> = ranking.order.iter().map(|ranked| ranked.node.as_str()).collect();
        assert_eq!(order, expected, "incumbent {incumbent:?}, {config}");
    }
}

#[test]
fn everything_runs_everywhere_in_both_roles() {
    let manifests = [manifest("api.yaml", false), manifest("proxy.yaml", false)];
    let leader = place(Role::Leader, &manifests).expect("placements");
    assert!(leader.iter().all(|placement| placement.run));
    assert_eq!(leader.len(), 2);
    assert_eq!(place(Role::Standby, &manifests), Ok(leader));
}

#[test]
fn an_exclusive_manifest_is_a_mistake_in_the_configuration() {
    for role in [Role::Leader, Role::Standby] {
        let refusal = place(role, &[manifest("scheduler.yaml", true)]).expect_err("a refusal");
        let Refusal::Configuration(message) = refusal else { panic!("{refusal:?}") };
        assert!(message.starts_with("manifest `scheduler.yaml` is exclusive"), "{message}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_reported_with_their_place() {
    let paths = |json: &str| match Settings::parse(json) {
        Ok(config) => HotStandby::validate(&config).into_iter().map(|p| p.path).collect(),
        Err(problem) => vec![problem.path],
    };
    assert_eq!(paths(IN_RACK_A), Vec::<String>::new());
    assert_eq!(
        paths(r#"{"prefer": {"": "x"}, "settle_seconds": 90000}"#),
        ["/prefer", "/settle_seconds"]
    );
    assert_eq!(paths(r#"{"prefer": {"rack": 1}}"#), ["/prefer/rack"]);
    assert_eq!(paths(r#"{"settle": 1}"#), ["/settle"]);
}

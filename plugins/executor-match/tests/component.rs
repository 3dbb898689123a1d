//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::{Attributes, Fitness};
use conclave_core::view::{CandidateView, ManifestView, NodeView, PreviousView, View};
use conclave_policy::{Cause, Limits, Policy, PolicyHost, Refusal};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/executor-match.wasm");
    host.load("executor-match", bytes).expect("the committed component")
}

/// What a node brings whose scheduler advertises this address.
fn facts(policy: &Policy, advertised: &str) -> Attributes {
    let variables = BTreeMap::from([("ADVERTISED".to_owned(), advertised.to_owned())]);
    let node = NodeView { name: "a".into(), labels: BTreeMap::new(), variables };
    let content = include_str!("../../../examples/reference/scheduler.yaml");
    let content = content.replace("192.168.0.5:81", "${ADVERTISED}");
    let manifest = ManifestView { name: "scheduler.yaml".into(), exclusive: true, content };
    policy.describe(&"masters".into(), &node, &[manifest], "{}").expect("an answer").value
}

fn view(candidates: [(&str, Attributes); 2], last: Attributes) -> View {
    let candidate = |(name, facts): (&str, Attributes)| CandidateView {
        name: name.into(),
        labels: BTreeMap::new(),
        facts,
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 60_000,
    };
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: candidates.map(candidate).into(),
        incumbent: None,
        previous: Some(PreviousView { name: "z".into(), facts: last, clean: false }),
        transfer: None,
        paused: false,
    }
}

#[test]
fn who_would_decline_the_offers_of_the_dead_holders_executors_is_excluded() {
    let policy = policy();
    let (nginx, own) = (facts(&policy, "nginx:9000"), facts(&policy, "10.0.0.2:9000"));
    assert_ne!(nginx["executor-hash"], own["executor-hash"]);
    assert!(nginx["executor-flags"].contains("advertised-address=nginx:9000"), "{nginx:?}");
    let view = view([("a", own), ("b", nginx.clone())], nginx);
    let ranking = policy.rank(&view, "{}").expect("an answer").value.ranking;
    let order: Vec<_> = ranking.order.iter().map(|ranked| ranked.node.as_str()).collect();
    assert_eq!(order, ["b"]);
    assert_eq!(ranking.excluded[0].node.as_str(), "a");
    assert!(ranking.excluded[0].reason.contains("--advertised-address"), "{ranking:?}");
}

#[test]
fn a_configuration_that_names_no_manifest_is_refused() {
    let node = NodeView { name: "a".into(), labels: BTreeMap::new(), variables: BTreeMap::new() };
    let error = policy()
        .describe(&"masters".into(), &node, &[], r#"{"manifest": "x"}"#)
        .expect_err("no manifest");
    let Cause::Refused(Refusal::Configuration(text)) = *error.cause else { panic!("{error}") };
    assert!(text.starts_with("/manifest: there is none `x`"), "{text}");
}

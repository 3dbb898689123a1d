//! Components that were built for an earlier release of the interface go on deciding as they did.
//!
//! `fixtures/frozen` is never rebuilt: whoever breaks it breaks every policy in somebody's plugin
//! directory. There are policies in Rust, with all four interfaces and with facts that count, and one
//! in C, whose bindings another generator makes. A new release of the interface adds its own.

mod common;

use std::collections::BTreeMap;

use common::{candidate, component, host, manifest, node, view};
use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, PreviousView, Role, View};
use conclave_policy::{Interface, Policy};

fn frozen(name: &str) -> Policy {
    let file = format!("host/policy/tests/fixtures/frozen/{name}.wasm");
    host().load(name, &component(&file)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn labelled(racks: &[(&str, &str)]) -> View {
    let candidates = racks.iter().map(|(name, rack)| {
        let labels = BTreeMap::from([("rack".to_owned(), (*rack).to_owned())]);
        conclave_core::view::CandidateView { labels, ..candidate(name) }
    });
    View { candidates: candidates.collect(), ..view(&[], Some("a")) }
}

fn order(policy: &Policy, view: &View, config: &str) -> Vec<(String, String)> {
    let ranks = policy.rank(view, config).unwrap_or_else(|error| panic!("{error}")).value;
    let ranked = ranks.ranking.order.into_iter();
    ranked.map(|ranked| (ranked.node.to_string(), ranked.reason)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned())).collect()
}

#[test]
fn a_policy_in_rust_of_0_1_0_decides() {
    let policy = frozen("rack-first");
    let versions = policy.versions();
    let all = [Interface::About, Interface::Facts, Interface::Leadership, Interface::Placement];
    assert_eq!(versions, all.map(|interface| (interface, "0.1.0".to_owned())));
    let about = policy.about().unwrap().value.expect("it says what it is");
    assert_eq!(about.name, "rack-first");
    let config = r#"{"standby_only":["warm.yaml"]}"#;
    assert!(policy.validate(&"masters".into(), config).unwrap().value.is_empty());
    let wrong = policy.validate(&"masters".into(), r#"{"racks":[]}"#).unwrap().value;
    assert_eq!((wrong.len(), wrong[0].path.as_str()), (1, "/racks"));

    let view = labelled(&[("a", "b"), ("b", "a")]);
    let order: Vec<String> = order(&policy, &view, config).into_iter().map(|(n, _)| n).collect();
    assert_eq!(order, ["b", "a"]);

    let here = conclave_core::view::NodeView {
        labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
        ..node("a")
    };
    let manifests = [manifest("scheduler.yaml", true), manifest("warm.yaml", false)];
    for (role, runs) in [(Role::Leader, [true, false]), (Role::Standby, [false, true])] {
        let placed = policy.place(&view, &here, role, &manifests, config).unwrap().value;
        let run: Vec<bool> = placed.iter().map(|placement| placement.run).collect();
        assert_eq!(run, runs, "{role:?}: {placed:?}");
        assert_eq!(placed[0].variables.get("RACK").map(String::as_str), Some("a"), "{placed:?}");
    }
}

#[test]
fn facts_of_0_1_0_count() {
    let policy = frozen("executor-match");
    let scheduler = |cores: u32| ManifestView {
        content: format!(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - command: [km, scheduler, \
             --executor-cores={cores}, --address=10.0.0.1]\n"
        ),
        ..manifest("scheduler.yaml", true)
    };
    let facts = |cores| -> Attributes {
        let described = policy.describe(&"masters".into(), &node("a"), &[scheduler(cores)], "{}");
        described.unwrap_or_else(|error| panic!("{error}")).value
    };
    assert_eq!(facts(1), facts(1));
    assert_ne!(facts(1)["executor-hash"], facts(2)["executor-hash"]);

    let mut view = view(&["a", "b"], None);
    view.candidates[0].facts = facts(1);
    view.candidates[1].facts = facts(2);
    view.previous = Some(PreviousView { name: "gone".into(), facts: facts(2), clean: false });
    let ranking = policy.rank(&view, "{}").unwrap().value.ranking;
    assert_eq!(ranking.order.iter().map(|r| r.node.as_str()).collect::<Vec<_>>(), ["b"]);
    let [excluded] = &ranking.excluded[..] else { panic!("{ranking:?}") };
    assert!(
        excluded.node.as_str() == "a" && excluded.reason.contains("--executor-cores"),
        "{excluded:?}"
    );
}

#[test]
fn a_policy_in_c_of_0_1_0_decides() {
    let policy = frozen("rack-c");
    let config = r#"{"racks":["r1","r2"]}"#;
    assert!(policy.validate(&"masters".into(), config).unwrap().value.is_empty());
    let wrong = policy.validate(&"masters".into(), r#"{"rakcs":[]}"#).unwrap().value;
    assert_eq!((wrong.len(), wrong[0].path.as_str()), (1, "/rakcs"));
    let view = labelled(&[("a", "r3"), ("b", "r2"), ("c", "r1")]);
    let expected =
        [("c", "in rack number 1"), ("b", "in rack number 2"), ("a", "in none of the racks")];
    assert_eq!(order(&policy, &view, config), pairs(&expected));
}

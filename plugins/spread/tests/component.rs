//! The committed component, as the host's sandbox runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, View};
use conclave_policy::{Limits, Policy, PolicyHost};

fn policy() -> Policy {
    // Fuel is to decide here, not how busy the machine is.
    let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let bytes = include_bytes!("../../built/spread.wasm");
    host.load("spread", bytes).expect("the committed component")
}

/// `a` holds so many elections, `b` none; the question is about one that `a` holds, or nobody.
fn view(held: usize, election: &str, vacant: bool) -> View {
    let elections = (0..held).map(|i| format!("shard-{i:04}").as_str().into());
    let candidate = |name: &str, holds| CandidateView {
        name: name.into(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds,
        standing_ms: 600_000,
    };
    View {
        election: election.into(),
        me: "a".into(),
        candidates: vec![candidate("a", elections.collect()), candidate("b", Vec::new())],
        incumbent: (!vacant).then(|| IncumbentView {
            name: "a".into(),
            facts: BTreeMap::new(),
            held_ms: 60_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

#[test]
fn what_is_too_many_goes_to_the_other_and_a_thousand_elections_are_no_trouble() {
    let policy = policy();
    for (held, election, vacant, expected) in [
        (2, "shard-0000", false, "a"),
        (2, "shard-0001", false, "b"),
        (2, "shard-0002", true, "b"),
        (1_000, "shard-0499", false, "a"),
        (1_000, "shard-0500", false, "b"),
    ] {
        let answer = policy.rank(&view(held, election, vacant), "{}").expect("an answer");
        let first = &answer.value.ranking.order[0];
        assert_eq!(first.node.as_str(), expected, "{election} of {held}: {}", first.reason);
    }
}

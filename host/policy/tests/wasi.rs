//! A guest that needs WASI gets an empty one, and a guest that exports one interface only gets the
//! built-in defaults for the others.

mod common;

use common::{cause, component, host, manifest, node, view};
use conclave_core::view::Role;
use conclave_policy::{BadAnswer, Cause, Interface, Limits, Policy};

fn guest() -> Policy {
    let bytes = component("host/policy/tests/fixtures/wasi-guest.wasm");
    host().load("wasi-guest", &bytes).expect("the fixture")
}

#[test]
fn there_is_nothing_to_find_and_waiting_ends_at_once() {
    let guest = guest();
    let reason = || {
        let ranks = guest.rank(&view(&["a"], None), "{}").expect("an answer").value;
        ranks.ranking.order[0].reason.clone()
    };
    let found = reason();
    let nothing =
        "waited 0, clock 0, environment 0, arguments 0, directories 0, printed true, random ";
    assert!(found.starts_with(nothing), "{found}");
    assert_eq!(reason(), found, "random numbers are the same in every call");
}

#[test]
fn an_exit_is_named() {
    let found = cause(guest().rank(&view(&["a"], None), "exit"));
    assert!(matches!(found, Cause::Exit { code: 1 }), "{found:?}");
}

#[test]
fn the_hosts_own_memory_and_time_are_bounded_too() {
    let guest = guest();
    for config in ["greedy", "hoard"] {
        let found = cause(guest.rank(&view(&["a"], None), config));
        let Cause::BadAnswer(BadAnswer::Malformed(_)) = found else {
            panic!("{config}: {found:?}")
        };
    }
    guest.rank(&view(&["a"], None), "{}").expect("the next call is not affected");
}

#[test]
fn printing_ends_where_the_log_is_full() {
    let answer = guest().rank(&view(&["a"], None), "chatty").expect("an answer");
    assert!(answer.usage.fuel < Limits::default().fuel);
    let reason = &answer.value.ranking.order[0].reason;
    assert!(reason.contains("printed false"), "{reason}");
}

#[test]
fn an_absent_interface_takes_the_built_in_default() {
    let guest = guest();
    assert_eq!(guest.interfaces(), [Interface::Leadership]);
    let view = view(&["a", "b"], None);
    let manifests = [manifest("scheduler.yaml", true), manifest("api.yaml", false)];
    let election = "masters".into();

    assert!(!guest.rank(&view, "{}").expect("an answer").builtin);
    let placed =
        guest.place(&view, &node("a"), Role::Standby, &manifests, "{}").expect("an answer");
    assert!(placed.builtin);
    let running: Vec<_> = placed.value.iter().map(|placement| placement.run).collect();
    assert_eq!(running, [false, true]);
    let facts = guest.describe(&election, &node("a"), &manifests, "{}").expect("an answer");
    assert!(facts.builtin && facts.value.is_empty());
    assert_eq!(guest.about().expect("an answer").value, None);
    assert_eq!(guest.validate(&election, "whatever").expect("an answer").value, []);
}

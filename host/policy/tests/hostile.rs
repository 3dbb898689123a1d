//! Every misdeed is caught, typed by cause, attributed, and without effect on the next call.

mod common;

use std::sync::OnceLock;
use std::time::Duration;

use common::{cause, chain, component, host, manifest, node, view};
use conclave_core::view::{ManifestView, Role};
use conclave_policy::{BadAnswer, Cause, Limits, Policy, PolicyHost, Refusal};

/// Compiled once for all tests of this suite.
fn hostile() -> &'static Policy {
    static HOSTILE: OnceLock<(PolicyHost, Policy)> = OnceLock::new();
    let (_, policy) = HOSTILE.get_or_init(|| {
        let host = host();
        let policy = host.load("hostile", &fixture()).expect("the fixture");
        (host, policy)
    });
    policy
}

fn fixture() -> Vec<u8> {
    component("host/policy/tests/fixtures/hostile.wasm")
}

fn misdeed(name: &str) -> String {
    format!(r#"{{"misdeed": "{name}"}}"#)
}

fn rank(name: &str) -> Cause {
    cause(hostile().rank(&view(&["a", "b"], Some("a")), &misdeed(name)))
}

fn manifests() -> [ManifestView; 2] {
    [manifest("scheduler.yaml", true), manifest("api.yaml", false)]
}

fn place(name: &str, role: Role) -> Cause {
    let view = view(&["a", "b"], Some("a"));
    cause(hostile().place(&view, &node("a"), role, &manifests(), &misdeed(name)))
}

fn assert_unharmed() {
    let ranks = hostile().rank(&view(&["a", "b"], Some("b")), "{}").expect("an answer").value;
    let order: Vec<_> = ranks.ranking.order.iter().map(|ranked| ranked.node.as_str()).collect();
    assert_eq!(order, ["b", "a"]);
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let budget = Limits::default().fuel;
    assert!(matches!(rank("loop"), Cause::Fuel { budget: spent } if spent == budget));
    assert_unharmed();
}

#[test]
fn an_endless_loop_with_fuel_to_burn_meets_the_deadline() {
    let limit = Duration::from_millis(50);
    let limits = Limits { deadline: limit, fuel: u64::MAX, ..Limits::default() };
    let host = PolicyHost::new(limits, None).expect("a sandbox");
    let policy = host.load("hostile", &fixture()).expect("the fixture");
    let found = cause(policy.rank(&view(&["a"], None), &misdeed("loop")));
    assert!(matches!(found, Cause::Deadline { limit: l } if l == limit), "{found:?}");
}

#[test]
fn a_policy_may_have_limits_of_its_own() {
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(250));
    let all = Limits { deadline: short, fuel: u64::MAX, ..Limits::default() };
    let own = [
        ("slow", Limits { deadline: long, ..all.clone() }),
        ("sparing", Limits { fuel: 1_000_000, ..all.clone() }),
        ("large", Limits { memory: 128 << 20, deadline: Duration::from_secs(10), ..all.clone() }),
    ];
    let own = own.map(|(name, limits)| (name.to_owned(), limits)).into();
    let host = PolicyHost::with_limits_of_their_own(all, own, None).expect("a sandbox");
    let asked = |name: &str, deed: &str| {
        let policy = host.load(name, &fixture()).expect("the fixture");
        cause(policy.rank(&view(&["a"], None), &misdeed(deed)))
    };
    let loops = |name: &str| asked(name, "loop");
    assert!(matches!(loops("any"), Cause::Deadline { limit } if limit == short));
    assert!(matches!(loops("slow"), Cause::Deadline { limit } if limit == long));
    assert!(matches!(loops("sparing"), Cause::Fuel { budget: 1_000_000 }));
    assert!(matches!(asked("large", "memory"), Cause::Memory { limit } if limit == 128 << 20));
}

#[test]
fn hoarding_memory_is_named() {
    assert!(matches!(rank("memory"), Cause::Memory { limit } if limit == 64 << 20));
    assert_unharmed();
}

#[test]
fn recursion_without_end_traps() {
    let found = rank("recurse");
    assert!(matches!(&found, Cause::Trap(trap) if *trap != wasmtime::Trap::OutOfFuel), "{found:?}");
    assert_unharmed();
}

#[test]
fn a_panic_traps_and_names_plugin_digest_election_and_function() {
    let error = hostile().rank(&view(&["a"], None), &misdeed("panic")).expect_err("a trap");
    assert!(matches!(*error.cause, Cause::Trap(_)), "{error:?}");
    assert_eq!(
        chain(&error),
        format!(
            "policy `hostile` ({}) gave no usable answer to `rank` for election `masters`: \
             it trapped; a message that it may have left is in the log: \
             wasm trap: wasm `unreachable` instruction executed",
            hostile().digest().short()
        )
    );
    assert_unharmed();
}

#[test]
fn answers_that_are_too_large_are_refused() {
    for name in ["huge", "many"] {
        let found = rank(name);
        let Cause::BadAnswer(BadAnswer::TooLarge { limit }) = found else {
            panic!("{name}: {found:?}")
        };
        assert_eq!(limit, 1 << 20);
    }
    assert_unharmed();
}

#[test]
fn a_flood_of_log_is_cut_off_and_counted() {
    let answer = hostile().rank(&view(&["a"], None), &misdeed("flood")).expect("an answer");
    // 1,000 lines of 1,000 bytes, of which 64 KiB are kept.
    assert!((930_000..1_000_000).contains(&answer.usage.log_dropped), "{:?}", answer.usage);
    let one_line_of_two_megabytes = rank("shout");
    assert!(matches!(one_line_of_two_megabytes, Cause::BadAnswer(BadAnswer::TooLarge { .. })));
}

#[test]
fn lies_about_nodes_are_refused() {
    for (name, expected) in [
        ("unknown", "it ranked `nobody`, which is no candidate"),
        ("twice", "it ranked `a` twice"),
        ("both", "it ranked `a` twice"),
    ] {
        let Cause::BadAnswer(fault) = rank(name) else { panic!("{name}") };
        assert_eq!(fault.to_string(), expected, "{name}");
    }
}

#[test]
fn forgotten_nodes_are_reported() {
    for (name, ordered, forgotten) in
        [("forget", vec!["a"], vec!["b"]), ("empty", vec![], vec!["a", "b"])]
    {
        let view = view(&["a", "b"], Some("a"));
        let ranks = hostile().rank(&view, &misdeed(name)).expect("an answer").value;
        let names: Vec<_> = ranks.ranking.order.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(names, ordered);
        let left: Vec<_> = ranks.forgotten.iter().map(|node| node.as_str()).collect();
        assert_eq!(left, forgotten);
    }
}

#[test]
fn reasons_cannot_reach_the_terminal_and_are_cut_off() {
    let reason = |name: &str| {
        let ranks = hostile().rank(&view(&["a"], None), &misdeed(name)).expect("an answer").value;
        ranks.ranking.order[0].reason.clone()
    };
    assert_eq!(reason("terminal"), " [31mred line");
    let long = reason("long");
    assert!(long.len() <= 256 && long.ends_with('…'), "{long}");
    let about = hostile().about().expect("an answer").value.expect("about");
    assert_eq!(about.summary, "Misbehaves on request. [2J");
}

#[test]
fn a_refusal_is_passed_on() {
    let found = rank("refuse");
    let Cause::Refused(Refusal::Undecided(message)) = found else { panic!("{found:?}") };
    assert_eq!(message, "not today ");
    let broken = cause(hostile().rank(&view(&["a"], None), r#"{"misdemeanour": 1}"#));
    let Cause::Refused(Refusal::Configuration(message)) = broken else { panic!("{broken:?}") };
    assert!(message.starts_with("/misdemeanour: unknown field"), "{message}");
}

#[test]
fn lies_about_manifests_and_variables_are_refused() {
    for (name, expected) in [
        ("ghost", "it placed manifest `ghost.yaml`, which the election has not"),
        ("place-twice", "it placed manifest `scheduler.yaml` twice"),
        (
            "place-forget",
            "it left out manifest `api.yaml`; every manifest needs an answer, `run` or not",
        ),
        ("steal", "it would run the exclusive manifest `scheduler.yaml` on a standby"),
        (
            "variable-reserved",
            "variable `CONCLAVE_TERM` of manifest `api.yaml` is one that only the host sets",
        ),
        (
            "variable-name",
            "variable `2nd` of manifest `api.yaml` has a name that is none: letters, digits and \
             `_`, no digit first",
        ),
        ("variable-twice", "variable `A` of manifest `api.yaml` is there twice"),
        ("variable-long", "variable `A` of manifest `api.yaml` has a value of more than 64 KB"),
    ] {
        let Cause::BadAnswer(fault) = place(name, Role::Standby) else { panic!("{name}") };
        assert_eq!(fault.to_string(), expected, "{name}");
    }
}

#[test]
fn a_check_of_both_roles_finds_what_would_break_the_guarantee() {
    let check = |name: &str| {
        let election = "masters".into();
        hostile().check_exclusive(&election, &node("a"), &manifests(), &misdeed(name))
    };
    check("").expect("an honest policy");
    // Running in one role only is fine, whatever the variables.
    check("by-role").expect("an honest policy");
    for (name, expected) in [
        ("steal", "it would run the exclusive manifest `scheduler.yaml` on a standby"),
        (
            "variable-by-role",
            "it gives manifest `api.yaml` other variables as leader than as standby; only \
             exclusive manifests may depend on the role",
        ),
    ] {
        let error = check(name).expect_err(name);
        assert!(chain(&error).ends_with(expected), "{}", chain(&error));
    }
}

#[test]
fn a_check_of_every_question_finds_a_configuration_that_is_refused() {
    let check = |config: &str| {
        hostile().check_refusals(&"masters".into(), &node("a"), &manifests(), config)
    };
    let refused = cause(check(r#"{"misdemeanour": 1}"#));
    assert!(matches!(refused, Cause::Refused(Refusal::Configuration(_))), "{refused:?}");
    for another in ["", "refuse", "panic", "loop", "fact-twice"] {
        check(&misdeed(another)).unwrap_or_else(|error| panic!("{another}: {error}"));
    }
}

#[test]
fn facts_are_bounded() {
    for (name, expected) in [
        ("fact-twice", "fact `flags` is there twice"),
        ("fact-unnamed", "fact `` has no key"),
        ("fact-control", "fact `a b` has a control character in its key"),
        ("fact-long", "fact `flags` has a value of more than 4 KB"),
        ("fact-flood", "fact `64` is one too many; 64 are the most"),
        ("fact-heavy", "fact `5` brings all facts together to more than 16 KB"),
    ] {
        let election = "masters".into();
        let found = cause(hostile().describe(&election, &node("a"), &[], &misdeed(name)));
        let Cause::BadAnswer(fault) = found else { panic!("{name}: {found:?}") };
        assert_eq!(fault.to_string(), expected, "{name}");
    }
}

#[test]
fn many_calls_at_once_wait_for_each_other() {
    let threads: Vec<_> = (0..32).map(|_| std::thread::spawn(assert_unharmed)).collect();
    for thread in threads {
        thread.join().expect("every call is answered");
    }
}

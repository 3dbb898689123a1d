//! The policy's logic, natively. The committed component is tested in `tests/component.rs`.

use conclave_policy_sdk::{Fitness, Incumbent, Previous};

use super::*;

fn manifest(name: &str, command: &str) -> Manifest {
    let content = format!(
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: x\n    command: [{command}]\n"
    );
    Manifest { name: name.into(), exclusive: true, content }
}

fn scheduler_with(flags: &str) -> Manifest {
    manifest("scheduler.yaml", &format!("/opt/kubernetes/km, scheduler, {flags}"))
}

fn node(variables: &[(&str, &str)]) -> Node {
    let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Node { name: "a".into(), labels: vec![], variables }
}

fn settings(json: &str) -> Settings {
    let settings = Settings::parse(json).expect("a good configuration");
    assert_eq!(ExecutorMatch::validate(&settings), []);
    settings
}

/// What a node with these scheduler flags brings.
fn facts(flags: &str) -> Attributes {
    ExecutorMatch::describe(&node(&[]), &[scheduler_with(flags)], &settings("{}")).expect("facts")
}

fn candidate(name: &str, facts: Attributes) -> Candidate {
    Candidate {
        name: name.into(),
        labels: vec![],
        facts,
        fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
        cordoned: false,
        holds: vec![],
        standing_ms: 60_000,
    }
}

const NGINX: &str = "--advertised-address=nginx:1, --api-servers=nginx:2";
const OWN: &str = "--advertised-address=10.0.0.2:1, --api-servers=nginx:2";

/// `a` and `c` advertise the proxy's address, `b` its own.
fn view() -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: vec![
            candidate("b", facts(OWN)),
            candidate("a", facts(NGINX)),
            candidate("c", facts(NGINX)),
        ],
        incumbent: None,
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn led_by(name: &str, facts: Attributes) -> Option<Incumbent> {
    Some(Incumbent { name: name.into(), facts, held_ms: 1_000 })
}

fn names(view: &View, json: &str) -> (String, String) {
    let ranking = ExecutorMatch::rank(view, &settings(json)).expect("a ranking");
    let names = |ranked: Vec<Ranked>| {
        ranked.into_iter().map(|ranked| ranked.node).collect::<Vec<_>>().join(" ")
    };
    (names(ranking.order), names(ranking.excluded))
}

#[test]
fn only_who_matches_the_last_holder_leads_also_after_it_died() {
    let previous = |facts| Some(Previous { name: "z".into(), facts, clean: false });
    let other = || vec![("someones".to_owned(), "facts".to_owned())];
    for (what, incumbent, previous, expected) in [
        ("nobody has led yet", None, None, ("b a c", "")),
        ("the last holder died", None, previous(facts(NGINX)), ("a c", "b")),
        ("the last holder was the other kind", None, previous(facts(OWN)), ("b", "a c")),
        ("another policy decided before", None, previous(other()), ("b a c", "")),
        ("c leads", led_by("c", facts(NGINX)), None, ("c a", "b")),
        ("an incumbent is never excluded", led_by("b", facts(OWN)), None, ("b", "a c")),
        ("its manifest was edited meanwhile", led_by("b", facts(NGINX)), None, ("b", "a c")),
        ("one that is no candidate leads", led_by("z", facts(NGINX)), None, ("a c", "b")),
    ] {
        let view = View { incumbent, previous, ..view() };
        let (order, excluded) = names(&view, "{}");
        assert_eq!((order.as_str(), excluded.as_str()), expected, "{what}");
    }
}

#[test]
fn an_operator_can_accept_what_differs() {
    let previous = Some(Previous { name: "z".into(), facts: facts(NGINX), clean: false });
    let mut view = View { previous, ..view() };
    let hash = get(&facts(OWN), HASH).expect("a hash").to_owned();
    let accept = format!(r#"{{"accept": ["{hash}"]}}"#);
    assert_eq!(names(&view, &accept), ("b a c".into(), String::new()));
    assert_eq!(names(&view, r#"{"accept": ["0123456789abcdef"]}"#).1, "b");
    // One of which nothing is known is let by nothing but `any`.
    view.candidates.push(candidate("d", vec![]));
    assert_eq!(names(&view, &accept).1, "d");
    assert_eq!(names(&view, r#"{"accept": ["any"]}"#).1, "");
}

#[test]
fn reasons_name_the_flags_that_differ() {
    let view = View { incumbent: led_by("a", facts(NGINX)), ..view() };
    let ranking = ExecutorMatch::rank(&view, &settings("{}")).expect("a ranking");
    let (own, nginx) = (facts(OWN), facts(NGINX));
    assert_eq!(
        ranking.excluded[0].reason,
        format!(
            "its executors ({}) would not match: --advertised-address is `10.0.0.2:1` and was \
             `nginx:1`",
            get(&own, HASH).expect("a hash")
        )
    );
    let reasons: Vec<_> = ranking.order.iter().map(|ranked| ranked.reason.clone()).collect();
    let matching = format!("its executors match, {}", get(&nginx, HASH).expect("a hash"));
    assert_eq!(reasons, ["holds the term".to_owned(), matching]);
}

#[test]
fn variables_are_filled_in_before_flags_are_compared() {
    let describe = |variables: &[(&str, &str)], flags: &str| {
        let manifests = [scheduler_with(flags)];
        ExecutorMatch::describe(&node(variables), &manifests, &settings("{}")).expect("facts")
    };
    let own = "'--address=${IP}', '--advertised-address=${LB}:1', '--api-servers=${LB}:2'";
    let one = describe(&[("IP", "10.0.0.1"), ("LB", "nginx")], own);
    assert_eq!(one, describe(&[("IP", "10.0.0.2"), ("LB", "nginx")], own));
    assert_eq!(one, facts(NGINX));
    assert_ne!(one, describe(&[("IP", "10.0.0.1"), ("LB", "other")], own));
}

#[test]
fn the_scheduler_is_found_or_named() {
    let controller = manifest("controller-manager.yaml", "km, controller-manager");
    let scheduler = scheduler_with(NGINX);
    let second = manifest("second.yaml", "kube-scheduler, --km-path=/k");
    let describe = |manifests: &[Manifest], json: &str| {
        ExecutorMatch::describe(&node(&[]), manifests, &settings(json))
    };
    let two = [controller.clone(), scheduler.clone()];
    assert_eq!(describe(&two, "{}"), Ok(facts(NGINX)));
    let three = [controller.clone(), scheduler.clone(), second];
    assert_eq!(describe(&three, r#"{"manifest": "scheduler.yaml"}"#), Ok(facts(NGINX)));
    for (manifests, json, message) in [
        (&three[..], "{}", "/manifest: several of these run a scheduler"),
        (&two[..1], "{}", "/manifest: none of these run a scheduler"),
        (&two[..], r#"{"manifest": "x"}"#, "/manifest: there is none `x`; there are `controller"),
    ] {
        let Err(Refusal::Configuration(text)) = describe(manifests, json) else { panic!("{json}") };
        assert!(text.starts_with(message), "{text}");
    }
    // One that cannot be read now is no mistake of the configuration: nothing is known of it.
    let unread = Manifest { content: String::new(), ..scheduler };
    assert_eq!(describe(&[controller, unread.clone()], "{}"), Ok(vec![]));
    assert_eq!(describe(&[unread], r#"{"manifest": "scheduler.yaml"}"#), Ok(vec![]));
}

#[test]
fn mistakes_in_the_configuration_are_all_reported_with_their_place() {
    for (json, paths) in [
        (r#"{"flags": ["--proxy-*", "km_path", "*"], "accept": ["any"]}"#, vec![]),
        (
            r#"{"manifest": "", "flags": ["", "a=b", "*a*"], "accept": ["abc", "0123456789abcdeF"]}"#,
            vec!["/manifest", "/flags/0", "/flags/1", "/flags/2", "/accept/0"],
        ),
        (r#"{"flags": []}"#, vec!["/flags"]),
        (r#"{"flag": []}"#, vec!["/flag"]),
    ] {
        let found = match Settings::parse(json) {
            Ok(settings) => ExecutorMatch::validate(&settings),
            Err(problem) => vec![problem],
        };
        let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(found, paths, "{json}");
    }
}

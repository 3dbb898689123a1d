//! The policy's logic, natively. The committed component is tested in `tests/component.rs`.

use conclave_policy_sdk::{Attributes, Fitness, Incumbent};

use super::*;

fn candidate(name: &str, standing_s: u64, labels: &[(&str, &str)]) -> Candidate {
    let labels: Attributes = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Candidate {
        name: name.into(),
        labels,
        facts: vec![],
        fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
        cordoned: false,
        holds: vec![],
        standing_ms: 1_000 * standing_s,
    }
}

fn view(candidates: Vec<Candidate>, incumbent: Option<(&str, u64)>) -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates,
        incumbent: incumbent.map(|(name, held_s)| Incumbent {
            name: name.into(),
            facts: vec![],
            held_ms: 1_000 * held_s,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn ranked(view: &View, json: &str) -> Vec<(String, String)> {
    let settings = Settings::parse(json).expect("a good configuration");
    assert_eq!(Preferred::validate(&settings), []);
    let ranking = Preferred::rank(view, &settings).expect("a ranking");
    assert!(ranking.excluded.is_empty());
    ranking.order.into_iter().map(|ranked| (ranked.node, ranked.reason)).collect()
}

fn order(view: &View, json: &str) -> Vec<String> {
    ranked(view, json).into_iter().map(|(node, _)| node).collect()
}

#[test]
fn the_heaviest_leads_unless_something_keeps_the_incumbent() {
    // `c` came 30 s ago.
    let nodes =
        || vec![candidate("a", 900, &[]), candidate("b", 600, &[]), candidate("c", 30, &[])];
    let heavy_b = r#"{"weights": {"b": 5, "a": 1}}"#;
    let heavy_c = r#"{"weights": {"c": 9}}"#;
    let patient = r#"{"weights": {"b": 5}, "stay_seconds": 120}"#;
    let polite = r#"{"weights": {"b": 5}, "preempt": false}"#;
    let hasty = r#"{"weights": {"c": 9}, "settle_seconds": 30}"#;
    for (incumbent, config, expected) in [
        (None, heavy_b, ["b", "a", "c"]),
        (Some(("a", 10)), heavy_b, ["b", "a", "c"]),
        (Some(("c", 10)), heavy_b, ["b", "a", "c"]),
        // Of equal weights the incumbent's counts for more.
        (Some(("c", 10)), "{}", ["c", "a", "b"]),
        // A favourite that has not settled waits, also on a vacancy.
        (Some(("a", 10)), heavy_c, ["a", "b", "c"]),
        (None, heavy_c, ["a", "b", "c"]),
        (Some(("a", 10)), hasty, ["c", "a", "b"]),
        // An incumbent stays for a while, or altogether.
        (Some(("a", 119)), patient, ["a", "b", "c"]),
        (Some(("a", 120)), patient, ["b", "a", "c"]),
        (Some(("a", 86_400)), polite, ["a", "b", "c"]),
        (None, polite, ["b", "a", "c"]),
    ] {
        assert_eq!(order(&view(nodes(), incumbent), config), expected, "{incumbent:?} {config}");
    }
}

#[test]
fn when_nobody_has_settled_weights_decide() {
    let nodes = vec![candidate("a", 3, &[]), candidate("b", 2, &[])];
    assert_eq!(order(&view(nodes, None), r#"{"weights": {"b": 1}}"#), ["b", "a"]);
}

#[test]
fn labels_add_to_the_weight() {
    let nodes = || {
        vec![
            candidate("a", 900, &[("disk", "hdd"), ("spot", "yes")]),
            candidate("b", 600, &[("disk", "ssd")]),
            candidate("c", 500, &[("disk", "ssd"), ("spot", "no")]),
        ]
    };
    let ssd = r#"{"labels": [{"label": "disk", "value": "ssd", "weight": 10}]}"#;
    let no_spot = r#"{"labels": [{"label": "disk", "value": "ssd", "weight": 10},
                                 {"label": "spot", "weight": -20}], "weights": {"a": 100}}"#;
    assert_eq!(order(&view(nodes(), Some(("a", 900))), ssd), ["b", "c", "a"]);
    let reasons = ranked(&view(nodes(), Some(("a", 900))), no_spot);
    let expected = [("a", "weight 80, holds the term"), ("b", "weight 10"), ("c", "weight -10")];
    assert_eq!(reasons, expected.map(|(node, reason)| (node.to_owned(), reason.to_owned())));
}

#[test]
fn an_unstable_favourite_pulls_nothing_to_and_fro() {
    // The favourite comes for 40 s, goes for 20 s, and so on, for two hours; a decision each second.
    let config = r#"{"weights": {"a": 10}, "settle_seconds": 60}"#;
    let (mut holder, mut since, mut moves) = ("b", 0, 0);
    for second in 1..7_200_u64 {
        let here = (second % 60 < 40).then_some(second % 60);
        let mut nodes = vec![candidate("b", second, &[]), candidate("c", second, &[])];
        nodes.extend(here.map(|stood| candidate("a", stood, &[])));
        let first = order(&view(nodes, Some((holder, second - since))), config).remove(0);
        if first != holder {
            (holder, since, moves) = ("a", second, moves + 1);
        }
    }
    assert_eq!((holder, moves), ("b", 0));
}

#[test]
fn mistakes_in_the_configuration_are_all_reported_with_their_place() {
    let problems = |json: &str| match Settings::parse(json) {
        Ok(settings) => Preferred::validate(&settings),
        Err(problem) => vec![problem],
    };
    for (json, paths) in [
        ("{}", vec![]),
        (r#"{"weights": {"": 1}}"#, vec!["/weights"]),
        (r#"{"weights": {"a": "x"}}"#, vec!["/weights/a"]),
        (r#"{"labels": [{"label": "", "weight": 1}]}"#, vec!["/labels/0/label"]),
        (r#"{"labels": [{"label": "x"}]}"#, vec!["/labels/0"]),
        (
            r#"{"preempt": false, "stay_seconds": 100000, "settle_seconds": 90000}"#,
            vec!["/stay_seconds", "/settle_seconds", "/stay_seconds"],
        ),
        (r#"{"wieghts": {}}"#, vec!["/wieghts"]),
    ] {
        let found = problems(json);
        let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(found, paths, "{json}");
    }
}

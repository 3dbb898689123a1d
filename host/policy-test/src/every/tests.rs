//! Deliberately bad policies are found out, and by a case that a person understands.

use std::cell::Cell;
use std::path::Path;

use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, NodeView, Placement, Ranked, Ranking, Role, View};
use conclave_core::{ElectionName, NodeName};
use conclave_policy::{Answer, Cause, Digest, Limits, PolicyError, Ranks, Usage, builtin};

use super::*;

/// A policy that ranks as a function says and does everything else right.
struct RanksBy<F>(F);

impl<F: Fn(&View) -> Vec<NodeName>> Asked for RanksBy<F> {
    fn rank(&self, view: &View) -> Result<Answer<Ranks>, PolicyError> {
        let ranked = |node| Ranked { node, reason: String::new() };
        let order = (self.0)(view);
        let forgotten = names(view).into_iter().filter(|name| !order.contains(name)).collect();
        let order = order.into_iter().map(ranked).collect();
        let ranking = Ranking { order, excluded: Vec::new() };
        Ok(answer(Ranks { ranking, forgotten }))
    }

    fn place(
        &self,
        _: &View,
        _: &NodeView,
        role: Role,
        manifests: &[ManifestView],
    ) -> Result<Answer<Vec<Placement>>, PolicyError> {
        Ok(answer(builtin::place(role, manifests)))
    }

    fn in_both_roles(
        &self,
        _: &ElectionName,
        _: &NodeView,
        _: &[ManifestView],
    ) -> Result<(), PolicyError> {
        Ok(())
    }

    fn describe(
        &self,
        _: &ElectionName,
        _: &NodeView,
        _: &[ManifestView],
    ) -> Result<Answer<Attributes>, PolicyError> {
        Ok(answer(Attributes::new()))
    }
}

fn answer<T>(value: T) -> Answer<T> {
    Answer { value, usage: Usage { fuel: 1, ..Usage::default() }, builtin: false }
}

fn names(view: &View) -> Vec<NodeName> {
    view.candidates.iter().map(|candidate| candidate.name.clone()).collect()
}

fn leads(view: &View, node: &NodeName) -> bool {
    view.incumbent.as_ref().is_some_and(|incumbent| incumbent.name == *node)
}

fn reported(rank: impl Fn(&View) -> Vec<NodeName>, seed: u64) -> CaseReport {
    let options = Options { seed, ..Options::default() };
    let mut generator = Generator::new(seed, &Words::of(&suite("- rank: {candidates: 3}")));
    every(&[(&RanksBy(rank), None)], Function::Rank, &mut generator, &options)
}

fn suite(cases: &str) -> Suite {
    let text = format!("policy: cold-standby\ncases:\n{cases}");
    Suite::parse(Path::new("cases.yaml"), &text, None).unwrap_or_else(|error| panic!("{error}"))
}

/// That a policy is found out with every seed, in words that contain `what`, and by the same case.
fn found_out(rank: impl Fn(&View) -> Vec<NodeName>, what: &str, case: &str) {
    for seed in 0..20 {
        let report = reported(&rank, seed);
        let [failure] = &report.failures[..] else { panic!("{seed}: nothing found") };
        assert!(failure.what.contains(what), "{seed}: {}", failure.what);
        let found = failure.case.as_deref().unwrap_or_default();
        let (name, rest) = found.split_once('\n').expect("lines");
        assert!(name.starts_with("  - name: rank view "), "{name}");
        assert_eq!(rest, case, "{seed}");
        // It can be pasted.
        assert_eq!(suite(found).cases.len(), 1);
    }
}

#[test]
fn a_good_policy_passes_with_every_seed() {
    for seed in 0..50 {
        let good = |view: &View| {
            let ranked = builtin::rank(view).ranking.order;
            ranked.into_iter().map(|ranked| ranked.node).collect()
        };
        let report = reported(good, seed);
        assert!(report.passed, "{seed}: {:?}", report.failures);
        assert_eq!(report.views, Some(200));
    }
}

#[test]
fn one_that_spreads_elections_hands_them_on_and_on() {
    // The fewest elections first: taking one makes a node a worse choice.
    let rank = |view: &View| {
        let mut candidates: Vec<_> = view.candidates.iter().collect();
        candidates.sort_by_key(|candidate| candidate.holds.len());
        candidates.into_iter().map(|candidate| candidate.name.clone()).collect()
    };
    found_out(
        rank,
        "it puts `a` in the lead, and once that leads, `b`: the term would not stay anywhere",
        "    rank:\n      candidates: 2\n      leader: {name: a, held: 0s}\n    expect: {leads: a}\n",
    );
}

#[test]
fn one_that_lets_nobody_lead_twice_is_found() {
    let rank = |view: &View| {
        let mut order = names(view);
        order.sort_by_key(|node| leads(view, node));
        order
    };
    found_out(
        rank,
        "the term would not stay anywhere",
        "    rank:\n      candidates: 2\n      leader: {name: a, held: 0s}\n    expect: {leads: a}\n",
    );
}

#[test]
fn one_that_prefers_whoever_asks_is_found() {
    let rank = |view: &View| {
        let mut order = names(view);
        order.sort_by_key(|node| *node != view.me);
        order
    };
    found_out(
        rank,
        "it ranks otherwise when `b` asks than when `a` does",
        "    rank:\n      candidates: 2\n",
    );
}

#[test]
fn one_that_says_nothing_of_some_is_found() {
    let rank = |view: &View| names(view).into_iter().take(1).collect();
    found_out(rank, "it neither ranks nor excludes `b`", "    rank:\n      candidates: 2\n");
}

#[test]
fn one_that_remembers_is_found() {
    let calls = Cell::new(0);
    let rank = |view: &View| {
        calls.set(calls.get() + 1);
        let mut order = names(view);
        if calls.get() % 2 == 0 {
            order.reverse();
        }
        order
    };
    let report = reported(rank, 1);
    assert!(report.failures[0].what.starts_with("asked the same twice"), "{report:?}");
}

#[test]
fn one_that_loops_is_not_asked_for_ever() {
    // Every call spends all its fuel and fails.
    struct Loops(Cell<u64>);

    impl Asked for Loops {
        fn rank(&self, _: &View) -> Result<Answer<Ranks>, PolicyError> {
            self.0.set(self.0.get() + 1);
            let budget = Limits::default().fuel;
            Err(PolicyError {
                plugin: "loops".into(),
                digest: Digest::of(b""),
                election: None,
                function: Function::Rank,
                usage: Box::new(Usage { fuel: budget, ..Usage::default() }),
                cause: Box::new(Cause::Fuel { budget }),
            })
        }

        fn place(
            &self,
            _: &View,
            _: &NodeView,
            _: Role,
            _: &[ManifestView],
        ) -> Result<Answer<Vec<Placement>>, PolicyError> {
            unreachable!("nobody asks")
        }

        fn in_both_roles(
            &self,
            _: &ElectionName,
            _: &NodeView,
            _: &[ManifestView],
        ) -> Result<(), PolicyError> {
            unreachable!("nobody asks")
        }

        fn describe(
            &self,
            _: &ElectionName,
            _: &NodeView,
            _: &[ManifestView],
        ) -> Result<Answer<Attributes>, PolicyError> {
            unreachable!("nobody asks")
        }
    }

    let loops = Loops(Cell::new(0));
    let options = Options { seed: 4, ..Options::default() };
    let mut generator = Generator::new(4, &Words::default());
    let report = every(&[(&loops, None)], Function::Rank, &mut generator, &options);
    assert!(report.failures[0].what.contains("it used up its"), "{report:?}");
    assert!(loops.0.get() <= 1 + SHRINKING, "{} calls", loops.0.get());
}

#[test]
fn what_matters_stays_in_the_simplest_view() {
    // Wrong only where a fact and a label meet.
    let rank = |view: &View| {
        let mut order = names(view);
        let flagged = |c: &conclave_core::view::CandidateView| {
            c.facts.contains_key("flags") && c.labels.get("rack").is_some_and(|rack| rack == "a")
        };
        if view.candidates.iter().any(flagged) && view.previous.is_none() {
            order.sort_by_key(|node| leads(view, node));
        }
        order
    };
    for seed in 0..5 {
        let report = reported(rank, seed);
        let case = report.failures[0].case.as_deref().expect("a case");
        let lines: Vec<&str> = case.lines().skip(1).collect();
        assert!(lines[1].contains("labels: {rack: a}") && lines[1].contains("flags"), "{case}");
        assert!(lines.len() == 4 && lines[2].ends_with("held: 0s}"), "{case}");
    }
}

#[test]
fn every_question_can_be_pasted() {
    let words = Words::of(&suite(
        "- rank: {candidates: [{name: n1, labels: {zone: \"1\", \"a b\": \"true\"}, facts: {x: \"\"}}]}\n\
         - rank: {candidates: 1}\n  config: {\"on\": [\"é: [\", \"2nd\", 'a\\u2028b']}\n",
    ));
    let mut generator = Generator::new(7, &words);
    for _ in 0..300 {
        for function in FUNCTIONS {
            let question = generate(&mut generator, function);
            let beside = Beside {
                name: "pasted: \"here\"",
                config: Some(r#"{"a":1,"b":["c",{"d e":null}]}"#),
                expect: None,
            };
            let text = paste::case(&question, &beside);
            let suite = suite(&text);
            let [case] = &suite.cases[..] else { panic!("{text}") };
            assert_eq!(case.question, question, "{text}");
            assert_eq!(
                (case.name.as_str(), case.config.as_str()),
                (beside.name, beside.config.unwrap_or_default())
            );
        }
    }
}

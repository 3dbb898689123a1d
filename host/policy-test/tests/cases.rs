//! What becomes of the text of a case file: views and questions, or mistakes with their places.

use std::path::Path;

use conclave_core::record::Fitness;
use conclave_core::view::View;
use conclave_policy_test::{Options, Question, Report, Suite, Tester};
use conclave_yaml::Problems;

fn parse(cases: &str) -> Result<Suite, Problems> {
    let text = format!("policy: cold-standby\ncases:\n{cases}");
    Suite::parse(Path::new("cases.yaml"), &text, None)
}

fn question(case: &str) -> Question {
    let suite = parse(&format!("- {case}")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    suite.cases[0].question.clone()
}

fn view(view: &str) -> View {
    match question(&format!("rank: {view}")) {
        Question::Rank(view) => view,
        other => panic!("{other:?}"),
    }
}

fn names(view: &View) -> Vec<&str> {
    view.candidates.iter().map(|candidate| candidate.name.as_str()).collect()
}

#[test]
fn a_number_of_candidates_is_enough() {
    let view = view("{candidates: 3}");
    assert_eq!(names(&view), ["a", "b", "c"]);
    assert_eq!((view.election.as_str(), view.me.as_str()), ("masters", "a"));
    assert_eq!(
        (view.incumbent, view.previous, view.transfer, view.paused),
        (None, None, None, false)
    );
    for candidate in &view.candidates {
        assert_eq!((&candidate.fitness, candidate.cordoned), (&Fitness::fit(), false));
        assert_eq!((candidate.standing_ms, &candidate.holds), (3_600_000, &Vec::new()));
    }
}

#[test]
fn what_differs_is_said() {
    let view = view(
        "{election: api, candidates: [b, {name: a, labels: {rack: x}, facts: {flags: y}, \
         checks: {disk: false}, reasons: [slow], holds: [web, db], standing: 61s}, c], \
         leader: {name: a, held: 90s}, me: b, previous: {name: z, facts: {f: g}, clean: false}, \
         transfer: c, paused: true, cordoned: [b], unfit: {c: no disk}}",
    );
    // The longest-standing first, as the host lists them.
    assert_eq!(names(&view), ["b", "c", "a"]);
    let [b, c, a] = &view.candidates[..] else { panic!("{view:?}") };
    assert!(b.cordoned && !a.cordoned && b.fitness.fit);
    assert_eq!(c.fitness, Fitness::unfit("no disk"));
    assert!(a.fitness.fit && a.fitness.reasons == ["slow"] && !a.fitness.checks["disk"]);
    let holds: Vec<&str> = a.holds.iter().map(|election| election.as_str()).collect();
    assert_eq!(holds, ["api", "db", "web"], "what it leads included");
    // Rounded as the host rounds.
    assert_eq!(a.standing_ms, 60_000);
    let incumbent = view.incumbent.as_ref().expect("a leader");
    assert_eq!((incumbent.name.as_str(), incumbent.held_ms), ("a", 90_000));
    assert_eq!(incumbent.facts, a.facts);
    let previous = view.previous.expect("who led before");
    assert!(previous.name.as_str() == "z" && !previous.clean && previous.facts["f"] == "g");
    let to = view.transfer.expect("a transfer").to.expect("a node");
    assert!(to.as_str() == "c" && view.paused && view.me.as_str() == "b");
}

#[test]
fn a_holder_may_be_no_candidate_and_a_transfer_name_nobody() {
    let view = view("{candidates: 2, leader: {name: z, candidate: false}, transfer: {}}");
    assert_eq!(view.incumbent.expect("a leader").name.as_str(), "z");
    assert_eq!(view.transfer.expect("a transfer").to, None);
}

#[test]
fn what_runs_is_asked_of_every_candidate_or_of_some() {
    let case = |on: &str| {
        let view = "{candidates: [{name: a, labels: {l: m}, variables: {V: w}}, b, c], leader: b, ";
        question(&format!(
            "place: {view} manifests: [x.yaml, {{name: y.yaml, exclusive: false, content: z}}]{on}}}"
        ))
    };
    let Question::Place { nodes, manifests, .. } = case("") else { panic!("another question") };
    assert_eq!(nodes.len(), 3);
    assert!(nodes[0].labels["l"] == "m" && nodes[0].variables["V"] == "w");
    assert!(manifests[0].exclusive && manifests[0].content.contains("kind: Pod"));
    assert!(!manifests[1].exclusive && manifests[1].content == "z");
    for (on, expected) in [(", on: b", vec!["b"]), (", on: [c, a]", vec!["c", "a"])] {
        let Question::Place { nodes, .. } = case(on) else { panic!("another question") };
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn every_mistake_says_where_it_is_and_what_to_do() {
    let mut wrong = Vec::new();
    for (case, message, place, help) in [
        ("rank: {}", "cases[0].rank has no `candidates`", "3:9", "say how many, `3`"),
        ("rank: {candidates: 1001}", "1001 candidates are too many", "3:22", "the most is 1000"),
        ("rank: {candidates: [a, a]}", "there are two candidates `a`", "3:26", "rename one"),
        (
            "rank: {candidates: [a, {}]}",
            "cases[0].rank.candidates[1] has no `name`",
            "3:26",
            "name the node",
        ),
        (
            "rank: {candidates: 2, leader: z}",
            "`z` is no candidate",
            "3:33",
            "the candidates are `a`, `b`",
        ),
        (
            "rank: {candidates: 2, unfit: {z: x}}",
            "`z` is no candidate",
            "3:33",
            "the candidates are",
        ),
        (
            "rank: {candidates: 2, transfer: a}",
            "a transfer is asked of a leader, and there is none here",
            "3:25",
            "leader: a",
        ),
        (
            "rank: {candidates: 2, manifests: []}",
            "`manifests` means nothing to `rank`",
            "3:25",
            "`place`",
        ),
        (
            "rank: {candidates: 2, cordonned: [a]}",
            "unknown field `cordonned`",
            "3:25",
            "did you mean `cordoned`?",
        ),
        (
            "rank: {candidates: [{name: a, standing: 5}]}",
            "cases[0].rank.candidates[0].standing: expected a duration with its unit, such as `10s`, `500ms` or `1m 30s`, found the number 5",
            "3:43",
            "",
        ),
        ("place: {candidates: 2}", "cases[0].place has no `manifests`", "3:10", "name them"),
        (
            "place: {candidates: 2, manifests: [{name: a, source: b.yaml}]}",
            "the manifest b.yaml cannot be read: No such file or directory (os error 2)",
            "3:56",
            "relative paths",
        ),
        (
            "place: {candidates: 2, manifests: [a, a]}",
            "there are two manifests `a`",
            "3:41",
            "rename one",
        ),
        ("expect: {}", "this case asks nothing", "3:3", "`describe`"),
        ("validate: [a]", "cases[0].validate is no mapping", "3:13", "write the policy's settings"),
        (
            "rank: {candidates: 2}\n  expect: {runs: {}}",
            "`runs` says nothing about an answer to `rank`",
            "4:12",
            "here fit `order`",
        ),
        (
            "rank: {candidates: 2}\n  expect: {order: [a, a]}",
            "`a` is there twice",
            "4:23",
            "keep it once",
        ),
        (
            "rank: {candidates: 2}\n  expect: {excluded: [z]}",
            "`z` is no candidate",
            "4:23",
            "the candidates are",
        ),
        (
            "rank: {candidates: 2}\n  expect: {first: a, refused: x}",
            "a policy that refuses answers nothing else",
            "4:22",
            "keep `refused`",
        ),
        (
            "place: {candidates: 2, manifests: [a]}\n  expect: {exclusive_only_on: a}",
            "`a` does not lead here, and exclusive manifests run on the leader only",
            "4:31",
            "`leader: a`",
        ),
        (
            "place: {candidates: 2, manifests: [ab, cd]}\n  expect: {runs: {a: [ac]}}",
            "there is no manifest `ac`",
            "4:23",
            "the manifests are `ab`, `cd`",
        ),
        (
            "place: {candidates: 2, manifests: [a], on: a}\n  expect: {runs: {b: []}}",
            "nobody asks what runs on `b`",
            "4:19",
            "`a`",
        ),
    ] {
        let mistakes = parse(&format!("- {case}")).expect_err(case);
        let text = mistakes.to_string();
        let [mistake] = mistakes.problems() else { panic!("{case}:\n{text}") };
        let found = mistake.help.clone().unwrap_or_default();
        let there = text.contains(&format!("--> cases.yaml:{place}\n"));
        if mistake.message != message || !there || !found.contains(help) {
            wrong.push(format!("{case}:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_file_without_cases_is_told_what_one_is() {
    for (text, expected) in [
        ("", "the file has no `policy`"),
        ("policy: cold-standby", "the file has no `cases`"),
        ("policy: cold-standby\ncases: []", "there is no case here"),
        ("policy: warm\ncases: [{rank: {candidates: 1}}]", "there is no built-in policy `warm`"),
        ("- a", "expected the fields `policy`, `config` and `cases`, found a list"),
    ] {
        let mistakes = Suite::parse(Path::new("cases.yaml"), text, None).expect_err(text);
        assert!(mistakes.to_string().contains(expected), "{text}:\n{mistakes}");
    }
}

fn run(cases: &str) -> Report {
    let suite = parse(cases).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let tester = Tester::new(Options { views: 0, ..Options::default() }).expect("a sandbox");
    tester.run(&[suite]).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn every_expectation_can_fail() {
    let ranked = "rank: {candidates: 3, leader: b, cordoned: [b]}";
    let placed = "place: {candidates: 2, leader: a, manifests: [x, {name: y, exclusive: false}]}";
    let described = "describe: {}";
    let validated = "validate: {prefer: [a, a]}";
    for (question, right, wrong, what) in [
        (ranked, "order: [b, a, c]", "order: [b, a]", "the order differs"),
        (ranked, "first: b", "first: a", "`b` is first, not `a`"),
        (ranked, "leads: a", "leads: b", "`a` is in the lead, not `b`"),
        (ranked, "excluded: []", "excluded: [c]", "other nodes are excluded"),
        (ranked, "forgotten: []", "forgotten: [c]", "other nodes are in neither list"),
        (ranked, "reasons: {b: holds}", "reasons: {a: holds}", "the reason for `a` is another one"),
        (placed, "runs: {b: [y]}", "runs: {b: []}", "other manifests run on `b`"),
        (
            placed,
            "variables: {a: {x: {}}}",
            "variables: {a: {x: {A: b}}}",
            "the variables of `x` on `a` differ",
        ),
        (placed, "exclusive_only_on: a", "runs: {a: [y]}", "other manifests run on `a`"),
        (described, "facts: {}", "facts: {a: b}", "the facts differ"),
        (described, "has_facts: {}", "has_facts: {a: b}", "facts are missing"),
        (
            validated,
            "problems: {/prefer/1: named twice}",
            "problems: {/prefer/1: unknown}",
            "the problems differ",
        ),
        (validated, "problems: {/prefer/1: named twice}", "problems: {}", "the problems differ"),
        (ranked, "excluded: {}", "refused: x", "it answered, and was expected to refuse"),
    ] {
        let case = |name: &str, expect: &str| {
            format!("- name: {name}\n  {question}\n  expect: {{{expect}}}\n")
        };
        let report = run(&(case("right", right) + &case("wrong", wrong)));
        let [right, wrong] = &report.suites[0].cases[..] else { panic!("{report}") };
        assert!(right.passed && right.failures.is_empty(), "{report}");
        assert!(!wrong.passed && wrong.failures[0].what == what, "{report}");
        assert_eq!(report.count(), (1, 1));
    }
}

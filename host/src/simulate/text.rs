//! A play as text: a line of time for each node, what happened, and the figures side by side.

use std::fmt::Write as _;
use std::time::Duration;

use super::figures::{Figures, Outcome};
use super::scenario::Scenario;
use super::story::{State, Story};
use crate::terminal::{columns, plain};

/// How many columns the line of time has.
const WIDTH: usize = 64;

/// A longer story is shown without what happened in it.
const MOST_HAPPENINGS: usize = 40;

/// Everything, as it is printed.
pub(crate) fn text(scenario: &Scenario, story: &Story, outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} in {} columns, ttl {}, seed {}: # leads  . stands by  x down  ~ cut off  - may not lead\n",
        span(scenario.duration),
        WIDTH,
        span(scenario.ttl),
        scenario.seed
    );
    for outcome in outcomes {
        for (e, election) in scenario.elections.iter().enumerate() {
            let _ = writeln!(out, "{}: {}", plain(&outcome.policy), plain(election));
            lines(&mut out, scenario, story, outcome, e);
            out.push('\n');
        }
    }
    if story.happenings.len() <= MOST_HAPPENINGS {
        for happening in &story.happenings {
            let _ = writeln!(out, "{:>12}  {}", span(happening.at), plain(&happening.words));
        }
    } else {
        let _ = writeln!(out, "{} things happened in the story", story.happenings.len());
    }
    out.push('\n');
    out.push_str(&figures(scenario, outcomes));
    out
}

fn lines(out: &mut String, scenario: &Scenario, story: &Story, outcome: &Outcome, e: usize) {
    let width = scenario.nodes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (n, (name, _)) in scenario.nodes.iter().enumerate() {
        let mut line = vec!['.'; WIDTH];
        for trouble in story.troubles.iter().filter(|trouble| trouble.node == n) {
            let mark = match trouble.state {
                State::Down => 'x',
                State::CutOff => '~',
                State::MayNot => '-',
            };
            fill(&mut line, scenario.duration, trouble.from, trouble.to, mark);
        }
        for led in outcome.stretches.iter().filter(|it| it.election == e && it.node == n) {
            fill(&mut line, scenario.duration, led.from, led.to, '#');
        }
        let line: String = line.into_iter().collect();
        let _ = writeln!(out, "  {:width$}  {line}", plain(name));
    }
}

/// Marks the columns that a time falls into, one at least.
fn fill(line: &mut [char], whole: Duration, from: Duration, to: Duration, mark: char) {
    let column = |at: Duration| (at.as_secs_f64() / whole.as_secs_f64() * WIDTH as f64) as usize;
    let first = column(from).min(WIDTH - 1);
    let last = column(to).clamp(first + 1, WIDTH);
    line[first..last].fill(mark);
}

fn figures(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let head = [
        "POLICY",
        "ELECTION",
        "LED",
        "GAPS",
        "LONGEST",
        "MEDIAN",
        "P95",
        "HANDED OVER",
        "TAKEN OVER",
        "FLAPS",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for outcome in outcomes {
        for (election, figures) in scenario.elections.iter().zip(&outcome.figures) {
            rows.push(row(&outcome.policy, election, figures));
        }
    }
    columns(&rows)
}

fn row(policy: &str, election: &str, figures: &Figures) -> [String; 10] {
    [
        policy.to_owned(),
        election.to_owned(),
        percent(figures.availability),
        figures.gaps.to_string(),
        span(figures.longest_gap),
        span(figures.median_gap),
        span(figures.p95_gap),
        figures.handovers.to_string(),
        figures.takeovers.to_string(),
        figures.flaps.to_string(),
    ]
}

/// With as many nines as there are.
pub(super) fn percent(share: f64) -> String {
    format!("{:.4} %", (share * 1e6).floor() / 1e4)
}

/// For people: hours without seconds, seconds with milliseconds.
pub(super) fn span(span: Duration) -> String {
    let rounded = match span.as_secs() {
        0..60 => Duration::from_millis(span.as_millis() as u64),
        60.. => Duration::from_secs(span.as_secs()),
    };
    humantime::format_duration(rounded).to_string()
}

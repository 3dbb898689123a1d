//! A play as a picture: for each policy a row of time for each node, coloured where it leads, and the
//! figures beside it. It stands for itself: no script, no font, no other file; light and dark.

use std::fmt::Write as _;
use std::time::Duration;

use super::figures::Outcome;
use super::scenario::Scenario;
use super::story::{State, Story};
use super::text::{percent, span};

const LEFT: f64 = 110.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 250.0;
const ROW: f64 = 22.0;
const TOP: f64 = 64.0;

/// How many marks the axis has, about.
const TICKS: u32 = 7;

/// More happenings than these would be a fence.
const MOST_MARKS: usize = 60;

const STYLE: &str = "\
text { font: 13px sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.head { font-weight: bold }
.row { fill: #eaeef2 }
.lead { fill: #1f6feb }
.down { fill: #cf222e; fill-opacity: .75 }
.cut { fill: #bf8700; fill-opacity: .75 }
.barred { fill: #8c959f }
.gap { fill: #cf222e }
.mark { stroke: #8c959f; stroke-dasharray: 2 3 }
.axis { stroke: #8c959f }
.back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.row { fill: #21262d } .lead { fill: #4493f8 } .back { fill: #0d1117 } .barred { fill: #656c76 }
}";

/// The picture.
pub(crate) fn svg(scenario: &Scenario, story: &Story, outcomes: &[Outcome]) -> String {
    let mut picture = Picture { out: String::new(), scenario, story, y: TOP };
    for outcome in outcomes {
        for e in 0..scenario.elections.len() {
            picture.block(outcome, e);
        }
    }
    picture.axis();
    let (width, height) = (LEFT + WIDTH + RIGHT, picture.y + 48.0);
    let title = format!(
        "{} of simulated time, TTL {}, seed {}",
        span(scenario.duration),
        span(scenario.ttl),
        scenario.seed
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    let _ = writeln!(out, "<text class=\"head\" x=\"12\" y=\"24\">{title}</text>");
    legend(&mut out);
    out.push_str(&picture.out);
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String) {
    let mut x = 12.0;
    for (class, words) in [
        ("lead", "leads"),
        ("row", "stands by"),
        ("down", "is down"),
        ("cut", "is cut off"),
        ("barred", "is unfit or cordoned"),
    ] {
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x}\" y=\"36\" width=\"12\" height=\"12\" rx=\"2\"/><text class=\"small\" x=\"{}\" y=\"46\">{words}</text>",
            x + 17.0
        );
        x += 36.0 + 6.5 * words.len() as f64;
    }
    let _ = writeln!(
        out,
        "<rect class=\"gap\" x=\"{x}\" y=\"40\" width=\"12\" height=\"4\"/><text class=\"small\" x=\"{}\" y=\"46\">nobody leads</text>",
        x + 17.0
    );
}

struct Picture<'a> {
    out: String,
    scenario: &'a Scenario,
    story: &'a Story,
    y: f64,
}

impl Picture<'_> {
    fn x(&self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() / self.scenario.duration.as_secs_f64() * WIDTH
    }

    /// One policy and election: its name, a row for each node, the gaps below, the figures beside.
    fn block(&mut self, outcome: &Outcome, e: usize) {
        let several = self.scenario.elections.len() > 1;
        let election =
            if several { format!(": {}", self.scenario.elections[e]) } else { String::new() };
        self.y += 18.0;
        self.words("head", 12.0, self.y, &format!("{}{election}", outcome.policy));
        self.y += 8.0;
        let top = self.y;
        for n in 0..self.scenario.nodes.len() {
            self.node(outcome, e, n);
            self.y += ROW;
        }
        self.gaps(outcome, e);
        self.figures(outcome, e, top);
        let rows = self.y - top;
        self.marks(top, rows);
        self.y += 14.0;
    }

    fn node(&mut self, outcome: &Outcome, e: usize, n: usize) {
        let y = self.y;
        self.words("small", 24.0, y + 14.0, &self.scenario.nodes[n].0.clone());
        self.bar("row", Duration::ZERO, self.scenario.duration, y);
        let troubles = self.story.troubles.iter().filter(|trouble| trouble.node == n);
        for trouble in troubles.cloned().collect::<Vec<_>>() {
            let class = match trouble.state {
                State::Down => "down",
                State::CutOff => "cut",
                State::MayNot => "barred",
            };
            self.bar(class, trouble.from, trouble.to, y);
        }
        for led in outcome.stretches.iter().filter(|it| it.election == e && it.node == n) {
            self.bar("lead", led.from, led.to, y);
        }
    }

    fn bar(&mut self, class: &str, from: Duration, to: Duration, y: f64) {
        let (x, end) = (self.x(from), self.x(to));
        let width = (end - x).max(0.8);
        let _ = writeln!(
            self.out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\"/>",
            y + 3.0,
            ROW - 6.0
        );
    }

    /// Where nobody led, once somebody had.
    fn gaps(&mut self, outcome: &Outcome, e: usize) {
        let mut last: Option<Duration> = None;
        let mut stretches = outcome.stretches.iter().filter(|it| it.election == e).peekable();
        let mut gaps = Vec::new();
        while let Some(led) = stretches.next() {
            last = Some(last.map_or(led.to, |last: Duration| last.max(led.to)));
            let next = stretches.peek().map_or(self.scenario.duration, |next| next.from);
            gaps.extend(last.filter(|last| *last < next).map(|last| (last, next)));
        }
        for (from, to) in gaps {
            let (x, end) = (self.x(from), self.x(to));
            let _ = writeln!(
                self.out,
                "<rect class=\"gap\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\"/>",
                self.y + 1.0,
                (end - x).max(0.8)
            );
        }
        self.y += 6.0;
    }

    fn figures(&mut self, outcome: &Outcome, e: usize, top: f64) {
        let Some(figures) = outcome.figures.get(e) else { return };
        let x = LEFT + WIDTH + 14.0;
        let changes = format!(
            "{} handed over, {} taken over, {} flaps",
            figures.handovers, figures.takeovers, figures.flaps
        );
        let lines = [
            format!("led {}", percent(figures.availability)),
            format!("{} gaps, the longest {}", figures.gaps, span(figures.longest_gap)),
            changes,
        ];
        for (at, line) in lines.iter().enumerate() {
            self.words("small", x, top + 15.0 + 17.0 * at as f64, line);
        }
    }

    /// A thin line at each thing that happens.
    fn marks(&mut self, top: f64, height: f64) {
        if self.story.happenings.len() > MOST_MARKS {
            return;
        }
        for happening in &self.story.happenings {
            let x = self.x(happening.at);
            let _ = writeln!(
                self.out,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"><title>{}</title></line>",
                top + height,
                escaped(&format!("{}: {}", span(happening.at), happening.words))
            );
        }
    }

    fn axis(&mut self) {
        let y = self.y + 6.0;
        let _ = writeln!(
            self.out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
            LEFT + WIDTH
        );
        let step = step(self.scenario.duration);
        let mut at = Duration::ZERO;
        while at <= self.scenario.duration {
            let x = self.x(at);
            let _ = writeln!(
                self.out,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\"/><text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                y + 5.0,
                y + 19.0,
                span(at)
            );
            at += step;
        }
        self.y = y;
    }

    fn words(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let _ = writeln!(
            self.out,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escaped(words)
        );
    }
}

/// A round span, such that a handful of them make the whole.
fn step(whole: Duration) -> Duration {
    const ROUND: [u64; 18] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400,
        604_800,
    ];
    let least = whole / TICKS;
    let round = ROUND.iter().map(|seconds| Duration::from_secs(*seconds));
    round.into_iter().find(|step| *step >= least).unwrap_or(whole)
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_round_times() {
        for (whole, expected) in
            [(60, 10), (600, 120), (3_600, 600), (86_400, 21_600), (604_800, 86_400)]
        {
            assert_eq!(step(Duration::from_secs(whole)), Duration::from_secs(expected), "{whole}");
        }
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escaped("<a & \"b\">\u{1b}"), "&lt;a &amp; &quot;b&quot;&gt; ");
    }
}

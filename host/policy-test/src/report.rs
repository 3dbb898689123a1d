//! What became of the cases: for people as text, for programs through serde.

use std::fmt::{self, Write as _};
use std::time::Duration;

use conclave_yaml::Place;
use serde::{Serialize, Serializer};

use crate::diff::{Line, Side};

/// What became of some suites.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How much fuel one call may use.
    pub fuel_limit: u64,
    /// The seed of the generated views.
    pub seed: u64,
    /// The suites, in the order in which they were given.
    pub suites: Vec<SuiteReport>,
}

/// What became of one file.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteReport {
    /// The file.
    pub file: String,
    /// The policy's name.
    pub policy: String,
    /// The digest of its component.
    pub digest: String,
    /// The cases that were run.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The function that was asked.
    pub function: &'static str,
    /// Where it stands; nothing for what was asked about generated views.
    #[serde(flatten)]
    pub at: Option<At>,
    /// How many generated views were asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<u32>,
    /// How often the policy refused to answer about them, which it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u32>,
    /// Whether everything was as expected.
    pub passed: bool,
    /// The most fuel that one call used.
    pub fuel: u64,
    /// The time in the sandbox.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What was not as expected.
    pub failures: Vec<Failure>,
    /// What the policy logged, a line each.
    pub log: Vec<String>,
}

/// A place in the suite's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct At {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

impl At {
    pub(crate) fn of(place: Option<&Place>) -> Option<Self> {
        match place? {
            Place::File { line, column, .. } => Some(At { line: *line, column: *column }),
            Place::Flag(_) => None,
        }
    }
}

/// One thing that is not as expected.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// What it is.
    pub what: String,
    /// Where the expectation stands.
    #[serde(flatten)]
    pub at: Option<At>,
    /// What was expected beside what was found.
    pub diff: Vec<Line>,
    /// A case to paste that shows it, where a generated view found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, at: Option<At>) -> Self {
        Failure { what: what.into(), at, diff: Vec::new(), case: None }
    }

    pub(crate) fn diff(self, diff: Vec<Line>) -> Self {
        Failure { diff, ..self }
    }
}

fn seconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

impl Report {
    /// The cases of all suites.
    pub fn cases(&self) -> impl Iterator<Item = &CaseReport> {
        self.suites.iter().flat_map(|suite| &suite.cases)
    }

    /// How many cases passed, and how many failed.
    pub fn count(&self) -> (usize, usize) {
        let passed = self.cases().filter(|case| case.passed).count();
        (passed, self.cases().count() - passed)
    }

    /// Whether every case passed.
    pub fn passed(&self) -> bool {
        self.count().1 == 0
    }

    /// As people read it. Colours are for terminals only.
    pub fn text(&self, colours: bool) -> String {
        let mut text = Text { out: String::new(), colours };
        for suite in &self.suites {
            text.suite(suite);
        }
        text.summary(self);
        text.out
    }
}

impl CaseReport {
    /// Why it failed, as people read it; nothing if it did not. `file` is the suite's.
    pub fn explanation(&self, file: &str) -> String {
        let mut text = Text { out: String::new(), colours: false };
        text.explanation(self, file, 0);
        text.out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}

/// A number with its thousands apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes of a case that somebody would still read.
const LONGEST: usize = 4_000;

const RED: &str = "31";
const GREEN: &str = "32";

struct Text {
    out: String,
    colours: bool,
}

impl Text {
    /// A line. Policies and files can say anything: what would move a cursor does not get through.
    fn line(&mut self, indent: usize, text: &str) {
        self.coloured(indent, text, None);
    }

    fn coloured(&mut self, indent: usize, text: &str, colour: Option<&str>) {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Writing into text does not fail.
        let _ = match colour.filter(|_| self.colours) {
            Some(colour) => writeln!(self.out, "{:indent$}\u{1b}[{colour}m{clean}\u{1b}[0m", ""),
            None => writeln!(self.out, "{:indent$}{clean}", ""),
        };
    }

    fn suite(&mut self, suite: &SuiteReport) {
        let digest = suite.digest.get(..12).unwrap_or_default();
        self.line(0, &format!("{}: policy {} ({digest})", suite.file, suite.policy));
        let width = suite.cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0);
        for case in &suite.cases {
            self.case(case, &suite.file, width);
        }
        self.out.push('\n');
    }

    fn case(&mut self, case: &CaseReport, file: &str, width: usize) {
        let (word, colour) = if case.passed { ("ok  ", GREEN) } else { ("FAIL", RED) };
        let fuel = thousands(case.fuel);
        let remark = match (case.views, case.refused) {
            (Some(views), Some(0)) => format!("  {views} views"),
            (Some(views), Some(refused)) => format!("  {views} views, {refused} refused"),
            _ => String::new(),
        };
        let line = format!("{word}  {:width$}  {fuel:>11} fuel{remark}", case.name);
        self.coloured(2, &line, Some(colour).filter(|_| !case.passed));
        self.explanation(case, file, 8);
    }

    /// Why a case failed.
    fn explanation(&mut self, case: &CaseReport, file: &str, indent: usize) {
        for failure in &case.failures {
            let at = failure.at.or(case.at).map(|at| format!("{file}:{}:{}: ", at.line, at.column));
            self.line(indent, &format!("{}{}", at.unwrap_or_default(), failure.what));
            for line in &failure.diff {
                let (sign, colour) = match line.side {
                    Side::Both => (' ', None),
                    Side::Expected => ('-', Some(RED)),
                    Side::Found => ('+', Some(GREEN)),
                };
                self.coloured(indent + 2, &format!("{sign} {}", line.text), colour);
            }
            match &failure.case {
                Some(case) if case.len() > LONGEST => self.line(
                    indent,
                    "the case that shows it is too long for here; --output json has it",
                ),
                Some(case) => {
                    self.line(indent, "as a case, to paste under `cases`:");
                    case.lines().for_each(|line| self.line(0, line));
                }
                None => {}
            }
        }
        if !case.passed && !case.log.is_empty() {
            self.line(indent, "the policy logged:");
            case.log.iter().for_each(|line| self.line(indent + 2, line));
        }
    }

    fn summary(&mut self, report: &Report) {
        let (passed, failed) = report.count();
        let most = report.cases().map(|case| case.fuel).max().unwrap_or(0);
        let line = format!(
            "{passed} passed, {failed} failed; a call used {} of {} fuel at most",
            thousands(most),
            thousands(report.fuel_limit)
        );
        self.coloured(0, &line, Some(if failed == 0 { GREEN } else { RED }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let texts = [0, 999, 1_000, 12_345, 100_000_000].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "100,000,000"]);
    }
}

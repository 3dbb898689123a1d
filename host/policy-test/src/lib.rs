//! Unit tests of policies: readable cases in YAML, run in the sandbox that runs the policy later.
//!
//! ```text
//! tests/*.yaml ──> Suite: what is asked, what is expected ──> Tester ──> Report
//!   raw, build, expect: mistakes with line and hint     run, judge └ conclave_policy's sandbox
//!                                              properties: what every policy must meet, on the
//!                                              cases' views and on generated ones (every)
//! ```
//!
//! A case says what differs from an ordinary view, and what it expects of the answer:
//!
//! ```yaml
//! policy: ../my-policy.wasm        # or a built-in one: cold-standby
//! config: {prefer: [b]}            # of every case that has none of its own
//! cases:
//!   - name: a preferred node leads after a vacancy
//!     rank: {candidates: 3}        # a, b and c, ordinary in every way
//!     expect: {first: b, reasons: {b: number 1}}
//! ```
//!
//! `conclave policy test` runs them from the command line. A project's own tests do so too:
//!
//! ```no_run
//! #[test]
//! fn the_cases_hold() {
//!     conclave_policy_test::assert_cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"));
//! }
//! ```

mod bench;
mod build;
mod case;
mod diff;
mod every;
mod expect;
mod generate;
mod judge;
mod log;
mod paste;
mod properties;
mod random;
mod raw;
mod report;
mod run;
mod shrink;
mod suite;

use std::path::Path;

pub use bench::{Benchmark, Cost, Figures, Measured, bench};
pub use case::{Case, Expectation, Expected, Question};
pub use diff::{Line, Side, difference};
pub use report::{At, CaseReport, Failure, Report, SuiteReport, thousands};
pub use run::{Options, Tester, load};
pub use suite::{PolicySource, Suite, find};

/// Runs every case file of a directory, or one file, for a project's own tests.
///
/// # Panics
///
/// With what a person needs to read, where a case fails, a file has a mistake, or there is none.
pub fn assert_cases(path: impl AsRef<Path>) {
    let path = path.as_ref();
    let files = find(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!files.is_empty(), "there is no case file in {}", path.display());
    let read = |file: &std::path::PathBuf| {
        Suite::read(file, None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    };
    let suites: Vec<Suite> = files.iter().map(read).collect();
    let tester = Tester::new(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    match tester.run(&suites) {
        Ok(report) => assert!(report.passed(), "\n{report}"),
        Err(problems) => {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", texts.join("\n\n"))
        }
    }
}

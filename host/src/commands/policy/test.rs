//! `conclave policy test`: runs a policy's test cases, and tells of them.

use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use conclave_policy_test::{Options, PolicySource, Report, Suite, Tester, find};

use super::{announce, cache, junit};
use crate::cli::{PolicyTest, TestOutput, exit};
use crate::commands::{Usage, say};
use crate::terminal::takes_colours;

/// What a first case file may look like.
const EXAMPLE: &str = "a case file is, for instance, tests/cases.yaml:\n
    policy: ../my-policy.wasm
    cases:
      - name: leadership stays where it is
        rank: {candidates: 3, leader: b}
        expect: {first: b}";

pub(in crate::commands) fn test(arguments: &PolicyTest) -> Result<u8> {
    let files = files(&arguments.paths)?;
    let policy = arguments.policy.as_ref().map(|text| PolicySource::new(text, Path::new("")));
    let (suites, mistakes): (Vec<_>, Vec<_>) =
        files.iter().map(|file| Suite::read(file, policy.clone())).partition(Result::is_ok);
    let mistakes: Vec<_> = mistakes.into_iter().filter_map(Result::err).collect();
    if !mistakes.is_empty() {
        mistakes.iter().for_each(|mistakes| say(&format!("{mistakes}\n")));
        return Ok(exit::USAGE);
    }
    let suites: Vec<Suite> = suites.into_iter().filter_map(Result::ok).collect();
    announce(suites.iter().map(|suite| &suite.policy));
    let options = Options {
        cache: cache(),
        only: arguments.run.clone(),
        views: arguments.views,
        seed: arguments.seed,
        ..Options::default()
    };
    let tester = Tester::new(options).context("cannot set the sandbox up")?;
    let report = match tester.run(&suites) {
        Ok(report) => report,
        Err(problems) => {
            problems.iter().for_each(|problem| say(&format!("{problem}\n")));
            return Ok(exit::USAGE);
        }
    };
    if report.cases().next().is_none() {
        let pattern = arguments.run.as_deref().unwrap_or_default();
        return Err(Usage(anyhow!("no case has `{pattern}` in its name")).into());
    }
    print(&report, arguments.output)?;
    Ok(if report.passed() { exit::SUCCESS } else { exit::FAILURE })
}

/// The case files that the paths stand for, each once.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let found =
            find(path).with_context(|| format!("cannot read {}", path.display())).map_err(Usage)?;
        if found.is_empty() {
            let message = format!("there is no *.yaml in {0}/tests, nor in {0}", path.display());
            return Err(Usage(anyhow!("{message}; {EXAMPLE}")).into());
        }
        files.extend(found.into_iter().filter(|file| !files.contains(file)).collect::<Vec<_>>());
    }
    Ok(files)
}

fn print(report: &Report, output: TestOutput) -> Result<()> {
    match output {
        TestOutput::Table => print!("{}", report.text(takes_colours(&stdout()))),
        TestOutput::Junit => print!("{}", junit::document(report)),
        TestOutput::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}

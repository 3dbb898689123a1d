//! Asks a policy about generated views what every policy must meet.

use std::collections::BTreeSet;

use conclave_policy::{Function, Policy};

use crate::case::Question;
use crate::generate::{Generator, Words};
use crate::log;
use crate::paste::{self, Beside};
use crate::properties::{Asked, Broken, Checker, Configured, Met, interface};
use crate::report::{CaseReport, Failure};
use crate::run::{Options, Spent};
use crate::shrink::shrink;
use crate::suite::Suite;

/// Making a failing view simpler may cost so many times the fuel of one call.
const SHRINKING: u64 = 20;

/// The questions that are generated.
const FUNCTIONS: [Function; 3] = [Function::Rank, Function::Place, Function::Describe];

/// Asks about generated views, in turn with each configuration that a suite's cases mean to work.
pub(crate) fn run(policy: &Policy, suite: &Suite, options: &Options) -> Vec<CaseReport> {
    let configs: Vec<Configured<'_>> =
        configs(suite).into_iter().map(|config| Configured { policy, config }).collect();
    let asked: Vec<(&dyn Asked, Option<&str>)> = configs
        .iter()
        .map(|asked| (asked as &dyn Asked, Some(asked.config).filter(|own| *own != suite.config)))
        .collect();
    let words = Words::of(suite);
    let mut reports = Vec::new();
    for function in FUNCTIONS {
        let name = format!("{function} over generated views");
        let wanted = options.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
        if options.views == 0 || !wanted || !policy.interfaces().contains(&interface(function)) {
            continue;
        }
        let mut generator = Generator::new(options.seed, &words);
        let (report, log) = log::heard(|| every(&asked, function, &mut generator, options));
        // Views that are answered well log a lot that nobody asked for.
        let log = if report.passed { Vec::new() } else { last(log) };
        reports.push(CaseReport { name, log, ..report });
    }
    reports
}

/// The configurations under which cases expect answers.
fn configs(suite: &Suite) -> BTreeSet<&str> {
    let asked = suite
        .cases
        .iter()
        .filter(|case| !case.expects_refusal() && !matches!(case.question, Question::Validate));
    asked.map(|case| case.config.as_str()).chain([suite.config.as_str()]).collect()
}

/// So many of the last lines of a log are shown.
const LAST: usize = 5;

fn last(mut log: Vec<String>) -> Vec<String> {
    log.dedup();
    log.split_off(log.len().saturating_sub(LAST))
}

fn generate(generator: &mut Generator, function: Function) -> Question {
    match function {
        Function::Place => generator.place(),
        Function::Describe => generator.describe(),
        _ => generator.rank(),
    }
}

/// Asks so many questions, in turn of each that is `asked`, whose configuration a case has to name.
fn every(
    asked: &[(&dyn Asked, Option<&str>)],
    function: Function,
    generator: &mut Generator,
    options: &Options,
) -> CaseReport {
    let mut spent = Spent::default();
    let (mut views, mut refused) = (0, 0);
    let mut failures = Vec::new();
    for (number, (asked, config)) in (1..=options.views).zip(asked.iter().cycle()) {
        let question = generate(generator, function);
        let mut checker = Checker::new(*asked, options.limits.fuel);
        views = number;
        match checker.check(&question) {
            Ok(Met::Answered) => {}
            Ok(Met::Refused) => refused += 1,
            Err(broken) => {
                let (question, broken) = simplest(&mut checker, question, broken);
                let name = format!("{function} view {number} of seed {}", options.seed);
                failures.push(failure(&question, &broken, &name, *config));
            }
        }
        spent.join(&checker.spent);
        if !failures.is_empty() {
            break;
        }
    }
    CaseReport {
        name: String::new(),
        function: function.name(),
        at: None,
        views: Some(views),
        refused: Some(refused),
        passed: failures.is_empty(),
        fuel: spent.fuel,
        elapsed: spent.elapsed,
        failures,
        log: Vec::new(),
    }
}

/// The simplest question found that breaks the same property, within a budget of fuel.
fn simplest(checker: &mut Checker<'_>, question: Question, broken: Broken) -> (Question, Broken) {
    if broken.slow {
        return (question, broken);
    }
    let mut left = checker.fuel_limit.saturating_mul(SHRINKING);
    let mut found = broken;
    let simplest = shrink(question, |simpler| {
        if left == 0 {
            return false;
        }
        let before = checker.spent.total;
        let result = checker.check(simpler);
        left = left.saturating_sub(checker.spent.total - before);
        match result {
            Err(broken) if broken.property == found.property && !broken.slow => {
                found = broken;
                true
            }
            _ => false,
        }
    });
    (simplest, found)
}

fn failure(question: &Question, broken: &Broken, name: &str, config: Option<&str>) -> Failure {
    let leads = broken.leads.as_ref().map(|node| ("leads", node.as_str()));
    let shown = broken.shown_by.as_deref().unwrap_or(question);
    let case = paste::case(shown, &Beside { name, config, expect: leads });
    Failure { case: Some(case), ..Failure::new(broken.what.clone(), None) }
}

#[cfg(test)]
mod tests;

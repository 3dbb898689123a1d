//! Runs cases in the policy host's sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_core::NodeName;
use conclave_core::view::{ManifestView, NodeView, View};
use conclave_policy::{
    Answer, Cause, HostError, Limits, LoadError, Policy, PolicyError, PolicyHost, Usage, Wanted,
};
use conclave_yaml::{Problem, Problems};

use crate::build;
use crate::case::{Case, Expectation, Expected, Question, role};
use crate::diff::{Item, diff};
use crate::every;
use crate::judge::{Asked, Found, judge};
use crate::log;
use crate::properties::{Checker, Configured, interface};
use crate::report::{At, CaseReport, Failure, Report, SuiteReport, thousands};
use crate::suite::{PolicySource, Suite};

/// The wall-clock backstop of a call here: fuel, whose verdict is the same on every machine, is to
/// decide, and not how busy this one is.
const DEADLINE: Duration = Duration::from_secs(2);

/// How to test.
#[derive(Clone, Debug)]
pub struct Options {
    /// What one call may use.
    pub limits: Limits,
    /// Where compiled components are kept, in a directory that only this user may enter.
    pub cache: Option<PathBuf>,
    /// Only cases whose name contains this text.
    pub only: Option<String>,
    /// About how many generated views a policy is asked what every policy must meet.
    pub views: u32,
    /// The seed of these: the same one gives the same views.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits { deadline: DEADLINE, ..Limits::default() };
        Options { limits, cache: None, only: None, views: 200, seed: 1 }
    }
}

/// Runs suites.
pub struct Tester {
    host: PolicyHost,
    options: Options,
}

impl Tester {
    /// Sets the sandbox up.
    ///
    /// # Errors
    ///
    /// When this machine has none to offer.
    pub fn new(options: Options) -> Result<Self, HostError> {
        let host = PolicyHost::new(options.limits.clone(), options.cache.clone())?;
        Ok(Tester { host, options })
    }

    /// Runs the cases of some suites. What is in a report went well or not; an error says that
    /// nothing was run.
    ///
    /// # Errors
    ///
    /// The policies that cannot be loaded, with the files that name them.
    pub fn run(&self, suites: &[Suite]) -> Result<Report, Vec<Problems>> {
        let mut policies: BTreeMap<&PolicySource, Result<Policy, String>> = BTreeMap::new();
        let mut problems = Vec::new();
        for suite in suites {
            let loaded =
                policies.entry(&suite.policy).or_insert_with(|| load(&self.host, &suite.policy));
            if let Err(message) = loaded {
                let problem = Problem::new(suite.policy_place.clone(), message.clone());
                let help = "build the component, or name another one here or with --policy";
                problems.push(Problems::from(problem.help(help)));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let run = |suite: &Suite| match &policies[&suite.policy] {
            Ok(policy) => Some(self.suite(suite, policy)),
            Err(_) => None,
        };
        Ok(Report {
            fuel_limit: self.options.limits.fuel,
            seed: self.options.seed,
            suites: suites.iter().filter_map(run).collect(),
        })
    }

    fn suite(&self, suite: &Suite, policy: &Policy) -> SuiteReport {
        let wanted = |case: &&Case| {
            self.options.only.as_ref().is_none_or(|text| case.name.contains(text.as_str()))
        };
        let cases = suite.cases.iter().filter(wanted).map(|case| run(policy, case));
        SuiteReport {
            file: suite.file.display().to_string(),
            policy: policy.name().to_owned(),
            digest: policy.digest().to_string(),
            cases: cases.chain(every::run(policy, suite, &self.options)).collect(),
        }
    }
}

/// Loads a policy; a component is named after its file.
///
/// # Errors
///
/// Why it is no usable policy, in words that name it.
pub fn load(host: &PolicyHost, source: &PolicySource) -> Result<Policy, String> {
    match source {
        PolicySource::BuiltIn(name) => {
            let wanted = BTreeSet::from([name.clone()]);
            let directory = host.load_directory(None, Wanted::Only(&wanted));
            let directory = directory.map_err(|error| chain(&error))?;
            directory.get(name).cloned().map_err(|error| chain(&error))
        }
        PolicySource::File(path) => load_file(host, path)
            .map_err(|error| format!("{} is no usable policy: {}", path.display(), chain(&error))),
    }
}

fn load_file(host: &PolicyHost, path: &Path) -> Result<Policy, LoadError> {
    let metadata = fs::metadata(path).map_err(LoadError::Read)?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile);
    }
    let bytes = fs::read(path).map_err(LoadError::Read)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    host.load(&name, &bytes)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What calls spent together: the most fuel of one, that of all, and their time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) fuel: u64,
    pub(crate) total: u64,
    pub(crate) elapsed: Duration,
}

impl Spent {
    pub(crate) fn add(&mut self, usage: Usage) {
        self.fuel = self.fuel.max(usage.fuel);
        self.total = self.total.saturating_add(usage.fuel);
        self.elapsed += usage.elapsed;
    }

    pub(crate) fn join(&mut self, other: &Spent) {
        self.fuel = self.fuel.max(other.fuel);
        self.total = self.total.saturating_add(other.total);
        self.elapsed += other.elapsed;
    }
}

fn run(policy: &Policy, case: &Case) -> CaseReport {
    let mut spent = Spent::default();
    let (failures, log) = log::heard(|| failures(policy, case, &mut spent));
    CaseReport {
        name: case.name.clone(),
        function: case.question.function().name(),
        at: At::of(case.place.as_ref()),
        views: None,
        refused: None,
        passed: failures.is_empty(),
        fuel: spent.fuel,
        elapsed: spent.elapsed,
        failures,
        log,
    }
}

fn failures(policy: &Policy, case: &Case, spent: &mut Spent) -> Vec<Failure> {
    let found = match ask(policy, case, spent) {
        Ok(found) => found,
        Err(error) => return unanswered(policy, case, &error).into_iter().collect(),
    };
    let asked = match &case.question {
        Question::Rank(view) => Asked::Rank(view),
        Question::Place { manifests, .. } => Asked::Place(manifests),
        Question::Describe { .. } | Question::Validate => Asked::Other,
    };
    let failure = |expected: &Expected| {
        let at = At::of(expected.place.as_ref());
        if let Expectation::Refused(_) = expected.what {
            return Some(Failure::new("it answered, and was expected to refuse", at));
        }
        let difference = judge(&expected.what, &found, &asked)?;
        Some(Failure::new(difference.what, at).diff(difference.lines))
    };
    let mut failures: Vec<Failure> = case.expected.iter().filter_map(failure).collect();
    failures.extend(unmet(policy, case, spent));
    failures
}

/// What every policy must meet and this one does not, on the case's own question.
fn unmet(policy: &Policy, case: &Case, spent: &mut Spent) -> Option<Failure> {
    let asked = Configured { policy, config: &case.config };
    let exported = policy.interfaces().contains(&interface(case.question.function()));
    if case.expects_refusal() || !exported {
        return None;
    }
    let mut checker = Checker::new(&asked, policy.limits().fuel);
    let broken = checker.check(&case.question).err();
    spent.join(&checker.spent);
    Some(Failure::new(broken?.what, None))
}

/// What is wrong with there being no answer; nothing where a refusal was expected.
fn unanswered(policy: &Policy, case: &Case, error: &PolicyError) -> Option<Failure> {
    let refused = match &*error.cause {
        Cause::Refused(refusal) => Some(refusal.to_string()),
        _ => None,
    };
    let expected = case.expected.iter().find_map(|expected| match &expected.what {
        Expectation::Refused(text) => Some((text, At::of(expected.place.as_ref()))),
        _ => None,
    });
    match (refused, expected) {
        (Some(words), Some((text, _))) if words.contains(text.as_str()) => None,
        (Some(words), Some((text, at))) => {
            let diff = diff(&[format!("…{text}…")], &[Item::new(words, "")]);
            Some(Failure::new("it refused in other words", at).diff(diff))
        }
        _ => Some(Failure::new(words(error, policy.limits().fuel), None)),
    }
}

/// Why there is no usable answer, and what the call spent.
pub(crate) fn words(error: &PolicyError, limit: u64) -> String {
    let (used, limit) = (thousands(error.usage.fuel), thousands(limit));
    format!("{} (fuel: {used} of {limit})", chain(error))
}

fn ask(policy: &Policy, case: &Case, spent: &mut Spent) -> Result<Found, PolicyError> {
    let config = &case.config;
    match &case.question {
        Question::Rank(view) => take(policy.rank(view, config), spent).map(Found::Ranks),
        Question::Place { view, nodes, manifests } => {
            place(policy, view, nodes, manifests, config, spent)
        }
        Question::Describe { election, node, manifests } => {
            take(policy.describe(election, node, manifests, config), spent).map(Found::Facts)
        }
        Question::Validate => {
            let election = build::ELECTION.into();
            take(policy.validate(&election, config), spent).map(Found::Problems)
        }
    }
}

/// Takes an answer, and notes what it or its failure spent.
pub(crate) fn take<T>(
    answer: Result<Answer<T>, PolicyError>,
    spent: &mut Spent,
) -> Result<T, PolicyError> {
    match answer {
        Ok(answer) => {
            spent.add(answer.usage);
            Ok(answer.value)
        }
        Err(error) => {
            spent.add(*error.usage);
            Err(error)
        }
    }
}

fn place(
    policy: &Policy,
    view: &View,
    nodes: &[NodeView],
    manifests: &[ManifestView],
    config: &str,
    spent: &mut Spent,
) -> Result<Found, PolicyError> {
    let mut placed = BTreeMap::new();
    for node in nodes {
        let seen = View { me: node.name.clone(), ..view.clone() };
        let answer = policy.place(&seen, node, role(view, &node.name), manifests, config);
        placed.insert(NodeName::clone(&node.name), take(answer, spent)?);
    }
    Ok(Found::Placements(placed))
}

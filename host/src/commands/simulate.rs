//! `conclave simulate SCENARIO`: what would happen.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context as _, Result, anyhow};
use conclave_policy::{Limits, PolicyHost};
use conclave_policy_test::{Options, load};
use serde::Serialize;

use crate::cli::{Output, Simulate, exit};
use crate::commands::{Usage, policy, say};
use crate::simulate::{self, Outcome, Scenario, Story};

#[derive(Debug, Serialize)]
struct Report<'a> {
    seed: u64,
    nodes: Vec<&'a str>,
    elections: &'a [String],
    seconds: f64,
    outcomes: &'a [Outcome],
}

pub(super) fn simulate(wanted: &Simulate) -> Result<u8> {
    let mut scenario = Scenario::read(&wanted.scenario)?;
    scenario.seed = wanted.seed.unwrap_or(scenario.seed);
    let story = Story::of(&scenario);
    // Fuel decides, whose verdict is the same on every machine, not how busy this one is.
    let limits =
        Limits { deadline: std::time::Duration::from_secs(60), ..Options::default().limits };
    let host = PolicyHost::new(limits, policy::cache()).context("cannot set the sandbox up")?;
    let mut outcomes = Vec::new();
    for choice in &scenario.policies {
        let policy = load(&host, &choice.source).map_err(|words| Usage(anyhow!(words)))?;
        let election = scenario.elections[0].as_str().into();
        let checked = policy.validate(&election, &choice.config);
        let problems = checked.map_err(|error| Usage(error.into()))?.value;
        if let Some(problem) = problems.first() {
            let message = format!("policy {}: {}: {}", choice.name, problem.path, problem.message);
            return Err(Usage(anyhow!(message)).into());
        }
        // The judge ends a play in which a promise is broken, with the seed and what it saw.
        let played =
            catch_unwind(AssertUnwindSafe(|| simulate::play(&scenario, &story, choice, policy)));
        outcomes.push(played.map_err(|_| {
            anyhow!(
                "with {} and seed {} a promise of the protocol was broken, as said above: this is a defect, please report it with the scenario",
                choice.name,
                scenario.seed
            )
        })?);
    }
    for outcome in &outcomes {
        if let Some(reason) = &outcome.asked.failure {
            let (policy, times) = (&outcome.policy, outcome.asked.failures);
            say(&format!(
                "warning: {policy} gave no answer {times} times, the last because {reason}"
            ));
        }
    }
    if let Some(file) = &wanted.svg {
        fs::write(file, simulate::svg(&scenario, &story, &outcomes))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match wanted.output {
        Output::Table => print!("{}", simulate::text(&scenario, &story, &outcomes)),
        Output::Json => {
            let report = Report {
                seed: scenario.seed,
                nodes: scenario.nodes.iter().map(|(name, _)| name.as_str()).collect(),
                elections: &scenario.elections,
                seconds: scenario.duration.as_secs_f64(),
                outcomes: &outcomes,
            };
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
    }
    Ok(exit::SUCCESS)
}

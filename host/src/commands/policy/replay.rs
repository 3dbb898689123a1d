//! `conclave policy replay LOG --policy FILE`: asks a policy what another was asked, and shows where it
//! decides otherwise.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use conclave_policy::{Policy, PolicyHost};
use conclave_policy_test::{Line, Options, PolicySource, Side, difference, load, thousands};
use serde::Serialize;

use super::{announce, cache, printable};
use crate::cli::{Output, Replay, exit};
use crate::commands::Usage;
use crate::daemon::answer;
use crate::decisions::{self, Answer, Decision};

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    policy: String,
    digest: String,
    /// How many decisions were asked again, and what became of them.
    decisions: usize,
    same: usize,
    different: usize,
    /// Of those, how many this policy did not answer although the other did.
    failed: usize,
    /// All fuel that was spent then and is spent now.
    fuel_then: u64,
    fuel_now: u64,
    differences: Vec<Difference>,
}

/// A decision that is another now.
#[derive(Debug, Serialize)]
struct Difference {
    at_unix_ms: u64,
    election: String,
    function: &'static str,
    /// Who decided then.
    then: String,
    lines: Vec<Line>,
    /// How many decisions in a row of this election differ so.
    times: usize,
}

impl Difference {
    fn is_like(&self, other: &Difference) -> bool {
        let of = |it: &Difference| (it.election.clone(), it.function, it.then.clone());
        of(self) == of(other) && self.lines == other.lines
    }
}

pub(in crate::commands) fn replay(wanted: &Replay) -> Result<u8> {
    let all = decisions::read(&wanted.log).map_err(|error| Usage(error.into()))?;
    let chosen: Vec<&Decision> =
        all.iter().filter(|decision| is_wanted(decision, wanted)).collect();
    if chosen.is_empty() {
        let message = format!("no decision in {} is one of these", wanted.log.display());
        return Err(Usage(anyhow!(message)).into());
    }
    let config = match &wanted.config {
        None => None,
        Some(text) => {
            let value: serde_json::Value = serde_yaml::from_str(text)
                .context("--config is no YAML that a configuration could be")
                .map_err(Usage)?;
            Some(value.to_string())
        }
    };
    let host = PolicyHost::new(Options::default().limits, cache());
    let host = host.context("cannot set the sandbox up")?;
    let source = PolicySource::new(&wanted.policy, Path::new(""));
    announce([&source]);
    let policy = load(&host, &source).map_err(|words| Usage(anyhow!(words)))?;
    if let Some(config) = &config {
        let election = &chosen[0].election;
        let problems =
            policy.validate(election, config).map_err(|error| Usage(error.into()))?.value;
        if let Some(problem) = problems.first() {
            let message =
                format!("{}: --config{}: {}", policy.name(), problem.path, problem.message);
            return Err(Usage(anyhow!(message)).into());
        }
    }
    let report = compare(&policy, config.as_deref(), &chosen);
    match wanted.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", printable(&table(&report))),
    }
    Ok(if report.different == 0 { exit::SUCCESS } else { exit::FAILURE })
}

fn is_wanted(decision: &Decision, wanted: &Replay) -> bool {
    let election = wanted.election.as_deref();
    !decision.shadow && election.is_none_or(|name| decision.election.as_str() == name)
}

fn compare(policy: &Policy, config: Option<&str>, decisions: &[&Decision]) -> Report {
    let mut report = Report {
        policy: policy.name().to_owned(),
        digest: policy.digest().to_string(),
        decisions: decisions.len(),
        same: 0,
        different: 0,
        failed: 0,
        fuel_then: 0,
        fuel_now: 0,
        differences: Vec::new(),
    };
    for decision in decisions {
        let (answer, spent) = answer(policy, config.unwrap_or(&decision.config), decision);
        report.fuel_then += decision.cost.fuel;
        report.fuel_now += spent.fuel;
        if decision.answer.agrees(&answer) {
            report.same += 1;
            continue;
        }
        report.different += 1;
        report.failed += usize::from(matches!(answer, Answer::Failed(_)));
        let found = answer.lines().into_iter().zip(answer.remarks());
        let found = Difference {
            at_unix_ms: decision.at_unix_ms,
            election: decision.election.to_string(),
            function: decision.question.function(),
            then: decision.policy.clone(),
            lines: difference(&decision.answer.lines(), found),
            times: 1,
        };
        // Durations move on, and the same is asked again: one that is like the last needs no saying.
        let mut before = report.differences.iter_mut().rev();
        match before
            .find(|before| before.election == found.election && before.function == found.function)
        {
            Some(last) if last.is_like(&found) => last.times += 1,
            _ => report.differences.push(found),
        }
    }
    report
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    for it in &report.differences {
        let at = UNIX_EPOCH + Duration::from_millis(it.at_unix_ms);
        let at = humantime::format_rfc3339_millis(at);
        // Writing to a string does not fail.
        let times =
            if it.times > 1 { format!(", and {} times more", it.times - 1) } else { String::new() };
        let _ = writeln!(out, "{at}  {}: {}, by {} then{times}", it.election, it.function, it.then);
        for line in &it.lines {
            let mark = match line.side {
                Side::Both => ' ',
                Side::Expected => '-',
                Side::Found => '+',
            };
            let _ = writeln!(out, "    {mark} {}", line.text);
        }
        out.push('\n');
    }
    let Report { policy, decisions, same, different, failed, .. } = report;
    let _ = writeln!(
        out,
        "{policy} decides {same} of {decisions} decisions in the same way, {different} otherwise{}",
        if *failed > 0 { format!("; of those it does not answer {failed}") } else { String::new() }
    );
    let (then, now) = (thousands(report.fuel_then), thousands(report.fuel_now));
    let _ = writeln!(out, "fuel: {then} then, {now} now");
    out
}

//! `conclave policy bench FILE`: what a policy's decisions cost.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use conclave_policy::{Limits, PolicyHost};
use conclave_policy_test::{Benchmark, Cost, Measured, Options, PolicySource, load, thousands};
use serde::Serialize;

use super::{announce, cache, printable};
use crate::cli::{Output, PolicyBench, exit};
use crate::commands::Usage;

/// How long the calls of one kind go on.
const LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
struct Report {
    policy: String,
    digest: String,
    fuel_limit: u64,
    costs: Vec<Cost>,
}

pub(in crate::commands) fn bench(wanted: &PolicyBench) -> Result<u8> {
    let config: serde_json::Value = serde_yaml::from_str(&wanted.config)
        .context("--config is no YAML that a configuration could be")
        .map_err(Usage)?;
    let default = Options::default().limits;
    let limits = Limits { fuel: wanted.fuel.unwrap_or(default.fuel), ..default };
    let host = PolicyHost::new(limits.clone(), cache()).context("cannot set the sandbox up")?;
    let source = PolicySource::new(&wanted.policy, Path::new(""));
    announce([&source]);
    let policy = load(&host, &source).map_err(|words| Usage(anyhow!(words)))?;
    let benchmark = Benchmark {
        candidates: wanted.candidates.iter().map(|number| *number as usize).collect(),
        calls: wanted.calls as usize,
        limit: LIMIT,
        config: config.to_string(),
    };
    let report = Report {
        policy: policy.name().to_owned(),
        digest: policy.digest().to_string(),
        fuel_limit: limits.fuel,
        costs: conclave_policy_test::bench(&policy, &benchmark),
    };
    match wanted.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", printable(&table(&report))),
    }
    let failed = report.costs.iter().any(|cost| matches!(cost.measured, Measured::Failed(_)));
    Ok(if failed { exit::FAILURE } else { exit::SUCCESS })
}

fn table(report: &Report) -> String {
    let mut out = format!(
        "{}, sha256:{}\n\n{:<9}{:>11}{:>10}{:>10}{:>10}{:>10}{:>13}{:>10}{:>8}\n",
        report.policy,
        report.digest,
        "function",
        "candidates",
        "median",
        "p90",
        "p99",
        "most",
        "fuel",
        "memory",
        "calls"
    );
    for cost in &report.costs {
        let _ = match &cost.measured {
            Measured::Spent(spent) => writeln!(
                out,
                "{:<9}{:>11}{:>10}{:>10}{:>10}{:>10}{:>13}{:>10}{:>8}",
                cost.function,
                cost.candidates,
                time(spent.median),
                time(spent.p90),
                time(spent.p99),
                time(spent.most),
                thousands(spent.fuel),
                format!("{} KiB", spent.memory >> 10),
                spent.calls,
            ),
            Measured::Failed(words) => {
                writeln!(out, "{:<9}{:>11}  {words}", cost.function, cost.candidates)
            }
        };
    }
    let _ = writeln!(out, "\na call may use {} fuel", thousands(report.fuel_limit));
    out
}

/// Three digits are more than two runs agree on.
fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    let (value, unit) = if us < 1e3 { (us, "µs") } else { (us / 1e3, "ms") };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let times = [800, 9_876, 12_345, 123_456, 1_234_567, 98_765_432];
        let shown = times.map(|ns| time(Duration::from_nanos(ns)));
        assert_eq!(shown, ["0.80 µs", "9.88 µs", "12.3 µs", "123 µs", "1.23 ms", "98.8 ms"]);
    }
}

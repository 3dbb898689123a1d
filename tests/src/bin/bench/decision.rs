//! One decision by a policy: too quick to be seen from outside, so the policy host's own example
//! `decision_cost` measures it, and is read here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::figure::{Figure, Statistic, Unit};

/// The example's name.
const EXAMPLE: &str = "decision_cost";

/// What its line about ten candidates begins with, word by word.
const LINE: [&str; 4] = ["rank", "10", "candidates:", "median"];

/// A ranking of ten candidates, each in a fresh sandbox, from the view to the checked answer. A
/// sample is the median of thousands of decisions in one run of the example.
///
/// # Errors
///
/// When the example does not build or run, or says something else than it should.
pub(crate) fn decision(runs: usize) -> Result<Vec<Figure>> {
    let example = build()?;
    let (mut medians, mut worst_p99) = (Vec::new(), 0.0_f64);
    for _ in 0..runs {
        let output = Command::new(&example).output().context("run decision_cost")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (median, p99) = read(&said).with_context(|| format!("{EXAMPLE} said:\n{said}"))?;
        medians.push(median);
        worst_p99 = worst_p99.max(p99);
    }
    let what = "one decision over 10 candidates, fresh sandbox";
    let figure = Figure::new("decision", what, Unit::Microseconds, medians)
        .aiming(Statistic::Median, 15.0)
        .made_of(vec![("p99 within a run, the worst run's".to_owned(), worst_p99)]);
    Ok(vec![figure])
}

/// Builds the example as the binary under test is built, and returns its path.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = if cfg!(debug_assertions) { "--profile=dev" } else { "--profile=release" };
    let output = Command::new(cargo)
        .args(["build", "--workspace", "--example", EXAMPLE, "--message-format=json", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == EXAMPLE)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no example")
}

/// The median and the 99th percentile of a decision over ten candidates, in microseconds.
fn read(said: &str) -> Result<(f64, f64)> {
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = lines.into_iter().find(|words| words.starts_with(&LINE));
    let words = words.context("no line about 10 candidates")?;
    match words[LINE.len()..] {
        [median, "p99", high, ..] => Ok((microseconds(median)?, microseconds(high)?)),
        _ => anyhow::bail!("an unknown line about 10 candidates"),
    }
}

/// A time as Rust prints durations for debugging, perhaps with a comma after it.
fn microseconds(word: &str) -> Result<f64> {
    let word = word.trim_end_matches(',');
    let unit = word.find(|c: char| c != '.' && !c.is_ascii_digit()).context("no unit")?;
    let scale = match &word[unit..] {
        "ns" => 1e-3,
        "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => anyhow::bail!("unknown unit {other:?}"),
    };
    Ok(word[..unit].parse::<f64>()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_and_its_units() {
        let said = "sandbox ready 1.0ms\n\
            rank     3 candidates: median     4.1µs, p99     5.0µs, fuel 1\n\
            rank    10 candidates: median   900.0ns, p99     1.5ms, fuel 2\n\
            rank   100 candidates: median    40.0µs, p99    50.0µs, fuel 3\n";
        let (median, p99) = read(said).unwrap();
        assert!((median - 0.9).abs() < 1e-9, "{median}");
        assert!((p99 - 1500.0).abs() < 1e-9, "{p99}");
    }

    #[test]
    fn says_what_is_not_there() {
        for said in ["", "rank 10 candidates: median", "rank 10 candidates: median 3, p99 4µs"] {
            assert!(read(said).is_err(), "{said:?}");
        }
    }
}

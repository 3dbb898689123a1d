//! One decision by a policy: too quick to be seen from outside, so the policy host's own example
//! `decision_cost` measures it, and is read here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::figure::{Figure, Statistic, Unit};

/// The example's name.
const EXAMPLE: &str = "decision_cost";

/// How many candidates decide the aim.
const CANDIDATES: &str = "10";

/// What is known of them: the figure's name, what the example calls it, and whether it has an aim.
const KINDS: [(&str, &str, bool); 2] = [
    ("decision", "with two labels and a fact each", true),
    ("decision-names", "with names only", false),
];

/// The aim, in microseconds.
const AIM_US: f64 = 15.0;

/// The aim for loading, in milliseconds.
const LOAD_AIM_MS: f64 = 10.0;

/// A ranking of ten candidates, each in a fresh sandbox, from the view to the checked answer. A
/// sample is the median of thousands of decisions in one run of the example.
///
/// # Errors
///
/// When the example does not build or run, or says something else than it should.
pub(crate) fn decision(runs: usize) -> Result<Vec<Figure>> {
    let example = build()?;
    let said = (0..runs).map(|_| run(&example, None)).collect::<Result<Vec<_>>>()?;
    let decisions = KINDS.iter().map(|(name, kind, aims)| figure(name, kind, *aims, &said));
    decisions.chain([loading(&said)]).collect()
}

/// What a start costs that finds all built-in policies compiled.
fn loading(said: &[String]) -> Result<Figure> {
    let start = "load all built-in policies from the cache:";
    let median = |said: &String| {
        let line = said.lines().find_map(|line| line.strip_prefix(start));
        let line = line.with_context(|| format!("{EXAMPLE} said:\n{said}"))?;
        Ok(after(line, "median")? / 1e3)
    };
    let medians = said.iter().map(median).collect::<Result<Vec<f64>>>()?;
    let what = "loading all built-in policies from the cache";
    let figure = Figure::new("load", what, Unit::Milliseconds, medians);
    Ok(figure.aiming(Statistic::Median, LOAD_AIM_MS))
}

fn figure(name: &'static str, kind: &str, aims: bool, said: &[String]) -> Result<Figure> {
    let (mut medians, mut worst_p99) = (Vec::new(), 0.0_f64);
    for said in said {
        let (median, p99) = read(said, kind).with_context(|| format!("{EXAMPLE} said:\n{said}"))?;
        medians.push(median);
        worst_p99 = worst_p99.max(p99);
    }
    let what = if aims { "one decision over 10 candidates," } else { "  the same" };
    let figure = Figure::new(name, format!("{what} {kind}"), Unit::Microseconds, medians);
    let figure = if aims { figure.aiming(Statistic::Median, AIM_US) } else { figure };
    Ok(figure.made_of(vec![("p99 within a run, the worst run's".to_owned(), worst_p99)]))
}

/// Runs the example, with as many decisions of a kind as it likes or as given; returns what it says.
fn run(example: &Path, rounds: Option<usize>) -> Result<String> {
    let mut command = Command::new(example);
    command.args(rounds.map(|rounds| format!("--rounds={rounds}")));
    let output = command.output().context("run decision_cost")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
fn read(said: &str, kind: &str) -> Result<(f64, f64)> {
    let figures = said.lines().find_map(|line| {
        let (count, rest) = line.strip_prefix("rank")?.trim_start().split_once(' ')?;
        rest.strip_prefix(kind)?.strip_prefix(':').filter(|_| count == CANDIDATES)
    });
    let figures = figures.with_context(|| format!("no line about 10 candidates {kind}"))?;
    Ok((after(figures, "median")?, after(figures, "p99")?))
}

/// The time that stands after a word, in microseconds.
fn after(line: &str, name: &str) -> Result<f64> {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).with_context(|| format!("no {name}")).and_then(microseconds)
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
            rank     3 with names only: best 1.0µs, median     4.1µs, p99     5.0µs, fuel 1\n\
            rank    10 with names only: best 1.0ns, median   900.0ns, p99     1.5ms, fuel 2\n\
            rank   100 with names only: best 1.0µs, median    40.0µs, p99    50.0µs, fuel 3\n";
        let (median, p99) = read(said, "with names only").unwrap();
        assert!((median - 0.9).abs() < 1e-9, "{median}");
        assert!((p99 - 1500.0).abs() < 1e-9, "{p99}");
        assert!(read(said, "with names").is_err());
    }

    #[test]
    fn says_what_is_not_there() {
        for said in ["", "rank 10 x: median", "rank 10 x: median 3, p99 4µs"] {
            assert!(read(said, "x").is_err(), "{said:?}");
        }
    }

    #[test]
    fn the_example_says_what_is_looked_for() {
        let said = run(&build().unwrap(), Some(2)).unwrap();
        for (name, kind, aims) in KINDS {
            figure(name, kind, aims, std::slice::from_ref(&said)).unwrap();
        }
        loading(std::slice::from_ref(&said)).unwrap();
    }
}

//! A long run of chaos: `make chaos CHAOS="--faults 1000"`.
//!
//! Random faults against real processes until so many have struck, then a judgement: whether
//! anything happened that must not (see `conclave_tests::chaos`), and what every kind of fault
//! cost. The table goes to standard output, progress to standard error; `--out DIR` keeps the
//! table, a plot, every fault and, with them, all that the judgement was made from. The exit status
//! is 1 when something happened that must not.

mod files;
mod plot;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use conclave_tests::chaos::arena::Design;
use conclave_tests::chaos::plan::Step;
use conclave_tests::chaos::play::{Options, play};
use conclave_tests::chaos::record::Record;
use conclave_tests::chaos::verdict::judge;
use conclave_tests::disk::Disk;
use conclave_tests::etcd::Version;
use conclave_tests::{binary, seed};

use crate::table::Table;

/// What a leader may need beyond the protocol's bound, in a run on a machine that has other work.
const LATE: Duration = Duration::from_secs(5);

/// Strikes a real control plane with random faults and judges what was seen
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Call {
    /// How many faults
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    faults: usize,
    /// Plays the same faults as another run; without it, a fresh number is taken and told
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// The nodes' TTL in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(500..))]
    ttl: u16,
    /// Ends the run after so many minutes, however many faults have struck
    #[arg(long, value_name = "MINUTES", default_value_t = 24 * 60)]
    minutes: u64,
    /// The etcd servers' release
    #[arg(long, value_enum, default_value_t = Release::Old)]
    etcd: Release,
    /// The conclave binary; without it, one is built
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Keeps table, plot and record in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Release {
    #[value(name = "3.4")]
    Old,
    #[value(name = "3.5")]
    New,
}

impl From<Release> for Version {
    fn from(release: Release) -> Version {
        match release {
            Release::Old => Version::V3_4,
            Release::New => Version::V3_5,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

fn main() -> Result<ExitCode> {
    let call = Call::parse();
    if let Some(path) = &call.binary {
        binary::choose(path)?;
    }
    eprintln!("chaos: building or finding conclave…");
    let binary = binary::conclave();
    let seed = call.seed.unwrap_or_else(seed::Seed::fresh);
    let failures = Disk::possible().unwrap_or_else(|error| {
        eprintln!("chaos: no faults of disks: {error:#}");
        &[]
    });
    let ttl = Duration::from_millis(call.ttl.into());
    let design = Design { nodes: call.nodes.into(), ttl, version: call.etcd.into(), failures };
    eprintln!("chaos: seed {seed}, {}", binary.display());
    let began = Instant::now();
    let options = Options {
        seed: seed::Seed::new(seed),
        faults: call.faults,
        no_longer_than: Duration::from_secs(60 * call.minutes),
        design: design.clone(),
    };
    let run = play(options, |record, step| progress(record, step, call.faults, began))?;
    let verdict = judge(run, ttl, LATE).context("judge the run")?;
    let table = Table::new(&verdict, &design, seed, began.elapsed());
    print!("{table}");
    if let Some(out) = &call.out {
        files::write(out, &verdict, &table)
            .with_context(|| format!("write to {}", out.display()))?;
    }
    Ok(if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for every step.
fn progress(record: &Record, step: &Step, of: usize, began: Instant) {
    let number = record.steps.len().saturating_sub(1);
    let struck: Vec<String> = record
        .strikes_of(number)
        .map(|strike| {
            let holder = if strike.holder { ", the holder" } else { "" };
            format!("{} ({}{holder})", strike.fault.kind.name(), strike.at)
        })
        .collect();
    let settled =
        record.steps.last().map_or(Duration::ZERO, |played| played.settled - played.healed);
    eprintln!(
        "{:>7.1} s {:>5}/{of} for {:>4} ms, settled after {:>5} ms: {}",
        began.elapsed().as_secs_f64(),
        record.strikes.len(),
        step.hold.as_millis(),
        settled.as_millis(),
        struck.join(" + "),
    );
}

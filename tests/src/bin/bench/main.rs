//! What operators wait for and pay, measured: `make bench`.
//!
//! Everything runs against a private etcd on this machine, whose write latency is measured first
//! and stands beside every time, because without it none of them means anything. Times are taken
//! from outside the daemons, by the kernel's report of the files. Data goes to standard output,
//! progress to standard error. Whether an aim was met is printed and never fails the run: wall
//! times are the machine's too. The exit status tells whether everything could be measured.
//!
//! Built with debug assertions the benchmark measures a debug build, otherwise a release build;
//! `CONCLAVE_BIN` names another binary.

mod check;
mod decision;
mod failure;
mod figure;
mod footprint;
mod handover;
mod machine;
mod plane;
mod reload;
mod report;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use conclave_tests::binary;
use conclave_tests::etcd::{Etcd, Version};
use serde_json::{Value, json};

use crate::failure::Takeover;
use crate::figure::Figure;
use crate::machine::Machine;

/// Measures what operators wait for and pay, against a private etcd on this machine
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Few trials and a short idle span: to see that everything can be measured
    #[arg(long)]
    quick: bool,
    /// How many trials of each start, stop and failure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    trials: Option<u16>,
    /// Measure only this; may be given several times
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Measurement>,
    /// Write everything, each sample included, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// As many trials as were asked for.
    fn trials(&self, usual: usize) -> usize {
        match self.trials {
            Some(trials) => trials.into(),
            None if self.quick => 3,
            None => usual,
        }
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Start to manifests in place
    Start,
    /// SIGTERM of the leader to the successor's manifests
    Stop,
    /// The same of `etcdctl elect`, for comparison
    Etcdctl,
    /// Node killed to takeover, TTL 2 s
    #[value(name = "node-killed-2s")]
    NodeKilled2s,
    /// Node killed to takeover, TTL 500 ms
    #[value(name = "node-killed-500ms")]
    NodeKilled500ms,
    /// Daemon killed to daemon leading again
    DaemonKilled,
    /// Memory, processor time and requests at rest
    Footprint,
    /// One decision by a policy, and loading the built-in ones
    Decision,
    /// Changed policy file in place to deciding
    Reload,
    /// The leader check under a thousand requests a second
    Check,
}

impl Measurement {
    fn measure(self, etcd: &Etcd, options: &Options) -> Result<Vec<Figure>> {
        match self {
            Measurement::Start => handover::start(etcd, options.trials(30)),
            Measurement::Stop => handover::stop(etcd, options.trials(30)),
            Measurement::Etcdctl => handover::etcdctl(etcd, options.trials(20)),
            Measurement::NodeKilled2s => {
                let names = ["node-killed-2s", "node-killed-2s-from-beat"];
                let takeover = Takeover { ttl: Duration::from_secs(2), names };
                failure::node(etcd, options.trials(15), &takeover)
            }
            Measurement::NodeKilled500ms => {
                let names = ["node-killed-500ms", "node-killed-500ms-from-beat"];
                let takeover = Takeover { ttl: Duration::from_millis(500), names };
                failure::node(etcd, options.trials(20), &takeover)
            }
            Measurement::DaemonKilled => failure::daemon(etcd, options.trials(20)),
            Measurement::Footprint => {
                footprint::footprint(etcd, Duration::from_secs(if options.quick { 5 } else { 30 }))
            }
            Measurement::Decision => decision::decision(if options.quick { 1 } else { 5 }),
            Measurement::Check => {
                check::check(Duration::from_secs(if options.quick { 2 } else { 10 }))
            }
            Measurement::Reload => Ok(vec![reload::reload(options.trials(20))?]),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    eprintln!("building or finding conclave…");
    let binary = binary::conclave();
    let machine = Machine::look()?;
    let etcd = Etcd::start(Version::V3_4).context("start etcd")?;
    println!("machine: {}", machine.line());
    println!("binary:  {}{}", binary.display(), debug_note());
    println!("etcd:    one member, 3.4, on this machine");
    let checked = machine::config_check(&etcd)?;
    println!("         by conclave config check, {checked}\n");

    let writes = machine::store_write(&etcd, if options.quick { 100 } else { 1000 })?;
    let syncs = machine::disk_sync(if options.quick { 50 } else { 300 })?;
    let write_ms = writes.median();
    println!("{}", report::heading());
    let mut figures = vec![writes, syncs];
    figures.iter().for_each(|figure| println!("{}", report::lines(figure, write_ms)));

    let all = Measurement::value_variants();
    let chosen = if options.only.is_empty() { all } else { &options.only };
    let mut failures = Vec::new();
    for measurement in chosen {
        eprintln!("measuring {}…", measurement.name());
        match measurement.measure(&etcd, &options) {
            Ok(measured) => {
                measured.iter().for_each(|figure| println!("{}", report::lines(figure, write_ms)));
                figures.extend(measured);
            }
            Err(error) => {
                eprintln!("bench: {} could not be measured: {error:#}", measurement.name());
                failures.push(json!({ "name": measurement.name(), "error": format!("{error:#}") }));
            }
        }
    }
    let failed = !failures.is_empty();
    if let Some(path) = &options.json {
        let figures: Vec<Value> =
            figures.iter().map(|figure| report::json(figure, write_ms)).collect();
        let whole = json!({
            "machine": machine.json(),
            "store_by_config_check": checked,
            "debug_build": cfg!(debug_assertions),
            "figures": figures,
            "failures": failures,
        });
        fs::write(path, format!("{whole:#}\n"))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A debug build's figures are not to be quoted.
fn debug_note() -> &'static str {
    if cfg!(debug_assertions) { " (debug build: not to be quoted)" } else { "" }
}

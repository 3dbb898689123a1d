//! Explores within the bounds given on the command line, and prints what it found.

use std::process::ExitCode;

use clap::Parser;
use conclave_model::{Bounds, FaultKind, explore};

/// Explores the election core exhaustively within bounds; exits with 1 if a promise is broken.
#[derive(Parser)]
struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// How many elections
    #[arg(long, default_value_t = 1)]
    elections: usize,
    /// How many ticks pass
    #[arg(long, default_value_t = 8)]
    ticks: u32,
    /// How many faults happen at most
    #[arg(long, default_value_t = 1)]
    faults: u8,
    /// How often operators intervene at most
    #[arg(long, default_value_t = 0)]
    operators: u8,
    /// Only these faults and interventions; all of them unless said
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<FaultKind>,
    /// Begin with nodes that are being started rather than with a leader
    #[arg(long)]
    started: bool,
    /// Leave everything to the daemons
    #[arg(long)]
    without_guards: bool,
    /// The TTL, in ticks
    #[arg(long, default_value_t = 4)]
    ttl: u32,
    /// When a request's outcome is unknown, in ticks
    #[arg(long, default_value_t = 1)]
    timeout: u32,
    /// Between the campaigns of ranked candidates, in ticks
    #[arg(long, default_value_t = 0)]
    stagger: u32,
    /// What a new leader waits after an unclean end, in ticks
    #[arg(long, default_value_t = 0)]
    takeover_delay: u32,
    /// The bound on clocks' rate errors, in parts per million
    #[arg(long, default_value_t = 0)]
    rate_bound: u32,
    /// Each node's rate error, in parts per million
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    rates: Vec<i64>,
    /// On how many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { nodes, ticks, faults, .. } = arguments;
    let bounds = if arguments.started {
        Bounds::started(nodes, ticks, faults)
    } else {
        Bounds::led(nodes, ticks, faults)
    };
    let bounds = Bounds {
        elections: arguments.elections,
        operators: arguments.operators,
        ttl: arguments.ttl,
        timeout: arguments.timeout,
        stagger: arguments.stagger,
        takeover_delay: arguments.takeover_delay,
        rate_bound: arguments.rate_bound,
        rates: arguments.rates,
        ..bounds
    };
    let bounds = if arguments.without_guards { bounds.without_guards() } else { bounds };
    let bounds = if arguments.only.is_empty() { bounds } else { bounds.with_only(&arguments.only) };
    let explored = explore(&bounds, arguments.threads);
    println!("{explored}");
    for sight in &explored.seen {
        println!("  seen: {sight}");
    }
    match explored.broken {
        None => ExitCode::SUCCESS,
        Some(story) => {
            println!("{story}");
            ExitCode::FAILURE
        }
    }
}

//! `conclave-sim`: plays schedules, replays one, writes and compares digests of blocks.

use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use conclave_sim::blocks;
use conclave_sim::runner::{BLOCK, Failure, play, play_all};

/// Plays random schedules of the election core on simulated time, with faults, and judges them
/// from outside. Exit code 1 when a promise is broken.
#[derive(Parser)]
#[command(name = "conclave-sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play schedules, count what occurred in them, and say how many a second.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 100_000, conflicts_with = "blocks")]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0, conflicts_with = "blocks")]
        from: u64,
        /// Whole blocks of 10,000 seeds instead, the last one excluded: `0..500`.
        #[arg(long)]
        blocks: Option<Blocks>,
        /// With blocks: the file that a line with each block's digest is added to. Blocks that it
        /// has already are not played again.
        #[arg(long, requires = "blocks")]
        digests: Option<PathBuf>,
        /// With blocks: begin no other after so many minutes.
        #[arg(long, requires = "blocks")]
        minutes: Option<u64>,
        /// How many schedules are played at once; as many as there are processors unless said.
        #[arg(long)]
        threads: Option<NonZero<usize>>,
        /// Fail also when something that should occur did not.
        #[arg(long)]
        complete: bool,
    },
    /// Play one schedule again and tell everything that happens in it.
    Replay {
        /// Which.
        seed: u64,
    },
    /// Play blocks again and compare their digests with a file's.
    Digest {
        /// The file.
        #[arg(long)]
        check: PathBuf,
        /// Only these blocks, the last one excluded.
        #[arg(long)]
        blocks: Option<Blocks>,
        /// How many blocks are played at once.
        #[arg(long)]
        threads: Option<NonZero<usize>>,
    },
}

#[derive(Clone, Debug)]
struct Blocks(Range<u64>);

impl FromStr for Blocks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").ok_or("two numbers with `..` between them")?;
        let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        Ok(Blocks(number(from)?..number(to)?))
    }
}

fn main() -> ExitCode {
    // What broke is told once, by the seed's failure.
    std::panic::set_hook(Box::new(|_| {}));
    let failures = match Arguments::parse().command {
        Command::Run { blocks: Some(blocks), digests, minutes, threads, .. } => {
            let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
            blocks::run(blocks.0, digests.as_deref(), processors(threads), limit)
        }
        Command::Run { seeds, from, threads, complete, .. } => {
            run(from..from + seeds, processors(threads), complete)
        }
        Command::Replay { seed } => replay(seed),
        Command::Digest { check, blocks, threads } => {
            blocks::check(&check, blocks.map(|blocks| blocks.0), processors(threads))
        }
    };
    match failures {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}

fn processors(wanted: Option<NonZero<usize>>) -> usize {
    wanted.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
}

fn run(seeds: Range<u64>, threads: usize, complete: bool) -> Result<(), String> {
    let began = Instant::now();
    let coverage = play_all(seeds.clone(), threads).map_err(|failures| told(&failures))?;
    let took = began.elapsed().as_secs_f64();
    let count = seeds.end - seeds.start;
    println!("{coverage}\n{count} schedules in {took:.1} s: {:.0} a second", count as f64 / took);
    let missing = coverage.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let words = format!("did not occur: {}", missing.join(", "));
    if complete {
        return Err(words);
    }
    println!("{words}");
    Ok(())
}

fn told(failures: &[Failure]) -> String {
    let one = |failure: &Failure| format!("{}\nreplay it with: {}", failure.what, failure.replay());
    failures.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn replay(seed: u64) -> Result<(), String> {
    let played = play(seed, true).map_err(|failure| failure.what)?;
    let digest: String = played.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("seed {seed} of block {} keeps every promise; digest {digest}", seed / BLOCK);
    Ok(())
}

//! What a decision costs: `cargo run -p conclave-policy --release --example decision_cost`.
//!
//! Ranks a few and many candidates with cold-standby, or with the component whose file is named
//! on the command line, each call in a fresh instance; and lets an endless loop burn fuel, which
//! tells how long the fuel limit lasts on this machine. `--rounds=N` asks less often.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, View};
use conclave_policy::{Limits, PolicyHost, Wanted};

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    // A busy machine shall make the figures worse, and not end their measurement.
    let limits = Limits { deadline: Duration::from_secs(10), ..Limits::default() };
    let host = PolicyHost::new(limits, None)?;
    println!("sandbox ready                   {:>10.1?}", start.elapsed());
    let start = Instant::now();
    let (mut most, mut file) = (usize::MAX, None);
    for argument in std::env::args().skip(1) {
        match argument.strip_prefix("--rounds=") {
            Some(rounds) => most = rounds.parse()?,
            None => file = Some(argument),
        }
    }
    let policy = match file {
        Some(file) => host.load("given", &std::fs::read(file)?)?,
        None => host.load_directory(None, Wanted::All)?.get("cold-standby")?.clone(),
    };
    println!("compiled                        {:>10.1?}", start.elapsed());

    for (candidates, labelled) in [(10, false), (3, true), (10, true), (100, true), (1_000, true)] {
        let view = view(candidates, labelled);
        let rank = || policy.rank(black_box(&view), "{}");
        let fuel = rank()?.usage.fuel;
        let rounds = if candidates > 100 { 200 } else { 5_000 }.min(most);
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            black_box(rank()?);
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let [best, median, high] = [0, rounds / 2, rounds * 99 / 100].map(|i| times[i]);
        println!(
            "rank {candidates:>5} {}: best {best:>9.1?}, median {median:>9.1?}, \
             p99 {high:>9.1?}, fuel {fuel}",
            if labelled { "with two labels and a fact each" } else { "with names only" }
        );
    }
    from_the_cache(if most < 20 { most } else { 20 })?;
    burn(&host)
}

/// What a start costs that finds all built-in policies compiled, the sandbox and a trial instance of each
/// included.
fn from_the_cache(rounds: usize) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let load = || -> Result<Duration, Box<dyn Error>> {
        let start = Instant::now();
        let host = PolicyHost::new(Limits::default(), Some(directory.path().join("cache")))?;
        let policies = host.load_directory(None, Wanted::All)?;
        for name in conclave_policy::BUILT_IN {
            black_box(policies.get(name)?);
        }
        Ok(start.elapsed())
    };
    load()?;
    let mut times = (0..rounds).map(|_| load()).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    let [best, median, high] = [0, rounds / 2, rounds * 99 / 100].map(|i| times[i]);
    println!(
        "load all built-in policies from the cache: best {best:.1?}, median {median:.1?}, p99 {high:.1?}"
    );
    Ok(())
}

/// The time that the fuel limit lasts.
fn burn(host: &PolicyHost) -> Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile.wasm");
    let hostile = host.load("hostile", &std::fs::read(file)?)?;
    let start = Instant::now();
    let error =
        hostile.rank(&view(1, false), r#"{"misdeed": "loop"}"#).expect_err("an endless loop");
    println!("endless loop ended after {:.1?}: {}", start.elapsed(), error.cause);
    Ok(())
}

fn view(candidates: usize, labelled: bool) -> View {
    let attributes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = if labelled { pairs } else { &[] };
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let candidate = |number: usize| CandidateView {
        name: format!("node-{number}").as_str().into(),
        labels: attributes(&[("rack", "a"), ("zone", "north")]),
        facts: attributes(&[("flags", "3f2c9a")]),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 60_000,
    };
    View {
        election: "masters".into(),
        me: "node-0".into(),
        candidates: (0..candidates).map(candidate).collect(),
        incumbent: Some(IncumbentView {
            name: "node-2".into(),
            facts: BTreeMap::new(),
            held_ms: 60_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

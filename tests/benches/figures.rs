//! What operators wait for, measured: `make bench`.
//!
//! Each figure is printed with its spread, and beside them all the write latency of the etcd that
//! was used, without which none of them means anything. Times are taken from outside: from the
//! signal or the start to the kernel's report of the file in place.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::etcd::Version;
use conclave_tests::gateway::Gateway;
use conclave_tests::node::{ELECTION, Node};
use conclave_tests::pod::{self, EXCLUSIVE};
use conclave_tests::process::{Signal, processor_time, resident_bytes, send};
use conclave_tests::{PATIENCE, binary, eventually};
use serde_json::json;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Durations of one kind.
struct Figure {
    name: &'static str,
    aim: &'static str,
    samples: Vec<Duration>,
}

impl Figure {
    fn print(mut self) {
        self.samples.sort();
        let at = |share: usize| self.samples[(self.samples.len() - 1) * share / 100];
        let ms = |span: Duration| span.as_secs_f64() * 1000.0;
        println!(
            "{:<46} median {:>8.2} ms   p90 {:>8.2} ms   max {:>8.2} ms   n={:<3} {}",
            self.name,
            ms(at(50)),
            ms(at(90)),
            ms(at(100)),
            self.samples.len(),
            self.aim,
        );
    }
}

fn collect(count: usize, sample: impl FnMut(usize) -> Result<Duration>) -> Result<Vec<Duration>> {
    (0..count).map(sample).collect()
}

/// When a node other than `old` had both manifests in place.
fn complete_after(cluster: &Cluster, old: &str, since: Instant) -> Result<(String, Instant)> {
    eventually("the successor's manifests", PATIENCE, || {
        let holdings = cluster.observer.so_far().holdings(&EXCLUSIVE);
        let newest = holdings.into_iter().rev().find(|holding| holding.from >= since)?;
        (newest.node != old).then_some(())?;
        Some((newest.node, newest.complete?))
    })
}

fn etcd_writes() -> Result<Figure> {
    let cluster = Cluster::prepare(&["a"], &Plan::default())?;
    let mut gateway = Gateway::connect(cluster.etcd[0].address())?;
    let samples = collect(500, |number| {
        let began = Instant::now();
        gateway.put("/bench", &number.to_string())?;
        Ok(began.elapsed())
    })?;
    Ok(Figure { name: "etcd: one write, over its JSON gateway", aim: "", samples })
}

fn start_to_manifest() -> Result<Figure> {
    let mut cluster = Cluster::prepare(&["a"], &Plan { ttl: "10s", ..Plan::default() })?;
    let samples = collect(21, |_| {
        let began = Instant::now();
        cluster.nodes[0].start()?;
        let (_, complete) = complete_after(&cluster, "", began)?;
        cluster.nodes[0].stop()?;
        Ok(complete - began)
    })?;
    // The first start compiled the policies and filled the cache.
    let samples = samples[1..].to_vec();
    Ok(Figure { name: "start to manifests in place, warm cache", aim: "aim < 40 ms", samples })
}

fn sigterm_to_successor() -> Result<Figure> {
    let mut cluster = Cluster::start(&NAMES, &Plan { ttl: "10s", ..Plan::default() })?;
    let samples = collect(30, |_| {
        let leader = cluster.settle()?;
        let began = Instant::now();
        cluster.node(&leader).signal(Signal::TERM)?;
        let (_, complete) = complete_after(&cluster, &leader, began)?;
        cluster.node(&leader).guard()?.wait(PATIENCE)?;
        cluster.node(&leader).start()?;
        Ok(complete - began)
    })?;
    cluster.finish()?;
    Ok(Figure { name: "SIGTERM to the successor's manifests", aim: "aim < 10 ms median", samples })
}

fn killed_to_takeover(name: &'static str, aim: &'static str, ttl: &'static str) -> Result<Figure> {
    let mut cluster = Cluster::start(&NAMES, &Plan { ttl, ..Plan::default() })?;
    let samples = collect(10, |_| {
        let leader = cluster.settle()?;
        let began = Instant::now();
        cluster.node(&leader).kill()?;
        let (_, complete) = complete_after(&cluster, &leader, began)?;
        cluster.node(&leader).start()?;
        eventually("the leftovers to go", PATIENCE, || {
            (!cluster.observer.holders(&EXCLUSIVE).contains(&leader)).then_some(())
        })?;
        Ok(complete - began)
    })?;
    Ok(Figure { name, aim, samples })
}

fn daemon_killed_to_leading_again() -> Result<Figure> {
    let mut cluster = Cluster::start(&NAMES, &Plan { ttl: "10s", ..Plan::default() })?;
    let leader = cluster.settle()?;
    let mut gateway = Gateway::connect(cluster.etcd[0].address())?;
    let prefix = conclave_tests::node::leader_prefix(conclave_tests::cluster::NAME, ELECTION);
    let samples = collect(20, |_| {
        let before = gateway.list(&prefix)?.pop().context("a leader key")?;
        let daemon = cluster.node(&leader).daemon()?;
        let began = Instant::now();
        send(daemon, Signal::KILL)?;
        // The new daemon adopts the term by rewriting its leader key.
        let after = eventually("the leader key to be rewritten", PATIENCE, || {
            let now = gateway.list(&prefix).ok()?.pop()?;
            (now.modified > before.modified).then_some(now)
        })?;
        anyhow::ensure!(after.created == before.created, "the term went on");
        Ok(began.elapsed())
    })?;
    cluster.finish()?;
    Ok(Figure { name: "daemon killed to daemon leading again", aim: "aim < 150 ms", samples })
}

/// Memory and idle processor time of a leader with two elections.
fn footprint() -> Result<()> {
    let mut cluster = Cluster::prepare(&["a"], &Plan { ttl: "10s", ..Plan::default() })?;
    let node: &mut Node = &mut cluster.nodes[0];
    let mut second = node.config()["elections"][0].clone();
    second["name"] = json!("second");
    second["manifests"] =
        json!([{ "source": "src/second.yaml", "destination": "dst/second.yaml" }]);
    node.config()["elections"].as_array_mut().context("elections")?.push(second);
    std::fs::write(node.sources().join("second.yaml"), pod::manifest("second"))?;
    node.start()?;
    cluster.observer.wait_for_holder(&[&EXCLUSIVE[..], &["second.yaml"]].concat())?;
    // Idle time is what is measured; the first seconds belong to starting.
    std::thread::sleep(Duration::from_secs(5));
    let guard = cluster.nodes[0].guard()?.pid();
    let daemon = cluster.nodes[0].daemon()?;
    let used = || Ok::<_, anyhow::Error>((processor_time(guard)?, processor_time(daemon)?));
    let (before, began) = (used()?, Instant::now());
    std::thread::sleep(Duration::from_secs(30));
    let (after, span) = (used()?, began.elapsed());
    let mib = |pid| Ok::<_, anyhow::Error>(resident_bytes(pid)? as f64 / f64::from(1 << 20));
    let (guards, daemons) = (mib(guard)?, mib(daemon)?);
    let time = (after.0 - before.0) + (after.1 - before.1);
    println!(
        "{:<46} {:.1} MB (guard {guards:.1}, daemon {daemons:.1})   aim < 25 MB",
        "resident memory, two elections",
        guards + daemons,
    );
    println!(
        "{:<46} {:.2} % of a core   aim < 0.5 %",
        "processor when idle, two elections",
        100.0 * time.as_secs_f64() / span.as_secs_f64(),
    );
    Ok(())
}

fn main() -> Result<()> {
    println!("conclave: {}", binary::conclave().display());
    println!("etcd: one member, version {:?}, on this machine\n", Version::V3_4);
    etcd_writes()?.print();
    start_to_manifest()?.print();
    sigterm_to_successor()?.print();
    killed_to_takeover("node killed to takeover, TTL 2 s", "aim < 2150 ms", "2s")?.print();
    killed_to_takeover("node killed to takeover, TTL 500 ms", "aim < 650 ms", "500ms")?.print();
    daemon_killed_to_leading_again()?.print();
    footprint()
}

//! The leader check as load balancers ask it: what an answer takes under a thousand requests a second, and what that
//! costs the node.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::address::Loopback;
use conclave_tests::http::ask;
use conclave_tests::node::scheduler_node;
use conclave_tests::process::processor_time;
use conclave_tests::{PATIENCE, eventually, scratch};
use serde_json::json;

use crate::figure::{Figure, Statistic, Unit};

/// Load balancers keep their connections.
const CONNECTIONS: u32 = 10;

/// How often each is asked on.
const PACE: Duration = Duration::from_millis(10);

/// The node's TTL in these measurements; five beats go into one.
const BEATS_A_SECOND: f64 = 2.5;

/// Asks a leader for a while.
///
/// # Errors
///
/// When the node does not lead, or answers anything else.
pub(crate) fn check(span: Duration) -> Result<Vec<Figure>> {
    let (scratch, address) = (scratch::directory("bench-check")?, Loopback::claim()?);
    let (store, at) = (scratch.path().join("store.db"), address.port(8437));
    let mut node = scheduler_node("a", "bench-check", &store, |config| {
        config["http"] = json!({ "listen": at.to_string() });
    })?;
    node.start()?;
    eventually("the node to lead", PATIENCE, || {
        (ask(at, "GET", "/leader/masters").ok()?.0 == 200).then_some(())
    })?;
    let daemon = node.daemon()?;
    let (before, used, began) = (beats(at)?, processor_time(daemon)?, Instant::now());
    let callers: Vec<_> =
        (0..CONNECTIONS).map(|number| thread::spawn(move || caller(at, number, span))).collect();
    let mut samples = Vec::new();
    for caller in callers {
        samples.extend(caller.join().expect("a caller tells what is wrong")?);
    }
    let lasted = began.elapsed().as_secs_f64();
    let share = 100.0 * (processor_time(daemon)? - used).as_secs_f64() / lasted;
    let missed = lasted * BEATS_A_SECOND - (beats(at)? - before);
    node.stop()?;
    let what = format!("leader check under {:.0} requests a second", samples.len() as f64 / lasted);
    Ok(vec![
        Figure::new("check", what, Unit::Microseconds, samples).aiming(Statistic::P99, 2_000.0),
        Figure::new(
            "check-processor",
            "  the node's processor time meanwhile",
            Unit::PercentOfCore,
            vec![share],
        ),
        Figure::new(
            "check-beats-missed",
            "  of its beats missed a second",
            Unit::PerSecond,
            // It is asked between two beats.
            vec![(missed - 1.0).max(0.0) / lasted],
        ),
    ])
}

/// Asks on one connection, and returns how long each answer took, in microseconds.
fn caller(at: SocketAddr, number: u32, span: Duration) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (began, mut next, mut took) = (Instant::now(), PACE / CONNECTIONS * number, Vec::new());
    while next < span {
        thread::sleep(next.saturating_sub(began.elapsed()));
        next += PACE;
        let asked = Instant::now();
        stream.write_all(b"GET /leader/masters HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{line}");
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        answers.read_exact(&mut vec![0; length])?;
        took.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// How many beats the node has had confirmed.
fn beats(at: SocketAddr) -> Result<f64> {
    let (_, metrics) = ask(at, "GET", "/metrics")?;
    let count = metrics.lines().find_map(|line| line.strip_prefix("conclave_beat_seconds_count "));
    Ok(count.context("a count of beats")?.parse()?)
}

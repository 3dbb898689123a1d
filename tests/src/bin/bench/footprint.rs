//! What a node costs while nothing happens: memory, processor time, requests to the store.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::PATIENCE;
use conclave_tests::etcd::Etcd;
use conclave_tests::node::Node;
use conclave_tests::pod::{self, EXCLUSIVE};
use conclave_tests::process::{Pid, processor_time};
use serde_json::json;

use crate::figure::{Figure, Statistic, Unit};
use crate::plane::{Plane, THREE};

/// The second election's only manifest.
const SECOND: &str = "second.yaml";

/// Starting is over after this.
const SETTLED: Duration = Duration::from_secs(5);

/// Measures the leader of two elections among three nodes, all with default timings, over an idle
/// span.
///
/// # Errors
///
/// When nobody leads both, or `/proc` or etcd does not tell.
pub(crate) fn footprint(etcd: &Etcd, span: Duration) -> Result<Vec<Figure>> {
    let mut plane = Plane::prepare(etcd, "bench-footprint", &THREE, Duration::from_secs(10))?;
    plane.nodes.iter_mut().try_for_each(add_second_election)?;
    let after_compiling = memory_after_compiling(&mut plane)?;

    // The first one leads both; the others come when it does.
    let (first, others) = plane.nodes.split_first_mut().context("no nodes")?;
    first.start()?;
    plane.observer.wait_for_holder(&[&EXCLUSIVE[..], &[SECOND]].concat())?;
    others.iter_mut().try_for_each(Node::start)?;
    let leader = plane.settle()?;
    thread::sleep(SETTLED);

    let nodes = plane.nodes.len();
    let node = plane.node(&leader)?;
    let pids = [node.guard()?.pid(), node.daemon()?];
    let used = || pids.map(processor_time).into_iter().sum::<Result<Duration>>();
    let (used_before, requests_before, began) =
        (used()?, requests(etcd.address())?, Instant::now());
    thread::sleep(span);
    let (used_after, requests_after, lasted) =
        (used()?, requests(etcd.address())?, began.elapsed().as_secs_f64());

    let memory = memory(pids)?;
    let share = 100.0 * (used_after - used_before).as_secs_f64() / lasted;
    let rate = (requests_after - requests_before) / lasted / nodes as f64;
    plane.finish()?;
    let what = "resident memory of guard and daemon, two elections";
    let idle = format!("processor time when idle, over {lasted:.0} s");
    Ok(vec![
        Figure::new("memory", what, Unit::Megabytes, vec![memory.resident])
            .aiming(Statistic::Max, 25.0)
            .made_of(memory.parts),
        Figure::new(
            "memory-after-compiling",
            "  the same in a life that compiled its policy",
            Unit::Megabytes,
            vec![after_compiling.resident],
        ),
        Figure::new("idle", idle, Unit::PercentOfCore, vec![share]).aiming(Statistic::Max, 0.5),
        Figure::new(
            "requests",
            "requests to the store per node at rest",
            Unit::PerSecond,
            vec![rate],
        ),
    ])
}

fn add_second_election(node: &mut Node) -> Result<()> {
    let elections = node.config()["elections"].as_array_mut().context("elections")?;
    let mut second = elections[0].clone();
    second["name"] = json!("second");
    second["manifests"] = json!([{
        "source": format!("src/{SECOND}"),
        "destination": format!("dst/{SECOND}"),
    }]);
    elections.push(second);
    fs::write(node.sources().join(SECOND), pod::manifest("second"))?;
    Ok(())
}

/// Every node's first life, which fills its plugin cache; returns the first node's memory in it.
fn memory_after_compiling(plane: &mut Plane<'_>) -> Result<Memory> {
    let mut first = None;
    for at in 0..plane.nodes.len() {
        plane.nodes[at].start()?;
        plane.observer.wait_for_holder(&[&EXCLUSIVE[..], &[SECOND]].concat())?;
        if first.is_none() {
            thread::sleep(SETTLED);
            let node = &mut plane.nodes[at];
            first = Some(memory([node.guard()?.pid(), node.daemon()?])?);
        }
        plane.nodes[at].stop()?;
    }
    first.context("no nodes")
}

/// The memory of a guard and its daemon.
struct Memory {
    /// The sum of both resident sets, in megabytes. Pages of the program file that both have
    /// mapped count twice: what `ps` says.
    resident: f64,
    /// Of each process, what it is made of.
    parts: Vec<(String, f64)>,
}

fn memory(pids: [Pid; 2]) -> Result<Memory> {
    let (mut resident, mut parts) = (0.0, Vec::new());
    for (name, pid) in ["guard", "daemon"].into_iter().zip(pids) {
        let of = |file: &str, field: &str| {
            let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            megabytes(&text, field).with_context(|| format!("no {field} in {path}"))
        };
        let rss = of("smaps_rollup", "Rss:")?;
        resident += rss;
        parts.push((format!("{name}: resident"), rss));
        parts.push((format!("{name}: proportional"), of("smaps_rollup", "Pss:")?));
        parts.push((format!("{name}: anonymous"), of("status", "RssAnon:")?));
        parts.push((format!("{name}: of files"), of("status", "RssFile:")?));
        parts.push((format!("{name}: shared"), of("status", "RssShmem:")?));
        parts.push((format!("{name}: peak resident"), of("status", "VmHWM:")?));
    }
    Ok(Memory { resident, parts })
}

/// A field of `/proc/<pid>/status` or its like, of kibibytes in megabytes.
fn megabytes(text: &str, field: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// How many requests, streams apart, etcd has been sent since its start, by its own metrics.
fn requests(etcd: SocketAddr) -> Result<f64> {
    let mut stream = TcpStream::connect(etcd)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {etcd}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "no metrics");
    unary_requests(&answer).context("etcd's metrics do not count requests")
}

fn unary_requests(metrics: &str) -> Option<f64> {
    let counters = metrics.lines().filter(|line| {
        line.starts_with("grpc_server_started_total{") && line.contains("grpc_type=\"unary\"")
    });
    let counts: Vec<f64> =
        counters.map(|line| line.rsplit(' ').next()?.parse().ok()).collect::<Option<_>>()?;
    (!counts.is_empty()).then(|| counts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_are_found_by_their_field() {
        let status = "Name:\tconclave\nVmHWM:\t  125000 kB\nRssAnon:\t    1000 kB\n";
        assert_eq!(megabytes(status, "VmHWM:"), Some(128.0));
        assert_eq!(megabytes(status, "RssFile:"), None);
    }

    #[test]
    fn streams_are_not_requests() {
        let metrics = "# TYPE grpc_server_started_total counter\n\
            grpc_server_started_total{grpc_method=\"Range\",grpc_type=\"unary\"} 12\n\
            grpc_server_started_total{grpc_method=\"Txn\",grpc_type=\"unary\"} 1.5e+02\n\
            grpc_server_started_total{grpc_method=\"Watch\",grpc_type=\"bidi_stream\"} 3\n";
        assert_eq!(unary_requests(metrics), Some(162.0));
        assert_eq!(unary_requests("other 1\n"), None);
    }
}

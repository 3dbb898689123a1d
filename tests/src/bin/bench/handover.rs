//! Starts and stops that go by plan.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use conclave_tests::PATIENCE;
use conclave_tests::etcd::Etcd;
use conclave_tests::process::{Process, Signal};

use crate::figure::{Figure, Statistic};
use crate::plane::Plane;

/// Long enough that nothing here can be a session's time running out.
const TTL: Duration = Duration::from_secs(10);

/// How often the baseline's output is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// From the start of `conclave run` to both manifests in place, with nobody else there and a
/// policy that was compiled before.
///
/// # Errors
///
/// When the node does not come to lead.
pub(crate) fn start(etcd: &Etcd, trials: usize) -> Result<Vec<Figure>> {
    let mut plane = Plane::prepare(etcd, "bench-start", &["a"], TTL)?;
    let mut samples = Vec::new();
    // The first start compiles the policy and fills the cache.
    for trial in 0..=trials {
        let began = Instant::now();
        plane.nodes[0].start()?;
        let complete = plane.complete_after("", began)?;
        plane.nodes[0].stop()?;
        if trial > 0 {
            samples.push(complete - began);
        }
    }
    plane.finish()?;
    let what = "start to manifests in place, plugin cache warm";
    Ok(vec![Figure::times("start", what, &samples).aiming(Statistic::Median, 40.0)])
}

/// From SIGTERM to the leader's guard to both manifests in place on the successor.
///
/// # Errors
///
/// When nobody succeeds.
pub(crate) fn stop(etcd: &Etcd, trials: usize) -> Result<Vec<Figure>> {
    let mut plane = Plane::three(etcd, "bench-stop", TTL)?;
    let mut samples = Vec::new();
    for trial in 0..trials {
        let leader = plane.settle()?;
        plane.rest(trial);
        let began = Instant::now();
        plane.node(&leader)?.signal(Signal::TERM)?;
        samples.push(plane.complete_after(&leader, began)? - began);
        let node = plane.node(&leader)?;
        node.guard()?.wait(PATIENCE)?;
        node.start()?;
    }
    plane.finish()?;
    let what = "SIGTERM of the leader to the successor's manifests";
    Ok(vec![Figure::times("stop", what, &samples).aiming(Statistic::Median, 10.0)])
}

/// For comparison, etcd's own: from SIGINT to the leading `etcdctl elect` until the next one has
/// printed that it leads. No files, no policy.
///
/// # Errors
///
/// When nobody succeeds.
pub(crate) fn etcdctl(etcd: &Etcd, trials: usize) -> Result<Vec<Figure>> {
    let elect = |number: usize| {
        etcd.ctl_start(&format!("elect-{number}"), &["elect", "bench-elect", &format!("n{number}")])
    };
    let mut leader = elect(0)?;
    printed(&leader, "n0")?;
    let mut samples = Vec::new();
    for number in 1..=trials {
        let follower = elect(number)?;
        // It has queued up when its key stands beside the leader's.
        conclave_tests::eventually("a queued competitor", PATIENCE, || {
            (etcd.keys("bench-elect/").ok()?.len() == 2).then_some(())
        })?;
        let began = Instant::now();
        leader.signal(Signal::INT)?;
        printed(&follower, &format!("n{number}"))?;
        samples.push(began.elapsed());
        leader.wait(PATIENCE)?;
        leader = follower;
    }
    let what = "for comparison, `etcdctl elect`: SIGINT to the next";
    Ok(vec![Figure::times("etcdctl", what, &samples)])
}

/// Waits until an elector has printed its own proposal, which it does when it leads.
fn printed(elector: &Process, proposal: &str) -> Result<()> {
    let began = Instant::now();
    while !elector.output()?.lines().any(|line| line == proposal) {
        if began.elapsed() > PATIENCE {
            bail!("{} does not come to lead", elector.name());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

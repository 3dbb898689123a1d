//! Deaths of nodes and of daemons.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use conclave_tests::etcd::Etcd;
use conclave_tests::node::Node;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::process::{Signal, send};
use conclave_tests::{PATIENCE, eventually};

use crate::figure::{Figure, Statistic};
use crate::plane::Plane;

/// What the daemon logs when its term stands confirmed in the store and its files are right.
const LEADING: &str = "leading: exclusive effects in place";

/// How often a log or a session's record is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What a takeover may take beyond the TTL, in milliseconds.
const BEYOND_TTL_MS: f64 = 150.0;

/// How a takeover at some TTL is called.
pub(crate) struct Takeover {
    /// The silence after which a node is given up.
    pub(crate) ttl: Duration,
    /// The figures' names, for machines: since the death, and since the last beat without the TTL.
    pub(crate) names: [&'static str; 2],
}

/// From the death of a whole node, guard and daemon at once, to both manifests in place on
/// another; also from its last beat, beyond the TTL: what the protocol and the work take.
///
/// # Errors
///
/// When nobody takes over.
pub(crate) fn node(etcd: &Etcd, trials: usize, takeover: &Takeover) -> Result<Vec<Figure>> {
    let Takeover { ttl, names } = takeover;
    let mut plane = Plane::three(etcd, &format!("bench-{}", names[0]), *ttl)?;
    let (mut since_death, mut beyond_ttl) = (Vec::new(), Vec::new());
    for trial in 0..trials {
        let leader = plane.settle()?;
        plane.rest(trial);
        let beat = after_a_beat(&plane, &leader, plane.part_of_beat(trial))?;
        let death = kill(plane.node(&leader)?)?;
        let complete = plane.complete_after(&leader, death)?;
        since_death.push(complete - death);
        beyond_ttl.push((complete - beat).saturating_sub(*ttl));
        let node = plane.node(&leader)?;
        node.guard()?.kill_family()?;
        node.start()?;
        wait_for_clean_up(&plane, &leader)?;
    }
    // Between the new holder's arrival and the dead one's clean-up both have the files: a dead
    // node's pods are outside of what software on it can promise.
    drop(plane);
    let ms = ttl.as_secs_f64() * 1e3;
    let what = format!("node killed to takeover, TTL {ms} ms");
    let beyond = format!("  from its last beat, TTL {ms} ms taken off");
    Ok(vec![
        Figure::times(names[0], what, &since_death).aiming(Statistic::Max, ms + BEYOND_TTL_MS),
        Figure::times(names[1], beyond, &beyond_ttl),
    ])
}

/// Follows a node's session for some time after a beat; returns when its newest beat was seen.
fn after_a_beat(plane: &Plane<'_>, node: &str, span: Duration) -> Result<Instant> {
    let mut gateway = plane.gateway()?;
    let key = plane.session_key(node);
    let mut revision = || -> Result<u64> {
        let newest = gateway.list(&key)?.into_iter().map(|entry| entry.modified).max();
        newest.map_or_else(|| bail!("{node} has no session"), Ok)
    };
    let (first, began) = (revision()?, Instant::now());
    let mut newest = (first, None);
    loop {
        let now = revision()?;
        if now != newest.0 {
            newest = (now, Some(Instant::now()));
        }
        match newest.1 {
            Some(beat) if beat.elapsed() >= span => return Ok(beat),
            None if began.elapsed() > PATIENCE => bail!("{node} does not beat"),
            _ => thread::sleep(LOOK),
        }
    }
}

/// Kills guard and daemon, one right after the other; returns when.
fn kill(node: &mut Node) -> Result<Instant> {
    let (guard, daemon) = (node.guard()?.pid(), node.daemon()?);
    let at = Instant::now();
    send(guard, Signal::KILL)?;
    send(daemon, Signal::KILL)?;
    Ok(at)
}

/// Waits until a node that was started again has withdrawn what it had in place when it died.
fn wait_for_clean_up(plane: &Plane<'_>, node: &str) -> Result<()> {
    eventually("a restarted node to clean up", PATIENCE, || {
        let holders = plane.observer.holders(&EXCLUSIVE);
        (!holders.iter().any(|holder| holder == node)).then_some(())
    })
}

/// From the death of the leader's daemon to its successor's word, under the same guard, that it
/// leads: the same term, confirmed by the store, and no file touched.
///
/// # Errors
///
/// When the term does not go on, or a file was touched.
pub(crate) fn daemon(etcd: &Etcd, trials: usize) -> Result<Vec<Figure>> {
    let mut plane = Plane::three(etcd, "bench-daemon", Duration::from_secs(10))?;
    let mut samples = Vec::new();
    for trial in 0..trials {
        let leader = plane.settle()?;
        plane.rest(trial);
        let before = plane.leader_key()?;
        let node = plane.node(&leader)?;
        let told = node.output()?.len();
        let daemon = node.daemon()?;
        let began = Instant::now();
        send(daemon, Signal::KILL)?;
        wait_until_leading(node, told)?;
        samples.push(began.elapsed());
        let after = plane.leader_key()?;
        ensure!(after.created == before.created, "another term began");
        ensure!(after.modified > before.modified, "the term was not confirmed");
        let files = [&EXCLUSIVE[..], &[API_SERVER]].concat();
        plane.observer.so_far().untouched(&leader, &files, began)?;
        // A guard restarts a daemon at once only if the one before it did not die young, so every
        // trial has a guard of its own.
        plane.node(&leader)?.stop()?;
        plane.node(&leader)?.start()?;
    }
    plane.finish()?;
    let what = "daemon killed to daemon leading again";
    Ok(vec![Figure::times("daemon-killed", what, &samples).aiming(Statistic::Median, 150.0)])
}

/// Waits until a node says that it leads, beyond the first `told` bytes of its log.
fn wait_until_leading(node: &mut Node, told: usize) -> Result<()> {
    let began = Instant::now();
    while !node.output()?.get(told..).is_some_and(|new| new.contains(LEADING)) {
        if began.elapsed() > PATIENCE {
            let log = node.output()?;
            bail!("{} does not lead again:\n{log}", node.name());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

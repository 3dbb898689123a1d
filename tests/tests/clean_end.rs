//! How a term ends: cleanly, once a stop check has confirmed that all has stopped, or not, and then
//! whoever leads next waits for the takeover delay, or for what is left of it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::{Node, TTL};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// So long that a test in which anybody waits for it fails.
const FOR_EVER: &str = "1h";
const FOR_EVER_MS: u64 = 3_600_000;

/// What is there as long as a node's pods run, by the stop check.
fn running(node: &Node) -> PathBuf {
    node.root().join("running")
}

/// Three nodes of which one leads, and whose pods seem to run on.
fn checked(within: &str, takeover_delay: &str) -> Result<Cluster> {
    let mut cluster = Cluster::prepare(&NAMES, &Plan { ttl: "60s", ..Plan::default() })?;
    start(&mut cluster, |election| {
        let check = json!({ "file": "running", "interval": "20ms", "within": within });
        election["stop_check"] = check;
        election["takeover_delay"] = json!(takeover_delay);
    })?;
    Ok(cluster)
}

fn start(cluster: &mut Cluster, change: impl Fn(&mut Value)) -> Result<()> {
    for node in &mut cluster.nodes {
        fs::write(running(node), "")?;
        let election = &mut node.config()["elections"][0];
        election.as_object_mut().context("an election")?.remove("overlap");
        change(election);
        node.start()?;
    }
    cluster.settle().map(drop)
}

/// Waits until this term has ended, and says what history has of it.
fn ending(cluster: &Cluster, token: u64) -> Result<Value> {
    eventually("the term to end", PATIENCE, || cluster.ending(token).ok())
}

#[test]
fn a_planned_change_waits_until_all_has_stopped_and_then_for_nothing() -> Outcome {
    for stop in [true, false] {
        let mut cluster = checked("1h", FOR_EVER)?;
        let leader = cluster.leader()?;
        let term = cluster.term()?.context("a term")?;
        let next = cluster.other(&leader);
        if stop {
            cluster.node(&leader).signal(Signal::TERM)?;
        } else {
            cluster.transfer(&next)?;
        }
        cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
        // Something still runs, though the manifests are gone.
        cluster.nobody_leads_for(Duration::from_secs(1))?;
        let now = cluster.term()?.context("the term is kept")?;
        assert_eq!(now.token, term.token);
        fs::remove_file(running(cluster.node(&leader)))?;
        let second = cluster.leader_after(&leader)?;
        let end = ending(&cluster, term.token)?;
        assert_eq!(end["clean"], json!(true), "{end}");
        assert_eq!(end["successor"], json!(second), "it was handed over: {end}");
        if stop {
            assert_eq!(cluster.node(&leader).guard()?.wait(PATIENCE)?.code(), Some(0));
        } else {
            assert_eq!(second, next);
        }
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn what_has_not_stopped_in_time_makes_the_next_leader_wait() -> Outcome {
    let delay = Duration::from_secs(3);
    let mut cluster = checked("300ms", "3s")?;
    let leader = cluster.leader()?;
    let term = cluster.term()?.context("a term")?;
    cluster.transfer(&cluster.other(&leader))?;
    let end = ending(&cluster, term.token)?;
    assert_eq!(end["clean"], json!(false), "{end}");
    assert_eq!(end["delay_ms"], json!(3_000), "{end}");
    assert_eq!(end["successor"], json!(null), "it is no planned handover any more: {end}");
    let second = eventually("the next term", PATIENCE, || cluster.term().ok().flatten())?;
    assert_eq!(second.record["delay_ms"], json!(3_000), "{:?}", second.record);
    eventually("a leader", PATIENCE, || {
        (!cluster.observer.holders(&EXCLUSIVE).is_empty()).then_some(())
    })?;
    let log = cluster.node(&leader).output()?;
    assert!(log.contains("the stop check did not confirm"), "{log}");
    let gaps = cluster.finish()?.gaps(&EXCLUSIVE);
    assert!(gaps.iter().all(|gap| *gap >= delay), "{gaps:?}");
    Ok(())
}

#[test]
fn what_was_not_waited_for_is_owed_by_whoever_the_term_goes_to() -> Outcome {
    let mut cluster = checked("300ms", FOR_EVER)?;
    let first = cluster.leader()?;
    let term = cluster.term()?.context("a term")?;
    cluster.node(&first).signal(Signal::TERM)?;
    ending(&cluster, term.token)?;
    // The second holds the term and waits; then the third is given it, and waits as well.
    let second = eventually("the next term", PATIENCE, || cluster.term().ok().flatten())?;
    let owed = |record: &Value| record["delay_ms"].as_u64().unwrap_or(0);
    assert_eq!(owed(&second.record), FOR_EVER_MS);
    let holder = second.record["holder"].as_str().context("a holder")?.to_owned();
    let third = NAMES.into_iter().find(|name| *name != first && *name != holder);
    let third = third.context("a third node")?;
    cluster.transfer(third)?;
    let end = ending(&cluster, second.token)?;
    assert_eq!(end["successor"], json!(third), "nothing runs that would have to stop: {end}");
    assert_eq!(end["clean"], json!(false), "{end}");
    let last = cluster.term()?.context("the third's term")?;
    assert_eq!(last.record["holder"], json!(third));
    for rest in [owed(&end), owed(&last.record)] {
        assert!(rest > 0 && rest <= FOR_EVER_MS, "{rest}");
    }
    assert!(owed(&last.record) < FOR_EVER_MS, "what was waited counts");
    cluster.nobody_leads_for(Duration::from_secs(1))?;
    // Nor does resigning end the debt.
    for name in [third, &holder] {
        assert_eq!(cluster.node(name).stop()?.code(), Some(0));
    }
    assert_eq!(cluster.term()?, None);
    cluster.nobody_leads_for(Duration::from_millis(100))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_crashed_leader_is_followed_after_the_delay() -> Outcome {
    let mut cluster = Cluster::prepare(&NAMES, &Plan::default())?;
    start(&mut cluster, |election| election["takeover_delay"] = json!("3s"))?;
    let first = cluster.leader()?;
    let term = cluster.term()?.context("a term")?;
    cluster.node(&first).kill()?;
    let killed = Instant::now();
    let end = ending(&cluster, term.token)?;
    assert_eq!((&end["clean"], &end["delay_ms"]), (&json!(false), &json!(3_000)), "{end}");
    // Nobody is left on the first node to remove its files: the second's are what counts.
    eventually("the second's manifests", PATIENCE, || {
        let holders = cluster.observer.holders(&EXCLUSIVE);
        holders.iter().any(|node| *node != first).then_some(())
    })?;
    let waited = killed.elapsed();
    assert!(waited >= TTL / 2 + Duration::from_secs(3), "{waited:?}");
    Ok(())
}

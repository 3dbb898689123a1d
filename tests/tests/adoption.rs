//! A daemon that dies is replaced by its guard and adopts what it finds: no failover, no file
//! touched, the same term.

use std::fs;
use std::time::Instant;

use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::TTL;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE, SCHEDULER};
use conclave_tests::process::{Signal, send};
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, eventually};

fn all() -> Vec<&'static str> {
    [&EXCLUSIVE[..], &[API_SERVER]].concat()
}

#[test]
fn a_killed_daemon_is_replaced_and_nothing_is_touched() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let since = Instant::now();
    let term = cluster.term()?.expect("a term");
    let mut old = None;
    for signal in [Signal::KILL, Signal::ABORT, Signal::KILL] {
        let daemon = cluster.node(&leader).daemon_after(old)?;
        send(daemon, signal)?;
        cluster.node(&leader).daemon_after(Some(daemon))?;
        // It beats again: longer than its session would have lasted without.
        cluster.leads_for(&leader, TTL * 2)?;
        old = Some(daemon);
    }
    let now = cluster.term()?.expect("a term");
    assert_eq!((now.key, now.token), (term.key, term.token), "the same term goes on");
    cluster.finish()?.untouched(&leader, &all(), since)?;
    Ok(())
}

#[test]
fn a_daemon_that_dies_while_the_program_is_replaced_is_followed_by_its_like() -> Outcome {
    let mut cluster = Cluster::prepare(&["a", "b"], &Plan::default())?;
    let program = cluster.node("a").start_own_copy()?;
    assert_eq!(cluster.leader()?, "a");
    cluster.node("b").start()?;
    cluster.settle()?;
    let since = Instant::now();
    // A package manager that was interrupted, or half of an upgrade.
    for half_way in [true, false] {
        fs::remove_file(&program)?;
        if half_way {
            fs::write(&program, "another version, half of it")?;
        }
        let daemon = cluster.node("a").kill_daemon()?;
        cluster.node("a").daemon_after(Some(daemon))?;
        cluster.leads_for("a", TTL * 2)?;
    }
    cluster.finish()?.untouched("a", &all(), since)?;
    Ok(())
}

#[test]
fn an_adopted_manifest_is_looked_after_again() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let daemon = cluster.node(&leader).kill_daemon()?;
    cluster.node(&leader).daemon_after(Some(daemon))?;
    let node = cluster.node(&leader);
    let (source, destination) =
        (node.sources().join(SCHEDULER), node.destinations().join(SCHEDULER));
    let edited = format!("{}# edited\n", fs::read_to_string(&source)?);
    fs::write(&source, &edited)?;
    let carried = || (fs::read_to_string(&destination).ok()? == edited).then_some(());
    eventually("the edit at the destination", PATIENCE, carried)?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn an_edit_made_while_no_daemon_lived_is_carried_over() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let node = cluster.node(&leader);
    let (source, destination) =
        (node.sources().join(SCHEDULER), node.destinations().join(SCHEDULER));
    let edited = format!("{}# edited\n", fs::read_to_string(&source)?);
    node.kill_daemon()?;
    fs::write(&source, &edited)?;
    let carried = || (fs::read_to_string(&destination).ok()? == edited).then_some(());
    eventually("the edit at the destination", PATIENCE, carried)?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn an_edited_configuration_waits_for_somebody_to_start_the_node() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let (since, term) = (Instant::now(), cluster.term()?.expect("a term"));
    let mut old = None;
    // One that is broken, one that means something else, and none.
    let other = "cluster: other\nstore: {embedded: {path: store.db}}\nelections: []\n";
    for edited in [Some("elections: ["), Some(other), None] {
        let file = cluster.node(&leader).root().join("conclave.yaml");
        match edited {
            Some(text) => fs::write(file, text)?,
            None => fs::remove_file(file)?,
        }
        let daemon = cluster.node(&leader).daemon_after(old)?;
        send(daemon, Signal::KILL)?;
        old = Some(daemon);
        cluster.node(&leader).daemon_after(old)?;
        cluster.leads_for(&leader, TTL * 2)?;
    }
    assert_eq!(cluster.term()?.expect("a term").token, term.token, "the same term goes on");
    assert_eq!(cluster.node(&leader).stop()?.code(), Some(0));
    cluster.leader_after(&leader)?;
    let story = cluster.finish()?;
    let held = story.holdings(&EXCLUSIVE);
    assert!(held[0].from < since && held.len() == 2, "it held on until it was stopped\n{story}");
    Ok(())
}

#[test]
fn a_term_that_runs_out_while_the_daemon_is_dead_is_withdrawn_by_the_guard() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    // Nothing that the new daemon does reaches the store.
    cluster.link(&leader, Mode::BlackHole)?;
    let cut = Instant::now();
    cluster.node(&leader).kill_daemon()?;
    let second = cluster.leader_after(&leader)?;
    cluster.leads_for(&second, TTL)?;
    let healed = Instant::now();
    cluster.link(&leader, Mode::Pass)?;
    cluster.settle()?;
    cluster.finish()?.absent(&leader, &EXCLUSIVE, cut + TTL, healed)?;
    Ok(())
}

#[test]
fn a_killed_standby_daemon_stands_again() -> Outcome {
    let mut cluster = Cluster::start(&["a", "b"], &Plan { ttl: "60s", ..Plan::default() })?;
    let leader = cluster.leader()?;
    let standby = cluster.other(&leader);
    let daemon = cluster.node(&standby).kill_daemon()?;
    cluster.node(&standby).daemon_after(Some(daemon))?;
    cluster.settle()?;
    cluster.transfer(&standby)?;
    assert_eq!(cluster.leader_after(&leader)?, standby);
    cluster.finish()?;
    Ok(())
}

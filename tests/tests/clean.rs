//! `conclave clean`: what a dead pair left goes, without a store; what is not its own stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::pod::{API_SERVER, CONTROLLER_MANAGER, EXCLUSIVE, SCHEDULER};
use conclave_tests::process::Signal;
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, binary, eventually};

/// A node that led and was killed whole; its store is gone, too.
fn dead() -> Result<Cluster> {
    let mut cluster = Cluster::prepare(&["a"], &Plan::default())?;
    cluster.node("a").start()?;
    cluster.settle()?;
    cluster.node("a").kill()?;
    cluster.etcd[0].kill()?;
    Ok(cluster)
}

fn clean(arguments: &[&Path]) -> Result<Output> {
    let mut command = Command::new(binary::conclave());
    command.arg("clean").args(arguments).output().context("cannot run conclave clean")
}

fn clean_config(cluster: &mut Cluster) -> Result<Output> {
    let config = cluster.node("a").write_config()?;
    clean(&[Path::new("--config"), &config])
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn paths(output: &Output) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect();
    paths.sort();
    paths
}

#[test]
fn what_a_dead_pair_left_goes_and_nothing_else() -> Outcome {
    for by_config in [true, false] {
        let mut cluster = dead()?;
        let destinations = cluster.node("a").destinations();
        let foreign = destinations.join("foreign.yaml");
        fs::write(&foreign, "somebody else's")?;
        let state = cluster.node("a").root().join("state");
        let mut call = || match by_config {
            true => clean_config(&mut cluster),
            false => clean(&[Path::new("--state-dir"), &state]),
        };
        let output = call()?;
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        let expected = [CONTROLLER_MANAGER, SCHEDULER].map(|file| destinations.join(file));
        assert_eq!(paths(&output), expected, "{}", words(&output));
        let again = call()?;
        assert_eq!((again.status.code(), paths(&again)), (Some(0), vec![]), "{}", words(&again));
        for file in EXCLUSIVE {
            assert!(!destinations.join(file).exists(), "{file}");
        }
        assert!(destinations.join(API_SERVER).exists(), "what runs everywhere stays");
        assert_eq!(fs::read_to_string(foreign)?, "somebody else's");
    }
    Ok(())
}

#[test]
fn what_somebody_changed_is_saved_first() -> Outcome {
    let mut cluster = dead()?;
    let edited = cluster.node("a").destinations().join(SCHEDULER);
    fs::write(&edited, "edited in an emergency")?;
    let output = clean_config(&mut cluster)?;
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(!edited.exists());
    let saved = fs::read_dir(cluster.node("a").root().join("state/saved"))?;
    let saved: Vec<_> = saved.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert_eq!(fs::read_to_string(&saved[0])?, "edited in an emergency");
    assert!(words(&output).contains("was saved"), "{}", words(&output));
    Ok(())
}

#[test]
fn what_is_put_there_afterwards_is_nobody_elses_business() -> Outcome {
    let mut cluster = dead()?;
    assert_eq!(clean_config(&mut cluster)?.status.code(), Some(0));
    // The dead guard watched over this path. The next one must not.
    let foreign = cluster.node("a").destinations().join(SCHEDULER);
    fs::write(&foreign, "put there by hand")?;
    cluster.etcd[0].restart()?;
    cluster.node("a").start()?;
    let node = cluster.node("a");
    let api_server = node.destinations().join(API_SERVER);
    fs::remove_file(&api_server)?;
    eventually("the node to do its work", PATIENCE, || api_server.exists().then_some(()))?;
    assert_eq!(fs::read_to_string(&foreign)?, "put there by hand");
    Ok(())
}

#[test]
fn a_live_pair_is_left_alone() -> Outcome {
    let mut cluster = Cluster::prepare(&["a"], &Plan { ttl: "60s", ..Plan::default() })?;
    cluster.node("a").start()?;
    cluster.settle()?;
    let guard = cluster.node("a").guard()?.pid();
    let output = clean_config(&mut cluster)?;
    assert_eq!(output.status.code(), Some(5), "{}", words(&output));
    let who = format!("the guard with process id {}", guard.as_raw_nonzero());
    assert!(words(&output).contains(&who), "{}", words(&output));

    assert_eq!(cluster.observer.holders(&EXCLUSIVE), ["a"]);

    // A daemon whose guard is dead is a pair, too. Without its store it cannot even resign.
    let daemon = cluster.node("a").daemon()?;
    cluster.link("a", Mode::BlackHole)?;
    cluster.node("a").signal(Signal::KILL)?;
    cluster.node("a").guard()?.wait(PATIENCE)?;
    cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
    let output = clean_config(&mut cluster)?;
    assert_eq!(output.status.code(), Some(5), "{}", words(&output));
    let who = format!("the daemon with process id {}", daemon.as_raw_nonzero());
    assert!(words(&output).contains(&who), "{}", words(&output));
    Ok(())
}

#[test]
fn a_damaged_ledger_needs_the_configuration() -> Outcome {
    let mut cluster = dead()?;
    let destination = cluster.node("a").destinations().join(SCHEDULER);
    fs::write(cluster.node("a").root().join("state/ledger.json"), "{")?;
    let state = cluster.node("a").root().join("state");
    let output = clean(&[Path::new("--state-dir"), &state])?;
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("--config"), "{}", words(&output));
    assert!(destination.exists());
    // The configuration tells where to look; the files are copies of their sources, hence ours.
    let output = clean_config(&mut cluster)?;
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(!destination.exists());
    Ok(())
}

#[test]
fn there_is_nothing_to_clean_where_nothing_ever_ran() -> Outcome {
    let cluster = Cluster::prepare(&["a"], &Plan::default())?;
    let config = cluster.nodes[0].write_config()?;
    let output = clean(&[Path::new("--config"), &config])?;
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(!cluster.nodes[0].root().join("state").exists(), "it makes nothing");
    let output = clean(&[Path::new("--config"), Path::new("/nowhere/conclave.yaml")])?;
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    Ok(())
}

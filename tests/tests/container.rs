//! The guard as process 1 of a container: nobody else is there to stop it, to reap what loses its
//! parent, or to end it by default.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::process::{Pid, Signal, alive, children, innermost_id, send};
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::json;

/// Puts a program into process and mount namespaces of its own.
fn unshare() -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mut attempt = Command::new("unshare");
    let attempt = attempt.args(command.get_args()).arg("true").output();
    let attempt = attempt.context("cannot run `unshare`: install util-linux")?;
    ensure!(
        attempt.status.success(),
        "this test makes the guard process 1 of a namespace, and may not: run it as root, with \
         CAP_SYS_ADMIN, or where unprivileged user namespaces are allowed \
         (sysctl kernel.unprivileged_userns_clone=1): {}",
        String::from_utf8_lossy(&attempt.stderr)
    );
    Ok(command)
}

/// Starts a node's guard as process 1, and returns its process id as seen from here.
fn start_contained(cluster: &mut Cluster, name: &str) -> Result<Pid> {
    let mut container = unshare()?;
    let node = cluster.node(name);
    node.start_as(|conclave| {
        container.arg(conclave.get_program()).args(conclave.get_args());
        if let Some(directory) = conclave.get_current_dir() {
            container.current_dir(directory);
        }
        container
    })?;
    let unshare = node.guard()?.pid();
    let guard = eventually("the guard", PATIENCE, || children(unshare).first().copied())?;
    eventually("the guard to be process 1", PATIENCE, || {
        (innermost_id(guard).ok()? == 1).then_some(())
    })?;
    Ok(guard)
}

#[test]
fn as_process_1_the_guard_stops_when_told_to() -> Outcome {
    for signal in [Signal::TERM, Signal::INT] {
        let mut cluster = Cluster::prepare(&["a", "b"], &Plan::default())?;
        let guard = start_contained(&mut cluster, "a")?;
        assert_eq!(cluster.leader()?, "a");
        cluster.node("b").start()?;
        cluster.settle()?;
        send(guard, signal)?;
        assert_eq!(cluster.leader_after("a")?, "b");
        // `unshare` ends as the guard does.
        assert_eq!(cluster.node("a").guard()?.wait(PATIENCE)?.code(), Some(0));
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn as_process_1_the_guard_reaps_what_loses_its_parent() -> Outcome {
    let mut cluster = Cluster::prepare(&["a"], &Plan::default())?;
    // Each look leaves a process behind that ends a little later, without a parent of its own.
    cluster.node("a").config()["elections"][0]["fitness"] = json!([{
        "name": "forgetful",
        "command": ["sh", "-c", "setsid sleep 0.3 >/dev/null 2>&1 &"],
        "interval": "100ms",
    }]);
    let guard = start_contained(&mut cluster, "a")?;
    assert_eq!(cluster.leader()?, "a");
    let mut orphans = BTreeSet::new();
    eventually("twenty processes to lose their parents", PATIENCE, || {
        orphans.extend(children(guard).iter().map(|pid| pid.as_raw_nonzero()));
        (orphans.len() > 20).then_some(())
    })?;
    let unreaped = || children(guard).into_iter().filter(|pid| !alive(*pid));
    eventually("the guard to have reaped what ended", PATIENCE, || {
        // All of the first ten are long dead, and so must not be there in any form.
        let present: BTreeSet<_> = children(guard).iter().map(|pid| pid.as_raw_nonzero()).collect();
        let old = orphans.iter().filter(|pid| present.contains(*pid)).count();
        (old <= 1).then_some(())
    })?;
    eventually("a moment without a corpse", PATIENCE, || (unreaped().count() == 0).then_some(()))?;
    send(guard, Signal::TERM)?;
    cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
    assert_eq!(cluster.node("a").guard()?.wait(PATIENCE)?.code(), Some(0));
    cluster.finish()?;
    Ok(())
}

//! Replacing the program of a running node by another version: guard and daemon one at a time, and
//! the term goes on.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::TTL;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::podmaster::Place;
use conclave_tests::process::{Pid, Process, Signal, alive, executable, send};
use conclave_tests::{Outcome, PATIENCE, binary, etcd, eventually};

fn all() -> Vec<&'static str> {
    [&EXCLUSIVE[..], &[API_SERVER]].concat()
}

/// Two nodes of which `a` leads, from a copy of the program that is its own.
fn led_by_own_copy(plan: &Plan) -> Result<(Cluster, PathBuf)> {
    let mut cluster = Cluster::prepare(&["a", "b"], plan)?;
    let program = cluster.node("a").start_own_copy()?;
    assert_eq!(cluster.leader()?, "a");
    cluster.node("b").start()?;
    cluster.settle()?;
    Ok((cluster, program))
}

/// A TTL that outlasts the test: what moves was moved on purpose.
fn patient() -> Plan {
    Plan { ttl: "60s", ..Plan::default() }
}

fn file(path: &Path) -> Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Puts a program at `path` as a package manager would.
fn install(path: &Path, program: &str) -> Result<()> {
    let staged = path.with_extension("new");
    fs::write(&staged, program)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(staged, path)?)
}

/// Waits for the guard's log to contain `text`.
fn logged(cluster: &mut Cluster, text: &str) -> Result<()> {
    let node = cluster.node("a");
    eventually(text, PATIENCE, || node.output().ok()?.contains(text).then_some(()))
}

fn runs(pid: Pid, program: &Path) -> Result<bool> {
    Ok(executable(pid)? == file(program)?)
}

#[test]
fn an_upgrade_keeps_the_term_and_touches_nothing() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&Plan::default())?;
    let (since, term) = (Instant::now(), cluster.term()?.expect("a term"));
    let guard = cluster.node("a").guard()?.pid();
    for _ in 0..3 {
        let old = cluster.node("a").daemon()?;
        binary::install_at(&program)?;
        assert!(!runs(guard, &program)? && !runs(old, &program)?);
        cluster.node("a").signal(Signal::USR2)?;
        let new = cluster.node("a").daemon_replaced(old)?;
        assert!(cluster.node("a").guard()?.ended()?.is_none(), "the guard is the same process");
        assert!(runs(guard, &program)?, "by another program");
        eventually("the new daemon's program", PATIENCE, || {
            runs(new, &program).ok()?.then_some(())
        })?;
        // It beats again: longer than its session would have lasted without.
        cluster.leads_for("a", TTL * 2)?;
    }
    let now = cluster.term()?.expect("a term");
    assert_eq!((now.key, now.token), (term.key, term.token), "the same term goes on");
    // It is a node like any other afterwards.
    let daemon = cluster.node("a").kill_daemon()?;
    cluster.node("a").daemon_replaced(daemon)?;
    cluster.leads_for("a", TTL * 2)?;
    let until = Instant::now();
    assert_eq!(cluster.node("a").stop()?.code(), Some(0));
    assert_eq!(cluster.leader_after("a")?, "b");
    let story = cluster.finish()?;
    let stood = &story.holdings(&EXCLUSIVE)[0];
    assert!(stood.from < since && stood.to > Some(until), "{story}");
    let touched = story.sightings(&EXCLUSIVE).filter(|it| it.node == "a" && it.at > since);
    assert_eq!(touched.filter(|it| it.at < until).count(), 0, "{story}");
    Ok(())
}

#[test]
fn at_a_short_ttl_an_upgrade_never_makes_two() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&Plan { ttl: "500ms", ..Plan::default() })?;
    for _ in 0..5 {
        let old = cluster.node("a").daemon()?;
        binary::install_at(&program)?;
        cluster.node("a").signal(Signal::USR2)?;
        cluster.node("a").daemon_replaced(old)?;
        cluster.settle()?;
    }
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&Plan::default())?;
    let (since, daemon) = (Instant::now(), cluster.node("a").daemon()?);
    for (text, refusal) in [
        ("half of a program", "cannot run the installed program, not upgrading"),
        ("#!/bin/sh\nexit 1\n", "the installed program cannot take over, not upgrading"),
    ] {
        install(&program, text)?;
        cluster.node("a").signal(Signal::USR2)?;
        logged(&mut cluster, refusal)?;
    }
    fs::remove_file(&program)?;
    cluster.node("a").signal(Signal::USR2)?;
    logged(&mut cluster, "No such file or directory")?;
    cluster.leads_for("a", TTL * 2)?;
    assert!(alive(daemon));
    cluster.finish()?.untouched("a", &all(), since)?;
    Ok(())
}

#[test]
fn a_version_that_cannot_go_on_with_the_term_gives_it_up_in_order() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&patient())?;
    let guard = cluster.node("a").guard()?.pid();
    // As another version does whose state has another layout: exit code 6.
    let binary = binary::conclave().display();
    let another = format!("#!/bin/sh\n[ \"$1\" = takes-over ] && exit 6\nexec {binary} \"$@\"\n");
    install(&program, &another)?;
    cluster.node("a").signal(Signal::USR2)?;
    // The TTL is a minute: the term was handed over.
    assert_eq!(cluster.leader_after("a")?, "b");
    logged(&mut cluster, "cannot go on with this session")?;
    cluster.settle()?;
    assert!(runs(guard, binary::conclave())?, "started anew in its own place");
    assert!(cluster.node("a").guard()?.ended()?.is_none());
    assert_eq!(cluster.node("a").stop()?.code(), Some(0));
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_program_that_takes_over_and_hangs_costs_the_term_and_no_more() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&patient())?;
    let daemon = cluster.node("a").daemon()?;
    install(&program, "#!/bin/sh\n[ \"$1\" = takes-over ] && exit 0\nexec sleep 1000\n")?;
    cluster.node("a").signal(Signal::USR2)?;
    // The guard is a program that does nothing. The TTL is a minute: its daemon resigned.
    assert_eq!(cluster.leader_after("a")?, "b");
    eventually("the daemon to exit", PATIENCE, || (!alive(daemon)).then_some(()))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn the_versions_layouts_are_compared() -> Outcome {
    let (mut cluster, _) = led_by_own_copy(&patient())?;
    let config = std::fs::File::open(cluster.node("a").write_config()?)?;
    let output = Command::new(binary::conclave())
        .args(["takes-over", "0.0.0", "run", "--config", "conclave.yaml"])
        .current_dir(cluster.node("a").root())
        .stdin(config)
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{words}");
    assert!(words.contains("layout 0.0.0"), "{words}");
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_podmaster_is_upgraded_under_its_own_name() -> Outcome {
    let (etcd, place) = (etcd::shared(), Place::new("upgrade")?);
    let program = place.root().join("podmaster");
    symlink(binary::conclave(), &program)?;
    let mut command = Command::new(&program);
    command
        .args([format!("--etcd-servers={}", etcd.url()), "--key=upgrade".into()])
        .args(["--whoami=upgrade", "--ttl-secs=600"])
        .arg(format!("--source-file={}", place.source().display()))
        .arg(format!("--dest-file={}", place.destination().display()));
    let mut process = Process::start("podmaster", place.root(), command)?;
    eventually("the manifest", PATIENCE, || place.placed().map(drop))?;
    let (inode, old) = (file(&place.destination())?, process.children()[0]);
    process.signal(Signal::USR2)?;
    eventually("the old daemon's end", PATIENCE, || (!alive(old)).then_some(()))?;
    eventually("another daemon", PATIENCE, || {
        process.children().into_iter().any(alive).then_some(())
    })?;
    assert_eq!(file(&place.destination())?, inode, "nobody touched it");
    let said = process.output()?;
    assert!(said.contains("guard goes on by another program"), "{said}");
    process.signal(Signal::TERM)?;
    assert_eq!(process.wait(PATIENCE)?.code(), Some(0));
    assert_eq!(place.placed(), None);
    Ok(())
}

#[test]
fn an_upgraded_guard_keeps_the_deadline_of_a_frozen_daemon() -> Outcome {
    let (mut cluster, program) = led_by_own_copy(&Plan::default())?;
    let daemon = cluster.node("a").daemon()?;
    binary::install_at(&program)?;
    let cut = Instant::now();
    send(daemon, Signal::STOP)?;
    cluster.node("a").signal(Signal::USR2)?;
    assert_eq!(cluster.leader_after("a")?, "b");
    cluster.node("a").daemon_replaced(daemon)?;
    let until = Instant::now();
    cluster.settle()?;
    cluster.finish()?.absent("a", &EXCLUSIVE, cut + TTL, until)?;
    Ok(())
}

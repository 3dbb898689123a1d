//! How nodes end: told to, twice, alone, halves of them, and all at once.

use std::io::Write as _;
use std::time::{Duration, Instant};

use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::TTL;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::process::{Signal, alive, send, stopped};
use conclave_tests::proxy::Mode;
use conclave_tests::seed::Seed;
use conclave_tests::{Outcome, PATIENCE, eventually};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A TTL that outlasts the test: whatever happens did not happen because a session ran out.
fn patient() -> Plan {
    Plan { ttl: "60s", ..Plan::default() }
}

#[test]
fn sigterm_and_sigint_hand_over_at_once() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let first = cluster.leader()?;
    cluster.node(&first).signal(Signal::INT)?;
    let second = cluster.leader_after(&first)?;
    assert_eq!(cluster.node(&first).guard()?.wait(PATIENCE)?.code(), Some(0));
    cluster.node(&second).signal(Signal::TERM)?;
    let third = cluster.leader_after(&second)?;
    assert_eq!(cluster.node(&second).guard()?.wait(PATIENCE)?.code(), Some(0));
    // Nobody is left to take it: it is resigned.
    assert_eq!(cluster.node(&third).stop()?.code(), Some(0));
    cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
    assert_eq!(cluster.term()?, None);
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() -> Outcome {
    let mut cluster = Cluster::prepare(&NAMES[..2], &Plan::default())?;
    // A pipe that is full from the start, as behind a log collector that hangs.
    let (_unread, mut pipe) = std::io::pipe()?;
    let size = rustix::pipe::fcntl_getpipe_size(&pipe)?;
    pipe.write_all(&vec![b'.'; size])?;
    cluster.node("a").start_logging_into(&pipe)?;
    assert_eq!(cluster.leader()?, "a");
    cluster.node("b").start()?;
    cluster.settle()?;
    // Many more lines than wait to be written, and no beat is late.
    cluster.leads_for("a", TTL * 3)?;
    assert_eq!(cluster.node("a").stop()?.code(), Some(0));
    assert_eq!(cluster.leader_after("a")?, "b");
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_stopping_standby_disturbs_nobody() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let standby = cluster.other(&leader);
    let since = Instant::now();
    assert_eq!(cluster.node(&standby).stop()?.code(), Some(0));
    cluster.leads_for(&leader, TTL)?;
    let story = cluster.finish()?;
    story.untouched(&leader, &EXCLUSIVE, since)?;
    story.untouched(&standby, &[API_SERVER], since)?;
    Ok(())
}

#[test]
fn a_node_that_is_cut_off_still_stops() -> Outcome {
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let mut cluster = Cluster::three()?;
        let leader = cluster.leader()?;
        cluster.link(&leader, mode)?;
        let cut = Instant::now();
        cluster.node(&leader).signal(Signal::TERM)?;
        cluster.leader_after(&leader)?;
        cluster.node(&leader).guard()?.wait(PATIENCE)?;
        let ended = Instant::now();
        cluster.finish()?.absent(&leader, &EXCLUSIVE, cut + TTL, ended)?;
    }
    Ok(())
}

#[test]
fn a_second_signal_aborts_but_not_before_withdrawing() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    // The store hangs, so that a clean end is out of reach for the whole minute.
    cluster.link(&leader, Mode::BlackHole)?;
    cluster.node(&leader).signal(Signal::TERM)?;
    eventually("the manifests to be withdrawn", PATIENCE, || {
        cluster.observer.holders(&EXCLUSIVE).is_empty().then_some(())
    })?;
    let guard = cluster.node(&leader).guard()?;
    if guard.ended()?.is_none() {
        guard.signal(Signal::TERM)?;
    }
    let status = guard.wait(PATIENCE)?;
    assert!(!status.success(), "an aborted stop is no success: {status}");
    assert!(guard.family().is_empty());
    Ok(())
}

#[test]
fn guard_and_daemon_killed_together_are_followed_after_the_ttl() -> Outcome {
    let mut cluster = Cluster::three()?;
    let first = cluster.leader()?;
    let second = cluster.other(&first);
    cluster.node(&first).kill()?;
    // Nobody is left on the first node to remove its files, so two nodes have them for now: this
    // is the case that a power cut makes, where the pods are gone too.
    eventually("the second's manifests", PATIENCE, || {
        let holders = cluster.observer.holders(&EXCLUSIVE);
        holders.iter().any(|node| *node != first).then_some(())
    })?;
    // Its next start cleans up before anything else: the store is out of its reach.
    cluster.link(&first, Mode::Refuse)?;
    cluster.node(&first).start()?;
    eventually("the first's leftovers to go", PATIENCE, || {
        (!cluster.observer.holders(&EXCLUSIVE).contains(&first)).then_some(())
    })?;
    cluster.link(&first, Mode::Pass)?;
    cluster.settle()?;
    assert_ne!(cluster.leader()?, first, "{second} or the third goes on");
    Ok(())
}

#[test]
fn a_daemon_whose_guard_is_killed_withdraws_and_leaves() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let daemon = cluster.node(&leader).daemon()?;
    cluster.node(&leader).signal(Signal::KILL)?;
    // The TTL is a minute: the others lead because the daemon resigned.
    cluster.leader_after(&leader)?;
    eventually("the daemon to exit", PATIENCE, || (!alive(daemon)).then_some(()))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_frozen_daemon_whose_guard_is_killed_wakes_up_and_withdraws() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let daemon = cluster.node(&leader).daemon()?;
    send(daemon, Signal::STOP)?;
    eventually("the daemon to stand still", PATIENCE, || stopped(daemon).then_some(()))?;
    cluster.node(&leader).signal(Signal::KILL)?;
    // The kernel hangs up on it and wakes it. The TTL is a minute: the others lead because it
    // resigned.
    cluster.leader_after(&leader)?;
    eventually("the daemon to exit", PATIENCE, || (!alive(daemon)).then_some(()))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_daemon_without_a_guard_is_not_aborted() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let daemon = cluster.node(&leader).daemon()?;
    cluster.link(&leader, Mode::BlackHole)?;
    cluster.node(&leader).signal(Signal::KILL)?;
    eventually("the manifests to be withdrawn", PATIENCE, || {
        cluster.observer.holders(&EXCLUSIVE).is_empty().then_some(())
    })?;
    // It cannot resign yet. Nobody but itself could finish what it is at.
    for _ in 0..3 {
        send(daemon, Signal::TERM)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(alive(daemon), "it gave up before it had resigned");
    cluster.link(&leader, Mode::Pass)?;
    cluster.leader_after(&leader)?;
    eventually("the daemon to exit", PATIENCE, || (!alive(daemon)).then_some(()))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_node_is_stopped_in_order_between_two_daemons() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let (guard, daemon) = (cluster.node(&leader).guard()?.pid(), cluster.node(&leader).daemon()?);
    // The guard learns of the death and the request at once.
    send(guard, Signal::STOP)?;
    eventually("the guard to stand still", PATIENCE, || stopped(guard).then_some(()))?;
    send(daemon, Signal::KILL)?;
    send(guard, Signal::TERM)?;
    send(guard, Signal::CONT)?;
    // The TTL is a minute: the others lead because the term was given up.
    cluster.leader_after(&leader)?;
    assert_eq!(cluster.node(&leader).guard()?.wait(PATIENCE)?.code(), Some(0));
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_guard_started_again_at_once_copes_with_the_living_daemon() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let old = cluster.node(&leader).daemon()?;
    cluster.node(&leader).signal(Signal::KILL)?;
    cluster.node(&leader).guard()?.wait(PATIENCE)?;
    cluster.node(&leader).start()?;
    cluster.node(&leader).daemon_after(Some(old))?;
    assert!(!alive(old), "two daemons on one state directory");
    cluster.settle()?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_guard_started_again_copes_with_a_daemon_that_dies_just_then() -> Outcome {
    let mut seed = Seed::announce("a_guard_started_again_copes_with_a_daemon_that_dies_just_then");
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let standby = cluster.other(&leader);
    for _ in 0..10 {
        let old = cluster.node(&standby).daemon()?;
        cluster.node(&standby).signal(Signal::KILL)?;
        cluster.node(&standby).guard()?.wait(PATIENCE)?;
        cluster.node(&standby).start()?;
        // When exactly is what is random.
        std::thread::sleep(Duration::from_millis(seed.below(60)));
        // It may have ended by itself.
        let _ = send(old, Signal::KILL);
        cluster.node(&standby).daemon_after(Some(old))?;
    }
    cluster.settle()?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_frozen_daemon_is_withdrawn_for_by_its_guard() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let daemon = cluster.node(&leader).daemon()?;
    let cut = Instant::now();
    send(daemon, Signal::STOP)?;
    let second = cluster.leader_after(&leader)?;
    cluster.node(&leader).daemon_after(Some(daemon))?;
    assert!(!alive(daemon), "the guard ends a daemon that missed its deadline");
    cluster.leads_for(&second, TTL)?;
    let until = Instant::now();
    cluster.settle()?;
    // The last beat may have been sent just before the freeze.
    cluster.finish()?.absent(&leader, &EXCLUSIVE, cut + TTL, until)?;
    Ok(())
}

#[test]
fn a_daemon_whose_guard_is_frozen_withdraws_and_leaves() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let (guard, daemon) = (cluster.node(&leader).guard()?.pid(), cluster.node(&leader).daemon()?);
    send(guard, Signal::STOP)?;
    eventually("the guard to stand still", PATIENCE, || stopped(guard).then_some(()))?;
    cluster.leader_after(&leader)?;
    eventually("the daemon to exit", PATIENCE, || (!alive(daemon)).then_some(()))?;
    // Back to life, it starts a new daemon that is a candidate again.
    send(guard, Signal::CONT)?;
    cluster.settle()?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_node_frozen_whole_comes_back_as_a_standby() -> Outcome {
    let mut cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let family = cluster.node(&leader).guard()?.family();
    family.iter().try_for_each(|pid| send(*pid, Signal::STOP))?;
    // As with a suspended machine, its files are there for now and nobody acts on them.
    eventually("another's manifests", PATIENCE, || {
        cluster.observer.holders(&EXCLUSIVE).iter().any(|node| *node != leader).then_some(())
    })?;
    family.iter().try_for_each(|pid| send(*pid, Signal::CONT))?;
    eventually("the sleeper's manifests to go", PATIENCE, || {
        (!cluster.observer.holders(&EXCLUSIVE).contains(&leader)).then_some(())
    })?;
    let second = cluster.leader()?;
    cluster.settle()?;
    cluster.leads_for(&second, Duration::from_secs(1))?;
    Ok(())
}

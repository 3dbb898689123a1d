//! Three nodes, real etcd, real manifests: one holder at most, whatever happens to whom, and both
//! exclusive manifests always move together (`Cluster::finish` checks both).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::etcd::Version;
use conclave_tests::node::TTL;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::process::Signal;
use conclave_tests::proxy::Mode;
use conclave_tests::timeline::Timeline;
use conclave_tests::{Outcome, PATIENCE, eventually};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A TTL that no outage in its test comes near.
fn patient() -> Plan {
    Plan { ttl: "60s", ..Plan::default() }
}

/// Checks that a leader cut off at `cut` had nothing exclusive from its expiry to `healed`: its
/// last confirmed beat was sent before `cut`.
fn gone_by_expiry(story: &Timeline, leader: &str, cut: Instant, healed: Instant) -> Result<()> {
    ensure!(healed > cut + TTL, "the outage outlasts the TTL");
    story.absent(leader, &EXCLUSIVE, cut + TTL, healed)
}

#[test]
fn one_of_three_holds_both_manifests_and_all_run_the_api_server() -> Outcome {
    for version in Version::ALL {
        let cluster = Cluster::start(&NAMES, &Plan { version, ..Plan::default() })?;
        let leader = cluster.leader()?;
        let term = cluster.term()?.expect("a term");
        assert_eq!(term.record["holder"], leader.as_str());
        cluster.leads_for(&leader, TTL)?;
        let story = cluster.finish()?;
        for (node, file) in story.in_place() {
            assert!(node == leader || file == API_SERVER, "{file} on {node}");
        }
    }
    Ok(())
}

#[test]
fn sigterm_hands_the_term_on_and_a_restarted_node_stands_by() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let first = cluster.leader()?;
    let before = cluster.term()?.expect("a term").token;
    assert_eq!(cluster.node(&first).stop()?.code(), Some(0));
    let second = cluster.leader_after(&first)?;
    assert!(cluster.term()?.expect("a term").token > before, "tokens only grow");
    cluster.node(&first).start()?;
    cluster.settle()?;
    assert_eq!(cluster.leader()?, second);
    let story = cluster.finish()?;
    assert_eq!(story.holdings(&EXCLUSIVE).len(), 2, "nobody took it back\n{story}");
    assert_eq!(story.holdings(&[API_SERVER]).len(), 3, "what runs everywhere stayed\n{story}");
    Ok(())
}

#[test]
fn a_term_is_transferred_on_request() -> Outcome {
    let cluster = Cluster::start(&NAMES, &patient())?;
    let first = cluster.leader()?;
    let target = cluster.other(&first);
    cluster.transfer(&target)?;
    assert_eq!(cluster.leader_after(&first)?, target);
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_killed_daemon_moves_nothing() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let since = Instant::now();
    for name in NAMES {
        let old = cluster.node(name).kill_daemon()?;
        cluster.node(name).daemon_after(Some(old))?;
    }
    cluster.leads_for(&leader, TTL)?;
    let story = cluster.finish()?;
    for name in NAMES {
        story.untouched(name, &[&EXCLUSIVE[..], &[API_SERVER]].concat(), since)?;
    }
    Ok(())
}

#[test]
fn an_etcd_restart_moves_nothing_within_the_ttl() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    let (since, term) = (Instant::now(), cluster.term()?.expect("a term"));
    cluster.etcd[0].stop()?;
    cluster.etcd[0].restart()?;
    cluster.etcd[0].kill()?;
    cluster.etcd[0].restart()?;
    // Beats arrive again: the sessions still stand after what would have been their end.
    cluster.wait_for_candidates(3)?;
    assert_eq!(cluster.term()?.map(|now| now.token), Some(term.token));
    // And the store is not only readable: the next handover goes through.
    assert_eq!(cluster.node(&leader).stop()?.code(), Some(0));
    cluster.leader_after(&leader)?;
    let story = cluster.finish()?;
    let stood = &story.holdings(&EXCLUSIVE)[0];
    assert!(stood.from < since && stood.to > Some(since), "{story}");
    Ok(())
}

#[test]
fn an_etcd_restart_at_a_short_ttl_never_makes_two() -> Outcome {
    let mut cluster = Cluster::three()?;
    for _ in 0..3 {
        cluster.etcd[0].kill()?;
        cluster.etcd[0].restart()?;
        cluster.settle()?;
    }
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_slow_store_moves_nothing() -> Outcome {
    let cluster = Cluster::start(&NAMES, &patient())?;
    let leader = cluster.leader()?;
    for name in NAMES {
        cluster.link(name, Mode::Delay(Duration::from_millis(100)))?;
    }
    let since = Instant::now();
    cluster.leads_for(&leader, TTL)?;
    cluster.finish()?.untouched(&leader, &EXCLUSIVE, since)?;
    Ok(())
}

#[test]
fn a_hung_etcd_leaves_nobody_leading_past_the_expiry() -> Outcome {
    let cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    cluster.etcd[0].pause()?;
    let cut = Instant::now();
    cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
    cluster.nobody_leads_for(TTL * 2)?;
    let healed = Instant::now();
    cluster.etcd[0].resume()?;
    cluster.settle()?;
    gone_by_expiry(&cluster.finish()?, &leader, cut, healed)?;
    Ok(())
}

#[test]
fn black_holes_around_everybody_leave_nobody_leading_past_the_expiry() -> Outcome {
    let cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    NAMES.iter().try_for_each(|name| cluster.link(name, Mode::BlackHole))?;
    let cut = Instant::now();
    cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
    cluster.nobody_leads_for(TTL * 2)?;
    let healed = Instant::now();
    NAMES.iter().try_for_each(|name| cluster.link(name, Mode::Pass))?;
    cluster.settle()?;
    gone_by_expiry(&cluster.finish()?, &leader, cut, healed)?;
    Ok(())
}

/// Cuts only the leader off, and then lets it come back.
fn the_leader_alone_is_cut_off(mode: Mode) -> Result<()> {
    let cluster = Cluster::three()?;
    let first = cluster.leader()?;
    cluster.link(&first, mode)?;
    let cut = Instant::now();
    let second = cluster.leader_after(&first)?;
    cluster.leads_for(&second, TTL * 2)?;
    let healed = Instant::now();
    cluster.link(&first, Mode::Pass)?;
    cluster.settle()?;
    gone_by_expiry(&cluster.finish()?, &first, cut, healed)
}

#[test]
fn a_leader_in_a_black_hole_gives_way() -> Outcome {
    the_leader_alone_is_cut_off(Mode::BlackHole)?;
    Ok(())
}

#[test]
fn a_leader_that_is_refused_gives_way() -> Outcome {
    the_leader_alone_is_cut_off(Mode::Refuse)?;
    Ok(())
}

#[test]
fn a_leader_that_hears_nothing_gives_way() -> Outcome {
    the_leader_alone_is_cut_off(Mode::LoseReplies)?;
    Ok(())
}

#[test]
fn a_standby_in_a_black_hole_disturbs_nobody() -> Outcome {
    let cluster = Cluster::three()?;
    let leader = cluster.leader()?;
    let standby = cluster.other(&leader);
    let since = Instant::now();
    cluster.link(&standby, Mode::BlackHole)?;
    cluster.wait_for_candidates(2)?;
    cluster.link(&standby, Mode::Pass)?;
    cluster.settle()?;
    cluster.finish()?.untouched(&leader, &EXCLUSIVE, since)?;
    Ok(())
}

#[test]
fn a_dead_member_of_etcd_moves_nothing() -> Outcome {
    let mut cluster = Cluster::start(&NAMES, &Plan { members: 3, ..patient() })?;
    let leader = cluster.leader()?;
    let since = Instant::now();
    for member in 0..3 {
        cluster.etcd[member].kill()?;
        cluster.leads_for(&leader, TTL)?;
        cluster.etcd[member].restart()?;
    }
    // Two members black-holed at once would take the quorum along; one must not even be noticed.
    cluster.links.iter().try_for_each(|links| links[1].set(Mode::BlackHole))?;
    cluster.leads_for(&leader, TTL)?;
    let target = cluster.other(&leader);
    let second = since.elapsed();
    cluster.transfer(&target)?;
    assert_eq!(cluster.leader_after(&leader)?, target);
    let story = cluster.finish()?;
    let stood = &story.holdings(&EXCLUSIVE)[0];
    assert!(stood.to > Some(since + second), "the leader stood until the transfer\n{story}");
    Ok(())
}

#[test]
fn everybody_stopped_leaves_nothing_behind() -> Outcome {
    let mut cluster = Cluster::three()?;
    for name in NAMES {
        cluster.node(name).signal(Signal::TERM)?;
    }
    for name in NAMES {
        assert_eq!(cluster.node(name).guard()?.wait(PATIENCE)?.code(), Some(0), "{name}");
    }
    let prefix = "/conclave/plane/";
    eventually("no session and no leader key", PATIENCE, || {
        let keys = cluster.etcd[0].keys(prefix).ok()?;
        keys.iter()
            .all(|key| !key.contains("/sessions/") && !key.contains("/leader/"))
            .then_some(())
    })?;
    assert!(cluster.observer.holders(&EXCLUSIVE).is_empty());
    cluster.finish()?;
    Ok(())
}

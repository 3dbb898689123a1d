//! Podmaster mode while etcd fails: podmaster kept its manifest, or kept a processor busy.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conclave_tests::etcd::{self, Etcd, Version};
use conclave_tests::node::TTL;
use conclave_tests::podmaster::{Group, POD, SHORT};
use conclave_tests::process::{Process, processor_time};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::timeline::Timeline;
use conclave_tests::{Outcome, holds_for};

/// Whatever happens to its etcd, the group's leader has no manifest from a TTL after `cut` on,
/// until `healed`: its last confirmed beat was sent before.
fn gone_by_expiry(story: &Timeline, leader: &str, cut: Instant, healed: Instant) -> Result<()> {
    ensure!(healed > cut + TTL, "the outage outlasts the TTL");
    story.absent(leader, POD, cut + TTL, healed)
}

#[test]
fn a_hung_etcd_leaves_no_manifest_past_the_expiry() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    let group = Group::running(&etcd, "hung", &["a", "b", "c"], SHORT)?;
    let leader = group.leader()?;
    etcd.pause()?;
    let cut = Instant::now();
    group.observer.wait_for_nobody(POD)?;
    let others = || group.observer.holders(POD).is_empty();
    holds_for("nobody leads without a store", TTL * 2, others)?;
    let healed = Instant::now();
    etcd.resume()?;
    group.leader()?;
    gone_by_expiry(&group.finish()?, &leader, cut, healed)?;
    Ok(())
}

#[test]
fn a_dead_etcd_leaves_no_manifest_past_the_expiry() -> Outcome {
    let mut etcd = Etcd::start(Version::V3_5)?;
    let group = Group::running(&etcd, "dead", &["a", "b", "c"], SHORT)?;
    let leader = group.leader()?;
    etcd.kill()?;
    let cut = Instant::now();
    group.observer.wait_for_nobody(POD)?;
    holds_for("nobody leads", TTL * 2, || group.observer.holders(POD).is_empty())?;
    let healed = Instant::now();
    etcd.restart()?;
    group.leader()?;
    gone_by_expiry(&group.finish()?, &leader, cut, healed)?;
    Ok(())
}

/// Only the leader's own link fails, so that another takes over while the old leader lives.
fn only_the_leader_loses_etcd(key: &str, mode: Mode) -> Result<()> {
    let etcd = etcd::shared();
    let names = ["a", "b", "c"];
    let mut group = Group::new(key, &names)?;
    let mut links = Vec::new();
    for name in names {
        let link = Proxy::start(etcd.address())?;
        group.start(name, &link.url(), SHORT)?;
        links.push((name, link));
    }
    group.wait_for_sessions(etcd, 3)?;
    let first = group.leader()?;
    let link = &links.iter().find(|(name, _)| *name == first).expect("its link").1;
    link.set(mode)?;
    let cut = Instant::now();
    let second = group.observer.wait_for_new_holder(POD, &first)?;
    // Long enough for a leader that renews by reading, or never gives up, to come back.
    holds_for("the second leads alone", TTL * 2, || group.observer.holders(POD) == [&*second])?;
    let healed = Instant::now();
    link.set(Mode::Pass)?;
    group.wait_for_sessions(etcd, 3)?;
    let story = group.finish()?;
    gone_by_expiry(&story, &first, cut, healed)
}

#[test]
fn a_leader_that_is_refused_gives_way() -> Outcome {
    only_the_leader_loses_etcd("refused", Mode::Refuse)?;
    Ok(())
}

#[test]
fn a_leader_in_a_black_hole_gives_way() -> Outcome {
    only_the_leader_loses_etcd("blackhole", Mode::BlackHole)?;
    Ok(())
}

#[test]
fn a_leader_that_hears_no_replies_gives_way() -> Outcome {
    // Its beats still arrive: nobody can take over until it stops sending them, which it does at
    // its own deadline.
    only_the_leader_loses_etcd("deaf", Mode::LoseReplies)?;
    Ok(())
}

#[test]
fn a_leader_whose_requests_are_lost_gives_way() -> Outcome {
    only_the_leader_loses_etcd("mute", Mode::LoseRequests)?;
    Ok(())
}

#[test]
fn an_outage_costs_neither_processor_nor_log() -> Outcome {
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let link = Proxy::start(etcd::shared().address())?;
        let mut group = Group::new(&format!("calm{mode:?}"), &["a"])?;
        group.start("a", &link.url(), SHORT)?;
        group.leader()?;
        link.set(mode)?;
        group.observer.wait_for_nobody(POD)?;
        let process = group.process("a");
        let costs = |process: &Process| -> Result<(Duration, u64)> {
            let family = process.family().into_iter();
            let times = family.map(processor_time).collect::<Result<Vec<_>>>()?;
            Ok((times.into_iter().sum(), process.output_bytes()?))
        };
        let (time_before, bytes_before) = costs(process)?;
        // The outage itself is what is measured.
        std::thread::sleep(Duration::from_secs(10));
        let (time, bytes) = costs(process)?;
        // podmaster's final version used 8.8 s and wrote 100 MB.
        let (time, bytes) = (time.saturating_sub(time_before), bytes - bytes_before);
        assert!(time < Duration::from_secs(1), "{mode:?}: {time:?} of processor time in 10 s");
        assert!(bytes < 50_000, "{mode:?}: {bytes} bytes of log in 10 s");
    }
    Ok(())
}

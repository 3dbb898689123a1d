//! Who leads in podmaster mode, where podmaster got it wrong: each test fails on podmaster.

use std::time::Duration;

use anyhow::Context;
use conclave_tests::etcd::{self, Etcd, Version};
use conclave_tests::node::TTL;
use conclave_tests::observer::Observer;
use conclave_tests::podmaster::{Group, LONG, POD, Place, SHORT};
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, eventually, holds_for};

/// Three nodes race for a vacant key, again and again.
fn races(etcd: &Etcd, key: &str, count: usize) -> Outcome {
    let names = ["a", "b", "c"];
    let mut group = Group::new(key, &names)?;
    for _ in 0..count {
        names.iter().try_for_each(|name| group.start(name, &etcd.url(), SHORT))?;
        group.wait_for_sessions(etcd, names.len())?;
        group.leader()?;
        let holders = || group.observer.holders(POD).len();
        holds_for("one holder", Duration::from_millis(200), || holders() == 1)?;
        names.iter().try_for_each(|name| group.process(name).signal(Signal::TERM))?;
        for name in names {
            let status = group.process(name).wait(PATIENCE)?;
            assert!(status.success(), "{name}: {status}");
        }
        assert!(group.observer.holders(POD).is_empty(), "all have stopped");
    }
    group.finish()?;
    Ok(())
}

#[test]
fn three_started_together_give_one_holder_100_times() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    std::thread::scope(|scope| {
        let etcd = &etcd;
        let race = |number| scope.spawn(move || races(etcd, &format!("race{number}"), 25));
        let threads: Vec<_> = (0..4).map(race).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a race panicked"))
    })
}

#[test]
fn sigterm_hands_over_at_once() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "sigterm", &["a", "b", "c"], LONG)?;
    let first = group.leader()?;
    group.process(&first).signal(Signal::TERM)?;
    // The TTL is ten minutes: this ends in time only if the term was handed over.
    let second = group.observer.wait_for_new_holder(POD, &first)?;
    assert_eq!(group.process(&first).wait(PATIENCE)?.code(), Some(0));
    group.wait_for_sessions(etcd, 2)?;
    group.process(&second).signal(Signal::INT)?;
    let third = group.observer.wait_for_new_holder(POD, &second)?;
    assert_eq!(group.process(&second).wait(PATIENCE)?.code(), Some(0));
    group.process(&third).signal(Signal::TERM)?;
    group.observer.wait_for_nobody(POD)?;
    assert_eq!(group.process(&third).wait(PATIENCE)?.code(), Some(0));
    let story = group.finish()?;
    assert_eq!(story.holdings(POD).len(), 3, "each held it once\n{story}");
    Ok(())
}

#[test]
fn a_killed_leader_is_followed_after_its_ttl() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "killed", &["a", "b"], SHORT)?;
    let first = group.leader()?;
    let other = if first == "a" { "b" } else { "a" };
    group.process(&first).kill_family()?;
    // A killed pair cannot remove its file (a power cut would have taken the pod along), so the
    // other's is what shows.
    let place = group.place(other);
    eventually("the other's manifest", PATIENCE, || place.placed().map(drop))?;
    assert!(group.place(&first).placed().is_some());
    // Its next start cleans up first, and then is a standby.
    group.start(&first, &etcd.url(), SHORT)?;
    eventually("the old manifest to go", PATIENCE, || {
        group
            .nodes
            .iter()
            .all(|(_, place)| place.whoami() == other || place.placed().is_none())
            .then_some(())
    })?;
    group.wait_for_sessions(etcd, 2)?;
    assert_eq!(group.leader()?, other);
    Ok(())
}

#[test]
fn a_second_live_process_of_the_same_name_and_key_is_refused() -> Outcome {
    let etcd = etcd::shared();
    // Two machines whose operator gave both the same name: nothing on disk is shared.
    let (first, second) = (Place::new("twin")?, Place::new("twin")?);
    let observer = Observer::start([
        ("first", first.destination_dir().as_path()),
        ("second", second.destination_dir().as_path()),
    ])?;
    let running = first.start(&etcd.url(), "twins", SHORT)?;
    observer.wait_for_holder(POD)?;
    let mut refused = second.start(&etcd.url(), "twins", SHORT)?;
    let status = refused.wait(PATIENCE)?;
    assert!(!status.success(), "{status}");
    let said = refused.output()?;
    assert!(said.contains("twin"), "the message names the node: {said}");
    assert_eq!(observer.holders(POD), ["first"]);
    let story = observer.finish()?;
    assert_eq!(story.holdings(POD).len(), 1, "the first was never disturbed\n{story}");
    drop(running);
    Ok(())
}

#[test]
fn a_second_process_on_the_same_files_is_refused() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "samefiles", &["a"], SHORT)?;
    let mut second = group.place("a").start(&etcd.url(), "samefiles", SHORT)?;
    let status = second.wait(PATIENCE)?;
    assert!(!status.success(), "{status}");
    holds_for("the first leads", TTL, || group.observer.holders(POD) == ["a"])?;
    let story = group.finish()?;
    assert_eq!(story.holdings(POD).len(), 1, "the first was never disturbed\n{story}");
    Ok(())
}

#[test]
fn one_name_may_hold_different_keys() -> Outcome {
    let etcd = etcd::shared();
    let (scheduler, manager) = (Place::new("node")?, Place::new("node")?);
    let _one = scheduler.start(&etcd.url(), "two-scheduler", LONG)?;
    let _other = manager.start(&etcd.url(), "two-manager", LONG)?;
    eventually("both manifests", PATIENCE, || {
        (scheduler.placed().is_some() && manager.placed().is_some()).then_some(())
    })?;
    Ok(())
}

#[test]
fn two_keys_share_one_destination_directory() -> Outcome {
    // As in the pod that podmaster came in: one directory, two files, two processes.
    let etcd = etcd::shared();
    let place = Place::new("node")?;
    let other = place.destination_dir().join("other.yaml");
    let flag = format!("--dest-file={}", other.display());
    let _one = place.start(&etcd.url(), "shared-one", LONG)?;
    let mut second = place.start(&etcd.url(), "shared-two", &[LONG, &[&flag]].concat())?;
    eventually("both manifests", PATIENCE, || {
        (place.placed().is_some() && other.exists()).then_some(())
    })?;
    second.signal(Signal::TERM)?;
    assert_eq!(second.wait(PATIENCE)?.code(), Some(0));
    assert!(!other.exists() && place.placed().is_some());
    Ok(())
}

#[test]
fn sibling_keys_do_not_see_each_other() -> Outcome {
    let etcd = etcd::shared();
    let (short, long) = (Place::new("one")?, Place::new("other")?);
    let _short = short.start(&etcd.url(), "xy", LONG)?;
    let _long = long.start(&etcd.url(), "xyz", LONG)?;
    eventually("both manifests", PATIENCE, || {
        (short.placed().is_some() && long.placed().is_some()).then_some(())
    })?;
    Ok(())
}

#[test]
fn garbage_under_our_keys_stalls_nobody() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "garbage", &["a", "b"], LONG)?;
    let first = group.leader()?;
    for key in etcd.keys("/conclave/")?.iter().filter(|key| key.contains("/garbage")) {
        if key.contains("/sessions/") || key.contains("/candidates/") {
            let (parent, _) = key.rsplit_once('/').context("a key has a parent")?;
            etcd.ctl(&["put", &format!("{parent}/stranger"), "\u{fffd}{not json"])?;
        }
    }
    group.process(&first).signal(Signal::TERM)?;
    group.observer.wait_for_new_holder(POD, &first)?;
    assert_eq!(group.process(&first).wait(PATIENCE)?.code(), Some(0));
    group.finish()?;
    Ok(())
}

//! What podmaster mode does with manifests, where podmaster copied them once and looked away.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use conclave_tests::etcd;
use conclave_tests::node::TTL;
use conclave_tests::podmaster::{Group, LONG, POD};
use conclave_tests::process::Signal;
use conclave_tests::{Outcome, PATIENCE, eventually, holds_for, pod};

#[test]
fn an_edited_source_is_carried_over_while_leading() -> Outcome {
    let mut group = Group::running(etcd::shared(), "edit", &["a"], LONG)?;
    let place = group.place("a");
    let edited = pod::manifest("edited");
    fs::write(place.source(), &edited)?;
    place.wait_for("the edit at the destination", &edited)?;
    group.finish()?;
    Ok(())
}

#[test]
fn an_edit_by_rename_is_carried_over_while_leading() -> Outcome {
    let mut group = Group::running(etcd::shared(), "rename", &["a"], LONG)?;
    let place = group.place("a");
    let edited = pod::manifest("renamed");
    let staged = place.root().join("staged.yaml");
    fs::write(&staged, &edited)?;
    fs::rename(&staged, place.source())?;
    place.wait_for("the edit at the destination", &edited)?;
    group.finish()?;
    Ok(())
}

#[test]
fn bytes_and_mode_are_those_of_the_source() -> Outcome {
    let mut group = Group::new("mode", &["a"])?;
    let source = group.place("a").source();
    let text = format!("# caf\u{e9} \u{2713}\r\n{}\n\n", pod::manifest("exact"));
    fs::write(&source, &text)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640))?;
    group.start("a", &etcd::shared().url(), LONG)?;
    group.leader()?;
    let place = group.place("a");
    assert_eq!(place.placed(), Some(text));
    assert_eq!(fs::metadata(place.destination())?.permissions().mode() & 0o777, 0o640);
    group.finish()?;
    Ok(())
}

#[test]
fn an_invalid_edit_is_refused_and_the_good_copy_stays() -> Outcome {
    let mut group = Group::running(etcd::shared(), "invalid", &["a"], LONG)?;
    let place = group.place("a");
    let good = place.placed();
    fs::write(place.source(), "apiVersion: v1\nkind: [")?;
    holds_for("the good copy", TTL, || place.placed() == good)?;
    let mended = pod::manifest("mended");
    fs::write(place.source(), &mended)?;
    place.wait_for("the mended manifest", &mended)?;
    group.finish()?;
    Ok(())
}

#[test]
fn a_damaged_destination_is_repaired() -> Outcome {
    let mut group = Group::running(etcd::shared(), "damage", &["a"], LONG)?;
    let place = group.place("a");
    let good = place.placed();
    let repaired = || (place.placed() == good).then_some(());
    let destination = place.destination();
    fs::write(&destination, "scribbled over")?;
    eventually("the scribble to go", PATIENCE, repaired)?;
    fs::remove_file(&destination)?;
    eventually("the deleted file to return", PATIENCE, repaired)?;
    let foreign = place.root().join("foreign.yaml");
    fs::write(&foreign, pod::manifest("foreign"))?;
    fs::rename(&foreign, &destination)?;
    eventually("the replaced file to return", PATIENCE, repaired)?;
    Ok(())
}

#[test]
fn a_stale_file_is_removed_on_a_standby_and_replaced_on_the_leader() -> Outcome {
    let mut group = Group::new("stale", &["a", "b"])?;
    let stale = pod::manifest("stale");
    for name in ["a", "b"] {
        fs::write(group.place(name).destination(), &stale)?;
    }
    group.start("a", &etcd::shared().url(), LONG)?;
    let place = group.place("a");
    let fresh = fs::read_to_string(place.source())?;
    place.wait_for("the leader's own manifest", &fresh)?;
    group.start("b", &etcd::shared().url(), LONG)?;
    let place = group.place("b");
    eventually("the stale file to go", PATIENCE, || place.placed().is_none().then_some(()))?;
    assert_eq!(group.leader()?, "a");
    Ok(())
}

#[test]
fn a_node_without_a_source_never_keeps_others_out() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("sourceless", &["a", "b"])?;
    let source = group.place("a").source();
    let text = fs::read_to_string(&source)?;
    fs::remove_file(&source)?;
    group.start("a", &etcd.url(), LONG)?;
    group.wait_for_sessions(etcd, 1)?;
    group.start("b", &etcd.url(), LONG)?;
    assert_eq!(group.leader()?, "b");
    // Once it has a source it is a candidate like any other.
    fs::write(&source, text)?;
    group.process("b").signal(Signal::TERM)?;
    assert_eq!(group.observer.wait_for_new_holder(POD, "b")?, "a");
    group.finish()?;
    Ok(())
}

#[test]
fn a_node_with_an_invalid_source_never_keeps_others_out() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("unparsable", &["a", "b"])?;
    fs::write(group.place("a").source(), "kind: Pod\n")?;
    group.start("a", &etcd.url(), LONG)?;
    group.wait_for_sessions(etcd, 1)?;
    group.start("b", &etcd.url(), LONG)?;
    assert_eq!(group.leader()?, "b");
    group.finish()?;
    Ok(())
}

#[test]
fn a_leader_that_loses_its_source_keeps_the_good_copy() -> Outcome {
    let mut group = Group::running(etcd::shared(), "vanished", &["a"], LONG)?;
    fs::remove_file(group.place("a").source())?;
    holds_for("the good copy", TTL, || group.observer.holders(POD) == ["a"])?;
    group.finish()?;
    Ok(())
}

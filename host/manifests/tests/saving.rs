//! What somebody changed is kept, and never so much of it that it does harm.

mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use common::{Node, eventually, names};
use conclave_manifests::Start;

/// As many as are kept, in the state directory and beside a destination.
const KEPT: usize = 100;

/// A node that leads and whose changed files cannot be brought to the state directory.
fn without_a_place_to_save() -> (Node, common::Loop) {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    fs::write(node.state("saved"), "in the way").unwrap();
    (node, a)
}

#[test]
fn what_cannot_be_saved_stays_beside_its_place_for_the_next_life() {
    let (node, mut a) = without_a_place_to_save();
    fs::write(node.dst("a"), "by hand").unwrap();
    a.wait_for_repair(&node.dst("a"));
    eventually("it is set aside", || node.staged().len() == 1);
    a.end();
    fs::remove_file(node.state("saved")).unwrap();
    let (a, _) = node.start(Start::Fresh);
    a.end();
    assert_eq!(node.saved(), ["by hand"]);
    assert!(node.staged().is_empty());
}

#[test]
fn what_cannot_be_saved_does_not_pile_up() {
    let (node, a) = without_a_place_to_save();
    let staging = node.dir.path().join("dst/.conclave");
    for n in 0..KEPT + 20 {
        fs::write(staging.join(format!("a.yaml.{:013}.changed", 1_000 + n)), "old").unwrap();
    }
    fs::write(node.dst("a"), "by hand").unwrap();
    eventually("the oldest to go", || node.staged().len() <= KEPT);
    let newest = node.staged().pop().unwrap();
    eventually("the newest to stay", || {
        fs::read_to_string(staging.join(&newest)).is_ok_and(|text| text == "by hand")
    });
    a.end();
}

#[test]
fn a_file_far_larger_than_any_manifest_is_not_copied() {
    let mut node = Node::with(&["a"]);
    // Another file system than the destination's, so that saving is copying.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    node.settings.state_dir = elsewhere.path().to_owned();
    let mut a = node.run();
    a.lead_and_wait(7);
    let mut huge = fs::File::create(node.dst("a")).unwrap();
    huge.seek(SeekFrom::Start(64 << 20)).unwrap();
    huge.write_all(b"end").unwrap();
    drop(huge);
    a.wait_for_repair(&node.dst("a"));
    eventually("it is kept where it is", || node.staged().len() == 1);
    assert!(a.withdraw().is_ok());
    a.end();
    assert!(names(&elsewhere.path().join("saved")).is_empty());
    let aside = node.dir.path().join("dst/.conclave").join(&node.staged()[0]);
    assert_eq!(fs::metadata(aside).unwrap().len(), (64 << 20) + 3);
}

//! Nobody else's files: what is not ours is never touched, unless `adopt` says that it is ours.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{ELECTION, Node, eventually, inode, pod, role};
use conclave_manifests::{Alarm, Handling, ManifestEvent, RoleWord, Start};
use rustix::fs::{CWD, FileType, Mode, mknodat};

#[test]
fn a_foreign_file_is_never_touched_and_makes_the_node_unfit() {
    let node = Node::with(&["a", "b"]);
    // Even one that looks like ours.
    fs::write(node.dst("b"), pod("b")).unwrap();
    let before = inode(&node.dst("b"));
    let mut a = node.run();
    a.wait_until_unfit("a file that is not ours stands at");
    let alarms: Vec<Alarm> = a
        .seen
        .iter()
        .filter_map(|event| match event {
            ManifestEvent::Alarm { alarm, .. } => Some(alarm.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(alarms, [Alarm::Foreign { path: node.dst("b"), kind: "a file" }]);
    a.follow();
    a.lead(7);
    let reason = a.wait_until_not_placed();
    assert!(reason.contains("b.yaml"), "{reason}");
    assert_eq!(node.placed(), ["b.yaml"], "they move together");
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(inode(&node.dst("b")), before);

    // Once it is gone, nothing is in the way.
    a.lead(9);
    fs::remove_file(node.dst("b")).unwrap();
    a.wait_until_placed(9);
    a.wait_until_fit();
    a.end();
    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a"), node.dst("b")]);
    a.end();
}

#[test]
fn links_directories_and_pipes_are_not_followed() {
    let node = Node::with(&["link", "dir", "pipe"]);
    let elsewhere = node.dir.path().join("elsewhere.yaml");
    fs::write(&elsewhere, "untouched").unwrap();
    symlink(&elsewhere, node.dst("link")).unwrap();
    fs::create_dir(node.dst("dir")).unwrap();
    mknodat(CWD, node.dst("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut a = node.run();
    for kind in ["a symbolic link", "a directory", "a special file"] {
        a.wait_until_unfit(&format!("{kind} that is not ours stands at"));
    }
    a.lead(7);
    a.wait_until_not_placed();
    assert_eq!(a.withdraw(), Ok(()));
    a.end();
    let (a, _) = node.start(Start::Fresh);
    a.end();
    assert_eq!(node.placed(), ["dir.yaml", "link.yaml", "pipe.yaml"]);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
}

#[test]
fn a_directory_in_the_place_of_our_file_is_left_alone() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    fs::create_dir(node.dir.path().join("dst/new")).unwrap();
    fs::write(node.dir.path().join("dst/new/inside"), "untouched").unwrap();
    fs::remove_file(node.dst("a")).unwrap();
    // Until it gets in, the file is repaired: at once, then once a second.
    eventually("the directory gets in", || {
        fs::rename(node.dir.path().join("dst/new"), node.dst("a")).is_ok() || {
            let _ = fs::remove_file(node.dst("a"));
            false
        }
    });
    a.wait_until_unfit("a directory that is not ours stands at");
    assert_eq!(a.withdraw(), Ok(()), "no kubelet runs a directory");
    assert_eq!(fs::read_to_string(node.dst("a").join("inside")).unwrap(), "untouched");
}

#[test]
fn two_elections_do_not_share_a_destination() {
    let mut node = Node::empty();
    node.add_directory(Handling::default());
    fs::write(node.src("a"), pod("a")).unwrap();
    let mut second = node.settings.elections[0].clone();
    second.election = "second".into();
    let other = node.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.yaml"), pod("theirs")).unwrap();
    second.directories[0].source = other;
    node.settings.elections.push(second);
    let mut a = node.run();
    a.lead_and_wait(7);
    let election = "second".into();
    a.manifests.lead(&election, conclave_core::ids::Token(8), a.all()).unwrap();
    a.wait_until_not_placed();
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
}

#[test]
fn with_adopt_a_stale_file_is_removed_on_a_standby_and_replaced_on_the_leader() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.adopt = true);
    // At the start.
    fs::write(node.dst("a"), "stale").unwrap();
    let (mut a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a")]);
    assert_eq!(node.saved(), ["stale"]);
    a.wait_for_sources();
    a.wait_until_fit();

    // On a standby.
    a.follow();
    fs::write(node.dst("a"), "stale again").unwrap();
    eventually("it is removed", || node.placed().is_empty());
    eventually("it is saved", || node.saved() == ["stale", "stale again"]);

    // A copy of the source need not be saved.
    fs::write(node.dst("a"), pod("a")).unwrap();
    eventually("it is removed", || node.placed().is_empty());
    a.end();
    assert_eq!(node.saved().len(), 2);

    // On a leader.
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    fs::write(node.dst("a"), "stale at last").unwrap();
    a.lead_and_wait(7);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    eventually("it is saved", || node.saved().len() == 3);
    assert_eq!(a.withdraw(), Ok(()));
    a.end();

    // What is right already stays as it is, but counts as ours.
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    fs::write(node.dst("a"), pod("a")).unwrap();
    let before = inode(&node.dst("a"));
    a.lead_and_wait(9);
    assert_eq!(inode(&node.dst("a")), before);
    assert_eq!(node.ledger_paths(), [node.dst("a")]);
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn two_manifests_do_not_fight_over_a_destination() {
    // A file of the source directory arrives where a manifest that is named goes, or a role file.
    for (taken, new) in [("a.yaml", "a"), ("role.json", "role")] {
        let mut node = Node::empty();
        let other = node.dir.path().join("other.yaml");
        fs::write(&other, pod("named")).unwrap();
        node.add("a", Handling::default());
        node.election().files[0].source = other;
        let role_file = node.add_role_file();
        node.add_directory(Handling::default());
        fs::write(node.src("b"), pod("b")).unwrap();
        let mut a = node.run();
        a.lead_and_wait(7);
        let late = node.dir.path().join("src").join(taken);
        fs::write(&late, pod(new)).unwrap();
        a.wait_until_degraded(&format!("{taken} in"));
        a.manifests.place(&ELECTION.into(), a.all()).unwrap();
        a.lead(7);
        assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("named"));
        assert_eq!(role(&role_file).role, RoleWord::Leader);
        let fought = |event: &ManifestEvent| {
            matches!(event, ManifestEvent::Replaced { .. } | ManifestEvent::Repaired { .. })
        };
        a.end_and_look(|seen| assert!(!seen.iter().any(fought), "{seen:?}"));
    }
}

/// An edit of the source in place would show at the destination half by half.
#[test]
fn a_second_name_of_the_source_is_no_copy_of_it() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.adopt = true);
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    fs::hard_link(node.src("a"), node.dst("a")).unwrap();
    a.lead_and_wait(7);
    assert_ne!(inode(&node.dst("a")), inode(&node.src("a")));
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.src("a").exists());
}

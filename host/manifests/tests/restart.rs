//! Lives of the daemon that follow each other: cleaning, adopting, and a ledger that was harmed.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{ELECTION, Node, eventually, inode, pod, replace};
use conclave_core::ids::OpId;
use conclave_manifests::{CleanReport, Handling, ManifestEvent, Start};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const NOTHING: [&Path; 0] = [];

/// A node whose daemon died while it led.
fn died_leading(names: &[&str]) -> Node {
    let node = Node::with(names);
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    assert_eq!(node.placed().len(), names.len());
    node
}

#[test]
fn a_start_withdraws_what_an_earlier_life_left() {
    let node = died_leading(&["a", "b"]);
    fs::write(node.dst("b"), "by hand").unwrap();
    let staged = node.dir.path().join("dst/.conclave/a.yaml.staged");
    fs::write(&staged, "half").unwrap();
    // Its source and even its place in the configuration need not be there any more.
    fs::remove_file(node.src("a")).unwrap();
    let mut node = node;
    node.election().files.pop();

    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a"), node.dst("b")]);
    assert_eq!(report.failed, []);
    assert!(node.placed().is_empty());
    assert!(!staged.exists());
    assert_eq!(node.saved(), ["by hand"]);
    a.end();
    assert!(node.ledger_paths().is_empty());
}

#[test]
fn an_adoption_touches_nothing_that_is_right() {
    let node = died_leading(&["a"]);
    let before = inode(&node.dst("a"));
    let (mut a, report) = node.start(Start::Adopt);
    assert_eq!(report, CleanReport::default());
    a.wait_for_sources();
    a.lead_and_wait(7);
    assert_eq!(inode(&node.dst("a")), before);
    // It is watched over again, and goes with the term.
    assert_eq!(node.gate.claims.lock().unwrap().len(), 2);
    fs::write(node.dst("a"), "by hand").unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn an_adoption_repairs_and_carries_over_only_once_it_leads() {
    let node = died_leading(&["a", "b"]);
    fs::remove_file(node.dst("a")).unwrap();
    replace(&node.src("b"), &pod("edited"));
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    a.wait_until_fit();
    assert_eq!(node.placed(), ["b.yaml"]);
    assert_eq!(fs::read_to_string(node.dst("b")).unwrap(), pod("b"));
    a.lead_and_wait(7);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert_eq!(fs::read_to_string(node.dst("b")).unwrap(), pod("edited"));
}

#[test]
fn an_adopted_copy_stands_in_for_a_source_that_is_gone() {
    let node = died_leading(&["a"]);
    fs::remove_file(node.src("a")).unwrap();
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    a.wait_until_degraded("No such file");
    a.lead_and_wait(7);
    fs::remove_file(node.dst("a")).unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
}

#[test]
fn an_adoption_that_does_not_lead_withdraws() {
    let node = died_leading(&["a"]);
    let (mut a, _) = node.start(Start::Adopt);
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn an_election_that_is_no_longer_configured_is_withdrawn_by_any_start() {
    for start in [Start::Fresh, Start::Adopt] {
        let mut node = died_leading(&["a"]);
        node.election().election = "other".into();
        node.election().files.clear();
        let (mut a, report) = node.start(start);
        assert_eq!(report.withdrawn, [node.dst("a")]);
        assert!(node.placed().is_empty());
        a.manifests.withdraw(&ELECTION.into(), OpId(1));
        let result = a.wait("an answer", |event| match event {
            ManifestEvent::Withdrawn { result, .. } => Some(result.clone()),
            _ => None,
        });
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn a_manifest_that_is_no_longer_configured_goes_with_the_first_stand() {
    let mut node = died_leading(&["a", "b"]);
    node.election().files.pop();
    let (mut a, report) = node.start(Start::Adopt);
    assert_eq!(report.withdrawn, NOTHING);
    a.wait_for_sources();
    assert_eq!(node.placed(), ["a.yaml", "b.yaml"]);
    a.lead_and_wait(7);
    eventually("it is withdrawn", || node.placed() == ["a.yaml"]);
}

#[test]
fn what_runs_everywhere_outlives_the_daemon() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.exclusive = false);
    let mut a = node.run();
    a.follow();
    eventually("it runs", || node.placed() == ["a.yaml"]);
    a.end();
    let before = inode(&node.dst("a"));
    let (mut a2, report) = node.start(Start::Fresh);
    assert_eq!(report, CleanReport::default());
    a2.wait_for_sources();
    a2.wait_until_fit();
    a2.follow();
    a2.end();
    assert_eq!(inode(&node.dst("a")), before);
    a = node.run();
    a.end();
}

#[test]
fn a_source_directory_is_adopted_file_by_file() {
    let mut node = Node::empty();
    node.add_directory(Handling::default());
    for name in ["a", "b"] {
        fs::write(node.src(name), pod(name)).unwrap();
    }
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    let before = inode(&node.dst("a"));
    fs::remove_file(node.src("b")).unwrap();
    let (mut a, _) = node.start(Start::Adopt);
    a.wait_for_sources();
    a.lead_and_wait(7);
    eventually("what lost its source meanwhile goes", || node.placed() == ["a.yaml"]);
    assert_eq!(inode(&node.dst("a")), before);
}

#[test]
fn a_damaged_ledger_is_kept_and_what_is_surely_ours_is_withdrawn() {
    for text in ["", "{\"version\": 1, \"entr"] {
        let node = died_leading(&["copy", "changed"]);
        fs::write(node.dst("changed"), "by hand").unwrap();
        fs::write(node.state("ledger.json"), text).unwrap();
        let (mut a, report) = node.start(Start::Fresh);
        assert_eq!(report.withdrawn, [node.dst("copy")]);
        assert_eq!(report.doubtful, [node.dst("changed")]);
        assert_eq!(node.placed(), ["changed.yaml"]);
        a.wait_for_sources();
        a.wait_until_unfit("a file that is not ours stands at");
        let kept = |name: &String| name.starts_with("ledger.json.damaged-");
        assert!(common::names(&node.settings.state_dir).iter().any(kept));
        a.end();
    }
}

#[test]
fn after_damage_to_the_ledger_a_source_directorys_copies_are_surely_ours_too() {
    let mut node = Node::empty();
    node.add_directory(Handling::default());
    for name in ["copy", "changed"] {
        fs::write(node.src(name), pod(name)).unwrap();
    }
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    fs::write(node.dst("changed"), "by hand").unwrap();
    fs::write(node.state("ledger.json"), "").unwrap();
    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("copy")]);
    assert_eq!(report.doubtful, [node.dst("changed")]);
    assert_eq!(node.placed(), ["changed.yaml"]);
    a.end();
}

#[test]
fn after_damage_to_the_ledger_what_a_template_made_is_surely_ours_too() {
    let mut node = Node::with(&["a", "changed"]);
    node.handle(|handling| handling.render = true);
    for name in ["a", "changed"] {
        let text = pod(name) + "  labels: {ip: '${IP}', term: '${CONCLAVE_TERM}'}\n";
        replace(&node.src(name), &text);
    }
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    fs::write(node.dst("changed"), "by hand").unwrap();
    fs::write(node.state("ledger.json"), "").unwrap();
    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a")]);
    assert_eq!(report.doubtful, [node.dst("changed")]);
    a.end();
}

#[test]
fn what_has_become_exclusive_goes_at_the_start() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.exclusive = false);
    let a = node.run();
    a.follow();
    eventually("it runs", || node.placed() == ["a.yaml"]);
    a.end();
    node.handle(|handling| handling.exclusive = true);
    let (mut a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a")]);
    assert!(node.placed().is_empty());
    a.wait_for_sources();
    a.lead_and_wait(7);
    a.end();
}

/// Nobody writes into the pipe, so that whoever reads it waits for ever: as with a source on a
/// disk that hangs.
#[test]
fn a_stale_file_goes_at_the_start_whatever_its_source_does() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.adopt = true);
    fs::write(node.dst("a"), "stale").unwrap();
    fs::remove_file(node.src("a")).unwrap();
    mknodat(CWD, node.src("a"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a")]);
    assert_eq!(node.saved(), ["stale"]);
    a.end();
}

#[test]
fn cleaning_follows_no_link_in_place_of_the_staging_directory() {
    let mut node = Node::with(&["a"]);
    node.add_directory(Handling::default());
    let elsewhere = node.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let theirs = ["a.yaml.staged", "b.yaml.prepared", "c.yaml.17.changed"];
    for name in theirs {
        fs::write(elsewhere.join(name), "untouched").unwrap();
    }
    symlink(&elsewhere, node.dir.path().join("dst/.conclave")).unwrap();
    let (a, _) = node.start(Start::Fresh);
    a.end();
    assert_eq!(common::names(&elsewhere), theirs);
    assert!(node.saved().is_empty());
}

#[test]
fn what_was_set_aside_and_not_saved_is_saved_by_the_next_life() {
    let node = died_leading(&["a"]);
    let staging = node.dir.path().join("dst/.conclave");
    fs::write(staging.join("a.yaml.17.changed"), "by hand").unwrap();
    // Not one of ours.
    fs::write(staging.join("b.yaml.17.changed"), "another daemon's").unwrap();
    let (a, _) = node.start(Start::Fresh);
    a.end();
    assert_eq!(node.saved(), ["by hand"]);
    assert_eq!(node.staged(), ["b.yaml.17.changed"]);
}

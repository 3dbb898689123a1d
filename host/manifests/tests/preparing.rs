//! Getting ready for a term: less is left to do when it begins, and nothing else changes.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{ELECTION, Loop, Node, eventually, pod, replace, run};
use conclave_core::ids::Token;
use conclave_core::view::Placement;
use conclave_manifests::{Handling, Start};

fn prepare(running: &Loop, token: Option<u64>) {
    running.manifests.prepare(&ELECTION.into(), token.map(Token)).unwrap();
}

fn prepared(node: &Node) -> Vec<String> {
    node.staged().into_iter().filter(|name| name.ends_with(".prepared")).collect()
}

fn wait_until_prepared(node: &Node, names: &[&str]) {
    let expected: Vec<String> = names.iter().map(|name| format!("{name}.yaml.prepared")).collect();
    eventually("copies", || prepared(node) == expected);
}

#[test]
fn a_copy_is_made_that_nobody_sees_and_the_term_puts_it_in_place() {
    let node = Node::with(&["a", "b"]);
    let mut running = node.run();
    prepare(&running, None);
    wait_until_prepared(&node, &["a", "b"]);
    assert!(node.placed().is_empty());
    assert!(node.ledger_paths().is_empty(), "no term is known");

    prepare(&running, Some(7));
    eventually("the ledger", || node.ledger_paths() == [node.dst("a"), node.dst("b")]);
    assert!(node.placed().is_empty());
    assert!(node.gate.claims.lock().unwrap().is_empty());

    // It is the copy that appears, and the gate is asked as ever: claimed and staged before.
    let copies = ["a", "b"].map(|name| {
        common::inode(&node.dir.path().join(format!("dst/.conclave/{name}.yaml.prepared")))
    });
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new(|destination: &Path, staged: &Path| {
        assert!(staged.exists() && !destination.exists());
    }));
    running.lead_and_wait(7);
    assert_eq!(["a", "b"].map(|name| common::inode(&node.dst(name))), copies);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert_eq!(node.gate.claims.lock().unwrap().len(), 2);
    assert_eq!(node.ledger_paths(), [node.dst("a"), node.dst("b")]);
    assert!(node.staged().is_empty());
    assert_eq!(running.withdraw(), Ok(()));
}

#[test]
fn what_is_placed_is_what_the_term_wants_whatever_was_prepared() {
    for (what, spoil) in
        [("the source was edited", 0), ("the copy is gone", 1), ("another term came", 2)]
    {
        let mut node = Node::empty();
        node.add("a", Handling { render: true, ..Handling::default() });
        fs::write(node.src("a"), pod("a") + "# ${CONCLAVE_TERM}\n").unwrap();
        let mut running = node.run();
        prepare(&running, Some(7));
        wait_until_prepared(&node, &["a"]);
        match spoil {
            0 => {
                replace(&node.src("a"), &(pod("edited") + "# ${CONCLAVE_TERM}\n"));
                running.wait_for_sources();
            }
            1 => fs::remove_file(node.dir.path().join("dst/.conclave/a.yaml.prepared")).unwrap(),
            _ => {}
        }
        let token = if spoil == 2 { 8 } else { 7 };
        running.lead_and_wait(token);
        let name = if spoil == 0 { "edited" } else { "a" };
        let expected = pod(name) + &format!("# {token}\n");
        assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), expected, "{what}");
        assert_eq!(node.ledger_paths(), [node.dst("a")], "{what}");
        eventually("a clean staging directory", || node.staged().is_empty());
    }
}

#[test]
fn what_is_not_used_goes_away() {
    // By another stand, or by itself.
    for told in [true, false] {
        let mut node = Node::with(&["a"]);
        node.settings.rescan = Duration::from_millis(if told { 30_000 } else { 100 });
        let running = node.run();
        prepare(&running, Some(7));
        eventually("the ledger", || node.ledger_paths() == [node.dst("a")]);
        if told {
            running.manifests.follow(&ELECTION.into(), None, Vec::new()).unwrap();
        }
        eventually("nothing left", || prepared(&node).is_empty() && node.ledger_paths().is_empty());
        assert!(node.placed().is_empty());
    }
}

#[test]
fn what_an_earlier_life_prepared_goes_at_the_start() {
    let mut node = Node::with(&["a"]);
    let running = node.run();
    prepare(&running, Some(7));
    eventually("the ledger", || node.ledger_paths() == [node.dst("a")]);
    wait_until_prepared(&node, &["a"]);
    drop(running);
    // Also where only a source directory is configured any more.
    node.election().files.clear();
    node.add_directory(Handling::default());
    let (_running, _) = node.start(Start::Fresh);
    assert!(prepared(&node).is_empty());
    assert!(node.ledger_paths().is_empty());
}

#[test]
fn what_is_exclusive_is_prepared_where_nothing_stands() {
    let mut node = Node::with(&["a", "b"]);
    node.add("shared", Handling { exclusive: false, ..Handling::default() });
    fs::write(node.src("shared"), pod("shared")).unwrap();
    fs::write(node.dst("b"), "foreign").unwrap();
    let running = node.run();
    prepare(&running, Some(7));
    eventually("the ledger", || !node.ledger_paths().is_empty());
    wait_until_prepared(&node, &["a"]);
    assert_eq!(node.ledger_paths(), [node.dst("a")]);
    assert_eq!(fs::read_to_string(node.dst("b")).unwrap(), "foreign");
}

#[test]
fn what_the_policy_withholds_in_the_end_is_taken_back() {
    let node = Node::with(&["a", "b"]);
    let mut running = node.run();
    prepare(&running, Some(7));
    wait_until_prepared(&node, &["a", "b"]);
    let placements = vec![run("a"), Placement { run: false, ..run("b") }];
    running.manifests.lead(&ELECTION.into(), Token(7), placements).unwrap();
    running.wait_until_placed(7);
    eventually("nothing left of b", || {
        node.staged().is_empty() && node.ledger_paths() == [node.dst("a")]
    });
    assert_eq!(node.placed(), ["a.yaml"]);
}

//! Manifests follow the leader: placed, kept, carried over, withdrawn.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use common::{ELECTION, Node, eventually, inode, names, pod, replace, run};
use conclave_core::ids::{OpId, Token};
use conclave_manifests::{Damage, Effect, Handling, ManifestEvent};

#[test]
fn comes_and_goes_with_the_term() {
    let node = Node::with(&["scheduler"]);
    let bytes = "apiVersion: v1\r\nkind: Pod # ${IP} $${IP} \u{fc}\n\n\n";
    fs::write(node.src("scheduler"), bytes).unwrap();
    fs::set_permissions(node.src("scheduler"), Permissions::from_mode(0o604)).unwrap();
    let mut a = node.run();
    a.wait_until_fit();
    assert!(node.placed().is_empty());

    a.lead_and_wait(7);
    assert_eq!(fs::read_to_string(node.dst("scheduler")).unwrap(), bytes);
    let mode = fs::metadata(node.dst("scheduler")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o604);
    assert_eq!(node.ledger_paths(), [node.dst("scheduler")]);
    let staging = fs::metadata(node.dir.path().join("dst/.conclave")).unwrap();
    assert_eq!(staging.permissions().mode() & 0o777, 0o700);

    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
    assert!(node.staged().is_empty());
    assert_eq!(node.gate.standing.load(SeqCst), 0);
    a.end();
    assert!(node.ledger_paths().is_empty());
}

#[test]
fn claims_before_it_stages_and_stages_before_it_renames() {
    let node = Node::with(&["a", "b"]);
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new({
        let staging = node.dir.path().join("dst/.conclave");
        let ledger = node.state("ledger.json");
        move |destination, staged| {
            // When the gate is asked, everything is ready and this file is not there yet.
            assert!(!destination.exists());
            assert_eq!(staged.parent(), Some(&*staging));
            assert!(staged.exists());
            let ledger = fs::read_to_string(&ledger).unwrap();
            assert!(ledger.contains(destination.to_str().unwrap()));
        }
    }));
    let mut a = node.run();
    a.lead_and_wait(7);
    let claims = node.gate.claims.lock().unwrap().clone();
    let claim = |name: &str| {
        let staged = node.dir.path().join(format!("dst/.conclave/{name}.yaml.staged"));
        (Token(7), Effect::Manifest, node.dst(name), staged)
    };
    assert_eq!(claims, [claim("a"), claim("b")]);
    // Before its directories go, lest it repair what goes, and ask again.
    a.end();
}

#[test]
fn nothing_appears_once_the_gate_is_closed() {
    for asks in 0..2 {
        let node = Node::with(&["a", "b"]);
        *node.gate.asks_left.lock().unwrap() = Some(asks);
        let mut a = node.run();
        a.lead(7);
        let reason = a.wait_until_not_placed();
        assert!(reason.contains("deadline has passed"), "{reason}");
        assert_eq!(node.placed().len(), asks, "what appeared before it closed");

        // Neither an edit nor a damage nor being told again changes that.
        replace(&node.src("a"), &pod("edited"));
        a.wait_for_sources();
        a.lead(7);
        assert_eq!(a.withdraw(), Ok(()));
        assert!(node.placed().is_empty());
        assert_eq!(node.staged(), [] as [&str; 0]);
        assert_eq!(node.gate.standing.load(SeqCst), 0);
        let placed = |event: &ManifestEvent| matches!(event, ManifestEvent::Placed { .. });
        assert!(!a.seen.iter().any(placed));
    }
}

#[test]
fn a_closed_gate_also_stops_edits_and_repairs() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    node.gate.closed.store(true, SeqCst);
    // As the guard does at the deadline.
    fs::remove_file(node.dst("a")).unwrap();
    a.wait_until_not_placed();
    replace(&node.src("a"), &pod("edited"));
    a.wait_for_sources();
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());

    // The next term is another matter.
    node.gate.closed.store(false, SeqCst);
    a.lead_and_wait(9);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("edited"));
}

#[test]
fn carries_edits_of_the_source_over() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    let replaced = |a: &mut common::Loop| {
        a.wait("replacement", |event| {
            matches!(event, ManifestEvent::Replaced { .. }).then_some(())
        });
    };
    // Renamed into place, written in place, and a mode alone.
    replace(&node.src("a"), &pod("one"));
    replaced(&mut a);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("one"));
    fs::write(node.src("a"), pod("two")).unwrap();
    eventually("the edit is carried over", || {
        fs::read_to_string(node.dst("a")).unwrap() == pod("two")
    });
    fs::set_permissions(node.src("a"), Permissions::from_mode(0o600)).unwrap();
    eventually("the mode is carried over", || {
        fs::metadata(node.dst("a")).unwrap().permissions().mode() & 0o777 == 0o600
    });
    assert!(node.saved().is_empty(), "nobody but us changed the destination");
    // One claim serves the term.
    assert_eq!(node.gate.claims.lock().unwrap().len(), 1);
}

#[test]
fn follows_a_source_that_is_swapped_behind_symbolic_links() {
    let node = Node::with(&["a"]);
    let src = node.dir.path().join("src");
    let publish = |version: &str| {
        fs::create_dir(src.join(version)).unwrap();
        fs::write(src.join(version).join("a.yaml"), pod(version)).unwrap();
        symlink(version, src.join("..next")).unwrap();
        fs::rename(src.join("..next"), src.join("..data")).unwrap();
    };
    fs::remove_file(node.src("a")).unwrap();
    publish("..one");
    symlink("..data/a.yaml", node.src("a")).unwrap();
    let mut a = node.run();
    a.lead_and_wait(7);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("..one"));
    publish("..two");
    eventually("the swap is carried over", || {
        fs::read_to_string(node.dst("a")).unwrap() == pod("..two")
    });
}

#[test]
fn repairs_what_was_deleted_or_changed_and_saves_what_was_changed() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);

    fs::remove_file(node.dst("a")).unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert!(node.saved().is_empty());

    fs::write(node.dst("a"), "by hand").unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    eventually("it is saved", || node.saved() == ["by hand"]);

    fs::set_permissions(node.dst("a"), Permissions::from_mode(0o666)).unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(fs::metadata(node.dst("a")).unwrap().permissions().mode() & 0o777, 0o644);

    // A link to a copy would still be run by a kubelet.
    let elsewhere = node.dir.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    symlink(&elsewhere, node.dir.path().join("dst/next")).unwrap();
    fs::rename(node.dir.path().join("dst/next"), node.dst("a")).unwrap();
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    let damages: Vec<Damage> = a
        .seen
        .iter()
        .filter_map(|event| match event {
            ManifestEvent::Repaired { damage, .. } => Some(*damage),
            _ => None,
        })
        .collect();
    assert_eq!(damages[0], Damage::Deleted);
    assert!(damages[1..].iter().all(|damage| *damage == Damage::Changed), "{damages:?}");
}

#[test]
fn withdraws_what_was_changed_and_saves_it() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    // The gate is closed so that no repair comes first.
    node.gate.closed.store(true, SeqCst);
    fs::write(node.dst("a"), "by hand").unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
    eventually("it is saved", || node.saved() == ["by hand"]);
    assert!(node.staged().is_empty());
}

#[test]
fn withdraws_without_its_sources() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    fs::remove_dir_all(node.dir.path().join("src")).unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn a_withdrawal_overtakes_a_placing_that_has_not_begun() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead(7);
    assert_eq!(a.withdraw(), Ok(()));
    a.lead(9);
    a.wait_until_placed(9);
    assert_eq!(a.withdraw(), Ok(()));
    // Again and again, and of an election that is not configured, there is nothing to do.
    assert_eq!(a.withdraw(), Ok(()));
    a.manifests.withdraw(&"other".into(), OpId(5));
    let result = a.wait("an answer", |event| match event {
        ManifestEvent::Withdrawn { op: OpId(5), result, .. } => Some(result.clone()),
        _ => None,
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn several_manifests_move_together_or_not_at_all() {
    let node = Node::with(&["a", "b", "c"]);
    fs::write(node.src("c"), "not a manifest").unwrap();
    let mut a = node.run();
    a.wait_until_unfit("document 1 is not a mapping");
    a.lead(7);
    let reason = a.wait_until_not_placed();
    assert!(reason.contains("is not a manifest"), "{reason}");
    assert!(node.placed().is_empty());

    replace(&node.src("c"), &pod("c"));
    a.wait_until_placed(7);
    assert_eq!(node.placed(), ["a.yaml", "b.yaml", "c.yaml"]);
    a.wait_until_fit();
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn the_policy_places_one_by_one() {
    let node = Node::with(&["a", "b"]);
    let mut a = node.run();
    let election = ELECTION.into();
    a.manifests.lead(&election, Token(7), vec![run("b")]).unwrap();
    a.wait_until_placed(7);
    assert_eq!(node.placed(), ["b.yaml"]);
    a.manifests.place(&election, vec![run("a")]).unwrap();
    eventually("the other one is in place", || node.placed() == ["a.yaml"]);
}

#[test]
fn what_runs_everywhere_is_not_touched_by_a_change_of_role() {
    let mut node = Node::with(&["scheduler"]);
    node.add("apiserver", Handling { exclusive: false, ..Handling::default() });
    fs::write(node.src("apiserver"), pod("apiserver")).unwrap();
    let mut a = node.run();
    a.follow();
    eventually("the apiserver runs", || node.placed() == ["apiserver.yaml"]);
    let before = inode(&node.dst("apiserver"));
    a.lead_and_wait(7);
    assert_eq!(node.placed(), ["apiserver.yaml", "scheduler.yaml"]);
    assert_eq!(a.withdraw(), Ok(()));
    a.follow();
    eventually("only the apiserver runs", || node.placed() == ["apiserver.yaml"]);
    assert_eq!(inode(&node.dst("apiserver")), before);
    // It needs no gate.
    assert_eq!(node.gate.claims.lock().unwrap().len(), 1);
}

#[test]
fn being_told_to_follow_withdraws_too() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    a.follow();
    eventually("it is withdrawn", || node.placed().is_empty());
}

#[test]
fn a_source_directory_is_followed_file_by_file() {
    let mut node = Node::empty();
    node.add_directory(Handling::default());
    for name in ["a", "b"] {
        fs::write(node.src(name), pod(name)).unwrap();
    }
    let src = node.dir.path().join("src");
    for leftover in [".a.yaml.swp", "a.yaml~", "#a.yaml#", "b.yaml.tmp", "notes.txt"] {
        fs::write(src.join(leftover), pod("leftover")).unwrap();
    }
    let mut a = node.run();
    assert_eq!(a.names, ["a.yaml", "b.yaml"]);
    a.lead_and_wait(7);
    assert_eq!(node.placed(), ["a.yaml", "b.yaml"]);

    // A new one waits for the policy.
    replace(&node.src("c"), &pod("c"));
    a.wait_for_sources();
    assert_eq!(a.names, ["a.yaml", "b.yaml", "c.yaml"]);
    assert_eq!(node.placed(), ["a.yaml", "b.yaml"]);
    a.manifests.place(&ELECTION.into(), a.all()).unwrap();
    eventually("the new one is in place", || node.placed().len() == 3);

    // One that is taken away goes.
    fs::remove_file(node.src("b")).unwrap();
    a.wait_for_sources();
    eventually("it is withdrawn", || node.placed() == ["a.yaml", "c.yaml"]);

    // A bad one does not stop the good ones.
    replace(&node.src("d"), "not a manifest");
    a.wait_until_degraded("d.yaml is not a manifest");
    assert_eq!(a.withdraw(), Ok(()));
    a.lead_and_wait(9);
    assert_eq!(node.placed(), ["a.yaml", "c.yaml"]);

    // An empty directory is what an unmounted volume looks like.
    for name in ["a", "c", "d"] {
        fs::remove_file(node.src(name)).unwrap();
    }
    a.wait_until_degraded("no manifest in");
    assert_eq!(node.placed(), ["a.yaml", "c.yaml"]);
}

#[test]
fn renders_for_this_node_and_term() {
    let mut node = Node::with(&["a"]);
    node.handle(|handling| handling.render = true);
    let template = format!("{}  labels: {{ip: '${{IP}}', term: '${{CONCLAVE_TERM}}'}}\n", pod("a"));
    fs::write(node.src("a"), &template).unwrap();
    let mut a = node.run();
    a.wait_until_fit();
    for token in [7, 19] {
        a.lead_and_wait(token);
        let expected = format!("{}  labels: {{ip: '10.0.0.1', term: '{token}'}}\n", pod("a"));
        assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), expected);
    }
    // What cannot be rendered does not replace what could.
    replace(&node.src("a"), &format!("{template}# ${{TYPO}}\n"));
    a.wait_until_degraded("line 6, column 3: unknown variable TYPO");
    assert!(fs::read_to_string(node.dst("a")).unwrap().contains("term: '19'"));
}

#[test]
fn the_staging_directory_is_all_that_is_added() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    assert_eq!(names(&node.dir.path().join("dst")), [".conclave", "a.yaml"]);
    assert!(node.staged().is_empty());
    assert_eq!(names(&node.dir.path().join("src")), ["a.yaml"]);
}

#[test]
fn what_comes_back_in_the_same_breath_stays_in_the_ledger() {
    let node = Node::with(&["a"]);
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // Until all is said, the first placing waits at the gate.
    let hold = move |_: &Path, _: &Path| {
        // Nothing is ever sent: it waits for the other end to go.
        let _ = wait.lock().unwrap().recv();
    };
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new(hold));
    let mut a = node.run();
    a.lead(7);
    eventually("the claim", || !node.gate.claims.lock().unwrap().is_empty());
    a.manifests.withdraw(&ELECTION.into(), OpId(1));
    a.lead(8);
    drop(go);
    a.wait_until_placed(8);
    a.end();
    assert_eq!(node.placed(), ["a.yaml"]);
    assert_eq!(node.ledger_paths(), [node.dst("a")]);
}

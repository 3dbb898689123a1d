//! The role file: how a hot standby learns its role.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{ELECTION, Node, eventually, inode, role};
use conclave_core::ids::Token;
use conclave_manifests::{Damage, Effect, ManifestEvent, RoleRecord, RoleWord, Start};

fn node() -> (Node, PathBuf) {
    let mut node = Node::with(&["a"]);
    let path = node.add_role_file();
    (node, path)
}

#[test]
fn says_who_leads() {
    let (node, path) = node();
    let mut a = node.run();
    assert!(!path.exists(), "a missing file means standby");

    a.manifests.follow(&ELECTION.into(), Some(("b".into(), Token(3))), a.all()).unwrap();
    let standby = |holder: Option<(&str, u64)>| RoleRecord {
        role: RoleWord::Standby,
        token: holder.map(|(_, token)| Token(token)),
        holder: holder.map(|(name, _)| name.into()),
        election: ELECTION.into(),
        node: "a".into(),
    };
    eventually("it says standby", || path.exists() && role(&path) == standby(Some(("b", 3))));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);

    a.lead_and_wait(7);
    let leader = RoleRecord {
        role: RoleWord::Leader,
        token: Some(Token(7)),
        holder: Some("a".into()),
        ..standby(None)
    };
    assert_eq!(role(&path), leader);
    assert!(node.ledger_paths().contains(&path));

    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(role(&path), standby(None));
    assert_eq!(node.gate.standing.load(SeqCst), 0);

    // Being told the same again does not rewrite it.
    a.manifests.follow(&ELECTION.into(), Some(("b".into(), Token(9))), a.all()).unwrap();
    eventually("it names the new holder", || role(&path) == standby(Some(("b", 9))));
    let before = inode(&path);
    a.manifests.follow(&ELECTION.into(), Some(("b".into(), Token(9))), a.all()).unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    a.manifests.follow(&ELECTION.into(), Some(("b".into(), Token(9))), a.all()).unwrap();
    a.end();
    assert_eq!(inode(&path), before);
    assert!(node.ledger_paths().is_empty());
}

#[test]
fn the_guard_can_reset_it_before_it_says_leader() {
    let (node, path) = node();
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new({
        let path = path.clone();
        move |destination, standby| {
            if destination == path {
                // The last to appear, and what the guard renames over it is there already.
                assert!(destination.with_file_name("a.yaml").exists());
                assert_eq!(role(standby).role, RoleWord::Standby);
            }
        }
    }));
    let mut a = node.run();
    a.lead_and_wait(7);
    let claims = node.gate.claims.lock().unwrap().clone();
    let standby = path.parent().unwrap().join(".conclave/role.json.standby");
    assert_eq!(claims.last(), Some(&(Token(7), Effect::RoleFile, path.clone(), standby.clone())));

    // What the guard does at the deadline; and the daemon, if it still lives, finds nothing amiss.
    *node.gate.on_ask.lock().unwrap() = None;
    node.gate.closed.store(true, SeqCst);
    fs::rename(&standby, &path).unwrap();
    fs::remove_file(node.dst("a")).unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    // Without the file that waited, it is removed: that means standby, too.
    assert!(!path.exists() || role(&path).role == RoleWord::Standby);
}

#[test]
fn never_says_leader_once_the_gate_is_closed() {
    let (node, path) = node();
    // Open for the manifest, closed for the role file.
    *node.gate.asks_left.lock().unwrap() = Some(1);
    let mut a = node.run();
    a.lead(7);
    let reason = a.wait_until_not_placed();
    assert!(reason.contains("deadline has passed"), "{reason}");
    assert!(!path.exists());
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty() || role(&path).role == RoleWord::Standby);
}

#[test]
fn is_repaired() {
    let (node, path) = node();
    let mut a = node.run();
    a.lead_and_wait(7);
    fs::remove_file(&path).unwrap();
    a.wait_for_repair(&path);
    assert_eq!(role(&path).role, RoleWord::Leader);
    fs::write(&path, "by hand").unwrap();
    a.wait_for_repair(&path);
    assert_eq!(role(&path).role, RoleWord::Leader);
    eventually("it is saved", || node.saved() == ["by hand"]);
    let last = a.seen.last();
    assert!(matches!(last, Some(ManifestEvent::Repaired { damage: Damage::Changed, .. })));
}

#[test]
fn a_foreign_file_is_left_alone() {
    let (node, path) = node();
    fs::write(&path, "somebody else's").unwrap();
    let mut a = node.run();
    a.wait_until_unfit("a file that is not ours stands at");
    a.follow();
    a.lead(7);
    a.wait_until_not_placed();
    assert_eq!(node.placed(), ["role.json"]);
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");

    fs::remove_file(&path).unwrap();
    a.lead(9);
    a.wait_until_placed(9);
    assert_eq!(role(&path).role, RoleWord::Leader);
}

#[test]
fn a_start_resets_it_and_an_adoption_does_not() {
    let (node, path) = node();
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    let before = inode(&path);

    let (mut a, report) = node.start(Start::Adopt);
    assert_eq!(report.withdrawn, [] as [&Path; 0]);
    a.wait_for_sources();
    a.lead_and_wait(7);
    assert_eq!(inode(&path), before);
    a.end();

    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, [node.dst("a"), path.clone()]);
    assert_eq!(role(&path).role, RoleWord::Standby);
    a.end();

    // Even when the ledger was lost.
    fs::write(&path, RoleRecord::leader(&ELECTION.into(), &"a".into(), Token(7)).to_json())
        .unwrap();
    fs::remove_file(node.state("ledger.json")).unwrap();
    let (a, report) = node.start(Start::Fresh);
    assert_eq!(report.withdrawn, std::slice::from_ref(&path));
    assert_eq!(role(&path).role, RoleWord::Standby);
    a.end();
}

#[test]
fn an_election_may_have_nothing_but_a_role_file() {
    let mut node = Node::empty();
    let path = node.add_role_file();
    let (mut a, _) = node.start(Start::Fresh);
    a.wait_until_fit();
    a.lead_and_wait(7);
    assert_eq!(role(&path).role, RoleWord::Leader);
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(role(&path).role, RoleWord::Standby);
}

#[test]
fn the_gate_is_asked_last_when_it_is_repaired() {
    let (node, path) = node();
    let mut a = node.run();
    a.lead_and_wait(7);
    let staging = path.parent().unwrap().join(".conclave");
    let asked = Arc::new(AtomicBool::new(false));
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new({
        let (path, asked) = (path.clone(), Arc::clone(&asked));
        move |destination, _| {
            // What somebody made of it has been put by: only the rename is left to do.
            let aside = common::names(&staging).iter().any(|name| name.ends_with(".changed"));
            if destination == path && aside {
                asked.store(true, SeqCst);
            }
        }
    }));
    fs::write(&path, "by hand").unwrap();
    a.wait_for_repair(&path);
    assert!(asked.load(SeqCst));
}

#[test]
fn one_that_was_changed_is_saved_before_a_start_resets_it() {
    let (node, path) = node();
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    fs::write(&path, "by hand").unwrap();
    let (a, _) = node.start(Start::Fresh);
    assert_eq!(role(&path).role, RoleWord::Standby);
    assert_eq!(node.saved(), ["by hand"]);
    a.end();
}

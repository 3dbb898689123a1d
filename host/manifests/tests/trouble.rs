//! Disks, directories and sources that fail: the node says so, and nothing is left half done.

mod common;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use common::{ELECTION, Node, PATIENCE, eventually, inode, names, pod, replace, role, run};
use conclave_core::ids::{OpId, Token};
use conclave_manifests::{Alarm, ManifestEvent, RoleWord, Start};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Makes permission bits count for this thread and those that it starts, also when the tests run
/// as root.
fn obey_permissions() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A node that looks again soon, where inotify cannot tell.
fn restless(names: &[&str]) -> Node {
    let mut node = Node::with(names);
    node.settings.rescan = Duration::from_millis(50);
    node
}

#[test]
fn a_missing_destination_directory_is_not_created() {
    let node = restless(&["a"]);
    let dst = node.dir.path().join("dst");
    fs::remove_dir(&dst).unwrap();
    let mut a = node.run();
    a.wait_until_unfit("cannot use the destination directory");
    a.lead(7);
    a.wait_until_not_placed();
    assert!(!dst.exists());
    fs::create_dir(&dst).unwrap();
    a.wait_until_placed(7);
    a.wait_until_fit();

    // One that vanishes takes the effect along. The loop repairs while it is being emptied.
    let emptied = (0..1_000).any(|_| fs::remove_dir_all(&dst).is_ok());
    assert!(emptied, "{}", dst.display());
    a.wait_until_unfit("cannot use the destination directory");
    assert_eq!(a.withdraw(), Ok(()));
    assert!(!dst.exists());
}

#[test]
fn a_file_in_the_place_of_the_destination_directory() {
    let node = restless(&["a"]);
    fs::remove_dir(node.dir.path().join("dst")).unwrap();
    fs::write(node.dir.path().join("dst"), "untouched").unwrap();
    let mut a = node.run();
    a.wait_until_unfit("cannot use the destination directory");
    a.lead(7);
    a.wait_until_not_placed();
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(fs::read_to_string(node.dir.path().join("dst")).unwrap(), "untouched");
}

#[test]
fn a_staging_directory_that_is_none_is_not_followed() {
    let node = restless(&["a"]);
    let elsewhere = node.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let staging = node.dir.path().join("dst/.conclave");
    symlink(&elsewhere, &staging).unwrap();
    let mut a = node.run();
    a.wait_until_unfit("cannot use the staging directory");
    a.lead(7);
    a.wait_until_not_placed();
    assert!(names(&elsewhere).is_empty());
    fs::remove_file(&staging).unwrap();
    a.wait_until_placed(7);
}

#[test]
fn a_read_only_destination_makes_unfit() {
    obey_permissions();
    let node = restless(&["a"]);
    let dst = node.dir.path().join("dst");
    set_mode(&dst, 0o555);
    let mut a = node.run();
    a.wait_until_unfit("Permission denied");
    set_mode(&dst, 0o755);
    a.wait_until_fit();
    set_mode(&dst.join(".conclave"), 0o500);
    a.wait_until_unfit("Permission denied");
    set_mode(&dst.join(".conclave"), 0o700);
    a.wait_until_fit();
}

#[test]
fn a_withdrawal_that_fails_is_never_reported_as_done() {
    obey_permissions();
    let node = restless(&["a", "b"]);
    let dst = node.dir.path().join("dst");
    let mut a = node.run();
    a.lead_and_wait(7);
    set_mode(&dst, 0o555);
    let reason = a.withdraw().expect_err("it is still there");
    assert!(reason.contains("cannot remove") && reason.contains("Permission denied"), "{reason}");
    assert_eq!(node.placed(), ["a.yaml", "b.yaml"]);
    let standing = node.gate.standing.load(SeqCst);
    assert_eq!(standing, 2, "the guard watches on");
    a.wait("an alarm", |event| match event {
        ManifestEvent::Alarm { alarm: Alarm::NotRemoved { .. }, .. } => Some(()),
        _ => None,
    });
    assert_eq!(node.ledger_paths().len(), 2, "the next start would know");
    assert!(a.withdraw().is_err());
    set_mode(&dst, 0o755);
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
    assert_eq!(node.gate.standing.load(SeqCst), 0);
}

#[test]
fn a_cleaning_that_fails_is_reported_and_made_up_for() {
    obey_permissions();
    let node = restless(&["a"]);
    let dst = node.dir.path().join("dst");
    let mut a = node.run();
    a.lead_and_wait(7);
    a.end();
    set_mode(&dst, 0o555);
    let (mut a, report) = node.start(Start::Fresh);
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].0, node.dst("a"));
    a.wait_for_sources();
    a.follow();
    a.wait_until_unfit("Permission denied");
    set_mode(&dst, 0o755);
    eventually("it is withdrawn", || node.placed().is_empty());
    a.wait_until_fit();
}

#[test]
fn a_ledger_that_cannot_be_written_lets_nothing_new_appear_and_everything_go() {
    let node = restless(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    let state = node.settings.state_dir.clone();
    fs::remove_dir_all(&state).unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
    a.lead(9);
    let reason = a.wait_until_not_placed();
    assert!(reason.contains("the ledger is out of reach"), "{reason}");
    assert!(node.placed().is_empty());
    a.wait_until_unfit("the ledger is out of reach");
    fs::create_dir(&state).unwrap();
    a.wait_until_placed(9);
    a.wait_until_fit();
}

#[test]
fn without_a_source_ever_the_node_is_unfit() {
    for broken in [None, Some(""), Some("kind: Pod\n"), Some("apiVersion: v1\nkind: 'P\n")] {
        let node = restless(&["a"]);
        fs::remove_file(node.src("a")).unwrap();
        if let Some(text) = broken {
            replace(&node.src("a"), text);
        }
        let mut a = node.run();
        a.wait_for_fitness("being unfit", |fitness| !fitness.fit);
        a.lead(7);
        a.wait_until_not_placed();
        assert!(node.placed().is_empty());
        replace(&node.src("a"), &pod("a"));
        a.wait_until_placed(7);
        a.wait_until_fit();
    }
}

#[test]
fn the_last_good_copy_stays_while_the_source_is_bad() {
    let node = restless(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    let before = inode(&node.dst("a"));
    for broken in ["", "half a mani", "- a list\n"] {
        replace(&node.src("a"), broken);
        a.wait_until_degraded("is not a manifest");
    }
    fs::remove_file(node.src("a")).unwrap();
    a.wait_until_degraded("No such file");
    assert_eq!(inode(&node.dst("a")), before);
    // A standby that knew a good one can still run it.
    assert_eq!(a.withdraw(), Ok(()));
    a.lead_and_wait(9);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    replace(&node.src("a"), &pod("new"));
    a.wait_until_fit();
    eventually("the new one is carried over", || {
        fs::read_to_string(node.dst("a")).unwrap() == pod("new")
    });
}

#[test]
fn what_inotify_does_not_tell_is_found_by_rescans() {
    let node = restless(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    // Creating a link is no event that is asked for.
    fs::write(node.dir.path().join("new"), pod("linked")).unwrap();
    fs::remove_file(node.src("a")).unwrap();
    symlink(node.dir.path().join("new"), node.src("a")).unwrap();
    eventually("it is carried over", || {
        fs::read_to_string(node.dst("a")).is_ok_and(|text| text == pod("linked"))
    });
}

#[test]
fn readers_never_see_half_a_manifest() {
    let node = Node::with(&["a"]);
    let large = |n: u32| format!("{}# {}\n# end {n}\n", pod("a"), "x".repeat(200_000));
    replace(&node.src("a"), &large(0));
    let mut a = node.run();
    a.lead_and_wait(7);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (stop, path) = (Arc::clone(&stop), node.dst("a"));
        move || {
            let mut seen = 0u32;
            while !stop.load(SeqCst) {
                let text = fs::read_to_string(&path).expect("it is always there");
                let (body, end) = text.trim_end().rsplit_once("# end ").expect("it is whole");
                assert!(body.starts_with(&pod("a")) && body.len() > 200_000);
                seen = seen.max(end.parse().unwrap());
            }
            seen
        }
    });
    for n in 1..=30 {
        replace(&node.src("a"), &large(n));
        thread::yield_now();
    }
    eventually("the last one is there", || fs::read_to_string(node.dst("a")).unwrap() == large(30));
    stop.store(true, SeqCst);
    reader.join().unwrap();
}

#[test]
fn a_tool_that_fights_over_a_file_is_not_fought_without_pause() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    let repairs = |a: &common::Loop| {
        let repaired = |event: &&ManifestEvent| matches!(event, ManifestEvent::Repaired { .. });
        a.seen.iter().filter(repaired).count()
    };
    fs::write(node.dst("a"), "first").unwrap();
    a.wait_for_repair(&node.dst("a"));
    // At once again: left alone for a second, then repaired by one repair for all.
    for n in 0..20 {
        fs::write(node.dst("a"), format!("again {n}")).unwrap();
    }
    a.wait_for_repair(&node.dst("a"));
    assert_eq!(repairs(&a), 2);
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
}

#[test]
fn a_change_right_after_a_repair_is_not_taken_for_the_repair() {
    let mut node = Node::with(&["a"]);
    let role_file = node.add_role_file();
    let mut a = node.run();
    a.lead_and_wait(7);
    for n in 0..3 {
        for path in [node.dst("a"), role_file.clone()] {
            // As soon as the repair is reported, and so perhaps before it is looked back at.
            fs::remove_file(&path).unwrap();
            a.wait_for_repair(&path);
            fs::write(&path, format!("by hand {n}")).unwrap();
            a.wait_for_repair(&path);
        }
    }
    assert_eq!(fs::read_to_string(node.dst("a")).unwrap(), pod("a"));
    assert_eq!(role(&role_file).role, RoleWord::Leader);
}

/// A gate question that does not return stands in for a disk that hangs.
#[test]
fn a_destination_that_hangs_holds_up_nobody_else() {
    let mut node = Node::with(&["hung"]);
    let other = node.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let mut second = node.settings.elections[0].clone();
    second.election = "second".into();
    second.files[0].destination = other.join("pod.yaml");
    node.settings.elections.push(second);

    let hang = Arc::new((Mutex::new(true), Condvar::new()));
    let hung = node.dst("hung");
    let asked = Arc::new(AtomicBool::new(false));
    let mut a = node.run();
    *node.gate.on_ask.lock().unwrap() = Some(Arc::new({
        let (hang, asked) = (Arc::clone(&hang), Arc::clone(&asked));
        move |destination: &Path, _: &Path| {
            if destination == hung {
                asked.store(true, SeqCst);
                let guard = hang.0.lock().unwrap();
                drop(hang.1.wait_while(guard, |hangs| *hangs).unwrap());
            }
        }
    }));
    a.lead(7);
    eventually("it hangs", || asked.load(SeqCst));
    a.manifests.withdraw(&ELECTION.into(), OpId(1));

    let second = "second".into();
    a.manifests.lead(&second, Token(8), vec![run("hung")]).unwrap();
    a.wait_until_placed(8);
    a.manifests.withdraw(&second, OpId(2));
    let answered = |event: &ManifestEvent| match event {
        ManifestEvent::Withdrawn { op, result, .. } => Some((*op, result.clone())),
        _ => None,
    };
    assert_eq!(a.wait("the second's answer", answered), (OpId(2), Ok(())));

    // And once the disk is back, the late answer comes, and tells the truth.
    *hang.0.lock().unwrap() = false;
    hang.1.notify_all();
    assert_eq!(a.wait("the late answer", answered), (OpId(1), Ok(())));
    assert!(node.placed().is_empty());
    assert!(a.manifests.stop(PATIENCE));
}

#[test]
fn a_source_that_is_written_in_place_has_to_rest_first() {
    let node = Node::with(&["a"]);
    let mut a = node.run();
    a.lead_and_wait(7);
    // A manifest after every line, but only the last one is meant.
    let mut file = fs::File::create(node.src("a")).unwrap();
    for line in pod("edited").lines() {
        writeln!(file, "{line}").unwrap();
    }
    // As if the last line came a while later.
    let written = SystemTime::now() + Duration::from_millis(40);
    file.set_modified(written).unwrap();
    drop(file);
    eventually("the edit is carried over", || {
        fs::read_to_string(node.dst("a")).unwrap() == pod("edited")
    });
    assert!(SystemTime::now() >= written + Duration::from_millis(50));
}

/// Runs itself again under a limit for the size of files, which fails writes as a full disk does.
#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let inner = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside_a_full_disk", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inner.stdout);
    let errors = String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by a_full_disk_leaves_nothing_half_done, under a limit"]
fn inside_a_full_disk() {
    let mut node = restless(&["a", "b"]);
    node.handle(|handling| handling.render = true);
    // Small as a template, too large for the disk once it is rendered.
    let value = "x".repeat(64 * 1024);
    node.settings.variables.insert("LARGE".into(), value);
    replace(&node.src("b"), &format!("{}# ${{LARGE}}\n", pod("b")));
    let mut a = node.run();
    a.wait_until_fit();
    a.lead(7);
    let reason = a.wait_until_not_placed();
    assert!(reason.contains("cannot write"), "{reason}");
    assert!(node.placed().is_empty(), "the small one is held back, too");
    a.wait_until_unfit("cannot write");
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(node.gate.standing.load(SeqCst), 0);
    assert!(node.staged().iter().all(|name| name.starts_with("probe-")), "{:?}", node.staged());

    // With room again, all goes on, and what is in place survives a full disk.
    replace(&node.src("b"), &pod("b"));
    a.lead_and_wait(9);
    replace(&node.src("b"), &format!("{}# ${{LARGE}}\n", pod("b")));
    a.wait_until_unfit("cannot write");
    assert_eq!(fs::read_to_string(node.dst("b")).unwrap(), pod("b"));
    assert_eq!(a.withdraw(), Ok(()));
    assert!(node.placed().is_empty());
}

#[test]
fn a_node_that_failed_to_place_does_not_take_the_next_term_at_once() {
    let mut node = Node::with(&["a"]);
    node.settings.rescan = Duration::from_secs(3);
    let mut a = node.run();
    a.wait_until_fit();
    // A staged file cannot be made: something stands in its place that cannot be removed.
    let staged = node.dir.path().join("dst/.conclave/a.yaml.staged");
    fs::create_dir(&staged).unwrap();
    a.lead(7);
    a.wait_until_not_placed();
    a.wait_until_unfit("a.yaml.staged");
    fs::remove_dir(&staged).unwrap();
    assert_eq!(a.withdraw(), Ok(()));
    a.follow();
    // The first answer comes from the round that heard of it, the second from the next.
    assert_eq!(a.withdraw(), Ok(()));
    assert_eq!(a.withdraw(), Ok(()));
    assert!(a.fitness.as_ref().is_some_and(|fitness| !fitness.fit), "not while it is fresh");
    a.wait_until_fit();
}

#[test]
fn a_directory_that_takes_no_new_names_makes_unfit() {
    obey_permissions();
    let node = restless(&["a"]);
    let dst = node.dir.path().join("dst");
    let mut a = node.run();
    a.wait_until_fit();
    // What is inside its staging directory is not concerned.
    set_mode(&dst, 0o555);
    a.wait_until_unfit("Permission denied");
    set_mode(&dst, 0o755);
    a.wait_until_fit();
}

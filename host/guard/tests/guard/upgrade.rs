//! Upgrades: the guard executes the installed program in place, and the daemon is replaced.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use conclave_guard::Upgrade;
use rustix::process::Signal;

use crate::pair::Pair;
use crate::stand_in::LEADER;

const GOES_ON: &str = "guard goes on by another program";

pub(crate) fn kept() {
    let mut pair = Pair::start("extend");
    let mut daemon = pair.await_event("placed", 1).pid;
    let inode = fs::metadata(pair.manifest()).unwrap().ino();
    for round in 1..=3 {
        pair.upgrade();
        pair.await_log(GOES_ON, round);
        let old = pair.await_event("stepped aside", round);
        let new = pair.await_event("adopted", round);
        assert_eq!(old.pid, daemon, "the old program's daemon makes room");
        assert_ne!(new.pid, daemon);
        daemon = new.pid;
    }
    // Past where the session would have ended.
    pair.await_event("extended", pair.events().len() + 100);
    assert_eq!(fs::metadata(pair.manifest()).unwrap().ino(), inode, "nobody touched it");
    assert_eq!(fs::read_to_string(pair.role_file()).unwrap(), LEADER);
    // Its lock and its page are what they were: it excludes a second pair.
    let mut second = pair.another();
    assert_eq!(second.wait(), Some(crate::stand_in::GUARD_ERROR.into()));
    assert_eq!(pair.stop(), Some(0), "{}", pair.log());
    pair.assert_nothing_left();
}

pub(crate) fn refused() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    for round in 1..=2 {
        pair.set_answer("1");
        pair.upgrade();
        pair.await_log("cannot take over, not upgrading", round);
    }
    assert!(pair.is_running(placed.pid));
    assert!(!pair.log().contains(GOES_ON));
    // And it may be asked again.
    pair.set_answer("0");
    pair.upgrade();
    pair.await_event("adopted", 1);
    assert_eq!(pair.stop(), Some(0));
    pair.assert_nothing_left();
}

pub(crate) fn vanished() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.set_answer("vanish");
    pair.upgrade();
    pair.await_log("cannot execute the installed program, going on as before", 1);
    pair.upgrade();
    pair.await_log("cannot run the installed program, not upgrading", 1);
    assert!(pair.is_running(placed.pid));
    assert!(pair.survives_broken_pipes());
    // It listens to signals as before, and restarts a daemon that dies.
    pair.signal(placed.pid, Signal::KILL);
    pair.await_event("adopted", 1);
    assert_eq!(pair.stop(), Some(0), "{}", pair.log());
    pair.assert_nothing_left();
}

pub(crate) fn anew() {
    let mut pair = Pair::start("extend");
    pair.await_event("placed", 1);
    pair.set_answer(&Upgrade::NOT_IN_PLACE.to_string());
    pair.upgrade();
    pair.await_event("withdrawn", 1);
    pair.await_log("guard started", 2);
    let again = pair.await_event("placed", 2);
    assert!(pair.is_running(again.pid));
    assert!(pair.events().iter().all(|event| event.what != "adopted"));
    assert!(!pair.log().contains(GOES_ON));
    assert_eq!(pair.stop(), Some(0), "{}", pair.log());
    pair.assert_nothing_left();
}

pub(crate) fn stopped() {
    for delay_ms in [0, 5, 10, 20, 40, 80] {
        let mut pair = Pair::start("extend");
        pair.await_event("placed", 1);
        pair.upgrade();
        thread::sleep(Duration::from_millis(delay_ms));
        assert_eq!(pair.stop(), Some(0), "after {delay_ms} ms: {}", pair.log());
        pair.await_event("withdrawn", 1);
        pair.assert_nothing_left();
    }
}

pub(crate) fn frozen() {
    let mut pair = Pair::start("extend");
    let placed = pair.await_event("placed", 1);
    pair.signal(placed.pid, Signal::STOP);
    let last = pair.events().into_iter().rfind(|e| e.what == "extended").unwrap_or(placed.clone());
    pair.upgrade();
    pair.await_log(GOES_ON, 1);
    let gone = pair.await_withdrawn();
    pair.assert_before_expiry(&last, gone);
    let second = pair.await_event("placed", 2);
    assert_ne!(second.pid, placed.pid);
    assert!(!pair.is_running(placed.pid));
    assert_eq!(pair.stop(), Some(0), "{}", pair.log());
    pair.assert_nothing_left();
}

pub(crate) fn stubborn() {
    let pair = Pair::start("ignore-signals");
    let placed = pair.await_event("placed", 1);
    let inode = fs::metadata(pair.manifest()).unwrap().ino();
    pair.upgrade();
    let second = pair.await_event("adopted", 1);
    assert_ne!(second.pid, placed.pid);
    assert!(pair.log().contains("daemon does not step aside, killed it"), "{}", pair.log());
    assert_eq!(fs::metadata(pair.manifest()).unwrap().ino(), inode, "nobody touched it");
}

pub(crate) fn killed() {
    for delay_ms in [0, 5, 10, 20] {
        let mut pair = Pair::start("extend");
        let placed = pair.await_event("placed", 1);
        pair.upgrade();
        thread::sleep(Duration::from_millis(delay_ms));
        if pair.is_running(placed.pid) {
            pair.signal(placed.pid, Signal::KILL);
        }
        pair.await_event("adopted", 1);
        pair.await_log(GOES_ON, 1);
        assert_eq!(pair.stop(), Some(0), "after {delay_ms} ms: {}", pair.log());
        pair.assert_nothing_left();
    }
}

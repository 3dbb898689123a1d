//! Everything within small bounds, in about a minute on two idle cores. `cargo run --release -p
//! conclave-model -- --help` goes further.

use std::sync::Mutex;

use conclave_model::{Bounds, FaultKind, explore};

/// One exploration at a time: each uses all cores.
static TURN: Mutex<()> = Mutex::new(());

/// Explores; fails with the steps that break a promise, or if something was never seen.
fn holds(bounds: &Bounds, expected: &[&str]) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let explored = explore(bounds, threads);
    println!("{explored}");
    if let Some(story) = explored.broken {
        panic!("{story}");
    }
    for sight in expected.iter().chain(&["the bounded time is over"]) {
        assert!(explored.seen.contains(sight), "never seen: {sight}");
    }
}

const ANOTHER: &str = "another node leads";
const ADOPTED: &str = "a daemon goes on with another's term";
const GUARD: &str = "a guard withdraws";
const LATE: &str = "a delayed request is under way";

#[test]
fn two_nodes_and_any_fault_over_two_ttls() {
    holds(&Bounds::led(2, 8, 1), &[ANOTHER, ADOPTED, GUARD, LATE]);
}

#[test]
fn two_nodes_and_an_operator_at_any_moment() {
    holds(&Bounds::led(2, 8, 0).with_operator(), &[ANOTHER]);
}

#[test]
fn daemons_without_guards_and_any_fault_of_the_network() {
    holds(&Bounds::led(2, 8, 1).without_guards(), &[ANOTHER, LATE]);
}

#[test]
fn two_nodes_started_together_and_any_fault() {
    holds(&Bounds::started(2, 4, 1), &[ANOTHER, ADOPTED, LATE]);
}

#[test]
fn three_nodes_and_any_fault() {
    holds(&Bounds::led(3, 5, 1), &[ANOTHER, ADOPTED, GUARD, LATE]);
}

#[test]
fn three_nodes_started_together() {
    holds(&Bounds::started(3, 3, 0), &[ANOTHER]);
}

#[test]
fn three_nodes_and_an_operator_at_any_moment() {
    holds(&Bounds::led(3, 5, 0).with_operator(), &[ANOTHER]);
}

#[test]
fn a_daemon_that_dies_while_it_hands_over() {
    let kinds = [FaultKind::KillDaemon, FaultKind::DelayRequest, FaultKind::Stop];
    holds(&Bounds::led(2, 3, 1).with_operator().with_only(&kinds), &[ANOTHER, LATE]);
}

#[test]
fn two_elections_and_a_dead_machine() {
    let kinds = [FaultKind::KillNode, FaultKind::LoseReplies];
    let bounds = Bounds { elections: 2, ..Bounds::led(2, 6, 1).with_only(&kinds) };
    holds(&bounds, &[ANOTHER]);
}

#[test]
fn clocks_as_wrong_as_allowed() {
    // The owner's runs slowly and the observer's fast, and the other way round; by a fifth, so that
    // it shows within few ticks.
    for rates in [[-200_000, 200_000], [200_000, -200_000]] {
        let kinds = [FaultKind::LoseRequests, FaultKind::LoseReplies, FaultKind::Freeze];
        let bounds = Bounds::led(2, 9, 1).with_only(&kinds).with_rates(200_000, &rates);
        holds(&bounds, &[ANOTHER, GUARD]);
    }
}

#[test]
fn replies_that_take_longer_than_a_tick() {
    let kinds = [FaultKind::LoseRequests, FaultKind::DelayReply];
    let bounds = Bounds::led(2, 10, 2).without_guards().with_only(&kinds);
    holds(&Bounds { timeout: 2, ttl: 5, ..bounds }, &[ANOTHER]);
}

#[test]
fn a_takeover_delay_and_any_fault() {
    holds(&Bounds { takeover_delay: 2, ..Bounds::led(2, 8, 1) }, &[ANOTHER, ADOPTED, GUARD]);
}

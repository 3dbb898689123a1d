//! Claiming the node's name: free, proven dead, silent, alive, and with answers missing.

use super::play;
use super::scene::{Scene, When, settings};
use crate::{Past, Settings};
use When::*;

fn after(dead: &str) -> Settings {
    Settings { past: Past { dead: Some(dead.into()), ..Past::default() }, ..settings() }
}

#[test]
fn a_free_name_is_claimed() {
    play(
        &mut Scene::created(settings()),
        &[(Applied("list"), "create session"), (Applied("create session"), "")],
    );
}

#[test]
fn a_record_of_a_dead_daemon_is_ended_at_once() {
    play(
        &mut Scene::created_beside(after("other"), "other"),
        &[(Applied("list"), "end a's session"), (Applied("end a's session"), "create session")],
    );
}

#[test]
fn any_other_record_is_timed_and_one_changed_beat_times_it_again() {
    play(
        &mut Scene::created_beside(settings(), "other"),
        &[
            (Applied("list"), ""),
            (After(9_000), ""),
            (Namesake(1), ""),
            (After(10_000), ""),
            (After(21), "end a's session"),
            (Applied("end a's session"), "create session"),
        ],
    );
}

#[test]
fn a_living_owner_keeps_the_name() {
    play(
        &mut Scene::created_beside(settings(), "other"),
        &[(Applied("list"), ""), (Namesake(1), ""), (Namesake(2), "exit: name taken")],
    );
}

#[test]
fn a_record_that_changes_while_it_is_ended_is_timed_again() {
    play(
        &mut Scene::created_beside(settings(), "other"),
        &[
            (Applied("list"), ""),
            (After(10_021), "end a's session"),
            (Namesake(1), ""),
            (Rejected("end a's session"), ""),
            (After(10_021), "end a's session"),
        ],
    );
}

#[test]
fn an_ending_of_unknown_outcome_is_looked_at_again() {
    play(
        &mut Scene::created_beside(after("other"), "other"),
        &[
            (Applied("list"), "end a's session"),
            (Unknown("end a's session"), ""),
            (After(159), ""),
            (After(1), "end a's session"),
            (Applied("end a's session"), "create session"),
        ],
    );
}

#[test]
fn a_creation_of_unknown_outcome_is_proven_by_a_beat() {
    let mut scene = Scene::created(settings());
    play(
        &mut scene,
        &[
            (Applied("list"), "create session"),
            (AppliedUnheard("create session"), ""),
            (Silence(160), "create session"),
            (Rejected("create session"), ""),
            (Applied("beat"), ""),
        ],
    );
    assert_eq!(scene.core.status(scene.now).session, Some(scene.session_id()));
}

#[test]
fn a_stop_while_a_name_is_timed_or_claimed_leaves_nothing_behind() {
    play(&mut Scene::created_beside(settings(), "other"), &[(Applied("list"), ""), (Stop, "exit")]);
    play(
        &mut Scene::created(settings()),
        &[
            (Applied("list"), "create session"),
            (Stop, ""),
            (Applied("create session"), "end a's session"),
            (Applied("end a's session"), "exit"),
        ],
    );
}

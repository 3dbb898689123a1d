//! Giving a term up: withdrawing first, stop checks, handing over, resigning, being stuck.

use std::time::Duration;

use super::play;
use super::scene::{Scene, When, settings};
use crate::Settings;
use crate::record::EndReason;
use When::*;

fn checked() -> Settings {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.stop_check = true;
        election.takeover_delay = Duration::from_secs(7);
    }
    settings
}

#[test]
fn a_stop_hands_over_to_the_one_that_accepts() {
    let mut scene = Scene::leading(settings());
    play(
        &mut scene,
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (After(199), ""),
            (After(1), "offer to c"),
            (Applied("offer to c"), ""),
            (Accepts("b"), ""),
            (Accepts("c"), "withdraw"),
            (Withdrawn(Ok(())), "hand over to c"),
            (Applied("hand over to c"), "end a's session, follow c"),
            (Applied("end a's session"), "exit"),
        ],
    );
    let ended = scene.history();
    assert_eq!(ended.successor.as_ref().map(|n| n.as_str()), Some("c"));
    assert_eq!(ended.why, EndReason::Stopping);
}

#[test]
fn a_stop_that_nobody_accepts_resigns() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (After(200), "offer to c"),
            (Applied("offer to c"), ""),
            (After(200), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "end a's session, follow nobody"),
            (Applied("end a's session"), "exit"),
        ],
    );
}

#[test]
fn a_stop_that_the_store_does_not_answer_withdraws_and_exits_after_a_ttl() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Stop, "offer to b"),
            (Unknown("offer to b"), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Unknown("resign"), ""),
            (Silence(40), "resign"),
            (Silence(8_960), "session lost, follow a, end a's session"),
            (Unknown("end a's session"), ""),
            (Silence(1_100), "end a's session, exit"),
        ],
    );
}

#[test]
fn a_confirmed_stop_is_clean_and_any_other_end_owes_the_delay() {
    let mut scene = Scene::leading(checked());
    play(
        &mut scene,
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Ok(())), "check the stop"),
            (StopChecked(true), "hand over to b"),
            (Applied("hand over to b"), "end a's session, follow b"),
        ],
    );
    assert!(scene.history().clean);
    assert_eq!(scene.history().delay_ms, 0);

    let mut scene = Scene::leading(checked());
    play(
        &mut scene,
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Ok(())), "check the stop"),
            (StopChecked(false), "resign"),
            (Applied("resign"), "end a's session, follow nobody"),
        ],
    );
    assert!(!scene.history().clean);
    assert_eq!(scene.history().delay_ms, 7_000);
}

#[test]
fn a_stuck_term_is_never_given_up_and_its_session_beats_on() {
    let mut scene = Scene::leading(settings());
    play(
        &mut scene,
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Err("read-only")), "stuck"),
            (After(999), ""),
            (After(1), "withdraw"),
            (Withdrawn(Err("read-only")), "stuck"),
            (Silence(9_000), "withdraw, session lost"),
        ],
    );
    let beats = scene.under_way("beat");
    play(&mut scene, &[(Silence(4_000), "")]);
    assert_eq!(scene.under_way("beat"), beats + 2);
    play(
        &mut scene,
        &[
            (Withdrawn(Err("read-only")), "stuck"),
            (Silence(100), "withdraw"),
            (Withdrawn(Ok(())), "end a's session, follow a, exit"),
        ],
    );
}

#[test]
fn what_is_stuck_is_tried_again_when_the_deadline_comes() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Silence(8_500), ""),
            (Withdrawn(Err("read-only")), "stuck"),
            (Silence(499), ""),
            (Silence(1), "session lost, withdraw"),
            (Withdrawn(Err("read-only")), "stuck"),
            (Silence(99), ""),
            (Silence(1), "withdraw"),
        ],
    );
}

#[test]
fn a_target_that_is_cordoned_after_it_accepted_does_not_get_the_term() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Stop, "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (CordonOn("b"), ""),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "end a's session, follow nobody"),
        ],
    );
}

#[test]
fn a_handover_that_is_rejected_becomes_a_resignation_of_the_key_as_it_is() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Cordon(true), "rank"),
            (Ranked(Ok(&["b"])), "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Ok(())), "hand over to b"),
            (Rejected("hand over to b"), "resign"),
            (Applied("resign"), "follow nobody"),
        ],
    );
}

#[test]
fn a_handover_of_unknown_outcome_is_settled_by_a_resignation() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Cordon(true), "rank"),
            (Ranked(Ok(&["b"])), "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Ok(())), "hand over to b"),
            (AppliedUnheard("hand over to b"), ""),
            (Silence(40), "resign"),
            (Rejected("resign"), "follow b"),
        ],
    );
}

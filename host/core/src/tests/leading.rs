//! Holding a term: the takeover delay, offering, and what does not move a term.

use std::time::Duration;

use super::play;
use super::scene::{Scene, When, settings};
use crate::Settings;
use When::*;

fn delayed() -> Settings {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.takeover_delay = Duration::from_millis(800);
    }
    settings
}

/// Without a minimum term.
fn restless() -> Settings {
    let mut settings = settings();
    settings.timings.minimum_term = Duration::ZERO;
    settings
}

#[test]
fn a_takeover_delay_is_waited_out_before_placing() {
    let mut scene = Scene::following(delayed());
    play(
        &mut scene,
        &[
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (Applied("take over"), "prepare, read"),
            (Applied("read"), "rank, follow a"),
            (Ranked(Ok(&["a"])), ""),
            (After(799), ""),
            (After(1), "lead"),
        ],
    );
    assert_eq!(scene.history().delay_ms, 800);
    assert!(!scene.history().clean);
}

#[test]
fn what_is_unserved_of_a_delay_is_left_to_the_successor() {
    let mut scene = Scene::following(delayed());
    play(
        &mut scene,
        &[
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (Applied("take over"), "prepare, read"),
            (Applied("read"), "rank, follow a"),
            (Ranked(Ok(&["a"])), ""),
            (After(500), ""),
            (Stop, "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "end a's session, follow nobody"),
            (Applied("end a's session"), "exit"),
        ],
    );
    assert_eq!(scene.history().delay_ms, 300);
    assert!(!scene.history().clean, "a rest is unserved");
}

#[test]
fn nothing_is_placed_for_a_term_that_is_about_to_go() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a"])), "take"),
            (Applied("take"), "prepare, read"),
            (Cordon(true), ""),
            (Applied("read"), "rank, follow a"),
            (Ranked(Ok(&["a"])), "withdraw"),
        ],
    );
}

#[test]
fn a_better_candidate_is_offered_the_term_and_nothing_is_withdrawn_before_it_accepts() {
    let mut scene = Scene::leading(restless());
    play(
        &mut scene,
        &[
            (Candidate("c", false), "rank"),
            (Ranked(Ok(&["b", "a"])), "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
            (Withdrawn(Ok(())), "hand over to b"),
            (Applied("hand over to b"), "follow b"),
        ],
    );
}

#[test]
fn an_offer_that_nobody_accepts_leaves_the_term_where_it_is() {
    play(
        &mut Scene::leading(restless()),
        &[
            (Candidate("c", false), "rank"),
            (Ranked(Ok(&["b", "a"])), "offer to b"),
            (Applied("offer to b"), ""),
            (After(200), ""),
            (After(500), ""),
        ],
    );
}

#[test]
fn a_better_candidate_waits_for_the_minimum_term_and_while_paused() {
    play(
        &mut Scene::leading(settings()),
        &[(Candidate("c", false), "rank"), (Ranked(Ok(&["b", "a"])), ""), (After(500), "")],
    );
    play(
        &mut Scene::leading(restless()),
        &[
            (Pause(true), "rank"),
            (Ranked(Ok(&["b", "a", "c"])), ""),
            (Pause(false), "rank"),
            (Ranked(Ok(&["b", "a", "c"])), "offer to b"),
        ],
    );
}

#[test]
fn nodes_that_decide_by_different_versions_do_not_move_a_term() {
    play(
        &mut Scene::leading(restless()),
        &[
            (OtherVersion("c"), ""),
            (Candidate("b", false), "rank"),
            (Ranked(Ok(&["c", "a"])), "versions differ"),
            (Transfer("c"), "rank"),
            (Ranked(Ok(&["c", "a"])), "offer to c"),
        ],
    );
}

#[test]
fn a_transfer_moves_the_term_at_once_but_only_to_an_eligible_node() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Candidate("b", false), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), ""),
            (Transfer("b"), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), ""),
            (Transfer("c"), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), "offer to c"),
            (Applied("offer to c"), ""),
            (Accepts("c"), "withdraw"),
        ],
    );
}

#[test]
fn an_unfit_leader_gives_way_only_to_a_fit_candidate() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Candidate("b", false), "rank"),
            (Candidate("c", false), "rank"),
            (Fit(false), "candidacy"),
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), ""),
            (Candidate("c", true), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), "offer to c"),
        ],
    );
}

#[test]
fn a_queued_competitor_gets_the_term_when_this_node_must_go_and_not_for_a_preference() {
    play(
        &mut Scene::leading(restless()),
        &[
            (Foreign(true), ""),
            (Candidate("c", false), "rank"),
            (Ranked(Ok(&["b", "a"])), ""),
            (Cordon(true), "rank"),
            (Ranked(Ok(&["b", "a"])), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "follow nobody"),
        ],
    );
}

#[test]
fn an_offer_of_unknown_outcome_is_made_again_on_top_of_what_was_written() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Cordon(true), "rank"),
            (Ranked(Ok(&["b"])), "offer to b"),
            (AppliedUnheard("offer to b"), ""),
            (After(40), "offer to b"),
            (Rejected("offer to b"), ""),
            (After(40), "offer to b"),
            (Applied("offer to b"), ""),
            (Accepts("b"), "withdraw"),
        ],
    );
}

#[test]
fn a_term_whose_key_vanished_is_withdrawn_and_not_resigned() {
    play(
        &mut Scene::leading(settings()),
        &[(LosesKey, "withdraw"), (Withdrawn(Ok(())), "rank, follow nobody")],
    );
}

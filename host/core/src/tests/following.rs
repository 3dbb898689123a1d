//! Following a holder, campaigning, making certain, accepting.

use super::play;
use super::scene::{Scene, When, settings};
use When::*;

#[test]
fn a_candidate_takes_a_vacant_election_and_acts_only_after_reading_back() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a"])), "take"),
            (Applied("take"), "prepare, read"),
            (Applied("read"), "lead, rank"),
        ],
    );
}

#[test]
fn the_second_best_waits_one_stagger_and_the_excluded_does_not_campaign() {
    let mut scene = Scene::candidate(settings());
    play(
        &mut scene,
        &[
            (Candidate("b", true), ""),
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["b", "a"])), ""),
            (After(49), ""),
            (After(1), "take"),
        ],
    );
    let mut scene = Scene::candidate(settings());
    play(&mut scene, &[(Applied("candidacy"), "rank"), (Ranked(Ok(&[])), ""), (After(900), "")]);
}

#[test]
fn a_policy_that_fails_or_hangs_is_stood_in_for() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Err("trap")), "policy failed, candidacy"),
            (Applied("candidacy"), "take"),
        ],
    );
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (After(249), ""),
            (After(1), "policy failed, candidacy"),
            (Applied("candidacy"), "take"),
        ],
    );
}

#[test]
fn a_policy_that_hangs_gains_no_time_by_changes() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (After(200), ""),
            (Candidate("b", true), "rank"),
            (After(50), "policy failed, candidacy"),
        ],
    );
}

#[test]
fn on_hold_nobody_new_is_elected_until_the_policy_answers() {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.hold_on_policy_failure = true;
    }
    play(
        &mut Scene::candidate(settings),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Err("trap")), "policy failed"),
            (After(900), ""),
            (Candidate("b", true), "rank"),
            (Ranked(Ok(&["a", "b"])), "take"),
        ],
    );
}

#[test]
fn nobody_campaigns_against_a_holder_that_stands() {
    play(
        &mut Scene::following(settings()),
        &[(After(5_000), ""), (Beats("b"), ""), (After(9_000), ""), (Beats("b"), "")],
    );
}

#[test]
fn a_silent_holder_is_taken_over_no_sooner_than_its_ttl_and_the_clocks_errors() {
    play(
        &mut Scene::following(settings()),
        &[
            (Beats("b"), ""),
            (After(10_020), ""),
            (After(1), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (BeatsUnseen("b"), ""),
            // What came with the rejection is timed from its receipt.
            (Rejected("take over"), ""),
            (After(10_020), ""),
            (After(1), "take over"),
        ],
    );
}

#[test]
fn a_pause_keeps_nobody_from_replacing_a_dead_holder() {
    play(
        &mut Scene::following(settings()),
        &[
            (Pause(true), ""),
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (Applied("take over"), "prepare, read"),
            (Applied("read"), "lead, rank"),
        ],
    );
}

#[test]
fn a_takeover_that_another_one_overtook_is_tried_once_more_at_once() {
    let mut scene = Scene::following(settings());
    play(
        &mut scene,
        &[
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (Rejected("take over"), "take over"),
            (Rejected("take over"), ""),
            (After(40), "take over"),
        ],
    );
}

#[test]
fn an_ended_holder_is_taken_over_at_once_and_foreign_keys_behind_it_go_first() {
    play(
        &mut Scene::following(settings()),
        &[
            (Foreign(true), ""),
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "clear"),
            (Applied("clear"), "follow nobody"),
            (After(1_000), ""),
            (Foreign(false), "take"),
        ],
    );
}

#[test]
fn a_taken_key_that_is_not_the_lowest_is_given_up_without_placing() {
    let mut scene = Scene::candidate(settings());
    play(
        &mut scene,
        &[(Applied("candidacy"), "rank"), (Ranked(Ok(&["a"])), "take"), (Foreign(true), "")],
    );
    play(
        &mut scene,
        &[
            (Applied("take"), "prepare, read"),
            (Applied("read"), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "follow nobody"),
        ],
    );
}

#[test]
fn a_take_of_unknown_outcome_that_was_applied_is_rewritten_before_it_counts() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a"])), "take"),
            (AppliedUnheard("take"), ""),
            (WatchBroken, ""),
            (After(0), "follow a"),
            (After(20), "rewrite"),
            (Unknown("rewrite"), ""),
            (After(40), "rewrite"),
            (Applied("rewrite"), "prepare, read"),
            (Applied("read"), "lead, rank"),
        ],
    );
}

#[test]
fn an_unfit_or_cordoned_node_does_not_campaign_and_gives_up_a_key_that_it_finds() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a"])), "take"),
            (AppliedUnheard("take"), ""),
            (Fit(false), "candidacy"),
            (WatchBroken, ""),
            (After(0), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
        ],
    );
    play(
        &mut Scene::candidate(settings()),
        &[(Cordon(true), ""), (Applied("candidacy"), ""), (Cordon(false), "rank")],
    );
}

#[test]
fn an_offer_is_accepted_and_the_handed_over_term_needs_no_rewriting() {
    play(
        &mut Scene::following(settings()),
        &[
            (OffersToUs, "prepare, accept"),
            (Applied("accept"), ""),
            (HandsOverToUs, "prepare, read"),
            (Applied("read"), "lead, rank"),
        ],
    );
}

#[test]
fn an_unfit_node_accepts_nothing() {
    play(
        &mut Scene::following(settings()),
        &[(Fit(false), "candidacy"), (Applied("candidacy"), ""), (OffersToUs, "")],
    );
}

#[test]
fn a_standby_whose_policy_failed_asks_again_so_that_its_mark_goes() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Err("trap")), "policy failed, candidacy"),
            (Candidate("b", true), ""),
            (Holds("b"), "rank, follow b"),
            (Ranked(Err("trap")), ""),
            (Applied("candidacy"), ""),
            (Candidate("c", true), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), "candidacy"),
            (Applied("candidacy"), ""),
            (Candidate("c", false), ""),
        ],
    );
}

#[test]
fn one_that_may_not_lead_now_asks_again_too() {
    play(
        &mut Scene::candidate(settings()),
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Err("trap")), "policy failed, candidacy"),
            (Candidate("b", true), ""),
            (Holds("b"), "rank, follow b"),
            (Ranked(Err("trap")), ""),
            (Applied("candidacy"), ""),
            (Fit(false), "candidacy"),
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["b", "a"])), "candidacy"),
        ],
    );
}

#[test]
fn a_take_compares_the_history_that_it_knows() {
    let mut scene = Scene::leading(settings());
    play(
        &mut scene,
        &[
            (Cordon(true), "rank"),
            (Ranked(Ok(&[])), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "follow nobody"),
            (Cordon(false), "rank"),
            (Ranked(Ok(&["a"])), "take"),
        ],
    );
    // Another term may have come and gone since, and have left a debt.
    assert_eq!(scene.history_compared(), Some(scene.history_written()));
}

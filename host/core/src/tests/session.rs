//! The session: its deadline, its loss, adoption, and a store that goes back.

use super::play;
use super::scene::{Scene, When, e, settings};
use crate::settings::Past;
use crate::{Revision, Settings, Token};
use When::*;

#[test]
fn a_leader_that_the_store_does_not_answer_withdraws_at_the_deadline_and_starts_anew() {
    let mut scene = Scene::leading(settings());
    assert!(scene.core.leading(&e(), scene.now).is_some());
    play(
        &mut scene,
        &[
            (Silence(8_999), ""),
            (Silence(1), "session lost, withdraw"),
            (Withdrawn(Ok(())), "end a's session, follow a"),
            (Unknown("end a's session"), ""),
            (Silence(160), "end a's session"),
            (Applied("end a's session"), "create session"),
            (Applied("create session"), "candidacy"),
        ],
    );
    assert_eq!(scene.core.leading(&e(), scene.now), None);
}

#[test]
fn nobody_is_told_leading_past_the_deadline_though_no_event_has_come() {
    let scene = Scene::leading(settings());
    let at = |millis| scene.now.after(std::time::Duration::from_millis(millis));
    assert!(scene.core.leading(&e(), at(8_999)).is_some());
    for late in [9_000, 60_000] {
        assert_eq!(scene.core.leading(&e(), at(late)), None, "after {late} ms");
        let status = scene.core.status(at(late));
        assert_eq!(status.session, None);
        assert!(status.elections.iter().all(|e| e.phase != crate::status::Phase::Leading));
    }
}

#[test]
fn only_confirmed_beats_count_and_from_when_they_were_sent() {
    let mut scene = Scene::leading(settings());
    play(
        &mut scene,
        &[
            (Silence(2_000), ""),
            // Sent at 2 s, confirmed 1.5 s later: good until 2 s + TTL - margin.
            (Silence(1_500), ""),
            (Applied("beat"), "rank"),
            (Ranked(Ok(&["a", "b", "c"])), ""),
            (Silence(7_499), ""),
            (Silence(1), "session lost, withdraw"),
        ],
    );
}

#[test]
fn a_reading_that_is_answered_renews_nothing() {
    play(
        &mut Scene::leading(settings()),
        &[
            (Silence(8_000), ""),
            (WatchBroken, ""),
            (Applied("list"), ""),
            (Silence(999), ""),
            (Silence(1), "session lost, withdraw"),
        ],
    );
}

#[test]
fn a_watch_that_does_not_show_our_own_beat_is_not_relied_on() {
    let mut scene = Scene::leading(settings());
    scene.step(&Silence(2_000));
    scene.step(&Applied("beat"));
    scene.step(&Silence(1_999));
    assert_eq!(scene.under_way("list"), 0, "it may be late by a request's time");
    scene.step(&Silence(1));
    assert_eq!(scene.under_way("list"), 1, "everything is read again");
}

#[test]
fn a_guard_that_expired_ends_every_term() {
    play(&mut Scene::leading(settings()), &[(GuardExpired, "session lost, withdraw")]);
}

#[test]
fn a_session_that_was_ended_from_outside_is_lost() {
    play(
        &mut Scene::leading(settings()),
        &[(Namesake(1), "session lost, withdraw"), (Withdrawn(Ok(())), "follow a")],
    );
}

#[test]
fn an_adopted_term_goes_on_after_its_key_was_rewritten_and_read_back() {
    let mut scene = Scene::adopting(Scene::leading(settings()), settings(), true);
    play(
        &mut scene,
        &[
            (Applied("list"), ""),
            (Applied("beat"), "rewrite"),
            (Applied("rewrite"), "read"),
            (Applied("read"), "lead on"),
        ],
    );
}

#[test]
fn nothing_is_taken_or_kept_on_an_adopted_session_before_a_beat_is_confirmed() {
    let mut scene = Scene::adopting(Scene::leading(settings()), settings(), false);
    scene.describe();
    play(
        &mut scene,
        &[
            (Fit(true), ""),
            (Applied("list"), "follow a, candidacy"),
            (Applied("candidacy"), ""),
            (Silence(1_000), ""),
            (Applied("beat"), "rewrite"),
            (Applied("rewrite"), "prepare, read"),
            (Applied("read"), "lead, rank"),
        ],
    );
}

#[test]
fn a_found_key_is_kept_while_fitness_is_unknown_and_nothing_is_placed() {
    let mut scene = Scene::adopting(Scene::leading(settings()), settings(), false);
    play(
        &mut scene,
        &[
            (Applied("list"), "follow a"),
            (Applied("beat"), "rewrite"),
            (Applied("rewrite"), "prepare, read"),
            (Applied("read"), ""),
            (Fit(true), ""),
            (Described, "lead, rank, candidacy"),
        ],
    );
}

#[test]
fn a_found_key_that_is_given_up_counts_as_placed_for() {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.takeover_delay = std::time::Duration::from_secs(7);
    }
    let mut scene = Scene::adopting(Scene::leading(settings.clone()), settings, false);
    play(
        &mut scene,
        &[
            (Fit(false), ""),
            (Applied("list"), "follow a"),
            (Applied("beat"), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "follow nobody"),
        ],
    );
    assert!(!scene.history().clean);
    assert_eq!(scene.history().delay_ms, 7_000);
}

#[test]
fn a_found_key_that_is_given_up_still_owes_the_delay_that_it_may_not_have_served() {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.takeover_delay = std::time::Duration::from_secs(7);
        election.stop_check = true;
    }
    let mut earlier = Scene::following(settings.clone());
    play(
        &mut earlier,
        &[
            (Ended("b"), "rank"),
            (Ranked(Ok(&["a"])), "take over"),
            (Applied("take over"), "prepare, read"),
            (Applied("read"), "rank, follow a"),
        ],
    );
    let mut scene = Scene::adopting(earlier, settings, false);
    play(
        &mut scene,
        &[
            (Fit(false), ""),
            (Applied("list"), "follow a"),
            (Applied("beat"), "withdraw"),
            (Withdrawn(Ok(())), "check the stop"),
            (StopChecked(true), "resign"),
            (Applied("resign"), "follow nobody"),
        ],
    );
    assert!(!scene.history().clean);
    assert_eq!(scene.history().delay_ms, 7_000);
}

#[test]
fn a_found_key_that_is_held_and_given_up_before_placing_counts_as_placed_for() {
    let mut settings = settings();
    for election in settings.elections.values_mut() {
        election.takeover_delay = std::time::Duration::from_secs(7);
    }
    let mut scene = Scene::adopting(Scene::leading(settings.clone()), settings, false);
    play(
        &mut scene,
        &[
            (Applied("list"), "follow a"),
            (Applied("beat"), "rewrite"),
            (Applied("rewrite"), "prepare, read"),
            (Applied("read"), ""),
            (Stop, "rank"),
            (Ranked(Ok(&["a"])), "withdraw"),
            (Withdrawn(Ok(())), "resign"),
            (Applied("resign"), "end a's session, follow nobody"),
        ],
    );
    assert!(!scene.history().clean);
    assert_eq!(scene.history().delay_ms, 7_000);
}

#[test]
fn an_adopted_term_that_is_gone_or_not_configured_is_withdrawn() {
    let mut gone = Scene::leading(settings());
    gone.step(&LosesKey);
    let mut scene = Scene::adopting_term(gone, settings(), Token(99));
    play(&mut scene, &[(Applied("list"), ""), (Applied("beat"), "withdraw")]);

    let unconfigured = Settings { elections: Default::default(), ..settings() };
    let mut scene = Scene::adopting(Scene::leading(settings()), unconfigured, true);
    play(
        &mut scene,
        &[(Applied("list"), ""), (Applied("beat"), "withdraw"), (Withdrawn(Ok(())), "resign")],
    );
}

#[test]
fn a_shorter_ttl_shortens_an_adopted_session() {
    let mut shorter = settings();
    shorter.timings = crate::Timings::for_ttl(std::time::Duration::from_secs(2));
    let mut scene = Scene::adopting(Scene::leading(settings()), shorter, true);
    play(&mut scene, &[(Silence(1_799), ""), (Silence(1), "session lost, withdraw")]);
}

#[test]
fn a_store_that_went_back_is_refused_after_everything_is_withdrawn() {
    let past = Past { revision: Revision(5_000), ..Past::default() };
    play(
        &mut Scene::created(Settings { past, ..settings() }),
        &[(Applied("list"), "exit: store went back")],
    );

    let tokens = [(e(), Token(5_000))].into();
    let past = Past { tokens, ..Past::default() };
    let mut scene = Scene::candidate(Settings { past, ..settings() });
    play(
        &mut scene,
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&["a"])), "take"),
            (Applied("take"), "prepare, read"),
            (Applied("read"), "session lost, follow a, exit: store went back"),
        ],
    );
}

#[test]
fn a_silent_session_that_holds_nothing_is_ended_until_it_is_gone() {
    let mut scene = Scene::candidate(settings());
    play(
        &mut scene,
        &[
            (Applied("candidacy"), "rank"),
            (Ranked(Ok(&[])), ""),
            (Candidate("b", true), "rank"),
            (Ranked(Ok(&[])), ""),
        ],
    );
    let swept = scene.step(&After(11_100));
    assert!(swept.ends_with("end b's session"), "{swept}");
    scene.step(&Unknown("end b's session"));
    let swept = scene.step(&After(11_000));
    assert!(swept.contains("end b's session"), "{swept}");
}

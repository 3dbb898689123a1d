//! Terms: taken, taken over, handed over, resigned, rewritten.

use conclave_core::record::TransferRecord;
use conclave_core::request::leader_suffix;
use conclave_core::{Evidence, Key, Outcome, Request, Revision, Token, Value};
use conclave_store::Control;

use crate::scene::{
    Candidate, Scene, TIMEOUT, Term, ending, hand_over, history_key, is_led_by, leader_key,
    leader_record, resign, rewrite, session_key, take,
};

/// A takeover of `term` by `taker`.
pub(crate) fn take_over(taker: &Candidate, term: &Term, evidence: Evidence) -> Request {
    let Candidate { election, node, session, candidacy } = taker.clone();
    Request::TakeOver {
        record: Some(leader_record(&node, session)),
        election,
        node,
        session,
        candidacy,
        holder: term.holder.node.clone(),
        holder_session: term.holder.session,
        evidence,
        ending: ending(term),
    }
}

pub(crate) async fn a_vacant_election_is_taken(scene: Scene) {
    let a = scene.candidate("e", "a").await;
    let (at, seen) = scene.apply(take(&a, Revision(0))).await;
    let stored = seen.stored(&leader_key(&a));
    assert_eq!((stored.create, stored.modified, stored.leased), (at, at, false));
    assert!(is_led_by(stored, &a));

    let (_, seen) = scene.apply(Request::ReadLeader { election: "e".into() }).await;
    assert_eq!(seen.0.len(), 1);
    assert_eq!(seen.stored(&leader_key(&a)).create, at, "the token, read back");

    scene.apply(resign(&Term { holder: a.clone(), token: Token(at.0), modified: at })).await;
    let (_, seen) = scene.apply(Request::ReadLeader { election: "e".into() }).await;
    assert_eq!(seen.0, []);
    let entry = Key::History("e".into(), Token(at.0));
    let history = scene.everything().await[&entry].modified;
    scene.apply(take(&a, history)).await;
}

pub(crate) async fn a_silent_term_is_taken_over(scene: Scene) {
    let term = scene.term("e", "a").await;
    let b = scene.candidate("e", "b").await;
    let timed = scene.beat("a", term.holder.session, 1).await;
    let (at, seen) = scene.apply(take_over(&b, &term, Evidence::Silent(timed))).await;
    assert_eq!(seen.stored(&leader_key(&b)).create, at);
    assert_eq!(seen.stored(&history_key(&term)).create, at);
    assert_eq!(seen.state(&leader_key(&term.holder)), None);
    assert_eq!(seen.state(&session_key(&term.holder)), None, "the silent session is ended");
    let left = scene.everything().await;
    assert!(!left.contains_key(&session_key(&term.holder)));
    assert!(!left.contains_key(&leader_key(&term.holder)));
}

pub(crate) async fn the_term_of_an_ended_session_is_taken_over(scene: Scene) {
    let gone = scene.term("gone", "a").await;
    let replaced = scene.term("replaced", "b").await;
    scene.end_session("a").await;
    scene.end_session("b").await;
    scene.session("b").await;
    let mut c = scene.candidate("gone", "c").await;
    scene.apply(take_over(&c, &gone, Evidence::Ended)).await;
    c.election = "replaced".into();
    c.candidacy = scene.stand(&c).await;
    let (_, seen) = scene.apply(take_over(&c, &replaced, Evidence::Ended)).await;
    assert!(is_led_by(seen.stored(&leader_key(&c)), &c));
    let left = scene.everything().await;
    assert!(left.contains_key(&session_key(&replaced.holder)), "the new session stays");
    assert!(!left.contains_key(&leader_key(&replaced.holder)));
}

pub(crate) async fn a_term_is_only_ended_for_those_who_wait(scene: Scene) {
    let term = scene.term("e", "a").await;
    let waiting = Key::Leader("e".into(), "694d7f".into());
    scene.world.put(scene.keys.encode(&waiting), b"a competitor".to_vec()).await;
    let b = scene.candidate("e", "b").await;
    scene.end_session("a").await;
    let mut request = take_over(&b, &term, Evidence::Ended);
    if let Request::TakeOver { record, .. } = &mut request {
        *record = None;
    }
    let (_, seen) = scene.apply(request).await;
    assert_eq!(seen.state(&leader_key(&term.holder)), None);
    assert_eq!(seen.stored(&waiting).value, Value::Garbage, "who is left in the queue is told");
    let left = scene.everything().await;
    assert!(left.contains_key(&waiting) && !left.contains_key(&leader_key(&b)));
}

pub(crate) async fn a_term_is_handed_over(scene: Scene) {
    let term = scene.term("e", "a").await;
    let b = scene.candidate("e", "b").await;
    let transfer = TransferRecord { token: term.token, to: Some("b".into()), note: "me".into() };
    let control = Control::Transfer { election: "e".into(), transfer: Some(transfer) };
    scene.store.control(control, TIMEOUT).await.expect("the store answers");

    let (at, seen) = scene.apply(hand_over(&term, &b)).await;
    let stored = seen.stored(&leader_key(&b));
    assert_eq!((stored.create, is_led_by(stored, &b)), (at, true), "a new term, a new token");
    assert!(at.0 > term.token.0);
    assert_eq!(seen.state(&leader_key(&term.holder)), None);
    let left = scene.everything().await;
    assert!(!left.contains_key(&Key::Transfer("e".into())), "the transfer is done");
    assert!(matches!(&left[&history_key(&term)].value, Value::History(it) if it.clean));
    let leaders = left.keys().filter(|key| matches!(key, Key::Leader(..)));
    assert_eq!(leaders.collect::<Vec<_>>(), [&leader_key(&b)]);
}

pub(crate) async fn a_term_is_resigned(scene: Scene) {
    let term = scene.term("e", "a").await;
    let (at, seen) = scene.apply(resign(&term)).await;
    assert_eq!(seen.state(&leader_key(&term.holder)), None);
    assert_eq!(seen.stored(&history_key(&term)).create, at);
    let left = scene.everything().await;
    assert!(!left.contains_key(&leader_key(&term.holder)));
    assert!(left.contains_key(&session_key(&term.holder)), "the session goes on");
}

pub(crate) async fn whoever_touches_a_term_sees_its_rivals(scene: Scene) {
    let to = scene.candidate("elsewhere", "to").await;
    for election in ["rewritten", "resigned", "handed over"] {
        let request = |term: &Term, to: &Candidate| match election {
            "rewritten" => rewrite(term),
            "resigned" => resign(term),
            _ => hand_over(term, to),
        };
        // An older key than ours: whoever holds the term is not the one that leads.
        let rival = Key::Leader(election.into(), "1".into());
        scene.world.put(scene.keys.encode(&rival), b"a competitor".to_vec()).await;
        let holder = scene.candidate(election, &format!("holder of {election}")).await;
        let ours = leader_key(&holder);
        scene.world.put(scene.keys.encode(&ours), b"ours".to_vec()).await;
        let created = scene.everything().await[&ours].create;
        let term = Term { holder, token: Token(created.0), modified: created };
        let mut to = Candidate { election: election.into(), ..to.clone() };
        to.candidacy = scene.stand(&to).await;

        let stale = Term { modified: Revision(created.0 - 1), ..term.clone() };
        scene.reject(request(&stale, &to)).await.stored(&rival);
        let (_, seen) = scene.apply(request(&term, &to)).await;
        assert!(seen.stored(&rival).create < created);
    }
}

pub(crate) async fn rewriting_voids_what_was_written_before(scene: Scene) {
    let term = scene.term("e", "a").await;
    let b = scene.candidate("e", "b").await;
    let (at, seen) = scene.apply(rewrite(&term)).await;
    let stored = seen.stored(&leader_key(&term.holder));
    assert_eq!((stored.create, stored.modified), (Revision(term.token.0), at));
    for stale in [resign(&term), hand_over(&term, &b), rewrite(&term)] {
        let seen = scene.reject(stale).await;
        assert_eq!(seen.stored(&leader_key(&term.holder)).modified, at);
    }
    scene.apply(hand_over(&Term { modified: at, ..term }, &b)).await;
}

pub(crate) async fn history_is_trimmed_with_the_end_of_a_term(scene: Scene) {
    let holder = scene.candidate("e", "a").await;
    let (mut terms, mut history) = (Vec::new(), Revision(0));
    for round in 0..4 {
        let (at, seen) = scene.apply(take(&holder, history)).await;
        assert_eq!(seen.stored(&leader_key(&holder)).create, at);
        let term = Term { holder: holder.clone(), token: Token(at.0), modified: at };
        let mut request = resign(&term);
        if let Request::Resign { ending, .. } = &mut request {
            // Its own entry is written, whatever is to be trimmed.
            ending.trim = terms.iter().rev().skip(1).copied().chain([term.token]).collect();
        }
        let (at, seen) = scene.apply(request).await;
        history = at;
        if round == 3 {
            assert_eq!(seen.state(&Key::History("e".into(), terms[0])), None);
        }
        terms.push(term.token);
    }
    let left = scene.everything().await;
    let kept = |token: &Token| left.contains_key(&Key::History("e".into(), *token));
    assert_eq!(terms.iter().map(kept).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(!left.contains_key(&Key::Leader("e".into(), leader_suffix(holder.session))));
}

pub(crate) async fn of_many_who_reach_for_a_term_one_gets_it(scene: Scene) {
    let mut candidates = Vec::new();
    for number in 0..6 {
        candidates.push(scene.candidate("e", &format!("node {number}")).await);
    }
    let (mut history, mut before) = (Revision(0), Token(0));
    for _ in 0..5 {
        let reach = |candidate| tokio::spawn(reach(&scene, candidate, history));
        let takers: Vec<_> = candidates.iter().map(reach).collect();
        let mut winners = Vec::new();
        for taker in takers {
            winners.extend(taker.await.expect("a taker ends well"));
        }
        let [term] = winners.as_slice() else { panic!("one at a time: {winners:#?}") };
        assert!(term.token > before, "tokens grow");
        before = term.token;
        history = scene.apply(resign(term)).await.0;
    }
}

/// Takes the election through a store of its own, if it can.
fn reach(
    scene: &Scene,
    candidate: &Candidate,
    history: Revision,
) -> impl Future<Output = Option<Term>> + Send + use<> {
    let (scene, holder) = (scene.clone(), candidate.clone());
    async move {
        let own = Scene::open(scene.world, &scene.cluster).await;
        match own.execute(take(&holder, history)).await.outcome {
            Outcome::Applied { at, .. } => Some(Term { holder, token: Token(at.0), modified: at }),
            _ => None,
        }
    }
}

//! Every compare of every transaction, broken one at a time; and what the rejection then tells.

use conclave_core::{Evidence, Key, Request, Revision, SessionId, Token};

use crate::scene::{
    Candidate, Scene, Term, candidacy_key, hand_over, history_key, leader_key, resign, rewrite,
    session_key, take,
};
use crate::terms::take_over;

/// Ends a candidate's session and begins another of the same node.
async fn replace(scene: &Scene, candidate: &Candidate) -> SessionId {
    let node = candidate.node.as_str();
    scene.end_session(node).await;
    scene.session(node).await
}

/// Puts a competitor's key under an election's leader prefix.
async fn compete(scene: &Scene, election: &str) -> Key {
    let key = Key::Leader(election.into(), "694d7f".into());
    scene.world.put(scene.keys.encode(&key), b"a competitor".to_vec()).await;
    key
}

pub(crate) async fn takes(scene: Scene) {
    let a = scene.candidate("held", "a").await;
    let competitor = compete(&scene, "held").await;
    let seen = scene.reject(take(&a, Revision(0))).await;
    assert!(seen.stored(&competitor).create > a.candidacy);
    assert_eq!(seen.stored(&session_key(&a)).create, Revision(a.session.0));
    assert_eq!(seen.stored(&candidacy_key(&a)).modified, a.candidacy);

    let b = scene.candidate("session", "b").await;
    let session = replace(&scene, &b).await;
    let seen = scene.reject(take(&b, Revision(0))).await;
    assert_eq!(seen.stored(&session_key(&b)).create, Revision(session.0));

    let c = scene.candidate("candidacy", "c").await;
    let newer = scene.stand(&c).await;
    let seen = scene.reject(take(&c, Revision(0))).await;
    assert_eq!(seen.stored(&candidacy_key(&c)).modified, newer);

    let old = scene.term("history", "d").await;
    let (first, _) = scene.apply(resign(&old)).await;
    let (at, _) = scene.apply(take(&old.holder, first)).await;
    let newer = Term { token: Token(at.0), modified: at, ..old.clone() };
    let (second, _) = scene.apply(resign(&newer)).await;
    let seen = scene.reject(take(&old.holder, first)).await;
    assert_eq!(seen.stored(&history_key(&newer)).modified, second, "the newest entry is told");
    scene.apply(take(&old.holder, second)).await;
}

pub(crate) async fn takeovers(scene: Scene) {
    let taker = |election: &'static str| {
        let scene = scene.clone();
        async move {
            let term = scene.term(election, &format!("holder of {election}")).await;
            (term, scene.candidate(election, &format!("taker of {election}")).await)
        }
    };

    let (term, taken) = taker("still there").await;
    let seen = scene.reject(take_over(&taken, &term, Evidence::Ended)).await;
    assert_eq!(seen.stored(&session_key(&term.holder)).create.0, term.holder.session.0);

    let (term, taken) = taker("beating").await;
    let timed = Revision(term.holder.session.0);
    let newer = scene.beat(term.holder.node.as_str(), term.holder.session, 1).await;
    let seen = scene.reject(take_over(&taken, &term, Evidence::Silent(timed))).await;
    assert_eq!(seen.stored(&session_key(&term.holder)).modified, newer);

    let (term, taken) = taker("another term").await;
    let timed = Revision(term.holder.session.0);
    let stale = Term { token: Token(term.token.0 - 1), ..term.clone() };
    let seen = scene.reject(take_over(&taken, &stale, Evidence::Silent(timed))).await;
    assert_eq!(seen.stored(&leader_key(&term.holder)).create.0, term.token.0);
    scene.apply(resign(&term)).await;
    let seen = scene.reject(take_over(&taken, &term, Evidence::Silent(timed))).await;
    assert_eq!(seen.state(&leader_key(&term.holder)), None, "the term is over");

    let (term, taken) = taker("own session").await;
    let timed = Revision(term.holder.session.0);
    let session = replace(&scene, &taken).await;
    let seen = scene.reject(take_over(&taken, &term, Evidence::Silent(timed))).await;
    assert_eq!(seen.stored(&session_key(&taken)).create.0, session.0);

    let (term, taken) = taker("own candidacy").await;
    let timed = Revision(term.holder.session.0);
    let newer = scene.stand(&taken).await;
    let seen = scene.reject(take_over(&taken, &term, Evidence::Silent(timed))).await;
    assert_eq!(seen.stored(&candidacy_key(&taken)).modified, newer);
}

pub(crate) async fn handovers(scene: Scene) {
    let pair = |election: &'static str| {
        let scene = scene.clone();
        async move {
            let term = scene.term(election, &format!("from {election}")).await;
            (term, scene.candidate(election, &format!("to {election}")).await)
        }
    };

    let (term, to) = pair("rewritten").await;
    let (at, _) = scene.apply(rewrite(&term)).await;
    let seen = scene.reject(hand_over(&term, &to)).await;
    assert_eq!(seen.stored(&leader_key(&term.holder)).modified, at);

    let (term, to) = pair("own session").await;
    scene.end_session(term.holder.node.as_str()).await;
    let seen = scene.reject(hand_over(&term, &to)).await;
    assert_eq!(seen.state(&session_key(&term.holder)), None);

    let (term, to) = pair("competitor").await;
    let competitor = compete(&scene, "competitor").await;
    let seen = scene.reject(hand_over(&term, &to)).await;
    assert!(seen.stored(&competitor).create.0 > term.token.0);
    scene.apply(resign(&term)).await;

    let (term, to) = pair("target's session").await;
    let session = replace(&scene, &to).await;
    let seen = scene.reject(hand_over(&term, &to)).await;
    assert_eq!(seen.stored(&session_key(&to)).create.0, session.0);

    let (term, to) = pair("target's candidacy").await;
    let newer = scene.stand(&to).await;
    let seen = scene.reject(hand_over(&term, &to)).await;
    assert_eq!(seen.stored(&candidacy_key(&to)).modified, newer);

    let (term, to) = pair("beaten").await;
    scene.beat(to.node.as_str(), to.session, 1).await;
    scene.apply(hand_over(&term, &to)).await;
}

pub(crate) async fn resignations_and_rewrites(scene: Scene) {
    let term = scene.term("e", "a").await;
    let (at, _) = scene.apply(rewrite(&term)).await;
    for stale in [resign(&term), rewrite(&term)] {
        let seen = scene.reject(stale).await;
        assert_eq!(seen.stored(&leader_key(&term.holder)).modified, at);
    }
    let term = Term { modified: at, ..term };
    let session = replace(&scene, &term.holder).await;
    let seen = scene.reject(rewrite(&term)).await;
    assert_eq!(seen.stored(&session_key(&term.holder)).create.0, session.0);

    scene.apply(resign(&term)).await;
    let seen = scene.reject(resign(&term)).await;
    assert_eq!(seen.state(&leader_key(&term.holder)), None);
    let left = scene.everything().await;
    assert_eq!(left.keys().filter(|key| matches!(key, Key::Leader(..))).count(), 0);
    let (_, seen) = scene.apply(Request::ReadLeader { election: "e".into() }).await;
    assert!(seen.0.is_empty());
}

//! Sessions and candidacies.

use conclave_core::{Key, Request, Revision, SessionId, Value};

use crate::scene::{Scene, candidacy_record, end, session_record};

pub(crate) async fn a_name_is_claimed_once(scene: Scene) {
    let key = Key::Session("a".into());
    let claim = || Request::CreateSession { node: "a".into(), record: session_record("a", 0) };
    let (at, seen) = scene.apply(claim()).await;
    let stored = seen.stored(&key).clone();
    assert_eq!((stored.create, stored.modified, stored.leased), (at, at, false));
    assert_eq!(stored.value, Value::Session(session_record("a", 0)));

    let seen = scene.reject(claim()).await;
    assert_eq!(*seen.stored(&key), stored);

    scene.apply(end("a", SessionId(at.0), at)).await;
    let (again, seen) = scene.apply(claim()).await;
    assert!(again > at);
    assert_eq!(seen.stored(&key).create, again, "a new session has a new identity");
}

pub(crate) async fn beats_go_with_the_session_that_was_created(scene: Scene) {
    let key = Key::Session("a".into());
    let beat = |session, beat| Request::Beat {
        node: "a".into(),
        session,
        record: session_record("a", beat),
    };
    let seen = scene.reject(beat(SessionId(7), 1)).await;
    assert_eq!(seen.state(&key), None, "a beat creates nothing");

    let session = scene.session("a").await;
    for number in 1..4 {
        let (at, seen) = scene.apply(beat(session, number)).await;
        let stored = seen.stored(&key);
        assert_eq!((stored.create, stored.modified), (Revision(session.0), at));
        assert_eq!(stored.value, Value::Session(session_record("a", number)));
    }
    scene.end_session("a").await;
    let replaced = scene.session("a").await;
    let seen = scene.reject(beat(session, 4)).await;
    assert_eq!(seen.stored(&key).create, Revision(replaced.0));
}

pub(crate) async fn a_session_is_ended_only_as_it_was_seen(scene: Scene) {
    let key = Key::Session("a".into());
    let session = scene.session("a").await;
    let newest = scene.beat("a", session, 1).await;
    let seen = scene.reject(end("a", session, Revision(session.0))).await;
    assert_eq!(seen.stored(&key).modified, newest, "the newer beat is told");
    // As with a store that was restored, and gives revisions for a second time.
    let seen = scene.reject(end("a", SessionId(session.0 - 1), newest)).await;
    assert_eq!(seen.stored(&key).create, Revision(session.0), "another session stands");
    let (_, seen) = scene.apply(end("a", session, newest)).await;
    assert_eq!(seen.state(&key), None);
    assert_eq!(scene.reject(end("a", session, newest)).await.state(&key), None);
}

pub(crate) async fn a_candidacy_needs_its_session(scene: Scene) {
    let put = |session| Request::PutCandidacy {
        election: "e".into(),
        node: "a".into(),
        record: candidacy_record(session),
    };
    let (session, candidacy) = (Key::Session("a".into()), Key::Candidacy("e".into(), "a".into()));
    assert_eq!(scene.reject(put(SessionId(7))).await.state(&session), None);

    let first = scene.session("a").await;
    let (created, _) = scene.apply(put(first)).await;
    let (at, seen) = scene.apply(put(first)).await;
    let stored = seen.stored(&candidacy);
    assert_eq!((stored.create, stored.modified), (created, at));
    assert_eq!(stored.value, Value::Candidacy(candidacy_record(first)));

    scene.end_session("a").await;
    let second = scene.session("a").await;
    let seen = scene.reject(put(first)).await;
    assert_eq!(seen.stored(&session).create, Revision(second.0));
    scene.apply(put(second)).await;
}

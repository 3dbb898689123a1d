//! Keys and values that are not ours, and names that begin alike.

use conclave_core::{Key, Request, Revision, SessionId, Token, Value};

use crate::scene::{
    Scene, candidacy_key, end, leader_key, leader_record, resign, session_record, take,
};

pub(crate) async fn garbage_is_reported_as_such(scene: Scene) {
    let keys = [
        Key::Session("a".into()),
        Key::Candidacy("e".into(), "a".into()),
        Key::Leader("e".into(), "1".into()),
        Key::Pause("e".into()),
        Key::Transfer("e".into()),
        Key::Cordon("e".into(), "a".into()),
        Key::History("e".into(), Token(1)),
    ];
    for key in &keys {
        for value in [&b"\xff\x00not json"[..], b"", b"{}}", b"[1]"] {
            scene.world.put(scene.keys.encode(key), value.to_vec()).await;
            assert_eq!(scene.everything().await[key].value, Value::Garbage, "{key:?}");
        }
    }
    assert_eq!(scene.everything().await.len(), keys.len());

    // Garbage counts as a key: its name is taken, and it can be timed and ended.
    let claim = Request::CreateSession { node: "a".into(), record: session_record("a", 0) };
    let stored = scene.reject(claim.clone()).await.stored(&keys[0]).clone();
    scene.apply(end("a", SessionId(stored.create.0), stored.modified)).await;
    scene.apply(claim).await;
}

pub(crate) async fn sibling_names_never_meet(scene: Scene) {
    let long = scene.term("xyz", "a").await;
    let short = scene.term("xy", "ab").await;
    let slash = scene.term("xy/z", "abc").await;
    for term in [&long, &short, &slash] {
        let election = term.holder.election.clone();
        let (_, seen) = scene.apply(Request::ReadLeader { election }).await;
        assert_eq!(seen.0.len(), 1);
        assert_eq!(seen.stored(&leader_key(&term.holder)).create.0, term.token.0);
    }
    scene.apply(resign(&long)).await;
    scene.apply(resign(&slash)).await;
    let (again, _) = scene.apply(resign(&short)).await;
    // The siblings' newer history does not count, nor does the long name's for the short one.
    scene.apply(take(&short.holder, again)).await;

    let sibling = Scene::open(scene.world.clone(), &format!("{}z", scene.cluster)).await;
    assert!(sibling.everything().await.is_empty());
    sibling.session("a").await;
    assert_eq!(sibling.everything().await.len(), 1);
}

pub(crate) async fn a_foreign_leader_key_holds_the_election(scene: Scene) {
    let foreign = Key::Leader("e".into(), "694d8a7f".into());
    let leased = scene.world.put(scene.keys.encode(&foreign), b"somebody".to_vec()).await;
    let odd = [scene.keys.leader_prefix(&"e".into()).into_bytes(), b"/\xff/x".to_vec()].concat();
    scene.world.put(odd.clone(), b"odd".to_vec()).await;

    let a = scene.candidate("e", "a").await;
    let seen = scene.reject(take(&a, Revision(0))).await;
    let stored = seen.stored(&foreign);
    assert_eq!((&stored.value, stored.leased), (&Value::Garbage, leased));
    assert!(seen.stored(&Key::Leader("e".into(), "%FF/x".into())).create > stored.create);
    assert_eq!(scene.keys.encode(&Key::Leader("e".into(), "%FF/x".into())), odd);

    let (_, seen) = scene.apply(Request::ReadLeader { election: "e".into() }).await;
    assert_eq!(seen.0.len(), 2);
    assert!(scene.everything().await.contains_key(&candidacy_key(&a)));
}

pub(crate) async fn strays_in_history_can_be_learnt(scene: Scene) {
    let a = scene.candidate("e", "a").await;
    let stray = format!("{}history/e/stray", scene.keys.prefix()).into_bytes();
    scene.world.put(stray, b"?".to_vec()).await;
    let key = Key::History("e".into(), Token(0));
    let newest = scene.reject(take(&a, Revision(0))).await.stored(&key).modified;
    let (_, seen) = scene.apply(take(&a, newest)).await;
    let expected = Value::Leader(leader_record(&a.node, a.session));
    assert_eq!(seen.stored(&leader_key(&a)).value, expected);
}

//! Readings of everything, operators' intents, and what every reply carries.

use conclave_core::record::{MarkRecord, TransferRecord};
use conclave_core::{Key, Outcome, Request, Revision, SessionId, Token, Value};
use conclave_store::{Control, MAX_VALUE_BYTES, StoreError};

use crate::scene::{Scene, TIMEOUT, end, history_key, leader_key, resign, session_record};

pub(crate) async fn everything_is_listed_at_one_revision(scene: Scene) {
    assert!(scene.everything().await.is_empty());
    let term = scene.term("e", "a").await;
    let over = scene.term("f", "b").await;
    scene.apply(resign(&over)).await;
    let left = scene.everything().await;
    let mut expected = vec![
        Key::Session("a".into()),
        Key::Session("b".into()),
        Key::Candidacy("e".into(), "a".into()),
        Key::Candidacy("f".into(), "b".into()),
        leader_key(&term.holder),
        history_key(&over),
    ];
    expected.sort();
    assert_eq!(left.keys().cloned().collect::<Vec<_>>(), expected);
    assert!(left.values().all(|stored| stored.value != Value::Garbage && !stored.leased));
}

pub(crate) async fn many_keys_are_listed(scene: Scene) {
    // More than one page of etcd's, and more bytes than gRPC takes by default.
    let session = scene.session("filler").await;
    for election in 0..60 {
        let mut candidacy = crate::scene::candidacy_record(session);
        candidacy.facts.insert("fact".into(), "y".repeat(100_000));
        let election = format!("e{election}").as_str().into();
        let request = Request::PutCandidacy { election, node: "filler".into(), record: candidacy };
        scene.apply(request).await;
    }
    for number in 0..1_100 {
        let node = format!("node {number}").as_str().into();
        scene.world.put(scene.keys.encode(&Key::Session(node)), b"stray".to_vec()).await;
    }
    assert_eq!(scene.everything().await.len(), 1 + 60 + 1_100);
}

pub(crate) async fn operators_set_and_clear_their_intents(scene: Scene) {
    let mark = MarkRecord { note: "maintenance".into(), since_unix_ms: 9, for_ms: Some(5) };
    let transfer = TransferRecord { token: Token(5), to: None, note: String::new() };
    let election = || "e".into();
    let table = [
        (
            Key::Pause("e".into()),
            Value::Mark(mark.clone()),
            Control::Pause { election: election(), mark: Some(mark.clone()) },
            Control::Pause { election: election(), mark: None },
        ),
        (
            Key::Transfer("e".into()),
            Value::Transfer(transfer.clone()),
            Control::Transfer { election: election(), transfer: Some(transfer) },
            Control::Transfer { election: election(), transfer: None },
        ),
        (
            Key::Cordon("e".into(), "a".into()),
            Value::Mark(mark.clone()),
            Control::Cordon { election: election(), node: "a".into(), mark: Some(mark) },
            Control::Cordon { election: election(), node: "a".into(), mark: None },
        ),
    ];
    for (key, value, set, clear) in table {
        for _ in 0..2 {
            let reply = scene.store.control(set.clone(), TIMEOUT).await.expect("an answer");
            assert!(matches!(reply.outcome, Outcome::Applied { .. }));
            assert_eq!(scene.everything().await[&key].value, value);
        }
        for _ in 0..2 {
            let reply = scene.store.control(clear.clone(), TIMEOUT).await.expect("an answer");
            assert!(matches!(reply.outcome, Outcome::Applied { .. }), "gone is gone");
            assert!(!scene.everything().await.contains_key(&key));
        }
    }
}

pub(crate) async fn a_pause_ends_only_if_it_is_the_one_that_was_seen(scene: Scene) {
    let pause = |note: &str| {
        let mark = Some(MarkRecord { note: note.into(), ..MarkRecord::default() });
        Control::Pause { election: "e".into(), mark }
    };
    let end = |seen| Control::EndPause { election: "e".into(), seen };
    let key = Key::Pause("e".into());
    let mut seen = Vec::new();
    for note in ["first", "renewed"] {
        scene.store.control(pause(note), TIMEOUT).await.expect("an answer");
        seen.push(scene.everything().await[&key].modified);
    }
    let reply = scene.store.control(end(seen[0]), TIMEOUT).await.expect("an answer");
    assert!(matches!(reply.outcome, Outcome::Rejected { .. }), "{reply:?}");
    assert!(scene.everything().await.contains_key(&key), "it was renewed meanwhile");
    let reply = scene.store.control(end(seen[1]), TIMEOUT).await.expect("an answer");
    assert!(matches!(reply.outcome, Outcome::Applied { .. }), "{reply:?}");
    assert!(!scene.everything().await.contains_key(&key));
}

pub(crate) async fn revisions_only_grow_and_the_store_stays_itself(scene: Scene) {
    let cluster = scene.execute(Request::List).await.cluster;
    let mut newest = Revision(0);
    for round in 0..5 {
        let request =
            Request::CreateSession { node: "a".into(), record: session_record("a", round) };
        let reply = scene.execute(request).await;
        let Outcome::Applied { at, .. } = reply.outcome else { panic!("{reply:?}") };
        assert!(at > newest);
        newest = at;
        assert_eq!(reply.cluster, cluster);
        let (at, _) = scene.apply(end("a", SessionId(at.0), at)).await;
        assert!(at > newest, "deleting is a change too");
        newest = at;
        let reread = scene.world.open(&scene.cluster).await;
        let reply = reread.execute(Request::List, TIMEOUT).await.expect("an answer");
        let Outcome::Applied { at, .. } = reply.outcome else { panic!("{reply:?}") };
        assert!(at >= newest && reply.cluster == cluster, "whoever opens it sees the same");
    }
}

pub(crate) async fn the_store_is_measured(scene: Scene) {
    let latency = scene.store.measure(TIMEOUT).await.expect("the store answers");
    assert!(!latency.read.is_zero() && !latency.write.is_zero());
    assert!(scene.everything().await.is_empty(), "measuring leaves nothing behind");
    // The suite compacts only after this case, and the embedded store does so by itself.
    assert_eq!(latency.uncompacted.is_some(), scene.world.etcd().is_some());
}

pub(crate) async fn what_is_too_large_is_refused_unsent(scene: Scene) {
    let mut record = session_record("a", 0);
    record.version = "x".repeat(MAX_VALUE_BYTES);
    let request = Request::CreateSession { node: "a".into(), record };
    let error = scene.store.execute(request, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { ref key, .. } if key.ends_with("/sessions/a")));
    assert!(scene.everything().await.is_empty());
    assert_ne!(scene.session("a").await, SessionId(0));
}

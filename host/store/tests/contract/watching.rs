//! Watching: order, resuming, compaction.

use std::collections::BTreeMap;

use conclave_core::{Entry, Key, Request, Revision, Stored, Value};
use conclave_store::{StoreError, Watch, WatchEvent};
use tokio::time::timeout;

use crate::scene::{Scene, TIMEOUT, hand_over, history_key, leader_key, resign, session_record};

/// What a follower of a watch knows.
#[derive(Default)]
struct Follower {
    told: Revision,
    state: BTreeMap<Key, Stored>,
    entries: Vec<Entry>,
}

impl Follower {
    /// Follows until everything up to `target` has been told.
    async fn follow(&mut self, watch: &mut Watch, target: Revision) {
        while self.told < target {
            let event = timeout(TIMEOUT, watch.next()).await.expect("news in time");
            let (at, entries) = match event.expect("the watch goes on") {
                WatchEvent::Changes { at, entries } => (at, entries),
                WatchEvent::Progress { at } => (at, Vec::new()),
                WatchEvent::Broken(error) => panic!("broken: {error}"),
            };
            assert!(at > self.told || entries.is_empty(), "told up to {}, then {at}", self.told);
            for entry in entries {
                self.learn(entry, at);
            }
            self.told = at;
        }
    }

    fn learn(&mut self, entry: Entry, at: Revision) {
        assert!(entry.at > self.told && entry.at <= at, "news, and no newer than said");
        let last = self.entries.last();
        assert!(last.is_none_or(|last| last.at <= entry.at), "in the store's order");
        match &entry.stored {
            Some(stored) => {
                assert_eq!(stored.modified, entry.at);
                self.state.insert(entry.key.clone(), stored.clone());
            }
            None => drop(self.state.remove(&entry.key)),
        }
        self.entries.push(entry);
    }
}

async fn listed_at(scene: &Scene) -> Revision {
    scene.apply(Request::List).await.0
}

pub(crate) async fn changes_come_in_order_and_once(scene: Scene) {
    let mut follower = Follower { told: listed_at(&scene).await, ..Follower::default() };
    let mut watch = scene.store.watch(follower.told);
    let term = scene.term("e", "a").await;
    follower.follow(&mut watch, term.modified).await;
    let keys: Vec<_> = follower.entries.iter().map(|entry| entry.key.clone()).collect();
    let candidacy = Key::Candidacy("e".into(), "a".into());
    assert_eq!(keys, [Key::Session("a".into()), candidacy, leader_key(&term.holder)]);

    let b = scene.candidate("e", "b").await;
    let (at, _) = scene.apply(hand_over(&term, &b)).await;
    follower.follow(&mut watch, at).await;
    let last: Vec<_> = follower.entries.iter().filter(|entry| entry.at == at).collect();
    let gone = last.iter().find(|entry| entry.key == leader_key(&term.holder));
    assert_eq!(gone.expect("the deletion is told").stored, None);
    assert!(last.iter().any(|entry| entry.key == leader_key(&b)));
    assert!(last.iter().any(|entry| entry.key == history_key(&term)));
    assert_eq!(follower.state, scene.everything().await);
}

pub(crate) async fn a_watch_resumes_where_a_listing_was(scene: Scene) {
    let from = listed_at(&scene).await;
    let term = scene.term("e", "a").await;
    let mut first = Follower { told: from, ..Follower::default() };
    first.follow(&mut scene.store.watch(from), term.modified).await;
    let (at, _) = scene.apply(resign(&term)).await;
    // A second watch takes over where the first stopped, and sees only what came since.
    let mut second = Follower { entries: Vec::new(), ..first };
    second.follow(&mut scene.store.watch(term.modified), at).await;
    assert!(second.entries.iter().all(|entry| entry.at == at), "{:#?}", second.entries);
    assert_eq!(second.state, scene.everything().await);
}

pub(crate) async fn a_compacted_start_is_broken(scene: Scene) {
    let from = listed_at(&scene).await;
    for _ in 0..2 {
        let session = scene.session("a").await;
        scene.beat("a", session, 1).await;
        scene.end_session("a").await;
    }
    scene.world.compact().await;
    let latency = scene.store.measure(TIMEOUT).await.expect("the store answers");
    assert_eq!(latency.uncompacted, None, "it is being compacted");
    let mut watch = scene.store.watch(from);
    let event = timeout(TIMEOUT, watch.next()).await.expect("news in time");
    let Some(WatchEvent::Broken(StoreError::Compacted { after, compacted })) = event else {
        panic!("{event:?}")
    };
    assert!(after == from.0 && compacted > after);
    assert!(timeout(TIMEOUT, watch.next()).await.expect("an end").is_none());

    let from = listed_at(&scene).await;
    let mut follower = Follower { told: from, ..Follower::default() };
    let mut watch = scene.store.watch(from);
    let session = scene.session("a").await;
    follower.follow(&mut watch, Revision(session.0)).await;
    assert_eq!(follower.state, scene.everything().await);
}

pub(crate) async fn other_clusters_are_not_heard(scene: Scene) {
    let sibling = Scene::open(scene.world.clone(), &format!("{}z", scene.cluster)).await;
    let from = listed_at(&scene).await;
    let mut watch = scene.store.watch(from);
    sibling.session("a").await;
    let own = scene.session("b").await;
    let mut follower = Follower { told: from, ..Follower::default() };
    follower.follow(&mut watch, Revision(own.0)).await;
    assert_eq!(follower.state.keys().collect::<Vec<_>>(), [&Key::Session("b".into())]);
}

pub(crate) async fn nothing_is_missed_under_load(scene: Scene) {
    let from = listed_at(&scene).await;
    let mut watch = scene.store.watch(from);
    let writers = ["a", "b", "c"].map(|node| {
        let scene = scene.clone();
        tokio::spawn(async move {
            let session = scene.session(node).await;
            let mut newest = Revision(0);
            for beat in 1..=30 {
                newest = scene.beat(node, session, beat).await;
            }
            newest
        })
    });
    let mut newest = Revision(0);
    for writer in writers {
        newest = newest.max(writer.await.expect("the writer ends well"));
    }
    let mut follower = Follower { told: from, ..Follower::default() };
    follower.follow(&mut watch, newest).await;
    for node in ["a", "b", "c"] {
        let stored = &follower.state[&Key::Session(node.into())];
        assert_eq!(stored.value, Value::Session(session_record(node, 30)));
    }
}

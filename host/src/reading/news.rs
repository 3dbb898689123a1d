//! What changes in a cluster, in words.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::{ElectionName, Entry, Key, NodeName, Revision, Stored, Value};
use conclave_store::{Store, StoreError, WatchEvent};
use serde::Serialize;

use super::Reading;
use super::report::MarkReport;
use super::terms::reason;

/// A change, as people want to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct News {
    /// In which election; sessions belong to none.
    pub(crate) election: Option<ElectionName>,
    pub(crate) node: Option<NodeName>,
    /// Which kind of change, for programs.
    pub(crate) event: &'static str,
    /// What happened, for people.
    pub(crate) words: String,
}

/// The newest state of every key.
pub(crate) type State = BTreeMap<Key, Stored>;

/// How long until a store that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells what changes after a reading, until `tell` wants no more. A watch that breaks, or a store that does
/// not answer, is told; then it goes on with whatever changed meanwhile.
pub(crate) async fn follow(
    store: &dyn Store,
    limit: Duration,
    mut after: Revision,
    state: &mut State,
    mut tell: impl FnMut(Result<Vec<News>, StoreError>) -> bool,
) {
    loop {
        let mut watch = store.watch(after);
        while let Some(event) = watch.next().await {
            let (news, broken) = match event {
                WatchEvent::Progress { .. } => continue,
                WatchEvent::Changes { entries, .. } => (Ok(learn(state, entries)), false),
                WatchEvent::Broken(error) => (Err(error), true),
            };
            if !tell(news) {
                return;
            }
            if broken {
                break;
            }
        }
        let reading = loop {
            match Reading::of(store, limit).await {
                Ok(Some(reading)) => break reading,
                Ok(None) => {}
                Err(error) => {
                    if !tell(Err(error)) {
                        return;
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        };
        after = reading.at;
        let entries = reread(state, reading.entries);
        if !tell(Ok(learn(state, entries))) {
            return;
        }
    }
}

/// A whole reading as changes: what it does not have is gone.
fn reread(state: &State, mut entries: Vec<Entry>) -> Vec<Entry> {
    let at = entries.iter().map(|entry| entry.at).max().unwrap_or_default();
    let there: Vec<Key> = entries.iter().map(|entry| entry.key.clone()).collect();
    let gone = state.keys().filter(|key| !there.contains(key));
    let gone: Vec<Entry> = gone.map(|key| Entry { key: key.clone(), at, stored: None }).collect();
    entries.extend(gone);
    entries
}

/// Takes changes in and says what they mean; beats mean nothing new.
pub(crate) fn learn(state: &mut State, entries: Vec<Entry>) -> Vec<News> {
    let mut news = Vec::new();
    for Entry { key, stored, .. } in entries {
        let before = match &stored {
            Some(stored) => state.insert(key.clone(), stored.clone()),
            None => state.remove(&key),
        };
        news.extend(changed(&key, before.as_ref(), stored.as_ref()));
    }
    news
}

fn changed(key: &Key, before: Option<&Stored>, now: Option<&Stored>) -> Option<News> {
    let began = || before.map(|stored| stored.create) != now.map(|stored| stored.create);
    match key {
        Key::Session(node) => began().then(|| session(node, now)),
        Key::Candidacy(election, node) => candidacy(election, node, before, now),
        Key::Leader(election, suffix) => term(election, suffix, now).filter(|_| began()),
        Key::History(election, token) => {
            let Value::History(record) = &now?.value else { return None };
            let to = record.successor.as_ref().map(|to| format!(", handed to {to}"));
            let (node, why) = (record.holder.clone(), reason(record.why));
            let words =
                format!("{election}: {node}'s term {token} ended: {why}{}", to.unwrap_or_default());
            Some(News {
                election: Some(election.clone()),
                node: Some(node),
                event: "term ended",
                words,
            })
        }
        Key::Pause(election) => mark(election, None, "pause", before, now),
        Key::Cordon(election, node) => mark(election, Some(node), "cordon", before, now),
        Key::Transfer(election) => {
            let Value::Transfer(asked) = &now?.value else { return None };
            let to = asked.to.as_ref().map_or("the next".to_owned(), ToString::to_string);
            let words = format!("{election}: asked to move to {to} ({})", asked.note);
            Some(News {
                election: Some(election.clone()),
                node: asked.to.clone(),
                event: "transfer asked",
                words,
            })
        }
    }
}

fn session(node: &NodeName, now: Option<&Stored>) -> News {
    let (event, what) = match now {
        Some(_) => ("session began", "a session began"),
        None => ("session ended", "the session ended"),
    };
    News { election: None, node: Some(node.clone()), event, words: format!("{node}: {what}") }
}

fn candidacy(
    election: &ElectionName,
    node: &NodeName,
    before: Option<&Stored>,
    now: Option<&Stored>,
) -> Option<News> {
    let fitness = |stored: Option<&Stored>| match &stored?.value {
        Value::Candidacy(record) => Some(record.fitness.clone()),
        _ => None,
    };
    let (before, now) = (fitness(before), fitness(now));
    if before == now {
        return None;
    }
    let (event, what) = match now {
        None => ("candidacy ended", "no longer a candidate".to_owned()),
        Some(fitness) if fitness.fit && fitness.reasons.is_empty() => {
            ("fit", "a fit candidate".to_owned())
        }
        Some(fitness) if fitness.fit => ("fit", format!("fit, but {}", fitness.reasons.join("; "))),
        Some(fitness) => ("unfit", format!("unfit: {}", fitness.reasons.join("; "))),
    };
    let words = format!("{election}: {node} is {what}");
    Some(News { election: Some(election.clone()), node: Some(node.clone()), event, words })
}

fn term(election: &ElectionName, suffix: &str, now: Option<&Stored>) -> Option<News> {
    let stored = now?;
    let (node, holder, why) = match &stored.value {
        Value::Leader(record) => {
            (Some(record.holder.clone()), record.holder.to_string(), format!(" ({})", record.why))
        }
        _ => (None, format!("a foreign competitor (key {suffix})"), String::new()),
    };
    let words = format!("{election}: holder in store is {holder}, token {}{why}", stored.create);
    Some(News { election: Some(election.clone()), node, event: "term began", words })
}

fn mark(
    election: &ElectionName,
    node: Option<&NodeName>,
    what: &'static str,
    before: Option<&Stored>,
    now: Option<&Stored>,
) -> Option<News> {
    let (event, state) = match (what, before, now) {
        ("pause", None, Some(_)) => ("paused", "paused"),
        ("pause", Some(_), None) => ("resumed", "no longer paused"),
        ("cordon", None, Some(_)) => ("cordoned", "cordoned"),
        ("cordon", Some(_), None) => ("uncordoned", "no longer cordoned"),
        _ => return None,
    };
    let note = match now.map(|stored| &stored.value) {
        Some(Value::Mark(mark)) => MarkReport::from(mark.clone()).words(),
        _ => String::new(),
    };
    let whom = node.map(|node| format!("{node} is ")).unwrap_or_default();
    let words = format!("{election}: {whom}{state}{note}");
    Some(News { election: Some(election.clone()), node: node.cloned(), event, words })
}

#[cfg(test)]
mod tests {
    use conclave_core::Revision;
    use conclave_core::record::MarkRecord;

    use super::*;

    fn stored(create: u64, modified: u64, value: Value) -> Option<Stored> {
        Some(Stored {
            create: Revision(create),
            modified: Revision(modified),
            leased: false,
            value,
        })
    }

    #[test]
    fn only_what_people_want_to_know_is_news() {
        let mark =
            || Value::Mark(MarkRecord { note: "root@a".to_owned(), ..MarkRecord::default() });
        let session = Key::Session("a".into());
        let pause = Key::Pause("e".into());
        let leader = Key::Leader("e".into(), "7f".to_owned());
        let mut state = State::new();
        for (key, change, expected) in [
            (&session, stored(2, 2, Value::Garbage), Some("a: a session began")),
            (&session, stored(2, 3, Value::Garbage), None), // a beat
            (&session, stored(9, 9, Value::Garbage), Some("a: a session began")),
            (&session, None, Some("a: the session ended")),
            (&pause, stored(4, 4, mark()), Some("e: paused (root@a)")),
            (&pause, stored(4, 5, mark()), None),
            (&pause, None, Some("e: no longer paused")),
            (
                &leader,
                stored(6, 6, Value::Garbage),
                Some("e: holder in store is a foreign competitor (key 7f), token 6"),
            ),
            (&leader, stored(6, 8, Value::Garbage), None), // rewritten
            (&leader, None, None),                         // history tells of that
        ] {
            let entry = Entry { key: key.clone(), at: Revision(10), stored: change };
            let words = learn(&mut state, vec![entry]).into_iter().map(|news| news.words).next();
            assert_eq!(words.as_deref(), expected);
        }
    }

    #[test]
    fn what_a_new_reading_lacks_is_gone() {
        let mut state = State::new();
        let key = Key::Session("a".into());
        let entry = Entry { key, at: Revision(1), stored: stored(1, 1, Value::Garbage) };
        learn(&mut state, vec![entry]);
        let entries = reread(&state, Vec::new());
        let news = learn(&mut state, entries);
        assert_eq!(news.len(), 1);
        assert_eq!(news[0].event, "session ended");
        assert!(state.is_empty());
    }
}

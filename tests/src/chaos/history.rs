//! The store's own history of an election: every leader key that ever stood, and what was written
//! when it went.
//!
//! Nothing compacts a test's etcd, so that the whole past is still there at the end: one watch
//! from the first revision on, over a link without faults, replays it in order, and cannot miss
//! what happened while it was not looking.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::base64;
use crate::etcd::Etcd;
use crate::{PATIENCE, eventually};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision that it made.
    pub revision: u64,
    /// The revision that created the key; the key's own for one that is gone.
    pub created: u64,
    /// The key.
    pub key: String,
    /// What it says now; `None` when it is gone.
    pub value: Option<Value>,
}

/// A leader key, from its creation to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Its create revision.
    pub token: u64,
    /// The holder that it names.
    pub holder: String,
    /// The revision that deleted it.
    pub ended: Option<u64>,
    /// Whether the same revision wrote a history entry for it.
    pub entered: bool,
}

/// The terms of an election, by token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The terms, by token.
    pub terms: BTreeMap<u64, Term>,
    /// What should not be there.
    pub strange: Vec<String>,
}

impl History {
    /// Reads an election's history.
    ///
    /// # Errors
    ///
    /// When the store does not tell all of it.
    pub fn read(etcd: &Etcd, cluster: &str, election: &str) -> Result<Self> {
        let leaders = format!("/conclave/{cluster}/elections/{election}/leader/");
        let entries = format!("/conclave/{cluster}/history/{election}/");
        let mut events = replay(etcd, "leaders", &leaders)?;
        events.extend(replay(etcd, "entries", &entries)?);
        Ok(Self::of(&leaders, events))
    }

    /// Puts the terms together from what happened to leader keys and history entries.
    pub fn of(leaders: &str, mut events: Vec<Event>) -> Self {
        events.sort_by_key(|event| event.revision);
        let mut history = History::default();
        let mut standing: BTreeMap<String, u64> = BTreeMap::new();
        let entered = |event: &Event, token: u64| {
            let name = event.key.rsplit('/').next().and_then(|name| name.parse().ok());
            event.value.is_some() && name == Some(token)
        };
        for event in &events {
            let Some(session) = event.key.strip_prefix(leaders) else { continue };
            let Some(value) = &event.value else {
                let Some(token) = standing.remove(session) else {
                    history.strange.push(format!("{} ended and never began", event.key));
                    continue;
                };
                let same = events.iter().filter(|other| other.revision == event.revision);
                let mut entries = same.filter(|other| !other.key.starts_with(leaders));
                let term = history.terms.get_mut(&token).expect("entered when it began");
                term.ended = Some(event.revision);
                term.entered = entries.any(|other| entered(other, token));
                continue;
            };
            if standing.insert(session.to_owned(), event.created) == Some(event.created) {
                continue;
            }
            let holder = value["holder"].as_str().unwrap_or("nobody").to_owned();
            let term = Term { token: event.created, holder, ended: None, entered: false };
            history.terms.insert(event.created, term);
        }
        history
    }
}

/// The terms, a line each.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Term { token, holder, ended, entered } in self.terms.values() {
            let ended = ended.map_or("stands".to_owned(), |revision| format!("to {revision}"));
            let entry = if *entered { ", entered in history" } else { "" };
            writeln!(f, "term {token:>8} of {holder:<8} {ended}{entry}")?;
        }
        self.strange.iter().try_for_each(|line| writeln!(f, "strange: {line}"))
    }
}

/// Everything that ever happened to the keys under a prefix.
fn replay(etcd: &Etcd, name: &str, prefix: &str) -> Result<Vec<Event>> {
    // Written last, so whoever has heard of it has heard of everything. It stands beside what the
    // prefix is for: nothing of Conclave runs any more.
    let end = format!("{prefix}~end");
    etcd.ctl(&["put", &end, "null"])?;
    let watch = etcd.ctl_start(name, &["watch", "--prefix", "--rev=1", "-w", "json", prefix])?;
    let mut read = Vec::new();
    eventually(&format!("the history of {prefix}"), PATIENCE, || {
        let output = watch.output().ok()?;
        let whole = &output[..=output.rfind('\n')?];
        let events = whole.lines().map(parse).collect::<Result<Vec<_>>>();
        read = match events {
            Ok(events) => events.into_iter().flatten().collect(),
            Err(error) => return Some(Err(error)),
        };
        read.iter().any(|event: &Event| event.key == end).then_some(Ok(()))
    })??;
    read.retain(|event| event.key != end);
    Ok(read)
}

/// One line of `etcdctl watch -w json`.
fn parse(line: &str) -> Result<Vec<Event>> {
    let json: Value = serde_json::from_str(line).with_context(|| format!("etcdctl says {line}"))?;
    if json["Canceled"] == true || json["CompactRevision"].as_u64().unwrap_or_default() > 0 {
        bail!("the store does not tell its whole history: {line}");
    }
    let events = json["Events"].as_array().map_or(&[][..], Vec::as_slice);
    events.iter().map(event).collect()
}

fn event(json: &Value) -> Result<Event> {
    let kv = &json["kv"];
    let bytes = |field: &str| base64::decode(kv[field].as_str().unwrap_or_default());
    let revision = kv["mod_revision"].as_u64().context("a revision")?;
    let gone = json["type"].as_u64() == Some(1);
    let value = || serde_json::from_slice(&bytes("value")?).context("a record");
    Ok(Event {
        revision,
        created: kv["create_revision"].as_u64().unwrap_or(revision),
        key: String::from_utf8(bytes("key")?)?,
        value: if gone { None } else { Some(value()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Etcd, Version};
    use serde_json::json;

    const LEADERS: &str = "l/";

    fn put(revision: u64, created: u64, key: &str, holder: &str) -> Event {
        let value = Some(json!({ "holder": holder }));
        Event { revision, created, key: key.to_owned(), value }
    }

    fn gone(revision: u64, key: &str) -> Event {
        Event { revision, created: revision, key: key.to_owned(), value: None }
    }

    #[test]
    fn terms_begin_go_on_and_end() {
        let history = History::of(
            LEADERS,
            vec![
                put(5, 5, "l/s1", "a"),
                put(7, 5, "l/s1", "a"),
                gone(9, "l/s1"),
                put(9, 9, "l/s2", "b"),
                put(9, 9, "h/00005", "a"),
                gone(12, "l/s2"),
            ],
        );
        let term = |token: u64, holder: &str, ended, entered| {
            (token, Term { token, holder: holder.to_owned(), ended, entered })
        };
        let terms = BTreeMap::from([term(5, "a", Some(9), true), term(9, "b", Some(12), false)]);
        assert_eq!(history, History { terms, strange: Vec::new() });
    }

    #[test]
    fn an_end_without_a_beginning_is_strange() {
        assert_eq!(History::of(LEADERS, vec![gone(3, "l/s1")]).strange.len(), 1);
    }

    #[test]
    fn the_whole_past_is_read() {
        for version in Version::ALL {
            let etcd = Etcd::start(version).unwrap();
            let leader = "/conclave/plane/elections/e/leader/1";
            etcd.ctl(&["put", leader, r#"{"holder":"a"}"#]).unwrap();
            etcd.ctl(&["put", leader, r#"{"holder":"a","n":2}"#]).unwrap();
            etcd.ctl(&["del", leader]).unwrap();
            etcd.ctl(&["put", leader, r#"{"holder":"b"}"#]).unwrap();
            let history = History::read(&etcd, "plane", "e").unwrap();
            let holders: Vec<_> = history.terms.values().map(|term| &*term.holder).collect();
            assert_eq!(holders, ["a", "b"], "{history}");
            let ended: Vec<_> = history.terms.values().map(|term| term.ended.is_some()).collect();
            assert_eq!(ended, [true, false]);
            assert!(history.strange.is_empty());
        }
    }
}

//! What this node knows of the store, and when it learned it.
//!
//! News arrive by watch, by reads and with rejected transactions, in any order. A key's newest
//! revision wins; a read that lacks a key proves its absence as of the reading. Session records
//! carry the time at which their newest revision was *received*: the start of the silence by
//! which an observer may end them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::ids::{ElectionName, Kind, NodeName, Revision, SessionId, Token};
use crate::record::{CandidacyRecord, HistoryRecord, LeaderRecord, SessionRecord, TransferRecord};
use crate::request::{Entry, Key, Stored, Value, is_suffix_of};
use crate::time::Time;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    at: Revision,
    stored: Option<Stored>,
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.stored {
            Some(_) => Kind::AsOf.hash(self.at.0, state),
            None => self.at.hash(state),
        }
        self.stored.hash(state);
    }
}

/// The newest revision of a session record, and when it arrived here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    /// The record's create revision.
    create: Revision,
    /// The record's mod revision.
    pub(crate) modified: Revision,
    /// When it was received, by the slow clock.
    pub(crate) at: Time,
}

/// Where news comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The watch: in order, but events may be missing, and an earlier watch may still speak.
    Watch,
    /// A reply: it cannot show anything older than what was known when its request was sent.
    Read,
}

/// A leader key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderKey<'a> {
    pub(crate) suffix: &'a str,
    pub(crate) token: Token,
    pub(crate) modified: Revision,
    /// The term; `None` for a foreign key: one with a lease, with a value that is no record of
    /// ours, or whose name is not that of the session in its value.
    pub(crate) term: Option<&'a LeaderRecord>,
}

/// The replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Replica {
    keys: BTreeMap<Key, Known>,
    heard: BTreeMap<NodeName, Heard>,
    held: BTreeMap<SessionId, BTreeSet<ElectionName>>,
    /// The highest revision seen in any response.
    pub(crate) highest: Revision,
    /// The revision up to which the watch has reported.
    pub(crate) watched: Revision,
    /// Whether a complete reading has been received.
    pub(crate) listed: bool,
    /// Absences, so that older news about a deleted key is not taken for news.
    absent: BTreeSet<(Revision, Key)>,
}

/// The session that a leader key stands on; `None` for a foreign key.
fn held_by(suffix: &str, stored: &Stored) -> Option<SessionId> {
    match &stored.value {
        Value::Leader(record) if !stored.leased && is_suffix_of(suffix, record.session) => {
            Some(record.session)
        }
        _ => None,
    }
}

impl Replica {
    /// Takes in one key's state; `false` if it was known or is older than what is known.
    ///
    /// A key that is not known at all was never there, or its deletion was known and all news
    /// that could be older than that had come when it was forgotten; except from a watch that
    /// was given up and still speaks. So a watch is believed only from where it stands, while a
    /// read is always believed: it is what finds what a watch has skipped.
    pub(crate) fn learn(&mut self, entry: Entry, source: Source, received: Time) -> bool {
        let Entry { key, at, stored } = entry;
        if let Some(known) = self.keys.get_mut(&key) {
            if known.at >= at {
                return false;
            }
            if known.stored == stored {
                known.at = at;
                if stored.is_none() {
                    self.absent.insert((at, key));
                }
                return false;
            }
        } else if source == Source::Watch && at <= self.watched {
            return false;
        }
        if stored.is_none() {
            self.absent.insert((at, key.clone()));
            if let std::collections::btree_map::Entry::Vacant(unknown) =
                self.keys.entry(key.clone())
            {
                unknown.insert(Known { at, stored });
                return false;
            }
        }
        if let Key::Session(node) = &key {
            self.hear(node, stored.as_ref(), received);
        }
        if let Key::Leader(election, suffix) = &key {
            self.index(election, suffix, stored.as_ref());
        }
        self.keys.insert(key, Known { at, stored });
        true
    }

    /// Keeps the elections by the session that holds, or waits to hold, them.
    fn index(&mut self, election: &ElectionName, suffix: &str, stored: Option<&Stored>) {
        let key = Key::Leader(election.clone(), suffix.to_owned());
        if let Some(before) = self.stored(&key).and_then(|stored| held_by(suffix, stored)) {
            let gone = self.held.get_mut(&before).is_some_and(|held| {
                held.remove(election);
                held.is_empty()
            });
            if gone {
                self.held.remove(&before);
            }
        }
        if let Some(session) = stored.and_then(|stored| held_by(suffix, stored)) {
            self.held.entry(session).or_default().insert(election.clone());
        }
    }

    fn hear(&mut self, node: &NodeName, stored: Option<&Stored>, received: Time) {
        match stored {
            None => {
                self.heard.remove(node);
            }
            Some(stored) => {
                let (create, modified) = (stored.create, stored.modified);
                let news = Heard { create, modified, at: received };
                let heard = self.heard.entry(node.clone()).or_insert(news);
                // A later reading with an earlier revision is a store that was restored: what is
                // timed is the record as it is now, or its silence could never be shown. Such a
                // store also gives revisions for a second time: another session at the revision
                // that was timed is news.
                if (heard.create, heard.modified) != (create, modified) {
                    *heard = news;
                }
            }
        }
    }

    /// The known keys that a complete reading of a range at `at` did not contain, as absent.
    pub(crate) fn absences(
        &self,
        at: Revision,
        seen: &[Entry],
        within: impl Fn(&Key) -> bool,
    ) -> Vec<Entry> {
        let present: BTreeSet<&Key> = seen.iter().map(|e| &e.key).collect();
        self.keys
            .iter()
            .filter(|(key, known)| {
                known.stored.is_some() && known.at < at && within(key) && !present.contains(key)
            })
            .map(|(key, _)| Entry { key: key.clone(), at, stored: None })
            .collect()
    }

    /// When the newest beat of a session was received, while its record stands.
    pub(crate) fn heard_at(&self, node: &NodeName, session: SessionId) -> Option<Time> {
        let heard = self.heard.get(node)?;
        (heard.create.0 == session.0).then_some(heard.at)
    }

    /// Whether any absence is remembered.
    pub(crate) fn has_absences(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Forgets absences that the watch has passed, and that every reply still to come has
    /// passed too: `floor` is the lowest revision that one can show.
    pub(crate) fn forget_absences(&mut self, floor: Option<Revision>) {
        let passed = floor.map_or(self.watched, |floor| floor.min(self.watched));
        while self.absent.first().is_some_and(|(at, _)| *at <= passed) {
            let Some((at, key)) = self.absent.pop_first() else { return };
            if self.keys.get(&key).is_some_and(|k| k.stored.is_none() && k.at <= at) {
                self.keys.remove(&key);
            }
        }
    }

    fn stored(&self, key: &Key) -> Option<&Stored> {
        self.keys.get(key)?.stored.as_ref()
    }

    /// A session record's key, whatever its value.
    pub(crate) fn session_key(&self, node: &NodeName) -> Option<&Stored> {
        self.stored(&Key::Session(node.clone()))
    }

    /// A session record, if it is one.
    pub(crate) fn session(&self, node: &NodeName) -> Option<(SessionId, &SessionRecord)> {
        let stored = self.session_key(node)?;
        match &stored.value {
            Value::Session(record) => Some((SessionId(stored.create.0), record)),
            _ => None,
        }
    }

    /// When a session record's newest revision was received.
    pub(crate) fn heard(&self, node: &NodeName) -> Option<Heard> {
        self.heard.get(node).copied()
    }

    /// The keys under an election's leader prefix, lowest create revision first.
    pub(crate) fn leaders(&self, election: &ElectionName) -> Vec<LeaderKey<'_>> {
        let from = Key::Leader(election.clone(), String::new());
        let mut leaders: Vec<LeaderKey<'_>> = self
            .keys
            .range(from..)
            .map_while(|(key, known)| match key {
                Key::Leader(of, suffix) if of == election => Some((suffix, known)),
                _ => None,
            })
            .filter_map(|(suffix, known)| {
                let stored = known.stored.as_ref()?;
                let term = match &stored.value {
                    Value::Leader(record) if held_by(suffix, stored).is_some() => Some(record),
                    _ => None,
                };
                Some(LeaderKey {
                    suffix,
                    token: Token(stored.create.0),
                    modified: stored.modified,
                    term,
                })
            })
            .collect();
        leaders.sort_by_key(|leader| leader.token);
        leaders
    }

    /// The elections whose leader key stands on a session.
    pub(crate) fn holds(&self, session: SessionId) -> impl Iterator<Item = &ElectionName> {
        self.held.get(&session).into_iter().flatten()
    }

    /// Whether any leader key stands on a session.
    pub(crate) fn holds_any(&self, session: SessionId) -> bool {
        self.held.contains_key(&session)
    }

    /// The candidacies of an election, with their mod revisions.
    pub(crate) fn candidacies(
        &self,
        election: &ElectionName,
    ) -> impl Iterator<Item = (&NodeName, Revision, &CandidacyRecord)> {
        let from = Key::Candidacy(election.clone(), NodeName::new(""));
        self.keys
            .range(from..)
            .map_while(move |(key, known)| match key {
                Key::Candidacy(of, node) if of == election => Some((node, known)),
                _ => None,
            })
            .filter_map(|(node, known)| match &known.stored {
                Some(Stored { value: Value::Candidacy(record), modified, .. }) => {
                    Some((node, *modified, record))
                }
                _ => None,
            })
    }

    /// One candidacy, with its mod revision.
    pub(crate) fn candidacy(
        &self,
        election: &ElectionName,
        node: &NodeName,
    ) -> Option<(Revision, &CandidacyRecord)> {
        match self.stored(&Key::Candidacy(election.clone(), node.clone()))? {
            Stored { value: Value::Candidacy(record), modified, .. } => Some((*modified, record)),
            _ => None,
        }
    }

    /// Whether voluntary changes of an election are paused. A mark that cannot be read is set.
    pub(crate) fn paused(&self, election: &ElectionName) -> bool {
        self.stored(&Key::Pause(election.clone())).is_some()
    }

    /// Whether a node shall not lead an election. A mark that cannot be read is set.
    pub(crate) fn cordoned(&self, election: &ElectionName, node: &NodeName) -> bool {
        self.stored(&Key::Cordon(election.clone(), node.clone())).is_some()
    }

    /// The transfer that is asked for.
    pub(crate) fn transfer(&self, election: &ElectionName) -> Option<&TransferRecord> {
        match self.stored(&Key::Transfer(election.clone()))? {
            Stored { value: Value::Transfer(record), .. } => Some(record),
            _ => None,
        }
    }

    fn history_keys(
        &self,
        election: &ElectionName,
    ) -> impl DoubleEndedIterator<Item = (Token, &Stored)> {
        let from = Key::History(election.clone(), Token(0));
        let to = Key::History(election.clone(), Token(u64::MAX));
        self.keys.range(from..=to).filter_map(|(key, known)| match (key, &known.stored) {
            (Key::History(_, token), Some(stored)) => Some((*token, stored)),
            _ => None,
        })
    }

    /// The newest ended term that can be read.
    pub(crate) fn previous(&self, election: &ElectionName) -> Option<(Token, &HistoryRecord)> {
        self.history_keys(election).rev().find_map(|(token, stored)| match &stored.value {
            Value::History(record) => Some((token, record)),
            _ => None,
        })
    }

    /// The largest mod revision among an election's history entries.
    pub(crate) fn history_revision(&self, election: &ElectionName) -> Revision {
        self.history_keys(election).map(|(_, stored)| stored.modified).max().unwrap_or_default()
    }

    /// The oldest entries that must go so that one more leaves at most `limit`.
    pub(crate) fn history_surplus(&self, election: &ElectionName, limit: usize) -> Vec<Token> {
        /// A transaction stays small even after the limit was lowered.
        const AT_ONCE: usize = 16;
        let tokens: Vec<Token> = self.history_keys(election).map(|(token, _)| token).collect();
        let surplus = (tokens.len() + 1).saturating_sub(limit.max(1));
        tokens.into_iter().take(surplus.min(AT_ONCE)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Attributes;

    fn beat(at: u64, create: u64, modified: u64) -> Entry {
        let record = SessionRecord {
            nonce: "b-1".into(),
            ttl_ms: 10_000,
            beat: modified,
            age_ms: 0,
            boot_id: String::new(),
            addresses: Vec::new(),
            labels: Attributes::new(),
            version: String::new(),
            format: crate::record::FORMAT,
        };
        let (create, modified) = (Revision(create), Revision(modified));
        let stored = Stored { create, modified, leased: false, value: Value::Session(record) };
        Entry { key: Key::Session("b".into()), at: Revision(at), stored: Some(stored) }
    }

    #[test]
    fn a_record_is_timed_from_the_receipt_of_its_newest_state() {
        // When it was read, what it then was; what is timed, and since when.
        let cases = [
            ((10, 10), (10, 1)),
            ((12, 10), (10, 1)),
            ((14, 14), (14, 3)),
            ((13, 11), (14, 3)),
            // The store was restored from a copy, and has been written since.
            ((20, 11), (11, 5)),
            ((22, 11), (11, 5)),
            ((24, 24), (24, 7)),
        ];
        let mut replica = Replica::default();
        for (now, ((at, modified), (timed, since))) in (1..).zip(cases) {
            replica.learn(beat(at, 5, modified), Source::Read, Time(now));
            let heard = replica.heard(&"b".into()).map(|heard| (heard.modified, heard.at));
            assert_eq!(heard, Some((Revision(timed), Time(since))), "reading {now}");
        }
        // It was restored once more, and another session stands at the revision that was timed.
        replica.learn(beat(26, 21, 24), Source::Read, Time(8));
        let heard = replica.heard(&"b".into()).map(|heard| (heard.modified, heard.at));
        assert_eq!(heard, Some((Revision(24), Time(8))));
    }
}

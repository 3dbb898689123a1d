//! What the store has of a cluster, read and put into words: for commands, and for whoever asks a node
//! over HTTP. A reader times nobody, so nothing in here says "leading" (S8).

pub(crate) mod news;
pub(crate) mod report;
pub(crate) mod terms;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conclave_core::listing::Listing;
use conclave_core::record::{FORMAT, MarkRecord};
use conclave_core::{Entry, Key, NodeName, Outcome, Request, Revision, Value};
use conclave_store::{Store, StoreError};

/// One reading of everything that the store has of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// The revision as of which it is so.
    pub(crate) at: Revision,
    /// What it means.
    pub(crate) listing: Listing,
    /// What is there.
    pub(crate) entries: Vec<Entry>,
    marks: BTreeMap<Key, MarkRecord>,
}

impl Reading {
    /// Reads everything; `None` for an answer that is none to a reading.
    pub(crate) async fn of(store: &dyn Store, limit: Duration) -> Result<Option<Self>, StoreError> {
        let reply = store.execute(Request::List, limit).await?;
        let Outcome::Applied { at, seen } = reply.outcome else { return Ok(None) };
        let marks = seen.iter().filter_map(mark).collect();
        Ok(Some(Reading { at, listing: Listing::new(at, seen.clone()), entries: seen, marks }))
    }

    /// An operator's mark, if it is set; without its words where they cannot be read.
    pub(crate) fn mark(&self, key: &Key) -> Option<MarkRecord> {
        self.marks.get(key).cloned()
    }
}

/// A node whose records are of a later version than this program reads, if there is one.
pub(crate) fn newer_format(entries: &[Entry]) -> Option<(NodeName, u32)> {
    entries.iter().find_map(|entry| match (&entry.key, &entry.stored.as_ref()?.value) {
        (Key::Session(node), Value::Session(record)) if record.format > FORMAT => {
            Some((node.clone(), record.format))
        }
        _ => None,
    })
}

fn mark(entry: &Entry) -> Option<(Key, MarkRecord)> {
    let (Key::Pause(_) | Key::Cordon(..)) = &entry.key else { return None };
    let mark = match &entry.stored.as_ref()?.value {
        Value::Mark(mark) => mark.clone(),
        _ => MarkRecord::default(),
    };
    Some((entry.key.clone(), mark))
}

/// This machine's wall clock; for people.
pub(crate) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

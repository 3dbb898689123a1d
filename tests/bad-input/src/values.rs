//! Anything under a cluster's keys, through the embedded store, to a node and to a reader.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conclave_core::listing::Listing;
use conclave_core::record::Fitness;
use conclave_core::{
    Action, Core, ElectionSettings, Entry, Event, Key, Now, Outcome, Request, Revision, Settings,
    Timings, Token, Value,
};
use conclave_store::{EmbeddedConfig, EmbeddedStore, Keys, MAX_VALUE_BYTES, Store};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CLUSTER: &str = "c";

/// Parts keys and values in the input: no UTF-8 text has this byte.
pub const SEPARATOR: u8 = 0xff;

/// Takes bytes for keys and values by turns, each ended by [`SEPARATOR`], and each key without
/// the cluster's prefix.
pub fn run(bytes: &[u8]) {
    thread_local! {
        static PLACE: Place = Place::new();
    }
    PLACE.with(|place| place.read(&rows(bytes)));
}

fn rows(bytes: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let prefix = Keys::new(CLUSTER).prefix().as_bytes().to_vec();
    let mut parts = bytes.split(|byte| *byte == SEPARATOR);
    let mut rows = BTreeMap::new();
    while let Some(key) = parts.next() {
        let key = [&prefix, key].concat();
        rows.insert(key, parts.next().unwrap_or_default().to_vec());
    }
    rows
}

/// A store whose rows are written by somebody else.
struct Place {
    runtime: Runtime,
    store: EmbeddedStore,
    writer: Connection,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = crate::scratch();
        let path: PathBuf = directory.path().join("store.db");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let store = EmbeddedStore::open(EmbeddedConfig::new(&path, CLUSTER)).expect("a store");
        let writer = Connection::open(&path).expect("the same file");
        writer.pragma_update(None, "synchronous", "OFF").expect("speed");
        Place { runtime, store, writer, _directory: directory }
    }

    fn read(&self, rows: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let revision = self.write(rows);
        let list = self.store.execute(Request::List, Duration::from_secs(60));
        let reply = self.runtime.block_on(list).expect("a listing, whatever is listed");
        let Outcome::Applied { at, seen } = reply.outcome else { panic!("{:?}", reply.outcome) };
        assert_eq!(at, revision);
        judge(rows, &seen);
        tell_a_reader(at, seen.clone());
        tell_a_node(at, seen);
    }

    /// Replaces all rows, each written at a revision of its own.
    fn write(&self, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Revision {
        let write = || -> rusqlite::Result<i64> {
            self.writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM entry;")?;
            let newest = "SELECT revision FROM store";
            let mut at: i64 = self.writer.query_row(newest, (), |row| row.get(0))?;
            let mut insert = self.writer.prepare("INSERT INTO entry VALUES (?1, ?2, ?2, ?3)")?;
            for (key, value) in rows {
                at += 1;
                insert.execute((key, at, value))?;
            }
            self.writer.execute("UPDATE store SET revision = ?1", [at])?;
            self.writer.execute_batch("COMMIT")?;
            Ok(at)
        };
        Revision(write().expect("rows of ours").cast_unsigned())
    }
}

/// Every key of the cluster is there, once, by its one name, and a record means what its bytes say.
fn judge(rows: &BTreeMap<Vec<u8>, Vec<u8>>, seen: &[Entry]) {
    let keys = Keys::new(CLUSTER);
    let known = rows.keys().filter(|key| keys.decode(key).is_some()).count();
    assert_eq!(seen.len(), known);
    for entry in seen {
        // What names no token in history stands under token 0, all of it.
        if let Key::History(_, Token(0)) = entry.key {
            continue;
        }
        let bytes = rows.get(&keys.encode(&entry.key)).expect("a key encodes as it was found");
        let stored = entry.stored.as_ref().expect("what is listed is there");
        assert!(stored.value == Value::Garbage || bytes.len() <= MAX_VALUE_BYTES);
        match &stored.value {
            Value::Session(record) => same(record, bytes),
            Value::Candidacy(record) => same(record, bytes),
            Value::Leader(record) => same(record, bytes),
            Value::Transfer(record) => same(record, bytes),
            Value::Mark(record) => same(record, bytes),
            Value::History(record) => same(record, bytes),
            Value::Garbage => {}
        }
    }
}

/// A record survives being written, and every field that it has stands in the bytes.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(record: &T, bytes: &[u8]) {
    let written = serde_json::to_vec(record).expect("records are JSON");
    assert_eq!(&serde_json::from_slice::<T>(&written).expect("our own record"), record);
    let (ours, theirs) = (tree(&written), tree(bytes));
    for (field, value) in ours {
        if let Some(original) = theirs.get(&field) {
            contains(original, &value);
        }
    }
}

fn tree(bytes: &[u8]) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_slice(bytes).expect("a record is a JSON object")
}

/// Whether a value says at least what another says; it may say more, in fields that we do not know.
fn contains(theirs: &serde_json::Value, ours: &serde_json::Value) {
    use serde_json::Value::{Array, Object};
    match (theirs, ours) {
        (Object(theirs), Object(ours)) => {
            for (field, value) in ours {
                if let Some(original) = theirs.get(field) {
                    contains(original, value);
                }
            }
        }
        // A record inside a record may be written as a list of its fields.
        (Array(_), Object(_)) => {}
        (theirs, ours) => assert_eq!(theirs, ours),
    }
}

/// What `status` shows of it.
fn tell_a_reader(at: Revision, seen: Vec<Entry>) {
    let listing = Listing::new(at, seen);
    for election in listing.elections().cloned().collect::<Vec<_>>() {
        let _ = listing.holder(&election);
        let view = listing.view(&election, &"a".into(), 5_000);
        assert_eq!(view.candidates.len(), listing.candidacies(&election).count());
        let order = conclave_core::ranking::effective_order(&view, None);
        assert!(order.len() <= view.candidates.len());
    }
    listing.nodes().for_each(drop);
}

/// What a node makes of it when it finds it at its start, and the store answers nothing else.
fn tell_a_node(at: Revision, seen: Vec<Entry>) {
    let mut now = Now::at(1_000_000);
    let (mut core, actions) = Core::new(settings(), now);
    let list = actions.iter().find_map(|action| match action {
        Action::Send { op, request: Request::List, .. } => Some(*op),
        _ => None,
    });
    let op = list.expect("a node reads everything at its start");
    let fitness = Event::Fitness { election: "e".into(), fitness: Fitness::fit() };
    let policy = Event::Described {
        election: "e".into(),
        facts: BTreeMap::new(),
        policy: conclave_core::record::PolicyVersion::default(),
    };
    let reply = Event::Reply { op, outcome: Outcome::Applied { at, seen } };
    let mut actions = core.handle_all(now, [fitness, policy, reply]);
    for _ in 0..20 {
        assert!(actions.len() < 100, "{actions:?}");
        let lost = actions.drain(..).filter_map(|action| match action {
            Action::Send { op, .. } => Some(Event::Reply { op, outcome: Outcome::Unknown }),
            Action::Lead { .. } => panic!("it leads although the store answers nothing"),
            _ => None,
        });
        let events: Vec<Event> = lost.chain([Event::Tick]).collect();
        now = now.after(core.next_deadline(now).unwrap_or(Duration::from_secs(1)));
        actions = core.handle_all(now, events);
        let _ = core.status(now);
    }
}

fn settings() -> Settings {
    Settings {
        node: "a".into(),
        nonce: "a-1".into(),
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        version: String::new(),
        timings: Timings::for_ttl(Duration::from_secs(2)),
        elections: BTreeMap::from([("e".into(), ElectionSettings::default())]),
        past: Default::default(),
    }
}

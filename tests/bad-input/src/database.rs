//! An embedded store's file, damaged in any way.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use conclave_core::record::SessionRecord;
use conclave_core::{Outcome, Request, Revision};
use conclave_store::{EmbeddedConfig, EmbeddedStore, Store, StoreError, WatchEvent};
use rusqlite::Connection;

use crate::script::Script;

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes bytes for a whole file, or for changes to a good one.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let directory = crate::scratch();
    let path = directory.path().join("store.db");
    let content = match script.once_in(4) {
        true => script.rest().to_vec(),
        false => spoilt(&mut script),
    };
    fs::write(&path, &content).expect("room for a file");
    let before = EmbeddedConfig::new(&path, "c");
    match EmbeddedStore::open(before) {
        Ok(store) => use_it(&path, &store),
        Err(error) => named(&path, &error),
    }
}

/// A good file with some of its bytes changed, or its end cut off, or both.
fn spoilt(script: &mut Script<'_>) -> Vec<u8> {
    let mut content = good().to_vec();
    if script.once_in(4) {
        let keep = usize::from(script.byte()) << 8 | usize::from(script.byte());
        content.truncate(keep % content.len());
    }
    while !script.is_over() && !content.is_empty() {
        let at = usize::from(script.byte()) << 8 | usize::from(script.byte());
        let at = at % content.len();
        content[at] = script.byte();
    }
    content
}

/// A store of ours with something in it.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let directory = crate::scratch();
        let path = directory.path().join("store.db");
        let store = EmbeddedStore::open(EmbeddedConfig::new(&path, "c")).expect("a store");
        for node in ["a", "b", "c"] {
            execute(&store, claim(node)).expect("a name that is free");
        }
        drop(store);
        let connection = Connection::open(&path).expect("the same file");
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
            .expect("a checkpoint");
        drop(connection);
        fs::read(&path).expect("the file")
    })
}

/// A file that opens answers, or says what is wrong with it.
fn use_it(path: &Path, store: &EmbeddedStore) {
    for request in [Request::List, claim("d"), Request::List] {
        match execute(store, request) {
            Ok(Outcome::Unknown) => panic!("an answer that is none"),
            Ok(_) => {}
            Err(error) => named(path, &error),
        }
    }
    let mut watch = {
        let _inside = runtime().enter();
        store.watch(Revision(0))
    };
    let news = runtime().block_on(async { tokio::time::timeout(PATIENCE, watch.next()).await });
    if let Some(WatchEvent::Broken(error)) = news.expect("news, or the watch's end") {
        named(path, &error);
    }
}

fn execute(store: &EmbeddedStore, request: Request) -> Result<Outcome, StoreError> {
    runtime().block_on(store.execute(request, PATIENCE)).map(|reply| reply.outcome)
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime")
    })
}

fn claim(node: &str) -> Request {
    let record = SessionRecord {
        nonce: node.into(),
        ttl_ms: 10_000,
        beat: 0,
        age_ms: 0,
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: Default::default(),
        version: String::new(),
        format: conclave_core::record::FORMAT,
    };
    Request::CreateSession { node: node.into(), record }
}

/// What is wrong with a file is said with its name.
fn named(path: &Path, error: &StoreError) {
    let text = crate::told(error);
    match error {
        StoreError::Closed { .. } | StoreError::TimedOut { .. } => {
            panic!("a damaged file ends or stalls the store: {text}")
        }
        // Revisions of a damaged file may say anything.
        StoreError::Compacted { .. } => {}
        _ => assert!(text.contains(&*path.to_string_lossy()), "{text}"),
    }
}

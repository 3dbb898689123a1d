//! What only the embedded store can suffer: files that go, other machines, other programs.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::Request;
use conclave_store::{EmbeddedConfig, EmbeddedStore, Store, StoreError, WatchEvent};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::scene::{Scene, TIMEOUT, session_record};
use crate::world::Embedded;

fn open(dir: &TempDir) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(EmbeddedConfig::new(dir.path().join("store.db"), "c"))
}

fn claim(node: &str) -> Request {
    Request::CreateSession { node: node.into(), record: session_record(node, 0) }
}

fn database(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join("store.db")).unwrap()
}

#[tokio::test]
async fn a_file_that_goes_or_is_replaced_is_an_error() {
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        for replaced in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir).unwrap();
            let mut watch = store.watch(conclave_core::Revision(1));
            store.execute(claim("a"), TIMEOUT).await.unwrap();
            let path = dir.path().join(name);
            if replaced {
                let copy = dir.path().join("copy");
                fs::copy(&path, &copy).unwrap();
                fs::rename(&copy, &path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            for request in [claim("b"), Request::List] {
                let error = store.execute(request, TIMEOUT).await.unwrap_err();
                assert!(matches!(error, StoreError::Replaced { path: ref it } if *it == path));
            }
            let broken = loop {
                match timeout(TIMEOUT, watch.next()).await.expect("the watch ends") {
                    Some(WatchEvent::Broken(error)) => break error,
                    Some(_) => {}
                    None => panic!("it ends without a word"),
                }
            };
            assert!(matches!(broken, StoreError::Replaced { .. }), "{name}: {broken}");
        }
    }
}

#[tokio::test]
async fn revisions_survive_a_restart_and_the_deletion_of_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(Embedded::new());
    let scene = Scene::open(world.clone(), "c").await;
    let session = scene.session("a").await;
    scene.end_session("a").await;
    drop(scene);
    world.connection().execute("DELETE FROM entry", ()).unwrap();
    let scene = Scene::open(world, "c").await;
    assert!(scene.session("a").await.0 > session.0 + 1);
    drop(dir);
}

#[tokio::test]
async fn another_machine_is_refused_and_a_reboot_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).unwrap();
    store.execute(claim("a"), TIMEOUT).await.unwrap();

    // The same disk, after a reboot: the boot is another, the machine is known.
    database(&dir).execute("UPDATE store SET boot = 'an earlier boot'", ()).unwrap();
    let error = store.execute(Request::List, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherMachine { .. }), "somebody else took it: {error}");
    drop(store);
    let again = open(&dir).expect("the machine is known");
    again.execute(Request::List, TIMEOUT).await.unwrap();
    drop(again);

    // Another machine's disk.
    let sql = "UPDATE store SET boot = 'elsewhere'; DELETE FROM machine;
        INSERT INTO machine VALUES ('elsewhere')";
    database(&dir).execute_batch(sql).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::OtherMachine { .. }), "{error}");
}

#[tokio::test]
async fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    fs::write(&path, "apiVersion: v1\nkind: Pod\n".repeat(100)).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::ForeignFile { .. }), "{error}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("apiVersion"));

    fs::remove_file(&path).unwrap();
    database(&dir).execute("CREATE TABLE theirs (x)", ()).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::ForeignFile { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    drop(open(&dir).unwrap());
    database(&dir).pragma_update(None, "user_version", 99).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(error.to_string().contains("99"), "{error}");

    let missing = EmbeddedConfig::new(dir.path().join("missing/store.db"), "c");
    let error = EmbeddedStore::open(missing).unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error}");
}

#[tokio::test]
async fn who_cannot_write_in_time_has_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).unwrap();
    let other = database(&dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let limit = Duration::from_millis(50);
    let error = store.execute(claim("a"), limit).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
    assert!(begun.elapsed() >= limit / 2, "it waited for the other to finish");
    store.execute(Request::List, TIMEOUT).await.expect("readers do not wait for writers");
    other.execute_batch("ROLLBACK").unwrap();
    store.execute(claim("a"), TIMEOUT).await.expect("the name was not taken by the late one");
}

#[tokio::test]
async fn deletions_are_remembered_for_as_long_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { remember: 3, ..EmbeddedConfig::new(dir.path().join("store.db"), "c") };
    let store = EmbeddedStore::open(config).unwrap();
    let mut revisions = Vec::new();
    for node in ["a", "b", "c", "d"] {
        let reply = store.execute(claim(node), TIMEOUT).await.unwrap();
        let conclave_core::Outcome::Applied { at, .. } = reply.outcome else { panic!() };
        let end = Request::EndSession { node: node.into(), modified: at };
        store.execute(end, TIMEOUT).await.unwrap();
        revisions.push(at);
    }
    let rows: i64 =
        database(&dir).query_row("SELECT count(*) FROM entry", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "the deletions of c and d");
    let mut early = store.watch(revisions[0]);
    let event = timeout(TIMEOUT, early.next()).await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Broken(StoreError::Compacted { .. }))), "{event:?}");
    let mut late = store.watch(revisions[3]);
    let event = timeout(TIMEOUT, late.next()).await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Changes { .. })), "{event:?}");
}

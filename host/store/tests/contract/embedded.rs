//! What only the embedded store can suffer: files that go, other machines, other programs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::{Entry, Key, Outcome, Request, Revision, SessionId};
use conclave_store::{EmbeddedConfig, EmbeddedStore, Store, StoreError, Watch, WatchEvent};
use conclave_tests::process::Process;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::scene::{Scene, TIMEOUT, end, session_record};
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
            let mut watch = store.watch(Revision(1));
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
    let theirs = fs::read(&path).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::ForeignFile { .. }), "{error}");
    assert!(fs::read(&path).unwrap() == theirs, "not a byte of it was changed");

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
async fn whoever_only_looks_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let look = || EmbeddedStore::open_existing(EmbeddedConfig::new(&path, "c"));
    let error = look().unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is left behind");

    fs::write(&path, "").unwrap();
    let error = look().unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"");

    open(&dir).unwrap().execute(claim("a"), TIMEOUT).await.unwrap();
    look().unwrap().execute(Request::List, TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn a_link_to_the_file_is_as_good_as_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let store = open(&dir).unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("store.db"), &link).unwrap();
    let linked = EmbeddedStore::open(EmbeddedConfig::new(&link, "c")).unwrap();
    let mut watch = linked.watch(Revision(1));
    store.execute(claim("a"), TIMEOUT).await.unwrap();
    let event = timeout(TIMEOUT, watch.next()).await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Changes { .. })), "{event:?}");

    // Where it leads is as much the store's identity as the file itself.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
    let error = linked.execute(Request::List, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
}

#[tokio::test]
async fn a_bell_that_nobody_can_hear_costs_only_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("store.db-bell")).unwrap();
    let store = open(&dir).unwrap();
    let mut watch = store.watch(Revision(1));
    for node in ["a", "b"] {
        store.execute(claim(node), TIMEOUT).await.unwrap();
        let event = timeout(TIMEOUT, watch.next()).await.unwrap();
        assert!(matches!(event, Some(WatchEvent::Changes { .. })), "{event:?}");
    }
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
        let Outcome::Applied { at, .. } = reply.outcome else { panic!() };
        store.execute(end(node, SessionId(at.0), at), TIMEOUT).await.unwrap();
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

/// Names the file for [`a_writer_in_another_process`].
const FILE: &str = "CONCLAVE_TEST_STORE";

#[test]
#[ignore = "a part of the test below, which runs it in a process of its own"]
fn a_writer_in_another_process() {
    let path = std::env::var_os(FILE).expect("run by the test below");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(EmbeddedConfig::new(path, "c")).unwrap();
        for number in 0.. {
            let node = format!("{} of {}", number % 10, std::process::id());
            let reply = store.execute(claim(&node), TIMEOUT).await.unwrap();
            if let Outcome::Rejected { seen, .. } = reply.outcome {
                let stored = seen[0].stored.as_ref().unwrap();
                let ending = end(&node, SessionId(stored.create.0), stored.modified);
                store.execute(ending, TIMEOUT).await.unwrap();
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_in_other_processes_are_heard_and_may_be_killed_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).unwrap();
    let mut watch = store.watch(Revision(1));
    let (mut told, mut state) = (Revision(1), BTreeMap::new());
    for _ in 0..5 {
        let mut writers = [start_writer(&dir, "one"), start_writer(&dir, "two")];
        let until = Revision(told.0 + 40);
        while told < until {
            told = learn(&mut watch, &mut state).await;
        }
        writers.iter_mut().for_each(|writer| writer.kill_family().unwrap());
    }
    let reply = store.execute(claim("the survivor"), TIMEOUT).await.unwrap();
    let Outcome::Applied { at, .. } = reply.outcome else { panic!("{reply:?}") };
    while told < at {
        told = learn(&mut watch, &mut state).await;
    }
    let Outcome::Applied { seen, .. } =
        store.execute(Request::List, TIMEOUT).await.unwrap().outcome
    else {
        panic!()
    };
    let listed: BTreeMap<_, _> =
        seen.into_iter().map(|entry| (entry.key, entry.stored.unwrap().modified)).collect();
    assert_eq!(state, listed, "the watch and the listing agree");
    let integrity: String =
        database(&dir).query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

fn start_writer(dir: &TempDir, name: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "embedded::a_writer_in_another_process", "--ignored"]);
    command.env(FILE, dir.path().join("store.db"));
    Process::start(name, dir.path(), command).unwrap()
}

/// Takes in the next news; up to which revision it goes.
async fn learn(watch: &mut Watch, state: &mut BTreeMap<Key, Revision>) -> Revision {
    match timeout(TIMEOUT, watch.next()).await.expect("news in time") {
        Some(WatchEvent::Changes { at, entries }) => {
            for Entry { key, stored, .. } in entries {
                match stored {
                    Some(stored) => state.insert(key, stored.modified),
                    None => state.remove(&key),
                };
            }
            at
        }
        Some(WatchEvent::Progress { at }) => at,
        other => panic!("the watch ended: {other:?}"),
    }
}

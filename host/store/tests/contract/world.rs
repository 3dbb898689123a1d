//! The stores under test, and what anybody else could do to them.

use std::path::PathBuf;
use std::sync::Arc;

use conclave_store::{BoxFuture, EmbeddedConfig, EmbeddedStore, Store};
use rusqlite::Connection;
use tempfile::TempDir;

/// A store's surroundings.
pub(crate) trait World: Send + Sync {
    /// Opens the store for a cluster.
    fn open(&self, cluster: &str) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Writes bytes, as anybody with access could; returns whether the key carries a lease.
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'_, bool>;

    /// Makes the store forget what lies before its newest revision.
    fn compact(&self) -> BoxFuture<'_, ()>;
}

/// The embedded store in a directory of its own.
pub(crate) struct Embedded {
    dir: TempDir,
}

impl Embedded {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Embedded { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The database file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    /// The database as any program sees it.
    pub(crate) fn connection(&self) -> Connection {
        Connection::open(self.path()).expect("the database opens")
    }
}

impl World for Embedded {
    fn open(&self, cluster: &str) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = EmbeddedConfig::new(self.path(), cluster);
        Box::pin(async move {
            let store = EmbeddedStore::open(config).expect("the store opens");
            Arc::new(store) as Arc<dyn Store>
        })
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let sql = "BEGIN IMMEDIATE;
                 UPDATE store SET revision = revision + 1;";
            let connection = self.connection();
            connection.execute_batch(sql).expect("the revision moves");
            let written = connection.execute(
                "INSERT INTO entry SELECT ?1, revision, revision, ?2 FROM store WHERE true
                 ON CONFLICT (key) DO UPDATE SET modified = excluded.modified, value = ?2",
                (key, value),
            );
            assert_eq!(written, Ok(1));
            connection.execute_batch("COMMIT").expect("the change is committed");
            false
        })
    }

    fn compact(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let sql = "BEGIN IMMEDIATE;
                DELETE FROM entry WHERE created = 0;
                UPDATE store SET compacted = revision;
                COMMIT";
            self.connection().execute_batch(sql).expect("the store is compacted");
        })
    }
}

//! The stores under test, and what anybody else could do to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conclave_store::{BoxFuture, EmbeddedConfig, EmbeddedStore, EtcdConfig, EtcdStore, Store};
use conclave_tests::etcd::{Etcd, Version};
use etcd_client::{Client, PutOptions};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::scene::TIMEOUT;

/// A store's surroundings.
pub(crate) trait World: Send + Sync {
    /// Opens the store for a cluster.
    fn open(&self, cluster: &str) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Writes bytes, as anybody with access could; returns whether the key carries a lease.
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'_, bool>;

    /// Makes the store forget what lies before its newest revision.
    fn compact(&self) -> BoxFuture<'_, ()>;

    /// The etcd server, where it is one.
    fn etcd(&self) -> Option<&EtcdServer> {
        None
    }
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
        let connection = Connection::open(self.path()).expect("the database opens");
        // Whole suites write beside it, and SQLite's waiting is not fair.
        connection.busy_timeout(Duration::from_secs(60)).expect("the limit is set");
        connection
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

/// A real etcd server of its own.
pub(crate) struct EtcdServer {
    server: Etcd,
    client: Client,
}

impl EtcdServer {
    /// Starts one of this version.
    pub(crate) async fn start(version: Version) -> Self {
        let server = tokio::task::spawn_blocking(move || Etcd::start(version));
        let server = server.await.expect("starting ends").expect("etcd starts");
        let client = Client::connect([server.url()], None).await.expect("etcd answers");
        EtcdServer { server, client }
    }

    /// The server.
    pub(crate) fn server(&self) -> &Etcd {
        &self.server
    }

    /// A client of its own kind.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }
}

impl World for EtcdServer {
    fn etcd(&self) -> Option<&EtcdServer> {
        Some(self)
    }

    fn open(&self, cluster: &str) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = etcd_config(vec![self.server.url()], cluster);
        Box::pin(async move {
            let store = EtcdStore::connect(config).await.expect("the store connects");
            Arc::new(store) as Arc<dyn Store>
        })
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'_, bool> {
        let mut client = self.client.clone();
        Box::pin(async move {
            // As `etcdctl elect` would.
            let leased = key.windows(8).any(|part| part == b"/leader/");
            let options = if leased {
                let lease = client.lease_grant(600, None).await.expect("a lease");
                Some(PutOptions::new().with_lease(lease.id()))
            } else {
                None
            };
            client.put(key, value, options).await.expect("the change is committed");
            leased
        })
    }

    fn compact(&self) -> BoxFuture<'_, ()> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let answer = client.get("anything", None).await.expect("etcd answers");
            let newest = answer.header().expect("a header").revision();
            client.compact(newest, None).await.expect("the store is compacted");
        })
    }
}

/// The configuration for these endpoints, patient with a busy machine.
pub(crate) fn etcd_config(endpoints: Vec<String>, cluster: &str) -> EtcdConfig {
    let cluster = cluster.to_owned();
    EtcdConfig { endpoints, cluster, tls: None, login: None, request_timeout: TIMEOUT }
}

//! Opens the store that a configuration names.

use std::sync::Arc;
use std::time::Duration;

use conclave_store::{
    EmbeddedConfig, EmbeddedStore, EtcdStore, Login, Store, StoreError, TlsFiles,
};

use crate::config::{Config, EtcdConfig, StoreConfig};

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store says so.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The user's password is not to be had.
    #[error("cannot read the password of the etcd user {user}")]
    Password {
        /// The user.
        user: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// Whether opening it again can never work.
    pub fn is_final(&self) -> bool {
        use StoreError::{
            ForeignFile, NetworkFileSystem, NoMachine, NoStore, NoV3Api, OtherMachine,
        };
        let OpenError::Store(error) = self else { return false };
        matches!(
            error,
            NoV3Api { .. }
                | NoStore { .. }
                | ForeignFile { .. }
                | NetworkFileSystem { .. }
                | NoMachine { .. }
                | OtherMachine { .. }
        )
    }
}

/// Opens or connects to the store of a node's cluster; an embedded one is created if there is
/// none. An etcd that cannot be reached is no error: it may come.
///
/// # Errors
/// When the store can never work: no v3 API, unusable certificates, a file on a network.
pub async fn open(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    let timeout = config.timings.protocol.request_timeout;
    open_with(EmbeddedStore::open, &config.store, &config.cluster, timeout).await
}

/// As [`open`], for whoever only reads: where there is no embedded store, none is made.
///
/// # Errors
/// As [`open`], and when there is no store.
pub async fn open_to_read(
    store: &StoreConfig,
    cluster: &str,
    request_timeout: Duration,
) -> Result<Arc<dyn Store>, OpenError> {
    open_with(EmbeddedStore::open_existing, store, cluster, request_timeout).await
}

async fn open_with(
    open_embedded: fn(EmbeddedConfig) -> Result<EmbeddedStore, StoreError>,
    store: &StoreConfig,
    cluster: &str,
    request_timeout: Duration,
) -> Result<Arc<dyn Store>, OpenError> {
    match store {
        StoreConfig::Embedded { path } => {
            let embedded = EmbeddedConfig::new(path.clone(), cluster.to_owned());
            let opening = tokio::task::spawn_blocking(move || open_embedded(embedded));
            let opened = opening.await;
            let store =
                opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            Ok(Arc::new(store))
        }
        StoreConfig::Etcd(etcd) => {
            let settings = etcd_settings(etcd, cluster, request_timeout)?;
            Ok(Arc::new(EtcdStore::connect(settings).await?))
        }
    }
}

fn etcd_settings(
    etcd: &EtcdConfig,
    cluster: &str,
    request_timeout: Duration,
) -> Result<conclave_store::EtcdConfig, OpenError> {
    let login = etcd.login.as_ref().map(|login| {
        let password = login
            .password
            .read()
            .map_err(|source| OpenError::Password { user: login.user.clone(), source })?;
        Ok::<_, OpenError>(Login { user: login.user.clone(), password })
    });
    Ok(conclave_store::EtcdConfig {
        endpoints: etcd.endpoints.clone(),
        cluster: cluster.to_owned(),
        tls: etcd.tls.as_ref().map(|tls| TlsFiles {
            identity: tls.identity.clone(),
            server_name: tls.server_name.clone(),
            ..TlsFiles::new(tls.ca.clone())
        }),
        login: login.transpose()?,
        request_timeout,
    })
}

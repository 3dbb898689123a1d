//! What can go wrong between a node and its store.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

use crate::codec::MAX_VALUE_BYTES;

/// Why a request has no outcome. Whatever it says, the request may have been applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer came in time.
    #[error("no answer from {place} within {} ms", .after.as_millis())]
    TimedOut {
        /// The endpoint or file.
        place: String,
        /// How long it was waited.
        after: Duration,
    },
    /// A record is larger than readers accept.
    #[error("the record for {key} has {size} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge {
        /// The key.
        key: String,
        /// Its value's size in bytes.
        size: usize,
    },
    /// A record cannot be written as JSON.
    #[error("the record for {key} cannot be encoded")]
    Encoding {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The changes after the asked-for revision are no longer all kept.
    #[error("the changes after revision {after} are compacted up to {compacted}")]
    Compacted {
        /// The revision asked for.
        after: u64,
        /// Up to where changes are gone.
        compacted: u64,
    },
    /// The store's newest revision is below one that was seen before.
    #[error("{place} went back from revision {known} to {seen}")]
    WentBack {
        /// The endpoint or file.
        place: String,
        /// What had been seen.
        known: u64,
        /// What it says now.
        seen: u64,
    },
    /// The store cannot be used as configured.
    #[error("{what}")]
    Config {
        /// What is wrong, and where.
        what: String,
    },

    /// The database file failed.
    #[error("the store {} failed", .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// The database file, or what lies around it, cannot be reached.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The path no longer names the file that is open.
    #[error("the store's file {} was replaced or deleted while it was open; restart this node", .path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// There is no store at the path, and none was to be created.
    #[error("there is no Conclave store at {}; a daemon that is to use it creates it", .path.display())]
    NoStore {
        /// Where none is.
        path: PathBuf,
    },
    /// The file is no store of ours, or one of another version.
    #[error("{} is not a Conclave store of version {expected}: {found}", .path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// The version that is understood.
        expected: i64,
        /// What it is.
        found: String,
    },
    /// The file was last used on another machine.
    #[error(
        "the store {} belongs to another machine; an embedded store serves one machine only, use etcd \
         between machines, or delete the file if it was copied here",
        .path.display()
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// The machine cannot be told from others.
    #[error(
        "this machine has no identity (no /etc/machine-id, no DMI product UUID), so whether the store \
         {} is its own cannot be told; give it an /etc/machine-id, or delete the file",
        .path.display()
    )]
    NoMachine {
        /// The file.
        path: PathBuf,
    },
    /// The file lies where locks and memory may not be shared truthfully.
    #[error(
        "the store {} lies on a {kind} file system; an embedded store needs a local one",
        .path.display()
    )]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// No connection to the endpoint could be made, it broke, or the server has no leader.
    #[error("the store at {endpoint} is not available")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// Why.
        #[source]
        source: EtcdError,
    },
    /// The server does not speak etcd's v3 API.
    #[error(
        "the server at {endpoint} has no etcd v3 API (its version: {version}); Conclave needs \
         etcd 3.4 or newer"
    )]
    NoV3Api {
        /// The endpoint.
        endpoint: String,
        /// Its version, as far as it says.
        version: String,
    },
    /// The user or password is not accepted.
    #[error("the store at {endpoint} does not accept the login")]
    Authentication {
        /// The endpoint.
        endpoint: String,
        /// What it said.
        #[source]
        source: EtcdError,
    },
    /// The user may not do this.
    #[error("the store at {endpoint} denies access to the cluster's keys")]
    PermissionDenied {
        /// The endpoint.
        endpoint: String,
        /// What it said.
        #[source]
        source: EtcdError,
    },
    /// The server answered with another error.
    #[error("the store at {endpoint} refused a request")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// What it said.
        #[source]
        source: EtcdError,
    },
    /// The server ended a watch.
    #[error("the store at {endpoint} canceled the watch: {reason}")]
    WatchCanceled {
        /// The endpoint.
        endpoint: String,
        /// What it said.
        reason: String,
    },
    /// An endpoint belongs to another cluster than those before.
    #[error("the store at {endpoint} is another one than before")]
    OtherStore {
        /// The endpoint.
        endpoint: String,
    },
    /// The store's thread or connection is gone.
    #[error("the store {place} is closed")]
    Closed {
        /// The endpoint or file.
        place: String,
    },
}

impl StoreError {
    /// A short constant name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            StoreError::TimedOut { .. } => "timed_out",
            StoreError::TooLarge { .. } => "too_large",
            StoreError::Encoding { .. } => "encoding",
            StoreError::Compacted { .. } => "compacted",
            StoreError::WentBack { .. } => "went_back",
            StoreError::Config { .. } => "config",
            StoreError::Database { .. } => "database",
            StoreError::File { .. } => "file",
            StoreError::Replaced { .. } => "replaced",
            StoreError::NoStore { .. } => "no_store",
            StoreError::ForeignFile { .. } => "foreign_file",
            StoreError::OtherMachine { .. } => "other_machine",
            StoreError::NoMachine { .. } => "no_machine",
            StoreError::NetworkFileSystem { .. } => "network_file_system",
            StoreError::Unreachable { .. } => "unreachable",
            StoreError::NoV3Api { .. } => "no_v3_api",
            StoreError::Authentication { .. } => "authentication",
            StoreError::PermissionDenied { .. } => "permission_denied",
            StoreError::Refused { .. } => "refused",
            StoreError::WatchCanceled { .. } => "watch_canceled",
            StoreError::OtherStore { .. } => "other_store",
            StoreError::Closed { .. } => "closed",
        }
    }

    /// Whether it says of an endpoint only that it cannot be used at this moment.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            StoreError::TimedOut { .. }
                | StoreError::Unreachable { .. }
                | StoreError::Closed { .. }
        )
    }

    /// What an error of the client's says of an endpoint.
    pub(crate) fn from_etcd(endpoint: &str, error: etcd_client::Error) -> Self {
        // Requests fail with a status; these come from the endpoint's own settings.
        let unusable = matches!(
            error,
            etcd_client::Error::TransportError(_)
                | etcd_client::Error::InvalidUri(_)
                | etcd_client::Error::InvalidArgs(_)
        );
        let (endpoint, source) = (endpoint.to_owned(), EtcdError::from(error));
        if unusable {
            let what = format!("endpoint {endpoint} cannot be used as configured: {source}");
            return StoreError::Config { what };
        }
        match source.code() {
            Code::Unimplemented => {
                StoreError::NoV3Api { endpoint, version: "unknown, without its services".into() }
            }
            Code::Unauthenticated => StoreError::Authentication { endpoint, source },
            Code::PermissionDenied => StoreError::PermissionDenied { endpoint, source },
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded => StoreError::Unreachable { endpoint, source },
            _ => StoreError::Refused { endpoint, source },
        }
    }
}

/// What the etcd client reports.
#[derive(Debug)]
pub struct EtcdError(Box<etcd_client::Error>);

impl EtcdError {
    /// The gRPC code; that of a failed connection for what never got that far.
    pub(crate) fn code(&self) -> Code {
        match &*self.0 {
            etcd_client::Error::GRpcStatus(status) => status.code(),
            _ => Code::Unavailable,
        }
    }

    /// What it came from, the innermost cause last.
    pub(crate) fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first = match &*self.0 {
            etcd_client::Error::GRpcStatus(status) => status.source(),
            etcd_client::Error::TransportError(error) => error.source(),
            _ => None,
        };
        std::iter::successors(first, |&cause| cause.source())
    }
}

impl From<etcd_client::Error> for EtcdError {
    fn from(error: etcd_client::Error) -> Self {
        EtcdError(Box::new(error))
    }
}

impl fmt::Display for EtcdError {
    /// Only the innermost cause: those around it say the same with fewer words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = self.causes().last() {
            return fmt::Display::fmt(cause, f);
        }
        match &*self.0 {
            etcd_client::Error::GRpcStatus(status) if !status.message().is_empty() => {
                f.write_str(status.message())
            }
            etcd_client::Error::GRpcStatus(status) => f.write_str(status.code().description()),
            error => fmt::Display::fmt(error, f),
        }
    }
}

impl Error for EtcdError {}

//! What can go wrong between a node and its store.

use std::path::PathBuf;
use std::time::Duration;

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
    /// The store's thread is gone.
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
            StoreError::ForeignFile { .. } => "foreign_file",
            StoreError::OtherMachine { .. } => "other_machine",
            StoreError::NoMachine { .. } => "no_machine",
            StoreError::NetworkFileSystem { .. } => "network_file_system",
            StoreError::Closed { .. } => "closed",
        }
    }
}

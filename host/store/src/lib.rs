//! Conclave's stores: where nodes meet, behind one trait in the terms of this domain.
//!
//! ```text
//! Request ──> plan (compares, changes, readings) ──> etcd v3, or an SQLite file
//! ```
//!
//! What a request compares and writes is decided in one place, [`plan`](self), for both stores;
//! a store only evaluates it. Neither retries a write whose outcome is unknown: a second attempt
//! could be applied long after its answer was needed.
//!
//! **What is deliberately absent:** time (the core times sessions), judgement of what is read
//! (the core's, the revision and the cluster id of the reply included), and leases.

#![forbid(unsafe_code)]

mod codec;
mod embedded;
mod error;
mod etcd;
mod keys;
mod plan;
mod store;

pub use codec::MAX_VALUE_BYTES;
pub use embedded::{EmbeddedConfig, EmbeddedStore};
pub use error::{EtcdError, StoreError};
pub use etcd::{EtcdConfig, EtcdStore, Login, TlsFiles};
pub use keys::Keys;
pub use store::{BoxFuture, Control, Latency, Reply, Store, Watch, WatchEvent};

//! What the suites share: real etcd servers, faulty links, the real binary, and an observer that
//! believes none of them.
//!
//! A suite puts a scene together from these parts, does something to it, and asks the observer
//! what was in place where, and when. Everything runs on addresses, directories and keys of its
//! own, so tests run side by side; whatever a test starts ends with it (see [`scratch`] and
//! [`process`]), and logs are printed when it fails.
//!
//! Waiting is always for a condition, with a deadline ([`eventually()`]); a duration is only ever
//! slept where its passing is the thing under test.

pub mod address;
pub mod answering;
pub mod base64;
pub mod beside;
pub mod binary;
pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod disk;
pub mod etcd;
pub mod eventually;
pub mod gateway;
pub mod http;
pub mod kubelet;
pub mod node;
pub mod observer;
pub mod outcome;
pub mod pair;
pub mod pod;
pub mod podmaster;
pub mod process;
pub mod proxy;
pub mod quantile;
pub mod scratch;
pub mod seed;
pub mod timeline;
pub mod tls;
pub mod v2_server;

pub use eventually::{PATIENCE, eventually, holds_for};
pub use outcome::Outcome;

//! The simulator: the real election core for several nodes, on simulated time, over a model of
//! the store, with faults.
//!
//! It runs the core itself, never a copy of its logic. What it models is the outside: the
//! store's transactions, a network that loses, delays and reorders requests and replies, a
//! guard that withdraws at the deadline, clocks, crashes, operators, foreign competitors. A
//! checker that knows only the outside judges S1, S2 and S3.

#![forbid(unsafe_code)]

mod checker;
mod faults;
mod network;
mod node;
mod policy;
pub mod random;
pub mod schedule;
mod shell;
pub mod store;
pub mod world;

pub use faults::Fault;
pub use policy::PolicyMode;
pub use random::Random;
pub use schedule::Schedule;
pub use store::ModelStore;
pub use world::{World, WorldSettings};

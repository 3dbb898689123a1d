//! The simulator: the real election core for several nodes, on simulated time, over a model of
//! the store, with faults.
//!
//! It runs the core itself, never a copy of its logic. What it models is the outside: the
//! store's transactions, a network that loses, delays and reorders requests and replies, guards
//! that withdraw at the deadline, disks, clocks, crashes, operators, foreign competitors. A judge
//! that knows only the outside asserts S1 to S8 (`checker.rs`).
//!
//! ```text
//! conclave-sim run --seeds 100000        plays schedules, counts what occurred
//! conclave-sim replay 4711               plays one, and tells everything that happens in it
//! conclave-sim digest --check FILE       plays blocks again and compares their digests
//! ```

#![forbid(unsafe_code)]

mod ballot;
pub mod blocks;
mod checker;
mod clock;
mod coverage;
mod digest;
mod disk;
mod faults;
mod guard;
mod names;
mod network;
mod node;
mod policy;
mod queue;
pub mod random;
pub mod runner;
pub mod schedule;
mod shell;
pub mod store;
pub mod world;

pub use coverage::Coverage;
pub use faults::Fault;
pub use policy::{Policy, PolicyMode};
pub use random::Random;
pub use schedule::{Played, Schedule};
pub use store::ModelStore;
pub use world::{World, WorldSettings};

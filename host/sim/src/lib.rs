//! The simulator: the real election core for several nodes, on simulated time, over a model of
//! the store, with faults.
//!
//! It runs the core itself, never a copy of its logic. What it models is the outside: the
//! store's transactions, a network that loses requests and replies, a guard that withdraws at
//! the deadline, clocks, crashes. A checker that knows only the outside judges S1.

#![forbid(unsafe_code)]

pub mod random;
pub mod store;
pub mod world;

pub use random::Random;
pub use store::ModelStore;
pub use world::{Fault, World, WorldSettings};

//! The model checker: the real election core for two or three nodes, in every order of events
//! that its bounds allow.
//!
//! The simulator plays schedules at random and long; this explores *all* of them, short. Time
//! passes in ticks and only when everything that works has been delivered, so that what is late
//! is late because of a fault, and faults are counted. Within a tick every order is tried.
//!
//! What is explored is the core itself, over the simulator's model of the store. What is modelled
//! is the outside: a network, a guard with its page, a worker that places and withdraws, clocks
//! with rates, crashes, operators. The properties look at the outside only, as the simulator's
//! judge does: who has which effect, what the store says, what was read back.
//!
//! - [`Bounds`] says how far: nodes, elections, ticks, faults and of which kinds.
//! - [`State`] is one state, [`Step`] what can happen in it.
//! - [`explore`] visits every state once and reports how many there were, and any broken promise
//!   as a list of steps.
//!
//! **Leadership, eventually.** A run is finite here, so S7 is checked as what it is, a bound: no
//! election that somebody could lead stays without a leader for longer than
//! [`Bounds::patience`] once nothing is disturbed. (`stateright`'s own `eventually` overlooks
//! cycles and paths that meet.)
//!
//! **What "exhaustive" leaves out.** Two states with the same 64-bit hash are taken for one; with
//! ten million states the chance that any two differ is below one in three hundred thousand. A
//! request that no fault delays is executed and answered in one step. Changes reach a working
//! watch as soon as they are made. Policies answer at once, as the built-in ranking does. Faults
//! end only between ticks. Bounds are bounds. Nodes are not interchangeable (one leads at first,
//! and rankings go by the age of sessions), so no symmetry makes the work less.

#![forbid(unsafe_code)]

mod bounds;
mod canonical;
mod check;
mod enabled;
mod faults;
mod machine;
mod promises;
mod state;
mod step;
mod story;

pub use bounds::{Bounds, Start};
pub use check::{Explored, explore};
pub use faults::{Fault, FaultKind};
pub use state::State;
pub use step::Step;

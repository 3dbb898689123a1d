//! Conclave's election core: exactly one node leads, whatever a policy, a network or a clock does.
//!
//! A deterministic state machine without I/O. It is told what happened and what time it is, and
//! answers with what it wants done:
//!
//! ```text
//! let actions = core.handle(now, event);   // or handle_all: the only mutation
//! core.next_deadline(now)                  // when it wants to be called with Event::Tick
//! ```
//!
//! **What is deliberately absent:** clocks, files, sockets, threads, async, randomness, wasm and
//! etcd. Every effect is an [`Action`] with an operation id, its outcome returns as an [`Event`]
//! with that id, and order that matters for safety (withdraw before resign) is state in here,
//! never the order in which a shell runs actions.

#![forbid(unsafe_code)]

pub mod action;
mod batch;
mod campaign;
mod election;
pub mod event;
pub mod ids;
mod leave;
pub mod listing;
mod machine;
mod node;
pub mod ranking;
pub mod record;
mod replica;
pub mod request;
mod session;
pub mod settings;
pub mod status;
mod tenure;
#[cfg(test)]
mod tests;
pub mod time;
mod timers;
pub mod view;

pub use action::{Action, Exit, Notice};
pub use event::Event;
pub use ids::{ElectionName, NodeName, Nonce, OpId, Revision, SessionId, Token};
pub use machine::Core;
pub use request::{Entry, Evidence, Key, Outcome, Request, Stored, Value};
pub use settings::{Adoption, ElectionSettings, Past, Settings, Timings};
pub use time::{Now, Time};

//! Conclave's policy host: loads WebAssembly components and asks them who should lead and what
//! runs where.
//!
//! ```text
//! PolicyHost::load_directory ──> Directory ──> Policy ── rank, place, … ──> Answer | PolicyError
//!      │ digest, cache, compile                  │ a fresh instance per call: fuel, epoch, memory
//!      └ imports and exports checked             └ the answer checked against what was asked
//! ```
//!
//! A policy can be wrong, slow or hostile: whatever it does ends in an error that names it, within
//! the limits, and the next call is not affected. That is all this crate does; what follows from
//! an answer, and what to do without one, is the core's and the daemon's to decide.
//!
//! **What is deliberately absent:** files other than components, the store, clocks for guests,
//! instances that live longer than a call, and async: a call blocks and is short, and guests
//! cannot wait for anything.

/// Generated code does not document everything that it makes public.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod bindings;
pub mod builtin;
mod cache;
mod check;
mod digest;
mod directory;
mod error;
mod host;
mod interface;
mod limits;
mod policy;
mod sandbox;
mod text;
mod ticker;
mod translate;
mod wasi;

pub use check::{About, Problem, Ranks};
pub use digest::Digest;
pub use directory::{BUILT_IN, Directory, Entry, Origin, Wanted};
pub use error::{
    BadAnswer, Cause, DirectoryError, HostError, LoadError, LookupError, PolicyError, Refusal,
};
pub use host::PolicyHost;
pub use interface::{Function, Interface, SPEAKS};
pub use limits::Limits;
pub use policy::{Answer, BothRoles, Policy};
pub use sandbox::Usage;

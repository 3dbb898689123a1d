//! The daemon: one election core, and everything that it is connected to.
//!
//! ```text
//!            ┌──────────── events ────────────┐
//!  store ────┤                                │
//!  manifests ┤  shell: one loop, one owner    ├──> core: handle(now, event) -> actions
//!  policies ─┤                                │
//!  checks ───┘  <────────── actions ──────────┘
//! ```
//!
//! `start` brings a life of the daemon up, in numbered steps; `shell` is the loop, and `asking` its
//! dealings with the policies, which `plugins` renews when their files change. What can block (store, files, policies, checks) runs beside the loop
//! and comes back as events.

mod adoption;
mod asking;
mod binding;
mod cleaning;
mod effects;
mod fitness;
mod gate;
mod hooks;
mod limiter;
mod manifest_settings;
mod memory;
mod notices;
mod pauses;
mod phrase;
mod placing;
mod plugins;
mod policies;
mod promise;
mod refusals;
mod shadow;
mod shell;
mod start;
mod stops;
pub mod stores;
mod stuck;

pub use binding::Binding;
pub(crate) use cleaning::withdraw_left;
pub use conclave_policy::BUILT_IN;
pub use policies::PolicySet;
pub(crate) use shadow::answer;
pub use start::{Ended, StartError, run};

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
//! `start` brings a life of the daemon up, in numbered steps; `shell` is the loop. What can block
//! (store, files, policies, checks) runs beside the loop and comes back as events.

mod fitness;
mod gate;
mod limiter;
mod manifest_settings;
mod memory;
mod notices;
mod placing;
mod policies;
mod shell;
mod start;
pub mod stores;

pub use policies::{BUILT_IN, Binding, PolicySet};
pub use start::{Ended, StartError, run};

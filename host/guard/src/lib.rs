//! Conclave's guard: a dead man's switch over the daemon.
//!
//! It is where the project reads its clocks ([`Clock`], [`Reading`], [`BootTimer`]).

mod clock;

pub use clock::{BootTimer, Clock, Reading};

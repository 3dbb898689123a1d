//! Conclave's guard: a dead man's switch over the daemon.
//!
//! A leader that hangs, is frozen or is killed cannot take its manifests away, and then two nodes
//! run them. So the daemon has a parent that can: [`run`] starts it, restarts it when it dies, and
//! at the session's deadline removes everything exclusive by itself. Either one alone, if alive and
//! scheduled, withdraws in time (protocol, S5).
//!
//! The two meet on a [`Page`] of shared memory: the session's deadline, a slot per exclusive
//! effect, and both heartbeats. It is all that the guard knows; it reads no configuration, no ledger and
//! no store.
//!
//! ```text
//! daemon                              page                        guard
//! begin, extend ───────────────────> deadline ─────────────────> expire: nothing more is placed
//! claim, stage, may_place?, rename ─> slots ───────────────────> withdraw: unlink, reset
//! beat ────────────────────────────> heartbeats <─────────────── beat
//! ```
//!
//! *Architecture invariant:* from noticing a passed deadline to the unlinking and the daemon's
//! death the guard allocates nothing, takes no lock, parses nothing and waits for nobody: not for a
//! disk either, so withdrawing and starting the daemon have threads of their own. There is no
//! async runtime, no logging framework and no configuration in here.
//!
//! *Architecture invariant:* the crate's unsafe code is in one function (`layout::map`).
//!
//! Beside that it is where the project reads its clocks ([`Clock`], [`Reading`], [`BootTimer`]),
//! locks its state directory ([`DaemonLock`]), and writes to standard error without waiting for
//! its reader ([`Lines`]).

mod backoff;
mod clock;
mod config;
mod error;
mod guard;
mod heartbeat;
mod lanes;
mod layout;
mod lines;
mod lock;
mod log;
mod orphan;
mod page;
mod process;
mod session;
mod signals;
mod slot;
mod starter;
mod withdraw;

pub use clock::{BootTimer, Clock, Reading};
pub use config::{GuardConfig, GuardError};
pub use error::PageError;
pub use guard::run;
pub use heartbeat::{GuardState, GuardWatch, Rhythm};
pub use lines::{Lines, LinesEnd};
pub use lock::{DaemonLock, Holder, LockError, boot_id};
pub use page::{Attached, DEFAULT_SLOTS, Page};
pub use session::{PageSession, SessionWriter};
pub use slot::{Claim, Kind, SlotId};

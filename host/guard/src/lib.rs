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
//! # What it relies on at the deadline
//!
//! - **It is scheduled** within a quarter of the margin, by which its timer fires, and its
//!   withdrawing threads then run. Nothing is asked of the daemon, the store, the network, or of who
//!   reads its log.
//! - **Its memory is there:** its own and the page's, on tmpfs. It locks both where it may
//!   (`RLIMIT_MEMLOCK`, `CAP_IPC_LOCK`); where it may not, on not being swapped out.
//! - **The clocks:** `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC_RAW`, whichever says that more time has
//!   passed. The timer runs on the first; the second is looked at once a beat (500 ms) at least,
//!   so that it may run ahead by some percent and cost some milliseconds of the margin.
//! - **The page says the truth:** a slot is claimed there before its effect can appear, and its
//!   session's deadline was allowed by a confirmed beat. Only a process of the same user can write
//!   to it.
//! - **The file system unlinks**, or renames in place of a role file. Each directory has a thread
//!   of its own, so one that hangs holds up no other; what hangs or is refused stays claimed, is
//!   tried again every 100 ms, and is named in the log and at the end.
//! - **SIGKILL ends the daemon.** What it had under way comes before its death; once it is
//!   reaped everything is withdrawn a second time. A daemon that hangs in the kernel is not reaped:
//!   until it is, withdrawing is repeated.
//!
//! It does not rely on the disk that the program is on (a thread of its own starts daemons), on the
//! state directory, or on `/proc`. Killed or frozen together with its daemon it can do nothing:
//! then `conclave clean`, the next guard's start or a service manager withdraws.
//!
//! While an upgrade executes another program in the guard's place, for some milliseconds, the
//! daemon is alone; it relies on its own clock and loop then, and notices a guard that does not come
//! back.
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
#[cfg(test)]
mod garbage;
mod guard;
mod handover;
mod heartbeat;
mod lanes;
mod layout;
mod lines;
mod lock;
mod log;
mod orphan;
mod page;
mod process;
mod processes;
mod session;
mod signals;
mod slot;
mod starter;
mod supervisor;
mod vacant;
mod whereabouts;
mod withdraw;

pub use clock::{BootTimer, Clock, Reading};
pub use config::{GuardConfig, GuardError, Upgrade};
pub use error::PageError;
pub use guard::run;
pub use handover::{Handover, handover_version};
pub use heartbeat::{GuardState, GuardWatch, Rhythm};
pub use lines::{Lines, LinesEnd};
pub use lock::{DaemonLock, Holder, LockError, boot_id};
pub use log::LogFormat;
pub use page::{Attached, DEFAULT_SLOTS, Page};
pub use processes::end_processes;
pub use session::{PageSession, SessionWriter};
pub use slot::{Claim, Kind, SlotId};
pub use vacant::{Vacant, VacantError};

//! The manifest loop: puts an election's manifests in place and takes them out.
//!
//! Plain threads around blocking file operations. Each set of destination directories has a
//! worker and each source directory a reader, so that a disk that hangs holds up only the
//! elections that use it; one inotify instance wakes them when something changes. Commands go in
//! through [`Manifests`], [`ManifestEvent`]s come out, and every exclusive effect passes the
//! [`Gate`] of the guard.
//!
//! What must always hold:
//!
//! - Nothing exclusive appears unless the ledger names it, the guard watches over it, and the gate
//!   was found open right before the rename.
//! - Withdrawing needs neither sources nor policy nor ledger.
//! - A path that we placed is ours until withdrawn; any other file is never touched unless `adopt`
//!   is set. What somebody changed is saved in the state directory before it goes.
//! - Readers find a whole file or none.

mod aside;
mod clean;
mod contest;
mod digest;
mod error;
mod event;
mod files;
mod gate;
mod held;
mod ledger;
mod manifest;
mod manifests;
mod memory;
mod prepare;
mod reader;
mod render;
mod role;
mod role_file;
mod settings;
mod settle;
mod source;
mod validate;
mod watch;
mod withdraw;
mod worker;

pub use clean::{CleanReport, Start, clean};
pub use digest::Digest;
pub use error::{FileError, ManifestsError};
pub use event::{Alarm, Damage, EventSink, ManifestEvent};
pub use gate::{Effect, Gate, GateError, Slot};
pub use ledger::{
    LEDGER_FILE, LEDGER_VERSION, Ledger, LedgerDamage, LedgerEntry, LedgerError, LedgerFile,
};
pub use manifest::{Scope, Unrenderable, Variables, try_rendering};
pub use manifests::Manifests;
pub use memory::{MEMORY_FILE, Memory, MemoryError, SessionMemory};
pub use render::{Lookup, RenderError, RenderProblem, render};
pub use role::{RoleRecord, RoleWord};
pub use settings::{
    ElectionManifests, Handling, ManifestDirectory, ManifestFile, ManifestSettings,
};
pub use source::unusable_source;
pub use validate::{InvalidManifest, MAX_MANIFEST_BYTES, validate};

//! What can go wrong on the shared page.

use std::io;
use std::path::PathBuf;

use conclave_core::SessionId;

/// Why the shared page refused, or could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// There is no memory file system to keep the page on; a disk that hangs would stop the
    /// guard with everything else.
    #[error("no writable tmpfs for the shared page: tried {tried}; mount one on /dev/shm")]
    NoTmpfs {
        /// Which directories were tried, and what was wrong with each.
        tried: String,
    },
    /// The page's file could not be created, opened or mapped.
    #[error("cannot use the shared page {path}")]
    Io {
        /// The page's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not one that this program's guard could have made.
    #[error("{path} is not a shared page of this program: {reason}")]
    Foreign {
        /// The page's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another guard lives on this very page.
    #[error("the shared page {path} belongs to another running guard")]
    InUse {
        /// The page's file.
        path: PathBuf,
    },
    /// The guard sets these variables for its daemon, all of them or none.
    #[error(
        "{variable} is missing or malformed in the environment: start the daemon through its guard"
    )]
    Environment {
        /// The variable.
        variable: &'static str,
    },
    /// The guard that started this daemon is gone, and perhaps another has taken its place.
    #[error("the guard that started this daemon is gone")]
    GuardGone,
    /// The session's deadline has passed, by whoever's reckoning: nothing more may be placed in it.
    #[error("the deadline of session {session} has passed")]
    Expired {
        /// The session.
        session: SessionId,
    },
    /// The page knows of no session, or of another one.
    #[error("the shared page has no such session")]
    NoSession,
    /// A session can only begin when the one before has ended.
    #[error("session {session} still stands on the shared page")]
    SessionStands {
        /// The session that stands.
        session: SessionId,
    },
    /// A session begins and ends only while nothing exclusive is in place.
    #[error("{count} exclusive effects are still claimed on the shared page")]
    StillClaimed {
        /// How many slots are not free.
        count: usize,
    },
    /// More exclusive effects at once than the page was made for.
    #[error(
        "all {slots} slots of the shared page are taken: this many exclusive files at once need a larger `slots`"
    )]
    Full {
        /// How many the page has.
        slots: usize,
    },
    /// The memory file system is full: the guard could not see the claim.
    #[error("no room for another claim on the shared page")]
    NoRoom {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A path that no slot can hold.
    #[error("cannot guard {path}: {reason}")]
    BadPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The guard is withdrawing this very effect; whether its file operation comes before or after
    /// ours is unknown until it returns. Try again in some milliseconds.
    #[error("the guard is withdrawing this effect right now")]
    Busy,
}

//! Keeps what the daemon must remember on disk, without making the loop wait.
//!
//! Losing the newest write costs time, never safety: a session that is not remembered is timed
//! like anybody else's, and an older revision only notices a store that went back further.

use std::path::PathBuf;
use std::time::Duration;

use conclave_core::{ElectionName, Nonce, Revision, SessionId, Token};
use conclave_manifests::{Memory, SessionMemory};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a change waits for others, and for the manifests of a new term to be in place.
const WRITE_BEHIND: Duration = Duration::from_millis(100);

/// Revisions grow with every beat of every node; they are written at most this often.
const REVISIONS_EVERY: Duration = Duration::from_secs(10);

/// What two daemons must have in common for one to adopt the other's session: the boot, the life
/// of the guard, and the TTL, which a session keeps for life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    pub(crate) boot_id: String,
    pub(crate) guard_nonce: String,
    pub(crate) ttl_ms: u64,
}

impl Lineage {
    /// Whether a session was made by a daemon of the same lineage.
    pub(crate) fn made(&self, session: &SessionMemory) -> bool {
        session.boot_id == self.boot_id
            && session.guard_nonce == self.guard_nonce
            && session.ttl_ms == self.ttl_ms
    }

    fn remember(&self, id: SessionId, nonce: Nonce) -> SessionMemory {
        SessionMemory {
            id,
            nonce,
            boot_id: self.boot_id.clone(),
            guard_nonce: self.guard_nonce.clone(),
            ttl_ms: self.ttl_ms,
        }
    }
}

/// The memory and its writer.
#[derive(Debug)]
pub(crate) struct Keeper {
    memory: Memory,
    lineage: Lineage,
    changed: watch::Sender<Memory>,
    writer: JoinHandle<()>,
    revision_written: std::time::Instant,
}

impl Keeper {
    /// Starts the writer. Needs a tokio runtime.
    pub(crate) fn start(memory: Memory, state_dir: PathBuf, lineage: Lineage) -> Self {
        let (changed, mut changes) = watch::channel(memory.clone());
        changes.mark_unchanged();
        let mut session = memory.session.clone();
        let writer = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                // A session is adopted only once it is written. All else stays behind what is
                // urgent: a disk that syncs this makes the manifests' own syncs wait.
                if changes.borrow().session == session {
                    let more = async { while changes.changed().await.is_ok() {} };
                    let _ = tokio::time::timeout(WRITE_BEHIND, more).await;
                }
                let memory = changes.borrow_and_update().clone();
                session.clone_from(&memory.session);
                let dir = state_dir.clone();
                let written = tokio::task::spawn_blocking(move || memory.store(&dir)).await;
                if let Ok(Err(error)) = written {
                    tracing::error!(%error, "cannot write the daemon's memory");
                }
            }
        });
        let revision_written = std::time::Instant::now();
        Keeper { memory, lineage, changed, writer, revision_written }
    }

    /// The session changed.
    pub(crate) fn session(&mut self, session: Option<(SessionId, Nonce)>) {
        self.memory.session = session.map(|(id, nonce)| self.lineage.remember(id, nonce));
        self.write();
    }

    /// A term began.
    pub(crate) fn token(&mut self, election: &ElectionName, token: Token) {
        let known = self.memory.tokens.entry(election.clone()).or_default();
        if *known < token {
            *known = token;
            self.write();
        }
    }

    /// The store answered: with this identity and revision. `false` when it is another store than
    /// before.
    pub(crate) fn answered(&mut self, cluster: u64, revision: Revision) -> bool {
        let cluster = format!("{cluster:016x}");
        match &self.memory.cluster_id {
            Some(known) if *known != cluster => return false,
            Some(_) => {}
            None => self.memory.cluster_id = Some(cluster),
        }
        if self.memory.revision < revision {
            self.memory.revision = revision;
            if self.revision_written.elapsed() >= REVISIONS_EVERY {
                self.revision_written = std::time::Instant::now();
                self.write();
            }
        }
        true
    }

    /// The store that this node knows.
    pub(crate) fn cluster_id(&self) -> Option<&str> {
        self.memory.cluster_id.as_deref()
    }

    fn write(&self) {
        self.changed.send_replace(self.memory.clone());
    }

    /// Writes what is left and ends the writer.
    pub(crate) async fn finish(self) {
        self.write();
        drop(self.changed);
        // A writer that panicked has told so itself.
        let _ = self.writer.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_boot_guard_and_ttl_adopt() {
        let lineage = |boot: &str, guard: &str, ttl_ms| Lineage {
            boot_id: boot.to_owned(),
            guard_nonce: guard.to_owned(),
            ttl_ms,
        };
        let session = lineage("boot", "guard", 2_000).remember(SessionId(1), "n".into());
        assert!(lineage("boot", "guard", 2_000).made(&session));
        assert!(!lineage("another", "guard", 2_000).made(&session));
        assert!(!lineage("boot", "another", 2_000).made(&session));
        assert!(!lineage("boot", "guard", 10_000).made(&session), "a session keeps its TTL");
    }
}

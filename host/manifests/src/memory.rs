//! What else a daemon remembers across its lives: its session, and how far the store had come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conclave_core::ids::{ElectionName, NodeName, Nonce, Revision, SessionId, Token};
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::files;

/// The memory's name in the state directory.
pub const MEMORY_FILE: &str = "memory.json";

/// What a daemon remembers. Fields that are missing in the file take their defaults, fields that
/// are not known are ignored, so that versions can follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The node that these things were remembered for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The session that stood last, to be adopted, or to prove that its owner is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionMemory>,
    /// The store's own identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The highest revision seen in any of the store's answers.
    pub revision: Revision,
    /// The highest fencing token seen, by election.
    pub tokens: BTreeMap<ElectionName, Token>,
}

/// A session as its owner remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMemory {
    /// The session.
    pub id: SessionId,
    /// The nonce in its record.
    pub nonce: Nonce,
    /// The boot of the machine that it was made in.
    pub boot_id: String,
    /// Which life of the guard its daemon served.
    pub guard_nonce: String,
    /// The TTL that it was made with, in milliseconds: a session keeps its TTL for life.
    #[serde(default)]
    pub ttl_ms: u64,
}

/// Why the memory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A file operation failed.
    #[error("the daemon's memory is out of reach")]
    File(#[from] FileError),
    /// It cannot be understood.
    #[error(
        "{} is damaged; put it away to go on without it: the node then waits out its old session \
         and no longer notices a store that went back in time",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Memory {
    /// Reads the memory of a state directory; one that was never written is empty.
    pub fn load(state_dir: &Path) -> Result<Memory, MemoryError> {
        let path = state_dir.join(MEMORY_FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => Err(FileError::of("read", &path)(error).into()),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| MemoryError::Damaged { path, source }),
        }
    }

    /// Replaces the memory of a state directory, durably. Costs two syncs; blocks.
    pub fn store(&self, state_dir: &Path) -> Result<(), FileError> {
        let path = state_dir.join(MEMORY_FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| FileError::of("write", &path)(io::Error::from(error)))?;
        files::replace(&path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Memory::load(dir.path()).unwrap(), Memory::default());
        let memory = Memory {
            node: Some("a".into()),
            session: Some(SessionMemory {
                id: SessionId(17),
                nonce: "n".into(),
                boot_id: "boot".into(),
                guard_nonce: "guard".into(),
                ttl_ms: 2_000,
            }),
            cluster_id: Some("cluster".into()),
            revision: Revision(40),
            tokens: BTreeMap::from([("masters".into(), Token(19))]),
        };
        memory.store(dir.path()).unwrap();
        assert_eq!(Memory::load(dir.path()).unwrap(), memory);
    }

    #[test]
    fn damage_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MEMORY_FILE), "{\"session\": {\"id\"").unwrap();
        let error = Memory::load(dir.path()).unwrap_err();
        assert!(matches!(error, MemoryError::Damaged { .. }));
        assert!(error.to_string().contains("put it away"), "{error}");
    }

    #[test]
    fn other_versions_fields_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MEMORY_FILE), "{\"revision\": 3, \"later\": []}").unwrap();
        let memory = Memory::load(dir.path()).unwrap();
        assert_eq!(memory, Memory { revision: Revision(3), ..Memory::default() });
    }
}

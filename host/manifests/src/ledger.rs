//! The ledger: what this node placed where, written before it appears.
//!
//! After a crash it is the only proof of what is ours. It is replaced as a whole and synced; many
//! changes at once cost one write.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use conclave_core::ids::{ElectionName, Token};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::FileError;
use crate::files;

/// The ledger's name in the state directory.
pub const LEDGER_FILE: &str = "ledger.json";

/// The layout that this version writes; a newer one is not guessed at.
pub const LEDGER_VERSION: u32 = 1;

/// One file that this node placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Where.
    pub path: PathBuf,
    /// For which election.
    pub election: ElectionName,
    /// Which of the election's files.
    pub file: LedgerFile,
    /// Whether only the term's holder may have it.
    pub exclusive: bool,
    /// The term in which it was placed; none for a file that runs everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// Its content.
    pub digest: Digest,
}

/// Which of an election's files an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerFile {
    /// The manifest of this name.
    Manifest(String),
    /// The role file, saying `leader`.
    RoleFile,
}

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file operation failed.
    #[error("the ledger is out of reach")]
    File(#[from] FileError),
    /// It was written by a newer version.
    #[error(
        "{} has layout {found}, this version knows {LEDGER_VERSION}; start the version that wrote it, \
         or stop it in order first so that the ledger is empty, and remove the file",
        path.display()
    )]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// The path belongs to another election.
    #[error("{} is already the destination of election {owner}", path.display())]
    Owned {
        /// Which path.
        path: PathBuf,
        /// Whose.
        owner: ElectionName,
    },
}

/// A ledger that could not be understood and was put away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerDamage {
    /// Where it was put.
    pub kept: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    version: u32,
    #[serde(default)]
    entries: Vec<LedgerEntry>,
}

/// What every layout has, whatever becomes of the rest.
#[derive(Deserialize)]
struct AnyLayout {
    version: u32,
}

/// What this node placed where. Shared by the threads; looking something up never waits for the disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Mutex<Entries>,
    /// Which generation of the entries is on disk; held while writing, so that those who wait
    /// find their changes written along.
    written: Mutex<u64>,
}

#[derive(Debug)]
struct Entries {
    by_path: BTreeMap<PathBuf, LedgerEntry>,
    generation: u64,
}

impl Ledger {
    /// Reads the ledger of a state directory; one that was never written is empty. One that
    /// cannot be understood is put away, and what it said is lost: then cleaning goes by evidence.
    pub fn open(state_dir: &Path) -> Result<(Ledger, Option<LedgerDamage>), LedgerError> {
        let path = state_dir.join(LEDGER_FILE);
        let (entries, damage) = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => return Err(FileError::of("read", &path)(error).into()),
            Ok(bytes) => match serde_json::from_slice::<AnyLayout>(&bytes) {
                Ok(AnyLayout { version }) if version > LEDGER_VERSION => {
                    return Err(LedgerError::Newer { path, found: version });
                }
                _ => match serde_json::from_slice::<Layout>(&bytes) {
                    Ok(layout) => (layout.entries, None),
                    Err(error) => (Vec::new(), Some(put_away(&path, &error)?)),
                },
            },
        };
        let by_path = entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        let entries = Mutex::new(Entries { by_path, generation: 0 });
        Ok((Ledger { path, entries, written: Mutex::new(0) }, damage))
    }

    /// Everything that it names, by path.
    pub fn entries(&self) -> Vec<LedgerEntry> {
        self.lock().by_path.values().cloned().collect()
    }

    /// Whether it names this path.
    pub fn names(&self, path: &Path) -> bool {
        self.lock().by_path.contains_key(path)
    }

    /// Enters files before they appear. On failure nothing is entered, and nothing may be placed.
    pub fn record(&self, new: Vec<LedgerEntry>) -> Result<(), LedgerError> {
        if new.is_empty() {
            return Ok(());
        }
        let (generation, previous) = {
            let mut entries = self.lock();
            if new.iter().all(|entry| entries.by_path.get(&entry.path) == Some(entry)) {
                // Each path has one writer, which waited for the disk when it entered it before.
                return Ok(());
            }
            for entry in &new {
                match entries.by_path.get(&entry.path) {
                    Some(standing) if standing.election != entry.election => {
                        return Err(LedgerError::Owned {
                            path: entry.path.clone(),
                            owner: standing.election.clone(),
                        });
                    }
                    _ => {}
                }
            }
            let mut previous = Vec::new();
            for entry in new {
                let path = entry.path.clone();
                previous.push((path.clone(), entries.by_path.insert(path, entry)));
            }
            entries.generation += 1;
            (entries.generation, previous)
        };
        self.write(generation).inspect_err(|_| {
            let mut entries = self.lock();
            for (path, entry) in previous {
                match entry {
                    Some(entry) => entries.by_path.insert(path, entry),
                    None => entries.by_path.remove(&path),
                };
            }
            entries.generation += 1;
        })
    }

    /// Strikes out files that are withdrawn. On failure they stay named on disk, which costs
    /// the next start a look at each of them; a later write makes up for it.
    pub fn forget(&self, paths: &[PathBuf]) -> Result<(), LedgerError> {
        let generation = {
            let mut entries = self.lock();
            let before = entries.by_path.len();
            for path in paths {
                entries.by_path.remove(path);
            }
            if entries.by_path.len() != before {
                entries.generation += 1;
            }
            entries.generation
        };
        self.write(generation)
    }

    /// Makes sure that at least this generation is on disk.
    fn write(&self, generation: u64) -> Result<(), LedgerError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= generation {
            return Ok(());
        }
        let (layout, generation) = {
            let entries = self.lock();
            let list = entries.by_path.values().cloned().collect();
            (Layout { version: LEDGER_VERSION, entries: list }, entries.generation)
        };
        let mut bytes = serde_json::to_vec_pretty(&layout)
            .map_err(|error| FileError::of("write", &self.path)(io::Error::from(error)))?;
        bytes.push(b'\n');
        files::replace(&self.path, &bytes)?;
        *written = generation;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_away(path: &Path, error: &serde_json::Error) -> Result<LedgerDamage, FileError> {
    let kept = path.with_file_name(format!("{LEDGER_FILE}.damaged-{}", files::unix_ms()));
    files::rename(path, &kept)?;
    Ok(LedgerDamage { kept, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, election: &str) -> LedgerEntry {
        LedgerEntry {
            path: path.into(),
            election: election.into(),
            file: LedgerFile::Manifest("pod".into()),
            exclusive: true,
            token: Some(Token(7)),
            digest: Digest::of(b"pod"),
        }
    }

    #[test]
    fn remembers_across_lives() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, damage) = Ledger::open(dir.path()).unwrap();
        assert_eq!(damage, None);
        ledger.record(vec![entry("/d/a", "e"), entry("/d/b", "e")]).unwrap();
        ledger.forget(&["/d/a".into()]).unwrap();

        let (again, damage) = Ledger::open(dir.path()).unwrap();
        assert_eq!(damage, None);
        assert_eq!(again.entries(), [entry("/d/b", "e")]);
    }

    #[test]
    fn a_path_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.record(vec![entry("/d/a", "first")]).unwrap();
        let refused = ledger.record(vec![entry("/d/b", "second"), entry("/d/a", "second")]);
        assert!(matches!(refused, Err(LedgerError::Owned { .. })), "{refused:?}");
        assert_eq!(ledger.entries(), [entry("/d/a", "first")]);
    }

    #[test]
    fn what_could_not_be_written_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(&dir.path().join("missing")).unwrap();
        assert!(ledger.record(vec![entry("/d/a", "e")]).is_err());
        assert_eq!(ledger.entries(), []);
    }

    #[test]
    fn a_damaged_ledger_is_kept_and_reported() {
        for text in ["", "{\"version\": 1, \"entries\": [{\"pa", "[]", "\u{0}\u{0}\u{0}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(LEDGER_FILE), text).unwrap();
            let (ledger, damage) = Ledger::open(dir.path()).unwrap();
            let damage = damage.expect("damage is reported");
            assert_eq!(fs::read_to_string(&damage.kept).unwrap(), text);
            assert_eq!(ledger.entries(), []);
            ledger.record(vec![entry("/d/a", "e")]).unwrap();
        }
    }

    #[test]
    fn a_newer_ledger_is_not_guessed_at() {
        for rest in ["\"rows\": {}", "\"entries\": {\"/d/a\": 7}", "\"entries\": [{\"path\": [1]}]"]
        {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(LEDGER_FILE), format!("{{\"version\": 2, {rest}}}")).unwrap();
            let opened = Ledger::open(dir.path());
            assert!(matches!(opened, Err(LedgerError::Newer { found: 2, .. })), "{opened:?}");
            assert!(dir.path().join(LEDGER_FILE).exists());
        }
    }
}

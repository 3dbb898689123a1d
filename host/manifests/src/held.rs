//! What of ours is in place, and telling whether it is still as it should be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use conclave_core::ids::Token;

use crate::aside;
use crate::digest::Digest;
use crate::error::FileError;
use crate::event::Damage;
use crate::files::{self, Fingerprint, Found, Target};
use crate::gate::Slot;
use crate::ledger::LedgerEntry;
use crate::manifest::Content;
use crate::validate::MAX_MANIFEST_BYTES;

/// A manifest that this node placed and has not withdrawn; ours, whatever became of it.
pub(crate) struct Held {
    /// The manifest's name in its election.
    pub(crate) manifest: String,
    pub(crate) target: Target,
    pub(crate) exclusive: bool,
    /// The term in which it was placed, if it is exclusive.
    pub(crate) token: Option<Token>,
    pub(crate) digest: Digest,
    /// What was placed; none when an earlier daemon did and it has not been read back.
    pub(crate) content: Option<Arc<Content>>,
    /// Its state when it was last found right.
    pub(crate) seen: Option<Fingerprint>,
    /// The guard's watch over it, if it is exclusive and this daemon claimed it.
    pub(crate) slot: Option<Box<dyn Slot>>,
    /// When it was last repaired, lest two tools fight over it without pause.
    pub(crate) repaired: Option<Instant>,
}

/// How a file of ours compares with what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As it should be.
    Right,
    /// As it was placed, but something else should be there now.
    Outdated,
    /// Not as it was placed.
    Damaged(Damage),
    /// A directory stands there, which is never touched.
    Blocked,
}

impl Held {
    /// What an earlier daemon placed, by its word: nothing is looked at yet.
    pub(crate) fn from_ledger(
        entry: &LedgerEntry,
        manifest: &str,
        target: Target,
        exclusive: bool,
    ) -> Held {
        Held {
            manifest: manifest.to_owned(),
            target,
            exclusive,
            token: entry.token,
            digest: entry.digest.clone(),
            content: None,
            seen: None,
            slot: None,
            repaired: None,
        }
    }

    /// Takes the content of what an earlier daemon placed back as a good copy, if it is unharmed.
    pub(crate) fn look_back(&mut self) {
        if let Ok((bytes, print)) = files::read(self.target.path(), MAX_MANIFEST_BYTES + 1)
            && Digest::of(&bytes) == self.digest
        {
            let digest = self.digest.clone();
            self.content = Some(Arc::new(Content { bytes, mode: print.mode(), digest }));
            self.seen = Some(print);
        }
    }

    /// Compares what is found with `wanted`. The file is read unless it is untouched since it was
    /// last found right; `suspect` says that inotify reported something.
    pub(crate) fn compare(&mut self, found: Found, wanted: &Content, suspect: bool) -> Condition {
        match found {
            Found::Nothing => Condition::Damaged(Damage::Deleted),
            Found::Directory => Condition::Blocked,
            Found::Other(_) => Condition::Damaged(Damage::Changed),
            Found::File(print) => {
                let same_as_placed =
                    (!suspect && self.seen == Some(print)) || self.is_as_placed(self.target.path());
                if !same_as_placed {
                    // Until it is repaired, it is read at every look.
                    self.seen = None;
                    Condition::Damaged(Damage::Changed)
                } else if self.digest == wanted.digest && print.mode() == wanted.mode {
                    self.seen = Some(print);
                    Condition::Right
                } else if self.content.as_ref().is_some_and(|placed| placed.mode != print.mode()) {
                    Condition::Damaged(Damage::Changed)
                } else {
                    Condition::Outdated
                }
            }
        }
    }

    fn is_as_placed(&self, path: &Path) -> bool {
        files::read(path, MAX_MANIFEST_BYTES + 1)
            .is_ok_and(|(bytes, _)| Digest::of(&bytes) == self.digest)
    }

    /// Takes the file out of its place. What somebody changed is set aside by a rename, which
    /// needs neither time nor space; where that fails the file goes, because leading twice is
    /// worse. Returns where it was set aside.
    pub(crate) fn take_out(&self) -> Result<Option<PathBuf>, FileError> {
        let path = self.target.path();
        // A staged file is no effect yet; that it cannot be removed is no reason to stop here.
        files::clear_staged(&self.target);
        let changed = match files::inspect(path)? {
            Found::Nothing | Found::Directory => return Ok(None),
            Found::File(print) => self.seen != Some(print) && !self.is_as_placed(path),
            Found::Other(_) => true,
        };
        let aside = if changed { aside::set_aside(&self.target).ok() } else { None };
        if aside.is_none() {
            files::remove(path)?;
        }
        // Somebody may have put it back in the same instant.
        match files::inspect(path)? {
            Found::Nothing | Found::Directory => Ok(aside),
            Found::File(_) | Found::Other(_) => {
                let error = io::Error::from(io::ErrorKind::AlreadyExists);
                Err(FileError::of("keep away", path)(error))
            }
        }
    }
}

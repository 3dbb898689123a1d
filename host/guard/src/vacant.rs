//! A state directory whose pair is dead, held so that no new one begins meanwhile.

use std::io;
use std::path::Path;

use crate::error::PageError;
use crate::lock::{DaemonLock, GuardLock, LockError};
use crate::page::PageFile;
use crate::slot::Claim;
use crate::whereabouts::page_path;

/// Why a state directory could not be held as one without a pair.
#[derive(Debug, thiserror::Error)]
pub enum VacantError {
    /// A guard or a daemon lives, or the directory cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What the dead pair shared is out of reach.
    #[error(transparent)]
    Page(#[from] PageError),
}

/// A state directory without a live guard or daemon. No pair can start in it while this is held.
#[derive(Debug)]
pub struct Vacant {
    _guard: GuardLock,
    _daemon: DaemonLock,
    /// What the pair shared, if it died in this boot.
    page: Option<PageFile>,
}

impl Vacant {
    /// Holds a state directory, which must exist.
    ///
    /// # Errors
    /// [`LockError::Held`] while a guard or a daemon lives, with who it is.
    pub fn hold(state_dir: &Path) -> Result<Self, VacantError> {
        let guard = GuardLock::acquire_to_clean(state_dir)?;
        let daemon = DaemonLock::acquire_to_clean(state_dir)?;
        let canonical = state_dir.canonicalize().map_err(|source| {
            let state_dir = state_dir.to_owned();
            LockError::Io { state_dir, source }
        })?;
        let page = match page_path(&canonical).and_then(|path| PageFile::open_existing(&path)) {
            Ok(page) => Some(page),
            // Without such memory there is no page in it, and none of another boot or version can
            // be read.
            Err(PageError::NoTmpfs { .. } | PageError::Foreign { .. }) => None,
            Err(PageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Vacant { _guard: guard, _daemon: daemon, page })
    }

    /// What the dead guard still watched over.
    pub fn claims(&self) -> Vec<Claim> {
        self.page.as_ref().map(|file| file.page.claims()).unwrap_or_default()
    }

    /// Has the next guard begin with nothing to withdraw: to be called once everything is.
    ///
    /// # Errors
    /// When the page's file cannot be removed.
    pub fn forget(self) -> Result<(), PageError> {
        self.page.map_or(Ok(()), PageFile::remove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_held_against_pairs_and_only_without_one() {
        let state = tempfile::tempdir().unwrap();
        let daemon = DaemonLock::acquire(state.path()).unwrap();
        let refused = Vacant::hold(state.path()).unwrap_err().to_string();
        let who = format!("the daemon with process id {}", std::process::id());
        assert!(refused.contains(&who), "{refused}");
        drop(daemon);
        let vacant = Vacant::hold(state.path()).unwrap();
        assert!(vacant.claims().is_empty());
        let refused = GuardLock::acquire(state.path()).unwrap_err().to_string();
        assert!(refused.contains("the cleaner with process id"), "{refused}");
        vacant.forget().unwrap();
        GuardLock::acquire(state.path()).unwrap();
    }
}

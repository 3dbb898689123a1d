//! The daemon that an earlier guard left behind: found by its lock, and waited for.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::clock::Reading;
use crate::config::GuardError;
use crate::lock::{DaemonLock, LockError};
use crate::page::Page;
use crate::process::Daemon;

/// How often, and how long apart, a lock is looked at whose holder is not found.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Looks for a live daemon of an earlier guard. The page must name this guard already.
pub(crate) fn find(state_dir: &Path, page: &Page) -> Result<Option<Daemon>, GuardError> {
    for _ in 0..ATTEMPTS {
        let Some(holder) = DaemonLock::holder(state_dir)? else { return Ok(None) };
        if let Some(orphan) = Daemon::orphan(&holder, page, Reading::now()) {
            return Ok(Some(orphan));
        }
        // It has just died, or has just locked and not yet written who it is.
        thread::sleep(PAUSE);
    }
    match DaemonLock::holder(state_dir)? {
        None => Ok(None),
        Some(holder) => {
            let state_dir = state_dir.to_owned();
            Err(LockError::Held { state_dir, holder }.into())
        }
    }
}

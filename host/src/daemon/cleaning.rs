//! Withdrawing what an earlier life left, before anything else is done.
//!
//! A fresh start does not go on before that has succeeded: the old session must not be ended while
//! something exclusive may be in place. An adopted one goes on: its session has to be kept
//! alive, and a term whose effects cannot be withdrawn becomes stuck.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conclave_guard::{Attached, Claim, Page, end_processes};
use conclave_manifests::{Ledger, LedgerDamage, ManifestSettings, Start, clean};
use tracing::{error, warn};

use crate::config::Config;
use crate::daemon::start::{StartError, beating};

/// Between attempts.
const CLEAN_AGAIN: Duration = Duration::from_secs(1);

/// What could not be withdrawn, and why.
type Failures = Vec<(PathBuf, String)>;

/// Cleans up, again and again on a fresh start until nothing exclusive is left.
pub(crate) async fn clean_up(
    config: &Arc<Config>,
    attached: &mut Attached,
    mut ledger: Ledger,
    damage: Option<LedgerDamage>,
    start: Start,
) -> Result<Ledger, StartError> {
    let page = attached.page;
    let damage = damage.map(Arc::new);
    let mut told = Failures::new();
    loop {
        let (config, damage, claims) = (Arc::clone(config), damage.clone(), page.claims());
        let work = tokio::task::spawn_blocking(move || {
            let settings = config.manifest_settings();
            let failed =
                withdraw_left(&settings, &ledger, damage.as_deref(), &claims, start).failed;
            (failed, ledger)
        });
        let done = beating(page, work).await;
        let (mut failed, same) =
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        ledger = same;
        if start == Start::Adopt {
            return Ok(ledger);
        }
        if failed.is_empty() {
            failed = release(page);
        }
        if failed.is_empty() {
            attached.session.end()?;
            return Ok(ledger);
        }
        if told != failed {
            for (path, reason) in &failed {
                error!(path = %path.display(), reason, "cannot withdraw what an earlier daemon left; not starting before that");
            }
            told = failed;
        }
        beating(page, tokio::time::sleep(CLEAN_AGAIN)).await;
    }
}

/// What one attempt came to. It was told to the log already.
pub(crate) struct Withdrawn {
    /// What was taken out of its place.
    pub(crate) paths: Vec<PathBuf>,
    /// What exclusive is, or may be, still in place.
    pub(crate) failed: Failures,
    /// What may be ours, and is left alone because nothing proves it.
    pub(crate) doubtful: Vec<PathBuf>,
}

/// One attempt at withdrawing what a dead pair left: what the ledger names, and what its guard
/// still watched over, `claims`.
pub(crate) fn withdraw_left(
    settings: &ManifestSettings,
    ledger: &Ledger,
    damage: Option<&LedgerDamage>,
    claims: &[Claim],
    start: Start,
) -> Withdrawn {
    let shared: BTreeSet<PathBuf> = ledger
        .entries()
        .into_iter()
        .filter(|entry| !entry.exclusive)
        .map(|entry| entry.path)
        .collect();
    let unnamed: Vec<&Claim> = claims.iter().filter(|claim| !ledger.names(&claim.dest)).collect();
    let report = clean(settings, ledger, damage, start);
    let mut paths = report.withdrawn;
    for path in &paths {
        warn!(path = %path.display(), "withdrew what an earlier daemon left");
    }
    for path in &report.doubtful {
        error!(path = %path.display(), "this file may be ours, but nothing proves it; left alone");
    }
    let (harmless, mut failed): (Failures, Failures) =
        report.failed.into_iter().partition(|(path, _)| shared.contains(path));
    for (path, reason) in harmless {
        warn!(path = %path.display(), reason, "cannot remove what an earlier daemon left");
    }
    if start == Start::Fresh {
        let withdrawn = paths.clone();
        for claim in unnamed.into_iter().filter(|claim| !withdrawn.contains(&claim.dest)) {
            // After damage to the ledger the guard's page is the proof that a file is ours.
            match take_away(claim) {
                Ok(()) => {
                    warn!(path = %claim.dest.display(), "withdrew what the guard watched over");
                    paths.push(claim.dest.clone());
                }
                Err(error) => failed.push((claim.dest.clone(), error.to_string())),
            }
        }
    }
    Withdrawn { paths, failed, doubtful: report.doubtful }
}

/// Takes a claimed effect out of its place, as the guard would. A missing role file means standby.
fn take_away(claim: &Claim) -> io::Result<()> {
    if claim.kind.is_of_processes() {
        return end_processes(claim);
    }
    remove(&claim.staged)?;
    remove(&claim.dest)?;
    match claim.dest.parent().map(fs::File::open) {
        Some(Ok(directory)) => directory.sync_all(),
        Some(Err(error)) if !is_absent(&error) => Err(error),
        // Without its directory it is gone.
        Some(Err(_)) | None => Ok(()),
    }
}

/// Unlinks a file; that it is not there, or a directory, which we never made, is as good.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        _ => match fs::remove_file(path) {
            Err(error) if is_absent(&error) => Ok(()),
            removed => removed,
        },
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Ends the guard's watch over what is withdrawn. What the guard is at itself does not count as
/// withdrawn before that has returned, and needs another look then.
fn release(page: Page) -> Failures {
    let busy = |claim: Claim| match page.release(claim.id) {
        Ok(()) => None,
        Err(error) => Some((claim.dest, error.to_string())),
    };
    page.claims().into_iter().filter_map(busy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_already_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "x").unwrap();
        remove(&file).unwrap();
        assert!(!file.exists());
        remove(&file).unwrap();
        remove(&directory.path().join("missing/a.yaml")).unwrap();
    }

    #[test]
    fn a_directory_is_nothing_that_we_made() {
        let directory = tempfile::tempdir().unwrap();
        remove(directory.path()).unwrap();
        assert!(directory.path().is_dir());
    }
}

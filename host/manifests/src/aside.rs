//! What somebody changed is not lost: it is set aside beside its place, which needs neither time nor
//! space, and later brought to the state directory. Of neither is there ever very much.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::error::{FileError, phrase};
use crate::files::{self, Found, Target, inspect, remove};

/// How the names of what was set aside end; before that comes the time.
const ASIDE: &str = ".changed";

/// How many changed files are kept: in the state directory's `saved/`, and beside each destination
/// where they cannot be brought there. A tool that fights over a file must not fill the disk.
const KEPT: usize = 100;

/// The largest file that is copied to another file system, in bytes: some times the largest
/// manifest. A larger one stays where it was set aside.
const MAX_COPIED: u64 = 8 * 1024 * 1024;

/// Takes what stands at a destination away, in one step that needs no space; [`save`] then brings
/// it to the state directory.
pub(crate) fn set_aside(target: &Target) -> Result<PathBuf, FileError> {
    files::create_staging(target.dir())?;
    let aside = free_aside(target);
    fs::rename(target.path(), &aside).map_err(FileError::of("set aside", target.path()))?;
    Ok(aside)
}

/// Keeps what stands at a destination under a second name, so that a rename over it loses
/// nothing and readers find a whole file at every moment.
pub(crate) fn keep_aside(target: &Target) -> Result<PathBuf, FileError> {
    files::create_staging(target.dir())?;
    let aside = free_aside(target);
    match fs::hard_link(target.path(), &aside) {
        Ok(()) => Ok(aside),
        // A file system without hard links.
        Err(_) => set_aside(target),
    }
}

/// What was set aside of a destination, oldest first.
pub(crate) fn asides(target: &Target) -> Vec<PathBuf> {
    let Some(staging) = files::staging(target.dir()) else { return Vec::new() };
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let rest = name.and_then(|name| name.strip_prefix(target.name())?.strip_prefix('.'));
        let time = rest.and_then(|rest| rest.strip_suffix(ASIDE));
        time.is_some_and(|time| !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut paths = list(&staging);
    paths.retain(ours);
    paths
}

/// Brings what was set aside to the state directory; what cannot be saved stays where it is.
pub(crate) fn save_all(asides: Vec<(PathBuf, Target)>, state_dir: &Path) {
    for (aside, target) in asides {
        match save(&aside, &target, state_dir) {
            Ok(saved) => {
                tracing::warn!(
                    path = %target.path().display(),
                    saved = %saved.display(),
                    "a file that somebody changed was saved"
                );
            }
            Err(error) => {
                let kept = aside.display();
                tracing::error!(error = phrase(&error), %kept, "a changed file could not be saved");
                forget_oldest(self::asides(&target));
            }
        }
    }
}

/// Into `saved/`, under the time and its name.
fn save(aside: &Path, target: &Target, state_dir: &Path) -> Result<PathBuf, FileError> {
    let dir = state_dir.join("saved");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(FileError::of("create", &dir))?;
    let saved = free(|ms| dir.join(format!("{ms}-{}", target.name())));
    match inspect(aside)? {
        Found::File(_) if fs::rename(aside, &saved).is_ok() => {}
        Found::File(print) => {
            copy(aside, print.size(), &saved).inspect_err(|_| {
                // Half of it is of no use; the error is the news.
                let _ = fs::remove_file(&saved);
            })?;
            remove(aside)?;
        }
        Found::Other("a symbolic link") => {
            let to = fs::read_link(aside).map_err(FileError::of("read", aside))?;
            symlink(to, &saved).map_err(FileError::of("save", aside))?;
            remove(aside)?;
        }
        // A pipe or socket has no content to save.
        Found::Other(_) => remove(aside)?,
        Found::Nothing | Found::Directory => return Ok(saved),
    }
    forget_oldest(list(&dir));
    Ok(saved)
}

fn copy(aside: &Path, size: u64, saved: &Path) -> Result<(), FileError> {
    let large = || io::Error::other(format!("it has {size} bytes, too many to copy"));
    if size > MAX_COPIED {
        return Err(FileError::of("save", aside)(large()));
    }
    fs::copy(aside, saved)
        .and_then(|_| File::open(saved)?.sync_all())
        .map_err(FileError::of("save", aside))
}

fn free_aside(target: &Target) -> PathBuf {
    free(|ms| target.beside(&format!("{ms}{ASIDE}")))
}

/// A name that nothing has yet, from the time and what is made of it.
fn free(name: impl Fn(u128) -> PathBuf) -> PathBuf {
    let mut ms = files::unix_ms();
    loop {
        let path = name(ms);
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        ms += 1;
    }
}

/// By name, which puts the oldest of one file's first.
fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn forget_oldest(paths: Vec<PathBuf>) {
    for old in paths.iter().take(paths.len().saturating_sub(KEPT)) {
        tracing::warn!(path = %old.display(), "too many saved files, forgetting the oldest");
        let _ = fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_in_one_moment_is_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(&dir.path().join("a.yaml")).unwrap();
        for n in 0..30 {
            fs::write(target.path(), format!("change {n}")).unwrap();
            if n % 2 == 0 {
                keep_aside(&target).unwrap();
                fs::remove_file(target.path()).unwrap();
            } else {
                set_aside(&target).unwrap();
            }
        }
        let texts = asides(&target).into_iter().map(|path| fs::read_to_string(path).unwrap());
        let expected: Vec<String> = (0..30).map(|n| format!("change {n}")).collect();
        assert_eq!(texts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn of_what_is_kept_there_is_never_very_much() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(&dir.path().join("a.yaml")).unwrap();
        let state = dir.path().join("state");
        for n in 0..KEPT + 5 {
            fs::write(target.path(), format!("change {n}")).unwrap();
            let aside = set_aside(&target).unwrap();
            save_all(vec![(aside, target.clone())], &state);
        }
        let saved = list(&state.join("saved"));
        assert_eq!(saved.len(), KEPT);
        assert_eq!(fs::read_to_string(&saved[0]).unwrap(), "change 5");
        assert!(asides(&target).is_empty());
    }

    #[test]
    fn another_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(&dir.path().join("a")).unwrap();
        files::create_staging(target.dir()).unwrap();
        for name in ["a.yaml.17.changed", "a..changed", "a.x.changed", "b.17.changed", "a.17"] {
            fs::write(target.dir().join(".conclave").join(name), "").unwrap();
        }
        assert!(asides(&target).is_empty());
    }
}

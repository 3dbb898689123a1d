//! Reading a decision log: a directory that a daemon writes, or one file of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::log::{NEW, OLD};
use super::{Decision, VERSION};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is not there, or may not be read.
    #[error("cannot read the decision log {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A later program wrote it.
    #[error(
        "{} line {line} is of version {version} of the decision log, and this program reads {VERSION}: use the one that wrote it",
        path.display()
    )]
    Later { path: PathBuf, line: usize, version: u32 },
    /// No line of it is a decision.
    #[error("{} has no decision in it; is it a decision log?", path.display())]
    Nothing { path: PathBuf },
}

/// Reads the decisions of a log, oldest first; lines that are none, as a crash leaves them, are skipped.
pub(crate) fn read(path: &Path) -> Result<Vec<Decision>, ReadError> {
    let directory = [path.to_owned(), path.join(super::DIRECTORY)];
    let mut decisions = Vec::new();
    match directory.iter().find(|directory| directory.join(NEW).is_file()) {
        Some(directory) => {
            let old = directory.join(OLD);
            if old.is_file() {
                file(&old, &mut decisions)?;
            }
            file(&directory.join(NEW), &mut decisions)?;
        }
        None => file(path, &mut decisions)?,
    }
    if decisions.is_empty() {
        return Err(ReadError::Nothing { path: path.to_owned() });
    }
    Ok(decisions)
}

fn file(path: &Path, decisions: &mut Vec<Decision>) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let fail = |source| ReadError::File { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(fail)?;
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if let Ok(decision) = serde_json::from_slice::<Decision>(line) {
            decisions.push(decision);
            continue;
        }
        // What does not read may be torn, or newer.
        if let Ok(Versioned { version }) = serde_json::from_slice(line)
            && version > VERSION
        {
            return Err(ReadError::Later { path: path.to_owned(), line: at + 1, version });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_is_no_log_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(error("a story\n").ends_with("has no decision in it; is it a decision log?"));
        let later = error("{\"version\": 2, \"by\": \"somebody\"}\n");
        assert!(later.contains("line 1 is of version 2"), "{later}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(ReadError::File { .. })));
    }

    #[test]
    fn a_directory_is_read_from_its_oldest_line() {
        let dir = tempfile::tempdir().unwrap();
        let decisions = dir.path().join("decisions");
        fs::create_dir(&decisions).unwrap();
        let write = |name: &str, order: &[&str]| {
            let line = serde_json::to_string(&sample("e", order)).unwrap();
            fs::write(decisions.join(name), line + "\n").unwrap();
        };
        write(NEW, &["new"]);
        write(OLD, &["old"]);
        for path in [dir.path(), &decisions] {
            let lines: Vec<_> =
                read(path).unwrap().iter().flat_map(|it| it.answer.lines()).collect();
            assert_eq!(lines, ["old", "new"]);
        }
    }
}

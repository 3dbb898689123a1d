//! The errors at this crate's boundary, and how they become the reasons that people read.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use conclave_core::ids::ElectionName;

/// Why the manifest loop could not start.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// An election is listed twice.
    #[error("election {election} is listed twice")]
    RepeatedElection {
        /// Which.
        election: ElectionName,
    },
    /// Two manifests of an election have one name.
    #[error("election {election} has two manifests named {name}; give each a name of its own")]
    RepeatedManifest {
        /// Which election.
        election: ElectionName,
        /// The name.
        name: String,
    },
    /// Two things would be put in one place.
    #[error("{} is a destination twice, for {first} and for {second}", path.display())]
    RepeatedDestination {
        /// The place.
        path: PathBuf,
        /// The election that named it first.
        first: ElectionName,
        /// The election that named it again.
        second: ElectionName,
    },
    /// A destination names no file.
    #[error(
        "{} cannot be a destination: it must name a file in a directory, in UTF-8",
        path.display()
    )]
    NotAFileName {
        /// The destination.
        path: PathBuf,
    },
    /// A command names an election that is not configured.
    #[error("election {election} is not configured on this node")]
    UnknownElection {
        /// Which.
        election: ElectionName,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names the action and the path.
    pub(crate) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError { action, path: path.to_owned(), source }
    }
}

/// An error with its causes, as one phrase.
pub(crate) fn phrase(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

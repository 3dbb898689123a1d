//! Paths and names: made absolute, compared by what they mean, fit for use as file names.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest name of a cluster, node, election or manifest, in bytes: encoded three to one it
/// still fits into a file name.
const LONGEST_NAME: usize = 80;

/// Everything but letters, digits, `-` and `_` is encoded. The dot is too, so that no name can
/// become `.`, `..` or a hidden file.
const NOT_IN_FILE_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A name as a file name.
pub fn encode_name(name: &str) -> String {
    utf8_percent_encode(name, NOT_IN_FILE_NAMES).to_string()
}

/// What is wrong with a name, as the end of a sentence that begins with it.
pub(crate) fn name_mistake(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("is {} bytes long, and {LONGEST_NAME} is the most", name.len()))
    } else if name.trim() != name {
        Some("begins or ends with a blank".to_owned())
    } else if name.chars().any(char::is_control) {
        Some("contains a control character".to_owned())
    } else if matches!(name, "." | "..") {
        Some("would be taken for a directory".to_owned())
    } else {
        None
    }
}

/// A path with every symbolic link resolved as far as it exists, and the rest appended; two
/// paths that mean the same file become equal.
pub fn canonical(path: &Path) -> PathBuf {
    let mut missing: Vec<OsString> = Vec::new();
    let mut existing = path.to_path_buf();
    loop {
        match fs::canonicalize(&existing) {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return found;
            }
            Err(_) => match (existing.parent(), existing.components().next_back()) {
                (Some(parent), Some(Component::Normal(name))) => {
                    missing.push(name.to_owned());
                    existing = parent.to_path_buf();
                }
                // `a/..` of an `a` that is not there: taken as written.
                _ => return path.to_path_buf(),
            },
        }
    }
}

/// A destination as others compare it: the directory is resolved, the file itself is not,
/// because a link in its place would be replaced and not followed.
pub(crate) fn canonical_destination(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => canonical(directory).join(name),
        _ => path.to_path_buf(),
    }
}

/// Why a file cannot serve as a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Something else than a file.
    #[error("{} is a directory, not a file", .0.display())]
    Directory(PathBuf),
    /// It cannot be opened.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a file can be read.
pub(crate) fn readable_file(path: &Path) -> Result<(), SourceError> {
    let opened = File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(metadata) if metadata.is_dir() => Err(SourceError::Directory(path.to_path_buf())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(SourceError::Missing(path.to_path_buf()))
        }
        Err(source) => Err(SourceError::Unreadable { path: path.to_path_buf(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_names_are_plain_and_distinct() {
        let table = [
            ("scheduler", "scheduler"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            (".hidden", "%2Ehidden"),
            ("a%2Fb", "a%252Fb"),
            ("käse 1", "k%C3%A4se%201"),
        ];
        for (name, encoded) in table {
            assert_eq!(encode_name(name), encoded);
        }
    }

    #[test]
    fn names() {
        for good in ["a", "192.168.0.3", "zone a", "a/b", &"x".repeat(80)] {
            assert_eq!(name_mistake(good), None, "{good}");
        }
        for bad in ["", " a", "a\n", "a\u{7}b", ".", "..", &"x".repeat(81)] {
            assert!(name_mistake(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn one_file_has_one_canonical_path() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(canonical(&link.join("not/yet.yaml")), canonical(&real.join("not/yet.yaml")));
        assert_eq!(canonical(&real.join("../real/x")), canonical(&real.join("x")));
    }

    #[test]
    fn a_link_at_the_destination_itself_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("a.yaml");
        std::os::unix::fs::symlink("/somewhere/else.yaml", &link).unwrap();
        assert_eq!(canonical_destination(&link), canonical(directory.path()).join("a.yaml"));
    }

    #[test]
    fn sources_are_files_that_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "x").unwrap();
        assert!(readable_file(&file).is_ok());
        assert!(matches!(readable_file(directory.path()), Err(SourceError::Directory(_))));
        assert!(matches!(readable_file(&directory.path().join("b")), Err(SourceError::Missing(_))));
    }
}

//! Reading sources: whole, unchanged while they were read, and only what counts as a manifest.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use crate::digest::Digest;
use crate::error::{FileError, phrase};
use crate::files::Fingerprint;
use crate::validate::{InvalidManifest, MAX_MANIFEST_BYTES, validate};

/// A source that was written so recently may still be being written by somebody who does not
/// rename it into place; it is read again once it has rested that long.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);

/// How often a file that changes while it is read is read again at once.
const ATTEMPTS: usize = 3;

/// A manifest as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// All of it.
    pub(crate) text: String,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// The text's digest.
    pub(crate) digest: Digest,
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is a directory, a pipe or the like.
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// It is larger than any manifest.
    #[error(
        "{} has more than {MAX_MANIFEST_BYTES} bytes, which no kubelet can mirror",
        path.display()
    )]
    TooLarge { path: PathBuf },
    /// It is not text.
    #[error("{} is not UTF-8 text (byte {offset})", path.display())]
    NotText { path: PathBuf, offset: usize },
    /// It is not a manifest.
    #[error("{} is not a manifest", path.display())]
    Invalid {
        path: PathBuf,
        #[source]
        source: InvalidManifest,
    },
    /// It kept changing while it was read.
    #[error("{} keeps changing while it is read", path.display())]
    Restless { path: PathBuf },
    /// The name cannot be a manifest's.
    #[error("{} has a name that is not UTF-8 text", path.display())]
    Name { path: PathBuf },
}

/// What became of looking at a source.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is as it was at the last look.
    Same,
    /// It was written a moment ago: look again soon.
    Unsettled,
    /// It has been read, or cannot be used.
    Read(Result<Arc<Source>, SourceError>),
}

/// One source file across many looks.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    /// Whether its text must be a manifest as it stands; otherwise only once rendered.
    literal: bool,
    /// Its state at the last look that was conclusive; the error in words, if it was one.
    last: Option<(Option<Fingerprint>, Option<String>)>,
}

impl Watched {
    pub(crate) fn new(path: PathBuf, literal: bool) -> Self {
        Watched { path, literal, last: None }
    }

    /// Looks at the file and reads it if it changed. With `whole`, it was moved into place and
    /// need not rest.
    pub(crate) fn look(&mut self, whole: bool) -> Look {
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) => {
                let error = FileError::of("read", &self.path)(error);
                return self.conclude(None, Err(error.into()));
            }
        };
        let print = Fingerprint::of(&meta);
        if !whole && self.last.as_ref().is_some_and(|(last, _)| *last == Some(print)) {
            return Look::Same;
        }
        let fresh = is_fresh(&meta);
        if fresh && !whole && meta.is_file() {
            return Look::Unsettled;
        }
        match read_stable(&self.path) {
            // Two writes within a tick of the clock leave one fingerprint, so that of a fresh
            // file proves nothing.
            Ok((bytes, print)) => {
                let source = self.understand(bytes, print.mode());
                self.conclude((!fresh).then_some(print), source)
            }
            Err(error) => self.conclude(None, Err(error)),
        }
    }

    /// Errors that repeat are not news.
    fn conclude(
        &mut self,
        print: Option<Fingerprint>,
        result: Result<Source, SourceError>,
    ) -> Look {
        let words = result.as_ref().err().map(|error| phrase(error));
        let repeated = words.is_some()
            && self.last.as_ref().is_some_and(|(_, last_words)| *last_words == words);
        self.last = Some((print, words));
        if repeated { Look::Same } else { Look::Read(result.map(Arc::new)) }
    }

    fn understand(&self, bytes: Vec<u8>, mode: u32) -> Result<Source, SourceError> {
        let path = || self.path.clone();
        let digest = Digest::of(&bytes);
        let text = String::from_utf8(bytes).map_err(|error| SourceError::NotText {
            path: path(),
            offset: error.utf8_error().valid_up_to(),
        })?;
        if self.literal {
            validate(&text).map_err(|source| SourceError::Invalid { path: path(), source })?;
        }
        Ok(Source { text, mode, digest })
    }
}

/// Why a file cannot be put in place as it is, if so, in words. With `render` its text is judged
/// only once it is rendered ([`try_rendering`](crate::try_rendering)).
pub fn unusable_source(path: &Path, render: bool) -> Option<String> {
    match Watched::new(path.to_owned(), !render).look(true) {
        Look::Read(Err(error)) => Some(phrase(&error)),
        Look::Read(Ok(_)) | Look::Same | Look::Unsettled => None,
    }
}

/// By the wall clock, as file times are; a time in the future is fresh only within the same bound,
/// lest a clock that was set back hold a source up for ever.
fn is_fresh(meta: &fs::Metadata) -> bool {
    let Ok(modified) = meta.modified() else { return false };
    let age = match SystemTime::now().duration_since(modified) {
        Ok(age) => age,
        Err(ahead) => ahead.duration(),
    };
    age < SETTLE
}

/// Reads a file whole, again if it changed meanwhile.
pub(crate) fn read_stable(path: &Path) -> Result<(Vec<u8>, Fingerprint), SourceError> {
    for _ in 0..ATTEMPTS {
        let mut file = open(path)?;
        let before = state(&file, path)?;
        let mut bytes = Vec::new();
        file.by_ref()
            .take(MAX_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(FileError::of("read", path))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(SourceError::TooLarge { path: path.to_owned() });
        }
        if state(&file, path)? == before {
            return Ok((bytes, before));
        }
    }
    Err(SourceError::Restless { path: path.to_owned() })
}

/// Opening a pipe must not wait for its writer.
fn open(path: &Path) -> Result<File, SourceError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(FileError::of("read", path))?;
    let meta = file.metadata().map_err(FileError::of("look at", path))?;
    if meta.is_file() { Ok(file) } else { Err(SourceError::NotAFile { path: path.to_owned() }) }
}

fn state(file: &File, path: &Path) -> Result<Fingerprint, FileError> {
    file.metadata().map(|meta| Fingerprint::of(&meta)).map_err(FileError::of("look at", path))
}

/// Whether a name in a source directory is a manifest's: what kubelets would run, without what
/// editors and tools leave behind.
pub(crate) fn is_manifest_name(name: &str) -> bool {
    let hidden = name.starts_with('.') || (name.starts_with('#') && name.ends_with('#'));
    // vim's and emacs' copies keep the extension inside: `a.yaml~`, `a.yaml.swp`, `#a.yaml#`.
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The manifests' names in a source directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<Result<String, SourceError>>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::of("read the directory", dir))? {
        let entry = entry.map_err(FileError::of("read the directory", dir))?;
        match entry.file_name().into_string() {
            Ok(name) if is_manifest_name(&name) => names.push(Ok(name)),
            Ok(_) => {}
            Err(_) => names.push(Err(SourceError::Name { path: entry.path() })),
        }
    }
    Ok(names)
}

/// What a whole source directory holds, by manifest name.
pub(crate) type Contents = BTreeMap<String, Result<Arc<Source>, String>>;

/// For a directory that is there but empty.
pub(crate) fn empty_directory(dir: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("no manifest in {} (.yaml, .yml or .json)", dir.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\n";

    #[test]
    fn tells_manifests_from_leftovers() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "#a.yaml", "a b.yaml"] {
            assert!(is_manifest_name(name), "{name}");
        }
        for name in [
            ".a.yaml",
            ".a.yaml.swp",
            "a.yaml.swp",
            "a.yaml~",
            "a.yaml.tmp",
            "#a.yaml#",
            "a.yaml.bak",
            "a.yaml.orig",
            "..data",
            "a",
            "yaml",
            ".yaml",
            "a.YAML",
            "4913",
            "a.txt",
            "a.yaml.kate-swp",
        ] {
            assert!(!is_manifest_name(name), "{name}");
        }
    }

    /// Writes a file that nobody is writing any more.
    fn settled(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000 + bytes.len() as u64))
            .unwrap();
    }

    fn error(look: Look) -> String {
        match look {
            Look::Read(Err(error)) => phrase(&error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_changed_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let mut watched = Watched::new(path.clone(), true);
        assert!(error(watched.look(false)).contains("No such file"));
        assert!(matches!(watched.look(false), Look::Same));

        settled(&path, POD.as_bytes());
        match watched.look(false) {
            Look::Read(Ok(source)) => assert_eq!(source.text, POD),
            other => panic!("{other:?}"),
        }
        assert!(matches!(watched.look(false), Look::Same));

        settled(&path, b"not a manifest");
        assert!(
            error(watched.look(false)).contains("is not a manifest: document 1 is not a mapping")
        );
        assert!(matches!(watched.look(true), Look::Same));
    }

    #[test]
    fn waits_until_a_fresh_file_has_rested_unless_it_was_moved_into_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let mut watched = Watched::new(path.clone(), true);
        fs::write(&path, POD).unwrap();
        let ahead = SystemTime::now() + SETTLE / 2;
        File::options().write(true).open(&path).unwrap().set_modified(ahead).unwrap();
        assert!(matches!(watched.look(false), Look::Unsettled));
        assert!(matches!(watched.look(true), Look::Read(Ok(_))));
    }

    #[test]
    fn refuses_what_cannot_be_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let look = |path: &Path| error(Watched::new(path.to_owned(), true).look(true));

        assert!(look(dir.path()).contains("is not a regular file"));

        let path = dir.path().join("a.yaml");
        settled(&path, b"apiVersion: v1\nkind: \xff\n");
        assert!(look(&path).contains("is not UTF-8 text (byte 21)"));

        settled(&path, &vec![b'#'; MAX_MANIFEST_BYTES as usize + 1]);
        assert!(look(&path).contains("has more than 1572864 bytes"));

        let pipe = dir.path().join("pipe.yaml");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(look(&pipe).contains("is not a regular file"));
    }

    #[test]
    fn a_template_is_judged_only_once_it_is_rendered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        settled(&path, b"{${BLOCK}}");
        assert!(matches!(Watched::new(path, false).look(true), Look::Read(Ok(_))));
    }
}

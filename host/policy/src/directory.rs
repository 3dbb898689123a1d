//! The plugin directory and the policies that are built in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DirectoryError, LoadError, LookupError};
use crate::host::PolicyHost;
use crate::limits;
use crate::policy::Policy;

/// The policies that need no plugin directory.
const COMPONENTS: [(&str, &[u8]); 6] = [
    ("cold-standby", include_bytes!("../../../plugins/built/cold-standby.wasm")),
    ("executor-match", include_bytes!("../../../plugins/built/executor-match.wasm")),
    ("hot-standby", include_bytes!("../../../plugins/built/hot-standby.wasm")),
    ("oldest-version", include_bytes!("../../../plugins/built/oldest-version.wasm")),
    ("preferred", include_bytes!("../../../plugins/built/preferred.wasm")),
    ("spread", include_bytes!("../../../plugins/built/spread.wasm")),
];

/// Their names, sorted.
pub const BUILT_IN: [&str; COMPONENTS.len()] = {
    let mut names = [""; COMPONENTS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = COMPONENTS[i].0;
        i += 1;
    }
    names
};

/// Which policies to load; compiling takes time.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Every one.
    All,
    /// Those of these names, as far as they exist.
    Only(&'a BTreeSet<String>),
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is part of the program.
    BuiltIn,
    /// It is a file in the plugin directory.
    File {
        /// The file.
        path: PathBuf,
        /// Whether it stands in for a built-in policy of the same name.
        replaces_builtin: bool,
    },
}

/// A name, where its component comes from, and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it comes from.
    pub origin: Origin,
    /// The policy; an error where the component is bad, `None` where it was not wanted. A bad
    /// file still stands before a built-in policy of its name: what the operator put there does
    /// not silently become something else.
    pub policy: Option<Result<Policy, Arc<LoadError>>>,
}

/// All policies by name.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// The entries, good and bad.
    pub entries: BTreeMap<String, Entry>,
}

impl Directory {
    /// The policy of a name.
    pub fn get(&self, name: &str) -> Result<&Policy, LookupError> {
        let unknown = || LookupError::Unknown {
            name: name.to_owned(),
            known: self.entries.keys().cloned().collect(),
        };
        let entry = self.entries.get(name).ok_or_else(unknown)?;
        match entry.policy.as_ref().ok_or_else(unknown)? {
            Ok(policy) => Ok(policy),
            Err(error) => Err(LookupError::Unusable {
                name: name.to_owned(),
                origin: entry.origin.clone(),
                source: Arc::clone(error),
            }),
        }
    }

    /// The components that cannot be used, with the reason.
    pub fn bad(&self) -> impl Iterator<Item = (&str, &Origin, &LoadError)> {
        self.entries.iter().filter_map(|(name, entry)| match &entry.policy {
            Some(Err(error)) => Some((name.as_str(), &entry.origin, error.as_ref())),
            _ => None,
        })
    }
}

impl PolicyHost {
    /// Loads what is built in and every `*.wasm` of the plugin directory; files win. One bad file
    /// does not keep the others from being loaded.
    pub fn load_directory(
        &self,
        directory: Option<&Path>,
        wanted: Wanted<'_>,
    ) -> Result<Directory, DirectoryError> {
        let is_wanted = |name: &str| match wanted {
            Wanted::All => true,
            Wanted::Only(names) => names.contains(name),
        };
        let mut entries = BTreeMap::new();
        for (name, path) in directory.map(files).transpose()?.unwrap_or_default() {
            let replaces_builtin = BUILT_IN.contains(&name.as_str());
            let policy = is_wanted(&name)
                .then(|| read(&name, &path).and_then(|bytes| self.load(&name, &bytes)))
                .map(|result| result.map_err(Arc::new));
            let origin = Origin::File { path, replaces_builtin };
            entries.insert(name, Entry { origin, policy });
        }
        for (name, bytes) in COMPONENTS {
            entries.entry(name.to_owned()).or_insert_with(|| Entry {
                origin: Origin::BuiltIn,
                policy: is_wanted(name).then(|| self.load(name, bytes).map_err(Arc::new)),
            });
        }
        Ok(Directory { entries })
    }
}

/// The `*.wasm` files of a directory by policy name. Hidden ones are somebody's temporary files.
fn files(directory: &Path) -> Result<BTreeMap<String, PathBuf>, DirectoryError> {
    let failed = |source| DirectoryError::Read { path: directory.to_owned(), source };
    if fs::metadata(directory).map_err(failed)?.mode() & 0o002 != 0 {
        return Err(DirectoryError::WorldWritable { path: directory.to_owned() });
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = file.strip_suffix(".wasm").filter(|_| !file.starts_with('.')) {
            files.insert(name.to_owned(), path);
        }
    }
    Ok(files)
}

/// Reads a component whole: what is compiled is what was digested, even while it is replaced.
fn read(name: &str, path: &Path) -> Result<Vec<u8>, LoadError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(good) {
        return Err(LoadError::Name);
    }
    // Asked before opening, which would wait for the other end of a pipe.
    if !fs::metadata(path).map_err(LoadError::Read)?.is_file() {
        return Err(LoadError::NotAFile);
    }
    let file = fs::File::open(path).map_err(LoadError::Read)?;
    let metadata = file.metadata().map_err(LoadError::Read)?;
    if metadata.mode() & 0o002 != 0 {
        return Err(LoadError::WorldWritable);
    }
    if metadata.size() > limits::FILE {
        return Err(LoadError::TooLarge { size: metadata.size(), limit: limits::FILE });
    }
    let mut bytes = Vec::new();
    file.take(limits::FILE)
        .read_to_end(&mut bytes)
        .map_err(|error: io::Error| LoadError::Read(error))?;
    Ok(bytes)
}

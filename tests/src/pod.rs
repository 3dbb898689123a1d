//! The manifests that the suites move about: stand-ins for a control plane's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The scheduler's manifest, by file name.
pub const SCHEDULER: &str = "scheduler.yaml";

/// The controller manager's manifest, by file name.
pub const CONTROLLER_MANAGER: &str = "controller-manager.yaml";

/// The API server's manifest, by file name; it runs on every node.
pub const API_SERVER: &str = "apiserver.yaml";

/// The two that must have one holder.
pub const EXCLUSIVE: [&str; 2] = [SCHEDULER, CONTROLLER_MANAGER];

/// Where the suites' manifests are kept.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// Copies a manifest into a directory, and returns its path there.
///
/// # Errors
///
/// When it cannot be copied.
pub fn copy(file: &str, into: &Path) -> Result<PathBuf> {
    let path = into.join(file);
    fs::copy(directory().join(file), &path)?;
    Ok(path)
}

/// What stands before the fencing token in a manifest that names the term it was placed in.
const TERM: &str = "# placed in term ";

/// A manifest that, rendered, names the term that it was placed in.
pub fn manifest_naming_its_term(name: &str) -> String {
    format!("{}{TERM}${{CONCLAVE_TERM}}\n", manifest(name))
}

/// The fencing token that a rendered manifest names, where it names one.
pub fn term(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(TERM))?.parse().ok()
}

/// The manifest of a pod of this name, as text: valid, small, its own.
pub fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\nspec:\n  \
         containers:\n  - name: {name}\n    image: registry.example/{name}:1\n"
    )
}

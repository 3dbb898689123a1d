//! `conclave policy …`: for authors of policies.

pub(super) mod build;
pub(super) mod inspect;
mod junit;
pub(super) mod new;
pub(super) mod test;

use std::path::PathBuf;

/// Where compiled components are kept for the next call: interpreted languages' take a minute.
/// Nowhere, if this user has no directory for caches.
fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("conclave/policies"))
}

/// Text of a policy's, made fit for a terminal; line breaks stay.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

//! `conclave policy …`: for authors of policies.

pub(super) mod bench;
pub(super) mod build;
pub(super) mod inspect;
mod junit;
pub(super) mod new;
pub(super) mod replay;
pub(super) mod test;

use std::path::PathBuf;

use conclave_policy_test::PolicySource;

use super::say;

/// A component of this size takes so long to compile that somebody who waits is told.
const LARGE: u64 = 1 << 20;

/// Where compiled components are kept for the next call: interpreted languages' take a minute.
/// Nowhere, if this user has no directory for caches.
pub(super) fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("conclave/policies"))
}

/// Text of a policy's, made fit for a terminal; line breaks stay.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// Long work says so, once for each component.
fn announce<'a>(sources: impl IntoIterator<Item = &'a PolicySource>) {
    let mut sources: Vec<&PolicySource> = sources.into_iter().collect();
    sources.sort();
    sources.dedup();
    for source in sources {
        let PolicySource::File(path) = source else { continue };
        let Ok(metadata) = path.metadata() else { continue };
        if metadata.len() > LARGE {
            let (path, size) = (path.display(), metadata.len() >> 20);
            say(&format!(
                "{path} has {size} MiB: unless it is known already, compiling it takes a while"
            ));
        }
    }
}

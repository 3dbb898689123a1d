//! Building blocks for rankings. They keep the view's order, the longest-standing first, among
//! candidates that are otherwise equal.

use crate::{Candidate, Ranked, Ranking, View};

/// Orders the candidates by a key, the smallest first, and excludes nobody. `key` also says why,
/// in a phrase.
pub fn by_key<K: Ord>(view: &View, key: impl Fn(&Candidate) -> (K, String)) -> Ranking {
    let mut keyed: Vec<(K, Ranked)> = view
        .candidates
        .iter()
        .map(|candidate| {
            let (key, reason) = key(candidate);
            (key, Ranked { node: candidate.name.clone(), reason })
        })
        .collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ranking { order: keyed.into_iter().map(|(_, ranked)| ranked).collect(), excluded: Vec::new() }
}

/// The incumbent first, then the longest-standing: what the host does without a policy.
pub fn sticky(view: &View) -> Ranking {
    by_key(view, |candidate| {
        if is_incumbent(view, candidate) {
            (0, "holds the term".into())
        } else {
            (1, "in order of standing".into())
        }
    })
}

/// Whether a candidate holds the election.
pub fn is_incumbent(view: &View, candidate: &Candidate) -> bool {
    view.incumbent.as_ref().is_some_and(|incumbent| incumbent.name == candidate.name)
}

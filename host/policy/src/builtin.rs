//! What answers for an interface that a policy does not export.

use conclave_core::ranking::builtin_order;
use conclave_core::view::{ManifestView, Placement, Ranked, Ranking, Role, View};

use crate::check::Ranks;

/// The incumbent first, then the longest-standing.
pub fn rank(view: &View) -> Ranks {
    let incumbent = view.incumbent.as_ref().map(|incumbent| &incumbent.name);
    let order = builtin_order(view)
        .into_iter()
        .map(|node| {
            let holds = Some(&node) == incumbent;
            let reason = if holds { "holds the term" } else { "in order of standing" };
            Ranked { node, reason: reason.to_owned() }
        })
        .collect();
    Ranks { ranking: Ranking { order, excluded: Vec::new() }, forgotten: Vec::new() }
}

/// Exclusive manifests on the leader, the others everywhere, without variables.
pub fn place(role: Role, manifests: &[ManifestView]) -> Vec<Placement> {
    manifests
        .iter()
        .map(|manifest| Placement {
            manifest: manifest.name.clone(),
            run: role == Role::Leader || !manifest.exclusive,
            variables: Default::default(),
        })
        .collect()
}

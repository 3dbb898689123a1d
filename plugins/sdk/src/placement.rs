//! Building blocks for placements.

use crate::{Manifest, Placement, Role};

/// Runs or withholds a manifest, without variables.
pub fn of(manifest: &Manifest, run: bool) -> Placement {
    Placement { manifest: manifest.name.clone(), run, variables: Vec::new() }
}

/// Exclusive manifests on the leader, the others everywhere: what the host does without a policy.
pub fn by_role(role: Role, manifests: &[Manifest]) -> Vec<Placement> {
    manifests
        .iter()
        .map(|manifest| of(manifest, role == Role::Leader || !manifest.exclusive))
        .collect()
}

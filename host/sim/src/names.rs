//! Nodes are `n0`, `n1`, …, elections `e0`, `e1`, …: names and indices.

use conclave_core::{ElectionName, NodeName};

/// Which node or election a name is; `None` for somebody else's.
pub(crate) fn index(name: &str) -> Option<usize> {
    name.get(1..)?.parse().ok()
}

/// Which node or election one of ours is.
pub(crate) fn position(name: &str) -> usize {
    index(name).unwrap_or_else(|| panic!("{name} is none of the simulation's"))
}

pub(crate) fn node(n: usize) -> NodeName {
    NodeName::new(format!("n{n}"))
}

pub(crate) fn election(e: usize) -> ElectionName {
    ElectionName::new(format!("e{e}"))
}

//! Chaos on real processes: faults of every kind, at random, against a whole control plane.
//!
//! A run goes in steps. A step waits until one node leads and all stand as candidates, strikes
//! with one to three faults at once, holds them for a while, heals everything and waits for a
//! leader again. What happens in a run follows from its seed, apart from what the machine's own
//! speed decides.
//!
//! ```text
//!  seed ─> plan ─> play ──> arena (etcd, links, nodes, disks) ── watched by ──> observer
//!                   │                                                              │
//!                   └─ what was done to whom, when (record) ──┐                    │
//!                      store's history, read at the end ──────┴──> check <─────────┘
//!                                                                  availability
//! ```
//!
//! The checker believes neither nodes nor their logs: it reads what the observer saw, what was
//! done to the processes, and the store's own history.

pub mod arena;
pub mod availability;
pub mod check;
pub mod expiry;
pub mod fault;
pub mod history;
pub mod inject;
pub mod orphan;
pub mod plan;
pub mod play;
pub mod record;
pub mod verdict;
pub mod witness;

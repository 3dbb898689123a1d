//! What the suites of the policy host share: views, nodes and manifests to ask about.
#![allow(dead_code, reason = "every suite uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::view::{CandidateView, IncumbentView, ManifestView, NodeView, View};
use conclave_policy::{Cause, Limits, PolicyError, PolicyHost};

/// A host without a cache, on which fuel decides and not how busy the machine is.
pub(crate) fn host() -> PolicyHost {
    PolicyHost::new(patient(), None).expect("a sandbox")
}

pub(crate) fn patient() -> Limits {
    Limits { deadline: Duration::from_secs(60), ..Limits::default() }
}

/// A committed component, by its path in the repository.
pub(crate) fn component(path: &str) -> Vec<u8> {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(crate) fn view(candidates: &[&str], incumbent: Option<&str>) -> View {
    View {
        election: "masters".into(),
        me: "a".into(),
        candidates: candidates.iter().map(|name| candidate(name)).collect(),
        incumbent: incumbent.map(|name| IncumbentView {
            name: name.into(),
            facts: BTreeMap::new(),
            held_ms: 5_000,
        }),
        previous: None,
        transfer: None,
        paused: false,
    }
}

pub(crate) fn candidate(name: &str) -> CandidateView {
    CandidateView {
        name: name.into(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        fitness: Fitness::fit(),
        cordoned: false,
        holds: Vec::new(),
        standing_ms: 60_000,
    }
}

pub(crate) fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), labels: BTreeMap::new(), variables: BTreeMap::new() }
}

pub(crate) fn manifest(name: &str, exclusive: bool) -> ManifestView {
    let content = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
    ManifestView { name: name.into(), exclusive, content }
}

/// An error with its sources, as people get to see it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The cause of a failure that must have happened.
pub(crate) fn cause<T: std::fmt::Debug>(result: Result<T, PolicyError>) -> Cause {
    *result.expect_err("a failure").cause
}

//! Which interfaces a component exports, in which version, and whether the host speaks it.

use std::fmt;

use wasmtime::component::InstancePre;

use crate::bindings::exports::conclave::policy::{about, facts, leadership, placement};
use crate::error::LoadError;
use crate::sandbox::{Call, Pace};

/// The interface versions that this host speaks.
pub const SPEAKS: &str = "0.1";

/// An interface that a policy may export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interface {
    /// What the policy is.
    About,
    /// What a node brings.
    Facts,
    /// Who should lead.
    Leadership,
    /// What runs where.
    Placement,
}

impl Interface {
    const ALL: [Interface; 4] =
        [Interface::About, Interface::Facts, Interface::Leadership, Interface::Placement];

    /// Its name in `wit/`.
    pub fn name(self) -> &'static str {
        match self {
            Interface::About => "about",
            Interface::Facts => "facts",
            Interface::Leadership => "leadership",
            Interface::Placement => "placement",
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A function that the host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `about.introduce`
    Introduce,
    /// `about.validate`
    Validate,
    /// `facts.describe`
    Describe,
    /// `leadership.rank`
    Rank,
    /// `placement.place`
    Place,
}

impl Function {
    /// Its name in `wit/`.
    pub fn name(self) -> &'static str {
        match self {
            Function::Introduce => "introduce",
            Function::Validate => "validate",
            Function::Describe => "describe",
            Function::Rank => "rank",
            Function::Place => "place",
        }
    }

    pub(crate) fn pace(self) -> Pace {
        match self {
            Function::Introduce | Function::Validate => Pace::Loading,
            Function::Describe | Function::Rank | Function::Place => Pace::Decision,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a component has the interfaces that the host speaks.
pub(crate) struct Exports {
    pub(crate) about: Option<about::GuestIndices>,
    pub(crate) facts: Option<facts::GuestIndices>,
    pub(crate) leadership: Option<leadership::GuestIndices>,
    pub(crate) placement: Option<placement::GuestIndices>,
}

impl Exports {
    /// Finds the interfaces. An interface that is there only in versions that the host does not
    /// speak is an error, for its default would decide otherwise than the author meant.
    pub(crate) fn find(pre: &InstancePre<Call>) -> Result<Self, LoadError> {
        let component = pre.component();
        let names: Vec<String> = component
            .component_type()
            .exports(component.engine())
            .map(|(name, _)| name.to_owned())
            .collect();
        let found = spoken(&names)?;
        let has = |interface| found.contains(&interface);
        let signature = |interface| {
            move |error: wasmtime::Error| LoadError::Signature { interface, source: error.into() }
        };
        Ok(Exports {
            about: has(Interface::About)
                .then(|| about::GuestIndices::new(pre))
                .transpose()
                .map_err(signature(Interface::About))?,
            facts: has(Interface::Facts)
                .then(|| facts::GuestIndices::new(pre))
                .transpose()
                .map_err(signature(Interface::Facts))?,
            leadership: has(Interface::Leadership)
                .then(|| leadership::GuestIndices::new(pre))
                .transpose()
                .map_err(signature(Interface::Leadership))?,
            placement: has(Interface::Placement)
                .then(|| placement::GuestIndices::new(pre))
                .transpose()
                .map_err(signature(Interface::Placement))?,
        })
    }

    /// The interfaces that are there.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        let there = [
            self.about.is_some(),
            self.facts.is_some(),
            self.leadership.is_some(),
            self.placement.is_some(),
        ];
        Interface::ALL.into_iter().zip(there).filter(|(_, there)| *there).map(|(i, _)| i).collect()
    }
}

/// The interfaces among the names of exports, of versions that the host speaks.
fn spoken(exports: &[String]) -> Result<Vec<Interface>, LoadError> {
    let mut found = Vec::new();
    let mut foreign = false;
    for interface in Interface::ALL {
        let mut versions = exports.iter().filter_map(|name| version_of(name, interface)).peekable();
        let exported = versions.peek().is_some();
        if versions.any(is_spoken) {
            found.push(interface);
        } else if exported {
            foreign = true;
        }
    }
    if foreign {
        Err(LoadError::Version { exports: exports.to_vec() })
    } else if found.is_empty() {
        Err(LoadError::NoInterface { exports: exports.to_vec() })
    } else {
        Ok(found)
    }
}

/// The version in which one of these names exports an interface as the host speaks it.
pub(crate) fn spoken_version(exports: &[&str], interface: Interface) -> Option<String> {
    let mut versions = exports.iter().filter_map(|name| version_of(name, interface));
    versions.find(|version| is_spoken(version)).map(str::to_owned)
}

/// The version in `conclave:policy/<interface>@<version>`; empty where it names none.
fn version_of(export: &str, interface: Interface) -> Option<&str> {
    let rest = export.strip_prefix("conclave:policy/")?.strip_prefix(interface.name())?;
    match rest.strip_prefix('@') {
        Some(version) => Some(version),
        None => rest.is_empty().then_some(""),
    }
}

/// Before 1.0 the minor version tells what is compatible.
fn is_spoken(version: &str) -> bool {
    version
        .strip_prefix(SPEAKS)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|patch| patch.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(exports: &[&str]) -> Vec<String> {
        exports.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn interfaces_are_found_in_every_compatible_version() {
        for (exports, expected) in [
            (vec!["conclave:policy/about@0.1.0"], vec![Interface::About]),
            (vec!["conclave:policy/leadership@0.1.7", "x"], vec![Interface::Leadership]),
            (
                vec!["conclave:policy/facts@0.2.0", "conclave:policy/facts@0.1.0"],
                vec![Interface::Facts],
            ),
            (
                vec!["conclave:policy/placement@0.1.0", "conclave:policy/future@0.1.3"],
                vec![Interface::Placement],
            ),
        ] {
            assert_eq!(spoken(&names(&exports)).expect("spoken"), expected);
        }
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        for exports in [
            vec!["conclave:policy/about@0.2.0"],
            vec!["conclave:policy/about@0.1.0", "conclave:policy/leadership@1.0.0"],
            vec!["conclave:policy/about@0.10.0"],
            vec!["conclave:policy/about@0.1.0-rc.1"],
            vec!["conclave:policy/about"],
        ] {
            let error = spoken(&names(&exports)).expect_err("refused");
            assert!(matches!(error, LoadError::Version { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(exports[0]) && text.ends_with("conclave:policy@0.1"), "{text}");
        }
    }

    #[test]
    fn a_component_that_is_no_policy_is_told_what_one_exports() {
        let error = spoken(&names(&["wasi:cli/run@0.2.0"])).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "it exports `wasi:cli/run@0.2.0`; a policy exports about, facts, leadership or \
             placement of conclave:policy@0.1"
        );
    }
}

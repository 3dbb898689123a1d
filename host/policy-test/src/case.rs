//! A case: what a policy is asked, and what is expected of its answer.

use std::collections::{BTreeMap, BTreeSet};

use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, NodeView, Role, View};
use conclave_core::{ElectionName, NodeName};
use conclave_policy::Function;
use conclave_yaml::Place;

/// One case of a file.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, in words.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// The policy's configuration, a JSON object as text.
    pub config: String,
    /// What the policy is asked.
    pub question: Question,
    /// What its answer must be; nothing but usable where this is empty.
    pub expected: Vec<Expected>,
}

/// What a policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who should lead.
    Rank(View),
    /// What runs on some nodes.
    Place {
        /// The view that comes with the question; `me` is each node in turn.
        view: View,
        /// The nodes, each in the role that it has in the view.
        nodes: Vec<NodeView>,
        /// The election's manifests.
        manifests: Vec<ManifestView>,
    },
    /// What a node brings.
    Describe {
        /// The election.
        election: ElectionName,
        /// The node.
        node: NodeView,
        /// The election's manifests.
        manifests: Vec<ManifestView>,
    },
    /// What is wrong with the case's configuration.
    Validate,
}

impl Question {
    /// The function that answers it.
    pub fn function(&self) -> Function {
        match self {
            Question::Rank(_) => Function::Rank,
            Question::Place { .. } => Function::Place,
            Question::Describe { .. } => Function::Describe,
            Question::Validate => Function::Validate,
        }
    }
}

/// The role that a node has in a view.
pub(crate) fn role(view: &View, node: &NodeName) -> Role {
    match &view.incumbent {
        Some(incumbent) if incumbent.name == *node => Role::Leader,
        _ => Role::Standby,
    }
}

/// One thing that is expected.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The field that says it.
    pub field: &'static str,
    /// Where it stands.
    pub place: Option<Place>,
    /// What it is.
    pub what: Expectation,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Exactly these are ordered, in this order.
    Order(Vec<NodeName>),
    /// This one stands first in the policy's order.
    First(NodeName),
    /// This one would lead: first without those that the host passes over.
    Leads(NodeName),
    /// Exactly these are excluded; a reason must contain the text, where there is one.
    Excluded(BTreeMap<NodeName, Option<String>>),
    /// Exactly these are in neither list.
    Forgotten(BTreeSet<NodeName>),
    /// The reasons that are given for these contain the texts.
    Reasons(BTreeMap<NodeName, String>),
    /// Exactly these manifests run on the nodes that are named.
    Runs(BTreeMap<NodeName, BTreeSet<String>>),
    /// All exclusive manifests run on this node, and on no other that was asked about.
    ExclusiveOnlyOn(NodeName),
    /// The variables of these nodes' manifests are exactly these.
    Variables(BTreeMap<NodeName, BTreeMap<String, Attributes>>),
    /// The facts are exactly these.
    Facts(Attributes),
    /// These are among the facts.
    HasFacts(Attributes),
    /// Exactly these settings have problems, whose messages contain the texts.
    Problems(BTreeMap<String, String>),
    /// The policy refuses, in words that contain the text.
    Refused(String),
}

impl Case {
    /// Whether the policy is to refuse.
    pub fn expects_refusal(&self) -> bool {
        self.expected.iter().any(|expected| matches!(expected.what, Expectation::Refused(_)))
    }
}

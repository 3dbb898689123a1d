//! The trait that a policy implements, and the glue from the component's exports to it.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use crate::bindings::exports::conclave::policy::{about, facts, leadership, placement};
use crate::{
    Attributes, Config, Info, Manifest, Node, Placement, Problem, Ranking, Refusal, Role, View,
    log, placement as places, ranking,
};

/// A policy: pure functions of their arguments, each with the host's own default.
pub trait Policy {
    /// What an operator may write under `policy_config`; `()` for nothing.
    type Config: Config;

    /// What the policy is.
    fn introduce() -> Info;

    /// What is wrong with a configuration that parses. Default: nothing.
    fn validate(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// What this node brings. Default: nothing.
    fn describe(
        _node: &Node,
        _manifests: &[Manifest],
        _config: &Self::Config,
    ) -> Result<Attributes, Refusal> {
        Ok(Vec::new())
    }

    /// Who should lead. Default: the incumbent first, then the longest-standing.
    fn rank(view: &View, _config: &Self::Config) -> Result<Ranking, Refusal> {
        Ok(ranking::sticky(view))
    }

    /// What runs on this node. Default: exclusive manifests on the leader, the others
    /// everywhere.
    fn place(
        _view: &View,
        _node: &Node,
        role: Role,
        manifests: &[Manifest],
        _config: &Self::Config,
    ) -> Result<Vec<Placement>, Refusal> {
        Ok(places::by_role(role, manifests))
    }
}

/// What [`export_policy!`](crate::export_policy) exports: parses the configuration, then asks the
/// policy. The arguments are not dropped: the whole instance is thrown away after the call.
#[doc(hidden)]
pub struct Component<P>(PhantomData<P>);

/// Has panics say in the log where and why, for a trap alone says neither.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::warn(&panic.to_string())));
}

fn parse<P: Policy>(config: &str) -> Result<P::Config, Refusal> {
    P::Config::parse(config).map_err(|problem| {
        let Problem { path, message } = problem;
        Refusal::Configuration(if path.is_empty() { message } else { format!("{path}: {message}") })
    })
}

impl<P: Policy> about::Guest for Component<P> {
    fn introduce() -> Info {
        report_panics();
        P::introduce()
    }

    fn validate(config: String) -> Vec<Problem> {
        report_panics();
        match P::Config::parse(&config) {
            Ok(config) => P::validate(&config),
            Err(problem) => vec![problem],
        }
    }
}

impl<P: Policy> facts::Guest for Component<P> {
    fn describe(
        node: Node,
        manifests: Vec<Manifest>,
        config: String,
    ) -> Result<Attributes, Refusal> {
        report_panics();
        let (node, manifests) = (ManuallyDrop::new(node), ManuallyDrop::new(manifests));
        P::describe(&node, &manifests, &parse::<P>(&config)?)
    }
}

impl<P: Policy> leadership::Guest for Component<P> {
    fn rank(view: View, config: String) -> Result<Ranking, Refusal> {
        report_panics();
        P::rank(&ManuallyDrop::new(view), &parse::<P>(&config)?)
    }
}

impl<P: Policy> placement::Guest for Component<P> {
    fn place(
        view: View,
        node: Node,
        role: Role,
        manifests: Vec<Manifest>,
        config: String,
    ) -> Result<Vec<Placement>, Refusal> {
        report_panics();
        let (view, node) = (ManuallyDrop::new(view), ManuallyDrop::new(node));
        P::place(&view, &node, role, &ManuallyDrop::new(manifests), &parse::<P>(&config)?)
    }
}

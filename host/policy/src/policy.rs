//! A loaded policy: the questions that the host asks, and answers that were checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use conclave_core::record::{Attributes, Fitness};
use conclave_core::view::{
    CandidateView, IncumbentView, ManifestView, NodeView, Placement, Role, View,
};
use conclave_core::{ElectionName, NodeName};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::conclave::policy::logging::Level;
use crate::bindings::conclave::policy::types as wit;
use crate::check::{self, About, Problem, Ranks};
use crate::digest::Digest;
use crate::error::{BadAnswer, Cause, LoadError, PolicyError, Refusal};
use crate::interface::{self, Exports, Function, Interface};
use crate::limits::Limits;
use crate::sandbox::{Call, Line, Pace, Sandbox, Usage};
use crate::text::phrase;
use crate::{builtin, translate};

/// A checked answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was answered.
    pub value: T,
    /// What it cost.
    pub usage: Usage,
    /// Whether the built-in default answered, because the policy does not export the interface.
    pub builtin: bool,
}

/// What would run on a node that is alone in an election.
#[derive(Clone, Debug, PartialEq)]
pub struct BothRoles {
    /// As leader.
    pub leader: Vec<Placement>,
    /// As standby.
    pub standby: Vec<Placement>,
}

impl<T> Answer<T> {
    fn builtin(value: T) -> Self {
        Answer { value, usage: Usage::default(), builtin: true }
    }
}

/// A policy, ready to be asked. Clones share everything.
///
/// Every question blocks for up to the deadline, and longer while as many calls as the limits
/// allow are running: not for a thread that has beats to send, and not from within asynchronous
/// code. Each runs in a fresh instance.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

struct Inner {
    name: String,
    digest: Digest,
    size: usize,
    sandbox: Arc<Sandbox>,
    pre: InstancePre<Call>,
    exports: Exports,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({} {})", self.0.name, self.0.digest.short())
    }
}

impl Policy {
    /// Finds the component's interfaces and makes a trial instance.
    pub(crate) fn new(
        name: &str,
        digest: Digest,
        size: usize,
        sandbox: Arc<Sandbox>,
        pre: InstancePre<Call>,
    ) -> Result<Self, LoadError> {
        let exports = Exports::find(&pre)?;
        let (trial, traces) =
            sandbox.run(&pre, sandbox.limits_of(name), Pace::Loading, |store, instance| {
                Ok(exports.fit(store, instance))
            });
        emit(name, digest, None, traces.lines, traces.usage);
        trial.map_err(LoadError::Trial)??;
        Ok(Policy(Arc::new(Inner { name: name.to_owned(), digest, size, sandbox, pre, exports })))
    }

    /// Its name, by which the configuration refers to it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The digest of its component.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The size of its component, in bytes.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// The interfaces that it exports.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.0.exports.interfaces()
    }

    /// The interfaces that it exports, each with its version.
    pub fn versions(&self) -> Vec<(Interface, String)> {
        let component = self.0.pre.component();
        let exports = component.component_type();
        let names: Vec<&str> = exports.exports(component.engine()).map(|(name, _)| name).collect();
        let version = |interface| Some((interface, interface::spoken_version(&names, interface)?));
        self.interfaces().into_iter().filter_map(version).collect()
    }

    /// What it imports, by name.
    pub fn imports(&self) -> Vec<String> {
        let component = self.0.pre.component();
        let imports = component.component_type();
        imports.imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// What one call of it may use.
    pub fn limits(&self) -> &Limits {
        self.0.sandbox.limits_of(&self.0.name)
    }

    /// What it says about itself; `None` if it does not export `about`.
    pub fn about(&self) -> Result<Answer<Option<About>>, PolicyError> {
        let Some(about) = &self.0.exports.about else { return Ok(Answer::builtin(None)) };
        self.ask(
            Function::Introduce,
            None,
            |store, instance| about.load(&mut *store, instance)?.call_introduce(store).map(Ok),
            |info| check::about(info).map(Some),
        )
    }

    /// What is wrong with a configuration; nothing if the policy does not export `about`.
    /// `config` is a JSON object as text, here and below.
    pub fn validate(
        &self,
        election: &ElectionName,
        config: &str,
    ) -> Result<Answer<Vec<Problem>>, PolicyError> {
        let Some(about) = &self.0.exports.about else { return Ok(Answer::builtin(Vec::new())) };
        self.ask(
            Function::Validate,
            Some(election),
            |store, instance| {
                about.load(&mut *store, instance)?.call_validate(store, config).map(Ok)
            },
            |problems| Ok(check::problems(problems)),
        )
    }

    /// What a node brings to an election.
    pub fn describe(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
        config: &str,
    ) -> Result<Answer<Attributes>, PolicyError> {
        let Some(facts) = &self.0.exports.facts else {
            return Ok(Answer::builtin(Attributes::new()));
        };
        let lists = translate::Lists::of_node(node);
        let node = translate::node(node, &lists);
        let manifests = translate::manifests(manifests);
        self.ask(
            Function::Describe,
            Some(election),
            |store, instance| {
                let guest = facts.load(&mut *store, instance)?;
                guest.call_describe(store, node, &manifests, config)
            },
            check::facts,
        )
    }

    /// Who should lead.
    pub fn rank(&self, view: &View, config: &str) -> Result<Answer<Ranks>, PolicyError> {
        let Some(leadership) = &self.0.exports.leadership else {
            return Ok(Answer::builtin(builtin::rank(view)));
        };
        let lists = translate::Lists::of_view(view);
        let mut slices = lists.slices();
        let candidates = slices.candidates(view);
        let argument = translate::view(view, slices, &candidates);
        self.ask(
            Function::Rank,
            Some(&view.election),
            |store, instance| {
                leadership.load(&mut *store, instance)?.call_rank(store, argument, config)
            },
            |ranking| check::ranks(ranking, view),
        )
    }

    /// What runs on a node in a role: one placement for every manifest.
    pub fn place(
        &self,
        view: &View,
        node: &NodeView,
        role: Role,
        manifests: &[ManifestView],
        config: &str,
    ) -> Result<Answer<Vec<Placement>>, PolicyError> {
        let Some(placement) = &self.0.exports.placement else {
            return Ok(Answer::builtin(builtin::place(role, manifests)));
        };
        let lists = translate::Lists::of_view(view);
        let mut slices = lists.slices();
        let candidates = slices.candidates(view);
        let argument = translate::view(view, slices, &candidates);
        let node_lists = translate::Lists::of_node(node);
        let node = translate::node(node, &node_lists);
        let all = translate::manifests(manifests);
        self.ask(
            Function::Place,
            Some(&view.election),
            |store, instance| {
                let guest = placement.load(&mut *store, instance)?;
                guest.call_place(store, argument, node, translate::role(role), &all, config)
            },
            |placements| check::placements(placements, role, manifests),
        )
    }

    /// Asks what would run on a node as leader and as standby, alone in the election, and fails
    /// if that cannot be: an exclusive manifest on a standby, a manifest that runs in both roles
    /// with variables that depend on the role, a policy that refuses these manifests. For
    /// checking a configuration before anything runs.
    pub fn check_exclusive(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
        config: &str,
    ) -> Result<BothRoles, PolicyError> {
        let place = |role| self.place(&alone(election, node, role), node, role, manifests, config);
        let (leader, standby) = (place(Role::Leader)?, place(Role::Standby)?);
        check::same_in_both_roles(&leader.value, &standby.value).map_err(|fault| {
            let cause = Cause::BadAnswer(fault);
            self.error(Function::Place, Some(election), standby.usage, cause)
        })?;
        Ok(BothRoles { leader: leader.value, standby: standby.value })
    }

    /// Fails if the policy refuses this configuration when it is asked to describe a node, or to
    /// rank one that is alone: not every mistake shows before the arguments are there. That such a
    /// question gets no answer for another reason is none of the configuration's fault.
    pub fn check_refusals(
        &self,
        election: &ElectionName,
        node: &NodeView,
        manifests: &[ManifestView],
        config: &str,
    ) -> Result<(), PolicyError> {
        let described = self.describe(election, node, manifests, config).map(drop);
        let ranked = self.rank(&alone(election, node, Role::Standby), config).map(drop);
        for error in [described, ranked].into_iter().filter_map(Result::err) {
            match *error.cause {
                // A question that ran out of time may be asked again.
                Cause::Refused(Refusal::Configuration(_)) | Cause::Deadline { .. } => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs one call, writes what it logged to the log, and checks its answer.
    fn ask<R, T>(
        &self,
        function: Function,
        election: Option<&ElectionName>,
        call: impl FnOnce(&mut Store<Call>, &Instance) -> wasmtime::Result<Result<R, wit::Refusal>>,
        check: impl FnOnce(R) -> Result<T, BadAnswer>,
    ) -> Result<Answer<T>, PolicyError> {
        let (result, traces) =
            self.0.sandbox.run(&self.0.pre, self.limits(), function.pace(), call);
        emit(&self.0.name, self.0.digest, election, traces.lines, traces.usage);
        result
            .and_then(|answer| answer.map_err(|no| Cause::Refused(translate::refusal(no))))
            .and_then(|answer| check(answer).map_err(Cause::BadAnswer))
            .map(|value| Answer { value, usage: traces.usage, builtin: false })
            .map_err(|cause| self.error(function, election, traces.usage, cause))
    }

    fn error(
        &self,
        function: Function,
        election: Option<&ElectionName>,
        usage: Usage,
        cause: Cause,
    ) -> PolicyError {
        PolicyError {
            plugin: self.0.name.clone(),
            digest: self.0.digest,
            election: election.cloned(),
            function,
            usage: Box::new(usage),
            cause: Box::new(cause),
        }
    }
}

impl Exports {
    /// Compares the functions' types with those of the interface.
    fn fit(&self, store: &mut Store<Call>, instance: &Instance) -> Result<(), LoadError> {
        let check = |interface, result: Option<wasmtime::Result<()>>| {
            result
                .transpose()
                .map_err(|error| LoadError::Signature { interface, source: error.into() })
        };
        let about = self.about.as_ref().map(|i| i.load(&mut *store, instance).map(drop));
        check(Interface::About, about)?;
        let facts = self.facts.as_ref().map(|i| i.load(&mut *store, instance).map(drop));
        check(Interface::Facts, facts)?;
        let leadership = self.leadership.as_ref().map(|i| i.load(&mut *store, instance).map(drop));
        check(Interface::Leadership, leadership)?;
        let placement = self.placement.as_ref().map(|i| i.load(&mut *store, instance).map(drop));
        check(Interface::Placement, placement)?;
        Ok(())
    }
}

/// The view of a node that is the only candidate.
fn alone(election: &ElectionName, node: &NodeView, role: Role) -> View {
    let leads = role == Role::Leader;
    View {
        election: election.clone(),
        me: node.name.clone(),
        candidates: vec![CandidateView {
            name: node.name.clone(),
            labels: node.labels.clone(),
            facts: BTreeMap::new(),
            fitness: Fitness::fit(),
            cordoned: false,
            holds: leads.then(|| election.clone()).into_iter().collect(),
            standing_ms: 0,
        }],
        incumbent: leads.then(|| incumbent(&node.name)),
        previous: None,
        transfer: None,
        paused: false,
    }
}

fn incumbent(name: &NodeName) -> IncumbentView {
    IncumbentView { name: name.clone(), facts: BTreeMap::new(), held_ms: 0 }
}

/// Writes what a guest logged to the log, after the call: a slow log must not eat its time.
fn emit(
    policy: &str,
    digest: Digest,
    election: Option<&ElectionName>,
    lines: Vec<Line>,
    usage: Usage,
) {
    let election = election.map(ElectionName::as_str);
    for line in lines {
        let text = phrase(line.text, usize::MAX);
        match line.level {
            Level::Debug => tracing::debug!(policy, election, text, "policy says"),
            Level::Info => tracing::info!(policy, election, text, "policy says"),
            Level::Warn => tracing::warn!(policy, election, text, "policy says"),
        }
    }
    if usage.log_dropped > 0 {
        let (digest, bytes) = (digest.short(), usage.log_dropped);
        tracing::warn!(policy, digest, election, bytes, "policy logs too much; dropped the rest");
    }
}

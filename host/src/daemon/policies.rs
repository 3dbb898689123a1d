//! The policies of this node's elections: loaded, and checked against the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::ElectionName;
use conclave_core::view::NodeView;
use conclave_policy::{Cause, Directory, Limits, LoadError, Policy, PolicyHost, Wanted};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::{
    Config, ConfigErrors, ElectionConfig, Occasion, PolicyLimits, Problem, ShadowConfig,
};
use crate::daemon::binding::{Binding, Recorder, at_once};
use crate::daemon::phrase::phrase;
use crate::daemon::refusals::{ATTEMPTS, patiently, refused, unrenderable};
use crate::daemon::shadow::Shadow;

/// The bindings of all elections.
#[derive(Clone, Debug, Default)]
pub struct PolicySet(BTreeMap<ElectionName, Binding>);

impl PolicySet {
    /// Nothing is loaded yet.
    pub fn none() -> Self {
        PolicySet::default()
    }

    /// Loads the policies that the elections use and checks each election's configuration
    /// against its policy. What is not compiled within `limit` counts as failing for now.
    ///
    /// # Errors
    /// All policies that are missing or unusable, and all configurations that they refuse. Where it
    /// was good once ([`Occasion::Again`]), only what concerns all of them: the others count as failing.
    pub async fn load(
        config: Arc<Config>,
        occasion: Occasion,
        limit: Duration,
    ) -> Result<Self, ConfigErrors> {
        match tokio::time::timeout(limit, PolicySet::begin(Arc::clone(&config), occasion)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => Ok(PolicySet::failed(&config, "its policy was not compiled in time")),
        }
    }

    /// As [`load`](Self::load), beside the caller and for as long as it takes. Needs a tokio
    /// runtime.
    pub fn begin(
        config: Arc<Config>,
        occasion: Occasion,
    ) -> JoinHandle<Result<Self, ConfigErrors>> {
        tokio::task::spawn_blocking(move || load(&config, occasion))
    }

    /// Why an election's policy cannot be asked, if there is one that cannot.
    pub fn failure(&self) -> Option<&str> {
        self.0.values().find_map(Binding::failure)
    }

    /// Every election's policy fails for this reason.
    pub fn failed(config: &Config, reason: &str) -> Self {
        let reason: Arc<str> = reason.into();
        let turns = Arc::new(Semaphore::new(at_once()));
        let bind = |election: &ElectionConfig| {
            let (reason, turns) = (Arc::clone(&reason), Arc::clone(&turns));
            (election.name.clone(), Binding::new(election, Err(reason), turns))
        };
        PolicySet(config.elections.iter().map(bind).collect())
    }

    /// Takes in what has changed in the plugin directory, except for the policies that are `gone`
    /// from it; blocks as loading does. Where a component cannot be used, what was there goes on.
    /// `None` if nothing changes; and of each election what keeps its changed component out.
    pub(super) fn renewed(
        &self,
        config: &Config,
        host: &PolicyHost,
        gone: &BTreeSet<String>,
    ) -> (Option<Self>, BTreeMap<ElectionName, ConfigErrors>) {
        let directory = match read_directory(config, host) {
            Ok(directory) => directory,
            Err(errors) => {
                let names = config.elections.iter().map(|election| election.name.clone());
                return (None, names.map(|name| (name, errors.clone())).collect());
            }
        };
        let (mut set, mut changed, mut unusable) = (self.clone(), false, BTreeMap::new());
        for (election, bound) in bind(config, &directory) {
            let before = set.0.get(&election.name).map(Binding::components);
            match bound {
                _ if gone.contains(&election.policy) => {}
                Ok(binding) if before.as_ref() != Some(&binding.components()) => {
                    let (policy, digest) = (&election.policy, binding.version().component);
                    info!(election = %election.name, policy, digest, "a policy is taken in");
                    set.0.insert(election.name.clone(), binding);
                    changed = true;
                }
                Ok(_) => {}
                Err(problems) => {
                    unusable.insert(election.name.clone(), ConfigErrors::some(problems));
                }
            }
        }
        (changed.then_some(set), unusable)
    }

    /// Has the decisions of all policies written to a log.
    pub(super) fn recorded_by(mut self, recorder: &Recorder) -> Self {
        self.0.values_mut().for_each(|binding| binding.record_to(recorder));
        self
    }

    /// An election's policy.
    pub fn binding(&self, election: &ElectionName) -> Option<Binding> {
        self.0.get(election).cloned()
    }
}

/// What was configured, and otherwise what the default says.
fn limits(configured: &PolicyLimits, default: &Limits) -> Limits {
    Limits {
        deadline: configured.time.unwrap_or(default.deadline),
        fuel: configured.fuel.unwrap_or(default.fuel),
        memory: configured.memory.unwrap_or(default.memory),
        answer: configured.answer.unwrap_or(default.answer),
        log: configured.log.unwrap_or(default.log),
        ..default.clone()
    }
}

/// Loads and checks; blocks for as long as compiling takes.
fn load(config: &Config, occasion: Occasion) -> Result<PolicySet, ConfigErrors> {
    let directory = read_directory(config, &open_host(config)?)?;
    let (mut problems, mut bindings) = (Vec::new(), BTreeMap::new());
    let node = node_view(config);
    for (election, bound) in bind(config, &directory) {
        match bound {
            Ok(binding) => {
                // A source that is damaged later speaks against no policy.
                if let (Occasion::Start, Some(policy)) = (occasion, binding.policy()) {
                    problems.extend(unrenderable(election, policy, &node));
                }
                bindings.insert(election.name.clone(), binding);
            }
            Err(found) if occasion == Occasion::Again => {
                let errors = ConfigErrors::some(found);
                error!(election = %election.name, %errors, "the policy cannot be used; what stands in for it decides");
                let turns = Arc::new(Semaphore::new(at_once()));
                let reason = Err(errors.to_string().into());
                bindings.insert(election.name.clone(), Binding::new(election, reason, turns));
            }
            Err(found) => problems.extend(found),
        }
    }
    ConfigErrors::new(problems).map_or(Ok(PolicySet(bindings)), Err)
}

/// This node, as policies see it.
pub(super) fn node_view(config: &Config) -> NodeView {
    NodeView {
        name: config.node.name.clone(),
        labels: config.node.labels.clone(),
        variables: config.node.variables.clone(),
    }
}

/// Each election with the policy that it names, or with what is wrong with that.
fn bind<'a>(
    config: &'a Config,
    directory: &Directory,
) -> Vec<(&'a ElectionConfig, Result<Binding, Vec<Problem>>)> {
    let node = node_view(config);
    let mut turns = BTreeMap::new();
    let mut bind = |election: &ElectionConfig| {
        let policy = directory.get(&election.policy).map_err(|error| {
            vec![Problem::new(election.places.policy.clone(), phrase(&error)).help(
                "put its component into the plugin directory as NAME.wasm, or name another policy",
            )]
        })?;
        let mut problems = Vec::from_iter(pinned(config, election, policy));
        problems.extend(refused(election, policy, &node));
        if !problems.is_empty() {
            return Err(problems);
        }
        let turns = turns.entry(policy.name().to_owned());
        let turns = turns.or_insert_with(|| Arc::new(Semaphore::new(at_once())));
        let binding = Binding::new(election, Ok(policy.clone()), Arc::clone(turns));
        Ok(match &election.shadow {
            None => binding,
            Some(wanted) => binding.shadowed_by(shadow(election, wanted, directory)),
        })
    };
    config.elections.iter().map(|election| (election, bind(election))).collect()
}

/// The policy in an election's shadow, or why it cannot be asked, which is told and costs nothing else.
fn shadow(
    election: &ElectionConfig,
    wanted: &ShadowConfig,
    directory: &Directory,
) -> Result<Shadow, String> {
    let config = wanted.policy_config.to_string();
    let usable = || {
        let policy = directory.get(&wanted.policy).map_err(|error| phrase(&error))?;
        let said = patiently(|| policy.validate(&election.name, &config));
        let said = said.map_err(|error| phrase(&error))?.map(|said| said.value);
        let problems = said.unwrap_or_default();
        if problems.is_empty() {
            return Ok(Shadow::new(policy.clone(), config.clone()));
        }
        let problems = problems.iter().map(|it| format!("{}: {}", it.path, it.message));
        Err(problems.collect::<Vec<_>>().join("; "))
    };
    usable().inspect_err(|reason| {
        let (election, shadow) = (&election.name, &wanted.policy);
        warn!(%election, shadow, reason, "the shadow cannot be asked");
    })
}

/// The sandbox in which all policies of a node run, with the compiled ones in the state directory.
pub(super) fn open_host(config: &Config) -> Result<PolicyHost, ConfigErrors> {
    let cache = config.state_directory.join("cache");
    let all = limits(&config.policies.limits, &Limits::default());
    let own = config.policies.limits_of.iter();
    let own = own.map(|(policy, own)| (policy.clone(), limits(own, &all))).collect();
    PolicyHost::with_limits_of_their_own(all, own, Some(cache))
        .map_err(|error| ConfigErrors::from(Problem::new(None, phrase(&error))))
}

fn read_directory(config: &Config, host: &PolicyHost) -> Result<Directory, ConfigErrors> {
    let fail = |text: String| ConfigErrors::from(Problem::new(None, text));
    let shadows = config.elections.iter().filter_map(|election| election.shadow.as_ref());
    let deciding = config.elections.iter().map(|election| election.policy.clone());
    let wanted: BTreeSet<String> = deciding.chain(shadows.map(|it| it.policy.clone())).collect();
    let read = || {
        host.load_directory(config.policies.directory.as_deref(), Wanted::Only(&wanted))
            .map_err(|error| fail(phrase(&error)))
    };
    let mut directory = read()?;
    for _ in 1..ATTEMPTS {
        if !directory.bad().any(|(_, _, error)| ran_out_of_time(error)) {
            break;
        }
        directory = read()?;
    }
    for (name, entry) in &directory.entries {
        if let conclave_policy::Origin::File { path, replaces_builtin } = &entry.origin {
            let path = path.display();
            info!(policy = name, %path, replaces_builtin, "policy found in the plugin directory");
        }
    }
    for (name, _, error) in directory.bad() {
        warn!(policy = name, error = phrase(error), "a component cannot be used");
    }
    Ok(directory)
}

/// A component that is not the one whose digest is pinned.
fn pinned(config: &Config, election: &ElectionConfig, policy: &Policy) -> Option<Problem> {
    let pin = config.policies.digests.get(&election.policy)?;
    let found = policy.digest().to_string();
    (found != *pin).then(|| {
        let message =
            format!("policy {} has the digest {found}, but {pin} is pinned", election.policy);
        Problem::new(election.places.policy.clone(), message)
            .help("restore the component, or pin the new digest once you have looked at it")
    })
}

/// Whether a component's trial instance took too long.
fn ran_out_of_time(error: &LoadError) -> bool {
    matches!(error, LoadError::Trial(Cause::Deadline { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_built_in_is_what_is() {
        let host = PolicyHost::new(Limits::default(), None).unwrap();
        let nothing = BTreeSet::new();
        let directory = host.load_directory(None, Wanted::Only(&nothing)).unwrap();
        let names: Vec<&str> = directory.entries.keys().map(String::as_str).collect();
        assert_eq!(names, conclave_policy::BUILT_IN);
    }
}

//! The policies of this node's elections: loaded, checked against the configuration, asked.
//!
//! Every question here blocks and runs beside the loop. An error is a phrase: what follows from
//! it is the core's to decide. A policy is asked a few questions at a time, so that a slow one that
//! many elections use takes neither the sandbox's places nor the runtime's threads from others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::ElectionName;
use conclave_core::record::{Attributes, PolicyVersion};
use conclave_core::view::{ManifestView, NodeView, Placement, Ranking, Role, View};
use conclave_policy::{Cause, Digest, Directory, Limits, LoadError, Policy, PolicyHost, Wanted};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::{
    Config, ConfigErrors, ElectionConfig, Occasion, OnPolicyFailure, PolicyLimits, Problem,
};
use crate::daemon::phrase::phrase;
use crate::daemon::refusals::{ATTEMPTS, refused, unrenderable};

/// How many questions a policy is asked at once: half of the sandbox's places, so that the other
/// half is there for others.
fn at_once() -> usize {
    (Limits::default().concurrent / 2).max(1) as usize
}

/// An election's policy with its configuration.
#[derive(Clone, Debug)]
pub struct Binding {
    policy: Result<Policy, Arc<str>>,
    /// The policy's, whichever election asks.
    turns: Arc<Semaphore>,
    election: ElectionName,
    config: Arc<str>,
    version: PolicyVersion,
    on_failure: OnPolicyFailure,
}

impl Binding {
    fn new(
        election: &ElectionConfig,
        policy: Result<Policy, Arc<str>>,
        turns: Arc<Semaphore>,
    ) -> Self {
        let config = election.policy_config.to_string();
        let component = policy.as_ref().map(|p| p.digest().to_string()).unwrap_or_default();
        Binding {
            version: PolicyVersion {
                name: election.policy.clone(),
                component,
                config: Digest::of(config.as_bytes()).to_string(),
                fallback: false,
            },
            election: election.name.clone(),
            policy,
            turns,
            config: config.into(),
            on_failure: election.on_policy_failure,
        }
    }

    /// What decides: nodes whose versions differ may decide differently.
    pub fn version(&self) -> PolicyVersion {
        self.version.clone()
    }

    /// What decides while the policy fails.
    pub fn on_failure(&self) -> OnPolicyFailure {
        self.on_failure
    }

    /// Asks something, in the policy's turn and beside the caller. Needs a tokio runtime.
    pub fn ask(self, question: impl FnOnce(&Binding) + Send + 'static) {
        tokio::spawn(async move {
            // Nobody closes it; and a question without a turn would only be asked sooner.
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                question(&self);
                drop(turn);
            });
        });
    }

    fn policy(&self) -> Result<&Policy, String> {
        self.policy.as_ref().map_err(|reason| reason.to_string())
    }

    /// Who should lead.
    pub fn rank(&self, view: &View) -> Result<Ranking, String> {
        let ranks = self.policy()?.rank(view, &self.config).map_err(|error| phrase(&error))?.value;
        Ok(ranks.ranking)
    }

    /// What this node brings.
    pub fn describe(
        &self,
        node: &NodeView,
        manifests: &[ManifestView],
    ) -> Result<Attributes, String> {
        let described = self.policy()?.describe(&self.election, node, manifests, &self.config);
        Ok(described.map_err(|error| phrase(&error))?.value)
    }

    /// What runs on this node in a role.
    pub fn place(
        &self,
        view: &View,
        node: &NodeView,
        role: Role,
        manifests: &[ManifestView],
    ) -> Result<Vec<Placement>, String> {
        let placed = self.policy()?.place(view, node, role, manifests, &self.config);
        Ok(placed.map_err(|error| phrase(&error))?.value)
    }

    /// What runs where no policy can be asked: exclusive manifests on the leader, the others
    /// everywhere.
    pub fn builtin_place(role: Role, manifests: &[ManifestView]) -> Vec<Placement> {
        conclave_policy::builtin::place(role, manifests)
    }
}

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
        self.0.values().find_map(|binding| binding.policy.as_ref().err()).map(AsRef::as_ref)
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
            let before = set.0.get(&election.name).map(Binding::version);
            match bound {
                _ if gone.contains(&election.policy) => {}
                Ok(binding) if before.as_ref() != Some(&binding.version) => {
                    let (policy, digest) = (&election.policy, &binding.version.component);
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
                if let (Occasion::Start, Ok(policy)) = (occasion, &binding.policy) {
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
        Ok(Binding::new(election, Ok(policy.clone()), Arc::clone(turns)))
    };
    config.elections.iter().map(|election| (election, bind(election))).collect()
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
    let wanted: BTreeSet<String> = config.elections.iter().map(|e| e.policy.clone()).collect();
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
    use std::sync::{Mutex, mpsc};

    use tokio::sync::oneshot;

    use super::*;

    fn binding() -> Binding {
        Binding {
            policy: Err("none is needed".into()),
            turns: Arc::new(Semaphore::new(at_once())),
            election: "e".into(),
            config: "{}".into(),
            version: PolicyVersion::default(),
            on_failure: OnPolicyFailure::Builtin,
        }
    }

    #[tokio::test]
    async fn a_policy_that_takes_its_time_leaves_others_theirs() {
        let (slow, quick) = (binding(), binding());
        let (go_on, held_up) = mpsc::channel::<()>();
        let held_up = Arc::new(Mutex::new(held_up));
        // More than the runtime has threads for.
        for _ in 0..1_000 {
            let held_up = Arc::clone(&held_up);
            slow.clone().ask(move |_| {
                // It ends when the test does.
                let _ = held_up.lock().map(|held_up| held_up.recv());
            });
        }
        let (tell, told) = oneshot::channel();
        quick.ask(move |_| tell.send(()).expect("the test waits"));
        let answer = tokio::time::timeout(Duration::from_secs(60), told).await;
        answer.expect("an answer while the other policy takes its time").expect("an answer");
        drop(go_on);
    }

    #[test]
    fn what_counts_as_built_in_is_what_is() {
        let host = PolicyHost::new(Limits::default(), None).unwrap();
        let nothing = BTreeSet::new();
        let directory = host.load_directory(None, Wanted::Only(&nothing)).unwrap();
        let names: Vec<&str> = directory.entries.keys().map(String::as_str).collect();
        assert_eq!(names, conclave_policy::BUILT_IN);
    }
}

//! An election's policy with its configuration: how it is asked.
//!
//! Every question here blocks and runs beside the loop. An error is a phrase: what follows from
//! it is the core's to decide. A policy is asked a few questions at a time, so that a slow one that
//! many elections use takes neither the sandbox's places nor the runtime's threads from others.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use conclave_core::record::{Attributes, PolicyVersion};
use conclave_core::view::{ManifestView, NodeView, Placement, Ranking, Role, View};
use conclave_core::{ElectionName, NodeName};
use conclave_policy::{Digest, Limits, Policy, PolicyError, Usage};
use tokio::sync::Semaphore;

use crate::config::{ElectionConfig, OnPolicyFailure};
use crate::daemon::phrase::phrase;
use crate::daemon::shadow::Shadow;
use crate::decisions::{self, Cost, Decision, DecisionLog, Question};
use crate::http::Metrics;

/// How many questions a policy is asked at once: half of the sandbox's places, so that the other
/// half is there for others.
pub(super) fn at_once() -> usize {
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
    /// A policy that is asked the same, or why it cannot be.
    shadow: Option<Result<Arc<Shadow>, String>>,
    /// Where its decisions are written, and by which node.
    recorder: Option<Recorder>,
}

/// Where decisions are written and counted.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    pub(super) log: DecisionLog,
    pub(super) metrics: Arc<Metrics>,
    pub(super) node: NodeName,
}

/// What came of a question.
#[derive(Debug)]
pub struct Asked<T> {
    /// The answer, or why there is none, as a phrase.
    pub result: Result<T, String>,
    usage: Usage,
    /// What kind of failure it is, if it is one.
    failure: Option<&'static str>,
}

impl Binding {
    pub(super) fn new(
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
            shadow: None,
            recorder: None,
        }
    }

    /// Has another policy asked the same.
    pub(super) fn shadowed_by(mut self, shadow: Result<Shadow, String>) -> Self {
        self.shadow = Some(shadow.map(Arc::new));
        self
    }

    /// Why its shadow cannot be asked, if there should be one.
    pub fn shadow_failure(&self) -> Option<&str> {
        self.shadow.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// What decides: nodes whose versions differ may decide differently.
    pub fn version(&self) -> PolicyVersion {
        self.version.clone()
    }

    /// What decides, and what stands in its shadow.
    pub(super) fn components(&self) -> (PolicyVersion, Option<Digest>) {
        let shadow = self.shadow.as_ref().and_then(|shadow| shadow.as_ref().ok());
        (self.version(), shadow.map(|shadow| shadow.digest()))
    }

    /// What decides while the policy fails.
    pub fn on_failure(&self) -> OnPolicyFailure {
        self.on_failure
    }

    /// Why it cannot be asked, if so.
    pub fn failure(&self) -> Option<&str> {
        self.policy.as_ref().err().map(AsRef::as_ref)
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref().ok()
    }

    pub(super) fn record_to(&mut self, recorder: &Recorder) {
        self.recorder = Some(recorder.clone());
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

    /// Who should lead.
    pub fn rank(&self, view: &View) -> Asked<Ranking> {
        self.question(|policy| {
            let answer = policy.rank(view, &self.config)?;
            Ok((answer.value.ranking, answer.usage))
        })
    }

    /// What this node brings.
    pub fn describe(&self, node: &NodeView, manifests: &[ManifestView]) -> Asked<Attributes> {
        self.question(|policy| {
            let answer = policy.describe(&self.election, node, manifests, &self.config)?;
            Ok((answer.value, answer.usage))
        })
    }

    /// What runs on this node in a role.
    pub fn place(
        &self,
        view: &View,
        node: &NodeView,
        role: Role,
        manifests: &[ManifestView],
    ) -> Asked<Vec<Placement>> {
        self.question(|policy| {
            let answer = policy.place(view, node, role, manifests, &self.config)?;
            Ok((answer.value, answer.usage))
        })
    }

    /// What runs where no policy can be asked: exclusive manifests on the leader, the others
    /// everywhere.
    pub fn builtin_place(role: Role, manifests: &[ManifestView]) -> Vec<Placement> {
        conclave_policy::builtin::place(role, manifests)
    }

    fn question<T>(
        &self,
        ask: impl FnOnce(&Policy) -> Result<(T, Usage), PolicyError>,
    ) -> Asked<T> {
        match self.policy.as_ref().map(ask) {
            Ok(Ok((value, usage))) => Asked { result: Ok(value), usage, failure: None },
            Ok(Err(error)) => {
                let (failure, result) = (Some(error.cause.label()), Err(phrase(&error)));
                Asked { usage: *error.usage, result, failure }
            }
            Err(reason) => {
                let (failure, result) = (Some("not_loaded"), Err(reason.to_string()));
                Asked { result, usage: Usage::default(), failure }
            }
        }
    }

    /// Hands an answer on and then writes it down: whoever waits for it does not wait for that.
    pub(super) fn hand_on<T: Clone>(
        &self,
        asked: Asked<T>,
        hand: impl FnOnce(Result<T, String>),
        question: impl FnOnce() -> Question,
        answer: fn(T) -> decisions::Answer,
    ) {
        let Some(recorder) = &self.recorder else { return hand(asked.result) };
        let (copy, failure) = (asked.result.clone(), asked.failure);
        hand(asked.result);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let PolicyVersion { name, component, .. } = self.version();
        let decision = Decision {
            at_unix_ms: since.as_millis() as u64,
            node: recorder.node.clone(),
            election: self.election.clone(),
            policy: name,
            component,
            config: self.config.to_string(),
            question: question(),
            answer: copy.map_or_else(decisions::Answer::Failed, answer),
            cost: cost(asked.usage),
            ..Decision::default()
        };
        let function = decision.question.function();
        recorder.metrics.policy(&decision.policy, function, asked.usage, failure);
        if let Some(Ok(shadow)) = &self.shadow {
            shadow.ask(decision.clone(), recorder);
        }
        recorder.log.write(decision);
    }
}

pub(super) fn cost(usage: Usage) -> Cost {
    Cost { fuel: usage.fuel, micros: usage.elapsed.as_micros() as u64 }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

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
            shadow: None,
            recorder: None,
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
}

//! A policy in the shadow: asked the same as the one that decides, after that has answered, and never
//! heard. What it costs it costs itself: where it is behind, questions are left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use conclave_policy::{Answer as Answered, Digest, Policy, PolicyError, Usage};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::daemon::binding::{Recorder, at_once, cost};
use crate::daemon::phrase::phrase;
use crate::decisions::{Answer, Decision, Question};
use crate::http::Metrics;

/// See the module.
#[derive(Debug)]
pub(super) struct Shadow {
    policy: Policy,
    config: String,
    turns: Arc<Semaphore>,
    /// Whether it decided otherwise when it was last asked to describe, to rank, to place.
    differs: [AtomicBool; 3],
}

impl Shadow {
    pub(super) fn new(policy: Policy, config: String) -> Self {
        let turns = Arc::new(Semaphore::new(at_once()));
        Shadow { policy, config, turns, differs: Default::default() }
    }

    pub(super) fn digest(&self) -> Digest {
        self.policy.digest()
    }

    /// Asks what was decided, beside the caller; compares, counts and writes down. Needs a tokio
    /// runtime; without one, as while the program ends, nothing is asked.
    pub(super) fn ask(self: &Arc<Self>, decided: Decision, recorder: &Recorder) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return count(&recorder.metrics, &decided, "skipped");
        };
        let (shadow, recorder) = (Arc::clone(self), recorder.clone());
        runtime.spawn_blocking(move || {
            shadow.compare(decided, &recorder);
            drop(turn);
        });
    }

    fn compare(&self, decided: Decision, recorder: &Recorder) {
        let (answer, usage) = answer(&self.policy, &self.config, &decided);
        let outcome = match &answer {
            Answer::Failed(_) => "failed",
            answer if answer.agrees(&decided.answer) => "same",
            _ => "different",
        };
        count(&recorder.metrics, &decided, outcome);
        let differs = outcome != "same";
        let before = match &decided.question {
            Question::Describe { .. } => &self.differs[0],
            Question::Rank { .. } => &self.differs[1],
            Question::Place { .. } => &self.differs[2],
        };
        if before.swap(differs, Ordering::Relaxed) != differs {
            let (election, function) = (&decided.election, decided.question.function());
            let shadow = self.policy.name();
            if differs {
                warn!(%election, shadow, function, outcome, "the shadow decides otherwise");
            } else {
                info!(%election, shadow, function, "the shadow decides the same again");
            }
        }
        recorder.log.write(Decision {
            policy: self.policy.name().to_owned(),
            component: self.policy.digest().to_string(),
            config: self.config.clone(),
            shadow: true,
            answer,
            cost: cost(usage),
            ..decided
        });
    }
}

fn count(metrics: &Metrics, decided: &Decision, outcome: &'static str) {
    metrics.shadow(&decided.election, decided.question.function(), outcome);
}

/// What a policy says to a question that another was asked.
pub(crate) fn answer(policy: &Policy, config: &str, decision: &Decision) -> (Answer, Usage) {
    match &decision.question {
        Question::Rank { view } => {
            wrapped(policy.rank(view, config), |ranks| Answer::Ranking(ranks.ranking))
        }
        Question::Describe { node, manifests } => {
            wrapped(policy.describe(&decision.election, node, manifests, config), Answer::Facts)
        }
        Question::Place { view, node, role, manifests } => {
            wrapped(policy.place(view, node, *role, manifests, config), Answer::Placements)
        }
    }
}

fn wrapped<T>(
    asked: Result<Answered<T>, PolicyError>,
    wrap: impl FnOnce(T) -> Answer,
) -> (Answer, Usage) {
    match asked {
        Ok(answer) => (wrap(answer.value), answer.usage),
        Err(error) => (Answer::Failed(phrase(&error)), *error.usage),
    }
}

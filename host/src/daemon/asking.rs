//! Asking the policies, beside the loop, and what follows from their answers.

use std::time::Duration;

use conclave_core::record::{Attributes, PolicyVersion};
use conclave_core::view::{ManifestView, NodeView, Placement, Role, View};
use conclave_core::{ElectionName, Event, OpId, Token};
use tracing::{error, info};

use crate::config::OnPolicyFailure;
use crate::daemon::binding::Binding;
use crate::daemon::placing::{Ahead, Question, Wish};
use crate::daemon::policies::{PolicySet, node_view};
use crate::daemon::promise::Promise;
use crate::daemon::shell::{Input, Shell};
use crate::decisions::{self, Answer};

/// A policy that failed is asked again after this, even if nothing changed: it may have been slow.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What a policy failed at.
pub(crate) type Failing = (ElectionName, &'static str);

const DESCRIBE: &str = "describe this node";
const PLACE: &str = "place manifests";
const REHEARSE: &str = "place manifests for a term that may come";

/// What is said for work that ended without a word.
const PANICKED: &str = "the policy host panicked";

impl Shell {
    /// Takes policies in: they may describe and place differently.
    pub(super) fn take_policies(&mut self, policies: PolicySet) {
        self.policies = policies.recorded_by(&self.recorder);
        if let Some(shown) = &self.shown {
            shown.outlook.rank_by(self.policies.clone());
        }
        let elections: Vec<_> = self.config.elections.iter().map(|e| e.name.clone()).collect();
        for election in elections {
            self.ask_anew(&election);
        }
    }

    /// Asks an election's policy for everything but a ranking, which the core asks for.
    pub(super) fn ask_anew(&mut self, election: &ElectionName) {
        self.asking_again.remove(election);
        self.look_ahead(election);
        if let Some(question) = self.places.again(election) {
            self.ask_placement(election, question);
        }
    }

    pub(super) fn rank(&self, op: OpId, view: View) {
        let answer = move |result| Input::Core(Event::Ranked { op, result });
        let promise = Promise::new(&self.inputs, answer(Err(PANICKED.to_owned())));
        match self.policies.binding(&view.election) {
            Some(binding) => binding.ask(move |policy| {
                let keep = |result| promise.keep(answer(result));
                let question = || decisions::Question::Rank { view: view.clone() };
                policy.hand_on(policy.rank(&view), keep, question, Answer::Ranking);
            }),
            None => promise.keep(answer(Err("no policy is loaded yet".to_owned()))),
        }
    }

    /// Asks what others should know of this node, and whether it could run a term.
    pub(super) fn look_ahead(&mut self, election: &ElectionName) {
        let Some(binding) = self.policies.binding(election) else { return };
        let Some((number, manifests)) = self.places.description(election) else { return };
        if self.renders(election) {
            self.rehearse(election, binding.clone(), number, manifests.clone());
        }
        let (node, policy, election) = (self.node_view(), binding.version(), election.clone());
        let answer = move |facts| Input::Described { election, number, facts, policy };
        let promise = Promise::new(&self.inputs, answer.clone()(Err(PANICKED.to_owned())));
        binding.ask(move |policy| {
            let asked = policy.describe(&node, &manifests);
            let question = || decisions::Question::Describe {
                node: node.clone(),
                manifests: manifests.clone(),
            };
            policy.hand_on(asked, |facts| promise.keep(answer(facts)), question, Answer::Facts);
        });
    }

    pub(super) fn described(
        &mut self,
        election: ElectionName,
        number: u64,
        facts: Result<Attributes, String>,
        policy: PolicyVersion,
    ) -> Option<Event> {
        if !self.places.is_newest_description(&election, number) {
            return None; // of manifests that have changed since
        }
        let facts = match facts {
            Ok(facts) => {
                self.answers_again(&election, DESCRIBE);
                facts
            }
            Err(reason) => {
                self.failed(&election, DESCRIBE, reason);
                Attributes::new()
            }
        };
        Some(Event::Described { election, facts, policy })
    }

    /// Whether an election's manifests need anything of the policy but its word.
    fn renders(&self, election: &ElectionName) -> bool {
        let config = self.configured(election);
        config.is_some_and(|config| {
            config.manifests.iter().any(|manifest| manifest.render)
                || config.manifest_directory.as_ref().is_some_and(|directory| directory.render)
        })
    }

    /// Asks what would run here in a term: variables that are missing then make this node unfit
    /// now, instead of costing somebody the term.
    fn rehearse(
        &self,
        election: &ElectionName,
        binding: Binding,
        number: u64,
        manifests: Vec<ManifestView>,
    ) {
        let (view, node, election) = (self.core.view(election), self.node_view(), election.clone());
        let answer = move |result| Input::Rehearsed { election, number, result };
        let promise = Promise::new(&self.inputs, answer.clone()(Err(PANICKED.to_owned())));
        binding.ask(move |policy| {
            promise.keep(answer(policy.place(&view, &node, Role::Leader, &manifests).result));
        });
    }

    pub(super) fn rehearsed(
        &mut self,
        election: &ElectionName,
        number: u64,
        result: Result<Vec<Placement>, String>,
    ) {
        if !self.places.is_newest_description(election, number) {
            return; // of manifests that have changed since
        }
        let placements = match result {
            Ok(placements) => {
                self.answers_again(election, REHEARSE);
                placements
            }
            Err(reason) => {
                self.failed(election, REHEARSE, reason);
                let Some(placements) = self.fall_back(election, Role::Leader) else { return };
                placements
            }
        };
        if let Err(error) = self.manifests.rehearse(election, placements) {
            error!(%election, %error, "the manifest loop does not know this election");
        }
    }

    fn node_view(&self) -> NodeView {
        node_view(&self.config)
    }

    pub(super) fn want(&mut self, election: &ElectionName, wish: Wish) {
        let Some(question) = self.places.wish(election, wish) else { return };
        match self.places.answered_ahead(election, || self.core.view(election)) {
            Some(placements) => self.placed(election, question.number, Ok(placements)),
            None => self.ask_placement(election, question),
        }
    }

    /// A term may begin: has the manifest loop get ready, and asks the policy ahead what would run.
    pub(super) fn prepare(&mut self, election: &ElectionName, token: Option<Token>) {
        if let Err(error) = self.manifests.prepare(election, token) {
            // Terms of elections that are no longer configured are only withdrawn.
            error!(%election, %error, "the manifest loop does not know this election");
        }
        let Some(token) = token else { return };
        let Some(binding) = self.policies.binding(election) else { return };
        let Some(question) = self.places.question_ahead(election) else { return };
        let (view, node, election) = (self.core.view(election), self.node_view(), election.clone());
        let inputs = self.inputs.clone();
        // Nobody waits for this answer: where the term begins without it, the policy is asked then.
        binding.ask(move |policy| {
            let Question { number, role, manifests } = question;
            if let Ok(placements) = policy.place(&view, &node, role, &manifests).result {
                let ahead = Ahead { token, view, placements };
                let _ = inputs.send(Input::PlacedAhead { election, number, ahead });
            }
        });
    }

    /// Nothing is placed, and nothing of an adopted term is touched, before there is a policy to
    /// ask; then it is asked anew.
    pub(super) fn ask_placement(&self, election: &ElectionName, question: Question) {
        let Some(binding) = self.policies.binding(election) else { return };
        let (view, node) = (self.core.view(election), self.node_view());
        let Question { number, role, manifests } = question;
        let election = election.clone();
        let answer = move |result| Input::Placed { election, number, result };
        let promise = Promise::new(&self.inputs, answer.clone()(Err(PANICKED.to_owned())));
        binding.ask(move |policy| {
            let asked = policy.place(&view, &node, role, &manifests);
            let keep = |result| promise.keep(answer(result));
            let question = move || decisions::Question::Place { view, node, role, manifests };
            policy.hand_on(asked, keep, question, Answer::Placements);
        });
    }

    pub(super) fn placed(
        &mut self,
        election: &ElectionName,
        number: u64,
        result: Result<Vec<Placement>, String>,
    ) {
        let Some(wish) = self.places.answered(election, number).cloned() else { return };
        let placements = match result {
            Ok(placements) => {
                self.answers_again(election, PLACE);
                placements
            }
            Err(reason) => {
                self.failed(election, PLACE, reason);
                // With `hold`, what is in place stays as it is.
                let Some(role) = wish.role() else { return };
                let Some(placements) = self.fall_back(election, role) else { return };
                placements
            }
        };
        let told = match wish {
            Wish::Lead { token } => self.manifests.lead(election, token, placements),
            Wish::Follow { holder } => self.manifests.follow(election, holder, placements),
            Wish::Withdraw => Ok(()),
        };
        if let Err(error) = told {
            // Terms of elections that are no longer configured are only withdrawn.
            error!(%election, %error, "the manifest loop does not know this election");
        }
    }

    /// What runs while the policy fails; `None` where that may change nothing.
    fn fall_back(&self, election: &ElectionName, role: Role) -> Option<Vec<Placement>> {
        let binding = self.policies.binding(election)?;
        if binding.on_failure() == OnPolicyFailure::Hold {
            return None;
        }
        Some(Binding::builtin_place(role, self.places.known_manifests(election)?))
    }

    /// Tells once that a policy failed, and why, and asks it again after a while.
    fn failed(&mut self, election: &ElectionName, at: &'static str, reason: String) {
        let told = self.failing.insert((election.clone(), at), reason.clone());
        if told.as_ref() != Some(&reason) {
            error!(%election, at, reason, "policy failed");
        }
        if self.asking_again.insert(election.clone()) {
            let (inputs, election) = (self.inputs.clone(), election.clone());
            tokio::spawn(async move {
                tokio::time::sleep(ASK_AGAIN).await;
                // The loop may have ended meanwhile.
                let _ = inputs.send(Input::AskAnew(election));
            });
        }
    }

    fn answers_again(&mut self, election: &ElectionName, at: &'static str) {
        if self.failing.remove(&(election.clone(), at)).is_some() {
            info!(%election, at, "policy answers again");
        }
    }
}

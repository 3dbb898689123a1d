//! Views of every kind, made of the words that a suite uses: labels that no case mentions seldom
//! matter to its policy.

use std::collections::BTreeSet;

use conclave_core::record::{Attributes, Fitness};
use conclave_core::view::{
    CandidateView, IncumbentView, ManifestView, NodeView, PreviousView, TransferView, View,
    round_ms,
};
use conclave_core::{ElectionName, NodeName};
use serde_json::Value;

use crate::build::{ELECTION, HELD_MS, STANDING_MS, UNFIT, letters, ordinary, pod};
use crate::case::Question;
use crate::random::Random;
use crate::suite::Suite;

/// More words of a kind add nothing.
const MOST_WORDS: usize = 50;
/// Ages on both sides of where rounding and policies may look.
const SECONDS: [u64; 12] = [0, 1, 5, 20, 59, 60, 61, 120, 600, 3_600, 7_200, 86_400];
/// How many candidates there are, mostly.
const USUAL: [usize; 14] = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 6, 8];
/// One view in so many is large: a policy has to keep within its limits there as well. Interpreted
/// languages spend a third of their fuel on so many candidates (`examples/languages/run`).
const LARGE_EVERY: usize = 33;
const LARGE: usize = 100;

/// What a suite talks about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    nodes: BTreeSet<String>,
    keys: BTreeSet<String>,
    values: BTreeSet<String>,
    facts: BTreeSet<(String, String)>,
    manifests: BTreeSet<String>,
}

impl Words {
    /// The words of a suite's cases and configurations.
    pub(crate) fn of(suite: &Suite) -> Self {
        let mut words = Words::default();
        words.nodes.extend(["a", "b", "c", "d"].map(str::to_owned));
        words.keys.extend(["rack".to_owned()]);
        words.values.extend(["a", "b"].map(str::to_owned));
        words.facts.insert(("flags".to_owned(), "1".to_owned()));
        words.manifests.extend(["scheduler.yaml", "api.yaml"].map(str::to_owned));
        let configs = suite.cases.iter().map(|case| &case.config).chain([&suite.config]);
        for config in configs.collect::<BTreeSet<_>>() {
            // It was JSON when it was read.
            words.setting(&serde_json::from_str(config).unwrap_or_default());
        }
        for case in &suite.cases {
            match &case.question {
                Question::Rank(view) => words.view(view),
                Question::Place { view, manifests, .. } => {
                    words.view(view);
                    words.manifests.extend(manifests.iter().map(|m| m.name.clone()));
                }
                Question::Describe { node, manifests, .. } => {
                    words.labels(&node.labels);
                    words.manifests.extend(manifests.iter().map(|m| m.name.clone()));
                }
                Question::Validate => {}
            }
        }
        words
    }

    /// What a policy is configured with may be about nodes, labels or manifests.
    fn setting(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                self.nodes.insert(text.clone());
                self.values.insert(text.clone());
                self.manifests.insert(text.clone());
            }
            Value::Array(items) => items.iter().for_each(|item| self.setting(item)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.keys.insert(key.clone());
                    self.setting(value);
                }
            }
            _ => {}
        }
    }

    fn view(&mut self, view: &View) {
        for candidate in &view.candidates {
            self.nodes.insert(candidate.name.as_str().to_owned());
            self.labels(&candidate.labels);
            self.facts.extend(candidate.facts.clone());
        }
    }

    fn labels(&mut self, labels: &Attributes) {
        self.keys.extend(labels.keys().cloned());
        self.values.extend(labels.values().cloned());
    }
}

/// Makes questions of a seed and a suite's words.
pub(crate) struct Generator {
    random: Random,
    nodes: Vec<String>,
    keys: Vec<String>,
    values: Vec<String>,
    facts: Vec<(String, String)>,
    manifests: Vec<String>,
}

impl Generator {
    pub(crate) fn new(seed: u64, words: &Words) -> Self {
        let some = |words: &BTreeSet<String>| -> Vec<String> {
            words.iter().filter(|word| !word.is_empty()).take(MOST_WORDS).cloned().collect()
        };
        Generator {
            random: Random::new(seed),
            nodes: some(&words.nodes),
            keys: some(&words.keys),
            values: some(&words.values),
            facts: words.facts.iter().take(MOST_WORDS).cloned().collect(),
            manifests: some(&words.manifests),
        }
    }

    /// Who should lead, somewhere.
    pub(crate) fn rank(&mut self) -> Question {
        Question::Rank(self.view())
    }

    /// What runs on one of the candidates.
    pub(crate) fn place(&mut self) -> Question {
        let mut view = self.view();
        if view.candidates.is_empty() {
            view.candidates.push(ordinary("a"));
        }
        let at = self.random.below(view.candidates.len());
        view.me = view.candidates[0].name.clone();
        let candidate = &view.candidates[at];
        let node = NodeView {
            name: candidate.name.clone(),
            labels: candidate.labels.clone(),
            variables: self.attributes(20),
        };
        Question::Place { nodes: vec![node], manifests: self.manifests(), view }
    }

    /// What a node brings.
    pub(crate) fn describe(&mut self) -> Question {
        let name = self.random.pick(&self.nodes).map_or("a", String::as_str).into();
        let (labels, variables) = (self.attributes(60), self.attributes(40));
        Question::Describe {
            election: ELECTION.into(),
            node: NodeView { name, labels, variables },
            manifests: self.manifests(),
        }
    }

    fn view(&mut self) -> View {
        let names = if self.random.below(LARGE_EVERY) == 0 {
            let count = LARGE / 4 + self.random.below(LARGE * 3 / 4);
            (0..count as u64).map(letters).collect()
        } else {
            let count = self.random.pick(&USUAL).copied().unwrap_or_default();
            self.random.sample(&self.nodes, count)
        };
        let mut candidates: Vec<CandidateView> =
            names.iter().map(|name| self.candidate(name)).collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.standing_ms));
        let incumbent = self.incumbent(&candidates);
        let election = ElectionName::from(ELECTION);
        for candidate in &mut candidates {
            if incumbent.as_ref().is_some_and(|incumbent| incumbent.name == candidate.name) {
                candidate.holds.push(election.clone());
                candidate.holds.sort();
            }
        }
        let asked = incumbent.is_some() && self.random.chance(15);
        let transfer = asked.then(|| TransferView { to: self.other(&candidates, 70) });
        let me = self.other(&candidates, 100).unwrap_or_else(|| "a".into());
        View {
            election,
            me,
            previous: self.previous(),
            transfer,
            paused: self.random.chance(10),
            candidates,
            incumbent,
        }
    }

    fn candidate(&mut self, name: &str) -> CandidateView {
        let fit = !self.random.chance(15);
        let reasons = if fit { Vec::new() } else { vec![UNFIT.to_owned()] };
        let mut holds = Vec::new();
        if self.random.chance(20) {
            holds.extend(["db", "web"].into_iter().take(1 + self.random.below(2)).map(Into::into));
        }
        CandidateView {
            labels: self.attributes(60),
            facts: self.facts(50),
            fitness: Fitness { fit, reasons, ..Fitness::fit() },
            cordoned: self.random.chance(15),
            holds,
            standing_ms: self.age(STANDING_MS),
            ..ordinary(name)
        }
    }

    fn incumbent(&mut self, candidates: &[CandidateView]) -> Option<IncumbentView> {
        let holder = candidates.get(self.random.below(candidates.len()));
        let (there, candidacy, same) =
            (self.random.chance(60), self.random.chance(95), self.random.chance(80));
        let held_ms = self.age(HELD_MS);
        match holder.filter(|_| candidacy) {
            _ if !there => None,
            Some(holder) => {
                let facts = if same { holder.facts.clone() } else { self.facts(50) };
                Some(IncumbentView { name: holder.name.clone(), facts, held_ms })
            }
            // Its candidacy is missing.
            None => Some(IncumbentView { name: "gone".into(), facts: self.facts(50), held_ms }),
        }
    }

    fn previous(&mut self) -> Option<PreviousView> {
        let name = self.random.pick(&self.nodes).map_or("a", String::as_str).into();
        let (facts, clean) = (self.facts(50), self.random.chance(50));
        self.random.chance(50).then_some(PreviousView { name, facts, clean })
    }

    fn other(&mut self, candidates: &[CandidateView], percent: usize) -> Option<NodeName> {
        let named = self.random.chance(percent);
        let candidate = self.random.pick(candidates).filter(|_| named);
        candidate.map(|candidate| candidate.name.clone())
    }

    fn manifests(&mut self) -> Vec<ManifestView> {
        let count = self.random.below(4);
        let names = self.random.sample(&self.manifests, count);
        let manifest = |name: String| ManifestView {
            exclusive: self.random.chance(50),
            content: pod(&name),
            name,
        };
        names.into_iter().map(manifest).collect()
    }

    fn attributes(&mut self, percent: usize) -> Attributes {
        let mut attributes = Attributes::new();
        while attributes.len() < 3 && self.random.chance(percent) {
            let (Some(key), Some(value)) =
                (self.random.pick(&self.keys), self.random.pick(&self.values))
            else {
                break;
            };
            attributes.insert(key.clone(), value.clone());
        }
        attributes
    }

    fn facts(&mut self, percent: usize) -> Attributes {
        let fact = self.random.pick(&self.facts).cloned();
        fact.filter(|_| self.random.chance(percent)).into_iter().collect()
    }

    fn age(&mut self, usual: u64) -> u64 {
        if self.random.chance(40) {
            return usual;
        }
        round_ms(self.random.pick(&SECONDS).copied().unwrap_or_default() * 1_000)
    }
}

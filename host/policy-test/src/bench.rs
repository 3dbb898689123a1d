//! What a policy's decisions cost, as the number of candidates grows.
//!
//! Every call is measured in the sandbox, from making the instance to the lifted answer, as the
//! daemon pays for it. Each candidate has two labels and a fact; the first one leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conclave_core::record::Attributes;
use conclave_core::view::{CandidateView, IncumbentView, ManifestView, NodeView, Role, View};
use conclave_policy::{Answer, Function, Policy, PolicyError, Usage};
use serde::{Serialize, Serializer};

use crate::build::{ELECTION, HELD_MS, ordinary};
use crate::properties::interface;
use crate::run::words;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// How many candidates there are, each number in turn.
    pub candidates: Vec<usize>,
    /// How many calls are measured of each kind, unless they take longer than `limit`.
    pub calls: usize,
    /// How long the calls of one kind go on at most; a few are always made.
    pub limit: Duration,
    /// The policy's configuration, as JSON.
    pub config: String,
}

/// So few calls tell something nevertheless.
const FEWEST: usize = 3;

/// What one kind of call costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was asked.
    pub function: &'static str,
    /// How many candidates the view had.
    pub candidates: usize,
    /// What was measured, or why there was no answer.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What calls cost, or why there was no answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// What they cost.
    Spent(Figures),
    /// Why there is no usable answer.
    Failed(String),
}

/// What some calls cost, each in a fresh instance.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// How many were measured.
    pub calls: usize,
    /// Fuel of one call: the same each time, as the question is.
    pub fuel: u64,
    /// Bytes of linear memory of one call.
    pub memory: usize,
    /// The median time.
    #[serde(rename = "median_us", serialize_with = "micros")]
    pub median: Duration,
    /// 90 of 100 calls took at most so long.
    #[serde(rename = "p90_us", serialize_with = "micros")]
    pub p90: Duration,
    /// 99 of 100 calls took at most so long.
    #[serde(rename = "p99_us", serialize_with = "micros")]
    pub p99: Duration,
    /// The longest time.
    #[serde(rename = "most_us", serialize_with = "micros")]
    pub most: Duration,
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e6)
}

/// Measures every function that a policy exports, for each number of candidates.
pub fn bench(policy: &Policy, benchmark: &Benchmark) -> Vec<Cost> {
    let mut costs = Vec::new();
    for function in [Function::Rank, Function::Place, Function::Describe] {
        if !policy.interfaces().contains(&interface(function)) {
            continue;
        }
        for candidates in &benchmark.candidates {
            // What a node brings does not depend on how many others there are.
            if function == Function::Describe && candidates != &benchmark.candidates[0] {
                continue;
            }
            let question = Question::new(*candidates);
            let measured = measure(benchmark, || question.ask(policy, function, benchmark))
                .unwrap_or_else(|error| Measured::Failed(words(&error, policy.limits().fuel)));
            costs.push(Cost { function: function.name(), candidates: *candidates, measured });
        }
    }
    costs
}

fn measure(
    benchmark: &Benchmark,
    ask: impl Fn() -> Result<Usage, PolicyError>,
) -> Result<Measured, PolicyError> {
    let first = ask()?; // the one that finds nothing in the caches
    let start = Instant::now();
    let mut times = Vec::with_capacity(benchmark.calls.max(FEWEST));
    while times.len() < benchmark.calls.max(FEWEST) {
        times.push(ask()?.elapsed);
        if times.len() >= FEWEST && start.elapsed() > benchmark.limit {
            break;
        }
    }
    times.sort_unstable();
    let (calls, at) = (times.len(), |percent: usize| times[(times.len() - 1) * percent / 100]);
    Ok(Measured::Spent(Figures {
        calls,
        fuel: first.fuel,
        memory: first.memory,
        median: at(50),
        p90: at(90),
        p99: at(99),
        most: at(100),
    }))
}

/// A view of so many candidates, and the manifests that the first of them, the leader, has.
struct Question {
    view: View,
    node: NodeView,
    manifests: Vec<ManifestView>,
}

impl Question {
    fn new(candidates: usize) -> Self {
        let attributes = |pairs: &[(&str, &str)]| -> Attributes {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (labels, facts) =
            (attributes(&[("rack", "a"), ("zone", "north")]), attributes(&[("flags", "3f2c9a")]));
        let candidate = |number| CandidateView {
            labels: labels.clone(),
            facts: facts.clone(),
            holds: if number == 0 { vec![ELECTION.into()] } else { Vec::new() },
            ..ordinary(&name(number))
        };
        let manifests = ["scheduler", "controller-manager"].map(|program| ManifestView {
            name: format!("{program}.yaml"),
            exclusive: true,
            content: manifest(program),
        });
        Question {
            view: View {
                election: ELECTION.into(),
                me: name(0).as_str().into(),
                candidates: (0..candidates).map(candidate).collect(),
                incumbent: Some(IncumbentView {
                    name: name(0).as_str().into(),
                    facts: facts.clone(),
                    held_ms: HELD_MS,
                }),
                previous: None,
                transfer: None,
                paused: false,
            },
            node: NodeView {
                name: name(0).as_str().into(),
                labels: labels.clone(),
                variables: BTreeMap::new(),
            },
            manifests: manifests.to_vec(),
        }
    }

    fn ask(
        &self,
        policy: &Policy,
        function: Function,
        benchmark: &Benchmark,
    ) -> Result<Usage, PolicyError> {
        let Question { view, node, manifests } = self;
        let config = &benchmark.config;
        match function {
            Function::Place => usage(policy.place(view, node, Role::Leader, manifests, config)),
            Function::Describe => usage(policy.describe(&view.election, node, manifests, config)),
            _ => usage(policy.rank(view, config)),
        }
    }
}

fn usage<T>(answer: Result<Answer<T>, PolicyError>) -> Result<Usage, PolicyError> {
    answer.map(|answer| answer.usage)
}

/// A manifest as control planes have them, cut down to what runs.
fn manifest(program: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {program}\nspec:\n  hostNetwork: true\n  \
         containers:\n  - name: {program}\n    image: registry.example/{program}:1.0\n    \
         command: [/usr/bin/kube-{program}, --v=2, --address=127.0.0.1, --cluster-dns=10.10.10.10]\n"
    )
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use conclave_policy::{Limits, PolicyHost, Wanted};

    use super::*;

    fn costs(limits: Limits, config: &str) -> Vec<Cost> {
        let host = PolicyHost::new(limits, None).unwrap();
        let directory = host.load_directory(None, Wanted::All).unwrap();
        let benchmark = Benchmark {
            candidates: vec![10, 100],
            calls: 20,
            limit: Duration::from_secs(60),
            config: config.to_owned(),
        };
        bench(directory.get("cold-standby").unwrap(), &benchmark)
    }

    #[test]
    fn what_a_policy_exports_is_measured_for_each_size() {
        let limits = Limits { deadline: Duration::from_secs(60), ..Limits::default() };
        let costs = costs(limits, "{}");
        let kinds: Vec<_> = costs.iter().map(|cost| (cost.function, cost.candidates)).collect();
        assert_eq!(
            kinds,
            [("rank", 10), ("rank", 100), ("place", 10), ("place", 100), ("describe", 10)]
        );
        let spent = |at: usize| match &costs[at].measured {
            Measured::Spent(spent) => spent.clone(),
            Measured::Failed(words) => panic!("{words}"),
        };
        let (ten, hundred) = (spent(0), spent(1));
        assert!(ten.fuel > 0 && hundred.fuel > ten.fuel, "{ten:?} {hundred:?}");
        // At most linear, with the part that does not grow.
        assert!(hundred.fuel <= 10 * ten.fuel, "{} {}", ten.fuel, hundred.fuel);
        assert!(ten.memory >= 64 << 10 && ten.calls == 20, "{ten:?}");
        assert!(ten.median <= ten.p90 && ten.p90 <= ten.p99 && ten.p99 <= ten.most, "{ten:?}");
    }

    #[test]
    fn what_does_not_answer_says_why_and_the_rest_is_measured() {
        let limits =
            Limits { fuel: 50_000, deadline: Duration::from_secs(60), ..Limits::default() };
        let costs = costs(limits, "{}");
        assert!(matches!(&costs[0].measured, Measured::Spent(_)), "{:?}", costs[0]);
        let Measured::Failed(words) = &costs[1].measured else { panic!("{:?}", costs[1]) };
        assert!(words.contains("it used up its 50000 units of fuel"), "{words}");
    }
}

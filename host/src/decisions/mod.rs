//! The decision log: what policies were asked on this node, and what they answered, complete enough to
//! ask another policy the same.
//!
//! Lines of JSON in `<state directory>/decisions`, for this user alone, bounded in size. A line that a
//! crash tore is skipped by readers; one of a later version is refused by them.

mod log;
mod read;

use conclave_core::record::Attributes;
use conclave_core::view::{ManifestView, NodeView, Placement, Ranking, Role, View};
use conclave_core::{ElectionName, NodeName};
use serde::{Deserialize, Serialize};

pub(crate) use log::DecisionLog;
pub(crate) use read::read;

/// The directory inside the state directory.
pub(crate) const DIRECTORY: &str = "decisions";

/// What this program writes, and the latest that it reads.
const VERSION: u32 = 1;

/// One question, with its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// Of the log's format.
    pub(crate) version: u32,
    /// When, in milliseconds since 1970; for people.
    pub(crate) at_unix_ms: u64,
    /// The node that asked.
    pub(crate) node: NodeName,
    pub(crate) election: ElectionName,
    /// The policy's name and its component's digest.
    pub(crate) policy: String,
    pub(crate) component: String,
    /// Its configuration: a JSON object as text.
    pub(crate) config: String,
    /// Whether it decides, or only runs beside the one that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shadow: bool,
    pub(crate) question: Question,
    pub(crate) answer: Answer,
    /// What it cost; nothing where no component was asked.
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// How often the same was answered to the same since the line before this one of its kind.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) repeated: u64,
    /// How many decisions were not written before this one because the disk was slow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) missed: u64,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) fuel: u64,
    /// Time in the sandbox, in microseconds.
    pub(crate) micros: u64,
}

impl Default for Decision {
    /// Of today's version, about nothing yet.
    fn default() -> Self {
        Decision {
            version: VERSION,
            at_unix_ms: 0,
            node: "".into(),
            election: "".into(),
            policy: String::new(),
            component: String::new(),
            config: String::new(),
            shadow: false,
            question: Question::Describe {
                node: NodeView {
                    name: "".into(),
                    labels: Attributes::new(),
                    variables: Attributes::new(),
                },
                manifests: Vec::new(),
            },
            answer: Answer::Facts(Attributes::new()),
            cost: Cost::default(),
            repeated: 0,
            missed: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a policy was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "function")]
pub(crate) enum Question {
    /// Who should lead.
    Rank { view: View },
    /// What this node brings.
    Describe { node: NodeView, manifests: Vec<ManifestView> },
    /// What runs on this node.
    Place { view: View, node: NodeView, role: Role, manifests: Vec<ManifestView> },
}

impl Question {
    /// The function that was asked.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            Question::Rank { .. } => "rank",
            Question::Describe { .. } => "describe",
            Question::Place { .. } => "place",
        }
    }
}

/// What it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ranking(Ranking),
    Facts(Attributes),
    Placements(Vec<Placement>),
    /// It did not, for this reason.
    Failed(String),
}

impl Answer {
    /// The answer as lines, each for what is decided about one thing; reasons are left out, for they
    /// decide nothing.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Answer::Ranking(ranking) => {
                let order = ranking.order.iter().map(|ranked| ranked.node.to_string());
                let excluded = ranking.excluded.iter().map(|it| format!("{} excluded", it.node));
                order.chain(excluded).collect()
            }
            Answer::Facts(facts) => {
                facts.iter().map(|(key, value)| format!("{key}={value}")).collect()
            }
            Answer::Placements(placements) => placements.iter().map(placement).collect(),
            Answer::Failed(reason) => vec![format!("no answer: {reason}")],
        }
    }

    /// Why something stands where it stands, for people: a phrase for each line, perhaps empty.
    pub(crate) fn remarks(&self) -> Vec<String> {
        match self {
            Answer::Ranking(ranking) => {
                ranking.order.iter().chain(&ranking.excluded).map(|it| it.reason.clone()).collect()
            }
            other => vec![String::new(); other.lines().len()],
        }
    }

    /// Whether both decide the same.
    pub(crate) fn agrees(&self, other: &Answer) -> bool {
        match (self, other) {
            (Answer::Failed(_), Answer::Failed(_)) => true,
            (Answer::Failed(_), _) | (_, Answer::Failed(_)) => false,
            _ => self.lines() == other.lines(),
        }
    }
}

fn placement(it: &Placement) -> String {
    let run = if it.run { "runs" } else { "does not run" };
    let variables = it.variables.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{} {run}{}", it.manifest, variables.collect::<String>())
}

#[cfg(test)]
pub(crate) fn sample(election: &str, order: &[&str]) -> Decision {
    use conclave_core::view::Ranked;
    let ranked = |node: &&str| Ranked { node: NodeName::new(*node), reason: "because".to_owned() };
    let view = View {
        election: ElectionName::new(election),
        me: "a".into(),
        candidates: Vec::new(),
        incumbent: None,
        previous: None,
        transfer: None,
        paused: false,
    };
    Decision {
        election: ElectionName::new(election),
        config: "{}".to_owned(),
        question: Question::Rank { view },
        answer: Answer::Ranking(Ranking {
            order: order.iter().map(ranked).collect(),
            excluded: Vec::new(),
        }),
        ..Decision::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_agree_by_what_they_decide() {
        let answer = |election: &str, order: &[&str]| sample(election, order).answer;
        let failed = |reason: &str| Answer::Failed(reason.to_owned());
        let mut other_reason = answer("e", &["a", "b"]);
        if let Answer::Ranking(ranking) = &mut other_reason {
            ranking.order[0].reason = "otherwise".to_owned();
        }
        for (one, other, agree) in [
            (answer("e", &["a", "b"]), other_reason, true),
            (answer("e", &["a", "b"]), answer("e", &["b", "a"]), false),
            (answer("e", &["a"]), failed("trap"), false),
            (failed("trap"), failed("fuel"), true),
        ] {
            assert_eq!(one.agrees(&other), agree, "{one:?} {other:?}");
        }
    }
}

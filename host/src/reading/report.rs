//! Who holds which election in store, and who else stands: what `conclave status` prints, and a node
//! answers about its cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_core::listing::{Holder, Listing};
use conclave_core::ranking::effective_order;
use conclave_core::record::{CandidacyRecord, MarkRecord};
use conclave_core::view::{Ranking, View};
use conclave_core::{ElectionName, Key, NodeName};
use serde::Serialize;

use super::terms::Term;
use super::{Reading, now_unix_ms};
use crate::daemon::PolicySet;

/// Everything that is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) cluster: String,
    pub(crate) revision: u64,
    pub(crate) nodes: Vec<NodeReport>,
    pub(crate) elections: Vec<ElectionReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeReport {
    pub(crate) node: NodeName,
    pub(crate) addresses: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ttl_ms: u64,
    /// How long the session had stood at its newest beat.
    pub(crate) session_age_ms: u64,
    pub(crate) version: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct ElectionReport {
    pub(crate) election: ElectionName,
    pub(crate) holder_in_store: Option<HolderReport>,
    pub(crate) paused: bool,
    pub(crate) pause: Option<MarkReport>,
    /// Whether the candidates' order is the policy's; otherwise it is the built-in one, and nodes may
    /// see it otherwise.
    pub(crate) ranked_by_policy: bool,
    pub(crate) candidates: Vec<CandidateReport>,
    /// The last terms, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) terms: Vec<Term>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HolderReport {
    /// `None` for a foreign competitor.
    pub(crate) node: Option<NodeName>,
    pub(crate) key: String,
    pub(crate) token: u64,
    /// By the holder's wall clock and ours; for people.
    pub(crate) age_ms: Option<u64>,
    /// Whether the session under the term has a record. Whether its owner still beats only
    /// other nodes can tell, by timing it.
    pub(crate) session_stands: bool,
    pub(crate) why: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CandidateReport {
    pub(crate) node: NodeName,
    /// Counted from 1; `None` for one that may not lead.
    pub(crate) rank: Option<usize>,
    pub(crate) reason: String,
    pub(crate) fit: bool,
    pub(crate) fitness_reasons: Vec<String>,
    /// The fitness checks by name, and whether each passes.
    pub(crate) checks: BTreeMap<String, bool>,
    pub(crate) cordoned: bool,
    pub(crate) cordon: Option<MarkReport>,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) policy: String,
    /// The built-in ranking stands in for the policy on that node.
    pub(crate) fallback: bool,
}

/// What an operator left with a mark.
#[derive(Debug, Serialize)]
pub(crate) struct MarkReport {
    pub(crate) note: String,
    pub(crate) since_unix_ms: u64,
    /// About when it ends by itself, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_unix_ms: Option<u64>,
}

impl From<MarkRecord> for MarkReport {
    fn from(mark: MarkRecord) -> Self {
        let until = mark.for_ms.map(|for_ms| mark.since_unix_ms.saturating_add(for_ms));
        MarkReport { note: mark.note, since_unix_ms: mark.since_unix_ms, until_unix_ms: until }
    }
}

impl MarkReport {
    /// Who set it, and until when; in brackets, as it follows a word.
    pub(crate) fn words(&self) -> String {
        let until = self.until_unix_ms.map(|until| {
            let until = std::time::UNIX_EPOCH + Duration::from_millis(until);
            format!("until {}", humantime::format_rfc3339_seconds(until))
        });
        let note = (!self.note.is_empty()).then(|| self.note.clone());
        let words: Vec<String> = note.into_iter().chain(until).collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
    }
}

/// Everything about these elections, as node `me` would see it.
pub(crate) fn report(
    cluster: &str,
    reading: &Reading,
    elections: &[ElectionName],
    me: &NodeName,
    policies: &PolicySet,
) -> Report {
    Report {
        cluster: cluster.to_owned(),
        revision: reading.at.0,
        nodes: nodes(&reading.listing),
        elections: elections.iter().map(|name| election(reading, name, me, policies)).collect(),
    }
}

fn nodes(listing: &Listing) -> Vec<NodeReport> {
    listing
        .nodes()
        .filter_map(|(node, record)| {
            let record = record?;
            Some(NodeReport {
                node: node.clone(),
                addresses: record.addresses.clone(),
                labels: record.labels.clone(),
                ttl_ms: record.ttl_ms,
                session_age_ms: record.age_ms,
                version: record.version.clone(),
            })
        })
        .collect()
}

fn election(
    reading: &Reading,
    election: &ElectionName,
    me: &NodeName,
    policies: &PolicySet,
) -> ElectionReport {
    let listing = &reading.listing;
    let holder = listing.holder(election);
    let age = holder.as_ref().and_then(age_ms);
    let view = listing.view(election, me, age.unwrap_or(0));
    let ranking = policies.binding(election).map(|binding| binding.rank(&view).result);
    let order = effective_order(&view, ranking.as_ref().and_then(|it| it.as_ref().ok()));
    let candidate = |(node, record): (&NodeName, &CandidacyRecord)| {
        candidate(reading, &view, ranking.as_ref(), &order, node, record)
    };
    let mut candidates: Vec<CandidateReport> =
        listing.candidacies(election).map(candidate).collect();
    candidates.sort_by_key(|candidate| candidate.rank.unwrap_or(usize::MAX));
    ElectionReport {
        election: election.clone(),
        holder_in_store: holder.map(|holder| HolderReport {
            node: holder.term.as_ref().map(|term| term.holder.clone()),
            key: holder.suffix.clone(),
            token: holder.token.0,
            age_ms: age,
            session_stands: holder.session_stands,
            why: holder.term.map(|term| term.why),
        }),
        paused: view.paused,
        pause: reading.mark(&Key::Pause(election.clone())).map(MarkReport::from),
        ranked_by_policy: matches!(ranking, Some(Ok(_))),
        candidates,
        terms: Vec::new(),
    }
}

fn candidate(
    reading: &Reading,
    view: &View,
    ranking: Option<&Result<Ranking, String>>,
    order: &[NodeName],
    node: &NodeName,
    record: &CandidacyRecord,
) -> CandidateReport {
    let cordoned = view.candidates.iter().any(|it| it.name == *node && it.cordoned);
    let reason = match ranking {
        _ if !record.fitness.fit => "unfit".to_owned(),
        _ if cordoned => "cordoned".to_owned(),
        Some(Err(failure)) => format!("built-in order: {failure}"),
        Some(Ok(ranking)) => {
            let mut all = ranking.order.iter().chain(&ranking.excluded);
            let ranked = all.find(|ranked| ranked.node == *node);
            ranked.map_or_else(|| "built-in order".to_owned(), |ranked| ranked.reason.clone())
        }
        None => "built-in order".to_owned(),
    };
    CandidateReport {
        node: node.clone(),
        rank: order.iter().position(|name| name == node).map(|index| index + 1),
        reason,
        fit: record.fitness.fit,
        fitness_reasons: record.fitness.reasons.clone(),
        checks: record.fitness.checks.clone(),
        cordoned,
        cordon: reading.mark(&Key::Cordon(view.election.clone(), node.clone())).map(Into::into),
        facts: record.facts.clone(),
        policy: record.policy.name.clone(),
        fallback: record.policy.fallback,
    }
}

fn age_ms(holder: &Holder) -> Option<u64> {
    let since = holder.term.as_ref()?.since_unix_ms;
    Some(now_unix_ms().saturating_sub(since))
}

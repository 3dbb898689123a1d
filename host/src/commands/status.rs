//! `conclave status`: who holds which election in store, and who else stands.
//!
//! A reader of the store cannot say who *leads*: only the node itself can (S8). So the words here
//! are "holder in store".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use conclave_core::listing::{Holder, Listing};
use conclave_core::ranking::effective_order;
use conclave_core::{ElectionName, NodeName};
use serde::Serialize;

use crate::cli::{Output, Status, StoreArguments, exit};
use crate::commands::cluster::{self, Cluster, Reading};
use crate::commands::say;
use crate::config::Occasion;
use crate::daemon::PolicySet;
use crate::terminal::plain;

/// How long compiling policies for the ranking may take.
const COMPILE_LIMIT: Duration = Duration::from_secs(30);

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Report {
    cluster: String,
    revision: u64,
    nodes: Vec<NodeReport>,
    elections: Vec<ElectionReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: NodeName,
    addresses: Vec<String>,
    labels: BTreeMap<String, String>,
    ttl_ms: u64,
    /// How long the session had stood at its newest beat.
    session_age_ms: u64,
    version: String,
}

#[derive(Debug, Serialize)]
struct ElectionReport {
    election: ElectionName,
    holder_in_store: Option<HolderReport>,
    paused: bool,
    /// Whether the candidates' order is the policy's; otherwise it is the built-in one, and nodes may
    /// see it otherwise.
    ranked_by_policy: bool,
    candidates: Vec<CandidateReport>,
}

#[derive(Debug, Serialize)]
struct HolderReport {
    /// `None` for a foreign competitor.
    node: Option<NodeName>,
    key: String,
    token: u64,
    /// By the holder's wall clock and ours; for people.
    age_ms: Option<u64>,
    /// Whether the session under the term has a record. Whether its owner still beats only
    /// other nodes can tell, by timing it.
    session_stands: bool,
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct CandidateReport {
    node: NodeName,
    /// Counted from 1; `None` for one that may not lead.
    rank: Option<usize>,
    reason: String,
    fit: bool,
    fitness_reasons: Vec<String>,
    cordoned: bool,
    facts: BTreeMap<String, String>,
    policy: String,
    /// The built-in ranking stands in for the policy on that node.
    fallback: bool,
}

pub(super) fn status(arguments: &Status) -> Result<u8> {
    let report = cluster::block_on(read(&arguments.store))?;
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", table(&report)),
    }
    Ok(exit::SUCCESS)
}

async fn read(arguments: &StoreArguments) -> Result<Report> {
    let cluster = Cluster::open(arguments).await?;
    let config = &cluster.config;
    let Reading { at, listing, .. } = match config {
        None => cluster.read_known().await?,
        Some(_) => cluster.read().await?,
    };
    let policies = match config {
        None => {
            say(
                "warning: candidates are shown in built-in order: policies are asked with --config only",
            );
            PolicySet::none()
        }
        Some(config) => {
            match PolicySet::load(Arc::clone(config), Occasion::Again, COMPILE_LIMIT).await {
                Ok(policies) => policies,
                Err(errors) => {
                    say(&format!("warning: candidates are shown in built-in order:\n{errors}"));
                    PolicySet::none()
                }
            }
        }
    };
    let me = config.as_ref().map_or_else(|| NodeName::new("status"), |c| c.node.name.clone());
    let names: Vec<ElectionName> = match config {
        // An election of the configuration is shown even if nobody has ever stood in it.
        Some(config) => {
            let mut names: Vec<_> = listing.elections().cloned().collect();
            names.extend(config.elections.iter().map(|e| e.name.clone()));
            names.sort();
            names.dedup();
            names
        }
        None => listing.elections().cloned().collect(),
    };
    Ok(Report {
        cluster: cluster.name,
        revision: at.0,
        nodes: nodes(&listing),
        elections: names
            .iter()
            .map(|election| election_report(&listing, election, &me, &policies))
            .collect(),
    })
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

fn election_report(
    listing: &Listing,
    election: &ElectionName,
    me: &NodeName,
    policies: &PolicySet,
) -> ElectionReport {
    let holder = listing.holder(election);
    let age = holder.as_ref().and_then(age_ms);
    let view = listing.view(election, me, age.unwrap_or(0));
    let ranking = policies.binding(election).map(|binding| binding.rank(&view).result);
    let (ranking, failure) = match ranking {
        None => (None, None),
        Some(Ok(ranking)) => (Some(ranking), None),
        Some(Err(reason)) => (None, Some(reason)),
    };
    let ranked_by_policy = ranking.is_some();
    let order = effective_order(&view, ranking.as_ref());
    let reason = |node: &NodeName| {
        let ranking = ranking.as_ref()?;
        let all = ranking.order.iter().chain(&ranking.excluded);
        all.clone().find(|ranked| ranked.node == *node).map(|ranked| ranked.reason.clone())
    };
    let mut candidates: Vec<CandidateReport> = listing
        .candidacies(election)
        .map(|(node, record)| {
            let cordoned = view.candidates.iter().any(|c| c.name == *node && c.cordoned);
            let rank = order.iter().position(|name| name == node).map(|index| index + 1);
            let own = if !record.fitness.fit {
                Some("unfit".to_owned())
            } else if cordoned {
                Some("cordoned".to_owned())
            } else {
                failure.as_ref().map(|failure| format!("built-in order: {failure}"))
            };
            CandidateReport {
                node: node.clone(),
                rank,
                reason: own.or_else(|| reason(node)).unwrap_or_else(|| "built-in order".to_owned()),
                fit: record.fitness.fit,
                fitness_reasons: record.fitness.reasons.clone(),
                cordoned,
                facts: record.facts.clone(),
                policy: record.policy.name.clone(),
                fallback: record.policy.fallback,
            }
        })
        .collect();
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
        ranked_by_policy,
        candidates,
    }
}

fn age_ms(holder: &Holder) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() as u64;
    let since = holder.term.as_ref()?.since_unix_ms;
    Some(now.saturating_sub(since))
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&plain(&line));
        out.push('\n');
    };
    say(format!("cluster {}  revision {}", report.cluster, report.revision));
    for election in &report.elections {
        let paused = if election.paused { "  PAUSED" } else { "" };
        say(String::new());
        say(format!("{}{paused}", election.election));
        say(format!("  holder in store: {}", holder_line(election)));
        if election.candidates.is_empty() {
            say("  no candidates".to_owned());
            continue;
        }
        let width = election.candidates.iter().map(|c| c.node.as_str().chars().count()).max();
        let width = width.unwrap_or(0).max("NODE".len());
        say(format!("  RANK  {:width$}  FIT  WHY", "NODE"));
        for candidate in &election.candidates {
            let rank = candidate.rank.map_or("-".to_owned(), |rank| rank.to_string());
            let fit = if candidate.fit { "yes" } else { "no" };
            let (node, why) = (candidate.node.as_str(), why(candidate));
            say(format!("  {rank:<4}  {node:width$}  {fit:<3}  {why}"));
        }
    }
    out
}

/// Why a candidate stands where it stands, and what else there is to know of it.
fn why(candidate: &CandidateReport) -> String {
    let mut why = vec![candidate.reason.clone()];
    why.extend(candidate.fitness_reasons.iter().cloned());
    if candidate.fallback {
        why.push("policy failing there, built-in ranking stands in".to_owned());
    }
    why.extend(candidate.facts.iter().map(|(key, value)| format!("{key}={value}")));
    why.retain(|part| !part.is_empty());
    why.join("; ")
}

fn holder_line(election: &ElectionReport) -> String {
    let Some(holder) = &election.holder_in_store else { return "nobody".to_owned() };
    let Some(node) = &holder.node else {
        return format!("a foreign competitor (key {}), token {}", holder.key, holder.token);
    };
    let age = holder.age_ms.map_or(String::new(), |ms| {
        format!(", for {}", humantime::format_duration(Duration::from_secs(ms / 1000)))
    });
    let gone = if holder.session_stands { "" } else { "; its session has ended" };
    let why = holder.why.as_deref().map_or(String::new(), |why| format!(" ({why})"));
    format!("{node}, token {}{age}{why}{gone}", holder.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_says_cannot_reach_the_terminal() {
        let evil = "\u{1b}[2J\u{9b}1A\r\nlies";
        let candidate = CandidateReport {
            node: NodeName::new(evil),
            rank: Some(1),
            reason: evil.to_owned(),
            fit: false,
            fitness_reasons: vec![evil.to_owned()],
            cordoned: false,
            facts: BTreeMap::from([(evil.to_owned(), evil.to_owned())]),
            policy: evil.to_owned(),
            fallback: false,
        };
        let holder = HolderReport {
            node: Some(NodeName::new(evil)),
            key: evil.to_owned(),
            token: 7,
            age_ms: None,
            session_stands: true,
            why: Some(evil.to_owned()),
        };
        let election = ElectionReport {
            election: ElectionName::new(evil),
            holder_in_store: Some(holder),
            paused: false,
            ranked_by_policy: true,
            candidates: vec![candidate],
        };
        let report = Report {
            cluster: "c".to_owned(),
            revision: 7,
            nodes: Vec::new(),
            elections: vec![election],
        };
        let shown = table(&report);
        let controls: Vec<char> = shown.chars().filter(|c| c.is_control()).collect();
        assert_eq!(controls, ['\n'; 6], "one line for each thing: {shown:?}");
    }
}

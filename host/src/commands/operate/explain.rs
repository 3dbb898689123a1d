//! `conclave explain ELECTION`: why this node holds the term, why the others do not, and what would have
//! to change.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use conclave_core::ranking::effective_order;
use conclave_core::record::{CandidacyRecord, LeaderRecord, MarkRecord};
use conclave_core::view::{CandidateView, Ranking, View};
use conclave_core::{ElectionName, Key, NodeName, Token};
use serde::Serialize;

use super::{known_election, now_unix_ms, span};
use crate::cli::{History, Output, exit};
use crate::commands::cluster::{self, Cluster, Reading};
use crate::config::{Occasion, OnPolicyFailure};
use crate::daemon::{Binding, PolicySet};
use crate::terminal::plain;

/// How long compiling the policy may take.
const COMPILE_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Report {
    election: ElectionName,
    /// Whom the store names; whether it leads only it can say.
    holder_in_store: Option<NodeName>,
    token: Option<Token>,
    /// In words: how it came to hold the term, or why nobody does.
    how: String,
    /// Why it goes on, in the policy's words.
    why: Option<String>,
    /// What keeps the term where it is although another might be ranked first.
    held_by: Vec<String>,
    others: Vec<Other>,
}

/// A node that does not hold it.
#[derive(Debug, Serialize)]
struct Other {
    node: NodeName,
    why_not: String,
    /// What would have to change.
    until: String,
}

pub(in crate::commands) fn explain(wanted: &History) -> Result<u8> {
    let report = cluster::block_on(read(wanted))?;
    match wanted.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", words(&report)),
    }
    Ok(exit::SUCCESS)
}

/// All that the answer is made of.
struct Scene<'a> {
    reading: &'a Reading,
    election: &'a ElectionName,
    view: View,
    holder: Option<LeaderRecord>,
    token: Option<Token>,
    /// The order in which candidates may lead, best first.
    order: Vec<NodeName>,
    /// What the policy says, or why it says nothing; `None` where nobody asked it.
    ranking: Option<Result<Ranking, String>>,
    hold: bool,
}

async fn read(wanted: &History) -> Result<Report> {
    let cluster = Cluster::open(&wanted.store).await?;
    let reading = cluster.read_known().await?;
    let election = known_election(&cluster, &reading, &wanted.election)?;
    let binding = match &cluster.config {
        None => None,
        Some(config) => {
            let loaded = PolicySet::load(Arc::clone(config), Occasion::Again, COMPILE_LIMIT).await;
            loaded.ok().and_then(|policies| policies.binding(&election))
        }
    };
    Ok(report(&Scene::new(&reading, &election, binding.as_ref())))
}

impl<'a> Scene<'a> {
    fn new(reading: &'a Reading, election: &'a ElectionName, binding: Option<&Binding>) -> Self {
        let holder = reading.listing.holder(election);
        let token = holder.as_ref().map(|holder| holder.token);
        let holder = holder.and_then(|holder| holder.term);
        let held = holder.as_ref().map_or(0, held_ms);
        // Whoever asks sees the same; the holder's own view counts.
        let me = holder.as_ref().map_or_else(|| NodeName::new("explain"), |it| it.holder.clone());
        let view = reading.listing.view(election, &me, held);
        let ranking = binding.map(|binding| binding.rank(&view).result);
        let order = effective_order(&view, ranking.as_ref().and_then(|it| it.as_ref().ok()));
        let hold = binding.is_some_and(|it| it.on_failure() == OnPolicyFailure::Hold);
        Scene { reading, election, view, holder, token, order, ranking, hold }
    }

    fn candidacy(&self, node: &NodeName) -> Option<&CandidacyRecord> {
        let mut all = self.reading.listing.candidacies(self.election);
        all.find(|(name, _)| *name == node).map(|(_, record)| record)
    }

    /// The policy's reason for a node's place.
    fn reason(&self, node: &NodeName) -> Option<&str> {
        let ranking = self.ranking.as_ref()?.as_ref().ok()?;
        let mut all = ranking.order.iter().chain(&ranking.excluded);
        all.find(|ranked| ranked.node == *node).map(|ranked| ranked.reason.as_str())
    }

    fn excludes(&self, node: &NodeName) -> bool {
        let ranking = self.ranking.as_ref().and_then(|ranking| ranking.as_ref().ok());
        ranking.is_some_and(|it| it.excluded.iter().any(|ranked| ranked.node == *node))
    }
}

fn held_ms(term: &LeaderRecord) -> u64 {
    now_unix_ms().saturating_sub(term.since_unix_ms)
}

fn report(scene: &Scene<'_>) -> Report {
    let holder = scene.holder.as_ref();
    let name = holder.map(|term| &term.holder);
    let candidates = &scene.view.candidates;
    let others = candidates.iter().filter(|candidate| Some(&candidate.name) != name);
    Report {
        election: scene.election.clone(),
        holder_in_store: name.cloned(),
        token: scene.token,
        how: how(scene),
        why: name.map(|name| match &scene.ranking {
            None => {
                "the policy was not asked: name a node's configuration with --config".to_owned()
            }
            Some(Err(reason)) => {
                format!("its policy fails, and the built-in ranking stands in: {reason}")
            }
            Some(Ok(_)) => {
                scene.reason(name).unwrap_or("its policy does not mention it").to_owned()
            }
        }),
        held_by: held_by(scene),
        others: others.map(|candidate| other(scene, candidate)).collect(),
    }
}

fn how(scene: &Scene<'_>) -> String {
    match (&scene.holder, scene.token) {
        (Some(term), Some(token)) => {
            let held = span(Duration::from_millis(held_ms(term)));
            format!(
                "{} holds it in store, with token {token}, for {held}: {}",
                term.holder, term.why
            )
        }
        (None, Some(token)) => format!("a foreign competitor holds it, with token {token}"),
        _ if scene.view.candidates.is_empty() => {
            "nobody holds it: there are no candidates".to_owned()
        }
        _ if scene.order.is_empty() => {
            "nobody holds it: no candidate is fit, not cordoned and not excluded".to_owned()
        }
        _ if scene.hold && matches!(scene.ranking, Some(Err(_))) => {
            "nobody holds it: its policy fails, and `on_policy_failure: hold` elects nobody new"
                .to_owned()
        }
        _ => "nobody holds it at this moment".to_owned(),
    }
}

/// What keeps the term where it is.
fn held_by(scene: &Scene<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(term) = &scene.holder else { return reasons };
    if let Some(mark) = scene.reading.mark(&Key::Pause(scene.election.clone())) {
        reasons.push(format!("it is paused{}: conclave resume {}", said(&mark), scene.election));
    }
    let first = scene.order.first().filter(|first| **first != term.holder);
    let Some(first) = first else { return reasons };
    reasons.push(format!(
        "{first} is ranked before {}, and may take it once the minimum term is over",
        term.holder
    ));
    let version = |node: &NodeName| scene.candidacy(node).map(|record| record.policy.clone());
    let own = version(&term.holder);
    let differ: Vec<&str> = scene
        .order
        .iter()
        .filter(|node| version(node).is_some_and(|other| Some(&other) != own.as_ref()))
        .map(NodeName::as_str)
        .collect();
    if !differ.is_empty() {
        reasons.push(format!(
            "the ranking moves nothing while nodes decide by another policy version than {}: {}",
            term.holder,
            differ.join(", ")
        ));
    }
    reasons
}

fn other(scene: &Scene<'_>, candidate: &CandidateView) -> Other {
    let node = candidate.name.clone();
    let mark = scene.reading.mark(&Key::Cordon(scene.election.clone(), node.clone()));
    let reason = scene.reason(&node).filter(|reason| !reason.is_empty());
    let (why_not, until) = if let Some(mark) = mark {
        (format!("cordoned{}", said(&mark)), format!("conclave uncordon {node}"))
    } else if !candidate.fitness.fit {
        let reasons = candidate.fitness.reasons.join("; ");
        (format!("unfit: {reasons}"), "that is mended on the node itself".to_owned())
    } else if scene.excludes(&node) {
        let reason = reason.unwrap_or("it does not say why");
        (format!("the policy excludes it: {reason}"), "that no longer holds".to_owned())
    } else {
        let place = scene.order.iter().position(|name| *name == node).map_or(0, |at| at + 1);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let ask = format!("or conclave transfer {} --to {node}", scene.election);
        let until = match &scene.holder {
            Some(term) => {
                format!("{} stops, falls silent, or may not lead any more; {ask}", term.holder)
            }
            None => "it takes the vacant election".to_owned(),
        };
        (format!("number {place} in the ranking{reason}"), until)
    };
    Other { node, why_not, until }
}

fn said(mark: &MarkRecord) -> String {
    if mark.note.is_empty() { String::new() } else { format!(" ({})", mark.note) }
}

fn words(report: &Report) -> String {
    let mut lines = vec![format!("{}: {}", report.election, report.how)];
    if let (Some(node), Some(why)) = (&report.holder_in_store, &report.why) {
        lines.push(format!("  why {node}: {why}"));
    }
    lines.extend(report.held_by.iter().map(|reason| format!("  it stays: {reason}")));
    for Other { node, why_not, until } in &report.others {
        lines.push(format!("  why not {node}: {why_not}"));
        lines.push(format!("    until {until}"));
    }
    lines.iter().map(|line| plain(line) + "\n").collect()
}

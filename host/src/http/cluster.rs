//! What the store has of the whole cluster, as a node passes it on. Here nobody is said to lead: only "holder in
//! store" (S8).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use conclave_core::{ElectionName, NodeName};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::Shown;
use super::answers::{answer, failed, json, unknown_in_store};
use super::outlook::Seen;
use crate::daemon::PolicySet;
use crate::reading::report::{Report, report};
use crate::reading::terms::{Term, all_terms};

/// How many terms of each election are told with the cluster.
const TERMS: usize = 20;

/// How many times as long as it took to make an answer, the answer is given again: asking policies about
/// thousands of elections must not become this node's main work.
const RARELY: u32 = 10;

#[derive(Debug, Serialize)]
struct ClusterAnswer<'a> {
    node: &'a NodeName,
    /// How old this is.
    age_ms: u64,
    /// Whether the store answered when it was last asked for it.
    store_answers: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// The policies that rank in the answers, and the last answer.
#[derive(Debug, Default)]
pub(crate) struct Ranked {
    policies: Mutex<PolicySet>,
    last: tokio::sync::Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    report: Report,
    read_at: Instant,
    made: Instant,
    took: Duration,
}

impl Ranked {
    /// From now on these decide.
    pub(crate) fn by(&self, policies: PolicySet) {
        *self.policies.lock().unwrap_or_else(PoisonError::into_inner) = policies;
    }

    fn policies(&self) -> PolicySet {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) async fn cluster(State(shown): State<Shown>) -> Response<Body> {
    let outlook = &shown.outlook;
    let Some(seen) = outlook.look().await else { return nothing_read() };
    // One at a time: whoever comes meanwhile gets the same.
    let mut last = outlook.ranked.last.lock().await;
    let fresh =
        |last: &Last| last.read_at == seen.read_at || last.made.elapsed() < last.took * RARELY;
    if !last.as_ref().is_some_and(fresh) {
        match make(&shown, &seen).await {
            Some(made) => *last = Some(made),
            None => return failed("the answer could not be made"),
        }
    }
    let Some(last) = &*last else { return nothing_read() };
    json(&ClusterAnswer {
        node: &outlook.node,
        age_ms: last.read_at.elapsed().as_millis() as u64,
        store_answers: seen.store_answers,
        report: &last.report,
    })
}

/// Asks the policies, which block, beside the thread that answers.
async fn make(shown: &Shown, seen: &Seen) -> Option<Last> {
    let outlook = &shown.outlook;
    let (cluster, node) = (outlook.cluster.clone(), outlook.node.clone());
    let (policies, seen) = (outlook.ranked.policies(), seen.clone());
    let configured: Vec<ElectionName> = shown.board.read().elections.keys().cloned().collect();
    let making = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let reading = &seen.reading;
        let mut names: Vec<ElectionName> = reading.listing.elections().cloned().collect();
        names.extend(configured);
        names.sort();
        names.dedup();
        let mut report = report(&cluster, reading, &names, &node, &policies);
        let mut terms = all_terms(reading);
        for election in &mut report.elections {
            let terms = terms.remove(&election.election).unwrap_or_default();
            election.terms = last_of(terms);
        }
        Last { report, read_at: seen.read_at, made: Instant::now(), took: began.elapsed() }
    });
    making.await.ok()
}

fn last_of(mut terms: Vec<Term>) -> Vec<Term> {
    terms.split_off(terms.len().saturating_sub(TERMS))
}

/// All terms of an election that the store still has.
pub(super) async fn history(
    State(shown): State<Shown>,
    Path(name): Path<String>,
) -> Response<Body> {
    let Some(seen) = shown.outlook.look().await else { return nothing_read() };
    let election = ElectionName::new(name.as_str());
    if !seen.reading.listing.elections().any(|known| *known == election) {
        return unknown_in_store(&name);
    }
    let terms = all_terms(&seen.reading).remove(&election).unwrap_or_default();
    json(&json!({
        "election": election,
        "age_ms": seen.read_at.elapsed().as_millis() as u64,
        "store_answers": seen.store_answers,
        "terms": terms,
    }))
}

fn nothing_read() -> Response<Body> {
    let error = json!({ "error": "the store has not answered yet" });
    answer(StatusCode::SERVICE_UNAVAILABLE, "application/json", error.to_string())
}

//! The answers, one function for each path.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use conclave_core::record::Fitness;
use conclave_core::status::Phase;
use conclave_core::{ElectionName, NodeName, SessionId, Token};
use serde::Serialize;

use super::Shown;
use super::board::{ElectionSnapshot, Snapshot};

/// This node, as it says itself.
#[derive(Debug, Serialize)]
struct NodeAnswer {
    cluster: String,
    node: NodeName,
    version: &'static str,
    session: Option<SessionId>,
    /// For how long its terms stand if no beat is confirmed any more.
    valid_for_ms: u64,
    store_answers: bool,
    elections: Vec<ElectionAnswer>,
}

/// One election, as this node says itself.
#[derive(Debug, Serialize)]
struct ElectionAnswer {
    election: ElectionName,
    role: Role,
    phase: &'static str,
    /// The term that this node has, if any.
    token: Option<Token>,
    /// Whether what only a leader has is reported to be in place for that term.
    in_place: bool,
    /// Whom the store names.
    holder_in_store: Option<Holder>,
    fitness: Option<Fitness>,
    /// What the shadow policy was asked since the daemon started, by outcome.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shadow: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Holder {
    node: NodeName,
    token: Token,
}

/// What a node is in an election at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// It leads, and its deadline has not passed.
    Leader,
    /// It could.
    Standby,
    /// Anything else: without a session, unfit, between the two.
    None,
}

/// What it is: a leader only within its deadline, whatever was written on the board.
pub(super) fn role(election: &ElectionSnapshot, valid_for: Duration) -> Role {
    let fit = election.fitness.as_ref().is_some_and(|fitness| fitness.fit);
    match election.phase {
        _ if valid_for.is_zero() => Role::None,
        Phase::Leading => Role::Leader,
        Phase::Standby | Phase::Campaigning if fit => Role::Standby,
        _ => Role::None,
    }
}

/// A phase's name, for programs.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Spectating => "spectating",
        Phase::Standby => "standby",
        Phase::Campaigning => "campaigning",
        Phase::Waiting => "waiting",
        Phase::Leading => "leading",
        Phase::Withdrawing => "withdrawing",
        Phase::Stuck => "stuck",
    }
}

pub(super) async fn live(State(shown): State<Shown>) -> Response<Body> {
    match shown.board.hung_for() {
        None => text(StatusCode::OK, "the loop makes progress"),
        Some(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the loop makes no progress"),
    }
}

/// Ready: it takes part in every election, whoever leads.
pub(super) async fn ready(State(shown): State<Shown>) -> Response<Body> {
    let snapshot = shown.board.read();
    let unready = |why: &str| text(StatusCode::SERVICE_UNAVAILABLE, why);
    if shown.board.hung_for().is_some() {
        return unready("the loop makes no progress");
    }
    if shown.board.valid_for(&snapshot).is_zero() {
        return unready("it has no session in the store");
    }
    let missing = |election: &ElectionSnapshot| {
        election.fitness.is_none() || matches!(election.phase, Phase::Spectating | Phase::Stuck)
    };
    match snapshot.elections.iter().find(|(_, election)| missing(election)) {
        Some((name, _)) => unready(&format!("it takes no part in {name}")),
        None => text(StatusCode::OK, "it takes part in every election"),
    }
}

pub(super) async fn metrics(State(shown): State<Shown>) -> Response<Body> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shown.metrics.encode(&shown.board) {
        Ok(text) => answer(StatusCode::OK, kind, text),
        Err(error) => failed(&error.to_string()),
    }
}

pub(super) async fn status(State(shown): State<Shown>) -> Response<Body> {
    let snapshot = shown.board.read();
    let valid_for = shown.board.valid_for(&snapshot);
    let elections = snapshot.elections.iter();
    json(&NodeAnswer {
        cluster: shown.board.cluster.clone(),
        node: shown.board.node.clone(),
        version: env!("CARGO_PKG_VERSION"),
        session: snapshot.session,
        valid_for_ms: valid_for.as_millis() as u64,
        store_answers: snapshot.store_answers,
        elections: elections
            .map(|(name, it)| election_answer(&shown, name, it, valid_for))
            .collect(),
    })
}

pub(super) async fn election(
    State(shown): State<Shown>,
    Path(name): Path<String>,
) -> Response<Body> {
    let snapshot = shown.board.read();
    match find(&snapshot, &name) {
        Some((name, it)) => {
            json(&election_answer(&shown, name, it, shown.board.valid_for(&snapshot)))
        }
        None => unknown(&name),
    }
}

pub(super) async fn leader(
    state: State<Shown>,
    name: Path<String>,
    method: Method,
) -> Response<Body> {
    check(&state, &name, &method, |role| role == Role::Leader)
}

pub(super) async fn standby(
    state: State<Shown>,
    name: Path<String>,
    method: Method,
) -> Response<Body> {
    check(&state, &name, &method, |role| role == Role::Standby)
}

pub(super) async fn candidate(
    state: State<Shown>,
    name: Path<String>,
    method: Method,
) -> Response<Body> {
    check(&state, &name, &method, |role| role != Role::None)
}

/// 200 or 503, for load balancers.
fn check(shown: &Shown, name: &str, method: &Method, holds: fn(Role) -> bool) -> Response<Body> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here");
        let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
        refused.headers_mut().insert(header::ALLOW, allowed);
        return refused;
    }
    let snapshot = shown.board.read();
    let Some((_, election)) = find(&snapshot, name) else { return unknown(name) };
    let role = role(election, shown.board.valid_for(&snapshot));
    let status = if holds(role) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = match role {
        Role::Leader => "leader",
        Role::Standby => "standby",
        Role::None => "none",
    };
    text(status, word)
}

fn find<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Option<(&'a ElectionName, &'a ElectionSnapshot)> {
    let (name, election) = snapshot.elections.get_key_value(&ElectionName::new(name))?;
    Some((name, election))
}

fn election_answer(
    shown: &Shown,
    name: &ElectionName,
    it: &ElectionSnapshot,
    valid_for: Duration,
) -> ElectionAnswer {
    let role = role(it, valid_for);
    ElectionAnswer {
        election: name.clone(),
        role,
        phase: phase(it.phase),
        token: it.token,
        in_place: role == Role::Leader && it.token.is_some() && it.token == it.placed,
        holder_in_store: it.holder.clone().map(|(node, token)| Holder { node, token }),
        fitness: it.fitness.clone(),
        shadow: shown.metrics.shadow_counts(name),
    }
}

fn unknown(name: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, &format!("this node takes part in no election `{}`", shown(name)))
}

pub(super) fn unknown_in_store(name: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, &format!("the store knows no election `{}`", shown(name)))
}

/// A name that somebody asked for, fit to be told back.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

pub(super) fn failed(words: &str) -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, words)
}

pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => answer(StatusCode::OK, "application/json", text),
        Err(error) => failed(&error.to_string()),
    }
}

pub(super) fn text(status: StatusCode, words: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", format!("{words}\n"))
}

/// What is true now need not be true in a moment, so nobody shall keep it.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_within_the_deadline_leads() {
        let it = |phase, fit| ElectionSnapshot {
            phase,
            token: None,
            holder: None,
            fitness: Some(if fit { Fitness::fit() } else { Fitness::unfit("ill") }),
            placed: None,
        };
        let (valid, over) = (Duration::from_millis(1), Duration::ZERO);
        for (phase, fit, valid_for, expected) in [
            (Phase::Leading, true, valid, Role::Leader),
            (Phase::Leading, false, valid, Role::Leader),
            (Phase::Leading, true, over, Role::None),
            (Phase::Standby, true, valid, Role::Standby),
            (Phase::Standby, false, valid, Role::None),
            (Phase::Standby, true, over, Role::None),
            (Phase::Campaigning, true, valid, Role::Standby),
            (Phase::Waiting, true, valid, Role::None),
            (Phase::Withdrawing, true, valid, Role::None),
            (Phase::Stuck, true, valid, Role::None),
            (Phase::Spectating, true, valid, Role::None),
        ] {
            assert_eq!(role(&it(phase, fit), valid_for), expected, "{phase:?} {fit} {valid_for:?}");
        }
    }
}

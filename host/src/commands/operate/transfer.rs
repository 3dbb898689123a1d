//! `conclave transfer` and `conclave step-down`: a planned handover.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use conclave_core::listing::Holder;
use conclave_core::record::{EndReason, HistoryRecord, TransferRecord};
use conclave_core::{ElectionName, Key, NodeName, Token, Value};
use conclave_store::Control;
use serde::Serialize;

use super::{known_election, note, print, span, wait};
use crate::cli::{Asking, StepDown, Transfer, exit};
use crate::commands::cluster::{self, Cluster, Reading};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The term is where it should be.
    Moved,
    /// It was there before.
    AlreadyThere,
    /// It was asked for, and nobody waited.
    Asked,
}

#[derive(Debug, Serialize)]
struct Report {
    election: ElectionName,
    outcome: Outcome,
    from: NodeName,
    to: Option<NodeName>,
    /// The fencing token of the term that was to move, and of the one that followed.
    token: Token,
    next_token: Option<Token>,
    took_ms: u64,
}

pub(in crate::commands) fn transfer(wanted: &Transfer) -> Result<u8> {
    run(&wanted.election, wanted.to.as_deref(), wanted.force, &wanted.asking)
}

pub(in crate::commands) fn step_down(wanted: &StepDown) -> Result<u8> {
    run(&wanted.election, None, false, &wanted.asking)
}

fn run(election: &str, to: Option<&str>, force: bool, asking: &Asking) -> Result<u8> {
    let report = cluster::block_on(hand_over(election, to, force, asking))?;
    let Report { election, from, token, .. } = &report;
    let words = match (report.outcome, &report.to, report.next_token) {
        (Outcome::AlreadyThere, ..) => {
            format!("{election}: {from} holds it already, token {token}")
        }
        (Outcome::Moved, Some(to), Some(next)) => format!(
            "{election}: moved from {from} to {to} in {}; token {token}, now {next}",
            span(Duration::from_millis(report.took_ms))
        ),
        _ => format!("{election}: asked {from} to hand over; see `conclave status`"),
    };
    print(asking.output, &report, &words)?;
    Ok(exit::SUCCESS)
}

async fn hand_over(
    election: &str,
    to: Option<&str>,
    force: bool,
    asking: &Asking,
) -> Result<Report> {
    let cluster = Cluster::open(&asking.store).await?;
    let reading = cluster.read_known().await?;
    let election = known_election(&cluster, &reading, election)?;
    let (from, token) = standing(&reading, &election)?;
    let to = to.map(NodeName::new);
    let report = |outcome, to, next_token, took: Duration| Report {
        election: election.clone(),
        outcome,
        from: from.clone(),
        to,
        token,
        next_token,
        took_ms: took.as_millis() as u64,
    };
    if to.as_ref() == Some(&from) {
        return Ok(report(Outcome::AlreadyThere, to, None, Duration::ZERO));
    }
    if let Some(reason) = refusal(&reading, &election, &from, to.as_ref()).filter(|_| !force) {
        bail!("{election}: {reason}");
    }

    let asked = TransferRecord { token, to: to.clone(), note: note(asking) };
    let began = Instant::now();
    tell(&cluster, &election, Some(asked.clone())).await?;
    if asking.no_wait {
        return Ok(report(Outcome::Asked, to, None, began.elapsed()));
    }
    let what = format!("{from} to hand {election} over");
    let followed =
        wait(&cluster, asking.timeout, &what, |reading| next_term(reading, &election, token));
    let Some((next, end)) = followed.await else {
        return Err(give_up(&cluster, &election, &from, &asked, asking.timeout).await);
    };
    let holder = next.term.map(|term| term.holder);
    let moved = end.is_some_and(|end| end.why == EndReason::Transfer);
    match (&to, holder) {
        (_, None) => bail!("{election}: a foreign competitor holds it now (key {})", next.suffix),
        (Some(to), Some(holder)) if holder != *to => {
            bail!("{election}: {from}'s term ended meanwhile, and {holder} holds it now, not {to}")
        }
        (None, Some(holder)) if holder == from && !moved => {
            bail!("{election}: {from}'s term ended meanwhile, and {from} holds it again")
        }
        (_, Some(holder)) => {
            Ok(report(Outcome::Moved, Some(holder), Some(next.token), began.elapsed()))
        }
    }
}

/// Whose term stands.
fn standing(reading: &Reading, election: &ElectionName) -> Result<(NodeName, Token)> {
    let holder = reading.listing.holder(election);
    let holder =
        holder.with_context(|| format!("{election}: nobody holds it, so nothing can move"))?;
    let term = holder.term.with_context(|| {
        format!(
            "{election}: a foreign competitor holds it (key {}), whom nobody here can ask",
            holder.suffix
        )
    })?;
    Ok((term.holder, holder.token))
}

/// Why the term could not move there now, if so.
fn refusal(
    reading: &Reading,
    election: &ElectionName,
    from: &NodeName,
    to: Option<&NodeName>,
) -> Option<String> {
    let view = reading.listing.view(election, from, 0);
    if view.paused {
        return Some("it is paused; end that first: conclave resume".to_owned());
    }
    let able = |candidate: &conclave_core::view::CandidateView| {
        candidate.fitness.fit && !candidate.cordoned && candidate.name != *from
    };
    let Some(to) = to else {
        let none = !view.candidates.iter().any(able);
        return none.then(|| {
            format!("there is nobody to follow {from}: no other candidate is fit and not cordoned")
        });
    };
    match view.candidates.iter().find(|candidate| candidate.name == *to) {
        None => {
            let names: Vec<&str> = view.candidates.iter().map(|c| c.name.as_str()).collect();
            Some(format!("{to} is no candidate; there are {}", names.join(", ")))
        }
        Some(candidate) if candidate.cordoned => {
            Some(format!("{to} is cordoned; let it lead again first: conclave uncordon {to}"))
        }
        Some(candidate) if !candidate.fitness.fit => {
            let reasons = candidate.fitness.reasons.join("; ");
            Some(format!("{to} is unfit ({reasons}); with --force the term moves once it is fit"))
        }
        Some(_) => None,
    }
}

/// The term after this one, and how this one ended.
fn next_term(
    reading: &Reading,
    election: &ElectionName,
    token: Token,
) -> Option<(Holder, Option<HistoryRecord>)> {
    let next = reading.listing.holder(election).filter(|holder| holder.token != token)?;
    let ended = Key::History(election.clone(), token);
    let end = reading.entries.iter().find(|entry| entry.key == ended);
    let end = end.and_then(|entry| match &entry.stored.as_ref()?.value {
        Value::History(record) => Some(record.clone()),
        _ => None,
    });
    Some((next, end))
}

/// It did not move in time: takes back what was asked for, and says why, as far as can be seen.
async fn give_up(
    cluster: &Cluster,
    election: &ElectionName,
    from: &NodeName,
    asked: &TransferRecord,
    limit: Duration,
) -> anyhow::Error {
    let reading = match cluster.read().await {
        Ok(reading) => reading,
        Err(error) => return error.context("the transfer was asked for and may still happen"),
    };
    let key = Key::Transfer(election.clone());
    let mut entries = reading.entries.iter().filter(|entry| entry.key == key);
    let ours = entries.any(|entry| {
        entry.stored.as_ref().is_some_and(|stored| stored.value == Value::Transfer(asked.clone()))
    });
    if ours && let Err(error) = tell(cluster, election, None).await {
        return error.context("the transfer was asked for and may still happen");
    }
    let why = refusal(&reading, election, from, asked.to.as_ref()).unwrap_or_else(|| {
        "whoever was asked did not accept, or the policy excludes them: see `conclave status`"
            .to_owned()
    });
    anyhow::anyhow!(
        "{election}: {from} still holds it after {}, and is no longer asked to hand over: {why}",
        span(limit)
    )
}

async fn tell(
    cluster: &Cluster,
    election: &ElectionName,
    transfer: Option<TransferRecord>,
) -> Result<()> {
    cluster.tell(Control::Transfer { election: election.clone(), transfer }).await
}

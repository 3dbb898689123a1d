//! `conclave history`: an election's terms, the newest last.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use conclave_core::record::{EndReason, HistoryRecord};
use conclave_core::{ElectionName, Key, NodeName, Token, Value};
use serde::Serialize;

use super::{known_election, now_unix_ms, span};
use crate::cli::{History, Output, exit};
use crate::commands::cluster::{self, Cluster, Reading};
use crate::terminal::columns;

/// A term. Its times are those of the nodes' wall clocks: for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Term {
    token: Token,
    node: NodeName,
    from_unix_ms: u64,
    /// `None` while it stands.
    to_unix_ms: Option<u64>,
    length_ms: u64,
    /// Why it ended.
    why: Option<EndReason>,
    /// Whether what it ran is known to have stopped.
    clean: Option<bool>,
    /// Who received it in the same transaction, if anybody.
    handed_to: Option<NodeName>,
    /// How long nobody held the election before; `None` for the first that is known.
    gap_before_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Report {
    election: ElectionName,
    terms: Vec<Term>,
}

pub(in crate::commands) fn history(wanted: &History) -> Result<u8> {
    let report = cluster::block_on(read(wanted))?;
    match wanted.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", table(&report)),
    }
    Ok(exit::SUCCESS)
}

async fn read(wanted: &History) -> Result<Report> {
    let cluster = Cluster::open(&wanted.store).await?;
    let reading = cluster.read_known().await?;
    let election = known_election(&cluster, &reading, &wanted.election)?;
    let mut terms = ended(&reading, &election);
    terms.extend(standing(&reading, &election, now_unix_ms()));
    terms.sort_by_key(|term| term.token);
    find_gaps(&mut terms);
    Ok(Report { election, terms })
}

fn ended(reading: &Reading, election: &ElectionName) -> Vec<Term> {
    let term = |token: Token, record: &HistoryRecord| Term {
        token,
        node: record.holder.clone(),
        from_unix_ms: record.from_unix_ms,
        to_unix_ms: Some(record.to_unix_ms),
        length_ms: record.to_unix_ms.saturating_sub(record.from_unix_ms),
        why: Some(record.why),
        clean: Some(record.clean),
        handed_to: record.successor.clone(),
        gap_before_ms: None,
    };
    let entries = reading.entries.iter().filter_map(|entry| {
        let Key::History(of, token) = &entry.key else { return None };
        let Value::History(record) = &entry.stored.as_ref()?.value else { return None };
        (of == election).then(|| term(*token, record))
    });
    entries.collect()
}

fn standing(reading: &Reading, election: &ElectionName, now: u64) -> Option<Term> {
    let holder = reading.listing.holder(election)?;
    let term = holder.term?;
    Some(Term {
        token: holder.token,
        node: term.holder,
        from_unix_ms: term.since_unix_ms,
        to_unix_ms: None,
        length_ms: now.saturating_sub(term.since_unix_ms),
        why: None,
        clean: None,
        handed_to: None,
        gap_before_ms: None,
    })
}

fn find_gaps(terms: &mut [Term]) {
    for at in 1..terms.len() {
        let ended = terms[at - 1].to_unix_ms;
        terms[at].gap_before_ms = ended.map(|ended| terms[at].from_unix_ms.saturating_sub(ended));
    }
}

fn table(report: &Report) -> String {
    let head = ["TOKEN", "NODE", "FROM", "LENGTH", "GAP BEFORE", "END"].map(str::to_owned);
    let mut rows = vec![head];
    for term in &report.terms {
        let end = match (&term.why, &term.handed_to) {
            (None, _) => "stands".to_owned(),
            (Some(why), Some(to)) => format!("{}, handed to {to}", reason(*why)),
            (Some(why), None) => reason(*why).to_owned(),
        };
        let clean = if term.clean == Some(true) { ", known to have stopped" } else { "" };
        rows.push([
            term.token.to_string(),
            term.node.to_string(),
            time(term.from_unix_ms),
            span(Duration::from_millis(term.length_ms)),
            term.gap_before_ms.map_or("-".to_owned(), |ms| span(Duration::from_millis(ms))),
            format!("{end}{clean}"),
        ]);
    }
    columns(&rows)
}

/// Why a term ended, in words.
pub(super) fn reason(why: EndReason) -> &'static str {
    match why {
        EndReason::Silent => "its node fell silent",
        EndReason::Stopping => "its node was stopped",
        EndReason::Ranking => "the policy ranked another first",
        EndReason::Transfer => "an operator moved it",
        EndReason::Cordon => "its node was cordoned",
        EndReason::Unfit => "its node became unfit",
        EndReason::Excluded => "the policy excluded its node",
        EndReason::Competitor => "a foreign competitor was next",
        EndReason::Unsettled => "it placed nothing",
        EndReason::Unconfigured => "its node no longer takes part",
    }
}

fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_shown_with_their_gaps_and_ends() {
        let term = |token, from, to: Option<u64>, why, handed_to: Option<&str>| Term {
            token: Token(token),
            node: NodeName::new("a\u{1b}"),
            from_unix_ms: from,
            to_unix_ms: to,
            length_ms: to.unwrap_or(100_000) - from,
            why,
            clean: why.map(|why| why == EndReason::Transfer),
            handed_to: handed_to.map(NodeName::new),
            gap_before_ms: None,
        };
        let mut terms = vec![
            term(4, 1_000, Some(11_000), Some(EndReason::Silent), None),
            term(9, 13_500, Some(73_500), Some(EndReason::Transfer), Some("b")),
            term(17, 73_500, None, None, None),
        ];
        find_gaps(&mut terms);
        let report = Report { election: ElectionName::new("e"), terms };
        assert_eq!(
            table(&report),
            "\
TOKEN  NODE  FROM                  LENGTH  GAP BEFORE  END
4      a     1970-01-01T00:00:01Z  10s     -           its node fell silent
9      a     1970-01-01T00:00:13Z  1m      2s          an operator moved it, handed to b, known to have stopped
17     a     1970-01-01T00:01:13Z  26s     0s          stands
"
        );
    }
}

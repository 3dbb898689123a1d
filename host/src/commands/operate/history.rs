//! `conclave history`: an election's terms, the newest last.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use conclave_core::ElectionName;
use serde::Serialize;

use super::{known_election, span};
use crate::cli::{History, Output, exit};
use crate::commands::cluster::{self, Cluster};
use crate::reading::terms::{Term, all_terms, reason};
use crate::terminal::columns;

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
    let terms = all_terms(&reading).remove(&election).unwrap_or_default();
    Ok(Report { election, terms })
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

fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use conclave_core::record::EndReason;
    use conclave_core::{NodeName, Token};

    use super::*;
    use crate::reading::terms::find_gaps;

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

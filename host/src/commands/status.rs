//! `conclave status`: who holds which election in store, and who else stands.
//!
//! A reader of the store cannot say who *leads*: only the node itself can (S8). So the words here
//! are "holder in store".

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use conclave_core::{ElectionName, NodeName};

use crate::cli::{Output, Status, StoreArguments, exit};
use crate::commands::cluster::{self, Cluster};
use crate::commands::say;
use crate::config::Occasion;
use crate::daemon::PolicySet;
use crate::reading::report::{CandidateReport, ElectionReport, MarkReport, Report, report};
use crate::terminal::plain;

/// How long compiling policies for the ranking may take.
const COMPILE_LIMIT: Duration = Duration::from_secs(30);

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
    let reading = match config {
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
            let mut names: Vec<_> = reading.listing.elections().cloned().collect();
            names.extend(config.elections.iter().map(|e| e.name.clone()));
            names.sort();
            names.dedup();
            names
        }
        None => reading.listing.elections().cloned().collect(),
    };
    let name = cluster.name.clone();
    Ok(report(&name, &reading, &names, &me, &policies))
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&plain(&line));
        out.push('\n');
    };
    say(format!("cluster {}  revision {}", report.cluster, report.revision));
    for election in &report.elections {
        let paused = election.pause.as_ref().map(|pause| format!("  PAUSED{}", pause.words()));
        let paused = paused.unwrap_or_default();
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
    let by = candidate.cordon.as_ref().map(MarkReport::words).unwrap_or_default();
    let mut why = vec![format!("{}{by}", candidate.reason)];
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::reading::report::HolderReport;

    #[test]
    fn what_the_store_says_cannot_reach_the_terminal() {
        let evil = "\u{1b}[2J\u{9b}1A\r\nlies";
        let mark = || MarkReport {
            note: evil.to_owned(),
            since_unix_ms: 0,
            until_unix_ms: Some(u64::MAX / 1_000_000),
        };
        let candidate = CandidateReport {
            node: NodeName::new(evil),
            rank: Some(1),
            reason: evil.to_owned(),
            fit: false,
            fitness_reasons: vec![evil.to_owned()],
            checks: BTreeMap::new(),
            cordoned: true,
            cordon: Some(mark()),
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
            paused: true,
            pause: Some(mark()),
            ranked_by_policy: true,
            candidates: vec![candidate],
            terms: Vec::new(),
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

//! `conclave pause` and `resume`: elections that shall stay as they are.

use std::time::Duration;

use anyhow::{Result, bail};
use conclave_core::record::MarkRecord;
use conclave_core::{ElectionName, Key};
use conclave_store::Control;
use serde::Serialize;

use super::{elections, known_election, note, now_unix_ms, print, span};
use crate::cli::{Pause, PauseFor, exit};
use crate::commands::cluster::{self, Cluster, Reading};

#[derive(Debug, Serialize)]
struct Report {
    paused: bool,
    elections: Vec<ElectionName>,
}

pub(in crate::commands) fn pause(wanted: &PauseFor) -> Result<u8> {
    let report = cluster::block_on(set(&wanted.pause, Some(wanted.lasting)))?;
    let until = match wanted.lasting {
        Some(lasting) => format!("; it ends after {}, or with `conclave resume`", span(lasting)),
        None => "; end it with `conclave resume`".to_owned(),
    };
    show(&wanted.pause, &report, &format!("paused: only what must be moves a term now{until}"))
}

pub(in crate::commands) fn resume(wanted: &Pause) -> Result<u8> {
    let report = cluster::block_on(set(wanted, None))?;
    show(wanted, &report, "no longer paused")
}

fn show(wanted: &Pause, report: &Report, state: &str) -> Result<u8> {
    let names: Vec<&str> = report.elections.iter().map(ElectionName::as_str).collect();
    print(wanted.asking.output, report, &format!("{}: {state}", names.join(", ")))?;
    Ok(exit::SUCCESS)
}

/// Pauses, for so long or without an end; or resumes.
async fn set(wanted: &Pause, pause: Option<Option<Duration>>) -> Result<Report> {
    let paused = pause.is_some();
    let cluster = Cluster::open(&wanted.asking.store).await?;
    let reading = cluster.read_known().await?;
    let mut elections = match &wanted.election {
        Some(name) => vec![known_election(&cluster, &reading, name)?],
        None => elections(&cluster, &reading),
    };
    if !paused {
        elections.retain(|election| is_paused(&reading, election));
        if elections.is_empty() {
            bail!("nothing is paused{}", wanted.election.as_ref().map_or("", |_| " there"));
        }
    }
    for election in &elections {
        let mark = pause.map(|lasting| MarkRecord {
            note: note(&wanted.asking),
            since_unix_ms: now_unix_ms(),
            for_ms: lasting.map(|lasting| lasting.as_millis() as u64),
        });
        cluster.tell(Control::Pause { election: election.clone(), mark }).await?;
    }
    Ok(Report { paused, elections })
}

fn is_paused(reading: &Reading, election: &ElectionName) -> bool {
    let key = Key::Pause(election.clone());
    reading.entries.iter().any(|entry| entry.key == key)
}

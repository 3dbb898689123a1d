//! What operators do to a running cluster: they write an intent into the store, and the nodes act on
//! it. Each command waits for what comes of it and says what happened.

pub(super) mod cordon;
pub(super) mod explain;
pub(super) mod history;
mod live;
pub(super) mod nodes;
pub(super) mod pause;
pub(super) mod transfer;
pub(super) mod watch;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use conclave_core::ElectionName;
use serde::Serialize;

use crate::cli::{Asking, Output};
use crate::commands::cluster::{Cluster, Reading};
use crate::commands::say;
use crate::config::host_name;
use crate::reading::now_unix_ms;
use crate::terminal::plain;

/// How often the store is looked at while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// After this long somebody who waits is told for what.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Who asks, and why, for whoever finds the intent later.
fn note(asking: &Asking) -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let who = format!("{user}@{}", host_name());
    if asking.note.is_empty() { who } else { format!("{who}: {}", asking.note) }
}

/// A span for people, to the second once it has some.
fn span(span: Duration) -> String {
    let whole = Duration::from_secs(span.as_secs());
    let shown =
        if whole.is_zero() { Duration::from_millis(span.as_millis() as u64) } else { whole };
    humantime::format_duration(shown).to_string()
}

/// An election that the store, or the configuration, knows.
fn known_election(cluster: &Cluster, reading: &Reading, name: &str) -> Result<ElectionName> {
    let known = elections(cluster, reading);
    match known.iter().find(|election| election.as_str() == name) {
        Some(election) => Ok(election.clone()),
        None => {
            let names: Vec<&str> = known.iter().map(ElectionName::as_str).collect();
            bail!("there is no election `{name}`; there are {}", plain(&names.join(", ")))
        }
    }
}

/// Every election of the store and of the configuration.
fn elections(cluster: &Cluster, reading: &Reading) -> Vec<ElectionName> {
    let mut known: Vec<ElectionName> = reading.listing.elections().cloned().collect();
    let configured = cluster.config.iter().flat_map(|config| &config.elections);
    known.extend(configured.map(|election| election.name.clone()));
    known.sort();
    known.dedup();
    known
}

/// Looks at the store until something is so; `None` once the time is over. A store that does not
/// answer for a moment is waited for.
async fn wait<T>(
    cluster: &Cluster,
    limit: Duration,
    what: &str,
    mut look: impl FnMut(&Reading) -> Option<T>,
) -> Option<T> {
    let (began, mut told) = (Instant::now(), false);
    loop {
        if let Ok(reading) = cluster.read().await
            && let Some(found) = look(&reading)
        {
            return Some(found);
        }
        if began.elapsed() >= limit {
            return None;
        }
        if !told && began.elapsed() >= TELL_AFTER {
            told = true;
            say(&format!("waiting for {what}, up to {}", span(limit)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Prints what came of it, as people or programs read it.
fn print(output: Output, report: &impl Serialize, words: &str) -> Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
        Output::Table => println!("{}", words.lines().map(plain).collect::<Vec<_>>().join("\n")),
    }
    Ok(())
}

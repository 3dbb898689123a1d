//! `conclave watch`: what changes in a cluster, until it is interrupted: as a live table on a terminal (`live`),
//! as a line for each change elsewhere.

use std::io::{self, Write as _};
use std::time::SystemTime;

use anyhow::Result;
use conclave_core::ElectionName;
use serde::Serialize;

use super::{known_election, live};
use crate::cli::{Output, Watch, exit};
use crate::commands::cluster::{self, Cluster};
use crate::commands::say;
use crate::reading::news::{News, State, learn};
use crate::terminal::plain;

pub(in crate::commands) fn watch(wanted: &Watch) -> Result<u8> {
    cluster::block_on(async {
        tokio::select! {
            done = follow(wanted) => done,
            // Whoever has seen enough.
            _ = tokio::signal::ctrl_c() => Ok(exit::SUCCESS),
        }
    })
}

async fn follow(wanted: &Watch) -> Result<u8> {
    let cluster = Cluster::open(&wanted.store).await?;
    let mut reading = cluster.read_known().await?;
    let only = match &wanted.election {
        Some(name) => Some(known_election(&cluster, &reading, name)?),
        None => None,
    };
    if wanted.output == Output::Table && live::can_draw() {
        return live::watch(&cluster, reading, only.as_ref()).await;
    }
    let mut state = State::new();
    // How things are comes first, as if it had just become so.
    let mut first = learn(&mut state, std::mem::take(&mut reading.entries));
    first.retain(|news| news.event != "term ended");
    let mut out = tell(wanted.output, only.as_ref(), &first);
    if !matches!(out, Ok(true)) {
        return out.map(|_| exit::SUCCESS);
    }
    let told = |news: Result<Vec<News>, _>| {
        match news {
            Ok(news) => out = tell(wanted.output, only.as_ref(), &news),
            Err(error) => say(&format!("the watch broke and begins anew: {error}")),
        }
        matches!(out, Ok(true))
    };
    cluster.follow(reading.at, &mut state, told).await;
    out.map(|_| exit::SUCCESS)
}

/// Prints news; `false` once nobody reads them any more.
fn tell(output: Output, only: Option<&ElectionName>, news: &[News]) -> Result<bool> {
    #[derive(Serialize)]
    struct Line<'a> {
        at: String,
        #[serde(flatten)]
        news: &'a News,
    }
    let mut out = io::stdout().lock();
    for news in news {
        if only.is_some_and(|only| news.election.as_ref().is_some_and(|election| election != only))
        {
            continue;
        }
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = match output {
            Output::Json => serde_json::to_string(&Line { at, news })?,
            Output::Table => format!("{at}  {}", plain(&news.words)),
        };
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

//! One watch on the whole cluster, carried on over lost connections.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{Entry, Revision};
use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::Members;
use super::member::Connection;
use super::transaction::{place, row};
use crate::error::StoreError;
use crate::keys::Keys;
use crate::store::WatchEvent;

/// The pauses between attempts to get a lost watch back.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where a watch is.
struct Progress {
    /// Everything up to this revision has been told.
    told: u64,
    /// The cluster that it is told of, once known.
    cluster: Option<u64>,
}

/// Why a stream is over.
enum End {
    /// Nobody listens any more.
    Closed,
    /// It cannot be resumed.
    Broken(StoreError),
    /// It may be resumed on another connection.
    Lost(StoreError),
}

/// Watches until the receiver is gone or the watch cannot go on.
pub(super) async fn run(members: Arc<Members>, after: u64, events: Sender<WatchEvent>) {
    let mut progress = Progress { told: after, cluster: None };
    let mut pause = FIRST_PAUSE;
    loop {
        let before = progress.told;
        let error = match attempt(&members, &mut progress, &events).await {
            End::Closed => return,
            End::Broken(error) => {
                // A receiver that is gone needs no news.
                let _ = events.send(WatchEvent::Broken(error)).await;
                return;
            }
            End::Lost(error) => error,
        };
        pause = if progress.told > before { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tracing::debug!(%error, told = progress.told, "the watch is lost and will be resumed");
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = events.closed() => return,
        }
    }
}

/// One connection's worth of watching.
async fn attempt(members: &Members, progress: &mut Progress, events: &Sender<WatchEvent>) -> End {
    let connecting = tokio::select! {
        connecting = members.any() => connecting,
        () = events.closed() => return End::Closed,
    };
    let (index, connection) = match connecting {
        Ok(found) => found,
        Err(error) => return End::Lost(error),
    };
    let limit = members.request_timeout;
    let end = match open(&members.keys, &connection, progress.told, limit).await {
        Ok(stream) => {
            tokio::select! {
                end = follow(stream, &members.keys, &connection, progress, events) => end,
                () = connection.retired() => End::Lost(retired(&connection)),
                () = events.closed() => End::Closed,
            }
        }
        Err(error) => End::Lost(error),
    };
    if let End::Lost(error) = &end {
        if connection.has_login() && !error.is_passing() {
            // The token may be what was wrong; whether a new one helps, the next attempt shows.
            let _ = timeout(limit, connection.log_in_again()).await;
        } else {
            members.leave(index, &connection);
        }
    }
    end
}

/// Starts the watch just above what has been told.
async fn open(
    keys: &Keys,
    connection: &Connection,
    told: u64,
    limit: Duration,
) -> Result<WatchStream, StoreError> {
    let range = keys.all();
    let from = i64::try_from(told.saturating_add(1)).unwrap_or(i64::MAX);
    let options =
        WatchOptions::new().with_range(range.end).with_start_revision(from).with_progress_notify();
    let mut watcher = connection.watcher();
    match timeout(limit, watcher.watch(range.start, Some(options))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(StoreError::from_etcd(connection.endpoint(), error)),
        Err(_) => {
            Err(StoreError::TimedOut { place: connection.endpoint().to_owned(), after: limit })
        }
    }
}

async fn follow(
    mut stream: WatchStream,
    keys: &Keys,
    connection: &Connection,
    progress: &mut Progress,
    events: &Sender<WatchEvent>,
) -> End {
    loop {
        let response = match stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return End::Lost(retired(connection)),
            Err(error) => return End::Lost(StoreError::from_etcd(connection.endpoint(), error)),
        };
        match judge(&response, keys, connection, progress) {
            Ok(Some(event)) => {
                if events.send(event).await.is_err() {
                    return End::Closed;
                }
            }
            Ok(None) => {}
            Err(end) => return end,
        }
    }
}

/// What a response says, if anything new.
fn judge(
    response: &WatchResponse,
    keys: &Keys,
    connection: &Connection,
    progress: &mut Progress,
) -> Result<Option<WatchEvent>, End> {
    let endpoint = connection.endpoint();
    let (cluster, revision) = place(response.header())
        .map_err(|error| End::Lost(StoreError::from_etcd(endpoint, error)))?;
    if *progress.cluster.get_or_insert(cluster) != cluster {
        return Err(End::Broken(StoreError::OtherStore { endpoint: endpoint.to_owned() }));
    }
    if response.canceled() {
        return Err(canceled(response, endpoint, progress));
    }
    if response.created() {
        return Ok(None);
    }
    let news = response.events().iter().filter_map(|event| entry(event, keys));
    let entries: Vec<_> = news.filter(|entry| entry.at.0 > progress.told).collect();
    // Events come in whole revisions. Without events it is the server's word that there were
    // none up to the revision in the header; with events the header may be ahead of them.
    let at = response.events().iter().filter_map(Event::kv).map(|kv| kv.mod_revision());
    let at = at.max().map_or(revision, i64::unsigned_abs);
    if at <= progress.told {
        return Ok(None);
    }
    progress.told = at;
    let at = Revision(at);
    Ok(Some(match entries.is_empty() {
        true => WatchEvent::Progress { at },
        false => WatchEvent::Changes { at, entries },
    }))
}

fn canceled(response: &WatchResponse, endpoint: &str, progress: &Progress) -> End {
    match response.compact_revision() {
        0 => {
            let reason = response.cancel_reason().to_owned();
            End::Lost(StoreError::WatchCanceled { endpoint: endpoint.to_owned(), reason })
        }
        compacted => {
            let compacted = compacted.unsigned_abs();
            End::Broken(StoreError::Compacted { after: progress.told, compacted })
        }
    }
}

fn entry(event: &Event, keys: &Keys) -> Option<Entry> {
    let row = row(event.kv()?);
    let entry = row.entry(keys, row.modified)?;
    Some(match event.event_type() {
        EventType::Put => entry,
        EventType::Delete => Entry { stored: None, ..entry },
    })
}

fn retired(connection: &Connection) -> StoreError {
    StoreError::Closed { place: connection.endpoint().to_owned() }
}

/// Between half and all of a pause, so that many watches do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 512;
    pause.mul_f64(0.5 + random as f64 / 1024.0)
}

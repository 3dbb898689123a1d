//! Pauses that end by themselves. A pause says for how long it holds; every node counts from when it first saw
//! it, by its own clock, and whoever is first to see it served ends it in the store, where all see that. A
//! node that was down counts anew: a pause may last longer than it says, never shorter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conclave_core::{ElectionName, Entry, Key, Outcome, Revision, Value};
use conclave_store::{Control, Store};
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// How long until a store that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The pauses that are being counted down.
#[derive(Debug)]
pub(crate) struct Pauses {
    store: Arc<dyn Store>,
    limit: Duration,
    counting: BTreeMap<ElectionName, (Revision, JoinHandle<()>)>,
}

impl Pauses {
    /// `limit` is for one request to the store.
    pub(crate) fn new(store: Arc<dyn Store>, limit: Duration) -> Self {
        Pauses { store, limit, counting: BTreeMap::new() }
    }

    /// Takes in what was seen in the store. Needs a tokio runtime.
    pub(crate) fn seen(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Key::Pause(election) = &entry.key else { continue };
            let revision = entry.stored.as_ref().map(|stored| stored.modified);
            if let Some((counted, _)) = self.counting.get(election) {
                if Some(*counted) == revision
                    || revision.is_some_and(|revision| revision < *counted)
                {
                    continue; // known already, or news that are old
                }
                if let Some((_, counting)) = self.counting.remove(election) {
                    counting.abort();
                }
            }
            let Some(stored) = &entry.stored else { continue };
            let Value::Mark(mark) = &stored.value else { continue };
            let Some(for_ms) = mark.for_ms else { continue };
            let counting =
                self.count_down(election, stored.modified, Duration::from_millis(for_ms));
            self.counting.insert(election.clone(), (stored.modified, counting));
        }
    }

    fn count_down(
        &self,
        election: &ElectionName,
        seen: Revision,
        lasting: Duration,
    ) -> JoinHandle<()> {
        let (store, limit, election) = (Arc::clone(&self.store), self.limit, election.clone());
        tokio::spawn(async move {
            tokio::time::sleep(lasting).await;
            let mut told = false;
            loop {
                let end = Control::EndPause { election: election.clone(), seen };
                match store.control(end, limit).await {
                    Ok(reply) => {
                        if matches!(reply.outcome, Outcome::Applied { .. }) {
                            info!(%election, "a pause has served its time, and is ended");
                        }
                        return;
                    }
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        warn!(%election, %error, "cannot end a pause yet");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.counting.values().for_each(|(_, counting)| counting.abort());
    }
}

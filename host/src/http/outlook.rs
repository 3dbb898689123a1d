//! What the store has of the whole cluster, for whoever asks this node: read when somebody asks, and
//! followed while somebody listens. It works beside the loop and for nobody but onlookers; at rest it costs
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use conclave_core::NodeName;
use conclave_store::Store;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Ranked;
use crate::daemon::PolicySet;
use crate::reading::Reading;
use crate::reading::news::{self, News, State};

/// Onlookers that come within this time of a reading share it.
const SHARED: Duration = Duration::from_millis(200);

/// News that an onlooker may be behind before it has to begin anew.
const BACKLOG: usize = 1_024;

/// How long until the store is tried again for those who listen.
const AGAIN: Duration = Duration::from_secs(1);

/// A reading, and what came of the newest attempt to make one.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) reading: Arc<Reading>,
    /// When it was begun.
    pub(crate) read_at: Instant,
    /// Whether the store answered when it was last asked for one.
    pub(crate) store_answers: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub(crate) cluster: String,
    pub(crate) node: NodeName,
    /// The policies that rank what is shown.
    pub(super) ranked: Ranked,
    wanted: Notify,
    listened: Notify,
    /// Counts the attempts, with the last one that succeeded.
    seen: watch::Sender<(u64, Option<Seen>)>,
    news: broadcast::Sender<News>,
    /// How long a reading may take.
    limit: Duration,
}

impl Outlook {
    /// Begins to wait for onlookers. Needs a tokio runtime, on which the store is then asked.
    pub(crate) fn start(
        cluster: String,
        node: NodeName,
        store: &Arc<dyn Store>,
        limit: Duration,
    ) -> Arc<Self> {
        let outlook = Arc::new(Outlook {
            cluster,
            node,
            ranked: Ranked::default(),
            wanted: Notify::new(),
            listened: Notify::new(),
            seen: watch::Sender::new((0, None)),
            news: broadcast::Sender::new(BACKLOG),
            limit,
        });
        tokio::spawn(Arc::clone(&outlook).read(Arc::clone(store)));
        tokio::spawn(Arc::clone(&outlook).follow(Arc::clone(store)));
        outlook
    }

    /// From now on these policies rank what is shown.
    pub(crate) fn rank_by(&self, policies: PolicySet) {
        self.ranked.by(policies);
    }

    /// What the store has now; what it had when it last answered, if it does not. `None` if it never did.
    pub(crate) async fn look(&self) -> Option<Seen> {
        let (asked, mut seen) = (Instant::now(), self.seen.subscribe());
        let (attempts, last) = seen.borrow_and_update().clone();
        if let Some(last) = last.filter(|it| it.store_answers && it.read_at.elapsed() < SHARED) {
            return Some(last);
        }
        self.wanted.notify_one();
        // One that was under way already may be older than what the onlooker has heard of.
        let answered = seen.wait_for(|(now, last)| {
            *now >= attempts + 2 || last.as_ref().is_some_and(|it| it.read_at >= asked)
        });
        let _ = timeout(2 * self.limit, answered).await;
        seen.borrow().1.clone()
    }

    /// What changes from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<News> {
        let listening = self.news.subscribe();
        self.listened.notify_one();
        listening
    }

    async fn read(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            self.wanted.notified().await;
            let read_at = Instant::now();
            let reading = Reading::of(&*store, self.limit).await;
            self.seen.send_modify(|(attempts, seen)| {
                *attempts += 1;
                match (reading, seen) {
                    (Ok(Some(reading)), seen) => {
                        let reading = Arc::new(reading);
                        *seen = Some(Seen { reading, read_at, store_answers: true });
                    }
                    (_, Some(seen)) => seen.store_answers = false,
                    (_, None) => {}
                }
            });
            sleep(SHARED / 2).await;
        }
    }

    async fn follow(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            self.listened.notified().await;
            while self.news.receiver_count() > 0 {
                tokio::select! {
                    () = self.follow_once(&*store) => sleep(AGAIN).await,
                    () = self.nobody_listens() => {}
                }
            }
        }
    }

    async fn follow_once(&self, store: &dyn Store) {
        let Ok(Some(mut reading)) = Reading::of(store, self.limit).await else { return };
        let mut state = State::new();
        // Listeners come to hear of changes; how things are they read.
        news::learn(&mut state, std::mem::take(&mut reading.entries));
        let tell = |news: Result<Vec<News>, _>| {
            for news in news.unwrap_or_default() {
                // Nobody listens any more: that ends this in a moment.
                let _ = self.news.send(news);
            }
            true
        };
        news::follow(store, self.limit, reading.at, &mut state, tell).await;
    }

    async fn nobody_listens(&self) {
        while self.news.receiver_count() > 0 {
            sleep(AGAIN).await;
        }
    }
}

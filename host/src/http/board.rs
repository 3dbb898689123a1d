//! The board: the loop writes on it what this node is doing, and others read it without asking the loop.
//!
//! What is written may be old: a loop can hang. Therefore whoever reads takes the word "leading" only
//! together with the session's deadline on the guard's page, by the clock of that moment (S8).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use conclave_core::record::Fitness;
use conclave_core::status::Phase;
use conclave_core::{ElectionName, NodeName, SessionId, Token};
use conclave_guard::{Page, Reading};
use tokio::sync::broadcast;

use super::answers::{self, Role};
use super::events::RoleNews;

/// Changes of role that a listener may be behind.
const BACKLOG: usize = 256;

/// What the loop wrote last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// The session on which the terms below are held.
    pub(crate) session: Option<SessionId>,
    /// Whether the store answered when it was last asked.
    pub(crate) store_answers: bool,
    pub(crate) elections: BTreeMap<ElectionName, Arc<ElectionSnapshot>>,
}

/// One election.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ElectionSnapshot {
    pub(crate) phase: Phase,
    pub(crate) token: Option<Token>,
    pub(crate) holder: Option<(NodeName, Token)>,
    /// `None` before it is known.
    pub(crate) fitness: Option<Fitness>,
    /// The term whose exclusive effects were last reported to be in place.
    pub(crate) placed: Option<Token>,
}

/// See the module.
pub(crate) struct Board {
    pub(crate) cluster: String,
    pub(crate) node: NodeName,
    page: Page,
    /// How long a loop may show nothing before it counts as hung.
    patience: Duration,
    latest: RwLock<Arc<Snapshot>>,
    roles: broadcast::Sender<RoleNews>,
    /// When the loop last came round, in nanoseconds of the boot clock.
    round: AtomicU64,
}

impl Board {
    pub(crate) fn new(cluster: String, node: NodeName, page: Page, patience: Duration) -> Self {
        Board {
            cluster,
            node,
            page,
            patience,
            latest: RwLock::default(),
            roles: broadcast::Sender::new(BACKLOG),
            round: AtomicU64::new(Reading::now().boot_ns),
        }
    }

    /// The loop came round.
    pub(crate) fn beat(&self, now: Reading) {
        self.round.store(now.boot_ns, Ordering::Relaxed);
    }

    /// Writes what has become of some elections, and what the others stand on. Costs what these
    /// elections cost, unless somebody is reading right now.
    pub(crate) fn write(
        &self,
        session: Option<SessionId>,
        store_answers: bool,
        changed: Vec<(ElectionName, ElectionSnapshot)>,
    ) {
        if changed.is_empty() {
            let latest = self.read();
            if (latest.session, latest.store_answers) == (session, store_answers) {
                return;
            }
        }
        let before = (self.roles.receiver_count() > 0).then(|| self.read());
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Arc::make_mut(&mut latest);
        (snapshot.session, snapshot.store_answers) = (session, store_answers);
        let names: Vec<ElectionName> = changed.iter().map(|(name, _)| name.clone()).collect();
        let changed = changed.into_iter().map(|(name, election)| (name, Arc::new(election)));
        snapshot.elections.extend(changed);
        drop(latest);
        if let Some(before) = before {
            self.tell_roles(&before, names);
        }
    }

    /// What this node is from now on, whenever that changes.
    pub(super) fn listen(&self) -> broadcast::Receiver<RoleNews> {
        self.roles.subscribe()
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.roles.receiver_count()
    }

    /// Tells what these elections' roles are now, if they are others than before. They are all
    /// that can have changed, except where the session on which every role stands did.
    fn tell_roles(&self, before: &Snapshot, changed: Vec<ElectionName>) {
        let now = &*self.read();
        let [was, is] = [before, now].map(|snapshot| self.valid_for(snapshot));
        let all = was.is_zero() != is.is_zero();
        let names = if all { now.elections.keys().cloned().collect() } else { changed };
        for name in &names {
            let Some(election) = now.elections.get(name) else { continue };
            let role = answers::role(election, is);
            let term = |role, token| if role == Role::Leader { token } else { None };
            let earlier = before.elections.get(name).map(|it| {
                let role = answers::role(it, was);
                (role, term(role, it.token))
            });
            let token = term(role, election.token);
            if earlier != Some((role, token)) {
                let news = RoleNews { election: name.clone(), role, token };
                // The last listener may just have gone.
                let _ = self.roles.send(news);
            }
        }
    }

    pub(crate) fn read(&self) -> Arc<Snapshot> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For how long the session stands if no beat of it is confirmed any more; zero when its deadline
    /// has passed, or when it is not the one that the snapshot is about.
    pub(crate) fn valid_for(&self, snapshot: &Snapshot) -> Duration {
        let now = Reading::now();
        let session = self.page.session().filter(|session| session.stands(now));
        let ours = session.filter(|session| Some(session.id) == snapshot.session);
        ours.map_or(Duration::ZERO, |session| now.until(session.deadline))
    }

    /// How long ago the loop came round, if that is too long.
    pub(crate) fn hung_for(&self) -> Option<Duration> {
        let now = Reading::now().boot_ns;
        let since = Duration::from_nanos(now.saturating_sub(self.round.load(Ordering::Relaxed)));
        (since > self.patience).then_some(since)
    }
}

//! The etcd v3 store: several endpoints, one of which is used at a time.
//!
//! A connection counts as made once its server has answered a reading, so that a request is only
//! ever sent to an endpoint that was reachable a moment ago; whatever fails before that was not
//! sent and goes to the next endpoint. A write is sent once: when its answer does not come,
//! nobody knows whether it was applied, and sending it again elsewhere would make that worse.
//! A reading may be asked of the next endpoint. An endpoint that does not answer is left, its
//! connection with it, and so costs one request timeout at most.

mod member;
mod tls;
mod transaction;
mod version;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conclave_core::{Request, Revision};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::error::StoreError;
use crate::keys::Keys;
use crate::plan::{self, Plan};
use crate::store::{self, BoxFuture, Control, Latency, Reply, Store, WATCH_QUEUE, Watch};
use member::{Connection, Member, Setup};

/// Where an etcd store is, and how to be let in.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The members' client URLs; without a scheme, `https` where there is `tls`, else `http`.
    pub endpoints: Vec<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The files for TLS.
    pub tls: Option<TlsFiles>,
    /// The user to log in as.
    pub login: Option<Login>,
    /// How long connecting, and starting a watch, may take.
    pub request_timeout: Duration,
}

/// PEM files for TLS. They are read again every now and then, and connections made anew when
/// they have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that the servers' certificates must come from.
    pub authority: PathBuf,
    /// Our certificate and its private key, where servers ask for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the servers' certificates must bear, if not the host in the URL.
    pub server_name: Option<String>,
    /// How often the files are read again.
    pub reread: Duration,
}

impl TlsFiles {
    /// Trusts the authorities in this file; the files are read again every five seconds.
    pub fn new(authority: impl Into<PathBuf>) -> Self {
        let reread = Duration::from_secs(5);
        TlsFiles { authority: authority.into(), identity: None, server_name: None, reread }
    }
}

/// A user and password of etcd's own; the password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An etcd cluster as a store.
#[derive(Debug)]
pub struct EtcdStore {
    members: Arc<Members>,
    rotation: Option<AbortHandle>,
}

/// The endpoints, and which of them is in use.
#[derive(Debug)]
struct Members {
    keys: Keys,
    request_timeout: Duration,
    all: Vec<Arc<Member>>,
    preferred: AtomicUsize,
}

impl EtcdStore {
    /// Connects to whichever endpoint answers first. That none can be reached is no error: the
    /// store goes on trying with every request.
    ///
    /// # Errors
    ///
    /// When trying again would not help: an endpoint or a file is wrong, the login is refused,
    /// or a server has no v3 API while no other endpoint can be used.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let setup = Arc::new(Setup::new(&config).await?);
        let endpoints = endpoints(&config)?;
        let member = |endpoint| Arc::new(Member::new(endpoint, Arc::clone(&setup)));
        let members = Arc::new(Members {
            keys: Keys::new(&config.cluster),
            request_timeout: config.request_timeout,
            all: endpoints.into_iter().map(member).collect(),
            preferred: AtomicUsize::new(0),
        });
        members.connect_to_first().await?;
        let rotation = config.tls.as_ref().map(|files| {
            let work = tls::rotate(files.reread, setup, members.all.clone());
            tokio::spawn(work).abort_handle()
        });
        Ok(EtcdStore { members, rotation })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        if let Some(rotation) = &self.rotation {
            rotation.abort();
        }
    }
}

impl Members {
    /// Connects to all at once and prefers the first that answers.
    async fn connect_to_first(&self) -> Result<(), StoreError> {
        let mut attempts = JoinSet::new();
        for (index, member) in self.all.iter().enumerate() {
            let (member, limit) = (Arc::clone(member), self.request_timeout);
            attempts.spawn(async move { (index, member.connection(limit).await) });
        }
        let mut failure = None;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok((index, Ok(_))) => {
                    self.prefer(index);
                    return Ok(());
                }
                Ok((_, Err(error))) => failure = Some(more_telling(failure, error)),
                // An attempt that panicked has said so; it is no connection.
                Err(_) => {}
            }
        }
        match failure {
            Some(error) if !error.is_passing() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "no store endpoint can be reached yet");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Runs a plan on the first endpoint that can be reached.
    async fn run(&self, plan: &Plan, timeout: Duration) -> Result<Reply, StoreError> {
        let deadline = Instant::now() + timeout;
        let mut failure = None;
        for (index, member, share) in self.in_turn(deadline) {
            let connection = match member.connection(share()).await {
                Ok(connection) => connection,
                Err(error) => {
                    failure = Some(more_telling(failure, error));
                    continue;
                }
            };
            let repeatable = matches!(plan, Plan::Read(_));
            let limit = if repeatable { Instant::now() + share() } else { deadline };
            let begun = Instant::now();
            let answer = timeout_at(limit, connection.run(&self.keys, plan)).await;
            let place = || member.endpoint().to_owned();
            let error = match answer {
                Ok(Ok(reply)) => {
                    self.prefer(index);
                    return Ok(reply);
                }
                Ok(Err(error)) => error,
                Err(_) => StoreError::TimedOut { place: place(), after: begun.elapsed() },
            };
            if error.is_passing() {
                self.leave(index, &connection);
            }
            if !repeatable || !error.is_passing() {
                return Err(error);
            }
            failure = Some(more_telling(failure, error));
        }
        let place = || self.endpoints();
        Err(failure.unwrap_or_else(|| StoreError::TimedOut { place: place(), after: timeout }))
    }

    /// A connection to the first endpoint that can be reached, for a watch.
    async fn any(&self) -> Result<(usize, Arc<Connection>), StoreError> {
        let deadline = Instant::now() + self.request_timeout;
        let mut failure = None;
        for (index, member, share) in self.in_turn(deadline) {
            match member.connection(share()).await {
                Ok(connection) => return Ok((index, connection)),
                Err(error) => failure = Some(more_telling(failure, error)),
            }
        }
        let after = self.request_timeout;
        Err(failure.unwrap_or_else(|| StoreError::TimedOut { place: self.endpoints(), after }))
    }

    /// The members, the preferred one first, each with its share of the time that is left.
    fn in_turn(
        &self,
        deadline: Instant,
    ) -> impl Iterator<Item = (usize, &Arc<Member>, impl Fn() -> Duration)> {
        let (count, first) = (self.all.len(), self.preferred.load(Ordering::Relaxed));
        (0..count).map(move |turn| {
            let index = (first + turn) % count;
            let left = u32::try_from(count - turn).unwrap_or(u32::MAX);
            let share = move || deadline.saturating_duration_since(Instant::now()) / left;
            (index, &self.all[index], share)
        })
    }

    fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    /// Gives a connection up, and prefers the next endpoint unless another is preferred already.
    fn leave(&self, index: usize, connection: &Arc<Connection>) {
        self.all[index].retire(connection);
        let next = (index + 1) % self.all.len();
        let swap =
            self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if swap.is_ok() && next != index {
            tracing::debug!(from = %self.all[index].endpoint(), to = %self.all[next].endpoint(),
                "leaving a store endpoint");
        }
    }

    fn endpoints(&self) -> String {
        let names: Vec<_> = self.all.iter().map(|member| member.endpoint()).collect();
        names.join(", ")
    }
}

impl Store for EtcdStore {
    fn execute(
        &self,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>> {
        let members = &self.members;
        Box::pin(async move { members.run(&plan::plan(&members.keys, &request)?, timeout).await })
    }

    fn control(
        &self,
        control: Control,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            let transaction = plan::plan_control(&self.members.keys, &control)?;
            self.members.run(&Plan::Write(transaction), timeout).await
        })
    }

    fn watch(&self, after: Revision) -> Watch {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        tokio::spawn(watch::run(Arc::clone(&self.members), after.0, events));
        Watch::new(receiver)
    }

    fn measure(&self, timeout: Duration) -> BoxFuture<'_, Result<Latency, StoreError>> {
        let members = &self.members;
        let run = move |plan| async move { members.run(&plan, timeout).await };
        Box::pin(async move {
            let latency = store::measure(&members.keys, run).await?;
            let (_, connection) = members.any().await?;
            let place = || connection.endpoint().to_owned();
            match tokio::time::timeout(timeout, connection.uncompacted(&members.keys)).await {
                Ok(uncompacted) => Ok(Latency { uncompacted: uncompacted?, ..latency }),
                Err(_) => Err(StoreError::TimedOut { place: place(), after: timeout }),
            }
        })
    }
}

/// Of two failures, the one that says more about what to do.
fn more_telling(known: Option<StoreError>, new: StoreError) -> StoreError {
    match known {
        Some(known) if !known.is_passing() || new.is_passing() => known,
        _ => new,
    }
}

/// The endpoints as URLs, checked as far as that is possible without asking them.
fn endpoints(config: &EtcdConfig) -> Result<Vec<String>, StoreError> {
    if config.endpoints.is_empty() {
        return Err(StoreError::Config { what: "no etcd endpoint is configured".to_owned() });
    }
    config.endpoints.iter().map(|endpoint| url(endpoint.trim(), config.tls.is_some())).collect()
}

fn url(endpoint: &str, tls: bool) -> Result<String, StoreError> {
    let wrong = |what: &str| StoreError::Config { what: format!("endpoint {endpoint:?} {what}") };
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => (if tls { "https" } else { "http" }, endpoint),
    };
    let authority = rest.trim_end_matches('/');
    match scheme {
        "http" if tls => return Err(wrong("is http although files for TLS are configured")),
        "https" if !tls => return Err(wrong("is https, which needs files for TLS")),
        "http" | "https" => {}
        _ => return Err(wrong("is neither http nor https")),
    }
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("is no URL of the form http://host:port"));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_the_right_scheme() {
        let table = [
            ("http://a:2379", false, Some("http://a:2379")),
            ("http://a:2379/", false, Some("http://a:2379")),
            ("a:2379", false, Some("http://a:2379")),
            ("a:2379", true, Some("https://a:2379")),
            ("https://[::1]:2379", true, Some("https://[::1]:2379")),
            ("http://a:2379", true, None),
            ("https://a:2379", false, None),
            ("unix:///run/etcd", false, None),
            ("http://user@a:2379", false, None),
            ("http://a:2379/v2", false, None),
            ("http://", false, None),
            ("", false, None),
        ];
        for (endpoint, tls, expected) in table {
            assert_eq!(url(endpoint, tls).ok().as_deref(), expected, "{endpoint:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let login = Login { user: "me".into(), password: "secret".into() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}

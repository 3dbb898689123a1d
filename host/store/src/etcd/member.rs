//! One endpoint: connecting to it, and the connection that is in use.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use conclave_core::Revision;
use etcd_client::{Client, ConnectOptions, Error, GetOptions, KvClient, WatchClient};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::timeout;
use tonic::Code;

use super::tls::Material;
use super::{EtcdConfig, Login, transaction, version};
use crate::error::StoreError;
use crate::keys::Keys;
use crate::plan::Plan;
use crate::store::Reply;

/// How often an idle connection with a watch on it is tested. etcd answers tests that come more
/// often than every five seconds (`--grpc-keepalive-min-time`) by closing the connection.
const KEEPALIVE: Duration = Duration::from_secs(6);

/// The largest answer that is taken, in bytes; gRPC's default of 4 MiB is less than a page of a
/// listing can have.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// How many request timeouts the handshake may take once the server is reached: TLS, the login,
/// which etcd makes slow on purpose, and a first reading are a round trip or more each.
const HANDSHAKE_REQUESTS: u32 = 3;

/// What all endpoints are connected to with.
#[derive(Debug)]
pub(super) struct Setup {
    login: Option<Login>,
    /// The key that a new connection reads.
    probe: Vec<u8>,
    pub(super) request_timeout: Duration,
    /// What the TLS files said when they were last read.
    pub(super) tls: Option<RwLock<Material>>,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Member {
    endpoint: String,
    setup: Arc<Setup>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while connecting, so that many requests make one connection.
    connecting: Arc<AsyncMutex<()>>,
}

/// A connection whose server has answered.
pub(super) struct Connection {
    endpoint: String,
    client: Client,
    kv: KvClient,
    login: bool,
    retired: watch::Sender<bool>,
}

impl Setup {
    pub(super) async fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let tls = match &config.tls {
            Some(files) => Some(RwLock::new(Material::read(files.clone()).await?)),
            None => None,
        };
        let (login, request_timeout) = (config.login.clone(), config.request_timeout);
        let probe = Keys::new(&config.cluster).scratch();
        Ok(Setup { login, probe, request_timeout, tls })
    }

    fn options(&self, connect_timeout: Duration) -> ConnectOptions {
        let patience = self.request_timeout.clamp(Duration::from_secs(1), KEEPALIVE);
        let mut options = ConnectOptions::new()
            .with_connect_timeout(connect_timeout)
            .with_keep_alive(KEEPALIVE, patience)
            // etcd counts tests without a stream as an attack.
            .with_keep_alive_while_idle(false)
            // A member that is cut off from the others says so instead of hanging.
            .with_require_leader(true);
        if let Some(Login { user, password }) = &self.login {
            options = options.with_user(user, password);
        }
        if let Some(material) = &self.tls {
            let material = material.read().unwrap_or_else(PoisonError::into_inner);
            options = options.with_tls(material.options());
        }
        options
    }
}

impl Member {
    pub(super) fn new(endpoint: String, setup: Arc<Setup>) -> Self {
        Member { endpoint, setup, current: Mutex::default(), connecting: Arc::default() }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The connection in use, or a new one within `limit`.
    pub(super) async fn connection(
        self: &Arc<Self>,
        limit: Duration,
    ) -> Result<Arc<Connection>, StoreError> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let connect = async {
            let turn = Arc::clone(&self.connecting).lock_owned().await;
            if let Some(connection) = self.current() {
                return Ok(connection);
            }
            let member = Arc::clone(self);
            // It goes on when this request has waited for long enough. Shaking hands takes several
            // round trips where a request takes one: begun anew by each, it might never end.
            let attempt = tokio::spawn(async move {
                let connected = member.renew(limit).await;
                drop(turn);
                connected
            });
            attempt.await.unwrap_or_else(|_| Err(self.closed()))
        };
        self.within(limit, connect).await
    }

    /// Connects anew and retires the connection in use; leaves it when that fails. A server is to
    /// be reached within `limit`; what follows may take a few times as long as a request.
    pub(super) async fn renew(&self, limit: Duration) -> Result<Arc<Connection>, StoreError> {
        let handshake = self.setup.request_timeout.saturating_mul(HANDSHAKE_REQUESTS);
        let connection = Arc::new(self.within(handshake, self.connect(limit)).await?);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = current.replace(Arc::clone(&connection)) {
            old.retired.send_replace(true);
        }
        Ok(connection)
    }

    /// Gives a connection up, and tells the watch on it.
    pub(super) fn retire(&self, connection: &Arc<Connection>) {
        connection.retired.send_replace(true);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *current = None;
        }
    }

    /// The connection in use, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self, limit: Duration) -> Result<Connection, StoreError> {
        let client = match self.probe(limit).await {
            Ok(client) => client,
            Err(error) => return Err(self.explain(error).await),
        };
        let kv = client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        let (endpoint, login) = (self.endpoint.clone(), self.setup.login.is_some());
        Ok(Connection { endpoint, client, kv, login, retired: watch::Sender::new(false) })
    }

    /// Connects, logs in, and makes a linearizable reading, which takes a leader and rights.
    async fn probe(&self, limit: Duration) -> Result<Client, Error> {
        let mut client = Client::connect([&self.endpoint], Some(self.setup.options(limit))).await?;
        client.get(self.setup.probe.clone(), Some(GetOptions::new().with_count_only())).await?;
        Ok(client)
    }

    async fn explain(&self, error: Error) -> StoreError {
        let explained = StoreError::from_etcd(&self.endpoint, error);
        match explained {
            StoreError::Unreachable { endpoint, source } => {
                match version::without_v3(&endpoint, &source).await {
                    Some(version) => StoreError::NoV3Api { endpoint, version },
                    None => StoreError::Unreachable { endpoint, source },
                }
            }
            explained => while_logging_in(explained),
        }
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { place: self.endpoint.clone() }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::TimedOut { place: self.endpoint.clone(), after: limit }),
        }
    }
}

impl Connection {
    /// Runs a plan. The server turns down what comes with an outdated token before it applies
    /// anything, so that such a request, and only such a one, is sent again.
    pub(super) async fn run(&self, keys: &Keys, plan: &Plan) -> Result<Reply, StoreError> {
        let mut result = transaction::run(&mut self.kv.clone(), keys, plan).await;
        if let Err(Error::GRpcStatus(status)) = &result
            && self.login
            && matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument)
        {
            self.log_in_again().await?;
            result = transaction::run(&mut self.kv.clone(), keys, plan).await;
        }
        result.map_err(|error| StoreError::from_etcd(&self.endpoint, error))
    }

    /// The newest revision, if every one since the first is still kept.
    pub(super) async fn uncompacted(&self, keys: &Keys) -> Result<Option<Revision>, StoreError> {
        match transaction::newest_of_all(&mut self.kv.clone(), keys).await {
            Err(Error::GRpcStatus(status)) if status.code() == Code::OutOfRange => Ok(None),
            Err(error) => Err(StoreError::from_etcd(&self.endpoint, error)),
            Ok(newest) => Ok(Some(Revision(newest))),
        }
    }

    /// Gets a new token.
    pub(super) async fn log_in_again(&self) -> Result<(), StoreError> {
        let failed = |error| while_logging_in(StoreError::from_etcd(&self.endpoint, error));
        self.client.refresh_token().await.map_err(failed)
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn has_login(&self) -> bool {
        self.login
    }

    pub(super) fn watcher(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Ready once the connection is given up.
    pub(super) async fn retired(&self) {
        // The sender lives as long as this connection does.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }
}

/// What a server does not accept while one logs in is who one says one is.
fn while_logging_in(error: StoreError) -> StoreError {
    match error {
        StoreError::Refused { endpoint, source }
            if matches!(source.code(), Code::InvalidArgument | Code::FailedPrecondition) =>
        {
            StoreError::Authentication { endpoint, source }
        }
        error => error,
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn a_login_fails_for_who_logs_in_or_for_the_server() {
        for (status, kind) in [
            (Status::invalid_argument("authentication failed"), "authentication"),
            (Status::failed_precondition("authentication is not enabled"), "authentication"),
            (Status::unauthenticated("invalid auth token"), "authentication"),
            (Status::unavailable("etcdserver: no leader"), "unreachable"),
            (Status::resource_exhausted("too many requests"), "refused"),
        ] {
            let error = StoreError::from_etcd("a:2379", Error::GRpcStatus(status));
            assert_eq!(while_logging_in(error).kind(), kind);
        }
    }
}

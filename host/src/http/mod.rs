//! What a node says of itself and of its cluster over HTTP: for load balancers, for monitoring, for people.
//! Nothing can be changed here, and nothing of it keeps the loop waiting: a thread of its own answers from
//! the board, which the loop writes, and from the outlook, which reads the store when somebody asks.

mod answers;
mod board;
mod cluster;
mod events;
mod metrics;
mod outlook;
mod tls;
mod token;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use crate::config::HttpConfig;

pub(crate) use board::{Board, ElectionSnapshot};
pub(crate) use metrics::Metrics;
pub(crate) use outlook::Outlook;

/// How long until a port that is taken is tried again: perhaps the daemon before still has it.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// The status page, whole.
const PAGE: &str = include_str!("page.html");

/// What the page may do: nothing but what is written in it, and ask this node.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// The description of everything that can be asked.
const DESCRIPTION: &str = include_str!("openapi.yaml");

/// What answers are made of.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outlook: Arc<Outlook>,
}

/// Answers on an address for as long as the process lives. That it cannot is told, and costs nothing
/// else.
pub(crate) fn serve(config: &HttpConfig, shown: Shown) {
    let config = config.clone();
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "nothing answers over HTTP"),
        };
        runtime.block_on(answer_on(&config, shown));
    };
    if let Err(error) = thread::Builder::new().name("http".to_owned()).spawn(work) {
        error!(%error, "nothing answers over HTTP");
    }
}

async fn answer_on(config: &HttpConfig, shown: Shown) {
    let listener = bind(config).await;
    let router = router(shown, token::Token::of(config.token_file.clone()));
    info!(listen = %config.listen, tls = config.tls.is_some(), "answering over HTTP");
    let served = match &config.tls {
        None => axum::serve(listener, router).await,
        Some(files) => match tls::TlsListener::start(listener, files.clone()) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        },
    };
    // It ends only when the listener breaks.
    if let Err(error) = served {
        error!(%error, "nothing answers over HTTP any more");
    }
}

async fn bind(config: &HttpConfig) -> TcpListener {
    let (listen, mut told) = (config.listen, false);
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) if !told => {
                told = true;
                warn!(%listen, %error, "cannot listen for HTTP, and tries again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

fn router(shown: Shown, token: token::Token) -> Router {
    let guarded = Router::new()
        .route("/readyz", get(answers::ready))
        .route("/metrics", get(answers::metrics))
        .route("/v1/status", get(answers::status))
        .route("/v1/elections/{election}", get(answers::election))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/history/{election}", get(cluster::history))
        .route("/v1/events", get(events::events))
        // Load balancers ask by whichever of these methods they like.
        .route("/leader/{election}", any(answers::leader))
        .route("/standby/{election}", any(answers::standby))
        .route("/candidate/{election}", any(answers::candidate))
        .layer(from_fn_with_state(token, token::guard));
    // These say nothing about the cluster: the page asks for what it shows.
    Router::new()
        .route("/", get(page))
        .route("/openapi.yaml", get(description))
        .route("/livez", get(answers::live))
        .merge(guarded)
        .with_state(shown)
}

async fn page() -> Response<Body> {
    let mut page = answers::answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
    let headers = page.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    page
}

async fn description() -> Response<Body> {
    answers::answer(StatusCode::OK, "application/yaml", DESCRIPTION.to_owned())
}

//! What a node says of itself over HTTP: for load balancers, for monitoring, for people. Nothing can be
//! changed here, and nothing of it keeps the loop waiting: a thread of its own answers from the board.

mod answers;
mod board;
mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

pub(crate) use board::{Board, ElectionSnapshot, Snapshot};
pub(crate) use metrics::Metrics;

/// How long until a port that is taken is tried again: perhaps the daemon before still has it.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What answers are made of.
#[derive(Clone)]
struct Shown {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

/// Answers on an address for as long as the process lives. That it cannot is told, and costs nothing
/// else.
pub(crate) fn serve(listen: SocketAddr, board: Arc<Board>, metrics: Arc<Metrics>) {
    let shown = Shown { board, metrics };
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "nothing answers over HTTP"),
        };
        runtime.block_on(async {
            let listener = bind(listen).await;
            info!(%listen, "answering over HTTP");
            // It ends only when the listener breaks.
            if let Err(error) = axum::serve(listener, router(shown)).await {
                error!(%error, "nothing answers over HTTP any more");
            }
        });
    };
    if let Err(error) = thread::Builder::new().name("http".to_owned()).spawn(work) {
        error!(%error, "nothing answers over HTTP");
    }
}

async fn bind(listen: SocketAddr) -> TcpListener {
    let mut told = false;
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

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(answers::live))
        .route("/readyz", get(answers::ready))
        .route("/metrics", get(answers::metrics))
        .route("/v1/status", get(answers::status))
        .route("/v1/elections/{election}", get(answers::election))
        // Load balancers ask by whichever of these methods they like.
        .route("/leader/{election}", any(answers::leader))
        .route("/standby/{election}", any(answers::standby))
        .route("/candidate/{election}", any(answers::candidate))
        .with_state(shown)
}

//! What changes, as server-sent events: in the store, and what this node itself is.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use conclave_core::{ElectionName, Token};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use super::Shown;
use super::answers::{self, Role};
use crate::reading::news::News;

/// How often a listener hears that the connection stands.
const STILL_HERE: Duration = Duration::from_secs(5);

/// How many may listen at once: each costs the node memory for as long as it does.
const LISTENERS: usize = 100;

/// Events that wait for a listener who is slow.
const WAITING: usize = 64;

/// What this node is in an election from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RoleNews {
    pub(super) election: ElectionName,
    pub(super) role: Role,
    pub(super) token: Option<Token>,
}

/// Something that happened, with the time by this machine's clock; for people.
#[derive(Serialize)]
struct At<T> {
    at: String,
    #[serde(flatten)]
    what: T,
}

pub(super) async fn events(State(shown): State<Shown>) -> Response {
    if shown.board.listeners() >= LISTENERS {
        let words = "too many listen already";
        return answers::text(StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    }
    let (send, events) = channel(WAITING);
    tokio::spawn(pass_on(shown, send));
    let stream = Sse::new(ReceiverStream::new(events));
    stream.keep_alive(KeepAlive::new().interval(STILL_HERE).text("still here")).into_response()
}

/// Passes events on until the listener has gone. One that is too slow for what happens is let go; it comes
/// back and reads how things are.
async fn pass_on(shown: Shown, listener: Sender<Result<Event, Infallible>>) {
    let (mut news, mut roles) = (shown.outlook.listen(), shown.board.listen());
    loop {
        let event = tokio::select! {
            change = news.recv() => event::<News>("change", change),
            role = roles.recv() => event::<RoleNews>("role", role),
            () = listener.closed() => return,
        };
        let Some(event) = event else { return };
        if listener.send(Ok(event)).await.is_err() {
            return;
        }
    }
}

fn event<T: Serialize>(name: &str, what: Result<T, RecvError>) -> Option<Event> {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let data = serde_json::to_string(&At { at, what: what.ok()? }).ok()?;
    Some(Event::default().event(name).data(data))
}

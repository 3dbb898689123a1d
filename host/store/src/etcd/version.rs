//! Finding out that a server has no v3 API: it then speaks HTTP/1 only, and answers
//! `GET /version` by it.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::EtcdError;

/// How long the question may take; it comes after a connection that failed at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of the answer is read, in bytes.
const ANSWER_BYTES: u64 = 4096;

#[derive(Deserialize)]
struct Version {
    etcdserver: String,
}

/// The version of a server without the v3 API, as far as it says one; `None` when the failed
/// connection has, or may have, another reason.
pub(super) async fn without_v3(endpoint: &str, failure: &EtcdError) -> Option<String> {
    let Some(authority) = endpoint.strip_prefix("http://") else {
        return lacks_http2(failure).then(|| "unknown, without HTTP/2".to_owned());
    };
    let answer = timeout(PATIENCE, ask(authority)).await.ok()?.ok()?;
    parse(&String::from_utf8_lossy(&answer))
}

async fn ask(authority: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = match TcpStream::connect(authority).await {
        Err(_) if !authority.contains(':') => TcpStream::connect((authority, 80)).await?,
        other => other?,
    };
    let question =
        format!("GET /version HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    // What was read before the server hung up is all that is needed.
    let _ = stream.take(ANSWER_BYTES).read_to_end(&mut answer).await;
    Ok(answer)
}

fn parse(answer: &str) -> Option<String> {
    let answer = answer.strip_prefix("HTTP/1.")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // Chunked or not, the object is the only thing in braces.
    let object = body.find('{').zip(body.rfind('}')).and_then(|(from, to)| body.get(from..=to));
    let version = object.and_then(|it| serde_json::from_str::<Version>(it).ok());
    match version {
        Some(Version { etcdserver }) if etcdserver.starts_with(['0', '2']) => Some(etcdserver),
        // A v3 server has failed otherwise; it is for its own error to say how.
        Some(_) => None,
        None => Some("unknown, answering in HTTP/1".to_owned()),
    }
}

/// Whether the server declined to speak HTTP/2 in the TLS handshake. tonic has a private type
/// for it, whose text is all that can be seen.
fn lacks_http2(failure: &EtcdError) -> bool {
    failure.causes().any(|cause| cause.to_string().starts_with("HTTP/2 was not negotiated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_without_v3_are_told_as_such() {
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nX: y\r\n\r\n{body}");
        let v2 = answer("{\"etcdserver\":\"2.3.8\",\"etcdcluster\":\"2.3.0\"}");
        assert_eq!(parse(&v2).as_deref(), Some("2.3.8"));
        let chunked = answer("1f\r\n{\"etcdserver\":\"2.0.0\"}\r\n0\r\n");
        assert_eq!(parse(&chunked).as_deref(), Some("2.0.0"));
        assert_eq!(parse(&answer("{\"etcdserver\":\"3.5.1\"}")), None);
        assert!(parse(&answer("hello")).is_some(), "a web server is no etcd either");
        assert!(parse(&answer("} or {")).is_some(), "nor is one that closes what it did not open");
        assert!(parse("HTTP/1.0 404 Not Found\r\n\r\n").is_some());
        assert_eq!(parse("\0\0\u{12}\u{4}"), None);
        assert_eq!(parse(""), None);
    }
}

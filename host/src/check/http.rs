//! The status of one page over plain HTTP/1.1: all that a check needs, without a client library.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::probe::HttpTarget;

/// A status line is far shorter; a server that sends more without one does not speak HTTP.
const LONGEST_STATUS_LINE: u64 = 1024;

/// Why a page has no status.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// Asks a server for a page and returns the status of the answer. A redirection is a status like
/// any other: it is not followed.
pub(super) async fn get(mut stream: TcpStream, target: &HttpTarget) -> Result<u16, Failure> {
    let server = &target.server;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: conclave\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.path
    );
    stream.write_all(request.as_bytes()).await.map_err(Failure::Broken)?;
    let mut answer = Vec::new();
    let mut limited = stream.take(LONGEST_STATUS_LINE);
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await.map_err(Failure::Broken)? == 0 {
            break;
        }
    }
    status(&answer).ok_or(Failure::NotHttp)
}

/// The code in `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let version = words.next()?;
    let code = words.next()?;
    (version.starts_with("HTTP/1.") && code.len() == 3).then(|| code.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_status_line_is_the_first_and_nothing_else_will_do() {
        let table: [(&[u8], Option<u16>); 9] = [
            (b"HTTP/1.1 200 OK\r\n", Some(200)),
            (b"HTTP/1.0 503 Service Unavailable\r\nX: HTTP/1.1 200\r\n", Some(503)),
            (b"HTTP/1.1 404\n", Some(404)),
            (b"HTTP/2 200\r\n", None),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None),
            (b"HTTP/1.1 2000 OK\r\n", None),
            (b"HTTP/1.1 abc\r\n", None),
            (b"\xff\xfe\r\n", None),
            (b"", None),
        ];
        for (answer, expected) in table {
            assert_eq!(status(answer), expected, "{:?}", String::from_utf8_lossy(answer));
        }
    }
}

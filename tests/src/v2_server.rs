//! A stand-in for an etcd that speaks only the v2 API: as much of its HTTP as a client needs to
//! find out what it talks to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::address::Loopback;

/// Serves until dropped.
pub struct V2Server {
    address: Loopback,
    closing: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl V2Server {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let address = Loopback::claim()?;
        let listener = TcpListener::bind(address.port(2379))?;
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    break;
                }
                // Its clients come one at a time, and one that goes away is no concern.
                let _ = answer(stream);
            }
        });
        Ok(V2Server { address, closing, serving: Some(serving) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address.port(2379)
    }
}

/// Answers one request and closes: `GET /version` as etcd 2.3 does, and 404 to whatever else,
/// the preface of HTTP/2 included.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    // A client that connects and then says nothing is not waited for.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, body) = if request.starts_with("GET /version ") {
        ("200 OK", r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}"#)
    } else {
        ("404 Not Found", "404 page not found\n")
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Drop for V2Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees the flag.
        let _ = TcpStream::connect(self.address());
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

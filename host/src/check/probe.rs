//! One look at something: a command, a port, a page or a file.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::http;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A program and its arguments; never empty.
    Command(Vec<String>),
    /// A port.
    Tcp(Address),
    /// A page, over plain HTTP.
    Http(HttpTarget),
    /// A path.
    File(PathBuf),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Command(arguments) => write!(f, "command {}", arguments.join(" ")),
            Probe::Tcp(address) => write!(f, "tcp {address}"),
            Probe::Http(target) => write!(f, "http {target}"),
            Probe::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// Why a target cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct BadTarget {
    given: String,
    expected: &'static str,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget {
            given: text.to_owned(),
            expected: "an address such as `127.0.0.1:10251` or `[::1]:10251`",
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']' | '@');
        if bare.is_empty() || bare.contains(odd) {
            return Err(bad());
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Address { host: bare.to_owned(), port }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A page: `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// The server.
    pub server: Address,
    /// Path and query; starts with a slash.
    pub path: String,
}

impl FromStr for HttpTarget {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = |expected| BadTarget { given: text.to_owned(), expected };
        const EXAMPLE: &str = "a plain URL such as `http://127.0.0.1:8080/healthz`";
        if text.starts_with("https://") {
            return Err(bad(
                "plain HTTP, and TLS is not spoken here: use a command such as `curl -fsS`",
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| bad(EXAMPLE))?;
        let (server, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        // Anything else would end the request line early or start a header of its own.
        if !path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(bad(EXAMPLE));
        }
        let with_port = match server.rsplit_once(':') {
            Some((_, port)) if !port.contains(']') => server.to_owned(),
            _ => format!("{server}:80"),
        };
        let server = with_port.parse().map_err(|_| bad(EXAMPLE))?;
        Ok(HttpTarget { server, path: path.to_owned() })
    }
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.server, self.path)
    }
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The command exited with 0, the port accepted, the page said 2xx, the file is there.
    Yes,
    /// It certainly is not so: refused, another exit code, no such file.
    No(String),
    /// Nobody can say: no answer in time, or something between here and there failed.
    Unclear(String),
}

/// Looks at one thing again and again.
///
/// A file, and a command's program, can be on a disk that hangs, and a host's name be known to
/// nobody within reach; then the thread that looks hangs too. One that hangs is enough: no other is
/// started before it comes back.
#[derive(Debug)]
pub(super) struct Looker {
    probe: Probe,
    /// The permission to occupy a thread.
    thread: Arc<Semaphore>,
}

impl Looker {
    pub(super) fn new(probe: Probe) -> Self {
        Looker { probe, thread: Arc::new(Semaphore::new(1)) }
    }

    /// Looks once.
    pub(super) async fn look(&self, limit: Duration) -> Look {
        let look = async {
            match &self.probe {
                // It has a process to end and keeps the limit itself.
                Probe::Command(arguments) => self.command(arguments, limit).await,
                Probe::Tcp(address) => match self.connect(address).await {
                    Ok(_) => Look::Yes,
                    Err(look) => look,
                },
                Probe::Http(target) => self.page(target).await,
                Probe::File(path) => self.file(path.clone()).await,
            }
        };
        match &self.probe {
            Probe::Command(_) => look.await,
            _ => timeout(limit, look).await.unwrap_or_else(|_| no_answer(limit)),
        }
    }

    /// Looks whether what used to answer has stopped; the reason why that is not certain
    /// otherwise. A page that says 503 is still being served: only a closed port will do.
    pub(super) async fn look_for_end(&self, limit: Duration) -> Result<(), String> {
        let look = match &self.probe {
            Probe::Http(target) => {
                let connected = timeout(limit, self.connect(&target.server)).await;
                match connected {
                    Ok(Ok(_)) => Look::Yes,
                    Ok(Err(look)) => look,
                    Err(_) => no_answer(limit),
                }
            }
            _ => self.look(limit).await,
        };
        match (&self.probe, look) {
            (Probe::Command(_), Look::Yes) => Ok(()),
            (Probe::Command(_), Look::No(reason)) => Err(reason),
            (_, Look::No(_)) => Ok(()),
            (probe, Look::Yes) => Err(format!("{probe} is still there")),
            (_, Look::Unclear(reason)) => Err(reason),
        }
    }

    /// Does what may hang on a thread of its own.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Look> {
        let hangs = || Look::Unclear("an earlier look still hangs".to_owned());
        let permit = Arc::clone(&self.thread).try_acquire_owned().map_err(|_| hangs())?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        work.await.map_err(|panic| Look::Unclear(panic.to_string()))
    }

    async fn file(&self, path: PathBuf) -> Look {
        match self.apart(move || std::fs::symlink_metadata(path)).await {
            Ok(Ok(_)) => Look::Yes,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Look::No(error.to_string())
            }
            Ok(Err(error)) => Look::Unclear(error.to_string()),
            Err(hangs) => hangs,
        }
    }

    async fn connect(&self, to: &Address) -> Result<TcpStream, Look> {
        connect_to_any(&self.resolve(to).await?).await
    }

    /// A host's addresses. Asking for a name can hang as a disk can: the servers that know it may
    /// be out of reach.
    pub(super) async fn resolve(&self, to: &Address) -> Result<Vec<SocketAddr>, Look> {
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, to.port)]);
        }
        let (host, port) = (to.host.clone(), to.port);
        let found = self.apart(move || (host.as_str(), port).to_socket_addrs()).await?;
        found.map(Iterator::collect).map_err(|error| Look::Unclear(error.to_string()))
    }

    async fn page(&self, target: &HttpTarget) -> Look {
        let stream = match self.connect(&target.server).await {
            Ok(stream) => stream,
            Err(look) => return look,
        };
        match http::get(stream, target).await {
            Ok(200..=299) => Look::Yes,
            Ok(status) => Look::No(format!("HTTP status {status}")),
            Err(failure) => Look::Unclear(failure.to_string()),
        }
    }

    /// Runs a command in a process group of its own, so that what it started ends with it.
    async fn command(&self, arguments: &[String], limit: Duration) -> Look {
        let Some((program, rest)) = arguments.split_first() else {
            return Look::Unclear("no program is named".to_owned());
        };
        let mut command = Command::new(program);
        command
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let end = Instant::now() + limit;
        // One that comes up too late is killed as it is dropped.
        let started = self.apart(move || command.spawn().map(Group));
        let mut group = match timeout_at(end, started).await {
            Ok(Ok(Ok(group))) => group,
            Ok(Ok(Err(error))) => {
                return Look::Unclear(format!("{program} cannot be run: {error}"));
            }
            Ok(Err(hangs)) => return hangs,
            Err(_) => return no_answer(limit),
        };
        match timeout_at(end, group.0.wait()).await {
            Ok(Ok(status)) if status.success() => Look::Yes,
            Ok(Ok(status)) => Look::No(status.to_string()),
            Ok(Err(error)) => Look::Unclear(format!("{program} cannot be waited for: {error}")),
            Err(_) => {
                group.kill();
                // Killed processes end at once unless the kernel holds them; then tokio reaps
                // later.
                let _ = timeout(REAP_TIME, group.0.wait()).await;
                no_answer(limit)
            }
        }
    }
}

/// Connects to the first of a host's addresses that accepts. Only where every one of them refuses is
/// it certain that nobody listens.
pub(super) async fn connect_to_any(addresses: &[SocketAddr]) -> Result<TcpStream, Look> {
    let mut answer = Look::Unclear("the host has no address".to_owned());
    for (number, address) in addresses.iter().enumerate() {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                answer = Look::Unclear(error.to_string());
            }
            Err(error) if number == 0 => answer = Look::No(error.to_string()),
            Err(_) => {}
        }
    }
    Err(answer)
}

fn no_answer(limit: Duration) -> Look {
    Look::Unclear(format!("no answer within {}", humantime::format_duration(limit)))
}

/// How long a killed command is waited for before its reaping is left to the runtime.
const REAP_TIME: Duration = Duration::from_secs(1);

/// A command's process group; it is killed when the look at it is given up.
#[derive(Debug)]
struct Group(Child);

impl Group {
    fn kill(&self) {
        // Without an id it has been reaped, and its number may be somebody else's by now.
        let leader = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(leader) = leader {
            // It may have ended by itself in this moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

//! What the service manager is told: that the node is ready, how it is, and that it is alive.
//!
//! The protocol is systemd's `sd_notify`: datagrams of `KEY=value` lines to a socket that it names
//! in the environment. Nobody waits for it: what does not get through at once is tried again at the
//! next turn of the guard's loop. (The crates for this block on a full socket.)

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use crate::clock::Reading;

/// Where it listens, how often it wants a sign of life (in microseconds), and from whom.
const ENV_SOCKET: &str = "NOTIFY_SOCKET";
const ENV_WATCHDOG: &str = "WATCHDOG_USEC";
const ENV_WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How many signs of life are sent for each that is wanted: some may be late.
const SIGNS: u32 = 3;

/// A service manager that wants to be told, or none.
pub(crate) struct Supervisor {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it gets a sign of life.
    period: Option<Duration>,
    next_sign: Reading,
    /// The daemon's count of beats at the last sign.
    beats: Option<u64>,
    ready: bool,
    stopping: bool,
    status: String,
}

impl Supervisor {
    /// As the environment says.
    pub(crate) fn from_env(now: Reading) -> Self {
        let watched =
            env::var(ENV_WATCHDOG_PID).map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let usec = env::var(ENV_WATCHDOG).ok().and_then(|usec| usec.parse().ok());
        let interval = usec.filter(|&usec| watched && usec > 0).map(Duration::from_micros);
        Supervisor::new(env::var_os(ENV_SOCKET).as_deref(), interval, now)
    }

    fn new(socket: Option<&OsStr>, interval: Option<Duration>, now: Reading) -> Self {
        let to = socket.and_then(|name| connect(name).ok());
        let period = interval.filter(|_| to.is_some()).map(|interval| interval / SIGNS);
        Supervisor {
            to,
            period,
            next_sign: now,
            beats: None,
            ready: false,
            stopping: false,
            status: String::new(),
        }
    }

    /// Whether there is one.
    pub(crate) fn listens(&self) -> bool {
        self.to.is_some()
    }

    /// The node does what it is there for. Told once.
    pub(crate) fn ready(&mut self) {
        self.ready = self.ready || self.tell("READY=1");
    }

    /// The node is ending. Told once.
    pub(crate) fn stopping(&mut self) {
        self.stopping = self.stopping || self.tell("STOPPING=1");
    }

    /// How the node is, for people; told when it has changed.
    pub(crate) fn status(&mut self, status: String) {
        if self.status != status && self.tell(&format!("STATUS={status}")) {
            self.status = status;
        }
    }

    /// Whether a sign of life is due.
    pub(crate) fn wants_sign(&self, now: Reading) -> bool {
        self.period.is_some() && now.is_past(self.next_sign)
    }

    /// Gives a sign of life. `beats` is how often the daemon has beaten, where there is one that
    /// should: if it has not since the last sign, there is none.
    pub(crate) fn sign(&mut self, beats: Option<u64>, now: Reading) {
        let Some(period) = self.period else { return };
        if beats.is_some() && beats == self.beats {
            return;
        }
        if self.tell("WATCHDOG=1") {
            self.beats = beats;
            self.next_sign = now.after(period);
        }
    }

    /// Whether that got through. A service manager that does not listen is no reason not to go on.
    fn tell(&self, what: &str) -> bool {
        let sent = self.to.as_ref().map(|(socket, to)| socket.send_to_addr(what.as_bytes(), to));
        matches!(sent, Some(Ok(_)))
    }
}

/// Keeps a process from taking itself for the one that the service manager listens to.
pub(crate) fn keep_from(command: &mut Command) {
    for variable in [ENV_SOCKET, ENV_WATCHDOG, ENV_WATCHDOG_PID] {
        command.env_remove(variable);
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Reading {
        Reading { boot_ns: ms * 1_000_000, raw_ns: ms * 1_000_000 }
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn a_service_manager_is_told_once_wherever_it_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@{}", path.display());
        let by_name = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str()),
            (UnixDatagram::bind_addr(&by_name).unwrap(), OsStr::new(&name)),
        ] {
            let mut supervisor = Supervisor::new(Some(name), None, at(0));
            for _ in 0..2 {
                supervisor.ready();
                supervisor.status("well".to_owned());
                supervisor.sign(None, at(0));
            }
            supervisor.status("better".to_owned());
            supervisor.stopping();
            let expected = ["READY=1", "STATUS=well", "STATUS=better", "STOPPING=1"];
            assert_eq!(received(&socket), expected);
        }
    }

    #[test]
    fn a_sign_of_life_is_given_only_while_the_daemon_beats() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let interval = Some(Duration::from_millis(300));
        let mut supervisor = Supervisor::new(Some(path.as_os_str()), interval, at(0));
        for (ms, beats, signs) in [
            (0, None, 1),
            (50, None, 0),
            (100, Some(1), 1),
            (200, Some(1), 0),
            (201, Some(1), 0),
            (202, Some(2), 1),
            (301, Some(3), 0),
            (302, Some(3), 1),
            (402, None, 1),
            (502, None, 1),
        ] {
            if supervisor.wants_sign(at(ms)) {
                supervisor.sign(beats, at(ms));
            }
            assert_eq!(received(&socket).len(), signs, "at {ms} ms");
        }
    }

    #[test]
    fn nobody_listening_is_no_trouble() {
        for socket in [None, Some("/nowhere/notify"), Some("vsock:2:1"), Some("")] {
            let interval = Some(Duration::from_secs(3));
            let mut supervisor = Supervisor::new(socket.map(OsStr::new), interval, at(0));
            supervisor.ready();
            supervisor.status("well".to_owned());
            supervisor.sign(None, at(0));
        }
    }

    #[test]
    fn a_full_socket_is_not_waited_for_and_nothing_is_lost_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let slow = UnixDatagram::bind(&path).unwrap();
        let mut supervisor = Supervisor::new(Some(path.as_os_str()), None, at(0));
        for i in 0..10_000 {
            supervisor.status(i.to_string());
        }
        for _ in 0..2 {
            supervisor.ready();
            supervisor.stopping();
        }
        assert!(received(&slow).iter().all(|told| told.starts_with("STATUS=")));
        for _ in 0..2 {
            supervisor.ready();
            supervisor.stopping();
        }
        assert_eq!(received(&slow), ["READY=1", "STOPPING=1"]);
    }
}

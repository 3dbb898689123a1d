//! The daemon as a process: started, signalled, reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait,
};

use crate::clock::Reading;
use crate::heartbeat::{Silence, is_dead};
use crate::lock::Holder;
use crate::page::{Page, PageFile};

/// How long a daemon may take from being started to its first beat.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A daemon that was started and is not reaped yet.
pub(crate) struct Daemon {
    pid: Pid,
    pidfd: OwnedFd,
    /// Whether this guard started it; another's orphan is reaped by someone else.
    pub(crate) own: bool,
    pub(crate) started: Reading,
    pub(crate) killed: bool,
    beats_before: u64,
    silence: Silence,
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It exited with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
    /// It was another guard's, who alone could have learnt how.
    Orphan,
}

impl Death {
    /// As an exit code, by the shells' convention for signals.
    pub(crate) fn code(self) -> u8 {
        match self {
            Death::Exited(code) => code,
            Death::Killed(signal) => signal.saturating_add(128),
            Death::Orphan => 1,
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Death::Exited(code) => write!(f, "exit_code={code}"),
            Death::Killed(signal) => write!(f, "signal={signal}"),
            Death::Orphan => f.write_str("orphan=true"),
        }
    }
}

impl Daemon {
    /// Starts the daemon, in a process group of its own: what the terminal sends on Ctrl-C is for
    /// the guard to pass on, once.
    pub(crate) fn spawn(command: &mut Command, page: &PageFile, now: Reading) -> io::Result<Self> {
        let mut child =
            command.envs(page.environment()).process_group(0).stdin(Stdio::null()).spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error.into());
            }
        };
        page.page.header().daemon_pid.store(child.id().into(), SeqCst);
        Ok(Daemon::new(pid, pidfd, true, &page.page, now))
    }

    /// Another guard's daemon, found by its lock; `None` when it has just ended.
    pub(crate) fn orphan(holder: &Holder, page: &Page, now: Reading) -> Option<Self> {
        let pid = Pid::from_raw(holder.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // What the descriptor stands for is the holder if that is running now, after opening.
        holder.is_running().then(|| Daemon::new(pid, pidfd, false, page, now))
    }

    fn new(pid: Pid, pidfd: OwnedFd, own: bool, page: &Page, started: Reading) -> Self {
        let beats_before = page.header().daemon_beats.load(SeqCst);
        let silence = Silence::default();
        Daemon { pid, pidfd, own, started, killed: false, beats_before, silence }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal. It fails only for a process that has ended, which is found out by reaping.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.killed = true;
    }

    /// Whether it has not moved for so long that it counts as hung. Before its first beat, while
    /// it still starts, it has longer.
    pub(crate) fn is_hung(&mut self, page: &Page, now: Reading) -> bool {
        let rhythm = page.rhythm();
        let beats = page.header().daemon_beats.load(SeqCst);
        let silent = self.silence.observe(beats, now, rhythm.period);
        silent >= if beats == self.beats_before { START_LIMIT } else { rhythm.stale_after }
    }

    /// How it ended, if it has. This reaps whatever else has ended too, as process 1 must.
    pub(crate) fn reap(&self) -> Option<Death> {
        let reaped = reap_children(Some(self.pid));
        // As process 1 the guard may have inherited, and so reaped, even an orphan.
        let orphan = !self.own && is_dead(&self.pidfd);
        if orphan { Some(Death::Orphan) } else { reaped }
    }
}

impl AsFd for Daemon {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Reaps everything that has ended; says how the wanted one did.
pub(crate) fn reap_children(wanted: Option<Pid>) -> Option<Death> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == wanted {
            found = Some(death(status));
        }
    }
    found
}

fn death(status: WaitStatus) -> Death {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Death::Exited(byte(code)),
        (None, signal) => Death::Killed(signal.map_or(0, byte)),
    }
}

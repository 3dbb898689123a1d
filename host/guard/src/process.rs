//! The daemon as a process: started, signalled, reaped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait,
};

use crate::clock::Reading;
use crate::heartbeat::{Silence, is_dead};
use crate::lock::Holder;
use crate::page::Page;
use crate::starter::Started;

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
    /// Whether it was asked to stop. A second time would abort it.
    pub(crate) told_to_stop: bool,
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
    /// The daemon that was just started. `beats_before` is the page's count from before that.
    pub(crate) fn new(started: Started, beats_before: u64, page: &Page, now: Reading) -> Self {
        let Started { pid, pidfd } = started;
        page.header().daemon_pid.store(pid.as_raw_nonzero().get().unsigned_abs().into(), SeqCst);
        Daemon {
            pid,
            pidfd,
            own: true,
            started: now,
            killed: false,
            told_to_stop: false,
            beats_before,
            silence: Silence::default(),
        }
    }

    /// Another guard's daemon, found by its lock; `None` when it has just ended.
    pub(crate) fn orphan(holder: &Holder, page: &Page, now: Reading) -> Option<Self> {
        let pid = Pid::from_raw(holder.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // What the descriptor stands for is the holder if that is running now, after opening.
        holder.is_running().then(|| Daemon {
            pid,
            pidfd,
            own: false,
            started: now,
            killed: false,
            told_to_stop: false,
            beats_before: page.daemon_beats(),
            silence: Silence::default(),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal. It fails only for a process that has ended, which is found out by reaping.
    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Asks it to stop, once.
    pub(crate) fn stop(&mut self) {
        if !self.told_to_stop {
            self.signal(Signal::TERM);
            self.told_to_stop = true;
        }
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.killed = true;
    }

    /// Whether it has shown itself on the page. From then on it listens to signals.
    pub(crate) fn has_beaten(&self, page: &Page) -> bool {
        page.daemon_beats() != self.beats_before
    }

    /// Whether it has not moved for so long that it counts as hung. Before its first beat, while
    /// it still starts, it has longer.
    pub(crate) fn is_hung(&mut self, page: &Page, now: Reading) -> bool {
        let rhythm = page.rhythm();
        let beats = page.daemon_beats();
        let silent = self.silence.observe(beats, now, rhythm.period);
        silent >= if self.has_beaten(page) { rhythm.stale_after } else { START_LIMIT }
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

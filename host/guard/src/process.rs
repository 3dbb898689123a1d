//! The daemon as a process: started, signalled, reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait, waitpid,
};

use crate::clock::Reading;
use crate::heartbeat::{Silence, is_dead};
use crate::lock::Holder;
use crate::page::Page;
use crate::starter::Started;

/// How long a daemon may take from being started to its first beat.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a daemon may take to step aside: for its last writes to disk, and some more.
const STEP_ASIDE_LIMIT: Duration = Duration::from_secs(6);

/// Asks a daemon to make room for a new one that goes on with its session.
const STEP_ASIDE: Signal = Signal::USR2;

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
    /// When it was asked to make room for a new daemon, which goes on with its session.
    stepping_aside: Option<Reading>,
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
        page.header()
            .daemon_pid
            .store(started.pid.as_raw_nonzero().get().unsigned_abs().into(), SeqCst);
        Daemon::of(started, true, beats_before, now)
    }

    fn of(started: Started, own: bool, beats_before: u64, now: Reading) -> Self {
        let Started { pid, pidfd } = started;
        Daemon {
            pid,
            pidfd,
            own,
            started: now,
            killed: false,
            told_to_stop: false,
            stepping_aside: None,
            beats_before,
            silence: Silence::default(),
        }
    }

    /// The daemon that this process started before it executed another program. It cannot have
    /// been reaped, so its id is its own.
    pub(crate) fn handed_over(pid: i32, beats_before: u64, now: Reading) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Daemon::of(Started { pid, pidfd }, true, beats_before, now))
    }

    /// Another guard's daemon, found by its lock; `None` when it has just ended.
    pub(crate) fn orphan(holder: &Holder, page: &Page, now: Reading) -> Option<Self> {
        let pid = Pid::from_raw(holder.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // What the descriptor stands for is the holder if that is running now, after opening.
        let started = Started { pid, pidfd };
        holder.is_running().then(|| Daemon::of(started, false, page.daemon_beats(), now))
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

    /// Asks it to end so that a new daemon can go on with its session.
    pub(crate) fn step_aside(&mut self, now: Reading) {
        self.signal(STEP_ASIDE);
        self.stepping_aside = Some(now);
    }

    /// Whether it was asked to step aside.
    pub(crate) fn is_stepping_aside(&self) -> bool {
        self.stepping_aside.is_some()
    }

    /// Whether it takes too long to step aside.
    pub(crate) fn is_in_the_way(&self, now: Reading) -> bool {
        self.stepping_aside.is_some_and(|since| now.is_past(since.after(STEP_ASIDE_LIMIT)))
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

    /// How it ended, if it has, when only it may be reaped.
    pub(crate) fn reap_alone(&self) -> Option<Death> {
        let (_, status) = waitpid(Some(self.pid), WaitOptions::NOHANG).ok()??;
        Some(death(status))
    }

    /// Whether it is another guard's and has ended. As process 1 this guard may have inherited it,
    /// and so reaped it.
    pub(crate) fn is_dead_orphan(&self) -> bool {
        !self.own && is_dead(&self.pidfd)
    }
}

impl AsFd for Daemon {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Reaps everything that has ended, as process 1 must, and tells of each.
pub(crate) fn reap_children(mut each: impl FnMut(i32, Death)) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        each(pid.as_raw_nonzero().get(), death(status));
    }
}

fn death(status: WaitStatus) -> Death {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Death::Exited(byte(code)),
        (None, signal) => Death::Killed(signal.map_or(0, byte)),
    }
}

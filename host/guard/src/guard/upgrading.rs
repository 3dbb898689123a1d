//! Upgrading: guard and daemon are replaced by what is installed now, one at a time, and the term
//! goes on.
//!
//! ```text
//! SIGUSR2 ─> ask the installed program ──"no", or no answer──> stay as we are
//!               │ "yes"           └────"only anew"──> stop in order, execute it as if started
//!               v
//!            nothing else going on? execute it in place ─> the same process, another program:
//!            it asks the daemon to step aside ─> the next one adopts the session
//! ```
//!
//! While the guard executes the new program the daemon keeps its deadline; while the daemon is
//! replaced the guard does. Executing waits for the disk that the program is on. Should that
//! hang, the daemon sees a guard that does not beat, gives everything up and ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use crate::clock::Reading;
use crate::config::{GuardError, Upgrade};
use crate::handover::Parcel;
use crate::log::Log;
use crate::process::Death;
use crate::signals::Signals;
use crate::starter::{Program, Started};

use super::Guard;
use super::stopping::Stop;

/// How long the installed program may think about whether it can take over.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How far an upgrade is.
pub(super) enum Upgrading {
    /// There is none.
    No,
    /// It was asked for.
    Wanted,
    /// The installed program is being started to be asked.
    Starting,
    /// The installed program is being asked.
    Asking { answerer: Started, give_up: Reading },
    /// It can take over. It does once nothing else is going on.
    Ready,
    /// This is the new program, and the daemon is still the old one.
    Daemon,
}

/// The program that takes over in an upgrade: whatever is installed by that name then.
pub(super) struct Installed {
    program: PathBuf,
    /// What this one was called with, its own name first.
    call: Vec<OsString>,
}

impl Installed {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let program = PathBuf::from(upgrade.question.get_program());
        Installed { program, call: upgrade.call.clone() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some((name, arguments)) = self.call.split_first() {
            command.arg0(name).args(arguments);
        }
        command
    }

    /// Executes it as if this process had just been started; returns only when that fails.
    /// Everything is given up, and what waits for this program may wait for that one.
    pub(super) fn execute_anew(&self, signals: &mut Signals, log: &Log) -> Result<(), GuardError> {
        let failed = |source| GuardError::StartAnew { program: self.program.clone(), source };
        signals.hold_back_again().map_err(failed)?;
        if signals.take_stops() > 0 {
            return Ok(()); // this was its end
        }
        log.info(
            "starting the installed program anew",
            format!("program={}", self.program.display()),
        );
        log.flush();
        Err(failed(self.command().env_remove(Parcel::VARIABLE).exec()))
    }
}

impl Upgrading {
    /// Whether it waits for something that does not wake the guard up.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Upgrading::Wanted | Upgrading::Ready | Upgrading::Daemon)
    }
}

impl Guard {
    /// It was asked to upgrade.
    pub(super) fn begin_upgrade(&mut self) {
        match self.upgrading {
            Upgrading::No if self.stop != Stop::No => {
                self.log.warn("asked to upgrade while stopping, not upgrading", "");
            }
            Upgrading::No if self.installed.is_none() => {
                self.log.warn("asked to upgrade, and was started without knowing how", "");
            }
            Upgrading::No => {
                self.log.info("asked to upgrade", "");
                self.upgrading = Upgrading::Wanted;
            }
            _ => self.log.warn("asked to upgrade while already at it", ""),
        }
    }

    /// Takes the next step of an upgrade, if it is due.
    pub(super) fn go_on_upgrading(&mut self, now: Reading) {
        if matches!(self.upgrading, Upgrading::No) {
            return;
        }
        if self.stop != Stop::No || self.end.is_some() {
            self.give_up_asking();
            return;
        }
        match &self.upgrading {
            Upgrading::Wanted if !self.starter.is_busy() => {
                self.starter.order(Program::Question);
                self.upgrading = Upgrading::Starting;
            }
            Upgrading::Asking { give_up, .. } if now.is_past(*give_up) => {
                self.give_up_asking();
                self.log.error("the installed program does not answer, not upgrading", "");
            }
            Upgrading::Ready if self.is_quiet() => self.execute(now),
            Upgrading::Daemon => self.replace_daemon(now),
            _ => {}
        }
    }

    /// Takes in whether the installed program could be started to be asked.
    pub(super) fn take_asked(&mut self, started: io::Result<Started>, now: Reading) {
        match (started, &self.upgrading) {
            (Ok(answerer), Upgrading::Starting) => {
                self.upgrading = Upgrading::Asking { answerer, give_up: now.after(ANSWER_LIMIT) };
            }
            // Nobody wants to know any more.
            (Ok(answerer), _) => kill(&answerer),
            (Err(error), _) => {
                self.upgrading = Upgrading::No;
                let fields = format!("reason=\"{error}\"");
                self.log.error("cannot run the installed program, not upgrading", fields);
            }
        }
    }

    /// A child has ended: perhaps the one that was asked.
    pub(super) fn take_answer(&mut self, pid: i32, death: Death, now: Reading) {
        match &self.upgrading {
            Upgrading::Asking { answerer, .. } if answerer.pid.as_raw_nonzero().get() == pid => {}
            _ => return,
        }
        match death {
            Death::Exited(0) => {
                self.upgrading = Upgrading::Ready;
                if !self.is_quiet() {
                    self.log.info("the upgrade waits for what is being started or withdrawn", "");
                }
            }
            Death::Exited(Upgrade::NOT_IN_PLACE) => {
                self.upgrading = Upgrading::No;
                self.log.error(
                    "the installed program cannot go on with this session: giving everything up in order, then starting it anew",
                    "",
                );
                self.start_anew = true;
                self.stop_daemon(now);
            }
            death => {
                self.upgrading = Upgrading::No;
                let fields = format!("{death}");
                self.log.error("the installed program cannot take over, not upgrading", fields);
            }
        }
    }

    fn give_up_asking(&mut self) {
        if let Upgrading::Asking { answerer, .. } = &self.upgrading {
            kill(answerer);
        }
        self.upgrading = Upgrading::No;
    }

    /// Whether there is nothing that executing another program would cut short: no thread is at a
    /// file, nothing is being started, withdrawn, or stopped.
    fn is_quiet(&self) -> bool {
        let page = &self.page.page;
        let daemon = self.daemon.as_ref().is_none_or(|daemon| {
            daemon.own && !daemon.killed && !daemon.is_stepping_aside() && daemon.has_beaten(page)
        });
        daemon
            && (self.expiry.is_none() || page.claimed() == 0)
            && self.cleanup.is_none()
            && !self.starter.is_busy()
            && self.lanes.are_finished()
            && self.chores.is_finished()
    }

    /// Executes the installed program in place of this one; returns only when that fails.
    fn execute(&mut self, now: Reading) {
        self.upgrading = Upgrading::No;
        // From here on requests wait for the program that comes; those that came before count.
        if let Err(error) = self.signals.hold_back_again() {
            self.log.error("cannot hold signals back", format!("reason=\"{error}\""));
            return;
        }
        self.heed_signals(now);
        if self.stop == Stop::No && self.end.is_none() {
            let (program, error) = self.hand_over();
            let fields = format!("program={} reason=\"{error}\"", program.display());
            self.log.error("cannot execute the installed program, going on as before", fields);
        }
        if let Err(error) = self.signals.let_in() {
            self.log.error("cannot let signals in", format!("reason=\"{error}\""));
        }
    }

    fn hand_over(&mut self) -> (PathBuf, io::Error) {
        let Some(installed) = &self.installed else {
            return (PathBuf::new(), io::ErrorKind::Unsupported.into());
        };
        let (program, mut command) = (installed.program.clone(), installed.command());
        self.state.daemon = self.daemon.as_ref().map(|daemon| daemon.pid());
        self.state.beats_before = self.beats_before;
        let [page, page_lock] = self.page.descriptors();
        let parcel = Parcel {
            state: &self.state,
            lock: self.lock.as_fd(),
            page,
            page_lock,
            input: self.input.as_ref().map(|input| input.as_fd()),
        };
        match parcel.pack() {
            Err(error) => (program, error),
            Ok((input, (variable, value))) => {
                let fields = format!("program={}", program.display());
                self.log.info("executing the installed program", fields);
                self.log.flush();
                // The daemon looks after itself until the new program beats.
                self.page.page.beat_as_guard(Reading::now());
                let error = command.stdin(input).env(variable, value).exec();
                (program, error)
            }
        }
    }

    /// As the new program: has the old one's daemon step aside.
    fn replace_daemon(&mut self, now: Reading) {
        match &mut self.daemon {
            Some(daemon) if daemon.has_beaten(&self.page.page) => {
                daemon.step_aside(now);
                let fields = format!("pid={}", daemon.pid());
                self.log.info("asked the daemon to step aside for a new one", fields);
                self.upgrading = Upgrading::No;
            }
            _ => {}
        }
    }
}

fn kill(process: &Started) {
    // It fails only for one that has ended.
    let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
}

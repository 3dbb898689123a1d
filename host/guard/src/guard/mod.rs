//! The guard's loop: start the daemon, watch it and its deadline, withdraw when it cannot.
//!
//! ```text
//!            ┌──────────── dies, deadline ahead: start anew, it adopts ───────────┐
//!            v                                                                    │
//!  start ─> daemon runs ── deadline passes ─> expired: lanes withdraw ─> spared ──┤ (all released)
//!                │                                  │ margin/4 later              │
//!                │                                  └──────────────> killed ──────┤
//!                └── exits with a final code, or told to stop ─> withdraw ─> end  │
//!                                  dead, nothing may stay in place: withdraw ─────┘
//! ```
//!
//! After every wake-up the deadline comes first. Nothing on the way from noticing it to the lanes'
//! unlinking, nor to killing the daemon, allocates, takes a lock, or waits for anybody.

mod deadline;
mod reporting;
mod stopping;
mod upgrading;

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Signal, getpid, set_child_subreaper};

use crate::backoff::Backoff;
use crate::clock::{BootTimer, Reading};
use crate::config::{GuardConfig, GuardError};
use crate::handover::{Handover, Parcel, State};
use crate::heartbeat::Rhythm;
use crate::lanes::Lanes;
use crate::lock::GuardLock;
use crate::log::Log;
use crate::orphan;
use crate::page::PageFile;
use crate::process::{Daemon, Death, reap_children};
use crate::signals::Signals;
use crate::starter::{Program, Starter};
use crate::supervisor::{self, Supervisor};
use crate::whereabouts::{page_path, sweep};

use deadline::{Cleanup, Expiry};
use stopping::Stop;
use upgrading::{Installed, Upgrading};

/// The exit code of a guard that ended its daemon the hard way.
const ABORTED: u8 = 1;

/// How often it looks for what does not wake it up: whether a daemon that is to stop listens yet,
/// say.
const LISTENING: Duration = Duration::from_millis(10);

/// Runs the guard until its daemon ends for good or it is told to stop; returns the exit code.
///
/// SIGTERM, SIGINT or SIGHUP asks the daemon to stop, and its exit code is the guard's. Between two
/// daemons a session that stands gets one more, to give it up in order. A second signal
/// withdraws at once, kills the daemon, and the code is 1. SIGUSR2 replaces guard and daemon by what
/// is installed, as [`GuardConfig::upgrade`] says. It takes the process for its own: handlers of
/// these signals and of SIGCHLD and SIGURG, and every child, which it reaps; and it must be
/// the process's first thread.
///
/// # Errors
/// [`GuardError`]; nothing was started if it comes before the first start of the daemon.
pub fn run(mut config: GuardConfig) -> Result<u8, GuardError> {
    // First of all, so that no request to stop kills this process or, as process 1, is lost.
    let signals = Signals::hold_back().map_err(setup("signal handlers"))?;
    let log = Log::start(config.quiet).map_err(setup("log"))?;
    let mut guard = match config.handover.take() {
        Some(handover) => Guard::take_over(handover, config, signals, log)?,
        None => Guard::set_up(config, signals, log)?,
    };
    let outcome = guard.work();
    if guard.daemon.is_some() {
        // It cannot go on watching; the daemon sees that, and the page tells the next guard.
        return outcome;
    }
    let left = guard.page.page.claims();
    if let Some(first) = left.first() {
        // The page stays, for the next guard to see.
        return Err(GuardError::StillInPlace { count: left.len(), path: first.dest.clone() });
    }
    guard.page.remove()?;
    match guard.installed.filter(|_| guard.start_anew) {
        Some(installed) => installed.execute_anew(&mut guard.signals, &guard.log).and(outcome),
        None => outcome,
    }
}

fn setup(what: &'static str) -> impl Fn(io::Error) -> GuardError {
    move |source| GuardError::Setup { what, source }
}

struct Guard {
    /// The daemon's.
    program: String,
    final_codes: Vec<u8>,
    rhythm: Rhythm,
    /// Never let go of by hand: a thread that hangs in withdrawing could still touch a path that
    /// the next pair has placed anew. The kernel lets go when the last thread is gone.
    lock: ManuallyDrop<GuardLock>,
    page: PageFile,
    lanes: Lanes,
    starter: Starter,
    signals: Signals,
    timer: BootTimer,
    log: Log,
    daemon: Option<Daemon>,
    /// The page's count of beats before the daemon was started.
    beats_before: u64,
    /// Whether any was started.
    ever_started: bool,
    /// When another guard's daemon was asked to stop.
    orphan_since: Option<Reading>,
    stop: Stop,
    /// Whether a daemon that ended without giving up its session was followed by one that is to.
    last_chance: bool,
    expiry: Option<Expiry>,
    cleanup: Option<Cleanup>,
    upgrading: Upgrading,
    installed: Option<Installed>,
    /// Whether the installed program is executed as if just started, once everything is given up.
    start_anew: bool,
    /// What another program of this process needs to know.
    state: State,
    input: Option<File>,
    chores: JoinHandle<()>,
    supervisor: Supervisor,
    /// With which code the guard ends, once everything is withdrawn.
    end: Option<u8>,
    /// The code of the last daemon that ended.
    last_code: u8,
    backoff: Backoff,
    next_start: Reading,
    next_beat: Reading,
}

impl Guard {
    /// As the guard of a pair of its own.
    fn set_up(mut config: GuardConfig, signals: Signals, log: Log) -> Result<Self, GuardError> {
        // Before anything that could take its time, so that whoever waits sees what for.
        log.info("guard started", format!("pid={}", std::process::id()));
        let lock = ManuallyDrop::new(GuardLock::acquire(&config.state_dir)?);
        // By its one true name, whoever calls it by which.
        config.state_dir =
            std::fs::canonicalize(&config.state_dir).map_err(setup("state directory"))?;
        let now = Reading::now();
        let GuardConfig { state_dir, slots, rhythm, .. } = &config;
        let page = PageFile::open_or_create(&page_path(state_dir)?, *slots)?;
        // Unique within a boot, as guards of one page take turns.
        page.page.take_over(now.boot_ns, *rhythm, state_dir);
        let orphan = orphan::find(state_dir, &page.page)?;
        let page = if orphan.is_none() { page.resized(*slots)? } else { page };
        page.page.take_over(now.boot_ns, *rhythm, state_dir);
        let mut guard = Guard::assemble(config, lock, page, signals, log, now)?;
        match orphan {
            Some(orphan) => guard.retire(orphan, now),
            None => guard.clean_up_after_old_pair(now),
        }
        Ok(guard)
    }

    /// As the guard that this process is already, by another program. From the page on which the
    /// old program beat last to this one's first beat it waits for no disk.
    fn take_over(
        handover: Handover,
        mut config: GuardConfig,
        signals: Signals,
        log: Log,
    ) -> Result<Self, GuardError> {
        let Handover { state, lock, page, page_lock, input } = handover;
        let now = Reading::now();
        let lock = ManuallyDrop::new(GuardLock::handed_over(lock));
        let page = PageFile::handed_over(state.page.into(), page, page_lock)?;
        page.page.beat_as_guard(now);
        config.state_dir = state.state_dir.into();
        config.destinations = state.destinations.into_iter().map(PathBuf::from).collect();
        config.input = input;
        config.rhythm = page.page.rhythm();
        let mut guard = Guard::assemble(config, lock, page, signals, log, now)?;
        guard.log.info("guard goes on by another program", format!("pid={}", std::process::id()));
        if let Some(pid) = state.daemon {
            let daemon = Daemon::handed_over(pid, state.beats_before, now);
            guard.daemon = Some(daemon.map_err(GuardError::Handover)?);
        }
        guard.beats_before = state.beats_before;
        guard.ever_started = true;
        guard.upgrading = Upgrading::Daemon;
        Ok(guard)
    }

    fn assemble(
        config: GuardConfig,
        lock: ManuallyDrop<GuardLock>,
        page: PageFile,
        signals: Signals,
        log: Log,
        now: Reading,
    ) -> Result<Self, GuardError> {
        let GuardConfig { state_dir, mut command, input, destinations, upgrade, .. } = config;
        if config.has_processes {
            // What the daemon started becomes the guard's once that is dead, which reaps it.
            set_child_subreaper(Some(getpid()))
                .map_err(|error| setup("subreaper")(error.into()))?;
        }
        let lanes = Lanes::start(page.page, &destinations).map_err(setup("threads"))?;
        let program = command.get_program().to_string_lossy().into_owned();
        command.envs(page.environment());
        let installed = upgrade.as_ref().map(Installed::new);
        let mut question = upgrade.map(|upgrade| upgrade.question);
        for command in question.iter_mut().chain([&mut command]) {
            supervisor::keep_from(command);
            command.env_remove(Parcel::VARIABLE);
        }
        let kept = input.as_ref().map(File::try_clone).transpose().map_err(setup("input"))?;
        let starter = Starter::new(command, question, input).map_err(setup("threads"))?;
        let timer = BootTimer::new().map_err(setup("timer"))?;
        let chores = do_chores(page.path().to_owned()).map_err(setup("threads"))?;
        signals.let_in().map_err(setup("signals"))?;
        Ok(Guard {
            program,
            final_codes: config.final_codes,
            rhythm: config.rhythm,
            lock,
            state: State::new(state_dir, page.path().to_owned(), destinations),
            page,
            lanes,
            starter,
            signals,
            timer,
            log,
            daemon: None,
            beats_before: 0,
            ever_started: false,
            orphan_since: None,
            stop: Stop::No,
            last_chance: false,
            expiry: None,
            cleanup: None,
            upgrading: Upgrading::No,
            installed,
            start_anew: false,
            input: kept,
            chores,
            supervisor: Supervisor::from_env(now),
            end: None,
            last_code: 0,
            backoff: Backoff::default(),
            next_start: now,
            next_beat: now,
        })
    }

    fn work(&mut self) -> Result<u8, GuardError> {
        loop {
            let now = Reading::now();
            self.enforce_deadline(now);
            self.kill_if_due(now);
            self.heed_signals(now);
            self.beat(now);
            self.take_started(now)?;
            self.reap(now);
            self.pass_stop_on(now);
            self.go_on_cleaning(now);
            self.go_on_upgrading(now);
            self.report(now);
            if let Some(code) = self.end_or_start(now) {
                return Ok(code);
            }
            self.wait(Reading::now())?;
        }
    }

    /// Without a daemon and with everything withdrawn: the exit code, or a new daemon once it is
    /// due.
    fn end_or_start(&mut self, now: Reading) -> Option<u8> {
        if self.daemon.is_some() || self.cleanup.is_some() {
            return None;
        }
        // Whatever is being started finds its guard gone, if nobody waits for it.
        if self.end.is_some() && (!self.starter.is_starting_daemon() || self.stop == Stop::Abort) {
            return self.end;
        }
        if self.end.is_none() && !self.starter.is_busy() && now.is_past(self.next_start) {
            self.beats_before = self.page.page.daemon_beats();
            self.page.page.forget_ready();
            self.lanes.take_back_for_good();
            self.starter.order(Program::Daemon);
            if matches!(self.upgrading, Upgrading::Daemon) {
                self.upgrading = Upgrading::No; // the old one died by itself
            }
        }
        None
    }

    fn beat(&mut self, now: Reading) {
        if now.is_past(self.next_beat) {
            self.page.page.beat_as_guard(now);
            self.next_beat = now.after(self.rhythm.period);
        }
    }

    /// Reaps what has ended, and goes on from there.
    fn reap(&mut self, now: Reading) {
        if self.starter.is_busy() {
            if let Some(death) = self.daemon.as_ref().and_then(Daemon::reap_alone) {
                self.bury(death, now);
            }
        } else {
            let mut dead = Vec::new();
            reap_children(|pid, death| dead.push((pid, death)));
            for (pid, death) in dead {
                if self.daemon.as_ref().is_some_and(|daemon| daemon.own && daemon.pid() == pid) {
                    self.bury(death, now);
                } else {
                    self.take_answer(pid, death, now);
                }
            }
        }
        if self.daemon.as_ref().is_some_and(Daemon::is_dead_orphan) {
            self.bury(Death::Orphan, now);
        }
    }

    /// The daemon has ended.
    fn bury(&mut self, death: Death, now: Reading) {
        let Some(daemon) = self.daemon.take() else { return };
        let (pid, own, killed) = (daemon.pid(), daemon.own, daemon.killed);
        let lived = Duration::from_nanos(now.raw_ns.saturating_sub(daemon.started.raw_ns));
        let made_room = daemon.is_stepping_aside() && death == Death::Exited(0);
        self.orphan_since = None;
        if let Some(expiry) = &mut self.expiry {
            expiry.settled = true;
        }
        self.last_code = death.code();
        self.page.page.free_unfinished();

        let is_final = match death {
            Death::Exited(code) => code == 0 && !made_room || self.final_codes.contains(&code),
            Death::Killed(_) | Death::Orphan => false,
        };
        if is_final || self.stop != Stop::No && !(own && self.has_last_chance(now)) {
            self.end = Some(self.end_code(death, killed));
        }
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        // Nobody reaps for the next daemon what this one started: a number could come to mean others.
        if self.end.is_some() || !own || !standing || self.page.page.claims_processes() {
            self.withdraw_for_good(now);
        }
        if self.end.is_some() {
            self.log.info("daemon ended", format!("pid={pid} {death}"));
            return;
        }
        let at_once = !own || daemon.is_stepping_aside() || self.stop == Stop::Asked;
        let delay = if at_once { Duration::ZERO } else { self.backoff.next(lived) };
        self.next_start = now.after(delay);
        let fields = format!("pid={pid} {death} restart_in_ms={}", delay.as_millis());
        self.log.warn("daemon ended", fields);
    }

    /// The guard's exit code after the daemon's last death. A daemon that was asked to stop before
    /// it could even listen has stopped as asked, when it had nothing; so has another guard's, of
    /// which only that is known.
    fn end_code(&self, death: Death, killed: bool) -> u8 {
        let had_nothing = self.page.page.session().is_none() && self.page.page.claimed() == 0;
        let terminated = Death::Killed(Signal::TERM.as_raw().try_into().unwrap_or_default());
        match death {
            _ if killed => ABORTED,
            Death::Orphan if self.stop == Stop::Asked => 0,
            death if death == terminated && self.stop == Stop::Asked && had_nothing => 0,
            death => death.code(),
        }
    }

    /// Takes in what came of starting a daemon.
    fn take_started(&mut self, now: Reading) -> Result<(), GuardError> {
        match self.starter.take() {
            None => {}
            Some((Program::Question, asked)) => self.take_asked(asked, now),
            Some((_, Ok(started))) => {
                let mut daemon = Daemon::new(started, self.beats_before, &self.page.page, now);
                self.log.info("started the daemon", format!("pid={}", daemon.pid()));
                if self.stop == Stop::Abort {
                    daemon.kill();
                }
                self.ever_started = true;
                self.daemon = Some(daemon);
            }
            Some((_, Err(source))) if !self.ever_started => {
                return Err(GuardError::Start { program: self.program.clone(), source });
            }
            Some((_, Err(error))) => {
                let delay = self.backoff.next(Duration::ZERO);
                self.next_start = now.after(delay);
                let fields = format!("reason=\"{error}\" again_in_ms={}", delay.as_millis());
                self.log.error("cannot start the daemon", fields);
                if self.stop != Stop::No {
                    self.end = Some(self.last_code);
                    self.withdraw_for_good(now);
                }
            }
        }
        Ok(())
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self, now: Reading) -> Result<(), GuardError> {
        self.timer.set(self.next_due(now)).map_err(setup("timer"))?;
        let timer = PollFd::new(&self.timer, PollFlags::IN);
        let daemon = self.daemon.as_ref().map(|daemon| PollFd::new(daemon, PollFlags::IN));
        let mut fds = [
            PollFd::new(&self.signals.stop, PollFlags::IN),
            PollFd::new(&self.signals.upgrade, PollFlags::IN),
            PollFd::new(&self.signals.wake, PollFlags::IN),
            PollFd::new(&self.lanes, PollFlags::IN),
            PollFd::new(&self.starter, PollFlags::IN),
            daemon.unwrap_or_else(|| timer.clone()),
            timer,
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(setup("waiting")(error.into())),
        }
        self.timer.consume().map_err(setup("timer"))?;
        Ok(())
    }

    fn next_due(&self, now: Reading) -> Duration {
        let page = &self.page.page;
        let mut due = now.until(self.next_beat);
        if self.upgrading.is_waiting() {
            due = due.min(LISTENING);
        }
        if let Upgrading::Asking { give_up, .. } = &self.upgrading {
            due = due.min(now.until(*give_up));
        }
        if let Some(session) = page.session().filter(|session| !session.expired) {
            due = due.min(now.until(session.deadline));
        }
        if let Some(expiry) = self.expiry.as_ref().filter(|_| page.claimed() > 0) {
            if self.cleanup.is_none() {
                due = due.min(now.until(expiry.retry));
            }
            if !expiry.settled && self.daemon.as_ref().is_some_and(|daemon| !daemon.killed) {
                due = due.min(now.until(expiry.kill_at));
            }
        }
        match (&self.daemon, &self.cleanup) {
            (Some(daemon), _) if self.stop == Stop::Asked && !daemon.told_to_stop => {
                due.min(LISTENING)
            }
            (Some(_), _) => due,
            (None, Some(cleanup)) => due.min(now.until(cleanup.retry)),
            // It says itself when it has finished.
            (None, None) if self.starter.is_busy() => due,
            (None, None) => due.min(now.until(self.next_start)),
        }
    }
}

/// What nothing waits for, on a thread of its own, as it may take its time.
fn do_chores(page: PathBuf) -> io::Result<JoinHandle<()>> {
    let chores = move || {
        // So that the deadline finds everything in memory, as far as the system permits it: without
        // the right to, the guard works as well on any machine that does not swap to death.
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
        // It looks at the state directories of other pairs, which may be on disks that hang. What
        // it leaves costs some memory until the next boot.
        let _ = sweep(&page);
    };
    thread::Builder::new().name("chores".to_owned()).spawn(chores)
}

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

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::Signal;

use crate::clock::{BootTimer, Reading};
use crate::error::PageError;
use crate::heartbeat::Rhythm;
use crate::lanes::Lanes;
use crate::lock::{DaemonLock, GuardLock, LockError};
use crate::log::Log;
use crate::page::{DEFAULT_SLOTS, PageFile, page_path, sweep};
use crate::process::{Daemon, Death, reap_children};
use crate::signals::Signals;

/// The exit code of a guard that ended its daemon the hard way.
const ABORTED: u8 = 1;

/// How long the guard waits for withdrawing to finish before it goes on without: what hangs then
/// stays claimed, and the next daemon knows.
const CLEANUP_LIMIT: Duration = Duration::from_secs(2);

/// How often it tries again what is still claimed.
const RETRY: Duration = Duration::from_millis(100);

/// How long another guard's daemon gets to stop, once it has no session.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// What the guard is to do.
#[derive(Debug)]
pub struct GuardConfig {
    /// The node's state directory: one pair of guard and daemon at a time.
    pub state_dir: PathBuf,
    /// Starts the daemon. The guard adds to its environment, gives it a process group of its own and
    /// no standard input.
    pub command: Command,
    /// The directories that exclusive manifests and role files are placed in, spelled as in the
    /// daemon's claims. Each gets a thread of its own; others share a few.
    pub destinations: Vec<PathBuf>,
    /// Exit codes of the daemon that mean that starting it again is of no use. Zero always is.
    pub final_codes: Vec<u8>,
    /// How many exclusive files the node can have in place at once.
    pub slots: usize,
    /// How often guard and daemon beat, and when either counts as hung.
    pub rhythm: Rhythm,
}

impl GuardConfig {
    /// With the defaults, for a state directory and a daemon.
    pub fn new(state_dir: impl Into<PathBuf>, command: Command) -> Self {
        GuardConfig {
            state_dir: state_dir.into(),
            command,
            destinations: Vec::new(),
            final_codes: Vec::new(),
            slots: DEFAULT_SLOTS,
            rhythm: Rhythm::default(),
        }
    }
}

/// Why the guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The state directory is another pair's, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no shared page to be had.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The daemon could not even be started.
    #[error("cannot start the daemon {program}")]
    Start {
        /// What was to be run.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A resource that the guard needs beforehand is missing.
    #[error("cannot set up the guard's {what}")]
    Setup {
        /// Which.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The guard ends, and could not withdraw everything. Other nodes will lead while this is in
    /// place.
    #[error(
        "{count} exclusive effects are still in place, first of all {path}: remove them by hand"
    )]
    StillInPlace {
        /// How many.
        count: usize,
        /// One of them.
        path: PathBuf,
    },
}

/// Runs the guard until its daemon ends for good or it is told to stop; returns the exit code.
///
/// SIGTERM, SIGINT or SIGHUP asks the daemon to stop, and its exit code is the guard's. A second one
/// withdraws at once, kills the daemon, and the code is 1. It takes the process for its own:
/// handlers of these signals and of SIGCHLD and SIGURG, and every child, which it reaps.
///
/// # Errors
/// [`GuardError`]; nothing was started if it comes before the first start of the daemon.
pub fn run(mut config: GuardConfig) -> Result<u8, GuardError> {
    let _lock = GuardLock::acquire(&config.state_dir)?;
    // By its one true name, whoever calls it by which.
    config.state_dir = std::fs::canonicalize(&config.state_dir)
        .map_err(|source| GuardError::Setup { what: "state directory", source })?;
    let mut guard = Guard::set_up(config)?;
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
    outcome
}

struct Guard {
    config: GuardConfig,
    page: PageFile,
    lanes: Lanes,
    signals: Signals,
    timer: BootTimer,
    log: Log,
    daemon: Option<Daemon>,
    /// When another guard's daemon was asked to stop.
    orphan_since: Option<Reading>,
    stop: Stop,
    expiry: Option<Expiry>,
    cleanup: Option<Cleanup>,
    /// With which code the guard ends, once everything is withdrawn.
    end: Option<u8>,
    /// The code of the last daemon that ended.
    last_code: u8,
    backoff: Backoff,
    next_start: Reading,
    next_beat: Reading,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Asked,
    Abort,
}

/// A session that expired.
struct Expiry {
    version: u64,
    /// When the daemon is killed unless it has released everything.
    kill_at: Reading,
    /// When withdrawing is tried again.
    retry: Reading,
    /// Whether its daemon was spared, or is dead: the next one is not to blame for what is left.
    settled: bool,
}

/// Withdrawing for good, after a daemon's death.
struct Cleanup {
    give_up: Reading,
    retry: Reading,
}

impl Guard {
    fn set_up(config: GuardConfig) -> Result<Self, GuardError> {
        let setup = |what| move |source| GuardError::Setup { what, source };
        let now = Reading::now();
        let log = Log::start().map_err(setup("log"))?;
        // Before anything that could take its time, so that whoever waits sees what for.
        log.info("guard started", format!("pid={}", std::process::id()));
        let path = page_path(&config.state_dir)?;
        if let Err(error) = sweep(&path) {
            log.warn("cannot sweep abandoned pages", format!("reason=\"{error}\""));
        }
        let page = PageFile::open_or_create(&path, config.slots)?;
        // Unique within a boot, as guards of one page take turns.
        page.page.take_over(now.boot_ns, config.rhythm, &config.state_dir);
        let orphan = find_orphan(&config, &page)?;
        let page = if orphan.is_none() { page.resized(config.slots)? } else { page };
        page.page.take_over(now.boot_ns, config.rhythm, &config.state_dir);
        let lanes = Lanes::start(page.page, &config.destinations).map_err(setup("threads"))?;
        let signals = Signals::install().map_err(setup("signal handlers"))?;
        let timer = BootTimer::new().map_err(setup("timer"))?;
        // So that the deadline finds everything in memory, as far as the system permits it: without
        // the right to, the guard works as well on any machine that does not swap to death.
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
        let mut guard = Guard {
            config,
            page,
            lanes,
            signals,
            timer,
            log,
            daemon: None,
            orphan_since: None,
            stop: Stop::No,
            expiry: None,
            cleanup: None,
            end: None,
            last_code: ABORTED,
            backoff: Backoff::default(),
            next_start: now,
            next_beat: now,
        };
        match orphan {
            Some(orphan) => guard.retire(orphan, now),
            None => guard.clean_up_after_old_pair(now),
        }
        Ok(guard)
    }

    fn work(&mut self) -> Result<u8, GuardError> {
        loop {
            let now = Reading::now();
            self.enforce_deadline(now);
            self.kill_if_due(now);
            self.heed_signals(now);
            self.beat(now);
            self.reap(now);
            self.go_on_cleaning(now);
            if self.daemon.is_none() && self.cleanup.is_none() {
                if let Some(code) = self.end {
                    return Ok(code);
                }
                if now.is_past(self.next_start) {
                    self.start(now)?;
                }
            }
            self.wait(Reading::now())?;
        }
    }

    /// Marks a passed deadline and has everything withdrawn, also where the daemon marked it. Goes
    /// on trying as long as something of an expired session is claimed.
    fn enforce_deadline(&mut self, now: Reading) {
        self.page.page.expire(now, false);
        let Some(session) = self.page.page.session().filter(|session| session.expired) else {
            self.expiry = None;
            return;
        };
        let retry = now.after(RETRY);
        match &mut self.expiry {
            Some(expiry) if expiry.version == session.version => {
                if self.daemon.is_some()
                    && self.page.page.claimed() > 0
                    && now.is_past(expiry.retry)
                    && self.lanes.are_finished()
                {
                    expiry.retry = retry;
                    self.lanes.order(false);
                }
            }
            expiry => {
                *expiry = Some(Expiry {
                    version: session.version,
                    kill_at: session.deadline.after(session.margin / 4),
                    retry,
                    settled: self.daemon.is_none(),
                });
                if self.daemon.is_some() {
                    self.lanes.order(false);
                } else if self.cleanup.is_none() {
                    self.clean_up(now);
                }
            }
        }
    }

    /// Kills a daemon that did not withdraw in time, or hangs.
    fn kill_if_due(&mut self, now: Reading) {
        let claimed = self.page.page.claimed();
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.killed) else { return };
        if let Some(expiry) = self.expiry.as_mut().filter(|expiry| !expiry.settled) {
            if claimed == 0 {
                expiry.settled = true;
                self.log.warn("deadline passed, everything withdrawn in time", "by=daemon");
            } else if now.is_past(expiry.kill_at) {
                daemon.kill();
                expiry.settled = true;
                let fields = format!("pid={} claimed={claimed}", daemon.pid());
                self.log.error("deadline passed and daemon did not withdraw, killed it", fields);
                return;
            }
        }
        if daemon.is_hung(&self.page.page, now) {
            daemon.kill();
            self.log.error("daemon hangs, killed it", format!("pid={}", daemon.pid()));
        } else if !standing
            && self.orphan_since.is_some_and(|since| now.is_past(since.after(ORPHAN_LIMIT)))
        {
            daemon.kill();
            self.log
                .warn("orphaned daemon did not stop, killed it", format!("pid={}", daemon.pid()));
        }
    }

    fn heed_signals(&mut self, now: Reading) {
        self.signals.consume_wakes();
        for _ in 0..self.signals.take_stops() {
            match self.stop {
                Stop::No => self.stop_daemon(now),
                Stop::Asked => self.abort(),
                Stop::Abort => {}
            }
        }
    }

    fn stop_daemon(&mut self, now: Reading) {
        self.stop = Stop::Asked;
        match &self.daemon {
            Some(daemon) => {
                daemon.signal(Signal::TERM);
                self.log.info("asked the daemon to stop", format!("pid={}", daemon.pid()));
            }
            None => {
                self.end.get_or_insert(self.last_code);
                self.withdraw_for_good(now);
            }
        }
    }

    fn abort(&mut self) {
        self.stop = Stop::Abort;
        self.page.page.expire(Reading::now(), true);
        self.lanes.order(self.daemon.is_none());
        if let Some(daemon) = &mut self.daemon {
            daemon.kill();
            self.log
                .warn("asked to stop twice, killed the daemon", format!("pid={}", daemon.pid()));
        }
    }

    fn beat(&mut self, now: Reading) {
        if now.is_past(self.next_beat) {
            self.page.page.beat_as_guard(now);
            self.next_beat = now.after(self.config.rhythm.period);
        }
    }

    fn reap(&mut self, now: Reading) {
        let Some(daemon) = &self.daemon else {
            reap_children(None);
            return;
        };
        let Some(death) = daemon.reap() else { return };
        let (pid, own, killed) = (daemon.pid(), daemon.own, daemon.killed);
        let lived = Duration::from_nanos(now.raw_ns.saturating_sub(daemon.started.raw_ns));
        self.daemon = None;
        self.orphan_since = None;
        if let Some(expiry) = &mut self.expiry {
            expiry.settled = true;
        }
        self.last_code = death.code();
        self.page.page.free_unfinished();

        let is_final = match death {
            Death::Exited(code) => code == 0 || self.config.final_codes.contains(&code),
            Death::Killed(_) | Death::Orphan => false,
        };
        if self.stop != Stop::No || is_final {
            self.end = Some(self.end_code(death, killed));
        }
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        if self.end.is_some() || !own || !standing {
            self.withdraw_for_good(now);
        }
        if self.end.is_none() {
            let delay = if own { self.backoff.next(lived) } else { Duration::ZERO };
            self.next_start = now.after(delay);
            let fields = format!("pid={pid} {death} restart_in_ms={}", delay.as_millis());
            self.log.warn("daemon ended", fields);
        } else {
            self.log.info("daemon ended", format!("pid={pid} {death}"));
        }
    }

    /// The guard's exit code after the daemon's last death. A daemon that was asked to stop before
    /// it could even listen has stopped as asked, when it had nothing.
    fn end_code(&self, death: Death, killed: bool) -> u8 {
        let had_nothing = self.page.page.session().is_none() && self.page.page.claimed() == 0;
        let terminated = Death::Killed(Signal::TERM.as_raw().try_into().unwrap_or_default());
        match death {
            _ if killed => ABORTED,
            death if death == terminated && self.stop == Stop::Asked && had_nothing => 0,
            death => death.code(),
        }
    }

    /// The daemon is dead and nothing of it may stay.
    fn withdraw_for_good(&mut self, now: Reading) {
        self.page.page.expire(now, true);
        self.clean_up(now);
    }

    /// Has the lanes withdraw for good, and waits for them in [`go_on_cleaning`](Self::go_on_cleaning).
    fn clean_up(&mut self, now: Reading) {
        if self.page.page.claimed() == 0 {
            return;
        }
        self.lanes.order(true);
        self.cleanup = Some(Cleanup { give_up: now.after(CLEANUP_LIMIT), retry: now.after(RETRY) });
    }

    fn go_on_cleaning(&mut self, now: Reading) {
        self.lanes.consume();
        let Some(cleanup) = &mut self.cleanup else { return };
        let claimed = self.page.page.claimed();
        if claimed == 0 {
            self.cleanup = None;
            self.log.info("everything exclusive is withdrawn", "by=guard");
        } else if now.is_past(cleanup.give_up) {
            self.cleanup = None;
            for (path, reason) in self.page.page.failures() {
                let fields = format!("path={} reason=\"{reason}\"", path.display());
                self.log.error("cannot withdraw", fields);
            }
        } else if now.is_past(cleanup.retry) && self.lanes.are_finished() {
            self.lanes.order(true);
            cleanup.retry = now.after(RETRY);
        }
    }

    fn start(&mut self, now: Reading) -> Result<(), GuardError> {
        let first = self.backoff.starts == 0;
        match Daemon::spawn(&mut self.config.command, &self.page, now) {
            Ok(daemon) => {
                self.log.info("started the daemon", format!("pid={}", daemon.pid()));
                self.backoff.starts += 1;
                self.daemon = Some(daemon);
            }
            Err(source) if first => {
                let program = self.config.command.get_program().to_string_lossy().into_owned();
                return Err(GuardError::Start { program, source });
            }
            Err(error) => {
                let delay = self.backoff.next(Duration::ZERO);
                self.next_start = now.after(delay);
                let fields = format!("reason=\"{error}\" again_in_ms={}", delay.as_millis());
                self.log.error("cannot start the daemon", fields);
            }
        }
        Ok(())
    }

    /// Asks an old guard's daemon to stop: it withdraws and resigns. Its deadline is enforced
    /// meanwhile, and nothing else happens before it is dead.
    fn retire(&mut self, orphan: Daemon, now: Reading) {
        orphan.signal(Signal::TERM);
        let fields = format!("pid={}", orphan.pid());
        self.log.warn("another guard's daemon is still alive, waiting for its end", fields);
        self.daemon = Some(orphan);
        self.orphan_since = Some(now);
    }

    /// Withdraws what a dead pair left. None of it is adopted.
    fn clean_up_after_old_pair(&mut self, now: Reading) {
        self.page.page.free_unfinished();
        self.page.page.forget_session();
        self.clean_up(now);
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self, now: Reading) -> Result<(), GuardError> {
        let setup = |what| move |source| GuardError::Setup { what, source };
        self.timer.set(self.next_due(now)).map_err(setup("timer"))?;
        let timer = PollFd::new(&self.timer, PollFlags::IN);
        let daemon = self.daemon.as_ref().map(|daemon| PollFd::new(daemon, PollFlags::IN));
        let mut fds = [
            PollFd::new(&self.signals.stop, PollFlags::IN),
            PollFd::new(&self.signals.wake, PollFlags::IN),
            PollFd::new(&self.lanes, PollFlags::IN),
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
        if let Some(session) = page.session().filter(|session| !session.expired) {
            due = due.min(now.until(session.deadline));
        }
        if let Some(expiry) = self.expiry.as_ref().filter(|_| page.claimed() > 0) {
            // Lanes that are at work say themselves when they have finished.
            if self.lanes.are_finished() {
                due = due.min(now.until(expiry.retry));
            }
            if !expiry.settled && self.daemon.as_ref().is_some_and(|daemon| !daemon.killed) {
                due = due.min(now.until(expiry.kill_at));
            }
        }
        match (&self.daemon, &self.cleanup) {
            (Some(_), _) => due,
            (None, Some(cleanup)) => due.min(now.until(cleanup.retry)),
            (None, None) => due.min(now.until(self.next_start)),
        }
    }
}

/// Looks for a live daemon of an earlier guard. The page must name this guard already.
fn find_orphan(config: &GuardConfig, page: &PageFile) -> Result<Option<Daemon>, GuardError> {
    const ATTEMPTS: usize = 40;
    for _ in 0..ATTEMPTS {
        let Some(holder) = DaemonLock::holder(&config.state_dir)? else { return Ok(None) };
        if let Some(orphan) = Daemon::orphan(&holder, &page.page, Reading::now()) {
            return Ok(Some(orphan));
        }
        // It has just died, or has just locked and not yet written who it is.
        std::thread::sleep(Duration::from_millis(50));
    }
    match DaemonLock::holder(&config.state_dir)? {
        None => Ok(None),
        Some(holder) => {
            let state_dir = config.state_dir.clone();
            Err(LockError::Held { state_dir, holder }.into())
        }
    }
}

/// How long to wait before the next start: not at all after a long life, longer and longer after
/// short ones.
#[derive(Default)]
struct Backoff {
    starts: u64,
    short_lives: u32,
}

impl Backoff {
    /// A daemon that lived for so long was well.
    const LONG_LIFE: Duration = Duration::from_secs(10);
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    fn next(&mut self, lived: Duration) -> Duration {
        if lived >= Self::LONG_LIFE {
            self.short_lives = 0;
        }
        let delay = match self.short_lives {
            0 => Duration::ZERO,
            lives => Self::FIRST * 2_u32.pow((lives - 1).min(10)),
        };
        self.short_lives += 1;
        delay.min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_immediate_once_and_then_rarer_until_the_daemon_lives_long() {
        let mut backoff = Backoff::default();
        for (lived_s, delay_ms) in
            [(1, 0), (1, 100), (1, 200), (9, 400), (0, 800), (0, 1_600), (0, 3_200), (0, 5_000)]
        {
            let delay = backoff.next(Duration::from_secs(lived_s));
            assert_eq!(delay, Duration::from_millis(delay_ms));
        }
        assert_eq!(backoff.next(Duration::from_secs(10)), Duration::ZERO);
        assert_eq!(backoff.next(Duration::ZERO), Duration::from_millis(100));
    }
}

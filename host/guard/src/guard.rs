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
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::Signal;

use crate::backoff::Backoff;
use crate::clock::{BootTimer, Reading};
use crate::config::{GuardConfig, GuardError};
use crate::heartbeat::Rhythm;
use crate::lanes::Lanes;
use crate::lock::GuardLock;
use crate::log::Log;
use crate::orphan;
use crate::page::{PageFile, page_path, sweep};
use crate::process::{Daemon, Death, reap_children};
use crate::signals::Signals;
use crate::starter::Starter;

/// The exit code of a guard that ended its daemon the hard way.
const ABORTED: u8 = 1;

/// How long the guard waits for withdrawing to finish before it goes on without: what hangs then
/// stays claimed, and the next daemon knows.
const CLEANUP_LIMIT: Duration = Duration::from_secs(2);

/// How often it tries again what is still claimed.
const RETRY: Duration = Duration::from_millis(100);

/// How often it looks whether a daemon that is to stop listens yet.
const LISTENING: Duration = Duration::from_millis(10);

/// How long another guard's daemon gets to stop, once it has no session.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// Runs the guard until its daemon ends for good or it is told to stop; returns the exit code.
///
/// SIGTERM, SIGINT or SIGHUP asks the daemon to stop, and its exit code is the guard's. Between two
/// daemons a session that stands gets one more, to give it up in order. A second signal
/// withdraws at once, kills the daemon, and the code is 1. It takes the process for its own:
/// handlers of these signals and of SIGCHLD and SIGURG, and every child, which it reaps.
///
/// # Errors
/// [`GuardError`]; nothing was started if it comes before the first start of the daemon.
pub fn run(mut config: GuardConfig) -> Result<u8, GuardError> {
    let setup = |what| move |source| GuardError::Setup { what, source };
    // First of all, so that no request to stop kills this process or, as process 1, is lost.
    let signals = Signals::hold_back().map_err(setup("signal handlers"))?;
    let log = Log::start().map_err(setup("log"))?;
    // Before anything that could take its time, so that whoever waits sees what for.
    log.info("guard started", format!("pid={}", std::process::id()));
    // Never let go of by hand: a thread that hangs in withdrawing could still touch a path that
    // the next pair has placed anew. The kernel lets go when the last thread is gone.
    let _lock = ManuallyDrop::new(GuardLock::acquire(&config.state_dir)?);
    // By its one true name, whoever calls it by which.
    config.state_dir =
        std::fs::canonicalize(&config.state_dir).map_err(setup("state directory"))?;
    let mut guard = Guard::set_up(config, signals, log)?;
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
    /// The daemon's.
    program: String,
    final_codes: Vec<u8>,
    rhythm: Rhythm,
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
    fn set_up(config: GuardConfig, signals: Signals, log: Log) -> Result<Self, GuardError> {
        let setup = |what| move |source| GuardError::Setup { what, source };
        let now = Reading::now();
        let GuardConfig { state_dir, mut command, input, destinations, slots, rhythm, .. } = config;
        let path = page_path(&state_dir)?;
        let page = PageFile::open_or_create(&path, slots)?;
        // Unique within a boot, as guards of one page take turns.
        page.page.take_over(now.boot_ns, rhythm, &state_dir);
        let orphan = orphan::find(&state_dir, &page.page)?;
        let page = if orphan.is_none() { page.resized(slots)? } else { page };
        page.page.take_over(now.boot_ns, rhythm, &state_dir);
        let lanes = Lanes::start(page.page, &destinations).map_err(setup("threads"))?;
        let program = command.get_program().to_string_lossy().into_owned();
        command.envs(page.environment());
        let starter = Starter::new(command, input).map_err(setup("threads"))?;
        let timer = BootTimer::new().map_err(setup("timer"))?;
        do_chores(path).map_err(setup("threads"))?;
        signals.let_in().map_err(setup("signals"))?;
        let mut guard = Guard {
            program,
            final_codes: config.final_codes,
            rhythm,
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
            end: None,
            last_code: 0,
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
            self.take_started(now)?;
            self.reap(now);
            self.pass_stop_on(now);
            self.go_on_cleaning(now);
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
        let busy = self.starter.is_busy();
        // Whatever is being started finds its guard gone, if nobody waits for it.
        if self.end.is_some() && (!busy || self.stop == Stop::Abort) {
            return self.end;
        }
        if !busy && now.is_past(self.next_start) {
            self.beats_before = self.page.page.daemon_beats();
            self.lanes.take_back_for_good();
            self.starter.order();
        }
        None
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
                if self.cleanup.is_none()
                    && self.page.page.claimed() > 0
                    && now.is_past(expiry.retry)
                {
                    expiry.retry = retry;
                    self.lanes.order(self.daemon.is_none() && !self.starter.is_busy());
                }
            }
            expiry => {
                *expiry = Some(Expiry {
                    version: session.version,
                    kill_at: session.deadline.after(session.margin / 4),
                    retry,
                    settled: self.daemon.is_none(),
                });
                // One that is just being started may live already.
                if self.daemon.is_some() || self.starter.is_busy() {
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
        if self.daemon.is_none() && !self.starter.is_busy() && !self.has_last_chance(now) {
            self.end = Some(self.last_code);
            self.withdraw_for_good(now);
        }
    }

    /// Whether a session without a daemon is to get one more, to give it up in order. If so, that
    /// is started at once.
    fn has_last_chance(&mut self, now: Reading) -> bool {
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        let chance = self.stop == Stop::Asked && standing && !self.last_chance;
        if chance {
            self.last_chance = true;
            self.next_start = now;
        }
        chance
    }

    /// Asks the daemon to stop once it listens: before, it would die of it and leave its
    /// session. One without a session to leave may.
    fn pass_stop_on(&mut self, now: Reading) {
        let page = &self.page.page;
        let standing = page.session().is_some_and(|session| session.stands(now));
        if self.stop == Stop::Asked
            && let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.told_to_stop)
            && (daemon.has_beaten(page) || !standing)
        {
            daemon.stop();
            self.log.info("asked the daemon to stop", format!("pid={}", daemon.pid()));
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
        } else {
            self.end = Some(ABORTED);
            self.clean_up(Reading::now());
        }
    }

    fn beat(&mut self, now: Reading) {
        if now.is_past(self.next_beat) {
            self.page.page.beat_as_guard(now);
            self.next_beat = now.after(self.rhythm.period);
        }
    }

    fn reap(&mut self, now: Reading) {
        let Some(daemon) = &self.daemon else {
            if !self.starter.is_busy() {
                reap_children(None);
            }
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
            Death::Exited(code) => code == 0 || self.final_codes.contains(&code),
            Death::Killed(_) | Death::Orphan => false,
        };
        if is_final || self.stop != Stop::No && !(own && self.has_last_chance(now)) {
            self.end = Some(self.end_code(death, killed));
        }
        let standing = self.page.page.session().is_some_and(|session| session.stands(now));
        if self.end.is_some() || !own || !standing {
            self.withdraw_for_good(now);
        }
        if self.end.is_some() {
            self.log.info("daemon ended", format!("pid={pid} {death}"));
            return;
        }
        let at_once = !own || self.stop == Stop::Asked;
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
        } else if now.is_past(cleanup.retry) {
            self.lanes.order(true);
            cleanup.retry = now.after(RETRY);
        }
    }

    /// Takes in what came of starting a daemon.
    fn take_started(&mut self, now: Reading) -> Result<(), GuardError> {
        match self.starter.take() {
            None => {}
            Some(Ok(started)) => {
                let mut daemon = Daemon::new(started, self.beats_before, &self.page.page, now);
                self.log.info("started the daemon", format!("pid={}", daemon.pid()));
                if self.stop == Stop::Abort {
                    daemon.kill();
                }
                self.ever_started = true;
                self.daemon = Some(daemon);
            }
            Some(Err(source)) if !self.ever_started => {
                return Err(GuardError::Start { program: self.program.clone(), source });
            }
            Some(Err(error)) => {
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

    /// Asks an old guard's daemon to stop: it withdraws and resigns. Its deadline is enforced
    /// meanwhile, and nothing else happens before it is dead.
    fn retire(&mut self, mut orphan: Daemon, now: Reading) {
        orphan.stop();
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
fn do_chores(page: PathBuf) -> io::Result<()> {
    let chores = move || {
        // So that the deadline finds everything in memory, as far as the system permits it: without
        // the right to, the guard works as well on any machine that does not swap to death.
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
        // It looks at the state directories of other pairs, which may be on disks that hang. What
        // it leaves costs some memory until the next boot.
        let _ = sweep(&page);
    };
    thread::Builder::new().name("chores".to_owned()).spawn(chores).map(drop)
}

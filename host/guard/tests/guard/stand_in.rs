//! What the test program is when it is started again: a guard, or a stand-in for the daemon that
//! leads one term and misbehaves as told.

use std::env::{self, Args};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::iter::Skip;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use conclave_core::{SessionId, Token};
use conclave_guard::{
    Attached, DaemonLock, GuardConfig, GuardState, Handover, Kind, Page, PageError, Reading,
    Rhythm, Upgrade, run,
};
use signal_hook::consts::{SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;

/// Long enough for a busy machine; half of it is margin.
pub(crate) const TTL: Duration = Duration::from_millis(4_000);
pub(crate) const MARGIN: Duration = Duration::from_millis(2_000);
pub(crate) const PERIOD: Duration = Duration::from_millis(100);
pub(crate) const STALE_AFTER: Duration = Duration::from_millis(3_000);

pub(crate) const CONTENT: &str = "apiVersion: v1\nkind: Pod\n";
pub(crate) const LEADER: &str = "leader";
pub(crate) const STANDBY: &str = "standby";

pub(crate) const FINAL_CODE: u8 = 42;
pub(crate) const CRASH_CODE: u8 = 7;
/// With which the stand-in for `conclave run` ends on an error of the guard's.
pub(crate) const GUARD_ERROR: u8 = 99;

/// The name of the program that a guard is upgraded to, in its directory.
pub(crate) const INSTALLED: &str = "installed";
/// What that program answers when it is asked whether it can take over: its exit code.
pub(crate) const ANSWER: &str = "answer";

/// Runs the guard: directory, behaviour of the daemon, program of the daemon.
pub(crate) fn guard(mut arguments: Skip<Args>) -> ExitCode {
    let mut next = || arguments.next().expect("an argument is missing");
    let (directory, behaviour, program) = (PathBuf::from(next()), next(), next());
    let mut command = Command::new(program);
    command.arg("daemon").arg(&directory).arg(behaviour);
    let mut config = GuardConfig::new(directory.join("state"), command);
    let mut question = Command::new(directory.join(INSTALLED));
    question.arg("question").arg(&directory);
    config.upgrade = Some(Upgrade { call: env::args_os().collect(), question });
    config.handover = Handover::take().expect("a whole handover");
    config.destinations = vec![directory.join("manifests"), directory];
    config.final_codes = vec![FINAL_CODE];
    config.rhythm = Rhythm { period: PERIOD, stale_after: STALE_AFTER };
    match run(config) {
        Ok(code) => code.into(),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            eprintln!("{error}: {}", cause.unwrap_or_default());
            GUARD_ERROR.into()
        }
    }
}

/// Answers whether it can take over: directory.
pub(crate) fn question(mut arguments: Skip<Args>) -> ExitCode {
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let answer = fs::read_to_string(directory.join(ANSWER)).unwrap_or_default();
    match answer.parse::<u8>() {
        Ok(code) => code.into(),
        Err(_) if answer == "vanish" => {
            fs::remove_file(directory.join(INSTALLED)).unwrap();
            0.into()
        }
        Err(_) => 0.into(),
    }
}

/// Runs the daemon: directory, behaviour.
pub(crate) fn daemon(mut arguments: Skip<Args>) -> ExitCode {
    let mut next = || arguments.next().expect("an argument is missing");
    let (directory, behaviour) = (PathBuf::from(next()), next());
    // As a daemon does, before it shows itself on the page.
    let (stops, signals) = UnixStream::pair().unwrap();
    stops.set_nonblocking(true).unwrap();
    pipe::register(SIGTERM, signals).unwrap();
    let (asides, signals) = UnixStream::pair().unwrap();
    asides.set_nonblocking(true).unwrap();
    pipe::register(SIGUSR2, signals).unwrap();
    let lock = DaemonLock::acquire(&directory.join("state")).expect("one daemon at a time");
    let attached = Page::attach_from_env(&lock).expect("a page").expect("a guard");
    fs::write(directory.join("page"), env::var("CONCLAVE_PAGE").unwrap()).unwrap();
    let confirmed = Reading::now();
    StandIn {
        directory,
        behaviour,
        attached,
        stops,
        asides,
        told: 0,
        asked: false,
        start: 0,
        confirmed,
    }
    .live()
}

struct StandIn {
    directory: PathBuf,
    behaviour: String,
    attached: Attached,
    /// One byte for each request to stop.
    stops: UnixStream,
    /// One byte for each request to step aside.
    asides: UnixStream,
    /// How many requests to stop there were.
    told: usize,
    asked: bool,
    /// Counts this directory's starts, and numbers sessions.
    start: u64,
    confirmed: Reading,
}

impl StandIn {
    fn live(mut self) -> ExitCode {
        let session = self.attached.page.session();
        let claims = self.attached.page.claims();
        let known = session.map_or("none".to_owned(), |session| session.id.to_string());
        let role = fs::read_to_string(self.directory.join("role")).unwrap_or_default();
        let detail = format!("claims={} session={known} role={role}", claims.len());
        self.tell("started", &detail);
        let events = fs::read_to_string(self.directory.join("events")).unwrap();
        self.start = events.matches("|started|").count().try_into().unwrap();

        match self.behaviour.as_str() {
            "crash" => return CRASH_CODE.into(),
            "place-then-crash" if self.start > 1 => return CRASH_CODE.into(),
            "hang-once" if self.start == 1 => loop {
                thread::sleep(Duration::from_secs(60));
            },
            "hang-once" => return self.idle(),
            "crash-and-get-stuck" if session.is_some_and(|session| session.expired) => {
                self.tell("stuck", "");
                return self.idle();
            }
            "crash-and-get-stuck" if self.start > 1 => return CRASH_CODE.into(),
            _ => {}
        }
        match session.filter(|session| session.stands(Reading::now())) {
            Some(_) => self.tell("adopted", ""),
            None => {
                self.withdraw();
                self.lead(self.start);
            }
        }
        match self.behaviour.as_str() {
            "place-then-crash" | "crash-and-get-stuck" => CRASH_CODE.into(),
            "place-then-final" => FINAL_CODE.into(),
            _ => self.stay(),
        }
    }

    fn lead(&mut self, session: u64) {
        self.confirmed = Reading::now();
        let deadline = self.confirmed.after(TTL - MARGIN);
        self.attached.session.begin(SessionId(session), deadline, MARGIN).unwrap();
        if matches!(self.behaviour.as_str(), "claim-what-cannot-go" | "crash-and-get-stuck") {
            let path = Path::new("/proc/version");
            self.attached.page.claim(Kind::Manifest, Token(1), path, Path::new("/no/s")).unwrap();
        }
        let manifest = self.directory.join("manifests/manifest.yaml");
        let role = self.directory.join("role");
        let staged = self.directory.join("staged");
        let standby = self.directory.join("standby");
        fs::write(&standby, STANDBY).unwrap();
        self.place(Kind::RoleFile, &role, &standby, &self.directory.join("leader"), LEADER);
        self.place(Kind::Manifest, &manifest, &staged, &staged, CONTENT);
        self.tell_at(self.confirmed, "placed", "");
    }

    fn place(&self, kind: Kind, dest: &Path, staged: &Path, source: &Path, content: &str) {
        let page = self.attached.page;
        let slot = page.claim(kind, Token(1), dest, staged).unwrap();
        fs::write(source, content).unwrap();
        assert!(page.may_place(slot), "a busy machine used up the whole TTL");
        fs::rename(source, dest).unwrap();
    }

    /// The main loop of a daemon that leads.
    fn stay(&mut self) -> ExitCode {
        loop {
            thread::sleep(PERIOD / 2);
            let now = Reading::now();
            self.attached.page.beat(now);
            if self.told_to_stop() && !self.asked {
                self.asked = true;
                self.tell("asked to stop", "");
                match self.behaviour.as_str() {
                    "ignore-signals" => {}
                    "slow-to-stop" => return self.stop_slowly(),
                    "claim-what-cannot-go" => return 0.into(),
                    _ => {
                        self.withdraw();
                        return 0.into();
                    }
                }
            }
            if self.behaviour != "ignore-signals" && self.asides.read(&mut [0; 8]).is_ok() {
                self.tell("stepped aside", "");
                return 0.into();
            }
            match self.attached.guard.check(now) {
                GuardState::Alive => {}
                _ if self.behaviour == "slow-to-stop" => {}
                GuardState::Stale => return self.leave("guard stale"),
                GuardState::Gone => return self.leave("guard gone"),
            }
            match self.behaviour.as_str() {
                "ignore-deadline" => {}
                "withdraw-at-deadline" => self.withdraw_at_the_deadline(now),
                _ => self.extend(now),
            }
        }
    }

    fn told_to_stop(&mut self) -> bool {
        let mut bytes = [0; 8];
        self.told += self.stops.read(&mut bytes).unwrap_or(0);
        self.told > 0
    }

    /// As one whose store is slow; a second request would make it give up.
    fn stop_slowly(&mut self) -> ExitCode {
        for _ in 0..30 {
            thread::sleep(PERIOD / 2);
            let now = Reading::now();
            self.attached.page.beat(now);
            self.extend(now);
            if self.told_to_stop() && self.told > 1 {
                self.tell("told twice", "");
                return CRASH_CODE.into();
            }
        }
        self.withdraw();
        0.into()
    }

    fn extend(&mut self, now: Reading) {
        let Some(session) = self.attached.page.session() else { return };
        self.tell_at(now, "extended", "");
        let extended = self.attached.session.extend(session.id, now.after(TTL - MARGIN));
        if let Err(error) = extended {
            // It was expired, and the guard is about to end this process.
            self.tell("not extended", &error.to_string());
        }
    }

    fn withdraw_at_the_deadline(&mut self, now: Reading) {
        let Some(session) = self.attached.page.session() else { return };
        if !session.stands(now) {
            self.withdraw();
            if self.start < 100 {
                self.start = 100;
                self.lead(self.start);
            }
        }
    }

    fn withdraw(&mut self) {
        let page = self.attached.page;
        for claim in page.claims() {
            let _ = fs::remove_file(&claim.staged);
            let _ = fs::remove_file(&claim.dest);
            while let Err(error) = page.release(claim.id) {
                assert!(matches!(error, PageError::Busy), "{error}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.attached.session.end().unwrap();
        self.tell("withdrawn", "");
    }

    fn leave(&mut self, why: &str) -> ExitCode {
        self.tell(why, "");
        self.withdraw();
        CRASH_CODE.into()
    }

    fn idle(&mut self) -> ExitCode {
        let mut beats = 0;
        while !self.told_to_stop() {
            thread::sleep(PERIOD / 2);
            self.attached.page.beat(Reading::now());
            beats += 1;
            if beats == 20 {
                self.tell("still idle", "");
            }
        }
        0.into()
    }

    fn tell(&self, what: &str, detail: &str) {
        self.tell_at(Reading::now(), what, detail);
    }

    /// Appends an event in one write.
    fn tell_at(&self, at: Reading, what: &str, detail: &str) {
        let pid = std::process::id();
        let line = format!("{}|{}|{pid}|{what}|{detail}\n", at.boot_ns, at.raw_ns);
        let path = self.directory.join("events");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

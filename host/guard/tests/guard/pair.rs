//! A guard and its daemons in directories of their own, watched from outside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use conclave_guard::Reading;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::await_that;
use crate::stand_in::{ANSWER, INSTALLED, MARGIN, PERIOD, STALE_AFTER, TTL};

/// Something that a daemon wrote down.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Reading,
    pub(crate) pid: i32,
    pub(crate) what: String,
    pub(crate) detail: String,
}

/// A guard, as a child of the test. Several can share the directories, one after the other.
pub(crate) struct Pair {
    directory: Arc<TempDir>,
    behaviour: &'static str,
    log: PathBuf,
    guard: Child,
}

impl Pair {
    pub(crate) fn start(behaviour: &'static str) -> Self {
        let program = std::env::current_exe().unwrap();
        Pair::start_with(behaviour, program.to_str().unwrap())
    }

    pub(crate) fn start_with(behaviour: &'static str, program: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::create_dir(directory.path().join("manifests")).unwrap();
        Pair::spawn(directory, behaviour, program, "guard-1.log")
    }

    /// With the daemon's lock held by a process that does not say who it is, until the file is
    /// closed.
    pub(crate) fn start_behind_a_lock(behaviour: &'static str) -> (Self, File) {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        let lock = File::create(state.join("daemon.lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let program = std::env::current_exe().unwrap();
        (Pair::spawn(directory, behaviour, program.to_str().unwrap(), "guard-1.log"), lock)
    }

    /// Another guard on the same state directory.
    pub(crate) fn another(&self) -> Self {
        let program = std::env::current_exe().unwrap();
        let directory = Arc::clone(&self.directory);
        Pair::spawn(directory, self.behaviour, program.to_str().unwrap(), "guard-2.log")
    }

    fn spawn(directory: Arc<TempDir>, behaviour: &'static str, program: &str, log: &str) -> Self {
        let log = directory.path().join(log);
        let installed = directory.path().join(INSTALLED);
        if !installed.exists() {
            std::os::unix::fs::symlink(std::env::current_exe().unwrap(), installed).unwrap();
        }
        let guard = Command::new(std::env::current_exe().unwrap())
            .arg("guard")
            .args([directory.path(), Path::new(behaviour), Path::new(program)])
            .stdin(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Pair { directory, behaviour, log, guard }
    }

    /// Whether each of the guard's threads holds SIGPIPE back or ignores it.
    pub(crate) fn survives_broken_pipes(&self) -> bool {
        let has = |status: &str, field: &str| {
            let set = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            u64::from_str_radix(set.trim(), 16).unwrap() >> (Signal::PIPE.as_raw() - 1) & 1 == 1
        };
        let threads = fs::read_dir(format!("/proc/{}/task", self.guard_pid())).unwrap();
        threads.flatten().all(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap();
            has(&status, "SigIgn:") || has(&status, "SigBlk:")
        })
    }

    /// What the installed program answers when it is asked whether it can take over.
    pub(crate) fn set_answer(&self, answer: &str) {
        fs::write(self.directory.path().join(ANSWER), answer).unwrap();
    }

    pub(crate) fn upgrade(&self) {
        self.signal(self.guard_pid(), Signal::USR2);
    }

    /// Waits for a line of the guard's log that contains this, the `n`th.
    pub(crate) fn await_log(&self, text: &str, n: usize) {
        await_that(&format!("{n} lines {text:?} in {}", self.log.display()), || {
            (self.log().matches(text).count() >= n).then_some(())
        });
    }

    pub(crate) fn guard_pid(&self) -> i32 {
        self.guard.id().try_into().unwrap()
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.directory.path().join("manifests/manifest.yaml")
    }

    pub(crate) fn role_file(&self) -> PathBuf {
        self.directory.path().join("role")
    }

    /// The shared page's file, as the last daemon saw it.
    pub(crate) fn page(&self) -> PathBuf {
        fs::read_to_string(self.directory.path().join("page")).unwrap_or_default().into()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.directory.path().join("events")).unwrap_or_default();
        // A line without its end is still being written.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines
            .map(|line| {
                let mut fields = line.split('|');
                let mut field = || fields.next().unwrap().to_owned();
                let at =
                    Reading { boot_ns: field().parse().unwrap(), raw_ns: field().parse().unwrap() };
                Event { at, pid: field().parse().unwrap(), what: field(), detail: field() }
            })
            .collect()
    }

    /// The `n`th event of a kind.
    pub(crate) fn await_event(&self, what: &str, n: usize) -> Event {
        await_that(&format!("event {n} {what:?}, guard's log: {}", self.log.display()), || {
            self.events().into_iter().filter(|event| event.what == what).nth(n - 1)
        })
    }

    /// When the manifest had gone, at the latest.
    pub(crate) fn await_withdrawn(&self) -> Reading {
        await_that("the manifest to go", || {
            let now = Reading::now();
            (!self.manifest().exists()).then_some(now)
        })
    }

    /// The margin between deadline and expiry is what a busy machine has to wake and unlink in.
    pub(crate) fn assert_before_expiry(&self, confirmed: &Event, gone: Reading) {
        let expiry = confirmed.at.after(TTL);
        let late = Duration::from_nanos(gone.boot_ns.saturating_sub(expiry.boot_ns));
        assert!(!gone.is_past(expiry), "{late:?} late with a margin of {MARGIN:?}: {}", self.log());
    }

    /// Whether a process runs; one that only waits to be reaped does not.
    pub(crate) fn is_running(&self, pid: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        !state.is_empty() && !state.starts_with('Z')
    }

    pub(crate) fn await_end_of(&self, pid: i32) {
        await_that("a process to end", || (!self.is_running(pid)).then_some(()));
    }

    /// Signals a process that this test has started, directly or not.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The guard's exit code, once it has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        await_that("the guard to end", || self.guard.try_wait().unwrap()).code()
    }

    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(self.guard_pid(), Signal::TERM);
        self.wait()
    }

    pub(crate) fn assert_nothing_left(&self) {
        let manifests: Vec<_> = fs::read_dir(self.manifest().parent().unwrap()).unwrap().collect();
        assert!(manifests.is_empty(), "{manifests:?}: {}", self.log());
        assert!(!self.page().exists(), "{}: {}", self.page().display(), self.log());
    }
}

impl Drop for Pair {
    /// Ends what a failed test left: the guard, then the daemons that it started.
    fn drop(&mut self) {
        if self.guard.try_wait().unwrap().is_none() {
            self.guard.kill().unwrap();
            self.guard.wait().unwrap();
        }
        let mut pids: Vec<_> = self.events().into_iter().map(|event| event.pid).collect();
        pids.dedup();
        for pid in pids {
            // Still the stand-in, not another process that got its number.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let directory = self.directory.path().to_str().unwrap().as_bytes();
            if line.windows(directory.len()).any(|window| window == directory) {
                self.signal(pid, Signal::KILL);
            }
        }
        if Arc::strong_count(&self.directory) == 1 && self.page().is_file() {
            fs::remove_file(self.page()).unwrap();
        }
        const { assert!(STALE_AFTER.as_millis() > 2 * PERIOD.as_millis()) };
    }
}

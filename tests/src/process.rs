//! Processes that a test starts: their logs, signals, families, costs and certain end.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::kill_process;

use crate::{eventually, scratch};

pub use rustix::process::{Pid, Signal};

/// How much of a log a failing test prints.
const SHOWN_LINES: usize = 150;

/// The unit of processor times in `/proc`: part of Linux's interface, whatever its timer's rate.
const TICKS_PER_SECOND: u64 = 100;

/// A running program and everything that descends from it; all of it is killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    /// Kept open, so that it can be read even when its directory has gone.
    log: File,
    mark: String,
}

impl Process {
    /// Starts `command` with both output streams appended to `<dir>/<name>.log`.
    ///
    /// # Errors
    ///
    /// When the program or its log cannot be opened.
    pub fn start(name: &str, dir: &Path, command: Command) -> Result<Self> {
        let log = open_log(name, dir)?;
        let (output, error) = (log.try_clone()?.into(), log.try_clone()?.into());
        Self::spawn(name, log, command, [output, error])
    }

    /// Starts `command` with both output streams at `output` instead of a log.
    ///
    /// # Errors
    ///
    /// As [`Process::start`].
    pub fn start_into(
        name: &str,
        dir: &Path,
        command: Command,
        output: &impl AsFd,
    ) -> Result<Self> {
        let stream = || output.as_fd().try_clone_to_owned();
        Self::spawn(name, open_log(name, dir)?, command, [stream()?, stream()?])
    }

    fn spawn(
        name: &str,
        log: File,
        mut command: Command,
        [output, error]: [OwnedFd; 2],
    ) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mark = scratch::mark(COUNT.fetch_add(1, Ordering::Relaxed));
        let child = command
            .env(scratch::MARK, &mark)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(error)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Process { name: name.to_owned(), child, status: None, log, mark })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    ///
    /// When it has already ended and been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            bail!("{} has already ended", self.name);
        }
        send(self.pid(), signal).with_context(|| format!("signal {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it runs on beyond `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, within, || self.ended().transpose())?
    }

    /// Everything written so far to its standard output and error.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn output(&self) -> Result<String> {
        let mut bytes = vec![0; usize::try_from(self.output_bytes()?)?];
        self.log.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How many bytes it has written so far to its standard output and error.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn output_bytes(&self) -> Result<u64> {
        Ok(self.log.metadata()?.len())
    }

    /// Its children, whose parent it is now, those included that it has not yet waited for.
    pub fn children(&self) -> Vec<Pid> {
        children(self.pid())
    }

    /// This process and everything that was started by it, directly or not, and lives, whoever
    /// its parent is now.
    pub fn family(&self) -> Vec<Pid> {
        let wanted = format!("{}={}", scratch::MARK, self.mark);
        every_process()
            .filter(|pid| alive(*pid))
            .filter(|pid| {
                let environ = fs::read(proc_file(*pid, "environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
            })
            .collect()
    }

    /// Kills this process and its whole family at once, as a power cut would, and waits for
    /// their end.
    ///
    /// # Errors
    ///
    /// When something survives.
    pub fn kill_family(&mut self) -> Result<()> {
        let what = format!("the end of {} and all that it started", self.name);
        let mut killed = HashSet::new();
        eventually(&what, crate::PATIENCE, || {
            for pid in self.family() {
                // One that has just ended by itself is no failure.
                let _ = send(pid, Signal::KILL);
                killed.insert(pid);
            }
            // One that is dying has no environment by which to know it any more, but its locks.
            killed.retain(|pid| alive(*pid));
            // A killed child stays visible until it is waited for, so both must be looked at.
            let ended = self.ended().ok().flatten().is_some();
            (ended && killed.is_empty()).then_some(())
        })
    }

    fn print_log(&self) {
        let output = self.output().unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = output.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        eprintln!("---- last {} of {} lines of {}", shown.len(), lines.len(), self.name);
        for line in shown {
            eprintln!("{line}");
        }
    }
}

fn open_log(name: &str, dir: &Path) -> Result<File> {
    let path = dir.join(format!("{name}.log"));
    let log = File::options().read(true).create(true).append(true).open(&path);
    log.with_context(|| format!("open {}", path.display()))
}

impl Drop for Process {
    fn drop(&mut self) {
        let cleared = self.kill_family();
        if std::thread::panicking() {
            self.print_log();
        } else {
            cleared.expect("a test's processes end with it");
        }
    }
}

/// Sends a signal to one process.
///
/// # Errors
///
/// When there is none of that id.
pub fn send(pid: Pid, signal: Signal) -> Result<()> {
    kill_process(pid, signal).with_context(|| format!("send {signal:?} to process {pid:?}"))
}

/// The children that a process has now, those included that it has not yet waited for.
pub fn children(of: Pid) -> Vec<Pid> {
    every_process().filter(|pid| parent(*pid) == Some(of)).collect()
}

/// Whether a process runs or is stopped: not whether its corpse still waits for its parent. One
/// whose first thread has ended holds its files as long as another has not.
pub fn alive(pid: Pid) -> bool {
    match state(pid) {
        None | Some('X') => false,
        Some('Z') => fs::read_dir(proc_file(pid, "task")).is_ok_and(|tasks| tasks.count() > 1),
        Some(_) => true,
    }
}

/// What a process id is in the innermost namespace of its process.
///
/// # Errors
///
/// When there is no such process.
pub fn innermost_id(pid: Pid) -> Result<i32> {
    let status = fs::read_to_string(proc_file(pid, "status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let id = line.and_then(|ids| ids.split_whitespace().last()).context("no NSpid")?;
    Ok(id.parse()?)
}

/// The file that a process runs, whatever is at that path by now: as device and inode.
///
/// # Errors
///
/// When there is no such process.
pub fn executable(pid: Pid) -> Result<(u64, u64)> {
    let file = fs::metadata(proc_file(pid, "exe"))?;
    Ok((file.dev(), file.ino()))
}

/// Whether a process is stopped by a signal.
pub fn stopped(pid: Pid) -> bool {
    state(pid) == Some('T')
}

/// The processor time that a process has used, in all its threads.
///
/// # Errors
///
/// When there is no such process.
pub fn processor_time(pid: Pid) -> Result<Duration> {
    let fields = stat(pid).with_context(|| format!("no process {pid:?}"))?;
    // Fields 14 and 15 of proc_pid_stat(5), in clock ticks; two come before what `stat` returns.
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields[*at].parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// A process's resident memory, in bytes.
///
/// # Errors
///
/// When there is no such process.
pub fn resident_bytes(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(proc_file(pid, "status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

fn every_process() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = OsStr::to_str(&entry.file_name())?.parse().ok()?;
        Pid::from_raw(pid)
    })
}

fn proc_file(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(name)
}

/// The fields of `/proc/<pid>/stat` from the third on: the second may contain anything.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read_to_string(proc_file(pid, "stat")).ok()?;
    let rest = &text[text.rfind(')')? + 1..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn state(pid: Pid) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

fn parent(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat(pid)?.get(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PATIENCE;

    #[test]
    fn drop_ends_even_what_left_the_family_tree() {
        let dir = scratch::directory("process").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "setsid sleep 1000 & echo started; exec sleep 1000"]);
        let process = Process::start("parent", dir.path(), shell).unwrap();
        eventually("both sleeps", PATIENCE, || (process.family().len() >= 2).then_some(()))
            .unwrap();
        assert_eq!(process.output().unwrap(), "started\n");
        let family = process.family();
        drop(process);
        assert!(family.iter().all(|pid| !alive(*pid)), "{family:?}");
    }

    #[test]
    fn reports_exit_and_costs() {
        let dir = scratch::directory("process").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "while :; do :; done"]);
        let mut busy = Process::start("busy", dir.path(), shell).unwrap();
        let pid = busy.pid();
        eventually("processor time", PATIENCE, || {
            (processor_time(pid).ok()? > Duration::ZERO).then_some(())
        })
        .unwrap();
        assert!(resident_bytes(pid).unwrap() > 0);
        busy.signal(Signal::STOP).unwrap();
        eventually("the stop", PATIENCE, || stopped(pid).then_some(())).unwrap();
        busy.signal(Signal::KILL).unwrap();
        assert!(!busy.wait(PATIENCE).unwrap().success());
    }
}

//! Processes that are not our children: found by their parents, and ended for sure.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Killed processes end at once unless the kernel holds them.
const END_TIME: Duration = Duration::from_secs(5);

/// The processes whose parent is this one, and theirs.
pub(super) fn descendants(of: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// The direct children of a process.
pub(super) fn children(of: Pid) -> Vec<Pid> {
    parents().into_iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| pid).collect()
}

/// All processes that live, with their parents.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        Some((Pid::from_raw(pid)?, parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
    })
    .collect()
}

/// The parent in a line of `/proc/<pid>/stat`, for a process that is not dead already.
fn parent(stat: &str) -> Option<Pid> {
    // The name before it is in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then(|| Pid::from_raw(parent)).flatten()
}

/// Whether a process lives.
pub(super) fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| parent(&stat).is_some())
}

/// Kills a process and everything below it at once, as a power cut does, and waits for their
/// end. The process itself may be our child: it is left to be reaped by its handle.
pub(super) fn cut_power(top: Pid) {
    // Stopped, it starts nothing new while the others are being found.
    let _ = kill_process(top, Signal::STOP);
    let below = descendants(top);
    for pid in below.iter().chain([&top]) {
        let _ = kill_process(*pid, Signal::KILL);
    }
    let end = Instant::now() + END_TIME;
    while below.iter().any(|pid| alive(*pid)) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    for pid in below {
        // Where we are the reaper of orphans; elsewhere somebody else is.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_parent_is_found_behind_any_name() {
        let parent = |line| parent(line).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent("12 (conclave) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a) b (c) R 8 12"), Some(8));
        assert_eq!(parent("12 (conclave) Z 7 12"), None, "dead, only not yet reaped");
        assert_eq!(parent(""), None);
    }

    #[test]
    fn a_power_cut_reaches_grandchildren() {
        let mut top = Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000 & wait' & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&top);
        let end = Instant::now() + Duration::from_secs(60);
        while descendants(pid).len() < 2 {
            assert!(Instant::now() < end, "the processes never came up");
            thread::sleep(Duration::from_millis(2));
        }
        let below = descendants(pid);
        cut_power(pid);
        top.wait().unwrap();
        assert!(below.into_iter().all(|pid| !alive(pid)));
    }
}

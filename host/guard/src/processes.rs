//! Ending processes that only the leader may have, by the guard: a whole control group, or, where there is
//! none to be had, a process group.
//!
//! Runs at the deadline as [`withdraw`](crate::withdraw) does, so it allocates nothing and trusts nothing but
//! the slot. Whatever stands there, it kills nothing but such a group: what names none was never one.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use rustix::fs::{FsWord, Mode, OFlags, fstatfs, open, rmdir};
use rustix::io::{Errno, Result, read, retry_on_intr, write};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::layout::PATH_LEN;
use crate::slot::{Claim, Kind};

/// How often, and how long apart, is looked whether everything is gone, before others' slots have
/// their turn. Killing takes less than a millisecond.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// What `statfs` says of a file of a control group (`CGROUP2_SUPER_MAGIC` in the kernel's `magic.h`).
const CGROUP2: FsWord = 0x6367_7270;

/// The file by which all of a control group is killed.
const KILL: &[u8] = b"/cgroup.kill";

/// Kills a control group by its file `cgroup.kill`. It has ended once `cgroup.procs` names nobody.
pub(crate) fn end_cgroup(kill: &CStr, members: &CStr) -> Result<()> {
    if !kill.to_bytes().ends_with(KILL) {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| open(kill, flags, Mode::empty())) {
        // The group is gone, for which it had to be empty.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        opened => opened?,
    };
    if fstatfs(&file)?.f_type != CGROUP2 {
        return Ok(());
    }
    retry_on_intr(|| write(&file, b"1"))?;
    until_gone(|| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let members = match retry_on_intr(|| open(members, flags, Mode::empty())) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(true),
            opened => opened?,
        };
        let mut byte = [0; 1];
        match retry_on_intr(|| read(&members, &mut byte)) {
            Err(Errno::NODEV) => Ok(true),
            Err(error) => Err(error),
            Ok(read) => Ok(read == 0),
        }
    })?;
    remove(kill);
    Ok(())
}

/// Removes an empty control group, so that none is left behind by a daemon that died.
fn remove(kill: &CStr) {
    let mut directory = [0; PATH_LEN];
    let path = kill.to_bytes().strip_suffix(KILL).unwrap_or_default();
    let Some(room) = directory.get_mut(..path.len()) else { return };
    room.copy_from_slice(path);
    if let Ok(path) = CStr::from_bytes_until_nul(&directory) {
        // What stays if this fails is a directory of nobody.
        let _ = rmdir(path);
    }
}

/// Kills a process group, named as its leader's directory in `/proc`. It has ended once nobody is left of it, nor a
/// leader that is not reaped yet.
pub(crate) fn end_group(leader: &CStr) -> Result<()> {
    let Some(group) = group(leader.to_bytes()) else { return Ok(()) };
    match kill_process_group(group, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        killed => killed?,
    }
    until_gone(|| match test_kill_process_group(group) {
        Err(Errno::SRCH) => Ok(true),
        other => other.map(|()| false),
    })
}

/// The group that a slot names. Never 1 or 0, by which everybody or ourselves would be meant.
fn group(leader: &[u8]) -> Option<Pid> {
    let digits = leader.strip_prefix(b"/proc/").filter(|digits| !digits.is_empty())?;
    let mut number = 0_i32;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i32::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Pid::from_raw(number).filter(|_| number > 1)
}

/// Waits a little; what is still there then is for a later look.
fn until_gone(mut gone: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..LOOKS {
        if gone()? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Errno::BUSY)
}

/// Ends the processes of a claim, as the guard would; for a daemon that cleans up after another.
///
/// # Errors
/// When some may be left, or the claim names none.
pub fn end_processes(claim: &Claim) -> io::Result<()> {
    let path = |path: &std::path::Path| {
        use std::os::unix::ffi::OsStrExt as _;
        std::ffi::CString::new(path.as_os_str().as_bytes())
    };
    let (dest, staged) = (path(&claim.dest)?, path(&claim.staged)?);
    match claim.kind {
        Kind::ControlGroup => end_cgroup(&dest, &staged)?,
        Kind::ProcessGroup => end_group(&dest)?,
        Kind::Manifest | Kind::RoleFile => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_a_group_of_processes_is_ever_meant() {
        for (text, expected) in [
            (c"/proc/4711", Some(4711)),
            (c"/proc/1", None),
            (c"/proc/0", None),
            (c"/proc/", None),
            (c"/proc/-4711", None),
            (c"/proc/4711/stat", None),
            (c"/proc/99999999999", None),
            (c"/tmp/4711", None),
        ] {
            let found = group(text.to_bytes()).map(|pid| pid.as_raw_nonzero().get());
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_control_groups_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cgroup.kill");
        std::fs::write(&file, "mine").unwrap();
        let path = |path: &std::path::Path| std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let other = directory.path().join("other");
        for name in [&file, &other] {
            let ended = end_cgroup(&path(name), &path(&other));
            assert_eq!(ended, Ok(()), "{name:?}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(end_cgroup(&path(&file), &path(&other)), Ok(()), "it is gone");
    }

    #[test]
    fn a_process_group_is_ended_with_all_that_is_in_it() {
        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 1000 & echo started; wait"]).process_group(0);
        let mut leader = leader.stdout(Stdio::piped()).spawn().unwrap();
        let mut started = String::new();
        let mut output = std::io::BufReader::new(leader.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut started).unwrap();
        let name = std::ffi::CString::new(format!("/proc/{}", leader.id())).unwrap();
        assert_eq!(end_group(&name), Err(Errno::BUSY), "its leader is not reaped yet");
        leader.wait().unwrap();
        // The last holder of the pipe has gone too: it ends.
        std::io::Read::read_to_string(&mut output, &mut started).unwrap();
        let gone = || end_group(&name) == Ok(());
        // Somebody else reaps the other one.
        assert!((0..500).any(|_| gone() || {
            std::thread::sleep(PAUSE * 10);
            false
        }));
    }
}

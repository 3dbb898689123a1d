//! The group that a command's processes are in: a control group, which none of them can leave, or a process group,
//! where none can be made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use conclave_guard::Kind;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long until what was killed is looked at again.
const AGAIN: Duration = Duration::from_millis(2);

/// A group that its members are not in yet, or are.
#[derive(Debug)]
pub(super) struct Group {
    /// The leader of the process group, which is also its number.
    leader: Pid,
    /// Removed once it is empty.
    control: Option<PathBuf>,
}

impl Group {
    /// The group of a process that leads one; in a control group named `name`, if that can be made.
    pub(super) fn of(leader: Pid, name: &str) -> (Self, io::Result<()>) {
        let number = leader.as_raw_nonzero().get().to_string();
        let made = own_control_group().and_then(|own| {
            let directory = own.join(name);
            fs::create_dir(&directory)?;
            // Only the kernel makes this file, and old ones do not.
            let whole = fs::metadata(directory.join("cgroup.kill"));
            match whole.and_then(|_| fs::write(directory.join("cgroup.procs"), number)) {
                Ok(()) => Ok(directory),
                Err(error) => fs::remove_dir(&directory).and(Err(error)),
            }
        });
        match made {
            Ok(directory) => (Group { leader, control: Some(directory) }, Ok(())),
            Err(error) => (Group { leader, control: None }, Err(error)),
        }
    }

    /// How it is claimed on the guard's page: as what, and by which two paths.
    pub(super) fn claim(&self) -> (Kind, PathBuf, PathBuf) {
        match &self.control {
            Some(directory) => {
                let [kill, members] =
                    ["cgroup.kill", "cgroup.procs"].map(|file| directory.join(file));
                (Kind::ControlGroup, kill, members)
            }
            None => {
                let leader = Path::new("/proc").join(self.leader.as_raw_nonzero().to_string());
                (Kind::ProcessGroup, leader.clone(), leader)
            }
        }
    }

    /// Asks all of it to end.
    pub(super) fn terminate(&self) {
        // It fails only where nobody is left.
        let _ = kill_process_group(self.leader, Signal::TERM);
    }

    /// Kills what is left of it.
    pub(super) fn kill(&self) {
        let _ = kill_process_group(self.leader, Signal::KILL);
        if let Some(directory) = &self.control {
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
    }

    /// Kills what is left until nothing is, for as long as that takes. The leader has to be waited for before, and
    /// by whoever calls.
    pub(super) fn end(&self) {
        loop {
            self.kill();
            if self.is_empty() {
                break;
            }
            sleep(AGAIN);
        }
        if let Some(directory) = &self.control {
            // It is empty; what remains if this fails is a directory of nobody.
            let _ = fs::remove_dir(directory);
        }
    }

    fn is_empty(&self) -> bool {
        match &self.control {
            Some(directory) => match fs::read(directory.join("cgroup.procs")) {
                Ok(members) => members.is_empty(),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            },
            None => test_kill_process_group(self.leader) == Err(Errno::SRCH),
        }
    }
}

/// Where in the file system the control group of this process is.
fn own_control_group() -> io::Result<PathBuf> {
    let none = || io::Error::new(io::ErrorKind::Unsupported, "there is no unified control group");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(none)?;
    mounts.lines().find_map(|line| place(line, own)).ok_or_else(none)
}

/// Where a control group is, by a line of `mountinfo`, if that is of the unified hierarchy.
fn place(mount: &str, group: &str) -> Option<PathBuf> {
    let (mount, kind) = mount.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let below = Path::new(group).strip_prefix(root).ok()?;
    Some(Path::new(point).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_is_found_where_its_hierarchy_is_mounted() {
        let mount = |root, point| {
            format!("36 29 0:30 {root} {point} rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate")
        };
        for (mount, group, expected) in [
            (
                mount("/", "/sys/fs/cgroup"),
                "/system.slice/a.service",
                Some("/sys/fs/cgroup/system.slice/a.service"),
            ),
            (mount("/", "/sys/fs/cgroup/unified"), "/", Some("/sys/fs/cgroup/unified")),
            (mount("/docker/1", "/sys/fs/cgroup"), "/docker/1/x", Some("/sys/fs/cgroup/x")),
            (mount("/docker/1", "/sys/fs/cgroup"), "/other", None),
            ("36 29 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu".to_owned(), "/", None),
            ("nonsense".to_owned(), "/", None),
        ] {
            assert_eq!(place(&mount, group).as_deref(), expected.map(Path::new), "{mount}");
        }
    }
}

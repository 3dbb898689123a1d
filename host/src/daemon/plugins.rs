//! The plugin directory, live: what is new or changed there is loaded and checked beside the loop, and
//! taken in between two decisions. A term is not disturbed.
//!
//! A component that cannot be used leaves what was loaded before in force, and so does one that is
//! removed. A file that is still being copied is waited for: it is read once it has stood still for a
//! moment, and again whenever it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use conclave_policy::PolicyHost;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};

use crate::config::{Config, ConfigErrors};
use crate::daemon::policies::{PolicySet, open_host};
use crate::daemon::shell::Input;

/// inotify is a hint: some file systems have none, and its watch goes with the directory.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How long files have to stand still before they are read.
const SETTLED: Duration = Duration::from_millis(200);

/// What tells one state of a file from another, without reading it.
type Stamp = (u64, u64, i64, i64);

/// The state of every component in the directory, by policy name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<String, Stamp>);

impl Stamps {
    /// As it is now. Where the directory cannot be looked at, there is nothing.
    pub(super) fn of(config: &Config) -> Stamps {
        config.policies.directory.as_deref().map(Stamps::read).unwrap_or_default()
    }

    fn read(directory: &Path) -> Stamps {
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let stamp = |file: fs::DirEntry| {
            let name = file.file_name().to_str()?.strip_suffix(".wasm")?.to_owned();
            let data = fs::metadata(file.path()).ok()?;
            Some((name, (data.ino(), data.size(), data.ctime(), data.ctime_nsec())))
        };
        Stamps(files.filter_map(stamp).collect())
    }

    fn without(&self, present: &Stamps) -> BTreeSet<String> {
        self.0.keys().filter(|name| !present.0.contains_key(*name)).cloned().collect()
    }
}

/// Watches the plugin directory for as long as the loop takes anything in. `seen` is its state from
/// before `policies` were loaded.
pub(super) fn watch(
    config: Arc<Config>,
    seen: Stamps,
    policies: PolicySet,
    inputs: UnboundedSender<Input>,
) {
    let Some(directory) = config.policies.directory.clone() else { return };
    let watcher = Watcher { directory, seen, removed: BTreeSet::new(), policies, inputs, config };
    let started =
        thread::Builder::new().name("policies-watch".to_owned()).spawn(move || watcher.run());
    if let Err(error) = started {
        error!(%error, "changes in the plugin directory are not noticed until the next start");
    }
}

struct Watcher {
    config: Arc<Config>,
    directory: PathBuf,
    seen: Stamps,
    /// What was removed and goes on deciding.
    removed: BTreeSet<String>,
    policies: PolicySet,
    inputs: UnboundedSender<Input>,
}

impl Watcher {
    fn run(mut self) {
        // Opened with the first change: most lives never see one.
        let mut host = None;
        while !self.inputs.is_closed() {
            let hint = hints(&self.directory);
            let mut now = Stamps::read(&self.directory);
            if now == self.seen {
                wait(hint.as_ref());
                continue;
            }
            loop {
                thread::sleep(SETTLED);
                let later = Stamps::read(&self.directory);
                if later == now {
                    break;
                }
                now = later;
            }
            self.tell_removed(&now);
            self.seen = now;
            if host.is_none() {
                host = open_host(&self.config).map_err(|errors| tell(&errors)).ok();
            }
            let Some(host) = &host else { continue };
            self.renew(host);
        }
    }

    /// Takes in what can be used, and tells of the rest; the loop may have ended meanwhile.
    fn renew(&mut self, host: &PolicyHost) {
        let (renewed, unusable) = self.policies.renewed(&self.config, host, &self.removed);
        unusable.values().map(ToString::to_string).collect::<BTreeSet<_>>().iter().for_each(tell);
        if let Some(policies) = renewed {
            self.policies = policies.clone();
            let _ = self.inputs.send(Input::Policies(policies));
        }
        let removed = self.config.elections.iter().filter_map(|election| {
            let policy = &election.policy;
            let reason = format!("{policy}.wasm was removed from the plugin directory");
            self.removed.contains(policy).then(|| (election.name.clone(), reason))
        });
        let words = |errors: &ConfigErrors| {
            let words = errors.problems().iter().map(|problem| problem.message.as_str());
            format!(
                "the changed component cannot be used: {}",
                words.collect::<Vec<_>>().join("; ")
            )
        };
        let unusable = unusable.iter().map(|(election, errors)| (election.clone(), words(errors)));
        let _ = self.inputs.send(Input::Plugins(removed.chain(unusable).collect()));
    }

    fn tell_removed(&mut self, now: &Stamps) {
        let used: BTreeSet<&str> =
            self.config.elections.iter().map(|election| election.policy.as_str()).collect();
        let gone = self.seen.without(now);
        for policy in gone.iter().filter(|name| used.contains(name.as_str())) {
            warn!(policy, "a policy in use was removed; what was loaded of it goes on deciding");
        }
        self.removed.extend(gone);
        self.removed.retain(|name| !now.0.contains_key(name));
    }
}

fn tell(errors: impl Display) {
    error!(%errors, "a changed policy cannot be used; what was loaded before goes on deciding");
}

/// Tells of changes, if inotify is to be had. Made anew for each wait, so that a directory that was
/// replaced is watched again.
fn hints(directory: &Path) -> Option<OwnedFd> {
    let events = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::ONLYDIR;
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&inotify, directory, events).ok()?;
    Some(inotify)
}

/// Until something changes, or for a while.
fn wait(hint: Option<&OwnedFd>) {
    let mut fds: Vec<PollFd<'_>> =
        hint.map(|hint| PollFd::new(hint, PollFlags::IN)).into_iter().collect();
    // An interrupted wait is a short one.
    let _ = poll(&mut fds, Some(&LOOK_AGAIN));
}

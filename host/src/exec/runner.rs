//! Starts a term's command, and ends it before the term is given up.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use conclave_core::{ElectionName, NodeName, Token};
use conclave_guard::{Page, SlotId};
use rustix::process::Pid;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::CommandConfig;
use super::group::Group;

/// How long until a slot is asked for back that the guard is at.
const RELEASE_AGAIN: Duration = Duration::from_millis(5);

/// A command ended by itself, or could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) election: ElectionName,
    /// By the convention of shells: 128 and the signal, where one ended it.
    pub(crate) status: u8,
}

/// The commands of all elections.
pub(crate) struct Runner {
    page: Page,
    node: NodeName,
    commands: BTreeMap<ElectionName, CommandConfig>,
    running: BTreeMap<ElectionName, Running>,
    tell: Arc<dyn Fn(Finished) + Send + Sync>,
}

/// A command of a term, from before its start to after its end.
struct Running {
    token: Token,
    control: Arc<Mutex<Control>>,
    /// True once nothing of it is left.
    gone: watch::Receiver<bool>,
}

/// What whoever stops it and who waits for it have in common.
#[derive(Default)]
struct Control {
    stopping: bool,
    /// Its processes, from before they may do anything until the leader is waited for.
    group: Option<Arc<Group>>,
}

impl Runner {
    /// Starts nothing yet. `tell` hears when a command ends by itself.
    pub(crate) fn new(
        page: Page,
        node: NodeName,
        commands: BTreeMap<ElectionName, CommandConfig>,
        tell: impl Fn(Finished) + Send + Sync + 'static,
    ) -> Self {
        Runner { page, node, commands, running: BTreeMap::new(), tell: Arc::new(tell) }
    }

    /// How long the slowest command may take to end.
    pub(crate) fn grace(&self, election: &ElectionName) -> Duration {
        self.commands.get(election).map_or(Duration::ZERO, |command| command.grace)
    }

    /// Runs the election's command, if it has one, in a term that this node leads; once for each term.
    pub(crate) fn lead(&mut self, election: &ElectionName, token: Token) {
        let Some(command) = self.commands.get(election) else { return };
        if self.running.get(election).is_some_and(|running| running.token == token) {
            return;
        }
        let control = Arc::new(Mutex::new(Control::default()));
        let (ended, gone) = watch::channel(false);
        let life = Life {
            page: self.page,
            election: election.clone(),
            token,
            control: Arc::clone(&control),
            command: prepared(&command.arguments, election, token, &self.node),
        };
        let tell = Arc::clone(&self.tell);
        let work = move || {
            let finished = life.live();
            ended.send_replace(true);
            if let Some(finished) = finished {
                tell(finished);
            }
        };
        // A thread of its own, which lives as long as the command: the kernel ends that with it.
        match thread::Builder::new().name("command".to_owned()).spawn(work) {
            Ok(_) => {
                self.running.insert(election.clone(), Running { token, control, gone });
            }
            Err(error) => {
                error!(%election, %error, "cannot start a thread for the command");
                (self.tell)(Finished { election: election.clone(), status: 126 });
            }
        }
    }

    /// Ends the election's command, by asking first if there is time; `None` if none runs. What is returned is ready
    /// once nothing of it is left. Needs a tokio runtime.
    pub(crate) fn stop(
        &mut self,
        election: &ElectionName,
        in_time: bool,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Running { control, mut gone, .. } = self.running.remove(election)?;
        let grace = if in_time { self.grace(election) } else { Duration::ZERO };
        let group = {
            let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
            control.stopping = true;
            control.group.clone()
        };
        Some(async move {
            if let Some(group) = &group {
                if !grace.is_zero() {
                    group.terminate();
                    let ended = gone.wait_for(|gone| *gone);
                    let _ = tokio::time::timeout(grace, ended).await;
                }
                if !*gone.borrow() {
                    group.kill();
                }
            }
            // Its thread goes only once everything else has. One that panicked proves nothing.
            if gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The stub of a command.
fn prepared(
    arguments: &[std::ffi::OsString],
    election: &ElectionName,
    token: Token,
    node: &NodeName,
) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("conclave")
        .arg("stub")
        .arg("--")
        .args(arguments)
        .env("CONCLAVE_ELECTION", election.as_str())
        .env("CONCLAVE_NODE", node.as_str())
        .env("CONCLAVE_TERM", token.to_string())
        .env("CONCLAVE_ROLE", "leader")
        .env_remove("CONCLAVE_GUARD_NONCE")
        .stdin(Stdio::piped())
        .process_group(0);
    command
}

/// One command, on its thread.
struct Life {
    page: Page,
    election: ElectionName,
    token: Token,
    control: Arc<Mutex<Control>>,
    command: Command,
}

impl Life {
    /// Starts the command, waits for it, ends what it leaves; what there is to tell, if it was not asked to end.
    fn live(mut self) -> Option<Finished> {
        let status = match self.run() {
            Ok(Some(status)) => code(status),
            Ok(None) => return None,
            Err(error) => {
                error!(election = %self.election, %error, "cannot start the command");
                126
            }
        };
        let stopping = self.control.lock().unwrap_or_else(PoisonError::into_inner).stopping;
        let (election, token) = (self.election, self.token);
        info!(%election, %token, status, stopping, "the command has ended");
        (!stopping).then_some(Finished { election, status })
    }

    /// How it ended by itself; `None` if it was not even begun, or ended with the session.
    fn run(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut child = self.command.spawn()?;
        let leader = Pid::from_child(&child);
        let name = format!("conclave-{}-{}", leader.as_raw_nonzero(), self.token);
        let (group, whole) = Group::of(leader, &name);
        if let Err(error) = whole {
            warn!(election = %self.election, %error, "no control group for the command: of its processes, those that leave its process group are not ended with it");
        }
        let group = Arc::new(group);
        let (slot, begun) = self.give_leave(&mut child, &group);
        // A stub without leave ends when nobody can give it any more.
        drop(child.stdin.take());
        let status = child.wait();
        let by_itself = begun && slot.is_some_and(|slot| self.page.may_place(slot));
        self.control.lock().unwrap_or_else(PoisonError::into_inner).group = None;
        group.end();
        if let Some(slot) = slot {
            // Until the guard is through with it, it has not ended by the guard's word.
            while self.page.release(slot).is_err() {
                thread::sleep(RELEASE_AGAIN);
            }
        }
        status.map(|status| by_itself.then_some(status))
    }

    /// Has the guard watch over the group, and lets the stub become the command while the gate is open.
    /// The slot, and whether leave was given.
    fn give_leave(&self, child: &mut Child, group: &Arc<Group>) -> (Option<SlotId>, bool) {
        let (kind, dest, staged) = group.claim();
        let slot = match self.page.claim(kind, self.token, &dest, &staged) {
            Ok(slot) => slot,
            Err(error) => {
                warn!(election = %self.election, %error, "the command is not started");
                return (None, false);
            }
        };
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.group = Some(Arc::clone(group));
        if control.stopping || !self.page.may_place(slot) {
            return (Some(slot), false);
        }
        info!(election = %self.election, token = %self.token, process = child.id(), "the command runs");
        // A stub that has gone is found out by waiting for it.
        let told = child.stdin.as_mut().map(|stdin| stdin.write_all(b"!"));
        (Some(slot), matches!(told, Some(Ok(()))))
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

//! Starts processes, on a thread of its own: the daemon, and what an upgrade asks first.
//!
//! Starting waits for the disk that the program is on. The guard must not: it has a deadline to
//! keep, for which what an earlier daemon placed may still be in place.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::signals::letting_in;

/// What is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The daemon.
    Daemon,
    /// The question to another version, whether it can take over.
    Question,
}

/// A process that was started.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// The thread, waiting for orders.
pub(crate) struct Starter {
    orders: SyncSender<Program>,
    outcomes: Receiver<(Program, io::Result<Started>)>,
    /// Readable when an order has been carried out.
    finished: Arc<OwnedFd>,
    busy: Option<Program>,
}

impl Starter {
    /// Starts the thread. Processes get process groups of their own: what the terminal sends on
    /// Ctrl-C is for the guard to pass on, once. `input` is their standard input, from the beginning.
    pub(crate) fn new(
        mut daemon: Command,
        mut question: Option<Command>,
        mut input: Option<File>,
    ) -> io::Result<Self> {
        daemon.process_group(0);
        if let Some(question) = &mut question {
            // Its words are for people.
            question.process_group(0).stdout(Stdio::null());
        }
        let (orders, received) = mpsc::sync_channel(1);
        let (outcome, outcomes) = mpsc::sync_channel(1);
        let finished = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let finished = Arc::new(finished);
        let tell = Arc::clone(&finished);
        thread::Builder::new().name("start".to_owned()).spawn(move || {
            for which in received {
                let started = match (which, &mut question) {
                    (Program::Daemon, _) => start(&mut daemon, input.as_mut()),
                    (Program::Question, Some(question)) => start(question, input.as_mut()),
                    (Program::Question, None) => Err(io::ErrorKind::Unsupported.into()),
                };
                if outcome.send((which, started)).is_err() {
                    return;
                }
                // It fails only when the count would overflow, and then it is readable anyway.
                let _ = rustix::io::write(&tell, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(Starter { orders, outcomes, finished, busy: None })
    }

    /// Has something started; [`take`](Self::take) says what came of it.
    pub(crate) fn order(&mut self, which: Program) {
        // There is room for the one order that is given at a time.
        self.busy = self.orders.try_send(which).is_ok().then_some(which);
    }

    /// Whether an order is still being carried out. Until it is, no child may be reaped but those
    /// that are known: it could be the one that is being started.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Whether a daemon is being started, and may live already.
    pub(crate) fn is_starting_daemon(&self) -> bool {
        self.busy == Some(Program::Daemon)
    }

    /// What came of the order, once.
    pub(crate) fn take(&mut self) -> Option<(Program, io::Result<Started>)> {
        let mut count = [0; 8];
        // Without anything to consume it fails, as it should.
        let _ = rustix::io::read(&*self.finished, &mut count);
        let outcome = self.outcomes.try_recv().ok()?;
        self.busy = None;
        Some(outcome)
    }
}

impl AsFd for Starter {
    /// Readable when an order has been carried out.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.finished.as_fd()
    }
}

fn start(command: &mut Command, input: Option<&mut File>) -> io::Result<Started> {
    command.stdin(match input {
        None => Stdio::null(),
        Some(input) => {
            // The daemon before has read it, and the position is everybody's.
            input.rewind()?;
            Stdio::from(input.try_clone()?)
        }
    });
    let mut child = letting_in(|| command.spawn())??;
    let pid = Pid::from_child(&child);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Started { pid, pidfd }),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

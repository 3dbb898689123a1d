//! Requests to end: to stop, or to make room for another daemon. They are listened for from the
//! first moment of a daemon's life, so that one that comes while it still starts is heeded and not
//! died of.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a daemon is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To give everything up, and end.
    Stop,
    /// To make room for another daemon, which goes on with the session.
    StepAside,
}

/// SIGTERM and SIGINT ask to stop, and the guard's SIGUSR2 to step aside.
#[derive(Debug)]
pub(crate) struct Stops {
    terminate: Signal,
    interrupt: Signal,
    aside: Signal,
    /// Sent by the kernel, with a SIGCONT, to a daemon that stands still while its guard dies. To
    /// die of it would leave everything in place; woken up, it finds its guard gone and withdraws.
    _hangup: Signal,
}

impl Stops {
    /// Starts to listen. Needs a tokio runtime.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Stops {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            aside: signal(SignalKind::user_defined2())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request. None is lost when the future is dropped before it is ready.
    pub(crate) async fn any(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.interrupt.recv() => Ask::Stop,
            _ = self.aside.recv() => Ask::StepAside,
        }
    }

    /// The next request to stop. None is lost when the future is dropped before it is ready.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What `work` comes to, or `None` when a request to stop comes first.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.next() => None,
            done = work => Some(done),
        }
    }
}

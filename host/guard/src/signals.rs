//! The guard's signals, as file descriptors.
//!
//! They are held back until all threads run, and in those for good: only the guard's own loop
//! takes them, so that it can hold them back again without another thread losing one. A process
//! that is started inherits what its thread holds back, hence [`letting_in`].

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;

/// Ask the guard to stop. A terminal that goes away is a wish to stop, not a reason to die without
/// withdrawing.
const STOPS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Asks the guard to replace its program and its daemon by what is installed now.
const UPGRADES: [Signal; 1] = [Signal::SIGUSR2];

/// There may be something to see: a child to reap, a change on the page.
const WAKES: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGURG];

/// Held back for good, so that writing where nobody reads is an error and not the end. Rust ignores
/// it, but not any more once executing another program has failed.
const NEVER: [Signal; 1] = [Signal::SIGPIPE];

/// Self-pipes. Signals are asked for by which pipe they wrote to.
pub(crate) struct Signals {
    /// Readable when it was asked to stop.
    pub(crate) stop: UnixStream,
    /// Readable when it was asked to upgrade.
    pub(crate) upgrade: UnixStream,
    /// Readable when there may be something to see.
    pub(crate) wake: UnixStream,
}

impl Signals {
    /// Installs the handlers, for the rest of the process's life, and holds the signals back.
    pub(crate) fn hold_back() -> io::Result<Self> {
        with_never().thread_block()?;
        Ok(Signals { stop: listen(&STOPS)?, upgrade: listen(&UPGRADES)?, wake: listen(&WAKES)? })
    }

    /// Holds them back again. What comes from now on waits for whichever program lets it in.
    pub(crate) fn hold_back_again(&self) -> io::Result<()> {
        Ok(all().thread_block()?)
    }

    /// Lets in what was held back, and what will come; also what whoever started this process had
    /// blocked.
    pub(crate) fn let_in(&self) -> io::Result<()> {
        Ok(all().thread_unblock()?)
    }

    /// How often it was asked to stop since the last call.
    pub(crate) fn take_stops(&mut self) -> usize {
        drain(&mut self.stop)
    }

    /// Whether it was asked to upgrade since the last call.
    pub(crate) fn take_upgrade(&mut self) -> bool {
        drain(&mut self.upgrade) > 0
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn consume_wakes(&mut self) {
        drain(&mut self.wake);
    }
}

/// Does something in a thread that lets signals in meanwhile.
pub(crate) fn letting_in<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    with_never().thread_unblock()?;
    let done = work();
    with_never().thread_block()?;
    Ok(done)
}

fn all() -> SigSet {
    STOPS.into_iter().chain(UPGRADES).chain(WAKES).collect()
}

fn with_never() -> SigSet {
    all().iter().chain(NEVER).collect()
}

fn listen(signals: &[Signal]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for &signal in signals {
        pipe::register(signal as i32, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// One byte was written per signal.
fn drain(pipe: &mut UnixStream) -> usize {
    let mut total = 0;
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = pipe.read(&mut bytes) {
        total += count;
    }
    total
}

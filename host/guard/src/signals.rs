//! The guard's signals, as file descriptors.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGURG};
use signal_hook::low_level::pipe;

/// Two self-pipes. Signals are asked for by which pipe they wrote to.
pub(crate) struct Signals {
    /// Readable when it was asked to stop.
    pub(crate) stop: UnixStream,
    /// Readable when there may be something to see: a child to reap, a change on the page.
    pub(crate) wake: UnixStream,
}

impl Signals {
    /// Installs the handlers, for the rest of the process's life.
    pub(crate) fn install() -> io::Result<Self> {
        // A terminal that goes away is a wish to stop, not a reason to die without withdrawing.
        let stop = listen(&[SIGTERM, SIGINT, SIGHUP])?;
        Ok(Signals { stop, wake: listen(&[SIGCHLD, SIGURG])? })
    }

    /// How often it was asked to stop since the last call.
    pub(crate) fn take_stops(&mut self) -> usize {
        drain(&mut self.stop)
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn consume_wakes(&mut self) {
        drain(&mut self.wake);
    }
}

fn listen(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for &signal in signals {
        pipe::register(signal, writer.try_clone()?)?;
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

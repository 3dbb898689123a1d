//! What a guard hands to the program that it executes in its own place.
//!
//! The process goes on, and with it its children; its memory does not. What must stay are the lock,
//! the page with its lock, the daemons' standard input, and a few words about the daemon. All of
//! it travels as one message in a socket that becomes the standard input of the new program: what
//! is under way in a socket stays open, locks included, and is closed-on-exec at both ends, so
//! that no process that is started meanwhile ever gets hold of it.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::layout;

/// Says to the new program that it takes over, and from which process: only itself may believe it.
const ENV_HANDOVER: &str = "CONCLAVE_HANDOVER";

/// Grows with every change of [`State`] that an older or newer guard could not read.
const FORMAT: u64 = 1;

/// The most descriptors that a handover has.
const MOST: usize = 5;

/// What two programs must have in common for one guard to go on with what the other has: the
/// layouts of the page and of the handover.
pub fn handover_version() -> String {
    format!("{}.{FORMAT}", layout::VERSION)
}

/// The guard that this program replaces, to be given to [`run`](crate::run).
#[derive(Debug)]
pub struct Handover {
    pub(crate) state: State,
    pub(crate) lock: OwnedFd,
    pub(crate) page: OwnedFd,
    pub(crate) page_lock: OwnedFd,
    pub(crate) input: Option<File>,
}

/// What the old guard knew that is not on the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u64,
    pub(crate) state_dir: OsString,
    pub(crate) page: OsString,
    pub(crate) destinations: Vec<OsString>,
    /// The daemon's process id, a child that is not reaped.
    pub(crate) daemon: Option<i32>,
    /// The page's count of beats before the daemon was started.
    pub(crate) beats_before: u64,
}

impl Handover {
    /// What this process was handed when it executed this program; `None` when it was started by
    /// somebody else. It can be taken once.
    ///
    /// # Errors
    /// When there should be something, and it is not there or of another version.
    pub fn take() -> io::Result<Option<Self>> {
        let own = std::process::id().to_string();
        if env::var_os(ENV_HANDOVER).is_none_or(|pid| *pid != *own) {
            return Ok(None);
        }
        Handover::receive(io::stdin().as_fd()).map(Some)
    }

    /// The daemons' standard input, as it was handed to the first guard.
    pub fn input(&self) -> Option<&File> {
        self.input.as_ref()
    }

    fn receive(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::other(format!("what the old guard left is {what}"));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
        let mut descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => rights.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut next = || descriptors.next().ok_or_else(|| bad("incomplete"));
        let (state, lock, page, page_lock) = (next()?, next()?, next()?, next()?);
        let input = next().ok().map(File::from);
        let mut state = File::from(state);
        state.rewind()?;
        let state: State = serde_json::from_reader(io::BufReader::new(state))?;
        if state.format != FORMAT {
            return Err(bad("of another version"));
        }
        Ok(Handover { state, lock, page, page_lock, input })
    }
}

/// What is handed over.
pub(crate) struct Parcel<'a> {
    pub(crate) state: &'a State,
    pub(crate) lock: BorrowedFd<'a>,
    pub(crate) page: BorrowedFd<'a>,
    pub(crate) page_lock: BorrowedFd<'a>,
    pub(crate) input: Option<BorrowedFd<'a>>,
}

impl Parcel<'_> {
    /// Packs everything up: what is to be the new program's standard input, and its environment.
    pub(crate) fn pack(&self) -> io::Result<(OwnedFd, (&'static str, String))> {
        let mut state = File::from(memfd_create("handover", MemfdFlags::CLOEXEC)?);
        state.write_all(&serde_json::to_vec(self.state)?)?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut descriptors = vec![state.as_fd(), self.lock, self.page, self.page_lock];
        descriptors.extend(self.input);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&ours, &[IoSlice::new(&[1])], &mut ancillary, SendFlags::DONTWAIT)?;
        Ok((theirs.into(), (ENV_HANDOVER, std::process::id().to_string())))
    }

    /// The variable that must not be there when a program is started anew.
    pub(crate) const VARIABLE: &'static str = ENV_HANDOVER;
}

impl State {
    pub(crate) fn new(state_dir: PathBuf, page: PathBuf, destinations: Vec<PathBuf>) -> Self {
        State {
            format: FORMAT,
            state_dir: state_dir.into(),
            page: page.into(),
            destinations: destinations.into_iter().map(OsString::from).collect(),
            daemon: None,
            beats_before: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use rustix::fs::{FlockOperation, flock, fstat};

    use super::*;

    fn file(directory: &tempfile::TempDir, name: &str) -> File {
        File::create_new(directory.path().join(name)).unwrap()
    }

    #[test]
    fn everything_arrives_and_what_was_locked_never_ceases_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let [lock, page, page_lock, input] =
            ["lock", "page", "page-lock", "input"].map(|name| file(&directory, name));
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let odd = OsString::from_vec(vec![b'/', 0xff, b'"']);
        let state = State {
            daemon: Some(7),
            beats_before: 8,
            ..State::new(odd.into(), "/p".into(), vec!["/d".into()])
        };
        for input in [None, Some(&input)] {
            let parcel = Parcel {
                state: &state,
                lock: lock.as_fd(),
                page: page.as_fd(),
                page_lock: page_lock.as_fd(),
                input: input.map(AsFd::as_fd),
            };
            let (socket, (_, pid)) = parcel.pack().unwrap();
            assert_eq!(pid, std::process::id().to_string());
            let received = Handover::receive(socket.as_fd()).unwrap();
            assert_eq!(received.state, state);
            let inode = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_ino;
            assert_eq!(inode(received.lock.as_fd()), inode(lock.as_fd()));
            assert_eq!(inode(received.page.as_fd()), inode(page.as_fd()));
            assert_eq!(inode(received.page_lock.as_fd()), inode(page_lock.as_fd()));
            assert_eq!(received.input().is_some(), input.is_some());
            assert!(Handover::receive(socket.as_fd()).is_err(), "once");
        }

        let parcel = Parcel {
            state: &state,
            lock: lock.as_fd(),
            page: page.as_fd(),
            page_lock: page_lock.as_fd(),
            input: None,
        };
        let (socket, _) = parcel.pack().unwrap();
        drop(lock); // as executing another program does
        let rival = File::open(directory.path().join("lock")).unwrap();
        flock(&rival, FlockOperation::NonBlockingLockExclusive).unwrap_err();
        let received = Handover::receive(socket.as_fd()).unwrap();
        flock(&rival, FlockOperation::NonBlockingLockExclusive).unwrap_err();
        drop(received);
        flock(&rival, FlockOperation::NonBlockingLockExclusive).unwrap();
    }

    #[test]
    fn nobody_takes_what_was_not_handed_to_it() {
        assert!(Handover::take().unwrap().is_none());
        let (_ours, theirs) = UnixStream::pair().unwrap();
        assert!(Handover::receive(theirs.as_fd()).is_err());
    }
}

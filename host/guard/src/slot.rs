//! The page's slots: which exclusive effects are in place, or may come to be at any moment.
//!
//! ```text
//!          daemon: claim                     guard: pin
//!   free ────────────────> claimed <───────────────────────> withdrawing
//!    ^ ^                      │        guard: unpin               │
//!    │ └──────────────────────┘                                   │
//!    │      daemon: release                                       │
//!    └────────────────────────────────────────────────────────────┘
//!      guard: withdrawn, and the daemon that claimed it is dead
//! ```
//!
//! The daemon publishes a slot *before* it stages anything, and asks [`Page::may_place`] right
//! before the rename. Claiming ends, and asking begins, with a full fence; the guard marks the session expired
//! before it reads the slots. So of the two, one sees the other: either the daemon finds the
//! session expired and does not rename, or the guard finds the slot and unlinks it.
//!
//! The guard touches a path only while it holds the slot as `withdrawing`, and the daemon can
//! release only a slot that is `claimed`: a late unlink of the guard's never hits a path that was
//! released and placed anew.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use conclave_core::{SessionId, Token};
use rustix::io::Errno;

use crate::clock::Reading;
use crate::error::PageError;
use crate::layout::{PATH_LEN, PathWords, Slot};
use crate::page::Page;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

const FREE: u64 = 0;
/// Being filled by the daemon; nothing can be in place yet.
const WRITING: u64 = 1;
const CLAIMED: u64 = 2;
const WITHDRAWING: u64 = 3;

/// What kind of exclusive effect a slot is about, hence how it is withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An exclusive manifest: the staged file and the destination are unlinked.
    Manifest,
    /// A role file that says `leader`: the staged file, which says `standby`, is renamed over it;
    /// where there is none, the role file is unlinked, for a missing one means standby.
    RoleFile,
    /// A control group of processes: all of them are killed by the group's `cgroup.kill`, which is the destination;
    /// beside it stands `cgroup.procs`, which names those that are left.
    ControlGroup,
    /// A process group, named as its leader's directory in `/proc`: all of it is killed. Nobody may reap the leader
    /// while the slot is claimed but who releases it.
    ProcessGroup,
}

impl Kind {
    /// Whether it is about processes. They end with the daemon that started them.
    pub fn is_of_processes(self) -> bool {
        matches!(self, Kind::ControlGroup | Kind::ProcessGroup)
    }
}

/// Names one claim; a later claim of the same slot has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    index: usize,
    version: u64,
}

/// An exclusive effect that is claimed on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Names it.
    pub id: SlotId,
    /// How it is withdrawn.
    pub kind: Kind,
    /// The session in which it was claimed.
    pub session: SessionId,
    /// The term it belongs to.
    pub token: Token,
    /// Where it is in place.
    pub dest: PathBuf,
    /// The file that goes before it, or the standby role file.
    pub staged: PathBuf,
}

impl Page {
    /// Claims a slot for an exclusive effect, so that the guard withdraws it when the deadline
    /// passes. Claim first, then stage, then ask [`may_place`](Self::may_place), then rename. One claim
    /// serves any number of placings of the same file.
    ///
    /// # Errors
    /// [`PageError::NoSession`] and [`PageError::Expired`] without a session that stands;
    /// [`PageError::Full`] when all slots are taken; [`PageError::NoRoom`] when memory is;
    /// [`PageError::BadPath`] for paths that are
    /// relative, hold a NUL, or are longer than 4095 bytes.
    pub fn claim(
        &self,
        kind: Kind,
        token: Token,
        dest: &Path,
        staged: &Path,
    ) -> Result<SlotId, PageError> {
        self.claim_at(Reading::now(), kind, token, dest, staged)
    }

    pub(crate) fn claim_at(
        &self,
        now: Reading,
        kind: Kind,
        token: Token,
        dest: &Path,
        staged: &Path,
    ) -> Result<SlotId, PageError> {
        let (dest, staged) = (path_bytes(dest)?, path_bytes(staged)?);
        let session = self.session().ok_or(PageError::NoSession)?;
        if !session.stands(now) {
            return Err(PageError::Expired { session: session.id });
        }
        let (index, slot, version) = self.take_free()?;
        if let Err(error) = self.reserve_paths(index) {
            slot.state.store(version << STATE_BITS | FREE, SeqCst);
            return Err(error);
        }
        slot.kind.store(kind as u64, SeqCst);
        slot.session_id.store(session.id.0, SeqCst);
        slot.token.store(token.0, SeqCst);
        slot.directory.store(directory_key(dest), SeqCst);
        slot.reset_inode.store(0, SeqCst);
        slot.failure.store(0, SeqCst);
        self.paths(index).dest.store(dest);
        self.paths(index).staged.store(staged);
        slot.state.store(version << STATE_BITS | CLAIMED, SeqCst);
        fence(SeqCst);
        Ok(SlotId { index, version })
    }

    /// Whether the claimed effect may be put in place now: asked right before the rename, after
    /// staging. `false` once the slot is released, the guard is at it, or the deadline has passed.
    pub fn may_place(&self, slot: SlotId) -> bool {
        fence(SeqCst);
        self.may_place_at(Reading::now(), slot)
    }

    pub(crate) fn may_place_at(&self, now: Reading, id: SlotId) -> bool {
        let Some(slot) = self.slots().get(id.index) else { return false };
        slot.state.load(SeqCst) == id.version << STATE_BITS | CLAIMED
            && self.is_active(SessionId(slot.session_id.load(SeqCst)), now)
    }

    /// Gives the slot back, after the effect was withdrawn and that was confirmed. Of a slot that
    /// is no longer this claim's, nothing is left to release, and that is no error.
    ///
    /// # Errors
    /// [`PageError::Busy`] while the guard is withdrawing it too: the effect does not count as
    /// withdrawn before that has returned. Try again in some milliseconds.
    pub fn release(&self, slot: SlotId) -> Result<(), PageError> {
        let state = &self.slots()[slot.index].state;
        let claimed = slot.version << STATE_BITS | CLAIMED;
        let free = slot.version << STATE_BITS | FREE;
        match state.compare_exchange(claimed, free, SeqCst, SeqCst) {
            Err(found) if found == slot.version << STATE_BITS | WITHDRAWING => Err(PageError::Busy),
            _ => Ok(()),
        }
    }

    /// Everything that is claimed, for a daemon that adopts or cleans up what an earlier one left.
    pub fn claims(&self) -> Vec<Claim> {
        let mut buffer = [0; PATH_LEN];
        let mut path = |words: &PathWords| {
            words.load(&mut buffer);
            let len = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
            PathBuf::from(OsStr::from_bytes(&buffer[..len]))
        };
        let claim = |(index, slot): (usize, &Slot)| {
            let word = slot.state.load(SeqCst);
            matches!(word & STATE_MASK, CLAIMED | WITHDRAWING).then(|| Claim {
                id: SlotId { index, version: word >> STATE_BITS },
                kind: slot.kind(),
                session: SessionId(slot.session_id.load(SeqCst)),
                token: Token(slot.token.load(SeqCst)),
                dest: path(&self.paths(index).dest),
                staged: path(&self.paths(index).staged),
            })
        };
        self.slots().iter().enumerate().filter_map(claim).collect()
    }

    /// What the guard could not withdraw, and why.
    pub(crate) fn failures(&self) -> Vec<(PathBuf, io::Error)> {
        let reason = |claim: Claim| {
            let failure = self.slots()[claim.id.index].failure.load(SeqCst);
            let reason = match i32::try_from(failure) {
                Ok(errno @ 1..) => io::Error::from_raw_os_error(errno),
                _ => io::Error::new(io::ErrorKind::TimedOut, "the file system hangs"),
            };
            (claim.dest, reason)
        };
        self.claims().into_iter().map(reason).collect()
    }

    /// How many slots are not free.
    pub(crate) fn claimed(&self) -> usize {
        let taken = |slot: &&Slot| slot.state.load(SeqCst) & STATE_MASK != FREE;
        self.slots().iter().filter(taken).count()
    }

    /// Whether processes are claimed.
    pub(crate) fn claims_processes(&self) -> bool {
        let taken = |slot: &Slot| slot.state.load(SeqCst) & STATE_MASK != FREE;
        self.slots().iter().any(|slot| taken(slot) && slot.kind().is_of_processes())
    }

    /// Puts the slots in order after the daemon's death: what it was still writing was never in
    /// place.
    pub(crate) fn free_unfinished(&self) {
        for slot in self.slots() {
            let word = slot.state.load(SeqCst);
            if word & STATE_MASK == WRITING {
                slot.state.store(word & !STATE_MASK | FREE, SeqCst);
            }
        }
    }

    /// Puts the slots in order after the death of a guard that was withdrawing.
    pub(crate) fn unpin_all(&self) {
        for slot in self.slots() {
            let word = slot.state.load(SeqCst);
            if word & STATE_MASK == WITHDRAWING {
                slot.state.store(word & !STATE_MASK | CLAIMED, SeqCst);
            }
        }
    }

    fn take_free(&self) -> Result<(usize, &'static Slot, u64), PageError> {
        for (index, slot) in self.slots().iter().enumerate() {
            let word = slot.state.load(SeqCst);
            let version = (word >> STATE_BITS) + 1;
            let writing = version << STATE_BITS | WRITING;
            if word & STATE_MASK == FREE
                && slot.state.compare_exchange(word, writing, SeqCst, SeqCst).is_ok()
            {
                return Ok((index, slot, version));
            }
        }
        Err(PageError::Full { slots: self.slots().len() })
    }
}

impl Slot {
    pub(crate) fn kind(&self) -> Kind {
        const KINDS: [Kind; 3] = [Kind::RoleFile, Kind::ControlGroup, Kind::ProcessGroup];
        let word = self.kind.load(SeqCst);
        KINDS.into_iter().find(|kind| *kind as u64 == word).unwrap_or(Kind::Manifest)
    }

    /// Takes a claimed slot for withdrawing; `None` when it is not claimed.
    pub(crate) fn pin(&'static self) -> Option<Pinned> {
        let word = self.state.load(SeqCst);
        let pinned = word & !STATE_MASK | WITHDRAWING;
        let claimed = word & STATE_MASK == CLAIMED;
        (claimed && self.state.compare_exchange(word, pinned, SeqCst, SeqCst).is_ok())
            .then_some(Pinned { slot: self, word })
    }
}

/// A slot that the guard is withdrawing. Whoever holds it gives it back by [`Pinned::unpin`].
pub(crate) struct Pinned {
    pub(crate) slot: &'static Slot,
    word: u64,
}

impl Pinned {
    /// Gives the slot back as it was.
    pub(crate) fn put_back(self) {
        self.slot.state.store(self.word, SeqCst);
    }

    /// Gives the slot back: free when it is withdrawn for good, otherwise still claimed.
    pub(crate) fn unpin(self, outcome: Result<(), Errno>, for_good: bool) {
        let failure = outcome.err().map_or(0, |errno| errno.raw_os_error().unsigned_abs().into());
        self.slot.failure.store(failure, SeqCst);
        let state = if for_good && failure == 0 { FREE } else { CLAIMED };
        self.slot.state.store(self.word & !STATE_MASK | state, SeqCst);
    }
}

fn path_bytes(path: &Path) -> Result<&[u8], PageError> {
    let bytes = path.as_os_str().as_bytes();
    let bad = |reason| Err(PageError::BadPath { path: path.to_owned(), reason });
    match bytes {
        [b'/', ..] if bytes.len() >= PATH_LEN => bad("it is longer than 4095 bytes"),
        [b'/', ..] if bytes.contains(&0) => bad("it contains a NUL byte"),
        [b'/', ..] => Ok(bytes),
        _ => bad("it is not absolute"),
    }
}

/// The digest of a path's directory (FNV-1a), by which the guard's threads share the slots out.
pub(crate) fn directory_key(path: &[u8]) -> u64 {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    digest(&path[..end])
}

/// As [`directory_key`], of the directory itself.
pub(crate) fn digest(directory: &[u8]) -> u64 {
    directory.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::page::tests::page;
    use crate::session::SessionWriter;

    const SESSION: SessionId = SessionId(42);
    const TOKEN: Token = Token(7);

    fn at(ms: u64) -> Reading {
        Reading { boot_ns: ms * 1_000_000, raw_ns: ms * 1_000_000 }
    }

    fn begin(page: Page) -> SessionWriter {
        let mut session = SessionWriter::new(page, None);
        session.begin(SESSION, at(100), Duration::from_millis(10)).unwrap();
        session
    }

    fn claim(page: &Page, now: Reading, name: &str) -> Result<SlotId, PageError> {
        let dest = Path::new("/manifests").join(name);
        page.claim_at(now, Kind::Manifest, TOKEN, &dest, Path::new("/manifests/.conclave/new"))
    }

    #[test]
    fn a_claim_is_seen_until_it_is_released() {
        let (_directory, page) = page(2);
        let mut session = begin(page);
        let slot = claim(&page, at(0), "a").unwrap();
        assert!(page.may_place_at(at(99), slot));
        let claims = page.claims();
        let [found] = claims.as_slice() else { panic!("{claims:?}") };
        assert_eq!((found.id, found.session, found.token), (slot, SESSION, TOKEN));
        assert_eq!(found.dest, Path::new("/manifests/a"));
        assert_eq!(found.staged, Path::new("/manifests/.conclave/new"));
        assert!(matches!(session.end(), Err(PageError::StillClaimed { count: 1 })));

        page.release(slot).unwrap();
        assert!(!page.may_place_at(at(0), slot));
        assert_eq!(page.claims(), []);
        let reused = claim(&page, at(0), "b").unwrap();
        page.release(slot).unwrap();
        assert!(page.may_place_at(at(0), reused), "an old id releases nothing");
        page.release(reused).unwrap();
        session.end().unwrap();
    }

    #[test]
    fn nothing_is_placed_past_the_deadline_or_outside_its_session() {
        let (_directory, page) = page(4);
        assert!(matches!(claim(&page, at(0), "a"), Err(PageError::NoSession)));
        let mut session = begin(page);
        let slot = claim(&page, at(99), "a").unwrap();
        assert!(!page.may_place_at(at(100), slot), "the deadline has passed");
        assert!(matches!(claim(&page, at(100), "b"), Err(PageError::Expired { session: SESSION })));
        page.expire(at(100), false).unwrap();
        assert!(!page.may_place_at(at(0), slot), "the session is marked as expired");
        assert!(matches!(claim(&page, at(0), "b"), Err(PageError::Expired { session: SESSION })));

        let next = session.begin(SessionId(43), at(900), Duration::ZERO);
        assert!(matches!(next, Err(PageError::StillClaimed { count: 1 })));
        page.release(slot).unwrap();
        session.begin(SessionId(43), at(900), Duration::ZERO).unwrap();
        assert!(!page.may_place_at(at(0), slot), "it is no longer claimed");
    }

    #[test]
    fn paths_and_slots_have_limits_that_are_named() {
        let (_directory, page) = page(2);
        let _session = begin(page);
        for (path, reason) in [
            ("relative".to_owned(), "absolute"),
            (String::new(), "absolute"),
            ("/nul\0".to_owned(), "NUL"),
            (format!("/{}", "x".repeat(4_095)), "4095"),
        ] {
            let refused = page.claim(Kind::Manifest, TOKEN, Path::new(&path), Path::new("/s"));
            let Err(PageError::BadPath { reason: found, .. }) = refused else {
                panic!("{refused:?}")
            };
            assert!(found.contains(reason), "{found}");
        }
        let longest = format!("/{}", "x".repeat(4_094));
        let staged = Path::new(&longest);
        page.claim_at(at(0), Kind::RoleFile, TOKEN, Path::new("/r"), staged).unwrap();
        assert_eq!(page.claims()[0].staged, staged);
        assert_eq!(page.claims()[0].kind, Kind::RoleFile);
        claim(&page, at(0), "a").unwrap();
        assert!(matches!(claim(&page, at(0), "b"), Err(PageError::Full { slots: 2 })));
    }

    #[test]
    fn a_slot_that_the_guard_is_at_is_not_released_and_places_nothing() {
        let (_directory, page) = page(2);
        let _session = begin(page);
        let slot = claim(&page, at(0), "a").unwrap();
        let pinned = page.slots()[0].pin().unwrap();
        assert!(page.slots()[0].pin().is_none());
        assert!(matches!(page.release(slot), Err(PageError::Busy)));
        assert!(!page.may_place_at(at(0), slot));
        pinned.unpin(Ok(()), false);
        assert!(page.may_place_at(at(0), slot), "before the deadline it goes on");
        page.slots()[0].pin().unwrap().unpin(Err(Errno::ROFS), true);
        assert_eq!(page.failures()[0].1.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
        page.slots()[0].pin().unwrap().unpin(Ok(()), true);
        assert_eq!(page.claimed(), 0);
        page.release(slot).unwrap();
    }

    #[test]
    fn what_dead_processes_left_unfinished_is_put_in_order() {
        let (_directory, page) = page(2);
        let _session = begin(page);
        page.take_free().unwrap();
        let slot = claim(&page, at(0), "a").unwrap();
        assert!(page.slots()[1].pin().is_some(), "and the guard dies before it unpins");
        assert_eq!(page.claimed(), 2);
        page.free_unfinished();
        page.unpin_all();
        assert_eq!(page.claims().iter().map(|claim| claim.id).collect::<Vec<_>>(), [slot]);
        page.release(slot).unwrap();
        assert_eq!(page.claimed(), 0);
    }

    #[test]
    fn directories_are_told_apart_by_their_digest() {
        assert_eq!(directory_key(b"/etc/manifests/a.yaml"), digest(b"/etc/manifests"));
        assert_ne!(directory_key(b"/etc/manifests/a.yaml"), directory_key(b"/etc/other/a.yaml"));
        assert_eq!(directory_key(b"/a"), digest(b""));
    }
}

//! The session on the page: its deadline, and that an expired one stays expired.
//!
//! A deadline is a pair of words, one per clock, which no processor compares and exchanges as one.
//! So a third word decides: `session_state`, a state and a version that grows with every
//! change. The pair is only ever read as belonging to a state word, and every decision made from
//! it is a compare-and-swap of that word:
//!
//! - *Extending* raises both deadline words (each to the maximum of old and new) and then swaps
//!   `active, v` for `active, v+1`. If the guard has expired the session in between, the swap
//!   fails and the raised words mean nothing: no state but `active` looks at them.
//! - *Expiring* reads the state word, then the pair, then the clocks, and swaps `active, v` for
//!   `expired, v+1`. If the daemon has extended in between, the swap fails and it starts over; so no
//!   confirmed extension is overlooked, and of an extension and an expiry that race, one wins.
//! - A *torn* pair, one word old and one new, is harmless: each word of it was, for its clock, a
//!   deadline that a confirmed beat allowed, and every later beat allows more on both clocks.
//! - *Beginning* writes the pair while the state is not `active`, hence while nobody reads it,
//!   and then swaps the state; versions never repeat, so no old swap succeeds in a new session.
//!
//! Nothing leads from `expired` to `active` but the beginning of another session, and that is
//! refused while any slot is claimed.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use conclave_core::SessionId;
use rustix::process::{Signal, pidfd_send_signal};

use crate::clock::Reading;
use crate::error::PageError;
use crate::page::Page;

/// What the daemon sends its guard so that it looks at the page at once. Where nobody handles this
/// signal, it is ignored.
pub(crate) const WAKE: Signal = Signal::URG;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// No session, or one that ended with everything withdrawn.
const IDLE: u64 = 0;
/// A session whose deadline counts.
const ACTIVE: u64 = 1;
/// A session whose deadline passed; never active again.
const EXPIRED: u64 = 2;

fn next(word: u64, state: u64) -> u64 {
    ((word >> STATE_BITS) + 1) << STATE_BITS | state
}

/// A session as the page has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSession {
    /// The session.
    pub id: SessionId,
    /// When withdrawing starts at the latest.
    pub deadline: Reading,
    /// How long after the deadline everything must be gone.
    pub margin: Duration,
    /// Whether it was marked as expired: it never goes on.
    pub expired: bool,
    /// The state word that the rest was read under.
    pub(crate) version: u64,
}

impl PageSession {
    /// Whether exclusive effects of this session may be in place at `now`.
    pub fn stands(&self, now: Reading) -> bool {
        !self.expired && !now.is_past(self.deadline)
    }
}

impl Page {
    /// The session that the guard watches over; `None` when there is none.
    ///
    /// A daemon that starts and finds one here that [stands](PageSession::stands) may adopt it:
    /// another guard, or another boot, begins with an empty page.
    pub fn session(&self) -> Option<PageSession> {
        let header = self.header();
        loop {
            let word = header.session_state.load(SeqCst);
            let session = PageSession {
                id: SessionId(header.session_id.load(SeqCst)),
                deadline: self.deadline(),
                margin: Duration::from_nanos(header.margin_ns.load(SeqCst)),
                expired: word & STATE_MASK == EXPIRED,
                version: word,
            };
            if header.session_state.load(SeqCst) == word {
                return (word & STATE_MASK != IDLE).then_some(session);
            }
        }
    }

    /// Marks the session as expired if its deadline has passed, or, when `force`d, if it is active
    /// at all. Returns the session if this call did it.
    pub(crate) fn expire(&self, now: Reading, force: bool) -> Option<PageSession> {
        let state = &self.header().session_state;
        loop {
            let session = self.session().filter(|session| !session.expired)?;
            if !force && !now.is_past(session.deadline) {
                return None;
            }
            let expired = next(session.version, EXPIRED);
            if state.compare_exchange(session.version, expired, SeqCst, SeqCst).is_ok() {
                return Some(PageSession { expired: true, version: expired, ..session });
            }
        }
    }

    /// Whether `session` is the one that was begun and has neither expired nor ended.
    pub(crate) fn has_active(&self, session: SessionId) -> bool {
        self.session().is_some_and(|found| found.id == session && !found.expired)
    }

    /// Whether `session` is active and its deadline lies after `now`.
    pub(crate) fn is_active(&self, session: SessionId, now: Reading) -> bool {
        self.session().is_some_and(|found| found.id == session && found.stands(now))
    }

    /// Forgets the session, for a new guard that knows both of the old pair to be dead.
    pub(crate) fn forget_session(&self) {
        let state = &self.header().session_state;
        state.store(next(state.load(SeqCst), IDLE), SeqCst);
    }

    fn deadline(&self) -> Reading {
        let header = self.header();
        Reading {
            boot_ns: header.deadline_boot_ns.load(SeqCst),
            raw_ns: header.deadline_raw_ns.load(SeqCst),
        }
    }
}

/// The daemon's hand on the session's deadline. There is one per daemon, and it is not shared:
/// beginning, extending and ending have one owner.
#[derive(Debug)]
pub struct SessionWriter {
    page: Page,
    guard: Option<Arc<OwnedFd>>,
}

impl SessionWriter {
    pub(crate) fn new(page: Page, guard: Option<Arc<OwnedFd>>) -> Self {
        SessionWriter { page, guard }
    }

    /// Begins a session and wakes the guard, which watches its deadline from now on.
    ///
    /// `deadline` is when withdrawing starts at the latest: the moment at which the confirmed
    /// creation was sent, plus TTL, less `margin`. By `deadline` and `margin` everything is gone.
    ///
    /// # Errors
    /// [`PageError::SessionStands`] when the last one has neither ended nor expired;
    /// [`PageError::Expired`] when it is this very session that has expired;
    /// [`PageError::StillClaimed`] when something of it is still in place.
    pub fn begin(
        &mut self,
        session: SessionId,
        deadline: Reading,
        margin: Duration,
    ) -> Result<(), PageError> {
        match self.page.session() {
            Some(old) if !old.expired => {
                return Err(PageError::SessionStands { session: old.id });
            }
            Some(old) if old.id == session => return Err(PageError::Expired { session }),
            _ => {}
        }
        self.require_nothing_claimed()?;
        let header = self.page.header();
        let word = header.session_state.load(SeqCst);
        header.session_id.store(session.0, SeqCst);
        header.margin_ns.store(u64::try_from(margin.as_nanos()).unwrap_or(u64::MAX), SeqCst);
        header.deadline_boot_ns.store(deadline.boot_ns, SeqCst);
        header.deadline_raw_ns.store(deadline.raw_ns, SeqCst);
        header.session_state.store(next(word, ACTIVE), SeqCst);
        if let Some(guard) = &self.guard {
            // It fails only when the guard is gone, which the guard watch tells in its own way.
            let _ = pidfd_send_signal(guard, WAKE);
        }
        Ok(())
    }

    /// Moves the deadline on, after a confirmed beat. A deadline earlier than the page's changes
    /// nothing.
    ///
    /// # Errors
    /// [`PageError::Expired`] when the deadline has passed or the guard has expired the session:
    /// it is over, withdraw. [`PageError::NoSession`] when the page has no such session.
    pub fn extend(&mut self, session: SessionId, deadline: Reading) -> Result<(), PageError> {
        self.extend_at(Reading::now(), session, deadline)
    }

    pub(crate) fn extend_at(
        &mut self,
        now: Reading,
        session: SessionId,
        deadline: Reading,
    ) -> Result<(), PageError> {
        let header = self.page.header();
        self.page.expire(now, false);
        loop {
            let found = self.page.session().filter(|found| found.id == session);
            let found = found.ok_or(PageError::NoSession)?;
            if found.expired {
                return Err(PageError::Expired { session });
            }
            header.deadline_boot_ns.fetch_max(deadline.boot_ns, SeqCst);
            header.deadline_raw_ns.fetch_max(deadline.raw_ns, SeqCst);
            let word = next(found.version, ACTIVE);
            if header.session_state.compare_exchange(found.version, word, SeqCst, SeqCst).is_ok() {
                return Ok(());
            }
        }
    }

    /// Ends the session on the page: the guard has nothing to watch over until the next begins.
    /// Without a session it does nothing.
    ///
    /// # Errors
    /// [`PageError::StillClaimed`] when something exclusive is still in place.
    pub fn end(&mut self) -> Result<(), PageError> {
        self.require_nothing_claimed()?;
        // The guard may expire the session at the same moment; ended it is in any case.
        self.page.forget_session();
        Ok(())
    }

    fn require_nothing_claimed(&self) -> Result<(), PageError> {
        match self.page.claimed() {
            0 => Ok(()),
            count => Err(PageError::StillClaimed { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::page::tests::page;

    const SESSION: SessionId = SessionId(42);
    const MARGIN: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Reading {
        Reading { boot_ns: ms * 1_000_000, raw_ns: ms * 1_000_000 }
    }

    fn writer(page: Page) -> SessionWriter {
        SessionWriter::new(page, None)
    }

    #[test]
    fn a_session_lives_from_beginning_to_end() {
        let (_directory, page) = page(2);
        let mut writer = writer(page);
        assert_eq!(page.session(), None);
        assert!(matches!(writer.extend_at(at(0), SESSION, at(9)), Err(PageError::NoSession)));

        writer.begin(SESSION, at(100), MARGIN).unwrap();
        let session = page.session().unwrap();
        assert_eq!((session.id, session.deadline, session.margin), (SESSION, at(100), MARGIN));
        assert!(session.stands(at(99)) && !session.stands(at(100)));
        let again = writer.begin(SessionId(43), at(900), MARGIN);
        assert!(matches!(again, Err(PageError::SessionStands { session: SESSION })));
        let other = writer.extend_at(at(50), SessionId(43), at(900));
        assert!(matches!(other, Err(PageError::NoSession)));

        writer.extend_at(at(50), SESSION, at(200)).unwrap();
        writer.extend_at(at(50), SESSION, at(150)).unwrap();
        assert_eq!(page.session().unwrap().deadline, at(200), "it never moves back");

        writer.end().unwrap();
        assert_eq!(page.session(), None);
        writer.begin(SessionId(43), at(120), MARGIN).unwrap();
        assert_eq!(page.session().unwrap().deadline, at(120), "nothing of the old one is left");
    }

    #[test]
    fn an_expired_session_stays_expired() {
        let (_directory, page) = page(2);
        let mut writer = writer(page);
        writer.begin(SESSION, at(100), MARGIN).unwrap();
        assert_eq!(page.expire(at(99), false), None);
        assert!(page.expire(at(100), false).is_some_and(|session| session.expired));
        assert_eq!(page.expire(at(100), false), None, "once is enough");
        for now in [at(0), at(99), at(500)] {
            let extended = writer.extend_at(now, SESSION, at(1_000));
            assert!(matches!(extended, Err(PageError::Expired { session: SESSION })));
        }
        assert!(!page.session().unwrap().stands(at(0)));
        // Not even by beginning anew, with nothing of it in place.
        let again = writer.begin(SESSION, at(1_000), MARGIN);
        assert!(matches!(again, Err(PageError::Expired { session: SESSION })));
        writer.begin(SessionId(43), at(1_000), MARGIN).unwrap();
    }

    #[test]
    fn a_passed_deadline_is_not_extended_even_when_the_guard_slept() {
        let (_directory, page) = page(2);
        let mut writer = writer(page);
        let passed = [at(100), Reading { boot_ns: 0, ..at(100) }, Reading { raw_ns: 0, ..at(100) }];
        for (session, passed) in (1..).map(SessionId).zip(passed) {
            writer.begin(session, at(100), MARGIN).unwrap();
            let extended = writer.extend_at(passed, session, at(1_000));
            assert!(matches!(extended, Err(PageError::Expired { .. })), "{passed:?}");
            assert!(page.session().unwrap().expired);
        }
    }

    #[test]
    fn of_an_extension_and_an_expiry_at_the_same_moment_one_wins() {
        let (_directory, page) = page(2);
        let mut writer = writer(page);
        let (mut extended, mut expired) = (0, 0);
        for round in 0..4_000 {
            let session = SessionId(round);
            writer.begin(session, at(100), MARGIN).unwrap();
            let barrier = Barrier::new(2);
            let (extension, expiry) = thread::scope(|scope| {
                let guard = scope.spawn(|| {
                    barrier.wait();
                    page.expire(at(100), false).is_some()
                });
                barrier.wait();
                // By the daemon's clock the deadline is not there yet; the guard's is ahead.
                let extension = writer.extend_at(at(99), session, at(1_000)).is_ok();
                (extension, guard.join().unwrap())
            });
            assert_ne!(extension, expiry, "round {round}");
            assert_eq!(page.session().unwrap().expired, expiry, "round {round}");
            extended += usize::from(extension);
            expired += usize::from(expiry);
            if extension {
                writer.end().unwrap();
            }
        }
        assert_eq!(extended + expired, 4_000);
    }
}

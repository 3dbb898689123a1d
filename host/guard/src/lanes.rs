//! The guard's withdrawing threads: one per destination directory, started before they are
//! needed, so that one file system that hangs holds up no other.
//!
//! The directories that the guard is told of get a lane each. Others may turn up when the daemon
//! reloads its configuration; they share a few spare lanes. A lane finds its slots on the
//! page by the digest of their directory. At the deadline nothing but an atomic word and a wake-up is
//! handed over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, Thread};

use conclave_core::SessionId;
use rustix::event::{EventfdFlags, eventfd};

use crate::page::Page;
use crate::slot::digest;
use crate::withdraw::{Buffers, withdraw};

/// For directories that the guard was not told of.
const SPARE_LANES: usize = 4;

/// Two path buffers and some calls; the default of 2 MB would count where memory is locked.
const STACK_BYTES: usize = 64 * 1024;

/// In an order: the daemon is dead, so that what is withdrawn is withdrawn for good.
const FOR_GOOD: u64 = 1;

/// The threads, waiting for orders.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    orders: u64,
}

struct Shared {
    page: Page,
    /// Digests of the directories with a lane of their own.
    listed: Vec<u64>,
    /// The newest order: a number that grows, and whether it is for good. Zero is none.
    order: AtomicU64,
    /// Per lane, the newest order that it has carried out.
    done: Vec<AtomicU64>,
    /// Readable when a lane has carried out an order.
    finished: OwnedFd,
}

impl Lanes {
    /// Starts the threads.
    pub(crate) fn start(page: Page, directories: &[PathBuf]) -> io::Result<Self> {
        let mut listed: Vec<u64> = directories
            .iter()
            .map(|directory| digest(directory.components().as_path().as_os_str().as_bytes()))
            .collect();
        listed.sort_unstable();
        listed.dedup();
        let lanes = listed.len() + SPARE_LANES;
        let shared = Arc::new(Shared {
            page,
            listed,
            order: AtomicU64::new(0),
            done: (0..lanes).map(|_| AtomicU64::new(0)).collect(),
            finished: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let start = |lane| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("withdraw-{lane}"));
            let thread = thread.stack_size(STACK_BYTES).spawn(move || shared.work(lane))?;
            Ok(thread.thread().clone())
        };
        let threads = (0..lanes).map(start).collect::<io::Result<_>>()?;
        Ok(Lanes { shared, threads, orders: 0 })
    }

    /// Has everything on the page withdrawn. `for_good` when the daemon is dead: then slots are
    /// freed once their effect is gone and that is synced.
    pub(crate) fn order(&mut self, for_good: bool) {
        self.orders += 1;
        let order = self.orders << 1 | if for_good { FOR_GOOD } else { 0 };
        self.shared.order.store(order, SeqCst);
        for thread in &self.threads {
            thread.unpark();
        }
    }

    /// A daemon is about to be started: what is withdrawn from now on is not withdrawn for good. A
    /// lane that is still at an older order stops at its next slot.
    pub(crate) fn take_back_for_good(&mut self) {
        if self.shared.order.load(SeqCst) & FOR_GOOD != 0 {
            self.order(false);
        }
    }

    /// Whether every lane has carried out the newest order.
    pub(crate) fn are_finished(&self) -> bool {
        let order = self.shared.order.load(SeqCst);
        self.shared.done.iter().all(|done| done.load(SeqCst) == order)
    }

    /// Takes note of lanes having finished, so that the file descriptor is no longer readable.
    pub(crate) fn consume(&self) {
        let mut count = [0; 8];
        // Without anything to consume it fails, as it should.
        let _ = rustix::io::read(&self.shared.finished, &mut count);
    }
}

impl AsFd for Lanes {
    /// Readable when a lane has carried out an order.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.finished.as_fd()
    }
}

impl Drop for Lanes {
    /// Sends the threads home, without waiting for one that hangs.
    fn drop(&mut self) {
        self.shared.order.store(u64::MAX, SeqCst);
        for thread in &self.threads {
            thread.unpark();
        }
    }
}

impl Shared {
    fn work(&self, lane: usize) {
        let mut buffers = Buffers::new();
        loop {
            let order = self.order.load(SeqCst);
            if order == u64::MAX {
                return;
            }
            if order == self.done[lane].load(SeqCst) {
                thread::park();
                continue;
            }
            self.carry_out(lane, order, &mut buffers);
            self.done[lane].store(order, SeqCst);
            // It fails only when the count would overflow, and then it is readable anyway.
            let _ = rustix::io::write(&self.finished, &1_u64.to_ne_bytes());
        }
    }

    fn carry_out(&self, lane: usize, order: u64, buffers: &mut Buffers) {
        let for_good = order & FOR_GOOD != 0;
        for (index, slot) in self.page.slots().iter().enumerate() {
            if self.lane_of(slot.directory.load(SeqCst)) != lane {
                continue;
            }
            // No order is given while a session is active. A lane that hung in an old order comes
            // upon what a later session has placed since, and leaves it alone. Nor does it free a
            // slot that a later daemon, which lives, may be about to place something for.
            let outlived = || {
                self.page.has_active(SessionId(slot.session_id.load(SeqCst)))
                    || for_good && self.order.load(SeqCst) & FOR_GOOD == 0
            };
            if outlived() {
                continue;
            }
            if let Some(pinned) = slot.pin() {
                // Asked again: from here on a later daemon finds the slot taken and waits for it.
                if outlived() {
                    pinned.put_back();
                    continue;
                }
                let outcome = withdraw(pinned.slot, self.page.paths(index), buffers, for_good);
                pinned.unpin(outcome, for_good);
            }
        }
    }

    fn lane_of(&self, directory: u64) -> usize {
        match self.listed.binary_search(&directory) {
            Ok(lane) => lane,
            Err(_) => {
                // Less than SPARE_LANES, hence no loss.
                let spare = (directory % SPARE_LANES as u64) as usize;
                self.listed.len() + spare
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Barrier;
    use std::time::Duration;

    use conclave_core::Token;
    use rustix::io::Errno;

    use super::*;
    use crate::clock::Reading;
    use crate::page::tests::page;
    use crate::session::SessionWriter;
    use crate::slot::{Kind, SlotId};

    fn begin(page: Page, session: u64) -> SessionWriter {
        let mut writer = SessionWriter::new(page, None);
        let deadline = Reading::now().after(Duration::from_secs(3_600));
        writer.begin(SessionId(session), deadline, Duration::ZERO).unwrap();
        writer
    }

    /// Gives an order as the guard does, once the session has expired, and waits.
    fn withdraw_all(page: Page, lanes: &mut Lanes, for_good: bool) {
        page.expire(Reading::now(), true);
        lanes.order(for_good);
        settle(lanes);
    }

    /// Waits for the lanes; a lost wake-up would hang here.
    fn settle(lanes: &Lanes) {
        while !lanes.are_finished() {
            thread::yield_now();
        }
    }

    fn claim(page: &Page, dest: &Path) -> (SlotId, PathBuf) {
        let staged = dest.with_extension("staged");
        (page.claim(Kind::Manifest, Token(1), dest, &staged).unwrap(), staged)
    }

    #[test]
    fn manifests_go_with_what_is_staged_in_listed_directories_and_others() {
        let (_page, page) = page(8);
        let _session = begin(page, 1);
        let directories: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let listed: Vec<_> = directories[..2].iter().map(|d| d.path().join("")).collect();
        let mut lanes = Lanes::start(page, &listed).unwrap();
        let mut paths = Vec::new();
        for directory in &directories {
            let dest = directory.path().join("manifest.yaml");
            let (_, staged) = claim(&page, &dest);
            fs::write(&dest, "in place").unwrap();
            fs::write(&staged, "staged").unwrap();
            paths.extend([dest, staged]);
        }
        withdraw_all(page, &mut lanes, false);
        assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
        assert_eq!(page.claimed(), 4, "while the daemon lives it has the last word");
        withdraw_all(page, &mut lanes, true);
        assert_eq!(page.claimed(), 0);
    }

    #[test]
    fn released_paths_are_never_touched() {
        let (_page, page) = page(4);
        let _session = begin(page, 1);
        let directory = tempfile::tempdir().unwrap();
        let mut lanes = Lanes::start(page, &[]).unwrap();
        let dest = directory.path().join("manifest.yaml");
        let (slot, _) = claim(&page, &dest);
        page.release(slot).unwrap();
        fs::write(&dest, "somebody else's").unwrap();
        withdraw_all(page, &mut lanes, true);
        assert!(dest.exists());
    }

    #[test]
    fn what_a_later_session_has_placed_is_left_alone() {
        let (_page, page) = page(4);
        let mut session = begin(page, 1);
        let directory = tempfile::tempdir().unwrap();
        let mut lanes = Lanes::start(page, &[]).unwrap();
        let dest = directory.path().join("manifest.yaml");
        let (slot, _) = claim(&page, &dest);
        page.expire(Reading::now(), true).unwrap();
        page.release(slot).unwrap();
        session.end().unwrap();
        let _next = begin(page, 2);
        let (slot, _) = claim(&page, &dest);
        fs::write(&dest, "the next term's").unwrap();
        for for_good in [false, true] {
            // The order was given for the first session, by a guard that could not know.
            lanes.order(for_good);
            settle(&lanes);
            assert!(dest.exists() && page.may_place(slot), "for good: {for_good}");
        }
        withdraw_all(page, &mut lanes, false);
        assert!(!dest.exists());
    }

    #[test]
    fn a_lane_that_is_late_frees_no_slot_of_a_later_daemon() {
        let (_page, page) = page(4);
        let _session = begin(page, 1);
        let directory = tempfile::tempdir().unwrap();
        let mut lanes = Lanes::start(page, &[]).unwrap();
        withdraw_all(page, &mut lanes, true);
        let late = lanes.shared.order.load(SeqCst);

        lanes.take_back_for_good();
        settle(&lanes);
        let _session = begin(page, 2);
        let dest = directory.path().join("manifest.yaml");
        let (slot, _) = claim(&page, &dest);
        page.expire(Reading::now(), true).unwrap();
        fs::write(&dest, "in place").unwrap();
        // The lane had been asleep since before the later daemon was started.
        for lane in 0..SPARE_LANES {
            lanes.shared.carry_out(lane, late, &mut Buffers::new());
        }
        assert_eq!(page.claims().iter().map(|claim| claim.id).collect::<Vec<_>>(), [slot]);
        withdraw_all(page, &mut lanes, false);
        assert!(!dest.exists() && page.claimed() == 1);
    }

    #[test]
    fn a_role_file_is_reset_and_a_late_rename_undone() {
        let (_page, page) = page(4);
        let _session = begin(page, 1);
        let directory = tempfile::tempdir().unwrap();
        let mut lanes = Lanes::start(page, &[]).unwrap();
        let [dest, standby, late] = ["role", ".standby", ".late"].map(|n| directory.path().join(n));
        fs::write(&dest, "leader").unwrap();
        fs::write(&standby, "standby").unwrap();
        page.claim(Kind::RoleFile, Token(1), &dest, &standby).unwrap();

        withdraw_all(page, &mut lanes, false);
        assert_eq!(fs::read_to_string(&dest).unwrap(), "standby");
        withdraw_all(page, &mut lanes, false);
        assert_eq!(fs::read_to_string(&dest).unwrap(), "standby", "a second time it stays");

        fs::write(&late, "leader").unwrap();
        fs::rename(&late, &dest).unwrap();
        withdraw_all(page, &mut lanes, true);
        assert!(!dest.exists(), "missing means standby");
        assert_eq!(page.claimed(), 0);
    }

    #[test]
    fn what_cannot_be_withdrawn_stays_claimed_with_its_reason() {
        let (_page, page) = page(4);
        let _session = begin(page, 1);
        let mut lanes = Lanes::start(page, &[]).unwrap();
        // Nobody may unlink anything there.
        page.claim(Kind::Manifest, Token(1), Path::new("/proc/version"), Path::new("/nowhere/s"))
            .unwrap();
        let gone = Path::new("/nowhere/at/all");
        page.claim(Kind::Manifest, Token(1), gone, Path::new("/nowhere/s")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        page.claim(Kind::Manifest, Token(1), directory.path(), Path::new("/nowhere/s")).unwrap();
        withdraw_all(page, &mut lanes, true);
        let failures = page.failures();
        let [(path, reason)] = failures.as_slice() else { panic!("{failures:?}") };
        assert_eq!(path, Path::new("/proc/version"));
        let errno = Errno::from_io_error(reason);
        assert!(matches!(errno, Some(Errno::PERM | Errno::ACCESS)), "{reason}");
        assert!(directory.path().is_dir(), "a directory is no manifest of ours");
    }

    /// The race that all of this is about: a daemon that claims, stages and places for all it is
    /// worth, and a guard that expires its session meanwhile.
    #[test]
    fn after_expiry_nothing_is_placed_and_all_that_was_is_gone() {
        let (_page, page) = page(64);
        let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let listed: Vec<_> = directories.iter().map(|d| d.path().to_owned()).collect();
        let mut lanes = Lanes::start(page, &listed).unwrap();
        let mut placed_in_all = 0;
        for round in 0..300 {
            let mut session = begin(page, round);
            let barrier = Barrier::new(directories.len() + 1);
            let placed: Vec<Vec<PathBuf>> = thread::scope(|scope| {
                let place = |directory: &Path| {
                    let mut placed = Vec::new();
                    barrier.wait();
                    for i in 0.. {
                        let dest = directory.join(format!("{i}.yaml"));
                        let staged = dest.with_extension("staged");
                        let Ok(slot) = page.claim(Kind::Manifest, Token(i), &dest, &staged) else {
                            break;
                        };
                        // Room for the guard to come in between.
                        thread::sleep(Duration::from_micros(i * 10));
                        fs::write(&staged, "manifest").unwrap();
                        // Between the answer and the rename the guard may come: then there is
                        // nothing left to rename, or what was renamed is unlinked.
                        if page.may_place(slot) && fs::rename(&staged, &dest).is_ok() {
                            placed.push(dest);
                        }
                        if i == 15 {
                            break;
                        }
                    }
                    placed
                };
                let daemons: Vec<_> =
                    listed.iter().map(|directory| scope.spawn(move || place(directory))).collect();
                barrier.wait();
                thread::sleep(Duration::from_micros(round * 7));
                page.expire(Reading::now(), true).unwrap();
                lanes.order(false);
                daemons.into_iter().map(|daemon| daemon.join().unwrap()).collect()
            });
            settle(&lanes);
            // What was staged before the guard came is not there to rename any more, and what was
            // staged later may not be placed.
            let dests = placed.iter().flatten().filter(|dest| dest.exists());
            assert_eq!(dests.count(), 0, "round {round}");
            // The daemon is dead: what it still staged goes with the second pass.
            page.free_unfinished();
            withdraw_all(page, &mut lanes, true);
            placed_in_all += placed.iter().flatten().count();
            for directory in &listed {
                let left: Vec<_> = fs::read_dir(directory).unwrap().collect();
                assert!(left.is_empty(), "round {round}: {left:?}");
            }
            assert_eq!(page.claimed(), 0, "round {round}");
            session.end().unwrap();
        }
        assert!(placed_in_all > 0, "the race never let the daemon place anything");
    }
}

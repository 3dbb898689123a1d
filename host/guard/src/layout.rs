//! The shared page's memory, word for word, and its mapping. The only unsafe code of the project
//! is in [`map`].
//!
//! Everything is an atomic word: two processes write here, and a daemon that was killed half-way
//! through must leave nothing that the guard cannot read. Any bit pattern is a valid page; what
//! it means is checked by whoever reads it.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Marks the file as a page: "conclave" in ASCII.
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"conclave");

/// Grows with every change of this file; a page of another version is not read.
pub(crate) const VERSION: u64 = 2;

/// The longest path that a slot holds, with its terminating NUL: Linux' `PATH_MAX`.
pub(crate) const PATH_LEN: usize = 4096;

const PATH_WORDS: usize = PATH_LEN / 8;

/// The head of the page.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU64,
    /// How many slots follow.
    pub(crate) slots: AtomicU64,
    /// The machine's boot, as the first half of its UUID and the second.
    pub(crate) boot_id: [AtomicU64; 2],

    /// Which guard this page belongs to; zero for none.
    pub(crate) guard_nonce: AtomicU64,
    pub(crate) guard_pid: AtomicU64,
    pub(crate) daemon_pid: AtomicU64,
    /// How often each of the two has beaten, and when it last did, in `CLOCK_BOOTTIME`.
    pub(crate) guard_beats: AtomicU64,
    pub(crate) guard_beat_ns: AtomicU64,
    pub(crate) daemon_beats: AtomicU64,
    pub(crate) daemon_beat_ns: AtomicU64,
    /// How often both beat, and after which silence the other counts as hung.
    /// Not zero once the daemon does what it is there for, and no longer only starts.
    pub(crate) daemon_ready: AtomicU64,
    pub(crate) beat_period_ns: AtomicU64,
    pub(crate) stale_after_ns: AtomicU64,

    /// The session's state and version, see `session.rs`; this one word decides.
    pub(crate) session_state: AtomicU64,
    pub(crate) session_id: AtomicU64,
    pub(crate) margin_ns: AtomicU64,
    pub(crate) deadline_boot_ns: AtomicU64,
    pub(crate) deadline_raw_ns: AtomicU64,

    /// The state directory whose page this is: without it, nobody will ever look for the page.
    pub(crate) state_dir: PathWords,
}

/// Where the state directory's path is in the file.
pub(crate) const STATE_DIR_OFFSET: usize = offset_of!(Header, state_dir);

/// One exclusive effect.
#[repr(C)]
pub(crate) struct Slot {
    /// State and version, see `slot.rs`; this one word decides.
    pub(crate) state: AtomicU64,
    pub(crate) kind: AtomicU64,
    pub(crate) session_id: AtomicU64,
    pub(crate) token: AtomicU64,
    /// Digest of the destination's directory: which of the guard's threads is in charge.
    pub(crate) directory: AtomicU64,
    /// The inode of the standby role file that the guard has renamed into place; zero before.
    pub(crate) reset_inode: AtomicU64,
    /// The system's error number where the guard's newest withdrawal failed; zero where not.
    pub(crate) failure: AtomicU64,
}

/// The paths of one exclusive effect. They lie apart from the slots, which are looked through
/// often, so that only those in use ever take memory in either process.
#[repr(C)]
pub(crate) struct Paths {
    pub(crate) dest: PathWords,
    pub(crate) staged: PathWords,
}

/// A path, NUL-terminated.
#[repr(C)]
pub(crate) struct PathWords([AtomicU64; PATH_WORDS]);

impl PathWords {
    /// Writes a path; the caller has checked that it fits and holds no NUL.
    pub(crate) fn store(&self, path: &[u8]) {
        debug_assert!(path.len() < PATH_LEN && !path.contains(&0));
        // One word beyond the path, so that it ends with a NUL even at a word's border.
        for (i, word) in self.0.iter().enumerate().take(path.len() / 8 + 1) {
            let mut bytes = [0; 8];
            let rest = &path[i * 8..path.len().min(i * 8 + 8)];
            bytes[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_ne_bytes(bytes), SeqCst);
        }
    }

    /// Copies the path out, up to and with the first word that holds a NUL. Allocates nothing.
    pub(crate) fn load(&self, into: &mut [u8; PATH_LEN]) {
        for (word, bytes) in self.0.iter().zip(into.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(SeqCst).to_ne_bytes());
            if bytes.contains(&0) {
                return;
            }
        }
    }
}

/// The mapped page.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) header: &'static Header,
    pub(crate) slots: &'static [Slot],
    /// One for each slot.
    pub(crate) paths: &'static [Paths],
    pub(crate) file: &'static OwnedFd,
}

impl Layout {
    /// Makes sure that the memory file system has room for a slot's paths: to find it full when
    /// writing would kill the process.
    pub(crate) fn reserve_paths(&self, index: usize) -> rustix::io::Result<()> {
        let len = size_of::<Paths>();
        reserve(self.file, paths_offset(self.slots.len()) + index * len, len)
    }
}

/// Makes sure that there is room for the header and the slots.
pub(crate) fn reserve_head(file: &OwnedFd, slots: usize) -> rustix::io::Result<()> {
    reserve(file, 0, paths_offset(slots))
}

fn reserve(file: &OwnedFd, offset: usize, len: usize) -> rustix::io::Result<()> {
    // No file is longer than a signed 64-bit number says.
    let [offset, len] = [offset, len].map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), offset, len))
}

/// Where the slots begin: the header has pages of memory to itself.
const SLOTS_OFFSET: usize = size_of::<Header>().next_multiple_of(4096);

/// How long a page file with this many slots is.
pub(crate) fn file_len(slots: usize) -> usize {
    paths_offset(slots) + slots * size_of::<Paths>()
}

/// The paths begin at a page of memory.
fn paths_offset(slots: usize) -> usize {
    (SLOTS_OFFSET + slots * size_of::<Slot>()).next_multiple_of(4096)
}

/// Maps a page file for the rest of the process's life.
///
/// The file must be [`file_len`]`(slots)` long and must never be truncated: access beyond its end
/// would kill the process.
///
/// # Errors
/// The kernel's, when the mapping does not fit.
#[expect(unsafe_code, reason = "a shared mapping is memory that Rust does not know")]
pub(crate) fn map(file: OwnedFd, slots: usize) -> rustix::io::Result<Layout> {
    let len = file_len(slots);
    // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing of ours.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )?
    };
    // SAFETY: the mapping is `len` bytes, page-aligned, readable and writable, and is never
    // unmapped, so it lives as long as 'static. `Header`, `Slot` and `Paths` are `repr(C)` and
    // consist of `AtomicU64` only: every bit pattern is valid, their alignment of 8 divides all
    // offsets, and that other processes write to them at any time is what atomics allow. The
    // three parts do not overlap and end within `len`, by the definition of `file_len`.
    unsafe {
        let part = |offset| base.cast::<u8>().add(offset);
        Ok(Layout {
            header: &*base.cast::<Header>(),
            slots: std::slice::from_raw_parts(part(SLOTS_OFFSET).cast::<Slot>(), slots),
            paths: std::slice::from_raw_parts(part(paths_offset(slots)).cast::<Paths>(), slots),
            file: Box::leak(Box::new(file)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn paths_of_every_length_come_back() {
        let words = PathWords([const { AtomicU64::new(u64::MAX) }; PATH_WORDS]);
        let mut buffer = [0xff; PATH_LEN];
        for len in (0..70).chain([4087, 4088, 4089, 4094, 4095]) {
            let path: Vec<u8> = (0..len).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
            words.store(&path);
            words.load(&mut buffer);
            assert_eq!(CStr::from_bytes_until_nul(&buffer).unwrap().to_bytes(), path, "{len}");
        }
    }
}

//! Memory for the short life of a call: taken from the front, never given back.
//!
//! The host makes a fresh instance for every call and throws it away afterwards, so freeing would
//! only cost. Taking memory is what the host makes a guest do most: once for each string and list
//! of an argument, through `cabi_realloc`. Here that moves a pointer.

#![expect(
    unsafe_code,
    reason = "memory is handed out as raw pointers. It is sound because every piece lies behind \
              the one before it and within the instance's memory, which has one thread."
)]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size, unreachable};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

const PAGE: usize = 64 << 10;

unsafe extern "C" {
    /// Where the linker says that free memory begins.
    static __heap_base: u8;
}

/// Where free memory begins.
static NEXT: AtomicPtr<u8> = AtomicPtr::new((&raw const __heap_base).cast_mut());
/// Where it ends, as far as is known: the first call of `grow` finds out.
static END: AtomicUsize = AtomicUsize::new(0);

/// The allocator.
pub(crate) struct Bump;

impl Bump {
    /// Null if there is no memory left. `align` is a power of two.
    #[inline(always)]
    fn take(size: usize, align: usize) -> *mut u8 {
        let next = NEXT.load(Relaxed);
        let gap = next.addr().wrapping_neg() & (align - 1);
        let end = next.addr().checked_add(gap).and_then(|start| start.checked_add(size));
        match end {
            Some(end) if end <= END.load(Relaxed) || grow(end) => {
                NEXT.store(next.with_addr(end), Relaxed);
                next.wrapping_add(gap)
            }
            _ => ptr::null_mut(),
        }
    }
}

/// Makes the memory reach up to `end` at least.
#[cold]
#[inline(never)]
fn grow(end: usize) -> bool {
    let pages = memory_size(0);
    let missing = end.div_ceil(PAGE).saturating_sub(pages);
    if missing > 0 && memory_grow(0, missing) == usize::MAX {
        return false;
    }
    END.store((pages + missing).saturating_mul(PAGE), Relaxed);
    true
}

// SAFETY: see the top.
unsafe impl GlobalAlloc for Bump {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Bump::take(layout.size(), layout.align())
    }

    /// Memory that was never used is zero.
    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Bump::take(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// How the host gets memory for each string and list that it passes.
///
/// # Safety
///
/// There are `old` bytes at `from`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(
    from: *const u8,
    old: usize,
    align: usize,
    new: usize,
) -> *mut u8 {
    let piece = Bump::take(new, align);
    if piece.is_null() {
        unreachable();
    }
    if old > 0 {
        // SAFETY: the old piece is as long as the host says, and the new one is another.
        unsafe { ptr::copy_nonoverlapping(from, piece, old.min(new)) };
    }
    piece
}

//! The system's allocator, with the reserve behind it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::Ordering;

use crate::reserve::Reserve;
use crate::{REFUSED, SHORT};

static RESERVE: Reserve = Reserve::new();

/// The system's allocator; what that refuses comes from the reserve, up to a quarter of it at a time.
///
/// A program that wants it says `#[global_allocator] static ALLOCATOR: memory::Allocator = memory::Allocator;`.
pub struct Allocator;

// SAFETY: every piece comes from the system's allocator or from the reserve, whose pieces do not overlap, and goes
// back to where it came from.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        let piece = unsafe { System.alloc(layout) };
        if piece.is_null() { reserved(layout) } else { piece }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        let piece = unsafe { System.alloc_zeroed(layout) };
        if !piece.is_null() {
            return piece;
        }
        let piece = reserved(layout);
        if !piece.is_null() {
            // SAFETY: a piece of that size, just taken; an earlier owner may have left something in it.
            unsafe { piece.write_bytes(0, layout.size()) }
        }
        piece
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if RESERVE.holds(piece) {
            given_back(piece, layout);
        } else {
            // SAFETY: not from the reserve, so from the system.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if !RESERVE.holds(piece) {
            // SAFETY: not from the reserve, so from the system.
            let moved = unsafe { System.realloc(piece, layout, bytes) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller's contract.
        unsafe { self.moved(piece, layout, bytes) }
    }
}

impl Allocator {
    /// A piece's contents in another one.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    unsafe fn moved(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: by the caller's contract the size is valid with this alignment; both pieces hold the copied bytes.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(bytes, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(piece, moved, layout.size().min(bytes));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cold]
#[inline(never)]
fn given_back(piece: *mut u8, layout: Layout) {
    if RESERVE.give(piece, layout.size()) {
        // Whatever needed it has ended.
        SHORT.store(false, Ordering::Relaxed);
    }
}

/// What the system has refused.
#[cold]
#[inline(never)]
fn reserved(layout: Layout) -> *mut u8 {
    let piece = RESERVE.take(layout.size(), layout.align());
    if piece.is_null() {
        REFUSED.store(layout.size(), Ordering::Relaxed);
    } else {
        SHORT.store(true, Ordering::Relaxed);
    }
    piece
}

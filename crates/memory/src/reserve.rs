//! The reserve: a fixed piece of memory, given out in grains.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the reserve. They lie in the program's zeroed data: address space until the first shortage, memory after.
pub(crate) const BYTES: usize = 4 << 20;
/// The largest piece that is given out, so that one cannot take what many small ones need.
pub(crate) const LARGEST: usize = BYTES / 4;
/// Pieces are multiples of a grain, and begin at one.
const GRAIN: usize = 256;
const GRAINS: usize = BYTES / GRAIN;
const WORDS: usize = GRAINS / u64::BITS as usize;

#[repr(C, align(4096))]
struct Store(UnsafeCell<[u8; BYTES]>);

/// A reserve. Made for a `static`; the methods may be called by several threads.
pub(crate) struct Reserve {
    store: Store,
    locked: AtomicBool,
    /// One bit for each grain that is given out. Touched only by who has the lock.
    taken: UnsafeCell<[u64; WORDS]>,
}

// SAFETY: `taken` is read and written under `locked` only; `store` is only handed out, in pieces that do not overlap.
unsafe impl Sync for Reserve {}

impl Reserve {
    pub(crate) const fn new() -> Self {
        Reserve {
            store: Store(UnsafeCell::new([0; BYTES])),
            locked: AtomicBool::new(false),
            taken: UnsafeCell::new([0; WORDS]),
        }
    }

    fn base(&self) -> *mut u8 {
        self.store.0.get().cast()
    }

    /// Whether a piece is one of the reserve's.
    #[inline]
    pub(crate) fn holds(&self, piece: *const u8) -> bool {
        piece.addr().wrapping_sub(self.base().addr()) < BYTES
    }

    /// A piece, not zeroed; null where there is none of that size and alignment.
    pub(crate) fn take(&self, bytes: usize, align: usize) -> *mut u8 {
        if bytes > LARGEST || align > GRAIN {
            return std::ptr::null_mut();
        }
        let wanted = grains(bytes);
        self.locked(|taken| {
            let mut run = 0;
            for grain in 0..GRAINS {
                run = if is_set(taken, grain) { 0 } else { run + 1 };
                if run == wanted {
                    let first = grain + 1 - wanted;
                    (first..=grain).for_each(|grain| taken[grain / 64] |= 1 << (grain % 64));
                    return self.base().wrapping_add(first * GRAIN);
                }
            }
            std::ptr::null_mut()
        })
    }

    /// Takes a piece back that was given out with this size. Says whether nothing is given out any more.
    pub(crate) fn give(&self, piece: *mut u8, bytes: usize) -> bool {
        let first = (piece.addr() - self.base().addr()) / GRAIN;
        self.locked(|taken| {
            (first..first + grains(bytes)).for_each(|grain| taken[grain / 64] &= !(1 << (grain % 64)));
            taken.iter().all(|&word| word == 0)
        })
    }

    /// Bytes that are given out.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.locked(|taken| taken.iter().map(|word| word.count_ones() as usize).sum::<usize>() * GRAIN)
    }

    fn locked<T>(&self, work: impl FnOnce(&mut [u64; WORDS]) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: this thread has the lock, and `work`, of this file, does not ask for it again.
        let result = work(unsafe { &mut *self.taken.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

fn grains(bytes: usize) -> usize {
    bytes.div_ceil(GRAIN).max(1)
}

fn is_set(taken: &[u64; WORDS], grain: usize) -> bool {
    taken[grain / 64] >> (grain % 64) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap_and_all_of_it_comes_back() {
        static RESERVE: Reserve = Reserve::new();
        let sizes = [1, 255, 256, 257, 4000, LARGEST];
        let mut pieces = Vec::new();
        for (number, &bytes) in sizes.iter().cycle().take(24).enumerate() {
            let piece = RESERVE.take(bytes, 16);
            if !piece.is_null() {
                // SAFETY: a piece of `bytes` bytes that nobody else has.
                unsafe { piece.write_bytes(number as u8, bytes) };
                pieces.push((piece, bytes, number as u8));
            }
        }
        assert!(pieces.len() > 12);
        for &(piece, bytes, number) in &pieces {
            assert!(RESERVE.holds(piece));
            // SAFETY: written above.
            let written = unsafe { std::slice::from_raw_parts(piece, bytes) };
            assert!(written.iter().all(|&byte| byte == number));
            RESERVE.give(piece, bytes);
        }
        assert_eq!(RESERVE.in_use(), 0);
    }

    #[test]
    fn what_is_too_large_or_no_longer_there_is_refused() {
        static RESERVE: Reserve = Reserve::new();
        assert!(RESERVE.take(LARGEST + 1, 1).is_null());
        assert!(RESERVE.take(64, 4096).is_null());
        let pieces: Vec<_> = (0..4).map(|_| RESERVE.take(LARGEST, 1)).collect();
        assert!(pieces.iter().all(|piece| !piece.is_null()));
        assert!(RESERVE.take(1, 1).is_null());
        RESERVE.give(pieces[2], LARGEST);
        assert_eq!(RESERVE.take(LARGEST, 1), pieces[2]);
    }

    #[test]
    fn threads_share_it() {
        static RESERVE: Reserve = Reserve::new();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let bytes = 1 + round % 3000;
                        let piece = RESERVE.take(bytes, 8);
                        assert!(!piece.is_null());
                        // SAFETY: a piece of `bytes` bytes that no other thread has.
                        unsafe {
                            piece.write_bytes(thread, bytes);
                            assert!((0..bytes).all(|at| *piece.add(at) == thread));
                        }
                        RESERVE.give(piece, bytes);
                    }
                });
            }
        });
        assert_eq!(RESERVE.in_use(), 0);
    }

    #[test]
    fn foreign_memory_is_not_taken_for_its_own() {
        static RESERVE: Reserve = Reserve::new();
        let local = 0_u8;
        assert!(!RESERVE.holds(&raw const local));
        assert!(RESERVE.holds(RESERVE.base()));
        assert!(!RESERVE.holds(RESERVE.base().wrapping_add(BYTES)));
        assert!(!RESERVE.holds(RESERVE.base().wrapping_sub(1)));
    }
}

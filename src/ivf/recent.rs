//! Which buffer a block was last found in: most reads of a search then need no look-up in PostgreSQL's buffer table.
//!
//! One small table a backend, for all indexes, direct-mapped. Entries are hints: PostgreSQL compares the buffer's tag
//! when it pins, and a wrong hint costs no more than the look-up that it would have saved.
use std::cell::RefCell;

use pgrx::pg_sys;

/// The most entries; 12 bytes each.
const MOST: usize = 1 << 16;
/// Bytes of a cache line.
const LINE: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    relation: u32,
    block: u32,
    buffer: pg_sys::Buffer,
}

const EMPTY: Entry = Entry {
    relation: 0,
    block: u32::MAX,
    buffer: 0,
};

thread_local! {
    static TABLE: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

fn slot(relation: u32, block: u32, length: usize) -> usize {
    // Blocks of one index lie side by side, so that an index that fits the table has no collisions.
    (block.wrapping_add(relation.wrapping_mul(0x9e37_79b1)) as usize) & (length - 1)
}

/// Makes room for an index of so many blocks.
pub(super) fn reserve(blocks: u32) {
    TABLE.with_borrow_mut(|table| {
        let wanted = (blocks as usize).next_power_of_two().clamp(1 << 10, MOST);
        if table.len() < wanted {
            *table = vec![EMPTY; wanted];
        }
    });
}

/// Where a block of the relation with this file number was last.
pub(super) fn find(relation: u32, block: u32) -> Option<pg_sys::Buffer> {
    TABLE.with_borrow(|table| {
        if table.is_empty() {
            return None;
        }
        let entry = table[slot(relation, block, table.len())];
        (entry.block == block && entry.relation == relation && entry.buffer != 0).then_some(entry.buffer)
    })
}

/// Remembers where a block is now.
pub(super) fn remember(relation: u32, block: u32, buffer: pg_sys::Buffer) {
    TABLE.with_borrow_mut(|table| {
        if !table.is_empty() {
            let at = slot(relation, block, table.len());
            table[at] = Entry {
                relation,
                block,
                buffer,
            };
        }
    });
}

/// Brings the lines of a page's bytes, and of its buffer's header, towards the processor's cache. Only a hint: the page
/// is neither pinned nor read.
#[inline]
pub(super) fn touch(buffer: pg_sys::Buffer, at: usize, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching an address has no effect on the program, whatever the address; the arrays are
        // PostgreSQL's, and a buffer number that was once valid stays within them.
        unsafe {
            if buffer <= 0 || buffer > pg_sys::NBuffers {
                return;
            }
            let number = buffer as usize - 1;
            _mm_prefetch::<_MM_HINT_T0>(pg_sys::BufferDescriptors.cast::<i8>().wrapping_add(number * LINE));
            let page = pg_sys::BufferBlocks
                .cast::<i8>()
                .wrapping_add(number * pg_sys::BLCKSZ as usize);
            for line in (at / LINE)..(at + bytes).div_ceil(LINE) {
                _mm_prefetch::<_MM_HINT_T0>(page.wrapping_add(line * LINE));
            }
            _mm_prefetch::<_MM_HINT_T0>(page.wrapping_add(pg_sys::BLCKSZ as usize - LINE));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (buffer, at, bytes);
}

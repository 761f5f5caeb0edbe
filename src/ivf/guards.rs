//! Pages while they are locked. Dropping a guard unlocks; changes take effect in `commit` only.
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use ivf_core::{PAGE_SIZE, Page, PageWrite};
use pgrx::prelude::*;

use super::raw_calls;

/// pd_lsn and pd_checksum, which belong to PostgreSQL.
const NOT_OURS: usize = 10;
/// What the trailer of a freed page says (`crates/ivf/src/page.rs`).
const MAGIC: [u8; 2] = 0x1cf5u16.to_ne_bytes();
const FREE: u8 = 6;

/// A page locked for reading.
pub(super) struct ReadPage<'s> {
    buffer: pg_sys::Buffer,
    page: NonNull<Page>,
    pages: PhantomData<&'s ()>,
}

impl ReadPage<'_> {
    /// # Safety
    /// The buffer must be pinned and locked, and the result takes over both.
    pub unsafe fn new(buffer: pg_sys::Buffer) -> Self {
        ReadPage {
            buffer,
            // SAFETY: a pinned buffer has a page, which PostgreSQL aligns to at least 8 bytes.
            page: unsafe { NonNull::new_unchecked(pg_sys::BufferGetPage(buffer).cast()) },
            pages: PhantomData,
        }
    }
}

impl Deref for ReadPage<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: pinned and locked as long as the guard lives: nobody moves or changes it.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for ReadPage<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: we hold pin and lock; releasing what one holds raises nothing.
            unsafe { raw_calls::UnlockReleaseBuffer(self.buffer) }
        }
    }
}

/// A page locked for writing.
pub(super) struct WritePage<'s> {
    buffer: pg_sys::Buffer,
    block: u32,
    page: NonNull<Page>,
    copy: Option<Box<Page>>,
    /// Its earlier content is worth nothing.
    fresh: bool,
    pages: PhantomData<&'s ()>,
}

impl WritePage<'_> {
    /// # Safety
    /// The buffer must be pinned and locked exclusively, and the result takes over both.
    pub unsafe fn new(buffer: pg_sys::Buffer, block: u32) -> Self {
        // SAFETY: a pinned buffer has a page, which PostgreSQL aligns to at least 8 bytes.
        let page = unsafe { NonNull::new_unchecked(pg_sys::BufferGetPage(buffer).cast()) };
        WritePage {
            buffer,
            block,
            page,
            copy: None,
            fresh: false,
            pages: PhantomData,
        }
    }

    pub fn buffer(&self) -> pg_sys::Buffer {
        self.buffer
    }

    /// The copy, where there are changes to commit.
    pub fn changed(&self) -> Option<&Page> {
        self.copy.as_deref()
    }

    /// Whether the page's earlier content is worth nothing.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether nobody uses the page.
    pub fn is_unused(&self) -> bool {
        // A page that a crash left between the file's extension and its first record is all zeros.
        let trailer = &self.0[PAGE_SIZE - 16..];
        (trailer[..2] == MAGIC && trailer[3] == FREE) || self.0.iter().all(|&byte| byte == 0)
    }

    /// Makes it an empty page.
    pub fn make_fresh(&mut self) {
        self.copy = Some(Box::new(Page([0; PAGE_SIZE])));
        self.fresh = true;
    }
}

impl Deref for WritePage<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        match &self.copy {
            Some(copy) => copy,
            // SAFETY: pinned and locked as long as the guard lives: nobody moves or changes it.
            None => unsafe { self.page.as_ref() },
        }
    }
}

impl PageWrite for WritePage<'_> {
    fn block(&self) -> u32 {
        self.block
    }

    fn page_mut(&mut self) -> &mut Page {
        let page = self.page;
        // SAFETY: pinned and locked as long as the guard lives: nobody moves or changes it.
        self.copy.get_or_insert_with(|| Box::new(unsafe { *page.as_ref() }))
    }
}

impl Drop for WritePage<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: we hold pin and lock; releasing what one holds raises nothing.
            unsafe { raw_calls::UnlockReleaseBuffer(self.buffer) }
        }
    }
}

/// A lock of PostgreSQL's lock manager, named by a block.
pub(super) struct BlockLock<'s> {
    index: pg_sys::Relation,
    block: u32,
    mode: pg_sys::LOCKMODE,
    pages: PhantomData<&'s ()>,
}

impl BlockLock<'_> {
    /// # Safety
    /// The lock must be held, and the result takes it over.
    pub unsafe fn new(index: pg_sys::Relation, block: u32, mode: pg_sys::LOCKMODE) -> Self {
        BlockLock {
            index,
            block,
            mode,
            pages: PhantomData,
        }
    }
}

impl Drop for BlockLock<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: we hold it.
            unsafe { pg_sys::UnlockPage(self.index, self.block, self.mode) }
        }
    }
}

/// Copies all of a page but what belongs to PostgreSQL.
///
/// # Safety
/// `target` must be a page that nobody else reads or writes.
pub(super) unsafe fn copy_ours(page: &Page, target: *mut u8) {
    // SAFETY: both are PAGE_SIZE bytes; the caller vouches for the target.
    unsafe {
        std::ptr::copy_nonoverlapping(
            page.0.as_ptr().add(NOT_OURS),
            target.add(NOT_OURS),
            PAGE_SIZE - NOT_OURS,
        );
    }
}

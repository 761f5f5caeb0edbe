//! Where pages live: the seam between the algorithm and PostgreSQL.
use std::ops::Deref;

use crate::{Page, Result};

/// A page that is locked exclusively and may be changed.
///
/// Changes are made to a copy. They take effect, all at once, in [`PageStore::commit`]; a page that is dropped before
/// is unlocked unchanged.
pub trait PageWrite: Deref<Target = Page> {
    /// The page's block number.
    fn block(&self) -> u32;
    /// The copy to change.
    fn page_mut(&mut self) -> &mut Page;
}

/// How a lock excludes others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared ones.
    Share,
    /// Alone.
    Exclusive,
}

/// The pages of one index.
///
/// Locks on pages ([`read`](Self::read), [`write`](Self::write)) are short: nobody sleeps or computes at length under
/// them. A page is locked only while pages are held that come before it in the order of `src/ivf/README.md`.
pub trait PageStore {
    /// A page locked for reading.
    type Read<'s>: Deref<Target = Page>
    where
        Self: 's;
    /// A page locked for writing.
    type Write<'s>: PageWrite
    where
        Self: 's;
    /// A lock above the pages', released on drop. It may be held for long.
    type Lock<'s>
    where
        Self: 's;

    /// The most pages that one [`commit`](Self::commit) takes: PostgreSQL's MAX_GENERIC_XLOG_PAGES.
    const MOST_PAGES: usize = 4;

    /// Number of blocks. Only grows.
    fn blocks(&self) -> Result<u32>;

    /// Locks a page for reading. A block that does not exist is an [`Error::Corrupted`](crate::Error::Corrupted).
    fn read(&self, block: u32) -> Result<Self::Read<'_>>;

    /// Tells that some bytes of a block will be read soon.
    fn prefetch(&self, block: u32, at: usize, bytes: usize);

    /// Locks a page for writing.
    fn write(&self, block: u32) -> Result<Self::Write<'_>>;

    /// A page that nobody uses, locked for writing: a freed or a new one. All zeros, to be initialised by the caller.
    fn allocate(&self) -> Result<Self::Write<'_>>;

    /// Makes the changes to these pages durable in one atomic record, in order, and unlocks them.
    fn commit(&self, pages: Vec<Self::Write<'_>>) -> Result<()>;

    /// Writes a complete new page at the end, while nobody else knows the index (build), and gives its block.
    fn append(&self, page: &Page) -> Result<u32>;

    /// Marks a page as free. Not crash-safe: a free page may be forgotten, never a used one freed.
    fn free(&self, block: u32) -> Result<()>;

    /// Lets [`allocate`](Self::allocate), in every session, find what was freed.
    fn announce_free(&self) -> Result<()>;

    /// Takes the lock named by a block number. Without `wait`, none where somebody else has it.
    fn lock(&self, block: u32, mode: LockMode, wait: bool) -> Result<Option<Self::Lock<'_>>>;

    /// A place where long work may be cancelled. Never called with a page locked.
    fn interrupts(&self) -> Result<()>;
}

/// The lock of a list, by number. Block 0 is the lock of the index's structure.
pub(crate) fn list_lock(list: u32) -> u32 {
    list.wrapping_add(1)
}

//! PostgreSQL's buffers and WAL as the place where the index's pages live.
//!
//! A lock or pin that an error finds is left alone: PostgreSQL's own clean-up of the failed transaction releases it,
//! and has by then reset the counters that releasing it here would need. That is why every drop asks whether the thread
//! is panicking, which is what an error is on its way through Rust.
use std::cell::Cell;

use ivf_core::{LockMode, PAGE_SIZE, Page, PageStore, Result};
use pgrx::prelude::*;

use super::guards::{BlockLock, ReadPage, WritePage, copy_ours};
use super::{raw_calls, recent};
use crate::interrupts;

const _: () = assert!(PAGE_SIZE == pg_sys::BLCKSZ as usize);

/// Prefetches that find their page in memory before we mostly stop asking.
const PATIENCE: u8 = 32;

const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;
const FORK: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;

/// The pages of an open index.
pub(super) struct Pages {
    index: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
    strategy: pg_sys::BufferAccessStrategy,
    /// Whether interrupts are also where a vacuum sleeps for its cost.
    paced: bool,
    /// Blocks that are known to exist.
    known: Cell<u32>,
    /// How much the last prefetches were worth: at 0 most are left out.
    patience: Cell<u8>,
    asked: Cell<u8>,
    pins: Cell<u8>,
    /// From the first block that was freed and not announced yet to behind the last.
    freed: Cell<Option<(u32, u32)>>,
}

impl Pages {
    /// # Safety
    /// `index` must be open, and locked as the calls need it, as long as the result is used.
    pub unsafe fn new(index: pg_sys::Relation) -> Self {
        Pages {
            index,
            fork: FORK,
            strategy: std::ptr::null_mut(),
            paced: false,
            known: Cell::new(0),
            patience: Cell::new(PATIENCE),
            asked: Cell::new(0),
            pins: Cell::new(0),
            freed: Cell::new(None),
        }
    }

    /// The same for a vacuum, which reads through a ring of buffers and sleeps in between.
    ///
    /// # Safety
    /// As for [`new`](Self::new); `strategy` must live as long.
    pub unsafe fn of_vacuum(index: pg_sys::Relation, strategy: pg_sys::BufferAccessStrategy) -> Self {
        // SAFETY: the caller vouches for both.
        let pages = unsafe { Self::new(index) };
        Pages {
            strategy,
            paced: true,
            ..pages
        }
    }

    /// The same for the fork from which an unlogged index starts after a crash.
    ///
    /// # Safety
    /// As for [`new`](Self::new); nobody else may use the fork.
    pub unsafe fn of_init_fork(index: pg_sys::Relation) -> Self {
        // SAFETY: the caller vouches for it.
        let pages = unsafe { Self::new(index) };
        Pages {
            fork: pg_sys::ForkNumber::INIT_FORKNUM,
            ..pages
        }
    }

    fn must_exist(&self, block: u32) -> Result<()> {
        if block < self.known.get() || block < self.blocks()? {
            return Ok(());
        }
        Err(ivf_core::Error::Corrupted {
            block,
            what: "a link leads here, behind the index's end".to_owned(),
        })
    }

    /// Pins and locks an existing block.
    fn pin(&self, block: u32, mode: u32) -> pg_sys::Buffer {
        let (index, fork, strategy) = (self.index, self.fork, self.strategy);
        // PostgreSQL counts a buffer's use only where it looks the block up, and throws out what is not used.
        self.pins.set(self.pins.get().wrapping_add(1));
        let counted = self.pins.get().is_multiple_of(8);
        let recent = if fork == FORK && !counted {
            recent::find(self.file(), block)
        } else {
            None
        };
        // SAFETY: the relation is open, the block exists; a recent buffer is one that PostgreSQL once gave, and it
        // looks whether the block is still there. The closure owns nothing that an error would have to drop.
        let buffer = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let buffer = match recent {
                    Some(buffer) if raw_calls::ReadRecentBuffer(self.locator(), fork, block, buffer) => buffer,
                    _ => {
                        raw_calls::ReadBufferExtended(index, fork, block, pg_sys::ReadBufferMode::RBM_NORMAL, strategy)
                    }
                };
                raw_calls::LockBuffer(buffer, mode as core::ffi::c_int);
                buffer
            })
        };
        if recent != Some(buffer) && fork == FORK && block != pg_sys::InvalidBlockNumber {
            recent::remember(self.file(), block, buffer);
        }
        buffer
    }

    /// Makes room to remember where the index's blocks are.
    pub fn reserve_recent(&self) {
        // SAFETY: the relation is open. PostgreSQL's own estimate of the size, which takes no system call.
        let blocks = unsafe { (*(*self.index).rd_rel).relpages };
        recent::reserve(u32::try_from(blocks).unwrap_or(0));
    }

    /// The index's files.
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    fn locator(&self) -> raw_calls::Locator {
        // SAFETY: the relation is open.
        unsafe { (*self.index).rd_node }
    }

    /// The index's files.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    fn locator(&self) -> raw_calls::Locator {
        // SAFETY: the relation is open.
        unsafe { (*self.index).rd_locator }
    }

    /// The number of the index's main file.
    fn file(&self) -> u32 {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let number = self.locator().relNode;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let number = self.locator().relNumber;
        number.into()
    }

    /// A new block at the end, all zeros, pinned and locked. `alone`: nobody else extends the index.
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    fn extend(&self, alone: bool) -> pg_sys::Buffer {
        // SAFETY: the relation is open; the extension lock is held while others might extend.
        unsafe {
            if !alone {
                pg_sys::LockRelationForExtension(self.index, pg_sys::ExclusiveLock as _);
            }
            let buffer = self.pin(pg_sys::InvalidBlockNumber, pg_sys::BUFFER_LOCK_EXCLUSIVE);
            if !alone {
                pg_sys::UnlockRelationForExtension(self.index, pg_sys::ExclusiveLock as _);
            }
            buffer
        }
    }

    /// A new block at the end, all zeros, pinned and locked. `alone`: nobody else extends the index.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    fn extend(&self, alone: bool) -> pg_sys::Buffer {
        use pg_sys::ExtendBufferedFlags::{EB_LOCK_FIRST, EB_SKIP_EXTENSION_LOCK};
        let relation = pg_sys::BufferManagerRelation {
            rel: self.index,
            smgr: std::ptr::null_mut(),
            relpersistence: 0,
        };
        let flags = if alone {
            EB_LOCK_FIRST | EB_SKIP_EXTENSION_LOCK
        } else {
            EB_LOCK_FIRST
        };
        // SAFETY: the relation is open.
        unsafe { pg_sys::ExtendBufferedRel(relation, self.fork, self.strategy, flags) }
    }

    /// A page that was freed and that nobody has taken since, locked.
    fn recycled(&self) -> Result<Option<WritePage<'_>>> {
        if self.fork != FORK {
            return Ok(None);
        }
        loop {
            // SAFETY: the relation is open. PostgreSQL forgets the block that it returns.
            let block = unsafe { pg_sys::GetFreeIndexPage(self.index) };
            if block == pg_sys::InvalidBlockNumber {
                return Ok(None);
            }
            // The free space map is not crash-safe: it may name blocks that are gone or in use.
            if block >= self.blocks()? {
                continue;
            }
            // SAFETY: the block exists. A lock that somebody holds shows that the page is in use.
            let buffer = unsafe {
                let buffer = pg_sys::ReadBufferExtended(
                    self.index,
                    self.fork,
                    block,
                    pg_sys::ReadBufferMode::RBM_NORMAL,
                    self.strategy,
                );
                if !pg_sys::ConditionalLockBuffer(buffer) {
                    pg_sys::ReleaseBuffer(buffer);
                    continue;
                }
                buffer
            };
            // SAFETY: just pinned and locked.
            let mut page = unsafe { WritePage::new(buffer, block) };
            if page.is_unused() {
                page.make_fresh();
                return Ok(Some(page));
            }
        }
    }

    /// Whether changes of this fork are logged.
    fn logged(&self) -> bool {
        if self.fork == pg_sys::ForkNumber::INIT_FORKNUM {
            return true;
        }
        // SAFETY: the relation is open; the settings belong to this process.
        unsafe {
            let relation = &*self.index;
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            let first = relation.rd_firstRelfilenodeSubid;
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            let first = relation.rd_firstRelfilelocatorSubid;
            (*relation.rd_rel).relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as core::ffi::c_char
                && (pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32
                    || (relation.rd_createSubid == NO_SUBTRANSACTION && first == NO_SUBTRANSACTION))
        }
    }

    /// Puts a whole page into a locked buffer and logs it as it is.
    ///
    /// # Safety
    /// The buffer must be locked exclusively.
    unsafe fn put_whole(&self, buffer: pg_sys::Buffer, page: &Page) {
        let logged = self.logged();
        // SAFETY: within the critical section nothing between the change and its record can fail without a restart, as
        // PostgreSQL demands of every change to a buffer.
        unsafe {
            pg_sys::CritSectionCount += 1;
            copy_ours(page, pg_sys::BufferGetPage(buffer).cast());
            pg_sys::MarkBufferDirty(buffer);
            if logged {
                pg_sys::log_newpage_buffer(buffer, true);
            }
            pg_sys::CritSectionCount -= 1;
        }
    }
}

impl PageStore for Pages {
    type Read<'s> = ReadPage<'s>;
    type Write<'s> = WritePage<'s>;
    type Lock<'s> = BlockLock<'s>;

    const MOST_PAGES: usize = pg_sys::MAX_GENERIC_XLOG_PAGES as usize;

    fn blocks(&self) -> Result<u32> {
        // SAFETY: the relation is open.
        let blocks = unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.index, self.fork) };
        self.known.set(blocks);
        Ok(blocks)
    }

    fn read(&self, block: u32) -> Result<ReadPage<'_>> {
        self.must_exist(block)?;
        let buffer = self.pin(block, pg_sys::BUFFER_LOCK_SHARE);
        // SAFETY: just pinned and locked.
        Ok(unsafe { ReadPage::new(buffer) })
    }

    fn prefetch(&self, block: u32, at: usize, bytes: usize) {
        if let Some(buffer) = recent::find(self.file(), block) {
            return recent::touch(buffer, at, bytes);
        }
        // Asking costs a look-up in the buffer table. Where everything is in memory, one in 16 is enough to notice when
        // that changes.
        self.asked.set(self.asked.get().wrapping_add(1));
        if (self.patience.get() == 0 && !self.asked.get().is_multiple_of(16)) || block >= self.known.get() {
            return;
        }
        // SAFETY: the relation is open, the block exists.
        let found = unsafe { pg_sys::PrefetchBuffer(self.index, self.fork, block) };
        self.patience.set(if found.recent_buffer != 0 {
            recent::remember(self.file(), block, found.recent_buffer);
            recent::touch(found.recent_buffer, at, bytes);
            self.patience.get().saturating_sub(1)
        } else {
            PATIENCE
        });
    }

    fn write(&self, block: u32) -> Result<WritePage<'_>> {
        self.must_exist(block)?;
        let buffer = self.pin(block, pg_sys::BUFFER_LOCK_EXCLUSIVE);
        // SAFETY: just pinned and locked.
        Ok(unsafe { WritePage::new(buffer, block) })
    }

    fn allocate(&self) -> Result<WritePage<'_>> {
        if let Some(page) = self.recycled()? {
            return Ok(page);
        }
        let buffer = self.extend(false);
        // SAFETY: just pinned and locked.
        let mut page = unsafe { WritePage::new(buffer, pg_sys::BufferGetBlockNumber(buffer)) };
        page.make_fresh();
        Ok(page)
    }

    fn commit(&self, pages: Vec<WritePage<'_>>) -> Result<()> {
        if self.fork != FORK {
            // GenericXLog would not log an unlogged index's pages, and nobody else reads this fork: one by one will do.
            for page in &pages {
                if let Some(copy) = page.changed() {
                    // SAFETY: locked exclusively.
                    unsafe { self.put_whole(page.buffer(), copy) }
                }
            }
            return Ok(());
        }
        // SAFETY: the buffers are locked exclusively until the pages are dropped, behind the record.
        unsafe {
            let record = pg_sys::GenericXLogStart(self.index);
            for page in &pages {
                let Some(copy) = page.changed() else { continue };
                let flags = if page.is_fresh() {
                    pg_sys::GENERIC_XLOG_FULL_IMAGE
                } else {
                    0
                };
                let image = pg_sys::GenericXLogRegisterBuffer(record, page.buffer(), flags as core::ffi::c_int);
                copy_ours(copy, image.cast());
            }
            pg_sys::GenericXLogFinish(record);
        }
        Ok(())
    }

    fn append(&self, page: &Page) -> Result<u32> {
        let buffer = self.extend(true);
        // SAFETY: just pinned and locked.
        unsafe {
            self.put_whole(buffer, page);
            let block = pg_sys::BufferGetBlockNumber(buffer);
            raw_calls::UnlockReleaseBuffer(buffer);
            self.known.set(self.known.get().max(block + 1));
            Ok(block)
        }
    }

    fn free(&self, block: u32) -> Result<()> {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RecordFreeIndexPage(self.index, block) }
        let (first, end) = self.freed.get().unwrap_or((block, block + 1));
        self.freed.set(Some((first.min(block), end.max(block + 1))));
        Ok(())
    }

    fn announce_free(&self) -> Result<()> {
        if let Some((first, end)) = self.freed.take() {
            // SAFETY: the relation is open.
            unsafe { pg_sys::FreeSpaceMapVacuumRange(self.index, first, end) }
        }
        Ok(())
    }

    fn lock(&self, block: u32, mode: LockMode, wait: bool) -> Result<Option<BlockLock<'_>>> {
        let mode = match mode {
            LockMode::Share => pg_sys::ShareLock,
            LockMode::Exclusive => pg_sys::ExclusiveLock,
        } as pg_sys::LOCKMODE;
        // SAFETY: the relation is open. PostgreSQL releases the lock at the latest at the transaction's end.
        let held = unsafe {
            if wait {
                pg_sys::LockPage(self.index, block, mode);
                true
            } else {
                pg_sys::ConditionalLockPage(self.index, block, mode)
            }
        };
        // SAFETY: just taken.
        Ok(held.then(|| unsafe { BlockLock::new(self.index, block, mode) }))
    }

    fn interrupts(&self) -> Result<()> {
        if self.paced {
            // SAFETY: no page is locked here, says the trait.
            unsafe {
                #[cfg(not(feature = "pg18"))]
                pg_sys::vacuum_delay_point();
                #[cfg(feature = "pg18")]
                pg_sys::vacuum_delay_point(false);
            }
        } else {
            interrupts::process();
        }
        Ok(())
    }
}

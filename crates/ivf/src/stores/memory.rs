//! Pages in memory, for tests, fuzzing and measuring; its locks find what would deadlock.
use std::cell::{Cell, RefCell};
use std::ops::Deref;

use crate::page::Kind;
use crate::store::{LockMode, PageStore, PageWrite};
use crate::{Error, PAGE_SIZE, Page, Result};

/// Pages in memory. Not for several threads.
///
/// Locking a page that is locked already, which in a server would be a deadlock with itself, is an error here, and so
/// is an interrupt with a page locked.
#[derive(Default)]
pub struct Memory {
    pages: RefCell<Vec<Page>>,
    /// For each page: readers, or −1 for a writer.
    held: RefCell<Vec<i32>>,
    /// Freed, but not announced yet.
    freed: RefCell<Vec<u32>>,
    free: RefCell<Vec<u32>>,
    locks: RefCell<Vec<(u32, LockMode)>>,
    /// Calls of `interrupts` left until one cancels.
    patience: Cell<Option<u64>>,
}

/// A page locked for reading.
pub struct Read<'s> {
    store: &'s Memory,
    block: u32,
    page: Box<Page>,
}

/// A page locked for writing.
pub struct Write<'s> {
    store: &'s Memory,
    block: u32,
    page: Box<Page>,
}

/// A lock above the pages'.
pub struct Lock<'s> {
    store: &'s Memory,
    block: u32,
    mode: LockMode,
}

impl Deref for Read<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Deref for Write<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.page
    }
}

impl PageWrite for Write<'_> {
    fn block(&self) -> u32 {
        self.block
    }

    fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.store.held.borrow_mut()[self.block as usize] -= 1;
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.store.held.borrow_mut()[self.block as usize] = 0;
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let mut locks = self.store.locks.borrow_mut();
        if let Some(at) = locks.iter().position(|held| *held == (self.block, self.mode)) {
            locks.swap_remove(at);
        }
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Memory::default()
    }

    /// Lets the work be cancelled at the `calls`-th next call of `interrupts`.
    pub fn cancel_after(&self, calls: Option<u64>) {
        self.patience.set(calls);
    }

    /// Overwrites bytes of a page, as a broken disk would.
    pub fn damage(&self, block: u32, at: usize, bytes: &[u8]) {
        self.pages.borrow_mut()[block as usize].0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A page as it is, locked or not.
    pub fn page(&self, block: u32) -> Page {
        self.pages.borrow()[block as usize]
    }

    fn take(&self, block: u32, writer: bool) -> Result<Box<Page>> {
        let pages = self.pages.borrow();
        let page = pages
            .get(block as usize)
            .ok_or_else(|| Error::corrupted(block, "no such block"))?;
        let held = &mut self.held.borrow_mut()[block as usize];
        if *held < 0 || writer && *held > 0 {
            return Err(Error::Store(format!("block {block} is locked already")));
        }
        *held = if writer { -1 } else { *held + 1 };
        Ok(Box::new(*page))
    }

    fn grow(&self, page: Page) -> u32 {
        let mut pages = self.pages.borrow_mut();
        pages.push(page);
        self.held.borrow_mut().push(0);
        pages.len() as u32 - 1
    }
}

impl PageStore for Memory {
    type Read<'s> = Read<'s>;
    type Write<'s> = Write<'s>;
    type Lock<'s> = Lock<'s>;

    fn blocks(&self) -> Result<u32> {
        Ok(self.pages.borrow().len() as u32)
    }

    fn read(&self, block: u32) -> Result<Read<'_>> {
        let page = self.take(block, false)?;
        Ok(Read {
            store: self,
            block,
            page,
        })
    }

    fn prefetch(&self, _: u32, _: usize, _: usize) {}

    fn write(&self, block: u32) -> Result<Write<'_>> {
        let page = self.take(block, true)?;
        Ok(Write {
            store: self,
            block,
            page,
        })
    }

    fn allocate(&self) -> Result<Write<'_>> {
        let free = self.free.borrow_mut().pop();
        let block = match free {
            Some(block) if self.page(block).expect(block, Kind::Free).is_ok() => block,
            _ => self.grow(Page([0; PAGE_SIZE])),
        };
        self.write(block)
    }

    fn commit(&self, pages: Vec<Write<'_>>) -> Result<()> {
        if pages.len() > Self::MOST_PAGES {
            return Err(Error::Store(format!("{} pages in one record", pages.len())));
        }
        for page in pages {
            self.pages.borrow_mut()[page.block as usize] = *page.page;
        }
        Ok(())
    }

    fn append(&self, page: &Page) -> Result<u32> {
        Ok(self.grow(*page))
    }

    fn free(&self, block: u32) -> Result<()> {
        self.freed.borrow_mut().push(block);
        Ok(())
    }

    fn announce_free(&self) -> Result<()> {
        self.free.borrow_mut().append(&mut self.freed.borrow_mut());
        Ok(())
    }

    fn lock(&self, block: u32, mode: LockMode, wait: bool) -> Result<Option<Lock<'_>>> {
        let mut locks = self.locks.borrow_mut();
        let taken = locks
            .iter()
            .any(|&(held, how)| held == block && (how == LockMode::Exclusive || mode == LockMode::Exclusive));
        if taken {
            return match wait {
                true => Err(Error::Store(format!("lock {block} is taken already"))),
                false => Ok(None),
            };
        }
        locks.push((block, mode));
        drop(locks);
        Ok(Some(Lock {
            store: self,
            block,
            mode,
        }))
    }

    fn interrupts(&self) -> Result<()> {
        if let Some(block) = self.held.borrow().iter().position(|&held| held != 0) {
            return Err(Error::Store(format!("a place to interrupt with block {block} locked")));
        }
        match self.patience.get() {
            Some(0) => Err(Error::Cancelled),
            Some(calls) => {
                self.patience.set(Some(calls - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

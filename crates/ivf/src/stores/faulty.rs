//! A store whose stream of page writes ends at a chosen record, as a crash or a full disk ends it.
use std::cell::Cell;

use super::Memory;
use crate::store::{LockMode, PageStore};
use crate::{Error, Page, Result};

/// [`Memory`] that takes a number of records and refuses all that come after.
pub struct Faulty {
    memory: Memory,
    left: Cell<u64>,
}

impl Faulty {
    /// Takes `records` more records.
    pub fn new(memory: Memory, records: u64) -> Self {
        Faulty {
            memory,
            left: Cell::new(records),
        }
    }

    /// What is there after the crash.
    pub fn into_memory(self) -> Memory {
        self.memory
    }

    fn record(&self) -> Result<()> {
        match self.left.get() {
            0 => Err(Error::Store("the store takes no more records".into())),
            left => {
                self.left.set(left - 1);
                Ok(())
            }
        }
    }
}

impl PageStore for Faulty {
    type Read<'s> = <Memory as PageStore>::Read<'s>;
    type Write<'s> = <Memory as PageStore>::Write<'s>;
    type Lock<'s> = <Memory as PageStore>::Lock<'s>;

    fn blocks(&self) -> Result<u32> {
        self.memory.blocks()
    }

    fn read(&self, block: u32) -> Result<Self::Read<'_>> {
        self.memory.read(block)
    }

    fn prefetch(&self, block: u32, at: usize, bytes: usize) {
        self.memory.prefetch(block, at, bytes);
    }

    fn write(&self, block: u32) -> Result<Self::Write<'_>> {
        self.memory.write(block)
    }

    fn allocate(&self) -> Result<Self::Write<'_>> {
        self.memory.allocate()
    }

    fn commit(&self, pages: Vec<Self::Write<'_>>) -> Result<()> {
        self.record()?;
        self.memory.commit(pages)
    }

    fn append(&self, page: &Page) -> Result<u32> {
        self.record()?;
        self.memory.append(page)
    }

    fn free(&self, block: u32) -> Result<()> {
        self.memory.free(block)
    }

    fn announce_free(&self) -> Result<()> {
        self.memory.announce_free()
    }

    fn lock(&self, block: u32, mode: LockMode, wait: bool) -> Result<Option<Self::Lock<'_>>> {
        self.memory.lock(block, mode, wait)
    }

    fn interrupts(&self) -> Result<()> {
        self.memory.interrupts()
    }
}

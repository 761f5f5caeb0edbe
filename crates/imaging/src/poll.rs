//! Cancellation and containment: the caller's wish to stop reaches into codecs that know nothing of it, and a codec's
//! panic does not reach the caller.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::{Format, ImageError};

/// Compressed bytes handed to a codec between two polls. Small against any picture worth cancelling; large against
/// the cost of a poll.
pub(crate) const POLL_BYTES: usize = 16 * 1024;

/// The caller's `should_stop`, asked often and remembered once it has said yes.
pub struct Poll<'a> {
    should_stop: &'a dyn Fn() -> bool,
    stopped: Cell<bool>,
    /// A panic out of `should_stop` itself: the caller's own, so it is carried around the codec and goes on after it.
    panic: RefCell<Option<Box<dyn Any + Send>>>,
}

impl<'a> Poll<'a> {
    /// Of the caller's `should_stop`.
    pub fn new(should_stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            should_stop,
            stopped: Cell::new(false),
            panic: RefCell::new(None),
        }
    }

    /// Asks the caller. Once true, always true.
    pub fn stopped(&self) -> bool {
        if !self.stopped.get() {
            match catch_unwind(AssertUnwindSafe(self.should_stop)) {
                Ok(stop) => self.stopped.set(stop),
                Err(panic) => {
                    self.stopped.set(true);
                    *self.panic.borrow_mut() = Some(panic);
                }
            }
        }
        self.stopped.get()
    }

    /// An error once the caller wants to stop.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`].
    pub fn check(&self) -> Result<(), ImageError> {
        let stopped = self.stopped();
        if let Some(panic) = self.panic.borrow_mut().take() {
            resume_unwind(panic);
        }
        if stopped { Err(ImageError::Cancelled) } else { Ok(()) }
    }

    /// Runs a codec. A stop that was seen inside wins over whatever error the codec made of it; a panic of the codec
    /// becomes [`ImageError::Corrupt`], without its text, which is meant for the codec's authors.
    pub(crate) fn contain<T>(
        &self,
        format: Format,
        codec: impl FnOnce() -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let result = catch_unwind(AssertUnwindSafe(codec));
        if self.stopped.get() {
            self.check()?;
        }
        result.unwrap_or_else(|_| Err(ImageError::corrupt(format, "the decoder gave up on contradictory data")))
    }
}

/// The encoded bytes as a reader that fails with [`io::ErrorKind::Other`] once the caller wants to stop, and remembers
/// whether a codec asked for bytes beyond the end.
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
    position: usize,
    next_poll: usize,
    poll: &'a Poll<'a>,
    ran_out: &'a Cell<bool>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8], poll: &'a Poll<'a>, ran_out: &'a Cell<bool>) -> Self {
        Self {
            bytes,
            position: 0,
            next_poll: 0,
            poll,
            ran_out,
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.next_poll {
            if self.poll.stopped() {
                return Err(io::Error::other("cancelled"));
            }
            self.next_poll = self.position.saturating_add(POLL_BYTES);
        }
        if self.position >= self.bytes.len() {
            self.ran_out.set(true);
            return Ok(&[]);
        }
        Ok(&self.bytes[self.position..self.next_poll.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count);
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => (self.bytes.len() as u64).checked_add_signed(offset),
            SeekFrom::Current(offset) => (self.position as u64).checked_add_signed(offset),
        };
        let position = position
            .and_then(|position| usize::try_from(position).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek outside the image"))?;
        // A codec may jump back and forth for long (TIFF directories): a jump counts as a read.
        self.next_poll = position;
        self.position = position;
        Ok(position as u64)
    }
}

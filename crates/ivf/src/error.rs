//! What can go wrong, in terms of the index.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the index.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A page does not say what it must.
    #[error("index is corrupted at block {block}: {what}")]
    Corrupted {
        /// The page's block number.
        block: u32,
        /// What is wrong with it.
        what: String,
    },
    /// The index was written in another format.
    #[error("index has format version {found}, but this version of copymatch reads version {expected}")]
    Version {
        /// The version in the index.
        found: u32,
        /// The version of this crate.
        expected: u32,
    },
    /// A vector whose number of dimensions is not the index's.
    #[error("expected {expected} dimensions, not {actual}")]
    Dimensions {
        /// The index's.
        expected: usize,
        /// The vector's.
        actual: usize,
    },
    /// More dimensions than an index can have.
    #[error("an ivf index cannot have more than {limit} dimensions, not {actual}")]
    TooManyDimensions {
        /// The most there can be.
        limit: usize,
        /// The vector's.
        actual: usize,
    },
    /// The memory allowed is too small for the work.
    #[error("memory required is {required} kB, but only {allowed} kB are allowed")]
    Memory {
        /// Kilobytes needed.
        required: u64,
        /// Kilobytes allowed.
        allowed: u64,
    },
    /// The system has no more memory.
    #[error("out of memory")]
    OutOfMemory,
    /// The work was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The store failed (I/O, out of space) and says why.
    #[error("{0}")]
    Store(String),
}

impl From<memory::OutOfMemory> for Error {
    fn from(_: memory::OutOfMemory) -> Self {
        Error::OutOfMemory
    }
}

impl From<std::collections::TryReserveError> for Error {
    fn from(_: std::collections::TryReserveError) -> Self {
        Error::OutOfMemory
    }
}

impl Error {
    pub(crate) fn corrupted(block: u32, what: impl Into<String>) -> Self {
        Error::Corrupted {
            block,
            what: what.into(),
        }
    }
}

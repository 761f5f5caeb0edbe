//! An inverted-file index (IVF) of quantised vectors, over pages.
//!
//! Vectors are rotated by a fixed random rotation, assigned to the nearest of many *centroids*, and kept in that
//! centroid's *list* as two codes of the residual: one bit a dimension, scanned in blocks of 32 against a running
//! bound, and six bits a dimension, read only for those that the first code leaves. A search probes the lists whose
//! centroids are nearest to the query.
//!
//! The crate knows pages, not PostgreSQL: everything goes through a [`PageStore`]. `src/ivf/README.md` of the extension
//! explains page layout, locking order and crash safety.
#![deny(unsafe_code)]

mod branch;
mod build;
mod candidates;
mod centroid;
mod check;
mod code;
mod compact;
mod descent;
mod directory;
mod distances;
mod error;
mod filter;
mod geometry;
mod grow;
mod insert;
mod kmeans;
mod list;
mod meta;
mod page;
mod recall;
mod rewrite;
mod rotation;
mod sampling;
mod search;
mod split;
mod stats;
mod store;
pub mod stores;
mod threads;
mod vacuum;

pub use build::{Batch, Encoded, Encoders, Sample, Trained, Writer, automatic_lists, create_empty, create_empty_with};
pub use check::{CheckedRow, Report, check, check_rows};
pub use error::{Error, Result};
pub use filter::{Filter, FilterLayout, MOST_FILTERS, Test};
pub use geometry::{Geometry, MAX_DIMENSIONS};
pub use insert::{insert, insert_with};
pub use kmeans::THREAD_BYTES;
pub use meta::{CurvePoint, DistancePoint, Meta, Metric};
pub use page::{FORMAT_VERSION, PAGE_SIZE, Page};
pub use recall::measure_recall;
pub use search::{Hit, Iteration, Rerank, RerankTogether, Search, SearchOptions, Together};
pub use stats::{Stats, stats};
pub use store::{LockMode, PageStore, PageWrite};
pub use threads::Threads;
pub use vacuum::{Vacuumed, bulk_delete, cleanup};

/// Where a row lies in its table: a 48-bit item pointer, block number in the upper 32 bits, offset in the lower 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u64);

impl Tid {
    /// Bytes of a stored item pointer.
    pub const SIZE: usize = 6;

    /// From a block number and an offset.
    pub fn new(block: u32, offset: u16) -> Self {
        Tid(u64::from(block) << 16 | u64::from(offset))
    }

    /// The block number.
    pub fn block(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The offset within the block.
    pub fn offset(self) -> u16 {
        self.0 as u16
    }

    pub(crate) fn put(self, bytes: &mut [u8]) {
        bytes[..Self::SIZE].copy_from_slice(&self.0.to_le_bytes()[..Self::SIZE]);
    }

    pub(crate) fn get(bytes: &[u8]) -> Self {
        let mut eight = [0; 8];
        eight[..Self::SIZE].copy_from_slice(&bytes[..Self::SIZE]);
        Tid(u64::from_le_bytes(eight))
    }
}

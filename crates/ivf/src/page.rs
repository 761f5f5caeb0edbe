//! A page: PostgreSQL's header, content, and 16 bytes at its end that say what it is.
use bytemuck::{Pod, Zeroable};

use crate::{Error, Result};

/// Bytes of a page; PostgreSQL's default BLCKSZ.
pub const PAGE_SIZE: usize = 8192;
/// The format's version, in every page.
pub const FORMAT_VERSION: u8 = 1;
/// The version in block 0 of an index with filter columns: earlier versions, which would not know where on a page its
/// codes lie, read nothing of it.
pub const FILTER_VERSION: u8 = 2;
/// Where content begins: behind PostgreSQL's page header.
pub(crate) const CONTENT: usize = 24;
/// Where content ends and the trailer begins.
pub(crate) const TRAILER: usize = PAGE_SIZE - size_of::<Trailer>();
/// No block.
pub(crate) const NONE: u32 = u32::MAX;

const MAGIC: u16 = 0x1cf5;
/// Offset of pd_lower, pd_upper, pd_special and pd_pagesize_version in PostgreSQL's page header.
const PD_LOWER: usize = 12;
const PD_LAYOUT_VERSION: u16 = 4;

/// One page, aligned as PostgreSQL aligns its buffers.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Page(pub [u8; PAGE_SIZE]);

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Block 0: what the index is.
    Meta = 1,
    /// Centroids of branches.
    Branch = 2,
    /// Centroids of lists, and where each list begins.
    Directory = 3,
    /// One-bit codes and row pointers of a list.
    Scan = 4,
    /// Six-bit codes of a list.
    Refine = 5,
    /// Given back by a list that moved.
    Free = 6,
}

/// The last bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Trailer {
    magic: u16,
    pub version: u8,
    kind: u8,
    /// The list that the page belongs to; 0 where it belongs to none.
    pub list: u32,
    /// How often that list had been rewritten when the page was made: tells a recycled page.
    pub generation: u32,
    /// The next page of a chain.
    pub next: u32,
}

impl Page {
    /// An empty page of a kind.
    pub(crate) fn new(kind: Kind, list: u32, generation: u32) -> Box<Page> {
        let mut page = Box::new(Page([0; PAGE_SIZE]));
        page.init(kind, list, generation);
        page
    }

    /// Clears the page and makes it one of a kind, without a successor.
    pub(crate) fn init(&mut self, kind: Kind, list: u32, generation: u32) {
        self.0.fill(0);
        let header: [u16; 4] = [
            CONTENT as u16,
            TRAILER as u16,
            TRAILER as u16,
            PAGE_SIZE as u16 | PD_LAYOUT_VERSION,
        ];
        for (at, value) in header.into_iter().enumerate() {
            self.0[PD_LOWER + 2 * at..][..2].copy_from_slice(&value.to_ne_bytes());
        }
        self.set_trailer(Trailer {
            magic: MAGIC,
            version: FORMAT_VERSION,
            kind: kind as u8,
            list,
            generation,
            next: NONE,
        });
    }

    /// Where the used content ends. PostgreSQL logs nothing between here and the trailer.
    pub(crate) fn used(&self) -> usize {
        usize::from(u16::from_ne_bytes([self.0[PD_LOWER], self.0[PD_LOWER + 1]])).clamp(CONTENT, TRAILER)
    }

    /// Says that content up to `end` is used.
    pub(crate) fn set_used(&mut self, end: usize) {
        debug_assert!((CONTENT..=TRAILER).contains(&end));
        self.0[PD_LOWER..][..2].copy_from_slice(&(end as u16).to_ne_bytes());
    }

    pub(crate) fn trailer(&self) -> Trailer {
        bytemuck::pod_read_unaligned(&self.0[TRAILER..])
    }

    fn set_trailer(&mut self, trailer: Trailer) {
        self.0[TRAILER..].copy_from_slice(bytemuck::bytes_of(&trailer));
    }

    pub(crate) fn set_version(&mut self, version: u8) {
        let trailer = Trailer {
            version,
            ..self.trailer()
        };
        self.set_trailer(trailer);
    }

    pub(crate) fn set_next(&mut self, next: u32) {
        let trailer = Trailer { next, ..self.trailer() };
        self.set_trailer(trailer);
    }

    /// The trailer of a page that must be of this kind.
    pub(crate) fn expect(&self, block: u32, kind: Kind) -> Result<Trailer> {
        let trailer = self.trailer();
        if trailer.magic != MAGIC {
            return Err(Error::corrupted(block, "not a page of an ivf index"));
        }
        let filters = kind == Kind::Meta && trailer.version == FILTER_VERSION;
        if trailer.version != FORMAT_VERSION && !filters {
            return Err(Error::Version {
                found: u32::from(trailer.version),
                expected: u32::from(if kind == Kind::Meta {
                    FILTER_VERSION
                } else {
                    FORMAT_VERSION
                }),
            });
        }
        if trailer.kind != kind as u8 {
            return Err(Error::corrupted(
                block,
                format!("a page of kind {} where {kind:?} was expected", trailer.kind),
            ));
        }
        Ok(trailer)
    }

    /// Whether the page is one of this kind, of this list in this generation: it was not recycled.
    pub(crate) fn is(&self, kind: Kind, list: u32, generation: u32) -> bool {
        let trailer = self.trailer();
        trailer.magic == MAGIC
            && trailer.version == FORMAT_VERSION
            && trailer.kind == kind as u8
            && trailer.list == list
            && trailer.generation == generation
    }

    /// A plain value at an offset, which must lie in the content.
    pub(crate) fn get<T: Pod>(&self, at: usize) -> T {
        bytemuck::pod_read_unaligned(&self.0[at..at + size_of::<T>()])
    }

    pub(crate) fn put<T: Pod>(&mut self, at: usize, value: T) {
        self.0[at..at + size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
    }
}

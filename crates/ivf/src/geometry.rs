//! How many dimensions, records and blocks go where: a pure function of the vectors' dimensions.
use crate::page::{CONTENT, TRAILER};
use crate::{Error, FilterLayout, Result, Tid};

/// The most dimensions that an index takes.
pub const MAX_DIMENSIONS: usize = 4_000;
/// Vectors in a block: what one pass of the scan kernel covers.
pub(crate) const BLOCK: usize = vectors::quantised::BLOCK;
/// The most dimensions that the one-bit code covers: a block must fit a page.
const MOST_SCANNED: usize = 1_856;
/// The fixed part of a scan page's content: insert page u32, blocks in use u16, padding.
pub(crate) const SCAN_HEADER: usize = 8;
/// What a block holds besides codes: live mask, addend and factor as bfloat16 (32 each), row pointers.
const BLOCK_HEADER: usize = 4 + 2 * 2 * BLOCK + Tid::SIZE * BLOCK;
/// What a refine record holds besides its code: scale and constant.
pub(crate) const REFINE_HEADER: usize = 8;
/// What a centroid holds besides its code: scale, squared norm, where it leads (four u32), reach, spare.
pub(crate) const CENTROID_HEADER: usize = 32;

/// The layout for vectors of some number of dimensions, with the filter columns beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// Dimensions after the rotation: padded to a multiple of 64.
    pub rotated: usize,
    /// Values beside the codes.
    pub filters: FilterLayout,
    /// Rotated dimensions that the one-bit code covers; all up to 1,856, fewer where wide values lie beside them.
    pub scanned: usize,
    /// Bytes of a block of 32 one-bit codes with what belongs to them, but for the filter columns' values.
    pub block_bytes: usize,
    /// Bytes of the filter columns' values of a block.
    pub filter_bytes: usize,
    /// Blocks on a scan page.
    pub blocks: usize,
    /// Bytes of a six-bit code with its scale and constant.
    pub refine_bytes: usize,
    /// Six-bit codes on a refine page.
    pub refines: usize,
    /// Refine pages that belong to one scan page.
    pub refine_pages: usize,
    /// Bytes of a centroid with what belongs to it.
    pub centroid_bytes: usize,
    /// Centroids on a page.
    pub centroids: usize,
}

impl Geometry {
    /// The layout without filter columns, or an error outside 1…[`MAX_DIMENSIONS`].
    pub fn new(dimensions: usize) -> Result<Self> {
        Self::with_filters(dimensions, FilterLayout::default())
    }

    /// The layout, or an error outside 1…[`MAX_DIMENSIONS`].
    pub fn with_filters(dimensions: usize, filters: FilterLayout) -> Result<Self> {
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(Error::TooManyDimensions {
                limit: MAX_DIMENSIONS,
                actual: dimensions,
            });
        }
        let room = TRAILER - CONTENT;
        let rotated = dimensions.next_multiple_of(64);
        let refine_bytes = REFINE_HEADER + rotated / 2 + rotated / 4;
        let refines = room / refine_bytes;
        let centroid_bytes = CENTROID_HEADER + rotated;
        let filter_bytes = filters.block_bytes();
        let pages_for = |blocks: usize| (blocks * BLOCK).div_ceil(refines);
        let bytes = |scanned: usize| BLOCK_HEADER + scanned / 8 * BLOCK;
        let fits = |scanned: usize, blocks: usize| {
            SCAN_HEADER + 4 * pages_for(blocks) + blocks * (bytes(scanned) + filter_bytes) <= room
        };
        let mut scanned = rotated.min(MOST_SCANNED);
        while scanned > 64 && !fits(scanned, 1) {
            scanned -= 64;
        }
        let block_bytes = bytes(scanned);
        let blocks = (1..=room / block_bytes)
            .rev()
            .find(|&blocks| fits(scanned, blocks))
            .unwrap_or(0);
        debug_assert!(blocks > 0 && refines > 0);
        Ok(Geometry {
            dimensions,
            rotated,
            filters,
            scanned,
            block_bytes,
            filter_bytes,
            blocks,
            refine_bytes,
            refines,
            refine_pages: pages_for(blocks),
            centroid_bytes,
            centroids: room / centroid_bytes,
        })
    }

    /// Vectors on a scan page.
    pub fn slots(&self) -> usize {
        self.blocks * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MOST_FILTERS;

    #[test]
    fn every_number_of_dimensions_has_a_layout_that_fits_its_pages() {
        for dimensions in 1..=MAX_DIMENSIONS {
            let g = Geometry::new(dimensions).unwrap();
            let room = TRAILER - CONTENT;
            assert!(g.blocks >= 1 && g.refines >= 1 && g.centroids >= 1, "{g:?}");
            assert!(
                SCAN_HEADER + 4 * g.refine_pages + g.blocks * g.block_bytes <= room,
                "{g:?}"
            );
            for widths in [&[4][..], &[4, 8], &[16; MOST_FILTERS]] {
                let with = Geometry::with_filters(dimensions, FilterLayout::new(widths).unwrap()).unwrap();
                let used = SCAN_HEADER + 4 * with.refine_pages + with.blocks * (with.block_bytes + with.filter_bytes);
                assert!(
                    with.blocks >= 1 && used <= room && with.refine_pages * with.refines >= with.slots(),
                    "{with:?}"
                );
                assert!(with.scanned <= g.scanned && with.scanned.is_multiple_of(64) && with.blocks <= g.blocks);
                assert!(
                    with.scanned == g.scanned || dimensions > 768,
                    "few dimensions lose none of their code: {with:?}"
                );
            }
            assert!(
                g.refines * g.refine_bytes <= room && g.centroids * g.centroid_bytes <= room,
                "{g:?}"
            );
            assert!(g.refine_pages * g.refines >= g.slots(), "{g:?}");
            assert!(
                g.scanned <= g.rotated && g.rotated >= dimensions && g.scanned.is_multiple_of(64),
                "{g:?}"
            );
        }
        assert!(Geometry::new(0).is_err() && Geometry::new(MAX_DIMENSIONS + 1).is_err());
    }
}

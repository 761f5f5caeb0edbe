//! How many dimensions, records and blocks go where: a pure function of the vectors' dimensions.
use crate::page::{CONTENT, TRAILER};
use crate::{Error, Result, Tid};

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

/// The layout for vectors of some number of dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// Dimensions after the rotation: padded to a multiple of 64.
    pub rotated: usize,
    /// Rotated dimensions that the one-bit code covers; all up to 1,856.
    pub scanned: usize,
    /// Bytes of a block of 32 one-bit codes with what belongs to them.
    pub block_bytes: usize,
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
    /// The layout, or an error outside 1…[`MAX_DIMENSIONS`].
    pub fn new(dimensions: usize) -> Result<Self> {
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(Error::TooManyDimensions {
                limit: MAX_DIMENSIONS,
                actual: dimensions,
            });
        }
        let room = TRAILER - CONTENT;
        let rotated = dimensions.next_multiple_of(64);
        let scanned = rotated.min(MOST_SCANNED);
        let block_bytes = BLOCK_HEADER + scanned / 8 * BLOCK;
        let refine_bytes = REFINE_HEADER + rotated / 2 + rotated / 4;
        let refines = room / refine_bytes;
        let centroid_bytes = CENTROID_HEADER + rotated;
        let pages_for = |blocks: usize| (blocks * BLOCK).div_ceil(refines);
        let fits = |blocks: usize| SCAN_HEADER + 4 * pages_for(blocks) + blocks * block_bytes <= room;
        let blocks = (1..=room / block_bytes).rev().find(|&blocks| fits(blocks)).unwrap_or(0);
        debug_assert!(blocks > 0 && refines > 0);
        Ok(Geometry {
            dimensions,
            rotated,
            scanned,
            block_bytes,
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

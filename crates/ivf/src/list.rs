//! A list on its pages: scan pages in a chain, each with the refine pages that belong to it.
use std::ops::Range;

use vectors::quantised;

use crate::code::CodeRecord;
use crate::geometry::{BLOCK, Geometry, SCAN_HEADER};
use crate::page::{CONTENT, Kind, NONE, Page};
use crate::{Error, PageStore, PageWrite, Result, Tid};

/// Offsets within a block.
const ADDENDS: usize = 4;
const FACTORS: usize = ADDENDS + 2 * BLOCK;
const TIDS: usize = FACTORS + 2 * BLOCK;
const CODES: usize = TIDS + Tid::SIZE * BLOCK;
/// Offsets within a scan page's content.
const INSERT_PAGE: usize = CONTENT;
const USED_BLOCKS: usize = CONTENT + 4;
const REFINE_BLOCKS: usize = CONTENT + SCAN_HEADER;

/// Makes a scan page.
pub(crate) fn init_scan(geometry: &Geometry, page: &mut Page, list: u32, generation: u32) {
    page.init(Kind::Scan, list, generation);
    page.put(INSERT_PAGE, NONE);
    for at in 0..geometry.refine_pages {
        page.put(REFINE_BLOCKS + 4 * at, NONE);
    }
    page.set_used(block_at(geometry, 0));
}

/// In the first page of a list: where an insert begins to look for room. [`NONE`]: at this page.
pub(crate) fn insert_page(page: &Page) -> u32 {
    page.get(INSERT_PAGE)
}

pub(crate) fn set_insert_page(page: &mut Page, block: u32) {
    page.put(INSERT_PAGE, block);
}

/// Blocks in use on a scan page.
pub(crate) fn used_blocks(geometry: &Geometry, page: &Page) -> usize {
    usize::from(page.get::<u16>(USED_BLOCKS)).min(geometry.blocks)
}

/// The refine page of a slot and the place on it.
pub(crate) fn refine_place(geometry: &Geometry, page: &Page, slot: usize) -> (u32, usize) {
    (
        page.get(REFINE_BLOCKS + 4 * (slot / geometry.refines)),
        slot % geometry.refines,
    )
}

pub(crate) fn refine_block(page: &Page, at: usize) -> u32 {
    page.get(REFINE_BLOCKS + 4 * at)
}

pub(crate) fn set_refine_block(page: &mut Page, at: usize, block: u32) {
    page.put(REFINE_BLOCKS + 4 * at, block);
}

/// Where the filter columns' values of a block are: those of all blocks lie in front of the first.
fn filters_at(geometry: &Geometry, block: usize) -> std::ops::Range<usize> {
    let start = REFINE_BLOCKS + 4 * geometry.refine_pages + block * geometry.filter_bytes;
    start..start + geometry.filter_bytes
}

fn block_at(geometry: &Geometry, block: usize) -> usize {
    filters_at(geometry, geometry.blocks).start + block * geometry.block_bytes
}

/// The filter columns' values of a block.
pub(crate) fn filters<'p>(geometry: &Geometry, page: &'p Page, block: usize) -> &'p [u8] {
    &page.0[filters_at(geometry, block)]
}

/// Appends the filter columns' values of a row.
pub(crate) fn take_filters(geometry: &Geometry, page: &Page, slot: usize, row: &mut Vec<u8>) {
    geometry
        .filters
        .take(filters(geometry, page, slot / BLOCK), slot % BLOCK, row);
}

/// Which slots of a block hold a row, and how many.
pub(crate) fn live(geometry: &Geometry, page: &Page, block: usize) -> u32 {
    page.get(block_at(geometry, block))
}

pub(crate) fn set_live(geometry: &Geometry, page: &mut Page, block: usize, mask: u32) {
    page.put(block_at(geometry, block), mask);
}

pub(crate) fn tid(geometry: &Geometry, page: &Page, slot: usize) -> Tid {
    Tid::get(&page.0[block_at(geometry, slot / BLOCK) + TIDS + slot % BLOCK * Tid::SIZE..])
}

pub(crate) fn factor(geometry: &Geometry, page: &Page, slot: usize) -> f32 {
    quantised::from_bf16(page.get(block_at(geometry, slot / BLOCK) + FACTORS + 2 * (slot % BLOCK)))
}

/// A block as the kernel takes it.
///
/// The one behind it is brought towards the processor's cache meanwhile.
pub(crate) fn block<'p>(geometry: &Geometry, page: &'p Page, block: usize) -> quantised::Block<'p> {
    let start = block_at(geometry, block);
    if block + 1 < used_blocks(geometry, page) {
        quantised::prefetch(&page.0[start + geometry.block_bytes..start + 2 * geometry.block_bytes]);
    }
    cached_block(geometry, page, block)
}

/// The same of a page that is in the processor's cache.
pub(crate) fn cached_block<'p>(geometry: &Geometry, page: &'p Page, block: usize) -> quantised::Block<'p> {
    let start = block_at(geometry, block);
    quantised::Block {
        addends: &page.0[start + ADDENDS..start + FACTORS],
        factors: &page.0[start + FACTORS..start + TIDS],
        codes: &page.0[start + CODES..start + geometry.block_bytes],
    }
}

/// The first slot that holds no row, if the page has one.
pub(crate) fn free_slot(geometry: &Geometry, page: &Page) -> Option<usize> {
    let used = used_blocks(geometry, page);
    for block in 0..used {
        let mask = live(geometry, page, block);
        if mask != u32::MAX {
            return Some(block * BLOCK + mask.trailing_ones() as usize);
        }
    }
    (used < geometry.blocks).then_some(used * BLOCK)
}

/// Puts a record into a slot of a scan page.
pub(crate) fn put_scan(geometry: &Geometry, page: &mut Page, slot: usize, record: &[u8]) {
    let (block, within) = (slot / BLOCK, slot % BLOCK);
    if block >= used_blocks(geometry, page) {
        page.put(USED_BLOCKS, (block + 1) as u16);
        page.set_used(block_at(geometry, block + 1));
    }
    let start = block_at(geometry, block);
    page.0[start + ADDENDS + 2 * within..][..2].copy_from_slice(&CodeRecord::addend(record));
    page.0[start + FACTORS + 2 * within..][..2].copy_from_slice(&CodeRecord::factor(record));
    CodeRecord::tid(record).put(&mut page.0[start + TIDS + Tid::SIZE * within..]);
    quantised::put_nibbles(
        &mut page.0[start + CODES..start + geometry.block_bytes],
        within,
        CodeRecord::nibbles(record, geometry),
    );
    let values = &mut page.0[filters_at(geometry, block)];
    geometry
        .filters
        .put(values, within, CodeRecord::filters(record, geometry));
    let mask = live(geometry, page, block) | 1 << within;
    set_live(geometry, page, block, mask);
}

/// Appends the record of a slot as [`put_scan`] takes it; its six-bit code is left zero.
pub(crate) fn take_scan(geometry: &Geometry, page: &Page, slot: usize, records: &mut Vec<u8>) {
    let (block, within) = (slot / BLOCK, slot % BLOCK);
    let bytes = block_at(geometry, block);
    let block = &page.0[bytes..bytes + geometry.block_bytes];
    let start = records.len();
    let mut values = Vec::with_capacity(geometry.filters.row_bytes());
    take_filters(geometry, page, slot, &mut values);
    records.extend_from_slice(&block[TIDS + Tid::SIZE * within..][..Tid::SIZE]);
    records.extend_from_slice(&block[ADDENDS + 2 * within..][..2]);
    records.extend_from_slice(&block[FACTORS + 2 * within..][..2]);
    records.resize(start + CodeRecord::bytes(geometry) - values.len(), 0);
    records.extend_from_slice(&values);
    quantised::take_nibbles(
        &block[CODES..],
        within,
        CodeRecord::nibbles_mut(&mut records[start..], geometry),
    );
}

/// A scan page and its refine pages.
pub(crate) fn pages_with(geometry: &Geometry, page: &Page) -> usize {
    1 + (0..geometry.refine_pages)
        .filter(|&at| refine_block(page, at) != NONE)
        .count()
}

/// A six-bit code with its header.
pub(crate) fn refine_record<'p>(geometry: &Geometry, page: &'p Page, at: usize) -> &'p [u8] {
    &page.0[CONTENT + at * geometry.refine_bytes..][..geometry.refine_bytes]
}

/// Puts a record's six-bit code onto a refine page.
pub(crate) fn put_refine(geometry: &Geometry, page: &mut Page, at: usize, record: &[u8]) {
    let start = CONTENT + at * geometry.refine_bytes;
    page.0[start..start + geometry.refine_bytes].copy_from_slice(CodeRecord::refine(record, geometry));
    page.set_used(page.used().max(start + geometry.refine_bytes));
}

/// Tells that a scan page will be read soon, from its first block on.
pub(crate) fn prefetch_scan<S: PageStore>(store: &S, block: u32) {
    store.prefetch(block, CONTENT, 1536);
}

/// Tells that a refine record will be read soon.
pub(crate) fn prefetch_refine<S: PageStore>(store: &S, geometry: &Geometry, block: u32, place: usize) {
    store.prefetch(block, CONTENT + place * geometry.refine_bytes, geometry.refine_bytes);
}

/// The same of several records.
pub(crate) fn prefetch_refines<S: PageStore>(store: &S, geometry: &Geometry, block: u32, places: Range<usize>) {
    let bytes = geometry.refine_bytes;
    store.prefetch(block, CONTENT + places.start * bytes, places.len() * bytes);
}

/// Whether a chain of scan pages could be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// To its end.
    Whole,
    /// The list was rewritten meanwhile: its pages are others now.
    Moved,
}

/// Walks the scan pages of a list, one locked for reading at a time.
pub(crate) fn walk<S: PageStore>(
    store: &S,
    head: u32,
    list: u32,
    generation: u32,
    mut visit: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<Walked> {
    let (mut block, mut steps) = (head, 0);
    while block != NONE {
        let page = store.read(block)?;
        if !page.is(Kind::Scan, list, generation) {
            // A freed or reused page is a moved list; anything else is no page of ours.
            check_recycled(block, &page)?;
            return Ok(Walked::Moved);
        }
        let next = page.trailer().next;
        if next != NONE {
            prefetch_scan(store, next);
        }
        visit(block, &page)?;
        steps += 1;
        // Asking for the length takes a system call: only long chains do.
        if steps % 64 == 0 && steps > store.blocks()? {
            return Err(Error::corrupted(head, "chain of pages runs in a circle"));
        }
        block = next;
    }
    Ok(Walked::Whole)
}

/// An error unless the page is one that this index could have put there.
pub(crate) fn check_recycled(block: u32, page: &Page) -> Result<()> {
    [Kind::Free, Kind::Scan, Kind::Refine, Kind::Directory, Kind::Branch]
        .iter()
        .find_map(|&kind| page.expect(block, kind).ok())
        .map(|_| ())
        .ok_or_else(|| Error::corrupted(block, "not a page of a list"))
}

/// Writes records as the pages of a list and gives the first: through `new_page`, which returns each page's block.
///
/// All scan pages come first, then all refine pages; `blocks` are theirs, in that order.
pub(crate) fn pages_of(
    geometry: &Geometry,
    list: u32,
    generation: u32,
    records: &[&[u8]],
    blocks: &[u32],
) -> Vec<Box<Page>> {
    let scans = scan_pages_for(geometry, records.len());
    let mut pages: Vec<Box<Page>> = (0..scans)
        .map(|_| {
            let mut page = Page::new(Kind::Scan, list, generation);
            init_scan(geometry, &mut page, list, generation);
            page
        })
        .collect();
    let mut refines: Vec<Box<Page>> = Vec::new();
    for (scan, some) in records.chunks(geometry.slots()).enumerate() {
        for (at, few) in some.chunks(geometry.refines).enumerate() {
            let mut page = Page::new(Kind::Refine, list, generation);
            for (place, record) in few.iter().enumerate() {
                put_refine(geometry, &mut page, place, record);
            }
            set_refine_block(&mut pages[scan], at, blocks[scans + refines.len()]);
            refines.push(page);
        }
        for (slot, record) in some.iter().enumerate() {
            put_scan(geometry, &mut pages[scan], slot, record);
        }
        if scan + 1 < scans {
            pages[scan].set_next(blocks[scan + 1]);
        }
    }
    // Room for the next row is on the last page.
    if scans > 1 {
        set_insert_page(&mut pages[0], blocks[scans - 1]);
    }
    pages.extend(refines);
    pages
}

pub(crate) fn scan_pages_for(geometry: &Geometry, rows: usize) -> usize {
    rows.div_ceil(geometry.slots())
}

/// Scan and refine pages of a list of so many rows.
pub(crate) fn pages_for(geometry: &Geometry, rows: usize) -> usize {
    let last = rows % geometry.slots();
    let whole = rows / geometry.slots();
    whole * (1 + geometry.slots().div_ceil(geometry.refines))
        + if last > 0 {
            1 + last.div_ceil(geometry.refines)
        } else {
            0
        }
}

/// Gives a page back, durably.
pub(crate) fn release<S: PageStore>(store: &S, block: u32) -> Result<()> {
    let mut page = store.write(block)?;
    page.page_mut().init(Kind::Free, 0, 0);
    store.commit(vec![page])?;
    store.free(block)
}

/// Slots of a scan page that hold a row.
pub(crate) fn live_slots<'p>(geometry: &'p Geometry, page: &'p Page) -> impl Iterator<Item = usize> + 'p {
    (0..used_blocks(geometry, page)).flat_map(move |block| {
        let mask = live(geometry, page, block);
        (0..BLOCK)
            .filter(move |within| mask >> within & 1 == 1)
            .map(move |within| block * BLOCK + within)
    })
}

//! What a split and a compaction have in common: a list is written anew on other pages, its old ones are given back.
use crate::directory::{self, Probe};
use crate::geometry::Geometry;
use crate::list;
use crate::page::{Kind, NONE, Page};
use crate::{PageStore, PageWrite, Result};

/// The first page of a probe's list, if the directory still leads there and it has one.
pub(crate) fn current_head<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<Option<u32>> {
    let page = store.read(probe.block)?;
    let entry = directory::current_entry(geometry, &page, probe);
    Ok(entry.map(|entry| entry.head).filter(|&head| head != NONE))
}

/// Writes a list on pages of its own and gives its head.
pub(crate) fn write_list<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    list: u32,
    generation: u32,
    records: &[&[u8]],
) -> Result<u32> {
    memory::ensure(list::pages_for(geometry, records.len()) * size_of::<Page>())?;
    let mut blocks = Vec::new();
    for _ in 0..list::pages_for(geometry, records.len()) {
        // Taken one at a time: a page of no content yet, which nothing leads to.
        let mut page = store.allocate()?;
        page.page_mut().init(Kind::Scan, list, generation);
        blocks.push(page.block());
        store.commit(vec![page])?;
    }
    let pages = list::pages_of(geometry, list, generation, records, &blocks);
    for (&block, page) in blocks.iter().zip(pages) {
        store.interrupts()?;
        let mut target = store.write(block)?;
        *target.page_mut() = *page;
        store.commit(vec![target])?;
    }
    Ok(blocks.first().copied().unwrap_or(NONE))
}

/// Gives back the pages of a list that nothing leads to any more.
pub(crate) fn release_list<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, head: u32) -> Result<()> {
    let mut blocks = Vec::new();
    list::walk(store, head, probe.entry.list, probe.entry.generation, |block, page| {
        blocks.push(block);
        blocks.extend(
            (0..geometry.refine_pages)
                .map(|at| list::refine_block(page, at))
                .filter(|&refine| refine != NONE),
        );
        Ok(())
    })?;
    for block in blocks {
        store.interrupts()?;
        list::release(store, block)?;
    }
    store.announce_free()
}

//! A list that lost most of its rows moves to fewer pages.
//!
//! As in a split, the new pages are written in full first, and nothing leads to them; one record then changes the
//! directory. Codes are copied, not encoded anew: nothing of a row changes but its place.
use crate::code::CodeRecord;
use crate::directory::{self, Probe};
use crate::geometry::Geometry;
use crate::list::{self, Walked};
use crate::page::{Kind, NONE};
use crate::rewrite::{current_head, release_list, write_list};
use crate::store::{LockMode, list_lock};
use crate::{Error, PageStore, PageWrite, Result, grow};

/// Whether a list has at least twice the pages that its rows need, and two to give back.
pub(crate) fn is_sparse(geometry: &Geometry, rows: usize, pages: usize) -> bool {
    let needed = list::pages_for(geometry, rows);
    pages >= 2 * needed && pages >= needed + 2
}

/// Compacts a sparse list, unless an insert is changing it. The caller has the structure lock.
pub(crate) fn compact<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<bool> {
    let Some(_list) = store.lock(list_lock(probe.entry.list), LockMode::Exclusive, false)? else {
        return Ok(false);
    };
    let Some(head) = current_head(store, geometry, probe)? else {
        return Ok(false);
    };
    let (records, pages) = read_records(store, geometry, probe, head)?;
    let rows = records.len() / CodeRecord::bytes(geometry);
    if !is_sparse(geometry, rows, pages) {
        return Ok(false);
    }
    let generation = probe.entry.generation.wrapping_add(1);
    let mut all: Vec<&[u8]> = memory::vector(rows)?;
    all.extend(records.chunks_exact(CodeRecord::bytes(geometry)));
    let records = all;
    let new = write_list(store, geometry, probe.entry.list, generation, &records)?;
    let mut page = store.write(probe.block)?;
    let Some(mut entry) = directory::current_entry(geometry, &page, probe) else {
        return Err(Error::corrupted(
            probe.block,
            "a list's entry moved under the structure lock",
        ));
    };
    (entry.generation, entry.head, entry.count) = (generation, new, rows as u32);
    directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
    store.commit(vec![page])?;
    release_list(store, geometry, probe, head)?;
    Ok(true)
}

/// The list's records one after the other, and the number of its pages.
fn read_records<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, head: u32) -> Result<(Vec<u8>, usize)> {
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    let mut records = Vec::new();
    let mut refines = Vec::new();
    let mut pages = 0;
    let walked = list::walk(store, head, list, generation, |_, page| {
        pages += list::pages_with(geometry, page);
        records.try_reserve(geometry.slots() * CodeRecord::bytes(geometry))?;
        for slot in list::live_slots(geometry, page) {
            list::take_scan(geometry, page, slot, &mut records);
            grow::push(&mut refines, list::refine_place(geometry, page, slot))?;
        }
        Ok(())
    })?;
    if walked == Walked::Moved {
        return Err(Error::corrupted(head, "not the head of its list"));
    }
    debug_assert_eq!(head == NONE, pages == 0);
    let bytes = CodeRecord::bytes(geometry);
    for ((block, place), record) in refines.into_iter().zip(records.chunks_exact_mut(bytes)) {
        let page = store.read(block)?;
        if !page.is(Kind::Refine, list, generation) || place >= geometry.refines {
            return Err(Error::corrupted(block, "not a refine page of its list"));
        }
        CodeRecord::refine_mut(record, geometry).copy_from_slice(list::refine_record(geometry, &page, place));
    }
    Ok((records, pages))
}

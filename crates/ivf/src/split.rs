//! An overfull list becomes several.
//!
//! The new lists are written in full first, on pages that nothing leads to. One record then changes the directory: the
//! old list's entry becomes the first new one's, in the next generation, and the others are added. A crash before it
//! leaves the old list as it was, and some pages that nothing uses.
use crate::code::{self, Record, Scratch};
use crate::directory::{self, ListEntry, OwnedCentroid, Probe};
use crate::geometry::Geometry;
use crate::insert::list_lock;
use crate::kmeans;
use crate::list::{self, Walked};
use crate::page::{Kind, NONE, Page};
use crate::store::LockMode;
use crate::{Error, Meta, PageStore, PageWrite, Result, Tid};

/// Rows for which a list is made.
pub(crate) const ROWS_PER_LIST: usize = 256;
/// Rows with which a list is split.
pub(crate) const OVERFULL: usize = 1024;
/// Lists that one split makes, at most.
const MOST_PARTS: usize = 16;

/// Whether a list has so many rows that it should be split. One that could not be split when it was last counted is tried
/// again when it has twice as many: its rows may all be the same.
pub(crate) fn is_overfull<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<bool> {
    let mut slots = 0;
    let head = current_head(store, geometry, probe)?;
    let Some(head) = head else { return Ok(false) };
    list::walk(store, head, probe.entry.list, probe.entry.generation, |_, page| {
        slots += (0..list::used_blocks(geometry, page))
            .map(|block| list::live(geometry, page, block).count_ones() as usize)
            .sum::<usize>();
        Ok(())
    })?;
    let known = probe.entry.count as usize;
    Ok(slots >= OVERFULL && (known < OVERFULL || slots >= 2 * known))
}

pub(crate) fn current_head<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<Option<u32>> {
    let page = store.read(probe.block)?;
    page.expect(probe.block, Kind::Directory)?;
    if probe.at as usize >= directory::entries(geometry, &page) {
        return Ok(None);
    }
    let entry = directory::list_entry(geometry, &page, probe.at as usize);
    let same = entry.list == probe.entry.list && entry.generation == probe.entry.generation && entry.head != NONE;
    Ok(same.then_some(entry.head))
}

/// Splits a list, unless somebody else is changing it or the structure. `structure_held`: the caller has that lock.
pub(crate) fn split<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, structure_held: bool) -> Result<bool> {
    let _structure = if structure_held {
        None
    } else {
        match store.lock(0, LockMode::Exclusive, false)? {
            None => return Ok(false),
            lock => lock,
        }
    };
    let Some(_list) = store.lock(list_lock(probe.entry.list), LockMode::Exclusive, false)? else {
        return Ok(false);
    };
    let Some(head) = current_head(store, geometry, probe)? else {
        return Ok(false);
    };
    let meta = Meta::read(store)?;
    let centroid = OwnedCentroid::read(store, geometry, probe)?;
    let rows = read_rows(store, &meta, geometry, probe, head, &centroid)?;
    if rows.tids.len() < OVERFULL {
        return Ok(false);
    }
    let room = room_for_entries(store, geometry, probe)?;
    let parts = rows.tids.len().div_ceil(ROWS_PER_LIST).min(MOST_PARTS).min(1 + room);
    if parts < 2 {
        return Ok(false);
    }
    let centroids = kmeans::split(&rows.vectors, geometry.rotated, parts);
    if centroids.len() < 2 {
        // All rows are the same: more lists would not help.
        count_rows(store, geometry, probe, rows.tids.len() as u32)?;
        return Ok(false);
    }
    let entries = write_lists(store, &meta, geometry, probe, &rows, &centroids)?;
    replace_entry(store, geometry, probe, &centroids, &entries)?;
    release_list(store, geometry, probe, head)?;
    Ok(true)
}

/// Stores in the directory how many rows a list has.
fn count_rows<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, rows: u32) -> Result<()> {
    let mut page = store.write(probe.block)?;
    page.expect(probe.block, Kind::Directory)?;
    let mut entry = directory::list_entry(geometry, &page, probe.at as usize);
    entry.count = rows;
    directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
    store.commit(vec![page])
}

struct Rows {
    tids: Vec<Tid>,
    /// As far as the six-bit codes know them, one after the other.
    vectors: Vec<f32>,
}

fn read_rows<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    probe: &Probe,
    head: u32,
    centroid: &OwnedCentroid,
) -> Result<Rows> {
    let mut tids = Vec::new();
    let mut places = Vec::new();
    let walked = list::walk(store, head, probe.entry.list, probe.entry.generation, |_, page| {
        for slot in live_slots(geometry, page) {
            tids.push(list::tid(geometry, page, slot));
            places.push(list::refine_place(geometry, page, slot));
        }
        Ok(())
    })?;
    if walked == Walked::Moved {
        return Err(Error::corrupted(head, "not the head of its list"));
    }
    let mut vectors = vec![0.0; tids.len() * geometry.rotated];
    let mut code = vec![0; geometry.rotated];
    for ((block, place), out) in places.into_iter().zip(vectors.chunks_exact_mut(geometry.rotated)) {
        let page = store.read(block)?;
        if !page.is(Kind::Refine, probe.entry.list, probe.entry.generation) || place >= geometry.refines {
            return Err(Error::corrupted(block, "not a refine page of its list"));
        }
        let record = list::refine_record(geometry, &page, place);
        code::decode(meta.metric, record, centroid.view(), &mut code, out);
    }
    Ok(Rows { tids, vectors })
}

/// Slots of a scan page that hold a row.
pub(crate) fn live_slots<'p>(geometry: &'p Geometry, page: &'p Page) -> impl Iterator<Item = usize> + 'p {
    use crate::geometry::BLOCK;
    (0..list::used_blocks(geometry, page)).flat_map(move |block| {
        let mask = list::live(geometry, page, block);
        (0..BLOCK)
            .filter(move |within| mask >> within & 1 == 1)
            .map(move |within| block * BLOCK + within)
    })
}

/// Entries that the directory page, and new ones behind it, can take within one record (with the meta page in it).
fn room_for_entries<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<usize> {
    let page = store.read(probe.block)?;
    let here = geometry.centroids - directory::entries(geometry, &page);
    Ok(here + (S::MOST_PAGES - 2) * geometry.centroids)
}

fn write_lists<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    probe: &Probe,
    rows: &Rows,
    centroids: &[OwnedCentroid],
) -> Result<Vec<ListEntry>> {
    let mut scratch = Scratch::default();
    let mut records = vec![Vec::new(); centroids.len()];
    let mut squares = vec![0.0f64; centroids.len()];
    for (tid, vector) in rows.tids.iter().zip(rows.vectors.chunks_exact(geometry.rotated)) {
        let nearest = kmeans::nearest(vector, centroids);
        squares[nearest] += f64::from(code::encode(
            meta.metric,
            geometry,
            vector,
            centroids[nearest].view(),
            *tid,
            &mut scratch,
            &mut records[nearest],
        ));
    }
    let bytes = Record::bytes(geometry);
    let mut entries = Vec::with_capacity(centroids.len());
    for (part, records) in records.iter().enumerate() {
        let records: Vec<&[u8]> = records.chunks_exact(bytes).collect();
        let (list, generation) = match part {
            0 => (probe.entry.list, probe.entry.generation.wrapping_add(1)),
            _ => (meta.next_list + part as u32 - 1, 0),
        };
        let head = write_list(store, geometry, list, generation, &records)?;
        entries.push(ListEntry {
            list,
            generation,
            head,
            count: records.len() as u32,
            reach: (squares[part] / records.len().max(1) as f64).sqrt() as f32,
        });
    }
    Ok(entries)
}

/// Writes a list on pages of its own and gives its head.
pub(crate) fn write_list<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    list: u32,
    generation: u32,
    records: &[&[u8]],
) -> Result<u32> {
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

/// The one record that makes the new lists the index's.
fn replace_entry<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    probe: &Probe,
    centroids: &[OwnedCentroid],
    entries: &[ListEntry],
) -> Result<()> {
    let mut pages = vec![store.write(probe.block)?];
    let next = pages[0].trailer().next;
    let put = |page: &mut Page, at: usize, part: usize| {
        directory::put_centroid(geometry, page, at, centroids[part].view());
        directory::put_list_entry(geometry, page, at, entries[part]);
    };
    put(pages[0].page_mut(), probe.at as usize, 0);
    for part in 1..entries.len() {
        let last = pages.len() - 1;
        let at = directory::entries(geometry, &pages[last]);
        if at < geometry.centroids {
            put(pages[last].page_mut(), at, part);
            continue;
        }
        let mut page = store.allocate()?;
        page.page_mut().init(Kind::Directory, 0, 0);
        let block = page.block();
        pages[last].page_mut().set_next(block);
        page.page_mut().set_next(next);
        put(page.page_mut(), 0, part);
        pages.push(page);
    }
    let mut meta_page = store.write(0)?;
    let mut meta = Meta::parse(&meta_page)?;
    meta.lists += entries.len() as u32 - 1;
    meta.next_list += entries.len() as u32 - 1;
    meta.write(meta_page.page_mut());
    pages.push(meta_page);
    store.commit(pages)
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::Memory;
    use crate::vacuum::read_directory;
    use crate::{Metric, check, cleanup, create_empty, insert};

    fn put(store: &Memory, row: &[f32], at: u32) {
        insert(store, row, Tid::new(at / 100, (at % 100 + 1) as u16)).unwrap();
    }

    #[test]
    fn equal_rows_are_not_tried_at_every_new_page_and_split_once_they_can_be() {
        let store = Memory::new();
        create_empty(&store, 32, Metric::L2).unwrap();
        let meta = Meta::read(&store).unwrap();
        let geometry = meta.geometry().unwrap();
        let branch = store.read(meta.branch_block).unwrap();
        let first = directory::branch_entry(&geometry, &branch, 0).directory;
        drop(branch);
        let mut counts = Vec::new();
        for at in 0..6000 {
            put(&store, &[1.0; 32], at);
            counts.push(read_directory(&store, &geometry, first).unwrap().0[0].entry.count);
        }
        counts.dedup();
        assert!(
            counts.len() == 3 && counts.windows(2).all(|two| two[1] >= 2 * two[0]),
            "{counts:?}"
        );
        // Rows that differ come: the list is split when it is tried again.
        for at in 6000..13_000u32 {
            let row: Vec<f32> = (0..32)
                .map(|i| (at.wrapping_mul(2_654_435_761) >> i & 7) as f32)
                .collect();
            put(&store, &row, at);
        }
        cleanup(&store).unwrap();
        let report = check(&store, &mut |_| Ok(())).unwrap();
        assert_eq!((report.rows, report.problems), (13_000, vec![]));
        assert!(Meta::read(&store).unwrap().lists > 4);
    }
}

//! One row into the list of its nearest centroid.
use crate::code::{self, Query, Scratch};
use crate::directory::{self, Descent, Probe};
use crate::geometry::Geometry;
use crate::list;
use crate::page::{Kind, NONE};
use crate::rotation::Rotation;
use crate::search::normalised;
use crate::split;
use crate::store::LockMode;
use crate::{Error, Meta, Metric, PageStore, PageWrite, Result, Tid};

/// The lock of a list, by number. Block 0 is the lock of the index's structure.
pub(crate) fn list_lock(list: u32) -> u32 {
    list.wrapping_add(1)
}

/// Adds a row. False: it has no place in the index (a zero vector under cosine).
///
/// # Errors
/// A vector of other dimensions than the index's; a corrupted page.
pub fn insert<S: PageStore>(store: &S, vector: &[f32], tid: Tid) -> Result<bool> {
    let meta = Meta::read(store)?;
    let geometry = meta.geometry()?;
    if vector.len() != geometry.dimensions {
        return Err(Error::Dimensions {
            expected: geometry.dimensions,
            actual: vector.len(),
        });
    }
    let vector = match meta.metric {
        Metric::Cosine => match normalised(vector) {
            Some(vector) => vector,
            None => return Ok(false),
        },
        Metric::L2 | Metric::InnerProduct => vector.to_vec(),
    };
    let mut rotated = vec![0.0; geometry.rotated];
    Rotation::shared(&geometry, meta.seed).apply(&vector, &mut rotated);
    // Rows are assigned by Euclidean distance under every metric.
    let query = Query::new(Metric::L2, &geometry, &rotated);
    let mut scratch = Scratch::default();
    loop {
        store.interrupts()?;
        let probe = Descent::new(store, &meta, &geometry, &query)?
            .next(store, &geometry, &query, 1)?
            .first()
            .copied()
            .ok_or_else(|| Error::corrupted(meta.branch_block, "no list in any branch"))?;
        let Some(lock) = store.lock(list_lock(probe.entry.list), LockMode::Share, true)? else {
            continue;
        };
        // A split may have come before the lock.
        let Some(record) = encode_for(store, &meta, &geometry, &rotated, &probe, tid, &mut scratch)? else {
            continue;
        };
        let grown = match put_first(store, &geometry, &probe, &record)? {
            Some(head) => append(store, &geometry, &probe, head, &record)?,
            None => false,
        };
        drop(lock);
        if grown && split::is_overfull(store, &geometry, &probe)? {
            split::split(store, &geometry, &probe, false)?;
        }
        return Ok(true);
    }
}

/// The row's codes, if the directory still says what the probe found there.
fn encode_for<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    rotated: &[f32],
    probe: &Probe,
    tid: Tid,
    scratch: &mut Scratch,
) -> Result<Option<Vec<u8>>> {
    let page = store.read(probe.block)?;
    page.expect(probe.block, Kind::Directory)?;
    let at = probe.at as usize;
    if at >= directory::entries(geometry, &page) {
        return Ok(None);
    }
    let entry = directory::list_entry(geometry, &page, at);
    if entry.list != probe.entry.list || entry.generation != probe.entry.generation {
        return Ok(None);
    }
    let mut record = Vec::new();
    let centroid = directory::centroid(geometry, &page, at);
    code::encode(meta.metric, geometry, rotated, centroid, tid, scratch, &mut record);
    Ok(Some(record))
}

/// The head of a list; where it had none, makes its first pages with the record on them and gives none.
fn put_first<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, record: &[u8]) -> Result<Option<u32>> {
    let at = probe.at as usize;
    {
        let page = store.read(probe.block)?;
        let head = directory::list_entry(geometry, &page, at).head;
        if head != NONE {
            return Ok(Some(head));
        }
    }
    let mut page = store.write(probe.block)?;
    let mut entry = directory::list_entry(geometry, &page, at);
    if entry.head != NONE {
        return Ok(Some(entry.head));
    }
    let (scan, refine) = first_pages(store, geometry, probe, record)?;
    entry.head = scan.block();
    directory::put_list_entry(geometry, page.page_mut(), at, entry);
    store.commit(vec![page, scan, refine])?;
    Ok(None)
}

/// A new scan page and its first refine page with one record.
fn first_pages<'s, S: PageStore>(
    store: &'s S,
    geometry: &Geometry,
    probe: &Probe,
    record: &[u8],
) -> Result<(S::Write<'s>, S::Write<'s>)> {
    let mut scan = store.allocate()?;
    let mut refine = store.allocate()?;
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    list::init_scan(geometry, scan.page_mut(), list, generation);
    refine.page_mut().init(Kind::Refine, list, generation);
    let block = refine.block();
    list::set_refine_block(scan.page_mut(), 0, block);
    list::put_refine(geometry, refine.page_mut(), 0, record);
    list::put_scan(geometry, scan.page_mut(), 0, record);
    Ok((scan, refine))
}

/// Puts the record into the first free slot from the list's insert page on. True: the list got a new scan page.
fn append<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, head: u32, record: &[u8]) -> Result<bool> {
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    let start = {
        let page = store.read(head)?;
        check(head, page.is(Kind::Scan, list, generation), "not the head of its list")?;
        match list::insert_page(&page) {
            NONE => head,
            block => block,
        }
    };
    let (mut block, mut steps) = (start, 0);
    loop {
        let mut page = store.write(block)?;
        check(
            block,
            page.is(Kind::Scan, list, generation),
            "not a scan page of its list",
        )?;
        if let Some(slot) = list::free_slot(geometry, &page) {
            put_into(store, geometry, probe, page, slot, record)?;
            break;
        }
        let next = page.trailer().next;
        if next == NONE {
            let (scan, refine) = first_pages(store, geometry, probe, record)?;
            block = scan.block();
            page.page_mut().set_next(block);
            store.commit(vec![page, scan, refine])?;
            set_insert_page(store, probe, head, block)?;
            return Ok(true);
        }
        steps += 1;
        if steps % 64 == 0 {
            check(head, steps <= store.blocks()?, "chain of pages runs in a circle")?;
        }
        block = next;
    }
    if block != start {
        set_insert_page(store, probe, head, block)?;
    }
    Ok(false)
}

fn put_into<'s, S: PageStore>(
    store: &'s S,
    geometry: &Geometry,
    probe: &Probe,
    mut page: S::Write<'s>,
    slot: usize,
    record: &[u8],
) -> Result<()> {
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    let (refine_block, place) = list::refine_place(geometry, &page, slot);
    let mut refine = if refine_block == NONE {
        let mut refine = store.allocate()?;
        refine.page_mut().init(Kind::Refine, list, generation);
        let block = refine.block();
        list::set_refine_block(page.page_mut(), slot / geometry.refines, block);
        refine
    } else {
        let refine = store.write(refine_block)?;
        check(
            refine_block,
            refine.is(Kind::Refine, list, generation),
            "not a refine page of its list",
        )?;
        refine
    };
    list::put_refine(geometry, refine.page_mut(), place, record);
    list::put_scan(geometry, page.page_mut(), slot, record);
    store.commit(vec![page, refine])
}

/// Remembers where the next insert should begin; only a hint.
fn set_insert_page<S: PageStore>(store: &S, probe: &Probe, head: u32, block: u32) -> Result<()> {
    let mut page = store.write(head)?;
    if page.is(Kind::Scan, probe.entry.list, probe.entry.generation) && list::insert_page(&page) != block {
        list::set_insert_page(page.page_mut(), block);
        store.commit(vec![page])?;
    }
    Ok(())
}

fn check(block: u32, sound: bool, what: &str) -> Result<()> {
    if sound {
        Ok(())
    } else {
        Err(Error::corrupted(block, what))
    }
}

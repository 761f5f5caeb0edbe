//! One row into the list of its nearest centroid.
use crate::code::{self, Query, Scratch};
use crate::descent::Descent;
use crate::directory::{self, MOST_RESTARTS, Probe};
use crate::geometry::Geometry;
use crate::list;
use crate::page::{Kind, NONE};
use crate::rotation::Rotation;
use crate::search::normalised;
use crate::store::{LockMode, list_lock};
use crate::{Error, Meta, Metric, PageStore, PageWrite, Result, Tid, recall, split};

/// Adds a row to an index without filter columns, as [`insert_with`] does.
///
/// # Errors
/// A vector of other dimensions than the index's; a corrupted page.
pub fn insert<S: PageStore>(store: &S, vector: &[f32], tid: Tid) -> Result<bool> {
    insert_with(store, vector, &[], tid)
}

/// Adds a row with the values of the index's filter columns, none for NULL. False: it has no place in the index (a zero
/// vector under cosine).
///
/// # Errors
/// A vector of other dimensions than the index's; fewer or more values than it has columns; a corrupted page.
pub fn insert_with<S: PageStore>(store: &S, vector: &[f32], values: &[Option<i128>], tid: Tid) -> Result<bool> {
    let meta = Meta::read(store)?;
    let geometry = meta.geometry()?;
    let mut filters = Vec::with_capacity(geometry.filters.row_bytes());
    geometry.filters.put_row(values, &mut filters)?;
    let row = (tid, filters.as_slice());
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
    for _ in 0..MOST_RESTARTS {
        store.interrupts()?;
        let Some(nearest) = Descent::new(store, &meta, &geometry, &query)?.next(store, &geometry, &query, 1)? else {
            continue;
        };
        let probe = nearest
            .first()
            .copied()
            .ok_or_else(|| Error::corrupted(meta.branch_block, "no list in any branch"))?;
        let Some(lock) = store.lock(list_lock(probe.entry.list), LockMode::Share, true)? else {
            continue;
        };
        // A split may have come before the lock.
        let Some(record) = encode_for(store, &meta, &geometry, &rotated, &probe, row, &mut scratch)? else {
            continue;
        };
        let grown = match put_first(store, &geometry, &probe, &record)? {
            First::Has(head) => append(store, &geometry, &probe, head, &record)?,
            First::Put => false,
            First::Moved => continue,
        };
        drop(lock);
        if grown && split::is_overfull(store, &geometry, &probe)? && split::split(store, &geometry, &probe, false)? {
            recall::measure_if_grown(store)?;
        }
        return Ok(true);
    }
    Err(Error::corrupted(
        meta.branch_block,
        "leads to lists that are not where it says",
    ))
}

/// The row's codes, if the directory still says what the probe found there.
fn encode_for<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    rotated: &[f32],
    probe: &Probe,
    row: (Tid, &[u8]),
    scratch: &mut Scratch,
) -> Result<Option<Vec<u8>>> {
    let page = store.read(probe.block)?;
    if directory::current_entry(geometry, &page, probe).is_none() {
        return Ok(None);
    }
    let mut record = Vec::new();
    let centroid = directory::centroid(geometry, &page, probe.at as usize);
    code::encode(meta.metric, geometry, rotated, centroid, row, scratch, &mut record);
    Ok(Some(record))
}

/// What became of the attempt to put a record as a list's first.
enum First {
    /// It is not the first: the list's first page.
    Has(u32),
    /// It is the first, on new pages.
    Put,
    /// The list's entry is no longer where it was.
    Moved,
}

/// Makes the first pages of a list that has none, with the record on them.
fn put_first<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, record: &[u8]) -> Result<First> {
    {
        let page = store.read(probe.block)?;
        match directory::current_entry(geometry, &page, probe) {
            None => return Ok(First::Moved),
            Some(entry) if entry.head != NONE => return Ok(First::Has(entry.head)),
            Some(_) => (),
        }
    }
    let mut page = store.write(probe.block)?;
    let mut entry = match directory::current_entry(geometry, &page, probe) {
        None => return Ok(First::Moved),
        Some(entry) if entry.head != NONE => return Ok(First::Has(entry.head)),
        Some(entry) => entry,
    };
    let (scan, refine) = first_pages(store, geometry, probe, record)?;
    entry.head = scan.block();
    directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
    store.commit(vec![page, scan, refine])?;
    Ok(First::Put)
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

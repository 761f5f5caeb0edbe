//! Rows that no one can see any more leave; counts and curve become true again.
use crate::directory::{self, Probe};
use crate::geometry::{BLOCK, Geometry};
use crate::list::{self, Walked};
use crate::page::{NONE, Page};
use crate::store::LockMode;
use crate::{Error, Meta, PageStore, PageWrite, Result, Tid, branch, compact, recall, split};

/// What a vacuum found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Rows taken out.
    pub removed: u64,
    /// Rows left.
    pub remaining: u64,
    /// Lists that were split.
    pub splits: u32,
    /// Lists that moved to fewer pages.
    pub compacted: u32,
}

/// Takes out every row that `is_dead` names.
///
/// Visits every row that was in the index when it began: lists are not split meanwhile.
pub fn bulk_delete<S: PageStore>(store: &S, is_dead: &mut dyn FnMut(Tid) -> bool) -> Result<Vacuumed> {
    let _structure = store.lock(0, LockMode::Exclusive, true)?;
    let meta = Meta::read(store)?;
    let geometry = meta.geometry()?;
    let mut done = Vacuumed::default();
    for_each_list(store, &meta, &geometry, |probe| {
        let swept = sweep(store, &geometry, probe, is_dead)?;
        done.removed += swept.removed;
        done.remaining += swept.remaining;
        Ok(swept.remaining as u32)
    })?;
    Meta::update(store, |meta| meta.rows = done.remaining)?;
    Ok(done)
}

/// Splits lists that grew too long, moves those that lost most of their rows to fewer pages, counts, and measures the
/// recall anew where the lists have changed much.
pub fn cleanup<S: PageStore>(store: &S) -> Result<Vacuumed> {
    let structure = store.lock(0, LockMode::Exclusive, true)?;
    let meta = Meta::read(store)?;
    let geometry = meta.geometry()?;
    let mut done = Vacuumed::default();
    let (mut overfull, mut sparse) = (Vec::new(), Vec::new());
    for_each_list(store, &meta, &geometry, |probe| {
        let swept = sweep(store, &geometry, probe, &mut |_| false)?;
        let rows = swept.remaining as usize;
        if rows >= split::OVERFULL {
            overfull.push(*probe);
        } else if compact::is_sparse(&geometry, rows, swept.pages) {
            sparse.push(*probe);
        }
        done.remaining += swept.remaining;
        Ok(swept.remaining as u32)
    })?;
    for probe in overfull {
        store.interrupts()?;
        done.splits += u32::from(split::split(store, &geometry, &probe, true)?);
    }
    for probe in sparse {
        store.interrupts()?;
        done.compacted += u32::from(compact::compact(store, &geometry, &probe)?);
    }
    // Last, since it moves the entries of lists.
    for (branch, _, _) in directory::branches(store, &meta, &geometry)? {
        store.interrupts()?;
        branch::split_if_crowded(store, &geometry, &branch)?;
    }
    Meta::update(store, |meta| meta.rows = done.remaining)?;
    drop(structure);
    let meta = Meta::read(store)?;
    let changed = f64::from(meta.lists) / f64::from(meta.measured_lists.max(1));
    // An earlier version measured no distances.
    if meta.lists > 1 && (meta.curve.is_empty() || meta.distances.is_empty() || changed > 1.2) {
        recall::measure_recall(store)?;
    }
    Ok(done)
}

/// Visits every list, and stores the count that `visit` gives.
fn for_each_list<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    mut visit: impl FnMut(&Probe) -> Result<u32>,
) -> Result<()> {
    for (branch, _, _) in directory::branches(store, meta, geometry)? {
        let (mut block, mut steps) = (branch.directory, 0);
        while block != NONE {
            store.interrupts()?;
            let Some((probes, next)) = directory::read_page(store, geometry, &branch, block)? else {
                return Err(Error::corrupted(block, "not a directory page of its branch"));
            };
            let mut counts = Vec::with_capacity(probes.len());
            for probe in &probes {
                counts.push(visit(probe)?);
            }
            store_counts(store, geometry, block, &probes, &counts)?;
            steps += 1;
            if steps > store.blocks()? {
                return Err(Error::corrupted(branch.directory, "chain of pages runs in a circle"));
            }
            block = next;
        }
    }
    Ok(())
}

fn store_counts<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    block: u32,
    probes: &[Probe],
    counts: &[u32],
) -> Result<()> {
    if probes
        .iter()
        .zip(counts)
        .all(|(probe, &count)| probe.entry.count == count)
    {
        return Ok(());
    }
    let mut page = store.write(block)?;
    for (probe, &count) in probes.iter().zip(counts) {
        // An insert may have made the list's first page since.
        if let Some(mut entry) = directory::current_entry(geometry, &page, probe) {
            entry.count = count;
            directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
        }
    }
    store.commit(vec![page])
}

/// What a visit to a list found.
struct Swept {
    removed: u64,
    remaining: u64,
    pages: usize,
}

/// Clears the dead rows of a list.
fn sweep<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    probe: &Probe,
    is_dead: &mut dyn FnMut(Tid) -> bool,
) -> Result<Swept> {
    let head = probe.entry.head;
    let (mut removed, mut remaining, mut count) = (0, 0, 0);
    let mut first_with_room = None;
    let mut pages = Vec::new();
    let walked = list::walk(store, head, probe.entry.list, probe.entry.generation, |block, page| {
        count += list::pages_with(geometry, page);
        let dead = dead_slots(geometry, page, is_dead);
        let lives: u32 = (0..list::used_blocks(geometry, page))
            .map(|b| list::live(geometry, page, b).count_ones())
            .sum();
        let gone: u32 = dead.iter().map(|mask| mask.count_ones()).sum();
        removed += u64::from(gone);
        remaining += u64::from(lives - gone);
        if first_with_room.is_none() && (gone > 0 || list::free_slot(geometry, page).is_some()) {
            first_with_room = Some(block);
        }
        if gone > 0 {
            pages.push((block, dead));
        }
        Ok(())
    })?;
    if walked == Walked::Moved {
        return Err(Error::corrupted(head, "not the head of its list"));
    }
    for (block, dead) in pages {
        store.interrupts()?;
        // Nobody else clears slots, and nobody fills those that are taken: the masks still hold.
        let mut page = store.write(block)?;
        for (b, mask) in dead.into_iter().enumerate() {
            if mask != 0 {
                let live = list::live(geometry, &page, b) & !mask;
                list::set_live(geometry, page.page_mut(), b, live);
            }
        }
        store.commit(vec![page])?;
    }
    if removed > 0
        && let Some(room) = first_with_room
    {
        let mut page = store.write(head)?;
        if list::insert_page(&page) != room {
            list::set_insert_page(page.page_mut(), room);
            store.commit(vec![page])?;
        }
    }
    store.interrupts()?;
    Ok(Swept {
        removed,
        remaining,
        pages: count,
    })
}

/// For each block, the slots whose rows are dead.
fn dead_slots(geometry: &Geometry, page: &Page, is_dead: &mut dyn FnMut(Tid) -> bool) -> Vec<u32> {
    (0..list::used_blocks(geometry, page))
        .map(|block| {
            let live = list::live(geometry, page, block);
            (0..BLOCK)
                .filter(|within| live >> within & 1 == 1 && is_dead(list::tid(geometry, page, block * BLOCK + within)))
                .fold(0, |mask, within| mask | 1 << within)
        })
        .collect()
}

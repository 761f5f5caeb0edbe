//! An overfull list becomes several.
//!
//! The new lists are written in full first, on pages that nothing leads to. One record then changes the directory: the
//! old list's entry becomes the first new one's, in the next generation, and the others are added. A crash before it
//! leaves the old list as it was, and some pages that nothing uses.
use crate::centroid::OwnedCentroid;
use crate::code::{self, CodeRecord, Scratch};
use crate::directory::{self, ListEntry, Probe};
use crate::geometry::Geometry;
use crate::kmeans;
use crate::list::{self, Walked};
use crate::meta::ROWS_PER_LIST;
use crate::page::Kind;
use crate::rewrite::{current_head, release_list, write_list};
use crate::rotation::Rotation;
use crate::sampling::rescale;
use crate::store::{LockMode, list_lock};
use crate::{Error, Meta, Metric, PageStore, PageWrite, Result, Tid, branch, grow};

/// Rows with which a list is split.
pub(crate) const OVERFULL: usize = 1024;
/// Lists that one split makes, at most.
const MOST_PARTS: usize = 16;
/// Rows of a list by which it is divided, at most: a list of equal rows may be as long as its table.
const MOST_SAMPLED: usize = 4096;

/// Whether a list has so many rows that it should be split. One that could not be split when it was last counted is
/// tried again when it has twice as many: its rows may all be the same.
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
    let Some(centroid) = OwnedCentroid::read(store, geometry, probe)? else {
        return Ok(false);
    };
    let rows = Rows::read(store, &meta, geometry, probe, head, centroid)?;
    if rows.places.len() < OVERFULL {
        return Ok(false);
    }
    let room = directory::room_behind(store, geometry, probe.block)?;
    let parts = rows.places.len().div_ceil(ROWS_PER_LIST).min(MOST_PARTS).min(1 + room);
    if parts < 2 {
        return Ok(false);
    }
    let centroids = kmeans::split(&rows.sample()?, geometry.rotated, parts)?;
    if centroids.len() < 2 {
        // All rows are the same: more lists would not help.
        count_rows(store, geometry, probe, rows.places.len() as u32)?;
        return Ok(false);
    }
    let entries = write_lists(&rows, &centroids)?;
    replace_entry(store, geometry, probe, &centroids, &entries)?;
    release_list(store, geometry, probe, head)?;
    if !structure_held {
        branch::split_if_crowded(store, geometry, &probe.branch)?;
    }
    Ok(true)
}

/// Stores in the directory how many rows a list has.
fn count_rows<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe, rows: u32) -> Result<()> {
    let mut page = store.write(probe.block)?;
    if let Some(mut entry) = directory::current_entry(geometry, &page, probe) {
        entry.count = rows;
        directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
        store.commit(vec![page])?;
    }
    Ok(())
}

/// The rows of a list, as far as its six-bit codes know them.
struct Rows<'s, S: PageStore> {
    store: &'s S,
    meta: &'s Meta,
    geometry: &'s Geometry,
    probe: &'s Probe,
    centroid: OwnedCentroid,
    /// Each row, the block of its code, and the place there.
    places: Vec<(Tid, u32, usize)>,
    /// The filter columns' values of each row, one after the other.
    filters: Vec<u8>,
}

impl<'s, S: PageStore> Rows<'s, S> {
    fn read(
        store: &'s S,
        meta: &'s Meta,
        geometry: &'s Geometry,
        probe: &'s Probe,
        head: u32,
        centroid: OwnedCentroid,
    ) -> Result<Self> {
        let (mut places, mut filters) = (Vec::new(), Vec::new());
        let walked = list::walk(store, head, probe.entry.list, probe.entry.generation, |_, page| {
            for slot in list::live_slots(geometry, page) {
                let (block, place) = list::refine_place(geometry, page, slot);
                grow::push(&mut places, (list::tid(geometry, page, slot), block, place))?;
                filters.try_reserve(geometry.filters.row_bytes())?;
                list::take_filters(geometry, page, slot, &mut filters);
            }
            Ok(())
        })?;
        if walked == Walked::Moved {
            return Err(Error::corrupted(head, "not the head of its list"));
        }
        Ok(Rows {
            store,
            meta,
            geometry,
            probe,
            centroid,
            places,
            filters,
        })
    }

    /// Decodes every `step`-th row, one at a time: pointer and filter columns' values, and the vector.
    fn each(&self, step: usize, mut visit: impl FnMut((Tid, &[u8]), &[f32]) -> Result<()>) -> Result<()> {
        let mut vector = vec![0.0; self.geometry.rotated];
        let mut code = vec![0; self.geometry.rotated];
        let rotation = Rotation::shared(self.geometry, self.meta.seed);
        for (at, &(tid, block, place)) in self.places.iter().step_by(step).enumerate() {
            if at.is_multiple_of(ROWS_PER_LIST) {
                self.store.interrupts()?;
            }
            let page = self.store.read(block)?;
            let entry = &self.probe.entry;
            if !page.is(Kind::Refine, entry.list, entry.generation) || place >= self.geometry.refines {
                return Err(Error::corrupted(block, "not a refine page of its list"));
            }
            let record = list::refine_record(self.geometry, &page, place);
            code::decode(self.meta.metric, record, self.centroid.view(), &mut code, &mut vector);
            drop(page);
            // What is known of a row beside its code takes most of the code's error away, which would add up.
            rotation.keep_within(&mut vector);
            if self.meta.metric == Metric::Cosine {
                rescale(&mut vector, 1.0);
            }
            let bytes = self.geometry.filters.row_bytes();
            let filters = &self.filters[at * step * bytes..][..bytes];
            visit((tid, filters), &vector)?;
        }
        Ok(())
    }

    /// Up to so many of them, one after the other.
    fn sample(&self) -> Result<Vec<f32>> {
        let step = self.places.len().div_ceil(MOST_SAMPLED).max(1);
        let mut vectors = memory::vector(self.places.len().div_ceil(step) * self.geometry.rotated)?;
        self.each(step, |_, vector| {
            vectors.extend_from_slice(vector);
            Ok(())
        })?;
        Ok(vectors)
    }
}

fn write_lists<S: PageStore>(rows: &Rows<'_, S>, centroids: &[OwnedCentroid]) -> Result<Vec<ListEntry>> {
    let Rows {
        store,
        meta,
        geometry,
        probe,
        ..
    } = *rows;
    let mut scratch = Scratch::default();
    let mut records = vec![Vec::new(); centroids.len()];
    let mut squares = vec![0.0f64; centroids.len()];
    let bytes = CodeRecord::bytes(geometry);
    rows.each(1, |row, vector| {
        let nearest = kmeans::nearest(vector, centroids);
        let records = &mut records[nearest];
        records.try_reserve(bytes)?;
        squares[nearest] += f64::from(code::encode(
            meta.metric,
            geometry,
            vector,
            centroids[nearest].view(),
            row,
            &mut scratch,
            records,
        ));
        Ok(())
    })?;
    let mut entries = Vec::with_capacity(centroids.len());
    for (part, records) in records.iter().enumerate() {
        let mut of_part: Vec<&[u8]> = memory::vector(records.len() / bytes)?;
        of_part.extend(records.chunks_exact(bytes));
        let records = of_part;
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
            rms_residual: (squares[part] / records.len().max(1) as f64).sqrt() as f32,
        });
    }
    Ok(entries)
}

/// The one record that makes the new lists the index's.
fn replace_entry<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    probe: &Probe,
    centroids: &[OwnedCentroid],
    entries: &[ListEntry],
) -> Result<()> {
    let place = (probe.block, probe.at as usize);
    let kind = (Kind::Directory, probe.branch.chain);
    let mut pages = directory::put_behind(store, geometry, place, kind, entries.len(), |page, at, part| {
        directory::put_centroid(geometry, page, at, centroids[part].view());
        directory::put_list_entry(geometry, page, at, entries[part]);
    })?;
    let mut meta_page = store.write(0)?;
    let mut meta = Meta::parse(&meta_page)?;
    meta.lists += entries.len() as u32 - 1;
    meta.next_list += entries.len() as u32 - 1;
    meta.write(meta_page.page_mut());
    pages.push(meta_page);
    store.commit(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::Memory;
    use crate::{check, cleanup, create_empty, insert};

    fn put(store: &Memory, row: &[f32], at: u32) {
        insert(store, row, Tid::new(at / 100, (at % 100 + 1) as u16)).unwrap();
    }

    #[test]
    fn equal_rows_are_not_tried_at_every_new_page_and_split_once_they_can_be() {
        let store = Memory::new();
        create_empty(&store, 32, Metric::L2).unwrap();
        let meta = Meta::read(&store).unwrap();
        let geometry = meta.geometry().unwrap();
        let branch = directory::branches(&store, &meta, &geometry).unwrap()[0].0;
        let mut counts = Vec::new();
        for at in 0..6000 {
            put(&store, &[1.0; 32], at);
            let page = directory::read_page(&store, &geometry, &branch, branch.directory).unwrap();
            counts.push(page.unwrap().0[0].entry.count);
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

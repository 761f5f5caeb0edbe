//! A branch that leads to too many lists becomes several.
//!
//! An index that fills from empty begins with one branch; every search and every insert would rank all of its lists. As
//! in a list's split, the new directories are written in full first, on pages that nothing leads to, and one record
//! then changes the branches. Whoever read the branches before it finds the old directory, or, once that was given
//! back, pages of another chain, and begins anew.
use crate::centroid::OwnedCentroid;
use crate::directory::{self, BranchEntry, ListEntry};
use crate::geometry::Geometry;
use crate::kmeans;
use crate::list::{self, Walked};
use crate::page::{Kind, NONE, Page};
use crate::{Error, Meta, PageStore, PageWrite, Result};

/// Up to so many lists of a branch are ranked faster than more branches.
const FEW: usize = 256;
/// How many times the lists of an even branch make it crowded.
const CROWDED: usize = 4;

/// A list with its centroid, on its way to another directory.
struct Entry {
    centroid: OwnedCentroid,
    list: ListEntry,
}

/// Splits a branch that leads to many more lists than there are branches. The caller has the structure lock.
///
/// One that could not be split is tried again when it has twice as many lists.
pub(crate) fn split_if_crowded<S: PageStore>(store: &S, geometry: &Geometry, branch: &BranchEntry) -> Result<bool> {
    let meta = Meta::read(store)?;
    // What the entry says now: the caller's may be older.
    let Some((branch, block, at)) = directory::branches(store, &meta, geometry)?
        .into_iter()
        .find(|(found, _, _)| found.directory == branch.directory && found.chain == branch.chain)
    else {
        return Ok(false);
    };
    let even = f64::from(meta.lists).sqrt().ceil() as usize;
    let mut lists = 0;
    let mut pages = Vec::new();
    walk_whole(store, &branch, |block, page| {
        lists += directory::entries(geometry, page);
        pages.push(block);
        Ok(())
    })?;
    if lists <= FEW.max(CROWDED * even) || lists < 2 * branch.lists as usize {
        return Ok(false);
    }
    give_heads(store, geometry, &branch, &pages)?;
    let entries = read_entries(store, geometry, &branch, lists)?;
    let room = directory::room_behind(store, geometry, block)?;
    let wanted = entries.len().div_ceil(even.max(FEW / CROWDED)).min(1 + room);
    let parts = divide(geometry, entries, wanted)?;
    if parts.len() < 2 {
        return note_lists(store, geometry, block, at, lists as u32).map(|()| false);
    }
    let made = write_directories(store, &meta, geometry, &parts)?;
    replace_branch(store, geometry, block, at, &parts, &made)?;
    for page in pages {
        store.interrupts()?;
        list::release(store, page)?;
    }
    store.announce_free()?;
    Ok(true)
}

/// Walks a directory that nobody can change meanwhile.
fn walk_whole<S: PageStore>(
    store: &S,
    branch: &BranchEntry,
    visit: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<()> {
    match directory::walk(store, branch, visit)? {
        Walked::Whole => Ok(()),
        Walked::Moved => Err(Error::corrupted(branch.directory, "not a directory page of its branch")),
    }
}

/// Gives every list of the branch a first page: a list without one gets it from an insert, which changes the directory
/// without the structure lock.
fn give_heads<S: PageStore>(store: &S, geometry: &Geometry, branch: &BranchEntry, pages: &[u32]) -> Result<()> {
    for &block in pages {
        store.interrupts()?;
        let Some((probes, _)) = directory::read_page(store, geometry, branch, block)? else {
            return Err(Error::corrupted(block, "not a directory page of its branch"));
        };
        for probe in probes.iter().filter(|probe| probe.entry.head == NONE) {
            let mut page = store.write(block)?;
            let entry = directory::current_entry(geometry, &page, probe);
            let Some(mut entry) = entry.filter(|entry| entry.head == NONE) else {
                continue;
            };
            let mut scan = store.allocate()?;
            list::init_scan(geometry, scan.page_mut(), entry.list, entry.generation);
            entry.head = scan.block();
            directory::put_list_entry(geometry, page.page_mut(), probe.at as usize, entry);
            store.commit(vec![page, scan])?;
        }
    }
    Ok(())
}

fn read_entries<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    branch: &BranchEntry,
    lists: usize,
) -> Result<Vec<Entry>> {
    let mut entries = memory::vector(lists)?;
    walk_whole(store, branch, |_, page| {
        entries.extend((0..directory::entries(geometry, page)).map(|at| Entry {
            centroid: OwnedCentroid::at(geometry, page, at),
            list: directory::list_entry(geometry, page, at),
        }));
        Ok(())
    })?;
    Ok(entries)
}

/// Lists whose centroids lie together, with the centroid of each part.
fn divide(geometry: &Geometry, entries: Vec<Entry>, wanted: usize) -> Result<Vec<(OwnedCentroid, Vec<Entry>)>> {
    if wanted < 2 {
        return Ok(Vec::new());
    }
    let values = |centroid: &OwnedCentroid| -> Vec<f32> {
        centroid
            .code
            .iter()
            .map(|&code| centroid.scale * f32::from(code))
            .collect()
    };
    let mut vectors: Vec<f32> = memory::vector(entries.len() * geometry.rotated)?;
    vectors.extend(entries.iter().flat_map(|entry| values(&entry.centroid)));
    let centroids = kmeans::split(&vectors, geometry.rotated, wanted)?;
    let mut parts: Vec<(OwnedCentroid, Vec<Entry>)> = centroids
        .iter()
        .map(|centroid| (centroid.clone(), Vec::new()))
        .collect();
    for (entry, vector) in entries.into_iter().zip(vectors.chunks_exact(geometry.rotated)) {
        parts[kmeans::nearest(vector, &centroids)].1.push(entry);
    }
    parts.retain(|(_, lists)| !lists.is_empty());
    Ok(parts)
}

/// Writes the directories of the parts on pages that nothing leads to.
fn write_directories<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    parts: &[(OwnedCentroid, Vec<Entry>)],
) -> Result<Vec<BranchEntry>> {
    let mut made = Vec::with_capacity(parts.len());
    for (part, (_, lists)) in parts.iter().enumerate() {
        let chain = meta.chains + 1 + part as u32;
        // From the last page to the first, so that each is written once, with its link.
        let mut next = NONE;
        for some in lists.chunks(geometry.centroids).rev() {
            store.interrupts()?;
            let mut page = store.allocate()?;
            page.page_mut().init(Kind::Directory, chain, 0);
            page.page_mut().set_next(next);
            for (at, entry) in some.iter().enumerate() {
                directory::put_centroid(geometry, page.page_mut(), at, entry.centroid.view());
                directory::put_list_entry(geometry, page.page_mut(), at, entry.list);
            }
            next = page.block();
            store.commit(vec![page])?;
        }
        made.push(BranchEntry {
            directory: next,
            lists: lists.len() as u32,
            chain,
        });
    }
    Ok(made)
}

/// The one record that makes the new directories the index's.
fn replace_branch<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    block: u32,
    at: usize,
    parts: &[(OwnedCentroid, Vec<Entry>)],
    made: &[BranchEntry],
) -> Result<()> {
    let mut pages = directory::put_behind(
        store,
        geometry,
        (block, at),
        (Kind::Branch, 0),
        made.len(),
        |page, at, part| {
            directory::put_centroid(geometry, page, at, parts[part].0.view());
            directory::put_branch_entry(geometry, page, at, made[part]);
        },
    )?;
    let mut meta_page = store.write(0)?;
    let mut meta = Meta::parse(&meta_page)?;
    meta.branches += made.len() as u32 - 1;
    meta.chains += made.len() as u32;
    meta.write(meta_page.page_mut());
    pages.push(meta_page);
    store.commit(pages)
}

/// Remembers with how many lists it was tried in vain.
fn note_lists<S: PageStore>(store: &S, geometry: &Geometry, block: u32, at: usize, lists: u32) -> Result<()> {
    let mut page = store.write(block)?;
    let mut entry = directory::branch_entry(geometry, &page, at);
    entry.lists = lists;
    directory::put_branch_entry(geometry, page.page_mut(), at, entry);
    store.commit(vec![page])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::kmeans::Tree;
    use crate::rotation::Rotation;
    use crate::stores::{Faulty, Memory};
    use crate::{Metric, Search, SearchOptions, Tid, Trained, Writer, check, insert, stats};

    const LISTS: usize = 300;

    fn row(at: usize) -> Vec<f32> {
        (0..16)
            .map(|i| ((at * 2_654_435_761) >> (i + 3) & 15) as f32 - 7.5)
            .collect()
    }

    /// An index of one branch that leads to all lists.
    fn crowded(rows: usize, centroid: impl Fn(usize) -> Vec<f32>) -> Memory {
        let geometry = Geometry::new(16).unwrap();
        let rotation = Rotation::new(&geometry, crate::meta::SEED);
        let lists: Vec<OwnedCentroid> = (0..LISTS)
            .map(|at| {
                let mut rotated = vec![0.0; geometry.rotated];
                rotation.apply(&centroid(at), &mut rotated);
                OwnedCentroid::round(&rotated)
            })
            .collect();
        let tree = Tree {
            branches: vec![OwnedCentroid::round(&vec![0.0; geometry.rotated])],
            lists: vec![lists],
            shares: vec![1.0 / LISTS as f64; LISTS],
        };
        let trained = Trained::of(geometry, Metric::L2, rotation, tree);
        let store = Memory::new();
        Writer::new(&store, &trained).unwrap().finish().unwrap();
        // As a branch that grew from little.
        note_lists(&store, &geometry, Meta::read(&store).unwrap().branch_block, 0, 1).unwrap();
        for at in 0..rows {
            insert(&store, &row(at), Tid::new(at as u32, 1)).unwrap();
        }
        store
    }

    /// Centroids, every tenth of which is far from any row.
    fn centroid(at: usize) -> Vec<f32> {
        let far = if at.is_multiple_of(10) { 40.0 } else { 1.0 };
        row(at * 7).iter().map(|x| far * x).collect()
    }

    fn first_branch<S: PageStore>(store: &S) -> (Geometry, BranchEntry) {
        let meta = Meta::read(store).unwrap();
        let geometry = meta.geometry().unwrap();
        (geometry, directory::branches(store, &meta, &geometry).unwrap()[0].0)
    }

    fn everything() -> SearchOptions {
        SearchOptions {
            probes: Some(20),
            rerank: false,
            ..SearchOptions::default()
        }
    }

    #[test]
    fn a_crowded_branch_becomes_several_and_a_search_under_way_still_gives_every_row_once() {
        let store = crowded(1500, centroid);
        let empty = stats(&store).unwrap();
        assert!(empty.branches == 1 && empty.empty_lists > 10, "{empty:?}");
        let mut search = Search::new(&store, Some(&row(5)), everything()).unwrap();
        let mut found = HashSet::new();
        for _ in 0..60 {
            assert!(found.insert(search.next(&store, &mut ()).unwrap().unwrap().tid));
        }
        let (geometry, branch) = first_branch(&store);
        assert!(split_if_crowded(&store, &geometry, &branch).unwrap());
        // The old directory's pages are taken by others.
        for at in 1500..1900 {
            insert(&store, &row(at), Tid::new(at as u32, 1)).unwrap();
        }
        while let Some(hit) = search.next(&store, &mut ()).unwrap() {
            assert!(found.insert(hit.tid), "{:?} twice", hit.tid);
        }
        assert!((0..1500).all(|at| found.contains(&Tid::new(at, 1))));
        let report = check(&store, &mut |_| Ok(())).unwrap();
        assert_eq!((report.rows, report.problems, report.unused), (1900, vec![], 0));
        let after = stats(&store).unwrap();
        assert!((3..=5).contains(&after.branches), "{after:?}");
        assert_eq!(after.lists, empty.lists);
        for (branch, _, _) in directory::branches(&store, &Meta::read(&store).unwrap(), &geometry).unwrap() {
            assert!(branch.chain > 0 && branch.lists < LISTS as u32);
            assert!(!split_if_crowded(&store, &geometry, &branch).unwrap());
        }
        // A branch of former times is none any more.
        assert!(!split_if_crowded(&store, &geometry, &branch).unwrap());
    }

    #[test]
    fn a_crash_at_any_record_leaves_the_old_branch_or_the_new_ones() {
        let mut left = (0, 0);
        for records in 0.. {
            let store = Faulty::new(crowded(400, centroid), records);
            let (geometry, branch) = first_branch(&store);
            let outcome = split_if_crowded(&store, &geometry, &branch);
            let memory = store.into_memory();
            let report = check(&memory, &mut |_| Ok(())).unwrap();
            assert_eq!((report.rows, report.problems), (400, vec![]), "after {records} records");
            match Meta::read(&memory).unwrap().branches {
                1 => left.0 += 1,
                _ => left.1 += 1,
            }
            insert(&memory, &row(3), Tid::new(9000, 1)).unwrap();
            let mut search = Search::new(&memory, Some(&row(5)), everything()).unwrap();
            let mut found = 0;
            while search.next(&memory, &mut ()).unwrap().is_some() {
                found += 1;
            }
            assert_eq!(found, 401, "after {records} records");
            if outcome.is_ok() {
                break;
            }
        }
        assert!(left.0 > 20 && left.1 >= 5, "{left:?}");
    }

    #[test]
    fn lists_whose_centroids_are_all_the_same_are_not_tried_at_every_split() {
        let store = crowded(10, |_| row(1));
        let (geometry, branch) = first_branch(&store);
        assert_eq!(branch.lists, 1);
        assert!(!split_if_crowded(&store, &geometry, &branch).unwrap());
        assert_eq!(first_branch(&store).1.lists, LISTS as u32);
        let pages = store.blocks().unwrap();
        assert!(!split_if_crowded(&store, &geometry, &branch).unwrap());
        assert_eq!(store.blocks().unwrap(), pages);
    }
}

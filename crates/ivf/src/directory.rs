//! Centroids on pages: branches lead to directories, directories to lists.
use std::cmp::Ordering;

use crate::centroid::{Centroid, OwnedCentroid};
use crate::geometry::{CENTROID_HEADER, Geometry};
use crate::list::{self, Walked};
use crate::page::{CONTENT, Kind, NONE, Page};
use crate::{Error, Meta, PageStore, PageWrite, Result, grow};

/// Structure that moves so often under one reader does not move: the pages are wrong.
pub(crate) const MOST_RESTARTS: u32 = 100;

impl OwnedCentroid {
    /// The centroid that a directory has for a probe; none where the list is no longer there.
    pub fn read<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<Option<Self>> {
        let page = store.read(probe.block)?;
        Ok(current_entry(geometry, &page, probe).map(|_| Self::at(geometry, &page, probe.at as usize)))
    }

    /// The centroid of a place on a page.
    pub fn at(geometry: &Geometry, page: &Page, at: usize) -> Self {
        let view = centroid(geometry, page, at);
        OwnedCentroid {
            code: view.code.to_vec(),
            scale: view.scale,
            squared: view.squared,
        }
    }
}

/// Where a centroid of a directory leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ListEntry {
    pub list: u32,
    pub generation: u32,
    /// First scan page, or [`NONE`] while the list is empty.
    pub head: u32,
    /// Rows when last counted.
    pub count: u32,
    /// Root mean square of ‖o‖.
    pub rms_residual: f32,
}

/// Where a centroid of a branch leads: its first directory page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BranchEntry {
    pub directory: u32,
    /// Lists when the branch was made, or when it was last tried in vain to split it.
    pub lists: u32,
    /// What the pages of its directory have for a list's number: 0 as built, a number of its own after a split. Tells
    /// recycled pages.
    pub chain: u32,
}

fn entry_at(geometry: &Geometry, at: usize) -> usize {
    CONTENT + at * geometry.centroid_bytes
}

/// How many centroids a page holds.
pub(crate) fn entries(geometry: &Geometry, page: &Page) -> usize {
    ((page.used() - CONTENT) / geometry.centroid_bytes).min(geometry.centroids)
}

pub(crate) fn centroid<'p>(geometry: &Geometry, page: &'p Page, at: usize) -> Centroid<'p> {
    let start = entry_at(geometry, at);
    Centroid {
        scale: page.get(start),
        squared: page.get(start + 4),
        code: bytemuck::cast_slice(&page.0[start + CENTROID_HEADER..start + geometry.centroid_bytes]),
    }
}

pub(crate) fn list_entry(geometry: &Geometry, page: &Page, at: usize) -> ListEntry {
    let start = entry_at(geometry, at);
    ListEntry {
        list: page.get(start + 8),
        generation: page.get(start + 12),
        head: page.get(start + 16),
        count: page.get(start + 20),
        rms_residual: page.get(start + 24),
    }
}

pub(crate) fn branch_entry(geometry: &Geometry, page: &Page, at: usize) -> BranchEntry {
    let start = entry_at(geometry, at);
    BranchEntry {
        directory: page.get(start + 8),
        lists: page.get(start + 12),
        chain: page.get(start + 16),
    }
}

pub(crate) fn put_centroid(geometry: &Geometry, page: &mut Page, at: usize, centroid: Centroid<'_>) {
    let start = entry_at(geometry, at);
    page.put(start, centroid.scale);
    page.put(start + 4, centroid.squared);
    page.0[start + CENTROID_HEADER..start + geometry.centroid_bytes]
        .copy_from_slice(bytemuck::cast_slice(centroid.code));
    page.set_used(page.used().max(start + geometry.centroid_bytes));
}

pub(crate) fn put_list_entry(geometry: &Geometry, page: &mut Page, at: usize, entry: ListEntry) {
    let start = entry_at(geometry, at);
    page.put(start + 8, entry.list);
    page.put(start + 12, entry.generation);
    page.put(start + 16, entry.head);
    page.put(start + 20, entry.count);
    page.put(start + 24, entry.rms_residual);
}

pub(crate) fn put_branch_entry(geometry: &Geometry, page: &mut Page, at: usize, entry: BranchEntry) {
    let start = entry_at(geometry, at);
    page.put(start + 8, entry.directory);
    page.put(start + 12, entry.lists);
    page.put(start + 16, entry.chain);
}

/// All branches, with the places of their entries. Consistent only where the structure cannot change meanwhile.
pub(crate) fn branches<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
) -> Result<Vec<(BranchEntry, u32, usize)>> {
    let mut found = Vec::new();
    walk_branches(store, meta, |block, page| {
        grow::extend(
            &mut found,
            (0..entries(geometry, page)).map(|at| (branch_entry(geometry, page, at), block, at)),
        )
    })?;
    Ok(found)
}

/// The same with their centroids, in the order of their pages.
pub(crate) fn branches_with_centroids<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
) -> Result<Vec<(BranchEntry, OwnedCentroid)>> {
    let mut found = Vec::new();
    walk_branches(store, meta, |_, page| {
        grow::extend(
            &mut found,
            (0..entries(geometry, page))
                .map(|at| (branch_entry(geometry, page, at), OwnedCentroid::at(geometry, page, at))),
        )
    })?;
    Ok(found)
}

/// Walks the pages of the branches, which are never recycled.
pub(crate) fn walk_branches<S: PageStore>(
    store: &S,
    meta: &Meta,
    mut visit: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<()> {
    let mut links = Links::new(meta.branch_block);
    while let Some(block) = links.current() {
        let page = store.read(block)?;
        let next = page.expect(block, Kind::Branch)?.next;
        visit(block, &page)?;
        drop(page);
        links.follow(store, next)?;
    }
    Ok(())
}

/// Steps along a chain of pages; notices a circle.
struct Links {
    first: u32,
    block: u32,
    steps: u32,
}

impl Links {
    fn new(first: u32) -> Self {
        Links {
            first,
            block: first,
            steps: 0,
        }
    }

    fn current(&self) -> Option<u32> {
        (self.block != NONE).then_some(self.block)
    }

    /// Never called with a page locked.
    fn follow<S: PageStore>(&mut self, store: &S, next: u32) -> Result<()> {
        self.steps += 1;
        // Asking for the length takes a system call: only long chains do.
        if self.steps.is_multiple_of(64) && self.steps > store.blocks()? {
            return Err(Error::corrupted(self.first, "chain of pages runs in a circle"));
        }
        self.block = next;
        Ok(())
    }
}

/// Walks the directory pages of a branch, one locked at a time, unless the branch was split meanwhile.
pub(crate) fn walk<S: PageStore>(
    store: &S,
    branch: &BranchEntry,
    mut visit: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<Walked> {
    let mut links = Links::new(branch.directory);
    while let Some(block) = links.current() {
        let page = store.read(block)?;
        if !page.is(Kind::Directory, branch.chain, 0) {
            list::check_recycled(block, &page)?;
            return Ok(Walked::Moved);
        }
        let next = page.trailer().next;
        visit(block, &page)?;
        drop(page);
        links.follow(store, next)?;
    }
    Ok(Walked::Whole)
}

/// The lists of a directory page and the next page; none where the page was recycled.
pub(crate) fn read_page<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    branch: &BranchEntry,
    block: u32,
) -> Result<Option<(Vec<Probe>, u32)>> {
    let page = store.read(block)?;
    if !page.is(Kind::Directory, branch.chain, 0) {
        list::check_recycled(block, &page)?;
        return Ok(None);
    }
    let probes = (0..entries(geometry, &page))
        .map(|at| Probe {
            rank: 0.0,
            dot: 0.0,
            squared: 0.0,
            entry: list_entry(geometry, &page, at),
            branch: *branch,
            block,
            at: at as u32,
        })
        .collect();
    Ok(Some((probes, page.trailer().next)))
}

/// The entry of a probe's list, if the page still has it there.
pub(crate) fn current_entry(geometry: &Geometry, page: &Page, probe: &Probe) -> Option<ListEntry> {
    let at = probe.at as usize;
    if !page.is(Kind::Directory, probe.branch.chain, 0) || at >= entries(geometry, page) {
        return None;
    }
    let entry = list_entry(geometry, page, at);
    (entry.list == probe.entry.list && entry.generation == probe.entry.generation).then_some(entry)
}

/// Entries that a centroid page, and new ones behind it, can take within one record (with the meta page in it).
pub(crate) fn room_behind<S: PageStore>(store: &S, geometry: &Geometry, block: u32) -> Result<usize> {
    let page = store.read(block)?;
    let here = geometry.centroids - entries(geometry, &page);
    Ok(here + (S::MOST_PAGES - 2) * geometry.centroids)
}

/// Puts the first of `parts` entries in the place of an old one, the others behind what its page holds and on new pages
/// of that kind (and chain) behind it; gives the pages, to be committed in one record.
pub(crate) fn put_behind<'s, S: PageStore>(
    store: &'s S,
    geometry: &Geometry,
    (block, at): (u32, usize),
    (kind, chain): (Kind, u32),
    parts: usize,
    put: impl Fn(&mut Page, usize, usize),
) -> Result<Vec<S::Write<'s>>> {
    let mut pages = vec![store.write(block)?];
    let next = pages[0].trailer().next;
    put(pages[0].page_mut(), at, 0);
    for part in 1..parts {
        let last = pages.len() - 1;
        let at = entries(geometry, &pages[last]);
        if at < geometry.centroids {
            put(pages[last].page_mut(), at, part);
            continue;
        }
        let mut page = store.allocate()?;
        page.page_mut().init(kind, chain, 0);
        let block = page.block();
        pages[last].page_mut().set_next(block);
        page.page_mut().set_next(next);
        put(page.page_mut(), 0, part);
        pages.push(page);
    }
    Ok(pages)
}

/// A list on its way to be probed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub rank: f32,
    /// ⟨q, c⟩
    pub dot: f32,
    /// ‖c‖²
    pub squared: f32,
    pub entry: ListEntry,
    /// The branch whose directory says so, the page, and where on it.
    pub branch: BranchEntry,
    pub block: u32,
    pub at: u32,
}

impl Probe {
    /// The order in which lists are probed: a total one, so that whoever ranks them finds the same first ones.
    pub fn nearer(&self, other: &Self) -> Ordering {
        self.rank
            .total_cmp(&other.rank)
            .then(self.entry.list.cmp(&other.entry.list))
    }
}

//! Centroids on pages: branches lead to directories, directories to lists.
use crate::code::Query;
use crate::geometry::{CENTROID_HEADER, Geometry};
use crate::page::{CONTENT, Kind, NONE, Page};
use crate::{Error, Meta, PageStore, Result};

/// A centroid in bytes: `centroid ≈ scale · code`, and by definition exactly that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Centroid<'p> {
    pub code: &'p [i8],
    pub scale: f32,
    /// ‖c‖²
    pub squared: f32,
}

/// A centroid of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnedCentroid {
    pub code: Vec<i8>,
    pub scale: f32,
    pub squared: f32,
}

impl OwnedCentroid {
    /// Rounds to bytes.
    pub fn round(values: &[f32]) -> Self {
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let scale = if largest.is_finite() { largest / 127.0 } else { 0.0 };
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code: Vec<i8> = values.iter().map(|x| (x * inverse).round() as i8).collect();
        let sum: f64 = code.iter().map(|&c| f64::from(c) * f64::from(c)).sum();
        OwnedCentroid {
            code,
            scale,
            squared: ((sum * f64::from(scale) * f64::from(scale)) as f32).min(f32::MAX),
        }
    }

    /// The centroid that a directory has for a probe.
    pub fn read<S: PageStore>(store: &S, geometry: &Geometry, probe: &Probe) -> Result<Self> {
        let page = store.read(probe.block)?;
        page.expect(probe.block, Kind::Directory)?;
        let view = centroid(geometry, &page, probe.at as usize);
        Ok(OwnedCentroid {
            code: view.code.to_vec(),
            scale: view.scale,
            squared: view.squared,
        })
    }

    pub fn view(&self) -> Centroid<'_> {
        Centroid {
            code: &self.code,
            scale: self.scale,
            squared: self.squared,
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
    pub reach: f32,
}

/// Where a centroid of a branch leads: its first directory page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BranchEntry {
    pub directory: u32,
    pub lists: u32,
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
        reach: page.get(start + 24),
    }
}

pub(crate) fn branch_entry(geometry: &Geometry, page: &Page, at: usize) -> BranchEntry {
    let start = entry_at(geometry, at);
    BranchEntry {
        directory: page.get(start + 8),
        lists: page.get(start + 12),
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
    page.put(start + 24, entry.reach);
}

pub(crate) fn put_branch_entry(geometry: &Geometry, page: &mut Page, at: usize, entry: BranchEntry) {
    let start = entry_at(geometry, at);
    page.put(start + 8, entry.directory);
    page.put(start + 12, entry.lists);
}

/// Walks a chain of centroid pages, one locked at a time.
pub(crate) fn walk<S: PageStore>(
    store: &S,
    first: u32,
    kind: Kind,
    mut visit: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<()> {
    let (mut block, mut steps) = (first, 0);
    while block != NONE {
        let page = store.read(block)?;
        let next = page.expect(block, kind)?.next;
        visit(block, &page)?;
        steps += 1;
        // Asking for the length takes a system call: only long chains do.
        if steps % 64 == 0 && steps > store.blocks()? {
            return Err(Error::corrupted(first, "chain of pages runs in a circle"));
        }
        block = next;
    }
    Ok(())
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
    /// The directory page that says so, and where on it.
    pub block: u32,
    pub at: u32,
}

/// Lists by ascending distance of their centroids from a query, a batch at a time.
///
/// Branches are opened as they are needed: for `n` lists, the nearest branches that hold at least `16·n + 256`.
pub(crate) struct Descent {
    /// Branches not opened yet, farthest first.
    branches: Vec<(f32, u32)>,
    /// Lists of opened branches that were not given out yet.
    pool: Vec<Probe>,
    given: usize,
    opened: usize,
}

impl Descent {
    pub fn new<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry, query: &Query) -> Result<Self> {
        let mut branches = Vec::new();
        walk(store, meta.branch_block, Kind::Branch, |_, page| {
            for at in 0..entries(geometry, page) {
                let centroid = centroid(geometry, page, at);
                let rank = query.rank(query.dot(centroid), centroid.squared);
                branches.push((rank, branch_entry(geometry, page, at).directory));
            }
            Ok(())
        })?;
        branches.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        Ok(Descent {
            branches,
            pool: Vec::new(),
            given: 0,
            opened: 0,
        })
    }

    /// The next `n` nearest lists, nearest first; fewer only when there are no more.
    pub fn next<S: PageStore>(
        &mut self,
        store: &S,
        geometry: &Geometry,
        query: &Query,
        n: usize,
    ) -> Result<Vec<Probe>> {
        let wanted = (self.given + n).saturating_mul(16).saturating_add(256);
        while self.opened < wanted || self.pool.len() < n {
            let Some((_, directory)) = self.branches.pop() else {
                break;
            };
            let pool = &mut self.pool;
            let before = pool.len();
            walk(store, directory, Kind::Directory, |block, page| {
                for at in 0..entries(geometry, page) {
                    let centroid = centroid(geometry, page, at);
                    let dot = query.dot(centroid);
                    pool.push(Probe {
                        rank: query.rank(dot, centroid.squared),
                        dot,
                        squared: centroid.squared,
                        entry: list_entry(geometry, page, at),
                        block,
                        at: at as u32,
                    });
                }
                Ok(())
            })?;
            self.opened += pool.len() - before;
        }
        let n = n.min(self.pool.len());
        if n == 0 {
            return Ok(Vec::new());
        }
        if n < self.pool.len() {
            self.pool
                .select_nth_unstable_by(n - 1, |a, b| a.rank.total_cmp(&b.rank));
        }
        let mut batch: Vec<Probe> = self.pool.drain(..n).collect();
        batch.sort_unstable_by(|a, b| a.rank.total_cmp(&b.rank));
        self.given += n;
        Ok(batch)
    }
}

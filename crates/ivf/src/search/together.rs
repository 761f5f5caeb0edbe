//! Many searches begun together: centroids and the codes of a list are read once for all queries that look at them.
//!
//! What comes out is what every query would have found alone: the same lists, the same candidates, the same rows
//! compared exactly. Only the order of the work is another: by list instead of by query. What a search needs beyond its
//! first lists and its first rows it does by itself, later, as any other search.
use super::{FIRST_CANDIDATES, FIRST_WIDENING, Kept, Nearest, Search, SearchOptions, first_probes};
use crate::code::{InList, Query};
use crate::directory::{self, BranchEntry, OwnedCentroid, Probe, opened_for};
use crate::geometry::Geometry;
use crate::list;
use crate::page::{Kind, NONE, Page};
use crate::{Error, Meta, PageStore, Result, Tid, grow};

/// Queries that centroids are compared with at a time: what is known of them stays in the processor's cache.
const TILE: usize = 16;
/// Lists of each query that are scanned first, so that the others are scanned against a bound.
const NEAREST: u32 = 6;
/// A page that more queries look at is copied first, so that it is not locked for long.
const MOST_UNDER_LOCK: usize = 3;
/// Rows that are on their way from the table.
const ROWS_AHEAD: usize = 16;
/// Rows between two looks at whether the work is cancelled.
const UNINTERRUPTED: usize = 64;

/// Exact distances of many queries, from where the rows are.
pub trait RerankTogether {
    /// The distance of a row from the query of this number, as the SQL operator gives it; none for a row that is not
    /// visible.
    fn distance(&mut self, query: usize, tid: Tid) -> Result<Option<f64>>;

    /// Tells that a row will be asked for soon.
    fn soon(&mut self, tid: Tid);
}

/// What searches together need to know of an index.
pub struct Together {
    meta: Meta,
    geometry: Geometry,
    options: SearchOptions,
    probes: usize,
}

impl Together {
    /// Reads it.
    ///
    /// # Errors
    /// A corrupted page.
    pub fn new<S: PageStore>(store: &S, options: SearchOptions) -> Result<Self> {
        let meta = Meta::read(store)?;
        let geometry = meta.geometry()?;
        Ok(Together {
            probes: first_probes(&meta, &options).min(meta.lists as usize),
            meta,
            geometry,
            options,
        })
    }

    /// How many queries fit into so many bytes.
    pub fn queries_within(&self, bytes: usize) -> usize {
        let geometry = &self.geometry;
        let directory = self.meta.lists as usize * (geometry.rotated + size_of::<Probe>() + size_of::<f32>());
        let query = 2 * geometry.rotated + 4 * geometry.scanned;
        let probe = size_of::<(Probe, InList)>() + size_of::<Visit>();
        let each = size_of::<Search>() + query + self.probes * probe + Kept::thrifty_bytes(FIRST_CANDIDATES);
        bytes.saturating_sub(directory) / each
    }

    /// Begins the searches of these queries. Of each the first `rows` rows are prepared: their exact distances are asked
    /// for here, in the order of the table.
    ///
    /// # Errors
    /// A query of other dimensions than the index's; a corrupted page; what `rerank` and the store's interrupts say.
    pub fn begin<S: PageStore, R: RerankTogether + ?Sized>(
        &self,
        store: &S,
        queries: &[&[f32]],
        rows: usize,
        rerank: &mut R,
    ) -> Result<Vec<Search>> {
        let mut searches = memory::vector(queries.len())?;
        for query in queries {
            if query.len() != self.geometry.dimensions {
                return Err(Error::Dimensions {
                    expected: self.geometry.dimensions,
                    actual: query.len(),
                });
            }
            let rotated = Search::rotate(&self.meta, &self.geometry, Some(query));
            searches.push(Search::without_lists(
                self.meta.clone(),
                self.geometry,
                &rotated,
                self.options,
            ));
        }
        let directory = Directory::read(store, &self.meta, &self.geometry)?;
        for tile in searches.chunks_mut(TILE) {
            store.interrupts()?;
            directory.choose(&self.geometry, tile, self.probes)?;
        }
        drop(directory);
        scan(store, &mut searches)?;
        if self.options.rerank {
            rank(store, &mut searches, rows.min(FIRST_WIDENING), rerank)?;
        }
        Ok(searches)
    }
}

/// A branch and where its lists are among all.
struct Branch {
    entry: BranchEntry,
    centroid: OwnedCentroid,
    lists: std::ops::Range<usize>,
}

/// All centroids, as they were at one moment.
struct Directory {
    branches: Vec<Branch>,
    lists: Vec<Probe>,
    scales: Vec<f32>,
    codes: Vec<i8>,
}

impl Directory {
    /// Reads it, anew where a branch was split meanwhile.
    fn read<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry) -> Result<Self> {
        let mut chains = meta.chains;
        for _ in 0..directory::MOST_RESTARTS {
            store.interrupts()?;
            let found = Self::read_once(store, meta, geometry)?;
            let now = Meta::read_chains(store)?;
            if let Some(found) = found
                && now == chains
            {
                return Ok(found);
            }
            chains = now;
        }
        Err(Error::corrupted(
            meta.branch_block,
            "leads to pages of another list or branch",
        ))
    }

    /// None: a branch was split meanwhile.
    fn read_once<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry) -> Result<Option<Self>> {
        let lists = meta.lists as usize;
        let mut all = Directory {
            branches: Vec::new(),
            lists: memory::vector(lists)?,
            scales: memory::vector(lists)?,
            codes: memory::vector(lists.saturating_mul(geometry.rotated))?,
        };
        for (entry, centroid) in directory::branches_with_centroids(store, meta, geometry)? {
            let first = all.lists.len();
            let walked = directory::walk(store, &entry, |block, page| {
                let count = directory::entries(geometry, page);
                all.codes.try_reserve(count * geometry.rotated)?;
                for at in 0..count {
                    let centroid = directory::centroid(geometry, page, at);
                    all.codes.extend_from_slice(centroid.code);
                    grow::push(&mut all.scales, centroid.scale)?;
                    let probe = Probe {
                        rank: 0.0,
                        dot: 0.0,
                        squared: centroid.squared,
                        entry: directory::list_entry(geometry, page, at),
                        branch: entry,
                        block,
                        at: at as u32,
                    };
                    grow::push(&mut all.lists, probe)?;
                }
                Ok(())
            })?;
            if walked == list::Walked::Moved {
                return Ok(None);
            }
            let lists = first..all.lists.len();
            grow::push(&mut all.branches, Branch { entry, centroid, lists })?;
        }
        Ok(Some(all))
    }

    /// Begins the first round of each search, with its nearest lists.
    fn choose(&self, geometry: &Geometry, searches: &mut [Search], wanted: usize) -> Result<()> {
        let mut openers: Vec<Vec<usize>> = vec![Vec::new(); self.branches.len()];
        for (at, search) in searches.iter().enumerate() {
            for branch in self.opened(&search.query, wanted) {
                openers[branch].push(at);
            }
        }
        let mut pools: Vec<Vec<(f32, u32, f32, usize)>> = vec![Vec::new(); searches.len()];
        for (branch, openers) in self.branches.iter().zip(&openers) {
            for list in branch.lists.clone() {
                let probe = &self.lists[list];
                let centroid = directory::Centroid {
                    code: &self.codes[list * geometry.rotated..][..geometry.rotated],
                    scale: self.scales[list],
                    squared: probe.squared,
                };
                for &at in openers {
                    let query = &searches[at].query;
                    let dot = query.dot(centroid);
                    let rank = query.rank(dot, centroid.squared);
                    grow::push(&mut pools[at], (rank, probe.entry.list, dot, list))?;
                }
            }
        }
        for (search, mut pool) in searches.iter_mut().zip(pools) {
            let nearer = |a: &(f32, u32, f32, usize), b: &(f32, u32, f32, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            let n = wanted.min(pool.len());
            if n == 0 {
                search.ended = true;
                continue;
            }
            if n < pool.len() {
                pool.select_nth_unstable_by(n - 1, nearer);
                pool.truncate(n);
            }
            pool.sort_unstable_by(nearer);
            let mut probes = memory::vector(n)?;
            probes.extend(pool.into_iter().map(|(rank, _, dot, list)| Probe {
                rank,
                dot,
                ..self.lists[list]
            }));
            search.begin_round(probes, FIRST_CANDIDATES)?;
        }
        Ok(())
    }

    /// The branches that a descent to the nearest `wanted` lists opens.
    fn opened(&self, query: &Query, wanted: usize) -> Vec<usize> {
        let mut ranked: Vec<((f32, BranchEntry), usize)> = self
            .branches
            .iter()
            .enumerate()
            .map(|(at, branch)| {
                let centroid = branch.centroid.view();
                ((query.rank(query.dot(centroid), centroid.squared), branch.entry), at)
            })
            .collect();
        ranked.sort_unstable_by(|a, b| directory::farther(&b.0, &a.0));
        let (least, mut opened) = (opened_for(wanted), 0);
        ranked
            .into_iter()
            .map(|(_, at)| at)
            .take_while(|&at| {
                let open = opened < least;
                opened += self.branches[at].lists.len();
                open
            })
            .collect()
    }
}

/// A list that a query looks at: its first page, the query, and which of its probes it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Visit {
    head: u32,
    query: u32,
    at: u32,
}

/// Scans the lists of the searches' first rounds, each list once for all: the nearest of each query first, the others in
/// the order of their pages.
fn scan<S: PageStore>(store: &S, searches: &mut [Search]) -> Result<()> {
    let mut kept = memory::vector(searches.len())?;
    for _ in &*searches {
        kept.push(Kept::thrifty(FIRST_CANDIDATES)?);
    }
    // What led a search astray.
    let mut moved: Vec<Option<u32>> = vec![None; searches.len()];
    let mut page = Page::new(Kind::Scan, 0, 0);
    for ranks in [0..NEAREST, NEAREST..u32::MAX] {
        for visits in visits(searches, &ranks)?.chunk_by(|a, b| a.head == b.head) {
            visit(store, searches, visits, &mut kept, &mut moved, &mut page)?;
        }
    }
    for ((search, kept), moved) in searches.iter_mut().zip(kept).zip(moved) {
        match moved {
            Some(block) => search.start_again(store, block, search.probes.len(), FIRST_CANDIDATES)?,
            None if search.rounds.is_empty() => {}
            None => search.keep(0, kept)?,
        }
    }
    Ok(())
}

/// The lists at these places of each query's order, by the lists' first pages.
fn visits(searches: &[Search], ranks: &std::ops::Range<u32>) -> Result<Vec<Visit>> {
    let mut visits = Vec::new();
    for (query, search) in searches.iter().enumerate() {
        let places = ranks.start as usize..(ranks.end as usize).min(search.probes.len());
        for at in places {
            let head = search.probes[at].0.entry.head;
            if head != NONE {
                let visit = Visit {
                    head,
                    query: query as u32,
                    at: at as u32,
                };
                grow::push(&mut visits, visit)?;
            }
        }
    }
    visits.sort_unstable();
    Ok(visits)
}

/// Scans one list for all that look at it.
fn visit<S: PageStore>(
    store: &S,
    searches: &[Search],
    visits: &[Visit],
    kept: &mut [Kept],
    moved: &mut [Option<u32>],
    copy: &mut Page,
) -> Result<()> {
    let first = visits[0];
    let probe = &searches[first.query as usize].probes[first.at as usize].0;
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    let mut each = |page: &Page| {
        visits.iter().try_for_each(|visit| {
            let query = visit.query as usize;
            searches[query].scan_page(page, visit.at as usize, &mut kept[query])
        })
    };
    let (mut block, mut steps) = (first.head, 0);
    while block != NONE {
        store.interrupts()?;
        let page = store.read(block)?;
        if !page.is(Kind::Scan, list, generation) {
            // A freed or reused page is a moved list; anything else is no page of ours.
            list::check_recycled(block, &page)?;
            for visit in visits {
                moved[visit.query as usize] = Some(probe.block);
            }
            return Ok(());
        }
        let next = page.trailer().next;
        if next != NONE {
            list::prefetch_scan(store, next);
        }
        if visits.len() > MOST_UNDER_LOCK {
            *copy = *page;
            drop(page);
            each(copy)?;
        } else {
            each(&page)?;
            drop(page);
        }
        steps += 1;
        // Asking for the length takes a system call: only long chains do.
        if steps % 64 == 0 && steps > store.blocks()? {
            return Err(Error::corrupted(first.head, "chain of pages runs in a circle"));
        }
        block = next;
    }
    Ok(())
}

/// Asks for the exact distances of the first `rows` rows that each search will ask for in any case.
fn rank<S: PageStore, R: RerankTogether + ?Sized>(
    store: &S,
    searches: &mut [Search],
    rows: usize,
    rerank: &mut R,
) -> Result<()> {
    let mut wanted: Vec<(Tid, u32, u32)> = Vec::new();
    for (query, search) in searches.iter_mut().enumerate() {
        store.interrupts()?;
        let mut left = rows.saturating_sub(search.ready.len());
        while left > 0
            && let Some(Nearest { tid, item, .. }) = search.foresee(store)?
        {
            grow::push(&mut wanted, (tid, query as u32, item.1))?;
            left -= 1;
        }
    }
    wanted.sort_unstable();
    for &(tid, _, _) in wanted.iter().take(ROWS_AHEAD) {
        rerank.soon(tid);
    }
    for (at, &(tid, query, probe)) in wanted.iter().enumerate() {
        if at % UNINTERRUPTED == 0 {
            store.interrupts()?;
        }
        if let Some(&(ahead, _, _)) = wanted.get(at + ROWS_AHEAD) {
            rerank.soon(ahead);
        }
        let search = &mut searches[query as usize];
        if let Some(distance) = rerank.distance(query as usize, tid)? {
            search.rank(tid, search.key_of(distance), probe)?;
        }
    }
    Ok(())
}

impl Search {
    /// The next row whose exact distance is needed before another row can be the next nearest; none where lists must be
    /// scanned first.
    ///
    /// As [`next`](Search::next) does it while fewer rows are ranked than wanted: which rows are compared exactly, and
    /// which six-bit codes are read for that, depends on their keys alone.
    fn foresee<S: PageStore>(&mut self, store: &S) -> Result<Option<Nearest<(f32, u32)>>> {
        loop {
            self.look_ahead(store);
            let refined = self.refined.peek().map_or(f64::INFINITY, |n| n.key);
            let candidate = self.upcoming.front().map_or(f64::INFINITY, |n| n.key);
            let (_, cut) = self.nearest_cut();
            if !self.upcoming.is_empty() && candidate <= refined.min(cut) {
                self.refine(store)?;
            } else if !self.refined.is_empty() && refined <= cut {
                return Ok(self.refined.pop());
            } else {
                return Ok(None);
            }
        }
    }
}

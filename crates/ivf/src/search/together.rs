//! Many searches begun together: centroids and the codes of a list are read once for all queries that look at them.
//!
//! What comes out is, nearly always, what every query would have found alone: the same lists, candidates and rows
//! compared exactly. Only the order of the work is another: by list instead of by query. What a search needs beyond its
//! first lists and its first rows it does by itself, later, as any other search.
use vectors::quantised;

use super::{FIRST_CANDIDATES, FIRST_WIDENING, Kept, Nearest, Search, SearchOptions, Tally, first_probes};
use crate::candidates::{Candidate, ordered};
use crate::centroid::OwnedCentroid;
use crate::code::{InList, Query, one_bit_error};
use crate::descent::{farther, opened_for};
use crate::directory::{self, BranchEntry, Probe};
use crate::geometry::{BLOCK, Geometry};
use crate::list;
use crate::page::{Kind, NONE, Page};
use crate::threads::Threads;
use crate::{Error, Meta, PageStore, Result, Tid, grow};

/// Queries that centroids are compared with at a time: what is known of them stays in the processor's cache.
const TILE: usize = 16;
/// Lists of each query that are scanned first, so that the others are scanned against a bound.
const NEAREST: u32 = 8;
/// Six-bit codes that are read with their page locked.
const MOST_REFINED: usize = 64;
/// Tiles that a thread takes between two looks at whether the work is cancelled.
const TILES: usize = 4;
/// Pages of lists that are copied, so that none is locked for long, and then scanned by all threads.
const COPIED: usize = 128;
/// Pages, each counted once for every query that looks at it, that are worth a thread.
const WORTH_A_THREAD: usize = 1024;
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
        let directory = self.meta.lists as usize * (geometry.rotated + size_of::<Probe>() + 2 * size_of::<f32>());
        let query = 2 * geometry.rotated + 2 * 4 * geometry.scanned;
        let probe = size_of::<(Probe, InList)>() + size_of::<Visit>();
        let pages = COPIED * size_of::<Page>();
        let each = size_of::<Search>() + query + self.probes * probe + Kept::thrifty_bytes(FIRST_CANDIDATES);
        bytes.saturating_sub(directory + pages) / each
    }

    /// Begins the searches of these queries, on some threads. Of each the first `rows` rows are prepared: their exact
    /// distances are asked for here, in the order of the table. The store and `rerank` are asked by this thread alone.
    ///
    /// # Errors
    /// A query of other dimensions than the index's; a corrupted page; what `rerank` and the store's interrupts say.
    pub fn begin<S: PageStore, R: RerankTogether + ?Sized>(
        &self,
        store: &S,
        queries: &[&[f32]],
        rows: usize,
        rerank: &mut R,
        threads: &Threads,
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
        for some in searches.chunks_mut(TILE * TILES * threads.count()) {
            store.interrupts()?;
            threads.share(some.chunks_mut(TILE * TILES), |tiles| {
                let mut tiles = tiles.chunks_mut(TILE);
                tiles.try_for_each(|tile| directory.choose(&self.geometry, tile, self.probes))
            })?;
        }
        drop(directory);
        let rows = rows.min(FIRST_WIDENING);
        scan(store, &mut searches, rows, threads)?;
        refine_first(store, &mut searches, rows)?;
        if self.options.rerank {
            rank(store, &mut searches, rows, rerank)?;
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
    squares: Vec<f32>,
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
            squares: memory::vector(lists)?,
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
                    grow::push(&mut all.squares, centroid.squared)?;
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
        let n = geometry.rotated;
        let mut openers: Vec<Vec<usize>> = vec![Vec::new(); self.branches.len()];
        // Ranks in an integer that orders as they do, the lists' places, and the products that the ranks are of.
        let mut pools: Vec<Vec<(u32, u32, f32)>> = Vec::new();
        for (at, search) in searches.iter().enumerate() {
            let opened = self.opened(&search.query, wanted);
            pools.push(memory::vector(
                opened.iter().map(|&branch| self.branches[branch].lists.len()).sum(),
            )?);
            for branch in opened {
                openers[branch].push(at);
            }
        }
        let (mut integers, mut sums) = (Vec::new(), Vec::new());
        for (branch, openers) in self.branches.iter().zip(&openers) {
            let (lists, count) = (branch.lists.clone(), branch.lists.len());
            let codes = &self.codes[lists.start * n..lists.end * n];
            integers.clear();
            for &at in openers {
                grow::extend(&mut integers, searches[at].query.integers.values.iter().copied())?;
            }
            sums.clear();
            sums.try_reserve(count * openers.len())?;
            sums.resize(count * openers.len(), 0);
            dot_all(codes, &integers, n, &mut sums);
            for (&at, sums) in openers.iter().zip(sums.chunks_exact(count.max(1))) {
                let query = &searches[at].query;
                let ranked = lists.clone().zip(sums).map(|(list, &sum)| {
                    let dot = query.dot_of(sum, self.scales[list]);
                    (ordered(query.rank(dot, self.squares[list])), list as u32, dot)
                });
                pools[at].extend(ranked);
            }
        }
        for (search, mut pool) in searches.iter_mut().zip(pools) {
            // As Probe::nearer.
            let nearer = |a: &(u32, u32, f32), b: &(u32, u32, f32)| {
                a.0.cmp(&b.0).then_with(|| self.number(a.1).cmp(&self.number(b.1)))
            };
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
            for (_, list, dot) in pool {
                let probe = &self.lists[list as usize];
                probes.push(Probe {
                    rank: search.query.rank(dot, probe.squared),
                    dot,
                    ..*probe
                });
            }
            search.begin_round(probes, FIRST_CANDIDATES)?;
        }
        Ok(())
    }

    fn number(&self, list: u32) -> u32 {
        self.lists[list as usize].entry.list
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
        ranked.sort_unstable_by(|a, b| farther(&b.0, &a.0));
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
#[derive(Clone, Copy)]
struct Visit {
    head: u32,
    query: u32,
    at: u32,
    list: InList,
}

/// What scanning asks of the searches again and again, side by side: theirs would come from memory anew for each list.
struct Scanner {
    /// Of each query the sums of its tables.
    sums: Vec<u8>,
    bytes: usize,
    queries: Vec<Scanned>,
    /// The searches have a bound of their own, which they know about themselves.
    bounded: bool,
}

struct Scanned {
    kept: Kept,
    unit: f32,
    zero: f32,
    margin: f32,
    /// Nothing whose key lies beyond it is wanted.
    within: f32,
    /// What led it astray.
    moved: Option<u32>,
}

/// Pages of lists, and who looks at each.
struct Copied<'v> {
    pages: Vec<Page>,
    visits: Vec<&'v [Visit]>,
}

/// What of a page is the same for all queries: its blocks, which slots of each hold a row, and the largest of their
/// factors.
type Blocks<'p> = Vec<(quantised::Block<'p>, u32, f32)>;

impl Scanner {
    fn new(searches: &[Search]) -> Result<Self> {
        let bytes = searches.first().map_or(0, |search| search.query.tables.sums().len());
        let mut scanner = Scanner {
            sums: memory::vector(bytes * searches.len())?,
            bytes,
            queries: memory::vector(searches.len())?,
            bounded: searches.iter().any(|search| search.bound.is_some()),
        };
        for search in searches {
            scanner.sums.extend_from_slice(search.query.tables.sums());
            scanner.queries.push(Scanned {
                kept: Kept::thrifty(FIRST_CANDIDATES)?,
                unit: search.query.tables.step(),
                zero: search.query.tables.bias(),
                margin: search.estimate_margin,
                within: f32::INFINITY,
                moved: None,
            });
        }
        Ok(scanner)
    }

    /// Looks for candidates on pages, for all that look at them: each thread for some of the queries.
    fn pages(&mut self, searches: &[Search], copies: &Copied, threads: &Threads) -> Result<()> {
        let visits: usize = copies.visits.iter().map(|visits| visits.len()).sum();
        let count = threads.count().min(1 + visits / WORTH_A_THREAD);
        let each = self.queries.len().div_ceil(count).max(1);
        let (sums, bytes, bounded) = (&self.sums, self.bytes, self.bounded);
        threads.share(self.queries.chunks_mut(each).enumerate(), |(part, queries)| {
            let first = part * each;
            let mut part = Part {
                sums,
                bytes,
                first,
                queries,
            };
            for (page, visits) in copies.pages.iter().zip(&copies.visits) {
                // They are in the order of their queries.
                let from = visits.partition_point(|visit| (visit.query as usize) < first);
                let until = visits.partition_point(|visit| (visit.query as usize) < first + part.queries.len());
                match &visits[from..until] {
                    [] => {}
                    visits if bounded => part.page_within_bounds(searches, page, visits)?,
                    visits => part.page(&searches[0].geometry, page, visits)?,
                }
            }
            Ok(())
        })
    }
}

/// Some of a scanner's queries.
struct Part<'s> {
    sums: &'s [u8],
    bytes: usize,
    first: usize,
    queries: &'s mut [Scanned],
}

impl Part<'_> {
    /// Looks for candidates on a page of a list, for all that look at it.
    fn page(&mut self, geometry: &Geometry, page: &Page, visits: &[Visit]) -> Result<()> {
        let mut blocks: Blocks = memory::vector(list::used_blocks(geometry, page))?;
        for block in 0..list::used_blocks(geometry, page) {
            let view = list::cached_block(geometry, page, block);
            let largest = quantised::largest_magnitude(view.factors);
            blocks.push((view, list::live(geometry, page, block), largest));
        }
        let kernels = quantised::kernels();
        for (at, visit) in visits.iter().enumerate() {
            if let Some(next) = visits.get(at + 1) {
                quantised::prefetch(&self.sums[next.query as usize * self.bytes..][..self.bytes]);
            }
            self.one(geometry, page, &blocks, visit, kernels)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        geometry: &Geometry,
        page: &Page,
        blocks: &Blocks,
        visit: &Visit,
        kernels: &quantised::Kernels,
    ) -> Result<()> {
        let sums = &self.sums[visit.query as usize * self.bytes..][..self.bytes];
        let query = &mut self.queries[visit.query as usize - self.first];
        let estimate = quantised::Estimate {
            base: visit.list.base,
            lambda: visit.list.lambda,
            unit: query.unit,
            zero: query.zero,
        };
        let mut estimates = [0.0; BLOCK];
        for (block, (view, live, largest)) in blocks.iter().enumerate() {
            let mut limit = query.kept.limit();
            if query.within < f32::INFINITY {
                let error = one_bit_error(&visit.list, *largest);
                limit = limit.min((query.within + query.margin * error).next_up());
            }
            let below = kernels.scan_sums(view, sums, &estimate, limit, &mut estimates);
            let mut left = if limit == f32::INFINITY { *live } else { live & below };
            while left != 0 {
                let within = left.trailing_zeros() as usize;
                left &= left - 1;
                let slot = block * BLOCK + within;
                let error = one_bit_error(&visit.list, list::factor(geometry, page, slot));
                let tid = list::tid(geometry, page, slot);
                let estimate = estimates[within];
                if estimate - query.margin * error > query.within || !query.kept.wants((estimate, tid)) {
                    continue;
                }
                let (refine, place) = list::refine_place(geometry, page, slot);
                query.kept.push(Candidate {
                    estimate,
                    error,
                    tid,
                    refine,
                    place: place as u16,
                    probe: visit.at,
                })?;
            }
        }
        Ok(())
    }

    /// The same where the searches have bounds of their own.
    fn page_within_bounds(&mut self, searches: &[Search], page: &Page, visits: &[Visit]) -> Result<()> {
        visits.iter().try_for_each(|visit| {
            let scanned = &mut self.queries[visit.query as usize - self.first];
            searches[visit.query as usize].scan_page(
                page,
                visit.at as usize,
                &mut scanned.kept,
                scanned.within,
                &mut Tally::default(),
            )
        })
    }
}

/// Scans the lists of the searches' first rounds, each list once for all: the nearest of each query first, the others
/// in the order of their pages, against a bound that the first ones gave: of each, `rows` rows are wanted.
fn scan<S: PageStore>(store: &S, searches: &mut [Search], rows: usize, threads: &Threads) -> Result<()> {
    let mut scanner = Scanner::new(searches)?;
    for ranks in [0..NEAREST, NEAREST..u32::MAX] {
        let visits = visits(searches, &ranks)?;
        let mut copies = Copied {
            pages: memory::vector(COPIED)?,
            visits: memory::vector(COPIED)?,
        };
        for visits in visits.chunk_by(|a, b| a.head == b.head) {
            visit(store, searches, visits, &mut scanner, &mut copies, threads)?;
        }
        scanner.pages(searches, &copies, threads)?;
        if ranks.start == 0 {
            bound_by_nearest(store, searches, &mut scanner, rows)?;
        }
    }
    for (search, scanned) in searches.iter_mut().zip(scanner.queries) {
        match scanned.moved {
            Some(block) => search.start_again(store, block, search.probes.len(), FIRST_CANDIDATES)?,
            None if search.rounds.is_empty() => {}
            None => {
                search.keep(0, scanned.kept)?;
                if scanned.within < f32::INFINITY {
                    search.rounds[0].within = scanned.within;
                    grow::extend(&mut search.kept_within, search.candidates.iter().map(|one| one.tid))?;
                    search.kept_within.sort_unstable();
                }
            }
        }
    }
    Ok(())
}

/// Finds the keys beyond which nothing can be among the nearest `rows` any more: of the candidates so far the nearest
/// are looked at more closely. There is none where they are too few.
fn bound_by_nearest<S: PageStore>(
    store: &S,
    searches: &mut [Search],
    scanner: &mut Scanner,
    rows: usize,
) -> Result<()> {
    let mut closer: Vec<(Candidate, u32)> = Vec::new();
    for (query, scanned) in scanner.queries.iter_mut().enumerate() {
        for candidate in scanned.kept.nearest(rows + rows / 2) {
            grow::push(&mut closer, (*candidate, query as u32))?;
        }
    }
    let mut farthest: Vec<Vec<f32>> = vec![Vec::new(); searches.len()];
    refine(store, searches, closer, |search, query, _, key, error| {
        grow::push(&mut farthest[query], key + search.refined_margin * error)
    })?;
    for (scanned, mut farthest) in scanner.queries.iter_mut().zip(farthest) {
        if rows > 0 && farthest.len() >= rows {
            let (_, &mut nearest, _) = farthest.select_nth_unstable_by(rows - 1, f32::total_cmp);
            if !nearest.is_nan() {
                scanned.within = nearest;
            }
        }
    }
    Ok(())
}

/// Reads the six-bit codes of candidates, each page once for all, and passes on what they say.
fn refine<S: PageStore>(
    store: &S,
    searches: &mut [Search],
    mut candidates: Vec<(Candidate, u32)>,
    mut then: impl FnMut(&mut Search, usize, &Candidate, f32, f32) -> Result<()>,
) -> Result<()> {
    candidates.sort_unstable_by_key(|(candidate, query)| (candidate.refine, candidate.place, *query));
    let mut groups = candidates.chunk_by(|a, b| a.0.refine == b.0.refine).peekable();
    while let Some(group) = groups.next() {
        store.interrupts()?;
        if let Some(next) = groups.peek() {
            let (first, last) = (usize::from(next[0].0.place), usize::from(next[next.len() - 1].0.place));
            let geometry = &searches[0].geometry;
            list::prefetch_refines(store, geometry, next[0].0.refine, first..last + 1);
        }
        // Nobody works at length with a page locked.
        for some in group.chunks(MOST_REFINED) {
            let page = store.read(some[0].0.refine)?;
            for (candidate, query) in some {
                let search = &mut searches[*query as usize];
                let (key, error) = search.refined_key(&page, candidate)?;
                then(search, *query as usize, candidate, key, error)?;
            }
        }
    }
    Ok(())
}

/// Reads the six-bit codes that the searches will ask for before they have given `rows` rows.
fn refine_first<S: PageStore>(store: &S, searches: &mut [Search], rows: usize) -> Result<()> {
    let mut farthest: Vec<Vec<f32>> = vec![Vec::new(); searches.len()];
    // Those that are nearest by their estimates, then all that may be as near as these.
    for step in 0..2 {
        let mut closer: Vec<(Candidate, u32)> = Vec::new();
        for (query, search) in searches.iter_mut().enumerate() {
            let all = std::mem::take(&mut search.candidates).into_vec();
            let limit = match step {
                _ if search.rounds.is_empty() => f64::NEG_INFINITY,
                0 => nth(all.iter().map(|candidate| candidate.key), rows + rows / 2),
                _ => nth(farthest[query].iter().map(|key| f64::from(*key)), rows),
            };
            let mut left = memory::vector(all.len())?;
            for candidate in all {
                if candidate.key <= limit {
                    grow::push(&mut closer, (candidate.item, query as u32))?;
                } else {
                    left.push(candidate);
                }
            }
            search.candidates = left.into();
        }
        refine(store, searches, closer, |search, query, candidate, key, error| {
            grow::push(&mut farthest[query], key + search.refined_margin * error)?;
            search.refined(candidate, key, error)
        })?;
    }
    Ok(())
}

/// The `n`-th smallest; nothing below all where there are fewer.
fn nth(keys: impl Iterator<Item = f64>, n: usize) -> f64 {
    let mut keys: Vec<f64> = keys.collect();
    if n == 0 || keys.len() < n {
        return if n == 0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    *keys.select_nth_unstable_by(n - 1, f64::total_cmp).1
}

/// Sums of products of all rows with all queries, as [`Query::dot`] has them.
fn dot_all(codes: &[i8], queries: &[i16], n: usize, sums: &mut [i32]) {
    let kernels = quantised::kernels();
    if n <= quantised::MOST_IN_ROW {
        return kernels.dot_all(bytemuck::cast_slice(codes), queries, n, sums);
    }
    let rows = codes.chunks_exact(n);
    for (query, sums) in queries.chunks_exact(n).zip(sums.chunks_exact_mut(rows.len().max(1))) {
        for (row, sum) in rows.clone().zip(sums) {
            *sum = kernels.dot_long(row, query);
        }
    }
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
                    list: search.probes[at].1,
                };
                grow::push(&mut visits, visit)?;
            }
        }
    }
    visits.sort_unstable_by_key(|visit| (visit.head, visit.query));
    Ok(visits)
}

/// Copies the pages of one list, for all that look at it, and has them scanned as they get many.
fn visit<'v, S: PageStore>(
    store: &S,
    searches: &[Search],
    visits: &'v [Visit],
    scanner: &mut Scanner,
    copies: &mut Copied<'v>,
    threads: &Threads,
) -> Result<()> {
    let first = visits[0];
    let probe = &searches[first.query as usize].probes[first.at as usize].0;
    let (list, generation) = (probe.entry.list, probe.entry.generation);
    let (mut block, mut steps) = (first.head, 0);
    while block != NONE {
        store.interrupts()?;
        if copies.pages.len() == COPIED {
            scanner.pages(searches, copies, threads)?;
            copies.pages.clear();
            copies.visits.clear();
        }
        let page = store.read(block)?;
        if !page.is(Kind::Scan, list, generation) {
            // A freed or reused page is a moved list; anything else is no page of ours.
            list::check_recycled(block, &page)?;
            for visit in visits {
                scanner.queries[visit.query as usize].moved = Some(probe.block);
            }
            return Ok(());
        }
        let next = page.trailer().next;
        if next != NONE {
            list::prefetch_scan(store, next);
        }
        copies.pages.extend_from_slice(std::slice::from_ref(&*page));
        copies.visits.push(visits);
        drop(page);
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
            let refined = self.refined.peek().map_or(f64::INFINITY, |n| n.key);
            let (_, cut) = self.nearest_cut();
            if let Some(candidate) = self.nearest_candidate()
                && candidate <= refined.min(cut)
            {
                self.refine(store)?;
            } else if !self.refined.is_empty() && refined <= cut {
                return Ok(self.refined.pop());
            } else {
                return Ok(None);
            }
        }
    }
}

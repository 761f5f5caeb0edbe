//! Searches that are begun together find what each of them finds alone.
mod data;

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use data::*;
use ivf::stores::Memory;
use ivf::{
    Error, Iteration, LockMode, Metric, Page, PageStore, RerankTogether, Result, Search, SearchOptions, Threads, Tid,
    Together, bulk_delete, create_empty, insert, measure_recall,
};
use proptest::prelude::*;

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// Exact distances to many queries, of rows that are not hidden.
struct Tables<'t> {
    metric: Metric,
    queries: &'t [Vec<f32>],
    rows: &'t [Vec<f32>],
    hidden: &'t HashSet<usize>,
    asked: Vec<(usize, Tid)>,
    announced: HashSet<Tid>,
}

impl Tables<'_> {
    fn of(&self, query: usize, tid: Tid) -> Option<f64> {
        let visible = self.rows.get(row(tid)).filter(|_| !self.hidden.contains(&row(tid)));
        visible.map(|row| distance(self.metric, &self.queries[query], row))
    }
}

impl RerankTogether for Tables<'_> {
    fn distance(&mut self, query: usize, tid: Tid) -> Result<Option<f64>> {
        self.asked.push((query, tid));
        assert!(self.announced.contains(&tid), "asked for without an announcement");
        Ok(self.of(query, tid))
    }

    fn soon(&mut self, tid: Tid) {
        self.announced.insert(tid);
    }
}

/// One of them, and how often it was asked.
struct One<'t>(&'t Tables<'t>, usize, usize);

impl ivf::Rerank for One<'_> {
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>> {
        self.2 += 1;
        Ok(self.0.of(self.1, tid))
    }
}

/// Hits of each query, the exact distances asked for, and the six-bit codes read.
type Found = (Vec<Vec<(usize, f64)>>, usize, u64);

/// The first `k` hits of each of the searches.
fn hits<S: PageStore>(store: &S, searches: Vec<Search>, k: usize, tables: &Tables<'_>) -> Found {
    let (mut asked, mut refined) = (tables.asked.len(), 0);
    let found = searches
        .into_iter()
        .enumerate()
        .map(|(query, mut search)| {
            let mut one = One(tables, query, 0);
            let mut hits = Vec::new();
            while hits.len() < k
                && let Some(hit) = search.next(store, &mut one).unwrap()
            {
                hits.push((row(hit.tid), hit.distance));
            }
            asked += one.2;
            refined += search.refined_count();
            hits
        })
        .collect();
    (found, asked, refined)
}

fn both(
    store: &Memory,
    tables: &mut Tables<'_>,
    k: usize,
    options: SearchOptions,
    rows_prepared: usize,
) -> (Found, Found) {
    let alone = tables
        .queries
        .iter()
        .map(|query| Search::new(store, Some(query), options).unwrap())
        .collect();
    let alone = hits(store, alone, k, tables);
    let queries: Vec<&[f32]> = tables.queries.iter().map(Vec::as_slice).collect();
    let together = Together::new(store, options)
        .unwrap()
        .begin(
            store,
            &queries,
            rows_prepared,
            tables,
            &Threads::new(1 + queries.len() % 3, &|start| start()),
        )
        .unwrap();
    assert!(
        tables.asked.is_sorted_by_key(|asked| asked.1),
        "in the order of the table"
    );
    let together = hits(store, together, k, tables);
    (alone, together)
}

/// The distances that were found, nearest first.
fn distances(hits: &[(usize, f64)]) -> Vec<f64> {
    let mut distances: Vec<f64> = hits.iter().map(|hit| hit.1).collect();
    distances.sort_by(f64::total_cmp);
    distances
}

/// As many, and nothing that is farther away, but for a row in very few queries. Where a code's error is larger than
/// the search's margins, what one search alone looks at too late many together mostly look at earlier, seldom later.
fn assert_as_near(alone: &Found, together: &Found) {
    let mut farther = 0;
    for (query, (a, b)) in alone.0.iter().zip(&together.0).enumerate() {
        let (a, b) = (distances(a), distances(b));
        assert!(b.len() >= a.len(), "query {query}: alone {a:?}, together {b:?}");
        if a.iter().zip(&b).any(|(a, b)| b > a) {
            farther += 1;
            let lost = a.iter().filter(|one| !b.contains(one)).count();
            assert!(lost <= 1, "query {query}: alone {a:?}, together {b:?}");
        }
    }
    assert!(farther <= 1 + alone.0.len() / 50, "{farther} of {}", alone.0.len());
}

fn queries(rows: &[Vec<f32>], random: &mut Random, count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    (0..count)
        .map(|at| match rows.len() {
            0 => random.vector(dimensions),
            n if at % 3 > 0 => {
                let row = &rows[random.below(n)];
                row.iter().map(|x| x + 0.3 * random.normal()).collect()
            }
            n if at % 6 > 0 => rows[random.below(n)].clone(),
            _ => random.vector(dimensions),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn searches_begun_together_find_what_is_as_near_as_what_each_finds_alone(
        seed: u64,
        dimensions in 1usize..140,
        count in 0usize..4000,
        metric in 0usize..3,
        asked in 1usize..70,
        k in 1usize..40,
        probes in prop::option::of(1u32..40),
        grown: bool,
        repeated: bool,
        hides: bool,
        rerank: bool,
        iteration in prop::sample::select(vec![Iteration::Off, Iteration::Relaxed, Iteration::Strict]),
    ) {
        let metric = METRICS[metric];
        let mut random = Random::new(seed);
        let mut rows = random.clustered(count, dimensions);
        if repeated {
            for at in 0..count / 2 {
                rows[at] = rows[at % 7].clone();
            }
        }
        let store = Memory::new();
        if grown || rows.is_empty() {
            create_empty(&store, dimensions, metric).unwrap();
            for (at, row) in rows.iter().enumerate() {
                prop_assert!(insert(&store, row, tid(at)).unwrap());
            }
        } else {
            build(&store, &rows, metric, (count as u32 / 60).max(1), 1).unwrap();
            measure_recall(&store).unwrap();
        }
        let queries = queries(&rows, &mut random, asked, dimensions);
        let hidden: HashSet<usize> = (0..rows.len()).filter(|at| hides && at % 3 == 0).collect();
        let mut tables = Tables {
            metric, queries: &queries, rows: &rows, hidden: &hidden, asked: Vec::new(), announced: HashSet::new(),
        };
        let options = SearchOptions { probes, iteration, rerank, ..SearchOptions::default() };
        let (alone, together) = both(&store, &mut tables, k, options, k);
        assert_as_near(&alone, &together);
    }
}

#[test]
fn searches_begun_together_find_what_each_finds_alone_and_compare_no_more_rows() {
    for (metric, k) in METRICS.into_iter().zip([10, 1, 30]) {
        let mut random = Random::new(11);
        let rows = random.clustered(12_000, 128);
        let store = Memory::new();
        build(&store, &rows, metric, 150, 2).unwrap();
        measure_recall(&store).unwrap();
        let queries = queries(&rows, &mut random, 300, 128);
        let mut tables = Tables {
            metric,
            queries: &queries,
            rows: &rows,
            hidden: &HashSet::new(),
            asked: Vec::new(),
            announced: HashSet::new(),
        };
        let (alone, together) = both(&store, &mut tables, k, SearchOptions::default(), k);
        let others = alone
            .0
            .iter()
            .zip(&together.0)
            .filter(|(a, b)| distances(a) != distances(b));
        let others = others.count();
        assert!(others <= 2, "{metric:?}: {others} of 300 find something else");
        assert!(
            together.1 <= alone.1 + 3,
            "{metric:?}: {} rows, {} alone",
            together.1,
            alone.1
        );
        assert!(
            together.2 <= alone.2 + alone.2 / 2,
            "{metric:?}: {} codes, {} alone",
            together.2,
            alone.2
        );
    }
}

#[test]
fn as_many_threads_as_there_are_find_what_one_finds() {
    let mut random = Random::new(3);
    let rows = random.clustered(6_000, 48);
    let store = Memory::new();
    build(&store, &rows, Metric::Cosine, 80, 2).unwrap();
    measure_recall(&store).unwrap();
    let queries = queries(&rows, &mut random, 700, 48);
    let slices: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let started = AtomicUsize::new(0);
    let start = |start: &mut dyn FnMut()| {
        started.fetch_add(1, Ordering::Relaxed);
        start();
    };
    for bound in [None, Some(0.4)] {
        let options = SearchOptions {
            bound,
            ..SearchOptions::default()
        };
        let found = |threads: &Threads| {
            let mut tables = Tables {
                metric: Metric::Cosine,
                queries: &queries,
                rows: &rows,
                hidden: &HashSet::new(),
                asked: Vec::new(),
                announced: HashSet::new(),
            };
            let begun = Together::new(&store, options).unwrap();
            let begun = begun.begin(&store, &slices, 10, &mut tables, threads).unwrap();
            hits(&store, begun, 10, &tables)
        };
        let one = found(&Threads::ALONE);
        assert_eq!(started.swap(0, Ordering::Relaxed), 0);
        for count in [2, 3, 7] {
            assert_eq!(found(&Threads::new(count, &start)), one, "{count} threads");
            assert!(started.swap(0, Ordering::Relaxed) > 0, "threads were started");
        }
        // None of them comes about.
        assert_eq!(found(&Threads::new(4, &|_| {})), one);
    }
}

#[test]
fn every_row_comes_once_however_far_a_search_begun_together_goes_on() {
    let rows = Random::new(2).clustered(5000, 32);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 60, 1).unwrap();
    let queries: Vec<Vec<f32>> = rows[..20].to_vec();
    let mut tables = Tables {
        metric: Metric::L2,
        queries: &queries,
        rows: &rows,
        hidden: &HashSet::new(),
        asked: Vec::new(),
        announced: HashSet::new(),
    };
    let options = SearchOptions {
        probes: Some(2),
        ..SearchOptions::default()
    };
    let (_, (found, ..)) = both(&store, &mut tables, usize::MAX, options, 10);
    for hits in found {
        let mut seen: Vec<usize> = hits.iter().map(|hit| hit.0).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..5000).collect::<Vec<_>>());
    }
}

#[test]
fn a_query_of_other_dimensions_is_refused_and_none_asks_for_nothing() {
    let store = Memory::new();
    build(&store, &Random::new(1).clustered(500, 8), Metric::Cosine, 4, 1).unwrap();
    let together = Together::new(&store, SearchOptions::default()).unwrap();
    let error = together
        .begin(&store, &[&[1.0; 8], &[1.0; 7]], 1, &mut Nothing, &Threads::ALONE)
        .err();
    assert_eq!(error, Some(Error::Dimensions { expected: 8, actual: 7 }));
    assert_eq!(
        together
            .begin(&store, &[], 1, &mut Nothing, &Threads::ALONE)
            .unwrap()
            .len(),
        0
    );
    // A zero query under the cosine has no direction; any rows will do.
    let mut zero = together
        .begin(&store, &[&[0.0; 8]], 1, &mut Nothing, &Threads::ALONE)
        .unwrap();
    assert!(zero[0].next(&store, &mut Nothing).unwrap().is_some());
}

/// All rows are as far.
struct Nothing;
impl RerankTogether for Nothing {
    fn distance(&mut self, _: usize, _: Tid) -> Result<Option<f64>> {
        Ok(Some(f64::INFINITY))
    }
    fn soon(&mut self, _: Tid) {}
}
impl ivf::Rerank for Nothing {
    fn distance(&mut self, _: Tid) -> Result<Option<f64>> {
        Ok(Some(f64::INFINITY))
    }
}

#[test]
fn fewer_queries_fit_into_less_memory() {
    let store = Memory::new();
    build(&store, &Random::new(1).clustered(3000, 64), Metric::L2, 40, 1).unwrap();
    let together = Together::new(&store, SearchOptions::default()).unwrap();
    assert_eq!(together.queries_within(0), 0);
    let (some, more) = (together.queries_within(4 << 20), together.queries_within(64 << 20));
    assert!((20..400).contains(&some) && more > 10 * some, "{some} {more}");
}

/// A store in which something happens at one of the interrupts.
struct Meanwhile<'m> {
    memory: &'m Memory,
    calls: Cell<u64>,
    happens: Box<dyn Fn() + 'm>,
}

impl<'m> PageStore for Meanwhile<'m> {
    type Read<'s>
        = <Memory as PageStore>::Read<'s>
    where
        Self: 's;
    type Write<'s>
        = <Memory as PageStore>::Write<'s>
    where
        Self: 's;
    type Lock<'s>
        = <Memory as PageStore>::Lock<'s>
    where
        Self: 's;

    fn blocks(&self) -> Result<u32> {
        self.memory.blocks()
    }
    fn read(&self, block: u32) -> Result<Self::Read<'_>> {
        self.memory.read(block)
    }
    fn prefetch(&self, block: u32, at: usize, bytes: usize) {
        self.memory.prefetch(block, at, bytes)
    }
    fn write(&self, block: u32) -> Result<Self::Write<'_>> {
        self.memory.write(block)
    }
    fn allocate(&self) -> Result<Self::Write<'_>> {
        self.memory.allocate()
    }
    fn commit(&self, pages: Vec<<Memory as PageStore>::Write<'_>>) -> Result<()> {
        self.memory.commit(pages)
    }
    fn append(&self, page: &Page) -> Result<u32> {
        self.memory.append(page)
    }
    fn free(&self, block: u32) -> Result<()> {
        self.memory.free(block)
    }
    fn announce_free(&self) -> Result<()> {
        self.memory.announce_free()
    }
    fn lock(&self, block: u32, mode: LockMode, wait: bool) -> Result<Option<Self::Lock<'_>>> {
        self.memory.lock(block, mode, wait)
    }
    fn interrupts(&self) -> Result<()> {
        self.memory.interrupts()?;
        let left = self.calls.get();
        self.calls.set(left.wrapping_sub(1));
        if left == 0 {
            (self.happens)();
        }
        Ok(())
    }
}

#[test]
fn rows_that_were_there_are_found_when_lists_split_and_move_at_any_moment() {
    // Rows in one place, so that those that come later split its lists.
    let mut random = Random::new(9);
    let rows: Vec<Vec<f32>> = random.clustered(1200, 16);
    let queries: Vec<Vec<f32>> = rows[..24].to_vec();
    let mut happened = 0;
    for at in (0..).step_by(3) {
        let memory = Memory::new();
        create_empty(&memory, 16, Metric::L2).unwrap();
        for (at, row) in rows[..1000].iter().enumerate() {
            insert(&memory, row, tid(at)).unwrap();
        }
        let store = Meanwhile {
            memory: &memory,
            calls: Cell::new(at),
            happens: Box::new(|| {
                for (at, row) in rows.iter().enumerate().skip(1000) {
                    insert(&memory, row, tid(at)).unwrap();
                }
                bulk_delete(&memory, &mut |tid| row(tid) % 5 == 4).unwrap();
                ivf::cleanup(&memory).unwrap();
            }),
        };
        let mut tables = Tables {
            metric: Metric::L2,
            queries: &queries,
            rows: &rows,
            hidden: &HashSet::new(),
            asked: Vec::new(),
            announced: HashSet::new(),
        };
        let slices: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
        let options = SearchOptions {
            probes: Some(3),
            ..SearchOptions::default()
        };
        let searches = Together::new(&store, options)
            .unwrap()
            .begin(&store, &slices, 5, &mut tables, &Threads::ALONE)
            .unwrap();
        let over = store.calls.get() < u64::MAX / 2;
        happened += u32::from(!over);
        let (found, ..) = hits(&store, searches, usize::MAX, &tables);
        for hits in found {
            let seen: HashSet<usize> = hits.iter().map(|hit| hit.0).collect();
            assert_eq!(seen.len(), hits.len(), "a row came twice");
            assert!((0..1000).all(|row| row % 5 == 4 || seen.contains(&row)), "at {at}");
        }
        if over {
            break;
        }
    }
    assert!(happened > 5, "{happened}");
}

#[test]
fn searches_together_can_be_cancelled_at_every_interrupt() {
    let rows = Random::new(3).clustered(3000, 32);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 30, 1).unwrap();
    let queries: Vec<&[f32]> = rows[..40].iter().map(Vec::as_slice).collect();
    let together = Together::new(&store, SearchOptions::default()).unwrap();
    for calls in 0.. {
        store.cancel_after(Some(calls));
        match together.begin(&store, &queries, 10, &mut Nothing, &Threads::ALONE) {
            Err(error) => assert_eq!(error, Error::Cancelled),
            Ok(_) => {
                assert!(calls > 60, "looked only {calls} times whether it is cancelled");
                break;
            }
        }
    }
}

#[test]
fn damaged_pages_are_errors_that_name_the_block() {
    let rows = Random::new(4).clustered(2000, 32);
    let queries: Vec<&[f32]> = rows[..30].iter().map(Vec::as_slice).collect();
    let options = SearchOptions {
        probes: Some(u32::MAX),
        ..SearchOptions::default()
    };
    let fresh = || {
        let store = Memory::new();
        build(&store, &rows, Metric::L2, 20, 1).unwrap();
        store
    };
    let mut refused = 0;
    for block in 0..fresh().blocks().unwrap() {
        // Magic and kind; the link to the next page.
        for at in [ivf::PAGE_SIZE - 16, ivf::PAGE_SIZE - 4] {
            let store = fresh();
            store.damage(block, at, &[0xa5; 4]);
            let begun = Together::new(&store, options)
                .and_then(|t| t.begin(&store, &queries, 10, &mut Nothing, &Threads::ALONE));
            if let Err(error) = begun {
                assert!(
                    matches!(error, Error::Corrupted { .. } | Error::Version { .. }),
                    "{error:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 40, "{refused}");
}

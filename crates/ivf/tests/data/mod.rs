//! Vectors as descriptors are: clustered, and the way to put them into an index.
#![allow(dead_code)]
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ivf::stores::Memory;
use ivf::{
    Batch, Encoders, Filter, FilterLayout, Meta, Metric, PageStore, Result, Sample, Search, SearchOptions, Tid,
    Trained, Writer,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Reproducible random numbers.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// About normal, variance one.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| self.0.next_u32() as f32 / u32::MAX as f32).sum();
        sum - 6.0
    }

    /// From 0 to 1.
    pub fn uniform(&mut self) -> f32 {
        self.0.next_u32() as f32 / u32::MAX as f32
    }

    pub fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| self.normal()).collect()
    }

    /// Vectors around as many centres as the square root of their number.
    pub fn clustered(&mut self, rows: usize, dimensions: usize) -> Vec<Vec<f32>> {
        let centres: Vec<Vec<f32>> = (0..(rows as f64).sqrt().ceil() as usize)
            .map(|_| self.vector(dimensions))
            .collect();
        (0..rows)
            .map(|_| {
                let centre = self.below(centres.len().max(1));
                centres[centre].iter().map(|c| c + 0.6 * self.normal()).collect()
            })
            .collect()
    }
}

pub fn tid(row: usize) -> Tid {
    Tid::new(row as u32 / 50, row as u16 % 50 + 1)
}

pub fn row(tid: Tid) -> usize {
    (tid.block() as usize * 50 + usize::from(tid.offset())).wrapping_sub(1)
}

/// Centroids of these rows.
pub fn trained(rows: &[Vec<f32>], metric: Metric, lists: u32, threads: usize) -> Result<Arc<Trained>> {
    trained_with(rows, FilterLayout::default(), metric, lists, threads)
}

fn trained_with(
    rows: &[Vec<f32>],
    layout: FilterLayout,
    metric: Metric,
    lists: u32,
    threads: usize,
) -> Result<Arc<Trained>> {
    let mut sample = Sample::with_filters(rows[0].len(), layout, metric, 100_000)?;
    for row in rows {
        sample.add(row)?;
    }
    Trained::train(sample, lists, threads, &|| false, &AtomicU64::new(0)).map(Arc::new)
}

/// Builds an index of these rows as the extension does.
pub fn build<S: PageStore>(store: &S, rows: &[Vec<f32>], metric: Metric, lists: u32, threads: usize) -> Result<Meta> {
    build_within(store, rows, metric, lists, threads, usize::MAX)
}

/// Lists of more than `most` rows are written as those that do not fit into memory.
pub fn build_within<S: PageStore>(
    store: &S,
    rows: &[Vec<f32>],
    metric: Metric,
    lists: u32,
    threads: usize,
    most: usize,
) -> Result<Meta> {
    build_trained(store, rows, &[], &trained(rows, metric, lists, threads)?, threads, most)
}

/// What a row's filter columns hold.
pub type Values = Vec<Option<i128>>;

/// Builds an index of rows with filter columns.
pub fn build_with<S: PageStore>(
    store: &S,
    (rows, values): (&[Vec<f32>], &[Values]),
    layout: FilterLayout,
    metric: Metric,
    lists: u32,
    most: usize,
) -> Result<Meta> {
    let mut filters = Vec::new();
    for values in values {
        layout.put_row(values, &mut filters)?;
    }
    let trained = trained_with(rows, layout, metric, lists, 2)?;
    build_trained(store, rows, &filters, &trained, 2, most)
}

fn build_trained<S: PageStore>(
    store: &S,
    rows: &[Vec<f32>],
    filters: &[u8],
    trained: &Arc<Trained>,
    threads: usize,
    most: usize,
) -> Result<Meta> {
    let width = filters.len() / rows.len();
    let mut encoders = Encoders::start(trained, threads);
    let mut encoded = Vec::new();
    for (at, batch) in rows.chunks(100).enumerate() {
        let tids = (0..batch.len()).map(|i| tid(at * 100 + i)).collect();
        let mut rejected = encoders.submit(Batch {
            tids,
            vectors: batch.concat(),
            filters: filters[at * 100 * width..][..batch.len() * width].to_vec(),
        })?;
        while let Some(batch) = rejected {
            encoded.extend(encoders.receive(true)?);
            rejected = encoders.submit(batch)?;
        }
    }
    while let Some(batch) = encoders.receive(true)? {
        encoded.push(batch);
    }
    let bytes = trained.record_bytes();
    let mut of_list: Vec<Vec<&[u8]>> = vec![Vec::new(); trained.lists() as usize];
    for batch in &encoded {
        for (list, record) in batch.lists.iter().zip(batch.records.chunks_exact(bytes)) {
            of_list[*list as usize].push(record);
        }
    }
    let mut writer = Writer::new(store, trained)?;
    for (list, records) in of_list.iter().enumerate() {
        if records.len() > most {
            let mut left = records.iter();
            writer.add_long_list(list as u32, records.len(), &mut |wanted, out| {
                left.by_ref()
                    .take(wanted)
                    .for_each(|record| out.extend_from_slice(record));
                Ok(())
            })?;
        } else if !records.is_empty() {
            writer.add_list(list as u32, &mut records.iter().copied())?;
        }
    }
    writer.finish()
}

/// The distance as SQL's operator gives it.
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::L2 => vectors::l2_distance(a, b),
        Metric::InnerProduct => vectors::negative_inner_product(a, b),
        Metric::Cosine => vectors::cosine_distance(a, b),
    }
    .unwrap()
}

/// Exact distances to a query, of rows that are still there.
pub struct Table<'t> {
    pub metric: Metric,
    pub query: &'t [f32],
    pub rows: &'t [Vec<f32>],
    pub asked: usize,
}

impl ivf::Rerank for Table<'_> {
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>> {
        self.asked += 1;
        Ok(self
            .rows
            .get(row(tid))
            .map(|row| distance(self.metric, self.query, row)))
    }
}

/// The first `k` hits of a search.
pub fn search<S: PageStore>(
    store: &S,
    metric: Metric,
    query: &[f32],
    rows: &[Vec<f32>],
    k: usize,
    options: SearchOptions,
) -> Vec<(usize, f64)> {
    search_among(store, metric, query, rows, k, options, Filter::new())
}

/// The first `k` hits among the rows that pass a filter.
pub fn search_among<S: PageStore>(
    store: &S,
    metric: Metric,
    query: &[f32],
    rows: &[Vec<f32>],
    k: usize,
    options: SearchOptions,
    filter: Filter,
) -> Vec<(usize, f64)> {
    let mut table = Table {
        metric,
        query,
        rows,
        asked: 0,
    };
    let mut search = Search::filtered(store, Some(query), options, filter).unwrap();
    let mut hits = Vec::new();
    while hits.len() < k
        && let Some(hit) = search.next(store, &mut table).unwrap()
    {
        hits.push((row(hit.tid), hit.distance));
    }
    hits
}

/// The `k` nearest rows by comparing all.
pub fn exact(metric: Metric, query: &[f32], rows: &[Vec<f32>], k: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = rows
        .iter()
        .enumerate()
        .map(|(at, row)| (at, distance(metric, query, row)))
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all.truncate(k);
    all
}

/// The part of the exact hits that was found, over several queries.
pub fn recall(found: &[(usize, f64)], truth: &[(usize, f64)]) -> f64 {
    let hits = truth.iter().filter(|t| found.iter().any(|f| f.0 == t.0)).count();
    hits as f64 / truth.len() as f64
}

pub fn assert_sound(store: &Memory, rows: u64) {
    let report = ivf::check(store, &mut |_| Ok(())).unwrap();
    assert_eq!(report.problems, vec![]);
    assert_eq!(report.rows, rows);
}

//! Building: sample, train, encode on threads, write every page once.
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vectors::quantised::Integers;

use crate::centroid::OwnedCentroid;
use crate::code::{self, CodeRecord, Scratch};
use crate::directory::{self, BranchEntry, ListEntry};
use crate::geometry::Geometry;
use crate::kmeans::{self, Control, NEAR_BRANCHES, Rows, THREAD_BYTES, Tree};
use crate::list;
use crate::meta::{Meta, Metric, ROWS_PER_LIST, SEED};
use crate::page::{Kind, NONE, Page};
use crate::rotation::Rotation;
use crate::search::normalised;
use crate::{Error, FilterLayout, PageStore, PageWrite, Result, Tid, grow};

/// How long a receiver waits before it looks whether anybody still sends.
const PATIENCE: Duration = Duration::from_millis(100);
/// The most lists of an index.
const MOST_LISTS: f64 = 1_000_000.0;

/// The number of lists for a number of rows.
pub fn automatic_lists(rows: f64) -> u32 {
    (rows / ROWS_PER_LIST as f64).clamp(1.0, MOST_LISTS) as u32
}

/// Rows from which centroids are trained.
pub struct Sample {
    geometry: Geometry,
    metric: Metric,
    rotation: Rotation,
    rows: Rows,
    most: usize,
    rotated: Vec<f32>,
}

impl Sample {
    /// Room for at most `most_rows`, for an index without filter columns.
    pub fn new(dimensions: usize, metric: Metric, most_rows: usize) -> Result<Sample> {
        Self::with_filters(dimensions, FilterLayout::default(), metric, most_rows)
    }

    /// Room for at most `most_rows`.
    pub fn with_filters(dimensions: usize, filters: FilterLayout, metric: Metric, most_rows: usize) -> Result<Sample> {
        let geometry = Geometry::with_filters(dimensions, filters)?;
        Ok(Sample {
            geometry,
            metric,
            rotation: Rotation::new(&geometry, SEED),
            rows: Rows::with_room(geometry.rotated, most_rows)?,
            most: most_rows,
            rotated: vec![0.0; geometry.rotated],
        })
    }

    /// Memory that one row takes, with what training adds.
    pub fn bytes_per_row(dimensions: usize) -> usize {
        dimensions.next_multiple_of(64) + size_of::<f32>() + 4 * size_of::<u32>()
    }

    /// Adds a row. False: it has no place in the index, or there is no more room.
    pub fn add(&mut self, vector: &[f32]) -> Result<bool> {
        if vector.len() != self.geometry.dimensions {
            return Err(Error::Dimensions {
                expected: self.geometry.dimensions,
                actual: vector.len(),
            });
        }
        if self.rows.len() >= self.most || !rotate(self.metric, &self.rotation, vector, &mut self.rotated) {
            return Ok(false);
        }
        self.rows.push(&self.rotated);
        Ok(true)
    }

    /// Rows in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }
}

/// Rotates a vector as the metric wants it. False: it has no place in the index.
fn rotate(metric: Metric, rotation: &Rotation, vector: &[f32], out: &mut [f32]) -> bool {
    match metric {
        Metric::Cosine => match normalised(vector) {
            Some(vector) => rotation.apply(&vector, out),
            None => return false,
        },
        Metric::L2 | Metric::InnerProduct => rotation.apply(vector, out),
    }
    true
}

/// Centroids, ready to encode rows.
pub struct Trained {
    geometry: Geometry,
    metric: Metric,
    rotation: Rotation,
    tree: Tree,
    /// The first list of each branch.
    starts: Vec<u32>,
    lists: u32,
}

impl Trained {
    /// Trains `lists` centroids, fewer when the sample has fewer rows. Long: asks `cancel`, tells thousandths in
    /// `progress`, works on `threads` threads, this one among them, or as many as can be started.
    pub fn train(
        sample: Sample,
        lists: u32,
        threads: usize,
        cancel: &(dyn Fn() -> bool + Sync),
        progress: &AtomicU64,
    ) -> Result<Trained> {
        let control = Control {
            threads,
            cancel,
            progress,
        };
        let tree = kmeans::train(&sample.rows, lists as usize, SEED, &control)?;
        Ok(Self::of(sample.geometry, sample.metric, sample.rotation, tree))
    }

    pub(crate) fn of(geometry: Geometry, metric: Metric, rotation: Rotation, tree: Tree) -> Self {
        let mut starts = Vec::with_capacity(tree.lists.len());
        let mut lists = 0;
        for branch in &tree.lists {
            starts.push(lists);
            lists += branch.len() as u32;
        }
        Trained {
            geometry,
            metric,
            rotation,
            tree,
            starts,
            lists,
        }
    }

    /// Number of lists.
    pub fn lists(&self) -> u32 {
        self.lists
    }

    /// Bytes of an encoded row.
    pub fn record_bytes(&self) -> usize {
        CodeRecord::bytes(&self.geometry)
    }

    /// The part of all rows that is expected in a list.
    pub fn expected_share(&self, list: u32) -> f64 {
        self.tree.shares.get(list as usize).copied().unwrap_or(0.0)
    }

    /// The nearest list of a rotated row.
    fn nearest(&self, rotated: &[f32], near: &mut Vec<(f32, usize)>) -> (u32, &OwnedCentroid) {
        let integers = Integers::new(rotated);
        let kernels = vectors::quantised::kernels();
        let rank = |centroid: &OwnedCentroid| {
            let dot = kernels.dot_bytes(&centroid.code, &integers) as f32;
            centroid.squared - 2.0 * integers.step * centroid.scale * dot
        };
        near.clear();
        near.extend(
            self.tree
                .branches
                .iter()
                .enumerate()
                .map(|(at, centroid)| (rank(centroid), at)),
        );
        let keep = NEAR_BRANCHES.min(near.len());
        near.select_nth_unstable_by(keep - 1, |a, b| a.0.total_cmp(&b.0));
        let mut best = (f32::INFINITY, 0, 0);
        for &(_, branch) in &near[..keep] {
            for (at, centroid) in self.tree.lists[branch].iter().enumerate() {
                let rank = rank(centroid);
                if rank < best.0 {
                    best = (rank, branch, at);
                }
            }
        }
        let (_, branch, at) = best;
        (self.starts[branch] + at as u32, &self.tree.lists[branch][at])
    }

    fn encode(&self, batch: Batch) -> Result<Encoded> {
        let mut encoded = Encoded {
            lists: memory::vector(batch.tids.len())?,
            records: memory::vector(batch.tids.len() * self.record_bytes())?,
            refused: 0,
        };
        let mut rotated = vec![0.0; self.geometry.rotated];
        let mut near = Vec::new();
        let mut scratch = Scratch::default();
        let bytes = self.geometry.filters.row_bytes();
        for (at, (tid, vector)) in batch
            .tids
            .iter()
            .zip(batch.vectors.chunks_exact(self.geometry.dimensions))
            .enumerate()
        {
            let filters = &batch.filters[at * bytes..(at + 1) * bytes];
            if !rotate(self.metric, &self.rotation, vector, &mut rotated) {
                encoded.refused += 1;
                continue;
            }
            let (list, centroid) = self.nearest(&rotated, &mut near);
            code::encode(
                self.metric,
                &self.geometry,
                &rotated,
                centroid.view(),
                (*tid, filters),
                &mut scratch,
                &mut encoded.records,
            );
            encoded.lists.push(list);
        }
        Ok(encoded)
    }
}

/// Rows on their way to be encoded.
#[derive(Debug, Default)]
pub struct Batch {
    /// Where they are.
    pub tids: Vec<Tid>,
    /// Their vectors, one after the other.
    pub vectors: Vec<f32>,
    /// The values of the filter columns, one row after the other, as [`FilterLayout::put_row`] writes them.
    pub filters: Vec<u8>,
}

/// Encoded rows: for each its list, and its record of [`Trained::record_bytes`].
pub struct Encoded {
    /// The list of each row.
    pub lists: Vec<u32>,
    /// The records, one after the other.
    pub records: Vec<u8>,
    /// Rows that have no place in the index.
    pub refused: usize,
}

/// Threads that encode batches of rows.
pub struct Encoders {
    trained: Arc<Trained>,
    work: Option<SyncSender<Batch>>,
    done: Receiver<Result<Encoded>>,
    results: Sender<Result<Encoded>>,
    pending: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Encoders {
    /// Starts the threads, or as many as can be started; where none can, batches are encoded when they are submitted.
    /// Threads inherit the caller's signal mask.
    pub fn start(trained: &Arc<Trained>, threads: usize) -> Encoders {
        let threads = threads.max(1);
        let (work, batches) = sync_channel::<Batch>(2 * threads);
        let (results, done) = channel();
        let batches = Arc::new(Mutex::new(batches));
        let threads = (0..threads)
            .map_while(|_| {
                let (trained, batches, results) = (Arc::clone(trained), Arc::clone(&batches), results.clone());
                memory::ensure(THREAD_BYTES).ok()?;
                let work = move || encode_batches(&trained, &batches, &results);
                std::thread::Builder::new().spawn(work).ok()
            })
            .collect();
        Encoders {
            trained: Arc::clone(trained),
            work: Some(work),
            done,
            results,
            pending: 0,
            threads,
        }
    }

    /// Hands over rows; gives them back when all threads are busy.
    ///
    /// # Errors
    /// Vectors that are not as many as the rows, or of other dimensions; values of other columns.
    pub fn submit(&mut self, batch: Batch) -> Result<Option<Batch>> {
        let dimensions = self.trained.geometry.dimensions;
        let rows = batch.tids.len();
        if batch.vectors.len() != rows * dimensions {
            return Err(Error::Dimensions {
                expected: dimensions,
                actual: batch.vectors.len() / rows.max(1),
            });
        }
        if batch.filters.len() != rows * self.trained.geometry.filters.row_bytes() {
            return Err(Error::Store("rows came with the values of other filter columns".into()));
        }
        let Some(work) = &self.work else {
            return Err(Error::Cancelled);
        };
        if self.threads.is_empty() {
            let encoded = self.trained.encode(batch);
            self.pending += 1;
            return match self.results.send(encoded) {
                Ok(()) => Ok(None),
                Err(_) => Err(Error::Store("nobody receives encoded rows".into())),
            };
        }
        match work.try_send(batch) {
            Ok(()) => {
                self.pending += 1;
                Ok(None)
            }
            Err(TrySendError::Full(batch)) => Ok(Some(batch)),
            Err(TrySendError::Disconnected(_)) => Err(Error::Store("the encoding threads ended".into())),
        }
    }

    /// An encoded batch. With `wait`, none when all that was submitted has been received; without, none when none is
    /// ready yet.
    pub fn receive(&mut self, wait: bool) -> Result<Option<Encoded>> {
        if self.pending == 0 {
            return Ok(None);
        }
        let ended = || Error::Store("the encoding threads ended".into());
        let encoded = if wait {
            // A thread ends before the work does only when it fails, and this end holds a sender, too.
            loop {
                match self.done.recv_timeout(PATIENCE) {
                    Ok(encoded) => break encoded,
                    Err(RecvTimeoutError::Timeout) if !self.threads.iter().any(JoinHandle::is_finished) => (),
                    Err(_) => return Err(ended()),
                }
            }
        } else {
            match self.done.try_recv() {
                Ok(encoded) => encoded,
                Err(std::sync::mpsc::TryRecvError::Empty) => return Ok(None),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Err(ended()),
            }
        };
        self.pending -= 1;
        encoded.map(Some)
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn encode_batches(trained: &Trained, batches: &Mutex<Receiver<Batch>>, results: &Sender<Result<Encoded>>) {
    loop {
        let batch = {
            let batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.recv()
        };
        let Ok(batch) = batch else { return };
        if results.send(trained.encode(batch)).is_err() {
            return;
        }
    }
}

/// Writes the pages of an index that nobody knows yet: lists in ascending order, then their directories.
pub struct Writer<'s, S: PageStore> {
    store: &'s S,
    trained: &'s Trained,
    entries: Vec<ListEntry>,
    rows: u64,
}

impl<'s, S: PageStore> Writer<'s, S> {
    /// Begins with block 0, which stays invalid until [`finish`](Self::finish).
    pub fn new(store: &'s S, trained: &'s Trained) -> Result<Self> {
        let block = store.append(&Page::new(Kind::Meta, 0, 0))?;
        if block != 0 {
            return Err(Error::Store(format!("the index's first page has block {block}")));
        }
        Ok(Writer {
            store,
            trained,
            entries: memory::vector(trained.lists as usize)?,
            rows: 0,
        })
    }

    /// Writes a list. Lists come in ascending order; those left out are empty.
    pub fn add_list(&mut self, list: u32, records: &mut dyn Iterator<Item = &[u8]>) -> Result<()> {
        if list >= self.trained.lists || (list as usize) < self.entries.len() {
            return Err(Error::Store(format!("list {list} out of order")));
        }
        self.skip_to(list);
        let (mut all, geometry): (Vec<&[u8]>, _) = (Vec::new(), &self.trained.geometry);
        for record in records {
            grow::push(&mut all, record)?;
        }
        let records = all;
        memory::ensure(list::pages_for(geometry, records.len()) * size_of::<Page>())?;
        let first = self.store.blocks()?;
        let blocks: Vec<u32> = (0..list::pages_for(geometry, records.len()) as u32)
            .map(|at| first + at)
            .collect();
        for (page, &expected) in list::pages_of(geometry, list, 0, &records, &blocks).iter().zip(&blocks) {
            self.append_at(page, expected)?;
        }
        self.entries.push(ListEntry {
            list,
            generation: 0,
            head: blocks.first().copied().unwrap_or(NONE),
            count: records.len() as u32,
            rms_residual: rms_residual(geometry, self.trained.metric, &records),
        });
        self.rows += records.len() as u64;
        self.store.interrupts()
    }

    /// Writes a list of `rows` rows that are too many to lie in memory: `more` appends the records of as many
    /// further rows as it is asked for.
    pub fn add_long_list(
        &mut self,
        list: u32,
        rows: usize,
        more: &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if list >= self.trained.lists || (list as usize) < self.entries.len() {
            return Err(Error::Store(format!("list {list} out of order")));
        }
        self.skip_to(list);
        let geometry = &self.trained.geometry;
        let bytes = CodeRecord::bytes(geometry);
        let (head, slots) = (self.store.blocks()?, geometry.slots());
        let mut squares = 0.0;
        let mut records = Vec::with_capacity(slots * bytes);
        for done in (0..rows).step_by(slots) {
            self.store.interrupts()?;
            let wanted = slots.min(rows - done);
            records.clear();
            more(wanted, &mut records)?;
            if records.len() != wanted * bytes {
                return Err(Error::Store(format!("list {list} has fewer rows than were counted")));
            }
            let some: Vec<&[u8]> = records.chunks_exact(bytes).collect();
            squares += squared(geometry, self.trained.metric, &some);
            // Each scan page with its refine pages behind it: their places are known before the next rows are.
            let scan = self.store.blocks()?;
            let blocks: Vec<u32> = (0..list::pages_for(geometry, wanted) as u32)
                .map(|at| scan + at)
                .collect();
            let mut pages = list::pages_of(geometry, list, 0, &some, &blocks);
            if done + wanted < rows {
                pages[0].set_next(scan + blocks.len() as u32);
            }
            if done == 0 && rows > slots {
                let last = (rows - 1) / slots * list::pages_for(geometry, slots);
                list::set_insert_page(&mut pages[0], head + last as u32);
            }
            for (page, &expected) in pages.iter().zip(&blocks) {
                self.append_at(page, expected)?;
            }
        }
        self.entries.push(ListEntry {
            list,
            generation: 0,
            head: if rows == 0 { NONE } else { head },
            count: rows as u32,
            rms_residual: (squares / rows.max(1) as f64).sqrt() as f32,
        });
        self.rows += rows as u64;
        Ok(())
    }

    /// Writes directories, branches and block 0.
    pub fn finish(mut self) -> Result<Meta> {
        self.skip_to(self.trained.lists);
        let geometry = &self.trained.geometry;
        let tree = &self.trained.tree;
        let mut branches = Vec::with_capacity(tree.lists.len());
        for (branch, centroids) in tree.lists.iter().enumerate() {
            let start = self.trained.starts[branch] as usize;
            let directory = self.write_chain(Kind::Directory, centroids.len(), |page, at, i| {
                directory::put_centroid(geometry, page, at, centroids[i].view());
                directory::put_list_entry(geometry, page, at, self.entries[start + i]);
            })?;
            branches.push(BranchEntry {
                directory,
                lists: centroids.len() as u32,
                chain: 0,
            });
        }
        let branch_block = self.write_chain(Kind::Branch, branches.len(), |page, at, i| {
            directory::put_centroid(geometry, page, at, tree.branches[i].view());
            directory::put_branch_entry(geometry, page, at, branches[i]);
        })?;
        let meta = Meta {
            dimensions: geometry.dimensions,
            metric: self.trained.metric,
            filters: geometry.filters,
            lists: self.trained.lists,
            rows: self.rows,
            branches: branches.len() as u32,
            curve: Vec::new(),
            distances: Vec::new(),
            lists_for_itself: 0,
            measured_lists: 0,
            seed: SEED,
            branch_block,
            next_list: self.trained.lists,
            chains: 0,
        };
        let mut page = self.store.write(0)?;
        meta.write(page.page_mut());
        self.store.commit(vec![page])?;
        Ok(meta)
    }

    /// Appends centroid pages, linked in order; gives the first.
    fn write_chain(&self, kind: Kind, count: usize, put: impl Fn(&mut Page, usize, usize)) -> Result<u32> {
        let per_page = self.trained.geometry.centroids;
        let pages = count.div_ceil(per_page).max(1);
        let first = self.store.blocks()?;
        for at in 0..pages {
            let mut page = Page::new(kind, 0, 0);
            for i in (at * per_page..count).take(per_page) {
                put(&mut page, i - at * per_page, i);
            }
            if at + 1 < pages {
                page.set_next(first + at as u32 + 1);
            }
            self.append_at(&page, first + at as u32)?;
            self.store.interrupts()?;
        }
        Ok(first)
    }

    fn append_at(&self, page: &Page, expected: u32) -> Result<()> {
        let block = self.store.append(page)?;
        if block != expected {
            return Err(Error::Store(format!(
                "page {block} was written where {expected} was expected"
            )));
        }
        Ok(())
    }

    fn skip_to(&mut self, list: u32) {
        for list in self.entries.len() as u32..list {
            self.entries.push(ListEntry {
                list,
                generation: 0,
                head: NONE,
                count: 0,
                rms_residual: 0.0,
            });
        }
    }
}

/// Root mean square of the residuals.
fn rms_residual(geometry: &Geometry, metric: Metric, records: &[&[u8]]) -> f32 {
    (squared(geometry, metric, records) / records.len().max(1) as f64).sqrt() as f32
}

/// The sum of the residuals' squares, as far as the codes tell: each scale is proportional to its residual's length.
fn squared(geometry: &Geometry, metric: Metric, records: &[&[u8]]) -> f64 {
    records
        .iter()
        .map(|record| {
            let refine = CodeRecord::refine(record, geometry);
            let scale = f32::from_le_bytes([refine[0], refine[1], refine[2], refine[3]]);
            f64::from(code::residual_squared(metric, geometry, scale))
        })
        .sum()
}

/// Makes an index without rows and filter columns, as [`create_empty_with`] does.
pub fn create_empty<S: PageStore>(store: &S, dimensions: usize, metric: Metric) -> Result<Meta> {
    create_empty_with(store, dimensions, FilterLayout::default(), metric)
}

/// Makes an index without rows: one branch with one empty list, which splits as it fills.
pub fn create_empty_with<S: PageStore>(
    store: &S,
    dimensions: usize,
    filters: FilterLayout,
    metric: Metric,
) -> Result<Meta> {
    let geometry = Geometry::with_filters(dimensions, filters)?;
    let zero = OwnedCentroid::round(&vec![0.0; geometry.rotated]);
    let tree = Tree {
        branches: vec![zero.clone()],
        lists: vec![vec![zero]],
        shares: vec![1.0],
    };
    let trained = Trained::of(geometry, metric, Rotation::new(&geometry, SEED), tree);
    Writer::new(store, &trained)?.finish()
}

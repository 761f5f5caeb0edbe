//! Lloyd's algorithm over rows in bytes, in two levels for many centroids, on threads.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use vectors::quantised::{self, Integers};

use crate::centroid::OwnedCentroid;
use crate::{Error, Result, grow};

/// Rounds of Lloyd's algorithm on each level.
const ROUNDS: usize = 8;
/// Rounds over all centroids at the end.
const JOINT_ROUNDS: usize = 2;
/// Branches that a row is compared with in these.
pub(crate) const NEAR_BRANCHES: usize = 8;
/// Memory that a thread needs at once: its stack, and a little.
pub const THREAD_BYTES: usize = 4 << 20;
/// Up to so many centroids one level is enough.
pub(crate) const ONE_LEVEL: usize = 64;
/// Rows for each centroid of the upper level.
const UPPER_ROWS: usize = 1024;

/// Rows for training: rotated, in bytes with a scale each, so that many fit in little memory.
#[derive(Default)]
pub(crate) struct Rows {
    pub dimensions: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Rows {
    /// None yet, with room for so many.
    pub fn with_room(dimensions: usize, rows: usize) -> Result<Self> {
        Ok(Rows {
            dimensions,
            codes: memory::vector(rows * dimensions)?,
            scales: memory::vector(rows)?,
        })
    }

    /// Adds a row; there must be room for it.
    pub fn push(&mut self, row: &[f32]) {
        let rounded = OwnedCentroid::round(row);
        self.codes.extend_from_slice(&rounded.code);
        self.scales.push(rounded.scale);
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    fn code(&self, row: usize) -> &[i8] {
        &self.codes[row * self.dimensions..][..self.dimensions]
    }

    /// A row as the kernels take a query.
    fn integers(&self, row: usize) -> Integers {
        Integers {
            values: self.code(row).iter().map(|&c| i16::from(c)).collect(),
            step: self.scales[row],
            sum: 0,
        }
    }

    fn add_to(&self, row: usize, sum: &mut [f32]) {
        let scale = self.scales[row];
        for (sum, &code) in sum.iter_mut().zip(self.code(row)) {
            *sum += scale * f32::from(code);
        }
    }
}

/// A centroid in training; compared by its bytes, as it will be in the index.
#[derive(Clone)]
struct Mean {
    values: Vec<f32>,
    rounded: OwnedCentroid,
}

impl Mean {
    fn new(values: Vec<f32>) -> Self {
        Mean {
            rounded: OwnedCentroid::round(&values),
            values,
        }
    }

    /// Half the squared distance less half the row's squared norm.
    fn rank(&self, row: &Integers) -> f32 {
        let dot = quantised::kernels().dot_bytes(&self.rounded.code, row) as f32;
        0.5 * self.rounded.squared - row.step * self.rounded.scale * dot
    }
}

fn nearest_mean<'m>(row: &Integers, means: impl Iterator<Item = (usize, &'m Mean)>) -> (usize, f32) {
    let mut best = (0, f32::INFINITY);
    for (at, mean) in means {
        let rank = mean.rank(row);
        if rank < best.1 {
            best = (at, rank);
        }
    }
    best
}

/// Centroids in two levels.
pub(crate) struct Tree {
    /// One for each branch.
    pub branches: Vec<OwnedCentroid>,
    /// Lists of each branch.
    pub lists: Vec<Vec<OwnedCentroid>>,
    /// The part of the rows that fell to each list, in the order of branches and lists.
    pub shares: Vec<f64>,
}

/// What a long training is told and tells.
pub(crate) struct Control<'c> {
    pub threads: usize,
    /// Whether to end. With more than one thread it is asked on all of them.
    pub cancel: &'c (dyn Fn() -> bool + Sync),
    /// Thousandths done.
    pub progress: &'c AtomicU64,
}

impl Control<'_> {
    fn check(&self) -> Result<()> {
        if memory::is_short() {
            return Err(Error::OutOfMemory);
        }
        if (self.cancel)() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Computes something for each of `count` rows, on this thread and as many others as are wanted and can be started.
    fn map<T: Send + Clone + Default>(&self, count: usize, f: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
        self.check()?;
        let mut out = memory::zeroed::<T>(count)?;
        let chunk = count.div_ceil(self.threads.max(1)).max(1);
        let parts = Mutex::new(out.chunks_mut(chunk).enumerate());
        let ended = AtomicBool::new(false);
        let work = || {
            loop {
                let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((at, part)) = part else { return };
                for (i, slot) in part.iter_mut().enumerate() {
                    if i % 1024 == 0 && (ended.load(Ordering::Relaxed) || self.check().is_err()) {
                        ended.store(true, Ordering::Relaxed);
                        return;
                    }
                    *slot = f(at * chunk + i);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..count.div_ceil(chunk) {
                if memory::ensure(THREAD_BYTES).is_err() || thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        // One that ended early has left its part undone; why it did may be over by now.
        if ended.load(Ordering::Relaxed) {
            self.check()?;
            return Err(Error::OutOfMemory);
        }
        Ok(out)
    }
}

/// Bytes that the training of `lists` centroids from `rows` takes at most, besides the rows.
fn need(rows: &Rows, lists: usize) -> usize {
    // The means of a round in training and in bytes, those of the round before, and their sums;
    // four numbers for each row.
    lists * (rows.dimensions * (3 * size_of::<f32>() + 2) + 2 * size_of::<Mean>()) + rows.len() * 4 * size_of::<u32>()
}

/// Trains `lists` centroids.
pub(crate) fn train(rows: &Rows, lists: usize, seed: u64, control: &Control<'_>) -> Result<Tree> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let lists = lists.min(rows.len()).max(1);
    memory::ensure(need(rows, lists))?;
    let mut all: Vec<u32> = memory::vector(rows.len())?;
    all.extend(0..rows.len() as u32);
    let branch_count = if lists <= ONE_LEVEL {
        1
    } else {
        (lists as f64).sqrt().round() as usize
    };
    if rows.len() == 0 {
        let zero = OwnedCentroid::round(&vec![0.0; rows.dimensions]);
        return Ok(Tree {
            branches: vec![zero.clone()],
            lists: vec![vec![zero]],
            shares: vec![1.0],
        });
    }
    let mut upper = all;
    shuffle(&mut upper, &mut random);
    upper.truncate(UPPER_ROWS.saturating_mul(branch_count));
    let branches = lloyd(rows, &upper, branch_count, ROUNDS, &mut random, control)?;
    control.progress.store(200, Ordering::Relaxed);
    let of_branch = control.map(rows.len(), |row| {
        nearest_mean(&rows.integers(row), branches.iter().enumerate()).0 as u32
    })?;
    let mut members = vec![Vec::new(); branches.len()];
    for (row, branch) in of_branch.into_iter().enumerate() {
        grow::push(&mut members[branch as usize], row as u32)?;
    }
    let mut means: Vec<Vec<Mean>> = Vec::with_capacity(branches.len());
    for (at, members) in members.iter().enumerate() {
        let share = (lists as f64 * members.len() as f64 / rows.len() as f64).round() as usize;
        means.push(lloyd(rows, members, share.max(1), ROUNDS, &mut random, control)?);
        control
            .progress
            .store(200 + 400 * (at as u64 + 1) / branches.len() as u64, Ordering::Relaxed);
    }
    means.retain(|lists| !lists.is_empty());
    let mut shares = Vec::new();
    for round in 0..JOINT_ROUNDS {
        shares = joint_round(rows, &mut means, control)?;
        control
            .progress
            .store(600 + 400 * (round as u64 + 1) / JOINT_ROUNDS as u64, Ordering::Relaxed);
    }
    let branches = upper_means(&means, &shares);
    Ok(Tree {
        branches: branches.iter().map(|mean| OwnedCentroid::round(&mean.values)).collect(),
        lists: means
            .iter()
            .map(|lists| lists.iter().map(|mean| OwnedCentroid::round(&mean.values)).collect())
            .collect(),
        shares,
    })
}

/// One round of Lloyd's algorithm over the lists of the branches near each row; gives each list's share of the rows.
fn joint_round(rows: &Rows, means: &mut [Vec<Mean>], control: &Control<'_>) -> Result<Vec<f64>> {
    let starts: Vec<usize> = means
        .iter()
        .scan(0, |at, lists| {
            let start = *at;
            *at += lists.len();
            Some(start)
        })
        .collect();
    let count: usize = means.iter().map(Vec::len).sum();
    let even = vec![1.0 / count.max(1) as f64; count];
    let branches = upper_means(means, &even);
    let assigned = control.map(rows.len(), |row| {
        let row = rows.integers(row);
        let mut near: Vec<(f32, usize)> = branches
            .iter()
            .enumerate()
            .map(|(at, mean)| (mean.rank(&row), at))
            .collect();
        let keep = NEAR_BRANCHES.min(near.len());
        near.select_nth_unstable_by(keep - 1, |a, b| a.0.total_cmp(&b.0));
        let mut best = (0usize, f32::INFINITY);
        for &(_, branch) in &near[..keep] {
            let (at, rank) = nearest_mean(&row, means[branch].iter().enumerate());
            if rank < best.1 {
                best = (starts[branch] + at, rank);
            }
        }
        best.0 as u32
    })?;
    let mut sums = memory::zeroed::<f32>(count * rows.dimensions)?;
    let mut counts = vec![0u32; count];
    for (row, &list) in assigned.iter().enumerate() {
        rows.add_to(row, &mut sums[list as usize * rows.dimensions..][..rows.dimensions]);
        counts[list as usize] += 1;
    }
    for (at, mean) in means.iter_mut().flatten().enumerate() {
        if counts[at] > 0 {
            let sum = &sums[at * rows.dimensions..][..rows.dimensions];
            *mean = Mean::new(sum.iter().map(|x| x / counts[at] as f32).collect());
        }
    }
    Ok(counts.iter().map(|&n| f64::from(n) / rows.len() as f64).collect())
}

/// The mean of each branch's lists, weighted by their shares.
fn upper_means(means: &[Vec<Mean>], shares: &[f64]) -> Vec<Mean> {
    let mut at = 0;
    means
        .iter()
        .map(|lists| {
            let mut sum = vec![0.0f64; lists[0].values.len()];
            let mut weight = 0.0;
            for mean in lists {
                let share = shares[at].max(1e-9);
                at += 1;
                weight += share;
                for (sum, x) in sum.iter_mut().zip(&mean.values) {
                    *sum += share * f64::from(*x);
                }
            }
            Mean::new(sum.iter().map(|x| (x / weight) as f32).collect())
        })
        .collect()
}

fn lloyd(
    rows: &Rows,
    members: &[u32],
    count: usize,
    rounds: usize,
    random: &mut ChaCha8Rng,
    control: &Control<'_>,
) -> Result<Vec<Mean>> {
    let count = count.min(members.len());
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut chosen: Vec<u32> = memory::vector(members.len())?;
    chosen.extend_from_slice(members);
    shuffle(&mut chosen, random);
    let mut means: Vec<Mean> = chosen[..count]
        .iter()
        .map(|&row| {
            let mut values = vec![0.0; rows.dimensions];
            rows.add_to(row as usize, &mut values);
            Mean::new(values)
        })
        .collect();
    for _ in 0..if count == 1 { 1 } else { rounds } {
        let assigned = control.map(members.len(), |at| {
            nearest_mean(&rows.integers(members[at] as usize), means.iter().enumerate()).0 as u32
        })?;
        let mut sums = memory::zeroed::<f32>(count * rows.dimensions)?;
        let mut counts = vec![0u32; count];
        for (&row, &mean) in members.iter().zip(&assigned) {
            rows.add_to(
                row as usize,
                &mut sums[mean as usize * rows.dimensions..][..rows.dimensions],
            );
            counts[mean as usize] += 1;
        }
        for (at, mean) in means.iter_mut().enumerate() {
            if counts[at] > 0 {
                let sum = &sums[at * rows.dimensions..][..rows.dimensions];
                *mean = Mean::new(sum.iter().map(|x| x / counts[at] as f32).collect());
            } else {
                // An empty one begins again at a row of its own.
                let mut values = vec![0.0; rows.dimensions];
                rows.add_to(
                    members[random.next_u32() as usize % members.len()] as usize,
                    &mut values,
                );
                *mean = Mean::new(values);
            }
        }
    }
    Ok(means)
}

fn shuffle(rows: &mut [u32], random: &mut ChaCha8Rng) {
    for at in (1..rows.len()).rev() {
        rows.swap(at, (random.next_u64() % (at as u64 + 1)) as usize);
    }
}

/// Splits vectors (one after the other) into at most `parts`; fewer when they do not differ.
pub(crate) fn split(vectors: &[f32], dimensions: usize, parts: usize) -> Result<Vec<OwnedCentroid>> {
    let mut rows = Rows::with_room(dimensions, vectors.len() / dimensions)?;
    for vector in vectors.chunks_exact(dimensions) {
        rows.push(vector);
    }
    let members: Vec<u32> = (0..rows.len() as u32).collect();
    let control = Control {
        threads: 1,
        cancel: &|| false,
        progress: &AtomicU64::new(0),
    };
    let mut random = ChaCha8Rng::seed_from_u64(rows.len() as u64);
    let means = lloyd(&rows, &members, parts, ROUNDS, &mut random, &control)?;
    let mut counts = vec![0usize; means.len()];
    for &row in &members {
        counts[nearest_mean(&rows.integers(row as usize), means.iter().enumerate()).0] += 1;
    }
    Ok(means
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(mean, _)| OwnedCentroid::round(&mean.values))
        .collect())
}

/// The nearest of a few centroids.
pub(crate) fn nearest(vector: &[f32], centroids: &[OwnedCentroid]) -> usize {
    let integers = Integers::new(vector);
    let mut best = (0, f32::INFINITY);
    for (at, centroid) in centroids.iter().enumerate() {
        let dot = integers.step * centroid.scale * quantised::kernels().dot_bytes(&centroid.code, &integers) as f32;
        let rank = centroid.squared - 2.0 * dot;
        if rank < best.1 {
            best = (at, rank);
        }
    }
    best.0
}

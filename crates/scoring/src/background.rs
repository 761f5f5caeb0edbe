//! The background set: descriptors of images that are copies of nothing, by which a query's similarities are judged.
//!
//! File format, all little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `CMBG` |
//! | u16 | version, 1 |
//! | u16 | encoding: 0 = f32, 1 = f16, 2 = int8 with a scale for each row |
//! | u32 | rows |
//! | u32 | dimensions |
//! | encoding 2: rows x f32 | scales; a component is scale x int8 |
//! | rows x dimensions | components, row by row |
//!
//! The set must be disjoint from the references: a reference in the background would suppress every copy of itself.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use half::f16;
use half::slice::HalfFloatSliceExt;
use vectors::Element;
use vectors::quantised::{MOST_IN_ROW, kernels};

/// Length of a descriptor.
pub const DIMENSIONS: RangeInclusive<u32> = 1..=16_000;
/// Most rows that a background may have; accuracy saturates at some ten thousand.
pub const MAX_ROWS: u32 = 10_000_000;
/// Most neighbours whose mean may be asked for.
pub const MAX_NEIGHBOURS: usize = 1000;

const MAGIC: &[u8; 4] = b"CMBG";
const VERSION: u16 = 1;
const HEADER: usize = 16;
/// A query this near to unit length is a unit vector that was rounded (to 16 bits, say) and is normalised again;
/// anything further away is no descriptor.
const UNIT_TOLERANCE: f64 = 0.01;
/// Background rows are rounded to 8 bits, so their length is off by more.
const ROW_UNIT_TOLERANCE: f64 = 0.02;

/// How the components are stored, in the file and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 8-bit integers with one scale for each row.
    Int8,
}

impl Encoding {
    fn bytes_per_component(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    fn bytes_per_row(self, dimensions: u64) -> u64 {
        self.bytes_per_component() * dimensions + if self == Self::Int8 { 4 } else { 0 }
    }
}

/// Why a background file or a query was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackgroundError {
    /// The first bytes are those of another format.
    #[error("the background does not start with CMBG and a header of {HEADER} bytes")]
    Magic,
    /// A header field outside its range.
    #[error("background header field {field}: {value} is not allowed; {allowed}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u32,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The file is longer or shorter than its header says.
    #[error("the background has {found} bytes; its header announces {expected}")]
    Length {
        /// Bytes that rows, dimensions and encoding ask for.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// A row with a component or scale that is NaN or infinite.
    #[error("background row {row} has a value that is not finite")]
    NonFiniteRow {
        /// Position, from 0.
        row: usize,
    },
    /// A row that is no unit vector.
    #[error("background row {row} has length {norm:.4}, not 1")]
    RowNotUnit {
        /// Position, from 0.
        row: usize,
        /// Its Euclidean length.
        norm: f64,
    },
    /// The query has another number of components than the background.
    #[error("the query has {found} dimensions, the background has {expected}")]
    Dimensions {
        /// Of the background.
        expected: usize,
        /// Of the query.
        found: usize,
    },
    /// The query has a component that is NaN or infinite.
    #[error("component {component} of the query is not finite")]
    NonFiniteQuery {
        /// Position, from 0.
        component: usize,
    },
    /// The query is no unit vector.
    #[error("the query has length {norm:.4}, not 1")]
    QueryNotUnit {
        /// Its Euclidean length.
        norm: f64,
    },
    /// `k` is 0, above [`MAX_NEIGHBOURS`], or more than there are rows.
    #[error("{k} neighbours cannot be averaged; the number must be in 1..={most}")]
    Neighbours {
        /// The number asked for.
        k: usize,
        /// The largest that this background allows.
        most: usize,
    },
}

impl BackgroundError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Magic | Self::Header { .. } | Self::Length { .. } => {
                "Write the background again with the training tools; the file may have been cut off in a transfer."
            }
            Self::NonFiniteRow { .. } | Self::RowNotUnit { .. } => {
                "Background descriptors must be L2-normalised descriptors of the same model."
            }
            Self::Dimensions { .. } => "Query and background must come from the same model.",
            Self::NonFiniteQuery { .. } | Self::QueryNotUnit { .. } => {
                "Pass a descriptor as the encoder made it, L2-normalised."
            }
            Self::Neighbours { .. } => "Choose fewer neighbours or a larger background.",
        }
    }
}

#[derive(Clone)]
enum Components {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// Each byte is an i8. They may lie in the program's own read-only data, which all processes share.
    Int8 {
        scales: Vec<f32>,
        codes: Cow<'static, [u8]>,
    },
}

/// A validated background set: rows of unit length, kept in memory in the encoding of the file.
#[derive(Clone)]
pub struct Background {
    rows: usize,
    dimensions: usize,
    components: Components,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background")
            .field("rows", &self.rows)
            .field("dimensions", &self.dimensions)
            .field("encoding", &self.encoding())
            .finish()
    }
}

impl Background {
    /// Reads a background file. The memory it takes is that of `bytes`.
    ///
    /// # Errors
    /// [`BackgroundError`] for a foreign or damaged file, and for a row that is not finite or not of unit length.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackgroundError> {
        let header = Header::parse(bytes)?;
        let background = Self::from_payload(&header, &bytes[HEADER..], |codes| Cow::Owned(codes.to_vec()));
        background.check_rows()?;
        Ok(background)
    }

    /// As [`Background::parse`], for bytes that are part of the program and that its own tests have parsed: 8-bit
    /// components are used where they lie, so that every process shares one copy of them, and the rows are not looked
    /// through once more by each process.
    ///
    /// # Errors
    /// [`BackgroundError`] for a foreign header and another length than it announces.
    pub fn from_verified(bytes: &'static [u8]) -> Result<Self, BackgroundError> {
        let header = Header::parse(bytes)?;
        Ok(Self::from_payload(&header, &bytes[HEADER..], Cow::Borrowed))
    }

    fn from_payload<'a>(header: &Header, payload: &'a [u8], keep: impl FnOnce(&'a [u8]) -> Cow<'static, [u8]>) -> Self {
        let components = match header.encoding {
            Encoding::F32 => Components::F32(floats(payload)),
            Encoding::F16 => Components::F16(
                payload
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&bytes| f16::from_le_bytes(bytes))
                    .collect(),
            ),
            Encoding::Int8 => {
                let (scales, codes) = payload.split_at(header.rows * 4);
                Components::Int8 {
                    scales: floats(scales),
                    codes: keep(codes),
                }
            }
        };
        Self {
            rows: header.rows,
            dimensions: header.dimensions,
            components,
        }
    }

    /// The first `rows` descriptors alone, which share the memory of all. As many as there are where there are fewer.
    #[must_use]
    pub fn first(mut self, rows: usize) -> Self {
        self.rows = self.rows.min(rows);
        let components = self.rows * self.dimensions;
        match &mut self.components {
            Components::F32(values) => values.truncate(components),
            Components::F16(values) => values.truncate(components),
            Components::Int8 { scales, codes } => {
                scales.truncate(self.rows);
                match codes {
                    Cow::Borrowed(bytes) => *bytes = &bytes[..components],
                    Cow::Owned(bytes) => bytes.truncate(components),
                }
            }
        }
        self
    }

    /// Number of descriptors.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Components of a descriptor.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How the components are stored.
    pub fn encoding(&self) -> Encoding {
        match self.components {
            Components::F32(_) => Encoding::F32,
            Components::F16(_) => Encoding::F16,
            Components::Int8 { .. } => Encoding::Int8,
        }
    }

    /// m of descriptor stretching: the mean inner product of the unit `query` with its `k` nearest rows, in -1..=1.
    ///
    /// Equal inner products are interchangeable, so ties do not matter. A query whose length is within 1 % of 1 counts
    /// as a rounded unit vector and is normalised first; any other is refused rather than silently scaled.
    /// Against an int8 background the query is rounded to 16 bits and the sums are exact integers, so the result
    /// is the same on every machine; its error is at most max|q| / 65,534 x the row's L1 norm, some 1e-5.
    ///
    /// # Errors
    /// [`BackgroundError`] for another number of dimensions, a query that is not finite or not of unit length, and a
    /// `k` outside 1..=min(rows, [`MAX_NEIGHBOURS`]).
    pub fn mean_top_k(&self, query: &[f32], k: usize) -> Result<f32, BackgroundError> {
        let most = self.rows.min(MAX_NEIGHBOURS);
        if k == 0 || k > most {
            return Err(BackgroundError::Neighbours { k, most });
        }
        let query = self.unit(query)?;
        let mut best = Best::new(k);
        match &self.components {
            Components::F32(rows) => {
                let kernels = f32::kernels();
                for row in rows.chunks_exact(self.dimensions) {
                    best.offer(kernels.inner_product(&query, row));
                }
            }
            Components::F16(rows) => {
                let kernels = f32::kernels();
                let mut widened = vec![0.0; self.dimensions];
                for row in rows.chunks_exact(self.dimensions) {
                    row.convert_to_f32_slice(&mut widened);
                    best.offer(kernels.inner_product(&query, &widened));
                }
            }
            Components::Int8 { scales, codes } => {
                let (query, step) = quantise(&query);
                each_product(&query, codes, |row, product| {
                    best.offer((product as f64 * step * f64::from(scales[row])) as f32);
                });
            }
        }
        Ok(best.mean())
    }

    /// [`Background::mean_top_k`] of each of many queries, and exactly that: the rows are read once for many of them.
    ///
    /// # Errors
    /// That of the first query which has one.
    pub fn mean_top_k_of_each(&self, queries: &[Vec<f32>], k: usize) -> Result<Vec<f32>, BackgroundError> {
        let Components::Int8 { scales, codes } = &self.components else {
            return queries.iter().map(|query| self.mean_top_k(query, k)).collect();
        };
        let n = self.dimensions;
        if queries.len() < 2 || !n.is_multiple_of(64) || n > MOST_IN_ROW {
            return queries.iter().map(|query| self.mean_top_k(query, k)).collect();
        }
        let most = self.rows.min(MAX_NEIGHBOURS);
        if k == 0 || k > most {
            return Err(BackgroundError::Neighbours { k, most });
        }
        let kernels = kernels();
        let mut means = Vec::with_capacity(queries.len());
        for some in queries.chunks(QUERIES_AT_A_TIME) {
            let mut steps = Vec::with_capacity(some.len());
            let mut integers = Vec::with_capacity(some.len() * n);
            for query in some {
                let (query, step) = quantise(&self.unit(query)?);
                integers.extend(query);
                steps.push(step);
            }
            let mut best: Vec<Best> = some.iter().map(|_| Best::new(k)).collect();
            let mut products = vec![0; some.len() * ROWS_AT_A_TIME];
            for (rows, scales) in codes.chunks(ROWS_AT_A_TIME * n).zip(scales.chunks(ROWS_AT_A_TIME)) {
                let products = &mut products[..some.len() * scales.len()];
                kernels.dot_all(rows, &integers, n, products);
                for ((products, best), step) in products.chunks(scales.len()).zip(&mut best).zip(&steps) {
                    for (products, scales) in products.chunks(ROWS_JUDGED).zip(scales.chunks(ROWS_JUDGED)) {
                        if best.takes_none_of(products, scales, *step) {
                            continue;
                        }
                        for (product, scale) in products.iter().zip(scales) {
                            best.offer((f64::from(*product) * step * f64::from(*scale)) as f32);
                        }
                    }
                }
            }
            means.extend(best.iter().map(Best::mean));
        }
        Ok(means)
    }

    /// Row `row`, which is below [`Background::rows`], as a vector of length 1.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let range = row * self.dimensions..(row + 1) * self.dimensions;
        let values: Vec<f32> = match &self.components {
            Components::F32(rows) => rows[range].to_vec(),
            Components::F16(rows) => rows[range].iter().map(|value| value.to_f32()).collect(),
            Components::Int8 { scales, codes } => codes[range]
                .iter()
                .map(|&code| f32::from(code as i8) * scales[row])
                .collect(),
        };
        let norm = norm(values.iter().copied());
        values.iter().map(|&value| (f64::from(value) / norm) as f32).collect()
    }

    /// As [`Background::mean_top_k`] for row `row` against all the others.
    ///
    /// # Errors
    /// As [`Background::mean_top_k`]; `k` is at most one less.
    pub fn mean_top_k_of_row(&self, row: usize, k: usize) -> Result<f32, BackgroundError> {
        let values = self.row(row);
        let with_itself = f64::from(self.mean_top_k(&values, k + 1)?) * (k + 1) as f64;
        let itself = f64::from(self.mean_top_k(&values, 1)?);
        Ok(((with_itself - itself) / k as f64) as f32)
    }

    fn unit(&self, query: &[f32]) -> Result<Vec<f32>, BackgroundError> {
        if query.len() != self.dimensions {
            return Err(BackgroundError::Dimensions {
                expected: self.dimensions,
                found: query.len(),
            });
        }
        if let Some(component) = query.iter().position(|value| !value.is_finite()) {
            return Err(BackgroundError::NonFiniteQuery { component });
        }
        let norm = norm(query.iter().copied());
        if (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(BackgroundError::QueryNotUnit { norm });
        }
        Ok(query.iter().map(|&value| (f64::from(value) / norm) as f32).collect())
    }

    fn check_rows(&self) -> Result<(), BackgroundError> {
        for row in 0..self.rows {
            let range = row * self.dimensions..(row + 1) * self.dimensions;
            let norm = match &self.components {
                Components::F32(rows) => norm(rows[range].iter().copied()),
                Components::F16(rows) => norm(rows[range].iter().map(|value| value.to_f32())),
                Components::Int8 { scales, codes } => {
                    let squares = codes[range]
                        .iter()
                        .map(|&code| u64::from((code as i8).unsigned_abs()).pow(2));
                    f64::from(scales[row]).abs() * (squares.sum::<u64>() as f64).sqrt()
                }
            };
            if !norm.is_finite() {
                return Err(BackgroundError::NonFiniteRow { row });
            }
            if (norm - 1.0).abs() > ROW_UNIT_TOLERANCE {
                return Err(BackgroundError::RowNotUnit { row, norm });
            }
        }
        Ok(())
    }
}

struct Header {
    encoding: Encoding,
    rows: usize,
    dimensions: usize,
}

impl Header {
    /// Reads the header and sees that the payload has exactly the length that it announces, so that nothing is
    /// allocated on the word of the header alone.
    fn parse(bytes: &[u8]) -> Result<Self, BackgroundError> {
        let Some((header, payload)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(BackgroundError::Magic);
        };
        let [m0, m1, m2, m3, v0, v1, e0, e1, r0, r1, r2, r3, d0, d1, d2, d3] = *header;
        if [m0, m1, m2, m3] != *MAGIC {
            return Err(BackgroundError::Magic);
        }
        let refuse = |field, value, allowed| Err(BackgroundError::Header { field, value, allowed });
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return refuse("version", version.into(), "this build reads version 1");
        }
        let encoding = match u16::from_le_bytes([e0, e1]) {
            0 => Encoding::F32,
            1 => Encoding::F16,
            2 => Encoding::Int8,
            other => return refuse("encoding", other.into(), "it must be 0 (f32), 1 (f16) or 2 (int8)"),
        };
        let rows = u32::from_le_bytes([r0, r1, r2, r3]);
        if rows == 0 || rows > MAX_ROWS {
            return refuse("rows", rows, "it must be in 1..=10000000");
        }
        let dimensions = u32::from_le_bytes([d0, d1, d2, d3]);
        if !DIMENSIONS.contains(&dimensions) {
            return refuse("dimensions", dimensions, "it must be in 1..=16000");
        }
        // At most 1e7 x 64,004: far from overflow.
        let expected = HEADER as u64 + u64::from(rows) * encoding.bytes_per_row(dimensions.into());
        let found = HEADER as u64 + payload.len() as u64;
        if expected != found {
            return Err(BackgroundError::Length { expected, found });
        }
        Ok(Self {
            encoding,
            rows: rows as usize,
            dimensions: dimensions as usize,
        })
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The query as 16-bit integers and the value of one step.
fn quantise(query: &[f32]) -> (Vec<i16>, f64) {
    let largest = query.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // A unit vector has a component of at least 1/sqrt(dimensions), so nothing is divided by zero.
    let step = f64::from(largest) / f64::from(i16::MAX);
    (
        query
            .iter()
            .map(|&value| (f64::from(value) / step).round() as i16)
            .collect(),
        step,
    )
}

/// Rows whose products are computed at a time: these stay in the first-level cache.
const ROWS_AT_A_TIME: usize = 256;
/// Of these, rows that are judged at a time.
const ROWS_JUDGED: usize = 64;
/// Queries that are compared with these while they are there.
const QUERIES_AT_A_TIME: usize = 32;

/// Calls `offer` with the number of each row of 8-bit integers and its inner product with the query, which is exact.
fn each_product(query: &[i16], codes: &[u8], mut offer: impl FnMut(usize, i64)) {
    let n = query.len();
    if !n.is_multiple_of(64) || n > MOST_IN_ROW {
        for (row, code) in codes.chunks_exact(n).enumerate() {
            offer(row, integer_dot(query, code));
        }
        return;
    }
    let kernels = kernels();
    let mut products = [0; ROWS_AT_A_TIME];
    let mut row = 0;
    for rows in codes.chunks(ROWS_AT_A_TIME * n) {
        let products = &mut products[..rows.len() / n];
        kernels.dot_rows(rows, query, products);
        for &product in &*products {
            offer(row, i64::from(product));
            row += 1;
        }
    }
}

/// Inner product of 16-bit and 8-bit integers of any length, exact.
fn integer_dot(query: &[i16], codes: &[u8]) -> i64 {
    query
        .chunks(MOST_IN_ROW)
        .zip(codes.chunks(MOST_IN_ROW))
        .map(|(query, codes)| {
            let products = query
                .iter()
                .zip(codes)
                .map(|(&q, &code)| i32::from(q) * i32::from(code as i8));
            i64::from(products.sum::<i32>())
        })
        .sum()
}

/// The `k` largest values seen, largest first.
struct Best {
    k: usize,
    values: Vec<f32>,
}

impl Best {
    fn new(k: usize) -> Self {
        Self {
            k,
            values: Vec::with_capacity(k + 1),
        }
    }

    #[inline]
    fn offer(&mut self, value: f32) {
        if self.values.len() < self.k || value > self.values[self.k - 1] {
            self.insert(value);
        }
    }

    /// Whether none of some products, by their scales and a step, is large enough for sure. By single precision, with
    /// room for its rounding: most rows are far from being among the best.
    #[inline]
    fn takes_none_of(&self, products: &[i32], scales: &[f32], step: f64) -> bool {
        if self.values.len() < self.k {
            return false;
        }
        let mut largest = [f32::MIN; 8];
        for (products, scales) in products.chunks(8).zip(scales.chunks(8)) {
            for ((largest, product), scale) in largest.iter_mut().zip(products).zip(scales) {
                *largest = largest.max(*product as f32 * scale);
            }
        }
        let largest = f64::from(largest.into_iter().fold(f32::MIN, f32::max)) * step;
        largest + largest.abs() * 1e-6 < f64::from(self.values[self.k - 1])
    }

    fn insert(&mut self, value: f32) {
        let at = self.values.partition_point(|&better| better >= value);
        self.values.insert(at, value);
        self.values.truncate(self.k);
    }

    fn mean(&self) -> f32 {
        (self.values.iter().map(|&value| f64::from(value)).sum::<f64>() / self.values.len() as f64) as f32
    }
}

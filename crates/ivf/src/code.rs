//! From a vector to its codes and from codes to distances.
//!
//! With `c` the centroid, `o = x − c` the residual, both rotated, a code `u` with scale `d` stands for `o ≈ d·u`, where
//! `d` makes the projection onto `o` exact: `d = ‖o‖² / ⟨u, o⟩` (RaBitQ's unbiased estimator). The *key* of a row is
//! what orders it, smaller being nearer: squared distance for L2, minus the inner product otherwise. Both codes store
//! the key as `base + λ·constant + scale·⟨u, q⟩` with `base` and `λ` known per list and query:
//!
//! | | base | λ | constant | scale |
//! |---|---|---|---|---|
//! | L2 | ‖q − c‖² | 1 | ‖o‖² + 2d⟨u, c⟩ | −2d |
//! | otherwise | −⟨q, c⟩ | ⟨q, c⟩ / ‖c‖² | d⟨u, c⟩ − ⟨o, c⟩ | −d |
//!
//! so that the error is that of `⟨q − λc, o − d·u⟩`: only the part of the query that the centroid does not explain
//! meets the part of the residual that the code does not.
use vectors::quantised::{self, Integers, Tables};

use crate::centroid::Centroid;
use crate::geometry::{Geometry, REFINE_HEADER};
use crate::{Metric, Tid};

/// The middle of a six-bit code.
const MIDDLE: f32 = 31.5;
/// Step of the best uniform quantiser with 64 levels for a normal distribution of unit variance (Max, 1960).
const NORMAL_STEP: f32 = 0.104_1;
/// `√(1 − a²)` for `a` = ⟨u, o⟩/‖u‖‖o‖ of a one-bit code of evenly spread residuals, whose expectation is √(2/π).
const ONE_BIT_ERROR: f32 = 0.602_8;
/// Standard deviation of a number rounded to integers.
const ROUNDING_ERROR: f32 = 0.288_7;

/// A vector's codes on the way to their pages.
///
/// Row pointer (6 bytes), addend and factor of the one-bit code as bfloat16 (2 + 2), its nibbles, the refine record,
/// the filter columns' values.
pub(crate) struct CodeRecord;

impl CodeRecord {
    const ADDEND: usize = Tid::SIZE;
    const FACTOR: usize = Self::ADDEND + 2;
    const NIBBLES: usize = Self::FACTOR + 2;

    pub fn bytes(geometry: &Geometry) -> usize {
        Self::filters_at(geometry) + geometry.filters.row_bytes()
    }

    pub fn tid(record: &[u8]) -> Tid {
        Tid::get(record)
    }

    pub fn addend(record: &[u8]) -> [u8; 2] {
        [record[Self::ADDEND], record[Self::ADDEND + 1]]
    }

    pub fn factor(record: &[u8]) -> [u8; 2] {
        [record[Self::FACTOR], record[Self::FACTOR + 1]]
    }

    pub fn nibbles<'r>(record: &'r [u8], geometry: &Geometry) -> &'r [u8] {
        &record[Self::NIBBLES..Self::NIBBLES + geometry.scanned / 8]
    }

    pub fn refine<'r>(record: &'r [u8], geometry: &Geometry) -> &'r [u8] {
        &record[Self::NIBBLES + geometry.scanned / 8..Self::filters_at(geometry)]
    }

    /// The filter columns' values, as [`FilterLayout::put_row`](crate::FilterLayout::put_row) writes them.
    pub fn filters<'r>(record: &'r [u8], geometry: &Geometry) -> &'r [u8] {
        &record[Self::filters_at(geometry)..]
    }

    fn filters_at(geometry: &Geometry) -> usize {
        Self::NIBBLES + geometry.scanned / 8 + geometry.refine_bytes
    }

    pub fn nibbles_mut<'r>(record: &'r mut [u8], geometry: &Geometry) -> &'r mut [u8] {
        &mut record[Self::NIBBLES..Self::NIBBLES + geometry.scanned / 8]
    }

    pub fn refine_mut<'r>(record: &'r mut [u8], geometry: &Geometry) -> &'r mut [u8] {
        &mut record[Self::NIBBLES + geometry.scanned / 8..Self::filters_at(geometry)]
    }
}

/// The largest number that bfloat16 holds, less its rounding.
const LARGEST: f32 = 3.38e38;

/// A number that can be stored: what overflowed is as far away as a number can say.
fn finite(number: f32) -> f32 {
    if number.is_nan() {
        0.0
    } else {
        number.clamp(-LARGEST, LARGEST)
    }
}

/// Memory that encoding uses again and again.
#[derive(Default)]
pub(crate) struct Scratch {
    residual: Vec<f32>,
    centre: Vec<f32>,
    code: Vec<u8>,
}

/// Appends the record of a row, a rotated vector `x` with its filter columns' values, in the list of `centroid`; gives
/// ‖o‖².
pub(crate) fn encode(
    metric: Metric,
    geometry: &Geometry,
    x: &[f32],
    centroid: Centroid<'_>,
    (tid, filters): (Tid, &[u8]),
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> f32 {
    let start = out.len();
    out.resize(start + CodeRecord::bytes(geometry), 0);
    let record = &mut out[start..];
    let Scratch { residual, centre, code } = scratch;
    residual.resize(x.len(), 0.0);
    centre.resize(x.len(), 0.0);
    code.resize(x.len(), 0);
    let scanned = geometry.scanned;
    let quantised::Residual {
        squared,
        along,
        largest,
        magnitudes,
        signed_centre,
    } = quantised::residual(x, centroid.code, centroid.scale, scanned, residual, centre);
    let terms = |d: f32, with_centre: f32| match metric {
        Metric::L2 => (finite(squared + 2.0 * d * with_centre), finite(-2.0 * d)),
        Metric::InnerProduct | Metric::Cosine => (finite(d * with_centre - along), finite(-d)),
    };

    tid.put(record);
    let d = if magnitudes > 0.0 { squared / magnitudes } else { 0.0 };
    let (addend, factor) = terms(d, signed_centre);
    record[CodeRecord::ADDEND..CodeRecord::FACTOR].copy_from_slice(&quantised::to_bf16(addend).to_le_bytes());
    record[CodeRecord::FACTOR..CodeRecord::NIBBLES].copy_from_slice(&quantised::to_bf16(factor).to_le_bytes());
    quantised::pack_signs(
        &residual[..scanned],
        &mut record[CodeRecord::NIBBLES..CodeRecord::NIBBLES + scanned / 8],
    );

    let deviation = (squared / residual.len() as f32).sqrt();
    let step = (largest / (MIDDLE + 0.5)).min(NORMAL_STEP * deviation);
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let (with_residual, with_centre) = quantised::levels(residual, centre, inverse, MIDDLE, code);
    let d = if with_residual > 0.0 {
        squared / with_residual
    } else {
        0.0
    };
    let (constant, scale) = terms(d, with_centre);
    let refine = CodeRecord::refine_mut(record, geometry);
    refine[..4].copy_from_slice(&scale.to_le_bytes());
    refine[4..8].copy_from_slice(&constant.to_le_bytes());
    quantised::put_six_bit(&mut refine[REFINE_HEADER..], code);
    record[CodeRecord::filters_at(geometry)..].copy_from_slice(filters);
    squared
}

/// A rotated vector as far as its refine record knows it.
pub(crate) fn decode(metric: Metric, refine: &[u8], centroid: Centroid<'_>, code: &mut [u8], out: &mut [f32]) {
    let (scale, _) = refine_header(refine);
    let d = match metric {
        Metric::L2 => -0.5 * scale,
        Metric::InnerProduct | Metric::Cosine => -scale,
    };
    quantised::get_six_bit(&refine[REFINE_HEADER..], code);
    for ((x, level), c) in out.iter_mut().zip(&*code).zip(centroid.code) {
        *x = f32::from(*c) * centroid.scale + d * (f32::from(*level) - MIDDLE);
    }
}

fn refine_header(refine: &[u8]) -> (f32, f32) {
    let number = |at: usize| f32::from_le_bytes([refine[at], refine[at + 1], refine[at + 2], refine[at + 3]]);
    (number(0), number(4))
}

/// A query, rotated and in every form that the kernels take.
pub(crate) struct Query {
    pub integers: Integers,
    pub tables: Tables,
    metric: Metric,
    squared: f32,
}

/// What of a query is the same for all rows of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct InList {
    pub base: f32,
    pub lambda: f32,
    /// ‖q − λc‖: what the codes' errors are multiplied by.
    pub unexplained: f32,
}

impl Query {
    pub fn new(metric: Metric, geometry: &Geometry, rotated: &[f32]) -> Self {
        Query {
            integers: Integers::new(rotated),
            tables: Tables::new(&rotated[..geometry.scanned]),
            metric,
            squared: vectors::inner_product(rotated, rotated).unwrap_or(0.0) as f32,
        }
    }

    /// ⟨q, c⟩
    pub fn dot(&self, centroid: Centroid<'_>) -> f32 {
        self.dot_of(
            quantised::kernels().dot_bytes(centroid.code, &self.integers),
            centroid.scale,
        )
    }

    /// The same, from the sum of the integers' products.
    pub fn dot_of(&self, sum: i32, scale: f32) -> f32 {
        self.integers.step * scale * sum as f32
    }

    /// What orders centroids, smaller being nearer.
    pub fn rank(&self, dot: f32, centroid_squared: f32) -> f32 {
        match self.metric {
            Metric::L2 | Metric::Cosine => centroid_squared - 2.0 * dot,
            Metric::InnerProduct => -dot,
        }
    }

    pub fn in_list(&self, dot: f32, centroid_squared: f32) -> InList {
        match self.metric {
            Metric::L2 => {
                let base = (self.squared + centroid_squared - 2.0 * dot).max(0.0);
                InList {
                    base,
                    lambda: 1.0,
                    unexplained: base.sqrt(),
                }
            }
            Metric::InnerProduct | Metric::Cosine => {
                let lambda = if centroid_squared > 0.0 {
                    dot / centroid_squared
                } else {
                    0.0
                };
                InList {
                    base: -dot,
                    lambda,
                    unexplained: (self.squared - lambda * dot).max(0.0).sqrt(),
                }
            }
        }
    }

    pub fn estimate(&self, list: &InList) -> quantised::Estimate {
        quantised::Estimate {
            base: list.base,
            lambda: list.lambda,
            unit: self.tables.step(),
            zero: self.tables.bias(),
        }
    }

    /// Standard deviation of an estimate by the one-bit code with this factor.
    pub fn one_bit_error(&self, list: &InList, factor: f32) -> f32 {
        one_bit_error(list, factor)
    }

    /// A row's key by its refine record, and that key's standard deviation.
    pub fn refine(&self, list: &InList, refine: &[u8]) -> (f32, f32) {
        let (scale, constant) = refine_header(refine);
        let sum = quantised::kernels().dot_six_bit(&refine[REFINE_HEADER..], &self.integers) as f32;
        let inner = self.integers.step * (sum - MIDDLE * self.integers.sum as f32);
        let key = list.base + list.lambda * constant + scale * inner;
        (key, ROUNDING_ERROR * scale.abs() * list.unexplained)
    }
}

/// See [`Query::one_bit_error`].
pub(crate) fn one_bit_error(list: &InList, factor: f32) -> f32 {
    ONE_BIT_ERROR * factor.abs() * list.unexplained
}

/// ‖o‖² of a residual whose six-bit code has this scale: a step of a normal distribution's quantiser is a fixed part of
/// the deviation. Exact enough for a bound on what to skip.
pub(crate) fn residual_squared(metric: Metric, geometry: &Geometry, scale: f32) -> f32 {
    let d = match metric {
        Metric::L2 => 0.5 * scale,
        Metric::InnerProduct | Metric::Cosine => scale,
    };
    (d / NORMAL_STEP).powi(2) * geometry.rotated as f32
}

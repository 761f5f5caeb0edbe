//! The background's descriptors: how near a query comes to them, and some of them as queries
//! that are copies of nothing.

use pgrx::prelude::*;

use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::{Failure, boundary};
use crate::interrupts;
use crate::types::Vector;

#[pg_extern(sql = false)]
fn calibration_background(descriptor: Vector, calibration: i64) -> f64 {
    boundary(|| {
        let (model, neighbours) = Model::of_calibration(calibration)?;
        background(descriptor.elements(), &model, neighbours)
    })
}

/// The mean similarity of a descriptor to this many of the model's background descriptors that are nearest to it.
pub fn background(descriptor: &[f32], model: &Model, neighbours: usize) -> Result<f64, Failure> {
    with_background(model, |background| {
        background
            .mean_top_k(descriptor, neighbours)
            .map(f64::from)
            .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()).hint(error.hint()))
    })
}

/// A seeded sample of the background descriptors that a calibration was measured with, each with its similarity to the
/// others: pictures that are copies of nothing.
#[pg_extern(sql = false)]
fn calibration_background_sample(
    calibration: i64,
    count: i32,
    seed: i64,
) -> TableIterator<'static, (name!(descriptor, Vector), name!(background, f64))> {
    boundary(|| {
        let (model, neighbours) = Model::of_calibration(calibration)?;
        let count = usize::try_from(count).unwrap_or(0);
        let sample = with_background(&model, |background| {
            let mut sample = Vec::new();
            for row in drawn(background.rows(), count, seed.cast_unsigned()) {
                interrupts::process();
                let similarity = background.mean_top_k_of_row(row, neighbours).map_err(|error| {
                    Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()).hint(error.hint())
                })?;
                sample.push((background.row(row), f64::from(similarity)));
            }
            Ok(sample)
        })?;
        Ok(TableIterator::new(sample.into_iter().map(
            |(descriptor, similarity)| (Vector::from_elements(&descriptor), similarity),
        )))
    })
}

/// `count` different numbers below `rows`, or all of them: the first of a seeded shuffle (SplitMix64).
fn drawn(rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..rows).collect();
    let mut state = seed;
    let taken = count.min(rows);
    for at in 0..taken {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        let left = (rows - at) as u64;
        all.swap(at, at + usize::try_from(word % left).unwrap_or(0));
    }
    all.truncate(taken);
    all
}

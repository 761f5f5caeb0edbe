//! The random rotation: it spreads every vector's residual evenly over all dimensions, so that one bit of each tells
//! about the same (Gao & Long, "RaBitQ", SIGMOD 2024, section 3.1.2).
//!
//! Three rounds of random signs and a Walsh–Hadamard transform, which together are near a uniformly random rotation and
//! take `O(n log n)` (Ailon & Chazelle, 2009). Where the padded dimensions are no power of two, each round transforms
//! the first and then the last `2^k` of them.
use std::cell::RefCell;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::geometry::Geometry;

const ROUNDS: usize = 3;

thread_local! {
    /// The rotation last used: most processes search one index.
    static LAST: RefCell<Option<(Geometry, u64, Rc<Rotation>)>> = const { RefCell::new(None) };
}

/// A fixed orthogonal map from the vectors' dimensions to the padded ones.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    dimensions: usize,
    rotated: usize,
    /// The largest power of two within `rotated`.
    power: usize,
    /// ±1 for each round and dimension.
    signs: Vec<f32>,
}

impl Rotation {
    /// The rotation of a seed: the same on every machine, since the index stores what it made.
    pub fn new(geometry: &Geometry, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let signs = (0..ROUNDS * geometry.rotated)
            .map(|_| if random.next_u32() & 1 == 0 { 1.0 } else { -1.0 })
            .collect();
        Rotation {
            dimensions: geometry.dimensions,
            rotated: geometry.rotated,
            power: 1 << geometry.rotated.ilog2(),
            signs,
        }
    }

    /// The same, kept for the next call.
    pub fn shared(geometry: &Geometry, seed: u64) -> Rc<Self> {
        LAST.with_borrow_mut(|last| match last {
            Some((of, from, rotation)) if of == geometry && *from == seed => Rc::clone(rotation),
            _ => {
                let rotation = Rc::new(Rotation::new(geometry, seed));
                *last = Some((*geometry, seed, Rc::clone(&rotation)));
                rotation
            }
        })
    }

    /// Rotates a vector; `out` has the padded dimensions.
    pub fn apply(&self, vector: &[f32], out: &mut [f32]) {
        debug_assert!(vector.len() == self.dimensions && out.len() == self.rotated);
        out[..self.dimensions].copy_from_slice(vector);
        self.complete(out);
    }

    /// Rotates what stands in the first dimensions.
    fn complete(&self, out: &mut [f32]) {
        out[self.dimensions..].fill(0.0);
        let scale = 1.0 / (self.power as f32).sqrt();
        for signs in self.signs.chunks_exact(self.rotated) {
            for (x, sign) in out.iter_mut().zip(signs) {
                *x *= sign;
            }
            transform(&mut out[..self.power], scale);
            if self.power < self.rotated {
                transform(&mut out[self.rotated - self.power..], scale);
            }
        }
    }

    /// Takes out of a rotated vector what no vector of the dimensions has: of an error that is spread over all padded
    /// dimensions, the greater part by far where the dimensions are few.
    pub fn keep_within(&self, rotated: &mut [f32]) {
        if self.dimensions == self.rotated {
            return;
        }
        let scale = 1.0 / (self.power as f32).sqrt();
        // Each step is its own inverse.
        for signs in self.signs.chunks_exact(self.rotated).rev() {
            if self.power < self.rotated {
                transform(&mut rotated[self.rotated - self.power..], scale);
            }
            transform(&mut rotated[..self.power], scale);
            for (x, sign) in rotated.iter_mut().zip(signs) {
                *x *= sign;
            }
        }
        self.complete(rotated);
    }
}

/// The orthonormal Walsh–Hadamard transform, in place; the length is a power of two of at least 64.
fn transform(x: &mut [f32], scale: f32) {
    let mut half = 1;
    while half < 8 {
        for block in x.chunks_exact_mut(2 * half) {
            let (a, b) = block.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    while half < x.len() {
        for block in x.chunks_exact_mut(2 * half) {
            let (a, b) = block.split_at_mut(half);
            for (a, b) in a.as_chunks_mut::<8>().0.iter_mut().zip(b.as_chunks_mut::<8>().0) {
                for i in 0..8 {
                    (a[i], b[i]) = (a[i] + b[i], a[i] - b[i]);
                }
            }
        }
        half *= 2;
    }
    for x in x {
        *x *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
    }

    #[test]
    fn inner_products_stay() {
        for dimensions in [1, 3, 64, 100, 256, 300, 1000, 2000] {
            let geometry = Geometry::new(dimensions).unwrap();
            let rotation = Rotation::new(&geometry, 7);
            let a: Vec<f32> = (0..dimensions).map(|i| ((i * 37 + 11) % 23) as f32 - 11.0).collect();
            let b: Vec<f32> = (0..dimensions).map(|i| ((i * 53 + 5) % 19) as f32 - 9.0).collect();
            let mut ra = vec![0.0; geometry.rotated];
            let mut rb = vec![0.0; geometry.rotated];
            rotation.apply(&a, &mut ra);
            rotation.apply(&b, &mut rb);
            let scale = (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((dot(&a, &b) - dot(&ra, &rb)).abs() <= 1e-5 * scale, "{dimensions}");
            assert!(
                (dot(&a, &a) - dot(&ra, &ra)).abs() <= 1e-5 * dot(&a, &a),
                "{dimensions}"
            );
        }
    }

    #[test]
    fn what_no_vector_of_the_dimensions_has_is_taken_out_and_the_rest_stays() {
        for dimensions in [3, 64, 100, 300] {
            let geometry = Geometry::new(dimensions).unwrap();
            let rotation = Rotation::new(&geometry, 7);
            let a: Vec<f32> = (0..dimensions).map(|i| ((i * 37 + 11) % 23) as f32 - 11.0).collect();
            let mut rotated = vec![0.0; geometry.rotated];
            rotation.apply(&a, &mut rotated);
            let mut noisy: Vec<f32> = rotated
                .iter()
                .enumerate()
                .map(|(i, x)| x + [1.0, -1.0][i % 2])
                .collect();
            rotation.keep_within(&mut noisy);
            let left: f64 = noisy.iter().zip(&rotated).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let most = 2.5 * dimensions as f64;
            assert!(left <= most, "{dimensions}: {left} of {}", geometry.rotated);
            let before = noisy.clone();
            rotation.keep_within(&mut noisy);
            assert!(noisy.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn a_single_element_is_spread_over_all() {
        for dimensions in [64, 192, 256] {
            let geometry = Geometry::new(dimensions).unwrap();
            let mut spike = vec![0.0; dimensions];
            spike[5] = 1.0;
            let mut out = vec![0.0; geometry.rotated];
            Rotation::new(&geometry, 1).apply(&spike, &mut out);
            let largest = out.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(largest < 0.55, "{dimensions}: {largest}");
        }
    }
}

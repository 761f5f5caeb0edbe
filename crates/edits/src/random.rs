//! Seeded draws. The same seed gives the same numbers on every machine: the generator is ChaCha8 and every draw is
//! made of integer or exactly rounded IEEE operations here, not by a distribution whose algorithm a library may change.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A stream of numbers that belongs to one (edit, seed) pair.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// Two edits with the same seed draw different numbers, so that a chain of edits may share one seed.
    pub(super) fn new(edit: &str, seed: u64) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        for (place, byte) in key[8..].iter_mut().zip(edit.bytes()) {
            *place = byte;
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform over 0..count; 0 when `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// Uniform over [0, 1), in steps of 2⁻⁵³.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform over [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// −1 or 1.
    pub(super) fn sign(&mut self) -> f64 {
        if self.bits() & 1 == 0 { -1.0 } else { 1.0 }
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Any colour, each channel uniform.
    pub(super) fn colour(&mut self) -> [u8; 3] {
        let bits = self.bits().to_le_bytes();
        [bits[0], bits[1], bits[2]]
    }

    /// Approximately normal with mean 0 and standard deviation 1 in units of 1/[`Random::NORMAL_ONE`], as the sum of
    /// four uniform 16-bit numbers (Irwin–Hall); never beyond ±3.5 standard deviations.
    pub(super) fn normal(&mut self) -> i64 {
        let bits = self.bits();
        let sum = (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum::<u64>();
        sum as i64 - 2 * 0xffff
    }

    /// The standard deviation of [`Random::normal`]: √(4·(2³²−1)/12), rounded.
    pub(super) const NORMAL_ONE: i64 = 37_837;
}

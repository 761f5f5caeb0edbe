//! The inverse DCT of a block's lowest frequencies, 1, 2, 4 or 8 of them in each direction.
//!
//! With JPEG's orthonormal 8-point coefficients, the N-point transform that keeps the mean has the basis √(1/8) for
//! frequency 0 and ½·cos((2x+1)uπ / 2N) for the others, whatever N: the scale √(N/8) of the shorter transform cancels.

use std::sync::LazyLock;

fn basis<const N: usize>() -> [[f32; N]; N] {
    std::array::from_fn(|frequency| {
        std::array::from_fn(|x| {
            if frequency == 0 {
                return 0.125f32.sqrt();
            }
            let angle = ((2 * x + 1) * frequency) as f64 * std::f64::consts::PI / (2 * N) as f64;
            (0.5 * angle.cos()) as f32
        })
    })
}

const BASIS_1: [[f32; 1]; 1] = [[0.353_553_38]];
static BASIS_2: LazyLock<[[f32; 2]; 2]> = LazyLock::new(basis::<2>);
static BASIS_4: LazyLock<[[f32; 4]; 4]> = LazyLock::new(basis::<4>);
static BASIS_8: LazyLock<[[f32; 8]; 8]> = LazyLock::new(basis::<8>);

/// Transforms `down × across` dequantised coefficients (row-major, at the start of `coefficients`) into as many pixels
/// at the start of `target`; `size` is (across, down).
pub(super) fn block(size: (usize, usize), coefficients: &[i32; 64], target: &mut [u8], stride: usize) {
    macro_rules! transform {
        ($across:expr, $down:expr) => {
            transform(&$across, &$down, coefficients, target, stride)
        };
    }
    // The sizes of a component differ by the ratio of its sampling factors: 1, 2 or 4.
    match size {
        (2, 2) => transform!(*BASIS_2, *BASIS_2),
        (4, 4) => transform!(*BASIS_4, *BASIS_4),
        (8, 8) => transform!(*BASIS_8, *BASIS_8),
        (2, 1) => transform!(*BASIS_2, BASIS_1),
        (4, 2) => transform!(*BASIS_4, *BASIS_2),
        (8, 4) => transform!(*BASIS_8, *BASIS_4),
        (1, 2) => transform!(BASIS_1, *BASIS_2),
        (2, 4) => transform!(*BASIS_2, *BASIS_4),
        (4, 8) => transform!(*BASIS_4, *BASIS_8),
        (4, 1) => transform!(*BASIS_4, BASIS_1),
        (8, 2) => transform!(*BASIS_8, *BASIS_2),
        (1, 4) => transform!(BASIS_1, *BASIS_4),
        (2, 8) => transform!(*BASIS_2, *BASIS_8),
        _ => flat_block(size, coefficients[0], target, stride),
    }
}

/// A block that has a mean and nothing else.
pub(super) fn flat_block(size: (usize, usize), mean: i32, target: &mut [u8], stride: usize) {
    let value = ((mean.saturating_add(4) >> 3).saturating_add(128)).clamp(0, 255) as u8;
    for row in target.chunks_mut(stride).take(size.1) {
        row[..size.0].fill(value);
    }
}

#[inline(always)]
fn transform<const X: usize, const Y: usize>(
    across: &[[f32; X]; X],
    down: &[[f32; Y]; Y],
    coefficients: &[i32; 64],
    target: &mut [u8],
    stride: usize,
) {
    // Along the rows, then down the columns; the inner loops run over neighbouring pixels.
    let mut rows = [[0f32; X]; Y];
    for (row, coefficients) in rows.iter_mut().zip(coefficients.chunks_exact(X)) {
        for (&coefficient, wave) in coefficients.iter().zip(across) {
            if coefficient != 0 {
                let coefficient = coefficient as f32;
                for x in 0..X {
                    row[x] += coefficient * wave[x];
                }
            }
        }
    }
    for y in 0..Y {
        let mut pixels = [128.5f32; X];
        for (row, wave) in rows.iter().zip(down) {
            for x in 0..X {
                pixels[x] += row[x] * wave[y];
            }
        }
        for (to, pixel) in target[y * stride..y * stride + X].iter_mut().zip(pixels) {
            // `as` saturates at 0 and 255.
            *to = pixel as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T.81, A.3.3, word for word.
    fn reference(coefficients: &[i32; 64]) -> [f64; 64] {
        let c = |u: usize| if u == 0 { 0.5f64.sqrt() } else { 1.0 };
        std::array::from_fn(|i| {
            let (y, x) = (i / 8, i % 8);
            let mut sum = 0.0;
            for v in 0..8 {
                for u in 0..8 {
                    let wave = |x: usize, u: usize| ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos();
                    sum += c(u) * c(v) * f64::from(coefficients[v * 8 + u]) * wave(x, u) * wave(y, v);
                }
            }
            sum / 4.0 + 128.0
        })
    }

    fn noise(seed: u32, count: usize, amplitude: i32) -> [i32; 64] {
        let mut state = seed;
        std::array::from_fn(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i < count {
                (state >> 16) as i32 % (2 * amplitude + 1) - amplitude
            } else {
                0
            }
        })
    }

    #[test]
    fn the_8_point_transform_is_that_of_the_standard() {
        for seed in 0..20 {
            let coefficients = noise(seed, 64, 60);
            let mut pixels = [0u8; 64];
            block((8, 8), &coefficients, &mut pixels, 8);
            for (pixel, exact) in pixels.iter().zip(reference(&coefficients)) {
                assert!((f64::from(*pixel) - exact.clamp(0.0, 255.0)).abs() <= 0.51);
            }
        }
    }

    #[test]
    fn the_smaller_transforms_keep_the_mean_and_a_constant_block() {
        for size in [
            (1, 1),
            (2, 2),
            (4, 4),
            (8, 8),
            (2, 1),
            (4, 2),
            (8, 4),
            (1, 2),
            (2, 4),
            (4, 8),
            (4, 1),
            (2, 8),
        ] {
            for mean in [-1024, -80, 0, 400, 1016] {
                let mut coefficients = [0; 64];
                coefficients[0] = mean;
                let (mut pixels, mut flat) = ([0u8; 64], [0u8; 64]);
                block(size, &coefficients, &mut pixels, 8);
                flat_block(size, mean, &mut flat, 8);
                assert_eq!(pixels, flat, "size {size:?}, mean {mean}");
                assert_eq!(i32::from(pixels[0]), (mean / 8 + 128).clamp(0, 255));
            }
        }
    }

    #[test]
    fn a_smooth_wave_is_sampled_where_the_smaller_pixels_lie() {
        let mut coefficients = [0; 64];
        coefficients[1] = 200;
        let mut full = [0u8; 64];
        block((8, 8), &coefficients, &mut full, 8);
        let mut small = [0; 64];
        small[1] = 200;
        let mut quarter = [0u8; 8];
        block((2, 2), &small, &mut quarter, 4);
        for x in 0..2 {
            let mean = full[x * 4..x * 4 + 4].iter().map(|&p| f64::from(p)).sum::<f64>() / 4.0;
            assert!((f64::from(quarter[x]) - mean).abs() < 3.0);
        }
    }
}

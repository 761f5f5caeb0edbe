//! The inverse DCT of a block to 1, 2, 4 or 8 pixels in each direction: each pixel is the mean of the full-size pixels
//! it stands for, computed without those. The mean of a wave over 2, 4 or 8 neighbours is a wave again, and for some
//! frequencies zero: these need not even be read (libjpeg's reduced transforms leave out the same ones).

use std::sync::LazyLock;

/// The frequencies that a block of `size` pixels is made of.
pub(super) fn frequencies(size: usize) -> &'static [usize] {
    match size {
        1 => &[0],
        2 => &[0, 1, 3, 5, 7],
        4 => &[0, 1, 2, 3, 5, 6, 7],
        _ => &[0, 1, 2, 3, 4, 5, 6, 7],
    }
}

/// By frequency and pixel: the mean, over the 8 / N full-size positions of the pixel, of the orthonormal basis of T.81,
/// A.3.3: √(1/8) for frequency 0, ½·cos((2p + 1)uπ / 16) for the others.
fn basis<const K: usize, const N: usize>() -> [[f32; N]; K] {
    let group = 8 / N;
    std::array::from_fn(|index| {
        let frequency = frequencies(N)[index] as f64;
        std::array::from_fn(|pixel| {
            let wave = |position: usize| ((2 * position + 1) as f64 * frequency * std::f64::consts::PI / 16.0).cos();
            let sum: f64 = (pixel * group..(pixel + 1) * group).map(wave).sum();
            let scale = if frequency == 0.0 { 0.125f64.sqrt() } else { 0.5 };
            (scale * sum / group as f64) as f32
        })
    })
}

const BASIS_1: [[f32; 1]; 1] = [[0.353_553_38]];
static BASIS_2: LazyLock<[[f32; 2]; 5]> = LazyLock::new(basis::<5, 2>);
static BASIS_4: LazyLock<[[f32; 4]; 7]> = LazyLock::new(basis::<7, 4>);
static BASIS_8: LazyLock<[[f32; 8]; 8]> = LazyLock::new(basis::<8, 8>);

/// Transforms dequantised coefficients (of the frequencies that count, row-major, at the start of `coefficients`) into
/// pixels at the start of `target`; `size` is (across, down).
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
        (8, 8) => accurate(coefficients, target, stride),
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

/// The 8 × 8 transform as libjpeg's `jidctint` rounds it, so that a picture at full size has Pillow's pixels: Loeffler,
/// Ligtenberg, Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications" (ICASSP 1989), constants of 13
/// bits, columns first, two bits kept between the passes. Inner loops run over eight neighbours.
fn accurate(coefficients: &[i32; 64], target: &mut [u8], stride: usize) {
    const BITS: u32 = 13;
    const BETWEEN: u32 = 2;
    let rows: [[i32; 8]; 8] = std::array::from_fn(|v| std::array::from_fn(|u| coefficients[v * 8 + u]));
    let columns = pass(&rows, BITS, BITS - BETWEEN);
    let turned: [[i32; 8]; 8] = std::array::from_fn(|u| std::array::from_fn(|y| columns[y][u]));
    let pixels = pass(&turned, BITS, BITS + BETWEEN + 3);
    for y in 0..8 {
        let row: &mut [u8] = &mut target[y * stride..y * stride + 8];
        for (x, to) in row.iter_mut().enumerate() {
            *to = pixels[x][y].saturating_add(128).clamp(0, 255) as u8;
        }
    }
}

/// Eight 8-point transforms side by side, over the first index; results are rounded and shifted right by `shift`.
#[inline(always)]
fn pass(input: &[[i32; 8]; 8], bits: u32, shift: u32) -> [[i32; 8]; 8] {
    let mut output = [[0i32; 8]; 8];
    let half = 1i32 << (shift - 1);
    for lane in 0..8 {
        let at = |frequency: usize| input[frequency][lane];
        let times = |value: i32, factor: i32| value.wrapping_mul(factor);
        // Even frequencies.
        let turned = times(at(2).wrapping_add(at(6)), 4433);
        let low = turned.wrapping_sub(times(at(6), 15137));
        let high = turned.wrapping_add(times(at(2), 6270));
        let sum = at(0).wrapping_add(at(4)) << bits;
        let difference = at(0).wrapping_sub(at(4)) << bits;
        let even = [
            sum.wrapping_add(high),
            difference.wrapping_add(low),
            difference.wrapping_sub(low),
            sum.wrapping_sub(high),
        ];
        // Odd frequencies.
        let (a, b, c, d) = (at(7), at(5), at(3), at(1));
        let (z1, z2, z3, z4) = (
            a.wrapping_add(d),
            b.wrapping_add(c),
            a.wrapping_add(c),
            b.wrapping_add(d),
        );
        let z5 = times(z3.wrapping_add(z4), 9633);
        let (z1, z2) = (times(z1, -7373), times(z2, -20995));
        let z3 = times(z3, -16069).wrapping_add(z5);
        let z4 = times(z4, -3196).wrapping_add(z5);
        let odd = [
            times(d, 12299).wrapping_add(z1).wrapping_add(z4),
            times(c, 25172).wrapping_add(z2).wrapping_add(z3),
            times(b, 16819).wrapping_add(z2).wrapping_add(z4),
            times(a, 2446).wrapping_add(z1).wrapping_add(z3),
        ];
        for i in 0..4 {
            output[i][lane] = even[i].wrapping_add(odd[i]).wrapping_add(half) >> shift;
            output[7 - i][lane] = even[i].wrapping_sub(odd[i]).wrapping_add(half) >> shift;
        }
    }
    output
}

/// A block that has a mean and nothing else.
pub(super) fn flat_block(size: (usize, usize), mean: i32, target: &mut [u8], stride: usize) {
    let value = ((mean.saturating_add(4) >> 3).saturating_add(128)).clamp(0, 255) as u8;
    for row in target.chunks_mut(stride).take(size.1) {
        row[..size.0].fill(value);
    }
}

#[inline(always)]
fn transform<const X: usize, const U: usize, const Y: usize, const V: usize>(
    across: &[[f32; X]; U],
    down: &[[f32; Y]; V],
    coefficients: &[i32; 64],
    target: &mut [u8],
    stride: usize,
) {
    // Along the rows, then down the columns; the inner loops run over neighbouring pixels.
    let mut rows = [[0f32; X]; V];
    for (row, coefficients) in rows.iter_mut().zip(coefficients.chunks_exact(U)) {
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
                // IEEE 1180's bound for each pixel; to the bit it is held against Pillow's.
                assert!((f64::from(*pixel) - exact.clamp(0.0, 255.0)).abs() <= 1.0);
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
    fn the_smaller_transforms_are_means_of_the_full_one() {
        for seed in 0..20 {
            let natural = noise(seed, 64, 25);
            let exact = reference(&natural);
            for (across, down) in [(4, 4), (2, 2), (1, 1), (4, 2), (2, 4), (8, 4), (4, 8), (2, 1), (1, 4)] {
                let mut kept = [0; 64];
                let (columns, rows) = (frequencies(across), frequencies(down));
                for (row, &v) in rows.iter().enumerate() {
                    for (column, &u) in columns.iter().enumerate() {
                        kept[row * columns.len() + column] = natural[v * 8 + u];
                    }
                }
                let mut pixels = [0u8; 64];
                block((across, down), &kept, &mut pixels, 8);
                let (w, h) = (8 / across, 8 / down);
                for y in 0..down {
                    for x in 0..across {
                        let covered = (0..w * h).map(|i| exact[(y * h + i / w) * 8 + x * w + i % w]);
                        let mean = (covered.sum::<f64>() / (w * h) as f64).clamp(0.0, 255.0);
                        let pixel = f64::from(pixels[y * 8 + x]);
                        assert!(
                            (pixel - mean).abs() <= 0.51,
                            "{across}x{down} at {x},{y}: {pixel}, not {mean}"
                        );
                    }
                }
            }
        }
    }
}

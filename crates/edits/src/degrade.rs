//! Edits that lose detail without moving anything: noise and pixelise. (Blur is in `blur`, JPEG in the parent.)

use crate::canvas::Canvas;
use crate::random::Random;

/// Adds Gaussian noise with a standard deviation of 70·strength grey levels, independent per channel. One grain is
/// 1/480 of the shorter side (at least a pixel), so that a large photograph is not merely averaged clean on its way to
/// the network.
pub(super) fn noise(canvas: &mut Canvas, strength: f64, random: &mut Random) {
    let deviation = (70.0 * strength * 256.0).round() as i64;
    let grain = (canvas.short_side() / 480).max(1);
    let columns = canvas.width.div_ceil(grain);
    let mut grains = vec![0_i16; 3 * columns];
    for y in 0..canvas.height {
        if canvas.stops_at(y) {
            return;
        }
        if y % grain == 0 {
            for value in &mut grains {
                *value = (random.normal() * deviation / (Random::NORMAL_ONE * 256)) as i16;
            }
        }
        for (x, pixel) in canvas.row_mut(y).chunks_exact_mut(3).enumerate() {
            let start = 3 * (x / grain);
            for (value, shift) in pixel.iter_mut().zip(&grains[start..start + 3]) {
                *value = (i16::from(*value) + shift).clamp(0, 255) as u8;
            }
        }
    }
}

/// Replaces squares of up to strength/12 of the shorter side by their mean colour.
pub(super) fn pixelise(canvas: &mut Canvas, strength: f64) {
    let side = ((strength * canvas.short_side() as f64 / 12.0).round() as usize).max(1);
    if side == 1 {
        return;
    }
    for top in (0..canvas.height).step_by(side) {
        if canvas.poll.stopped() {
            return;
        }
        let bottom = (top + side).min(canvas.height);
        for left in (0..canvas.width).step_by(side) {
            let right = (left + side).min(canvas.width);
            let mut sums = [0_u64; 3];
            for y in top..bottom {
                for pixel in canvas.row(y)[3 * left..3 * right].chunks_exact(3) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum += u64::from(value);
                    }
                }
            }
            let count = ((bottom - top) * (right - left)) as u64;
            let mean = sums.map(|sum| ((sum + count / 2) / count) as u8);
            for y in top..bottom {
                for pixel in canvas.row_mut(y)[3 * left..3 * right].chunks_exact_mut(3) {
                    pixel.copy_from_slice(&mean);
                }
            }
        }
    }
}

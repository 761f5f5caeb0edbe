//! Edits of colour: jitter and grey. Both are one affine map of the colour cube, in 16-bit fixed point.

use crate::canvas::{Canvas, luma};
use crate::random::Random;

const ONE: f64 = 65_536.0;
/// Luma weights of ITU-R BT.601.
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

/// Brightness ×(1 ± 0.5·strength), contrast ×(1 ± 0.6·strength) about the mean luma, saturation ×(1 ± 0.8·strength),
/// hue turned by up to ±60°·strength. Each amount is drawn from the outer 60 % of its range.
pub(super) fn jitter(canvas: &mut Canvas, strength: f64, random: &mut Random) {
    let mut amount = |most: f64| random.sign() * random.between(0.4, 1.0) * most * strength;
    let brightness = 1.0 + amount(0.5);
    let contrast = 1.0 + amount(0.6);
    let saturation = 1.0 + amount(0.8);
    let turn = amount(core::f64::consts::FRAC_PI_3);
    let [red, green, blue] = canvas.mean_colour();
    let pivot = f64::from(luma(red, green, blue)) * brightness;
    // Saturation and hue act on the chroma part (colour − luma) alone; luma stays.
    let (sin, cos) = (libm::sin(turn), libm::cos(turn));
    let rotation = rotation_about_grey(sin, cos);
    let mut matrix = [[0.0; 3]; 3];
    for (row, values) in matrix.iter_mut().enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            // rotation · (I − 1·LUMAᵀ)
            let chroma = rotation[row][column] - LUMA[column] * rotation[row].iter().sum::<f64>();
            *value = (LUMA[column] + saturation * chroma) * brightness * contrast;
        }
    }
    affine(canvas, &matrix, pivot * (1.0 - contrast));
}

/// Rotation by an angle about the axis (1, 1, 1) of the colour cube (Rodrigues' formula).
fn rotation_about_grey(sin: f64, cos: f64) -> [[f64; 3]; 3] {
    let same = cos + (1.0 - cos) / 3.0;
    let next = (1.0 - cos) / 3.0 - sin / 3.0_f64.sqrt();
    let previous = (1.0 - cos) / 3.0 + sin / 3.0_f64.sqrt();
    [[same, next, previous], [previous, same, next], [next, previous, same]]
}

/// Moves each pixel towards its luma: strength 1 is grey.
pub(super) fn grey(canvas: &mut Canvas, strength: f64) {
    let mut matrix = [[0.0; 3]; 3];
    for (row, values) in matrix.iter_mut().enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            let own = if row == column { 1.0 } else { 0.0 };
            *value = own + strength * (LUMA[column] - own);
        }
    }
    affine(canvas, &matrix, 0.0);
}

/// colour' = matrix · colour + offset, clamped to 0..=255.
fn affine(canvas: &mut Canvas, matrix: &[[f64; 3]; 3], offset: f64) {
    let matrix = matrix.map(|row| row.map(|value| (value * ONE).round() as i64));
    let offset = ((offset + 0.5) * ONE).round() as i64;
    for y in 0..canvas.height {
        if canvas.stops_at(y) {
            return;
        }
        for pixel in canvas.row_mut(y).chunks_exact_mut(3) {
            let old = [i64::from(pixel[0]), i64::from(pixel[1]), i64::from(pixel[2])];
            for (value, row) in pixel.iter_mut().zip(&matrix) {
                let sum = row
                    .iter()
                    .zip(old)
                    .map(|(weight, channel)| weight * channel)
                    .sum::<i64>()
                    + offset;
                *value = (sum >> 16).clamp(0, 255) as u8;
            }
        }
    }
}

//! Edits that move whole pixels or resample along the axes: crop, quarter turn, flips, resize, aspect, pad.

use crate::EditError;
use crate::blur;
use crate::canvas::{Canvas, MIN_SIDE};
use crate::random::Random;
use imaging::buffers;

/// Keeps one window whose area is 1 − 0.9·strength of the picture, its aspect ratio off by at most 2^(±strength/2).
pub(super) fn crop<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let kept = 1.0 - 0.9 * strength;
    let stretch = libm::exp2(random.between(-0.25, 0.25) * strength);
    let side = |length: usize, share: f64| {
        ((length as f64 * share).round() as usize).clamp((MIN_SIDE as usize).min(length), length)
    };
    let width = side(canvas.width, kept.sqrt() * stretch);
    let height = side(canvas.height, kept.sqrt() / stretch);
    let left = random.below(canvas.width - width + 1);
    let top = random.below(canvas.height - height + 1);
    let mut pixels = buffers::with_room(3 * width * height)?;
    for y in top..top + height {
        pixels.extend_from_slice(&canvas.row(y)[3 * left..3 * (left + width)]);
    }
    Ok(Canvas {
        width,
        height,
        pixels,
        poll: canvas.poll,
    })
}

/// Turns by 90°, 180° or 270°.
pub(super) fn turn<'p>(canvas: &Canvas<'p>, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let (w, h) = (canvas.width, canvas.height);
    let quarter_turns = 1 + random.below(3);
    let (width, height) = if quarter_turns == 2 { (w, h) } else { (h, w) };
    let mut turned = Canvas::filled(width, height, [0; 3], canvas.poll)?;
    for y in 0..height {
        if turned.stops_at(y) {
            break;
        }
        let row = turned.row_mut(y);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let (from_x, from_y) = match quarter_turns {
                1 => (y, h - 1 - x),
                2 => (w - 1 - x, h - 1 - y),
                _ => (w - 1 - y, x),
            };
            pixel.copy_from_slice(&canvas.at(from_x, from_y));
        }
    }
    Ok(turned)
}

/// Mirrors left and right.
pub(super) fn flip(mut canvas: Canvas<'_>) -> Canvas<'_> {
    for y in 0..canvas.height {
        if canvas.stops_at(y) {
            break;
        }
        let row = canvas.row_mut(y);
        row.reverse();
        for pixel in row.chunks_exact_mut(3) {
            pixel.reverse();
        }
    }
    canvas
}

/// Mirrors top and bottom.
pub(super) fn flip_vertical<'p>(canvas: &Canvas<'p>) -> Result<Canvas<'p>, EditError> {
    let mut pixels = buffers::with_room(canvas.pixels.len())?;
    for y in (0..canvas.height).rev() {
        pixels.extend_from_slice(canvas.row(y));
    }
    Ok(canvas.with_pixels(pixels))
}

/// Scales both sides by 2^(−3.5·strength): 1 down to 0.088.
pub(super) fn resize<'p>(canvas: &Canvas<'p>, strength: f64) -> Result<Canvas<'p>, EditError> {
    let scale = libm::exp2(-3.5 * strength);
    canvas.resized(canvas.width as f64 * scale, canvas.height as f64 * scale)
}

/// Multiplies width ÷ height by 2^(±1.5·strength), at the same area.
pub(super) fn aspect<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let stretch = libm::exp2(random.sign() * 0.75 * strength * random.between(0.8, 1.0));
    canvas.resized(canvas.width as f64 * stretch, canvas.height as f64 / stretch)
}

/// Adds borders of up to 0.45·strength of a side at each of the four edges, in one colour or filled with the blurred
/// picture, as players and social networks letterbox.
pub(super) fn pad<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let mut border = |length: usize| (random.between(0.3, 1.0) * 0.45 * strength * length as f64).round() as usize;
    let (left, right) = (border(canvas.width), border(canvas.width));
    let (top, bottom) = (border(canvas.height), border(canvas.height));
    let (width, height) = (left + canvas.width + right, top + canvas.height + bottom);
    let mut padded = match random.below(5) {
        0 => {
            let mut cover = canvas.resized(width as f64, height as f64)?;
            let sigma = cover.short_side() as f64 * 0.04;
            blur::gaussian(&mut cover, sigma)?;
            cover
        }
        choice => {
            let colour = [[0; 3], [255; 3], canvas.mean_colour(), random.colour()][choice - 1];
            Canvas::filled(width, height, colour, canvas.poll)?
        }
    };
    padded.place(canvas, left, top);
    Ok(padded)
}

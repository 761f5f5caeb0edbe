//! Edits that put the picture onto another one.

use crate::EditError;
use crate::canvas::{Canvas, MIN_SIDE};
use crate::random::Random;
use crate::scenery;
use crate::warp;

/// Pastes onto a synthetic scene of about the same area, whose shape moves from the picture's own to 4:3, 1:1, 3:4 or
/// 16:9 as the strength grows.
pub(super) fn paste<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let own = canvas.width as f64 / canvas.height as f64;
    let goal = random.pick(&[4.0 / 3.0, 1.0, 3.0 / 4.0, 16.0 / 9.0]);
    let ratio = libm::exp2(libm::log2(own) * (1.0 - strength) + libm::log2(goal) * strength);
    let area = canvas.area() as f64;
    let side = |length: f64| (length.round() as usize).max(MIN_SIDE as usize);
    let (width, height) = (side((area * ratio).sqrt()), side((area / ratio).sqrt()));
    let scene = scenery::scene(width, height, random, canvas.poll)?;
    onto(canvas, scene, strength, random)
}

/// Pastes onto `other`: the picture's sides are 95 % down to 30 % of what would fill it, at a random place,
/// turned by up to ±15°·strength.
pub(super) fn onto<'p>(
    canvas: &Canvas<'p>,
    mut other: Canvas<'p>,
    strength: f64,
    random: &mut Random,
) -> Result<Canvas<'p>, EditError> {
    let angle = random.between(-0.26, 0.26) * strength;
    let [w, h] = [canvas.width as f64, canvas.height as f64];
    let (turned_width, turned_height) = warp::turned_size(w, h, angle);
    let [other_width, other_height] = [other.width as f64, other.height as f64];
    let scale = (other_width / turned_width).min(other_height / turned_height) * (0.95 - 0.65 * strength);
    let size = [w * scale, h * scale];
    let mut middle = |outer: f64, inner: f64| outer / 2.0 + random.between(-0.5, 0.5) * (outer - inner * scale);
    let centre = [middle(other_width, turned_width), middle(other_height, turned_height)];
    let source = canvas.resized_exactly(size[0].round() as u32, size[1].round() as u32)?;
    warp::lay_over_turned(&mut other, &source, angle, centre, size);
    Ok(other)
}

//! Synthetic pictures with the statistics of photographs, as backgrounds to paste onto.
//!
//! Dead leaves: opaque shapes of random colour that hide one another, with sizes distributed as r⁻³, which gives the
//! scale invariance and the sharp edges of natural images (Lee, Mumford, Huang, "Occlusion Models for Natural Images:
//! A Statistical Study of a Scale-Invariant Dead Leaves Model", IJCV 41, 2001). Over them lies a sum of octaves of
//! value noise with amplitudes falling as 1/f, for texture within the shapes.

use crate::EditError;
use crate::blur;
use crate::canvas::Canvas;
use crate::path::Path;
use crate::random::Random;
use imaging::Poll;

/// The scene is drawn at most this long and enlarged from there: descriptors see a few hundred pixels.
const LONGEST_DRAWN: f64 = 640.0;
/// Shapes far away, out of focus, and near ones before them.
const LEAVES: [usize; 2] = [160, 140];
const OCTAVES: usize = 6;

/// A picture of the given size (each side at least 24).
pub(super) fn scene<'p>(
    width: usize,
    height: usize,
    random: &mut Random,
    poll: &'p Poll<'p>,
) -> Result<Canvas<'p>, EditError> {
    let shrink = (LONGEST_DRAWN / width.max(height) as f64).min(1.0);
    let drawn = |length: usize| ((length as f64 * shrink).round() as usize).max(1);
    let mut canvas = Canvas::filled(drawn(width), drawn(height), [0; 3], poll)?;
    let palette: [[f64; 3]; 5] = core::array::from_fn(|_| muted_colour(random));
    sky(&mut canvas, random.pick(&palette), random.pick(&palette));
    leaves(&mut canvas, LEAVES[0], &palette, random);
    let distance = canvas.short_side() as f64 * random.between(0.004, 0.012);
    blur::gaussian(&mut canvas, distance)?;
    leaves(&mut canvas, LEAVES[1], &palette, random);
    texture(&mut canvas, random);
    let softness = random.between(0.3, 0.9);
    blur::gaussian(&mut canvas, softness)?;
    canvas.resized(width as f64, height as f64)
}

/// Natural colours are mostly grey, and their channels rise and fall together.
fn muted_colour(random: &mut Random) -> [f64; 3] {
    let lightness = random.between(30.0, 225.0);
    core::array::from_fn(|_| lightness + random.between(-24.0, 24.0))
}

fn to_bytes(colour: [f64; 3]) -> [u8; 3] {
    colour.map(|channel| channel.round().clamp(0.0, 255.0) as u8)
}

fn sky(canvas: &mut Canvas, top: [f64; 3], bottom: [f64; 3]) {
    for y in 0..canvas.height {
        let share = (y as f64 + 0.5) / canvas.height as f64;
        let colour = to_bytes(core::array::from_fn(|channel| {
            top[channel] + (bottom[channel] - top[channel]) * share
        }));
        for pixel in canvas.row_mut(y).chunks_exact_mut(3) {
            pixel.copy_from_slice(&colour);
        }
    }
}

fn leaves(canvas: &mut Canvas, count: usize, palette: &[[f64; 3]], random: &mut Random) {
    let (w, h) = (canvas.width as f64, canvas.height as f64);
    let longest = w.max(h);
    let (smallest, largest) = (0.025 * longest, 0.35 * longest);
    let horizon = random.between(0.0, 0.6);
    for _ in 0..count {
        // Inverse of the distribution function of a density ∝ r⁻³ between the two radii.
        let (low, high) = (1.0 / (largest * largest), 1.0 / (smallest * smallest));
        let radius = 1.0 / random.between(low, high).sqrt();
        let centre = [
            random.between(-0.1, 1.1) * w,
            (horizon + (1.05 - horizon) * random.unit()) * h,
        ];
        let flatness = random.between(0.35, 1.0);
        let unit = if random.below(5) == 0 {
            Path::rectangle(-1.0, -flatness, 2.0, 2.0 * flatness, 0.0)
        } else {
            Path::ellipse([0.0, 0.0], 1.0, flatness)
        };
        let leaf = unit.placed(centre, radius, random.between(0.0, core::f64::consts::PI));
        let shift = random.between(-25.0, 25.0);
        let colour = random
            .pick(palette)
            .map(|channel| channel + shift + random.between(-8.0, 8.0));
        // Light falls from one side: up to ±30 grey levels across the leaf.
        let (dx, dy) = (
            random.between(-30.0, 30.0) / radius,
            random.between(-30.0, 30.0) / radius,
        );
        leaf.fill(canvas, 1.0, |x, y| {
            let light = dx * (x as f64 - centre[0]) + dy * (y as f64 - centre[1]);
            to_bytes(colour.map(|channel| channel + light))
        });
    }
}

/// Multiplies the luminance by 1 ± 0.45 of 1/f noise.
fn texture(canvas: &mut Canvas, random: &mut Random) {
    let longest = canvas.width.max(canvas.height) as f64;
    let lattices: Vec<Lattice> = (0..OCTAVES)
        .map(|octave| {
            let cells = 3 << octave;
            Lattice::new(cells, longest / cells as f64, random)
        })
        .collect();
    for y in 0..canvas.height {
        if canvas.stops_at(y) {
            return;
        }
        for x in 0..canvas.width {
            let (sum, _) = lattices.iter().fold((0.0, 0.5), |(sum, amplitude), lattice| {
                (sum + amplitude * lattice.at(x as f64, y as f64), amplitude / 2.0)
            });
            let gain = ((1.0 + 0.9 * (sum - 0.5)) * 256.0) as u32;
            let start = 3 * (y * canvas.width + x);
            for value in &mut canvas.pixels[start..start + 3] {
                *value = ((u32::from(*value) * gain) >> 8).min(255) as u8;
            }
        }
    }
}

/// Random values on a square grid, interpolated smoothly between its points.
struct Lattice {
    stride: usize,
    spacing: f64,
    values: Vec<f64>,
}

impl Lattice {
    fn new(cells: usize, spacing: f64, random: &mut Random) -> Self {
        let stride = cells + 2;
        Self {
            stride,
            spacing,
            values: (0..stride * stride).map(|_| random.unit()).collect(),
        }
    }

    /// In [0, 1).
    fn at(&self, x: f64, y: f64) -> f64 {
        let place = |length: f64| {
            let cell = length / self.spacing;
            let whole = (cell as usize).min(self.stride - 2);
            let part = cell - whole as f64;
            (whole, part * part * (3.0 - 2.0 * part))
        };
        let ((column, fx), (row, fy)) = (place(x), place(y));
        let value = |right: usize, down: usize| self.values[(row + down) * self.stride + column + right];
        let upper = value(0, 0) + (value(1, 0) - value(0, 0)) * fx;
        let lower = value(0, 1) + (value(1, 1) - value(0, 1)) * fx;
        upper + (lower - upper) * fy
    }
}

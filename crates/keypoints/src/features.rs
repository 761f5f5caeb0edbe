//! Local features: place, size, angle, and a histogram of gradients cut to 128 bits.
//!
//! The histogram is SIFT's (Lowe, IJCV 2004) with directions weighted by a squared cosine: 4 × 4 cells of 8 directions
//! around the place, turned and scaled with it. Each of the 128 values becomes one bit: whether it is above the median
//! of all. Neither brightness nor contrast nor a curve of tone changes much of that.

use imaging::ImageError;
use vectors::hamming::Code;

use crate::plane::{Plane, Spare};
use crate::scale_space::{Extremum, ScaleSpace};

/// A described place; coordinates are those of the whole picture, pixel centres at whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Feature {
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// Standard deviation of the Gaussian at whose scale it stands out, in pixels.
    pub(crate) size: f32,
    /// Radians, from −π to π: the direction in which most gradients point.
    pub(crate) angle: f32,
    pub(crate) code: Code,
}

const PI: f32 = std::f32::consts::PI;
/// The picture is divided into this many parts a side that share the features.
const PARTS: usize = 6;
/// A second direction is taken where it is nearly as strong as the first.
const SECOND_ANGLE: f32 = 0.8;
/// Bins of the directions' histogram.
const ANGLES: usize = 36;
/// Samples a side of the patch.
const SAMPLES: usize = 16;
/// Cells a side of the patch, and directions of a cell.
pub(crate) const CELLS: usize = 4;
pub(crate) const DIRECTIONS: usize = 8;

/// At most `most` features, the strongest first within what their part of the picture may have.
pub(crate) fn features(
    picture: &Plane,
    most: usize,
    spare: &mut Spare,
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<Feature>, ImageError> {
    let space = ScaleSpace::of(picture, spare, should_stop)?;
    // The finest scale does not take all.
    let found = described(&space, picture, most, (2 * most).div_ceil(3), should_stop);
    spare.give(space.into_planes());
    found
}

/// Scales that [`finest`] looks at. In a picture half as large again, the third is what [`features`] begins with.
const FINEST: usize = 2;

/// As [`features`], of the picture's finest scales alone.
pub(crate) fn finest(
    picture: &Plane,
    most: usize,
    spare: &mut Spare,
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<Feature>, ImageError> {
    let space = ScaleSpace::finest(picture, FINEST, spare, should_stop)?;
    let found = described(&space, picture, most, most, should_stop);
    spare.give(space.into_planes());
    found
}

fn described(
    space: &ScaleSpace,
    picture: &Plane,
    most: usize,
    most_fine: usize,
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<Feature>, ImageError> {
    let chosen = spread(space.extrema(should_stop)?, most, most_fine, picture);
    let windows = windows();
    let mut found = Vec::with_capacity(most);
    for (number, extremum) in chosen.iter().enumerate() {
        if number % 64 == 0 && should_stop() {
            return Err(ImageError::Cancelled);
        }
        if found.len() >= most {
            break;
        }
        let level = &space.octaves[extremum.octave].smoothed[extremum.level];
        let scale = (1 << extremum.octave) as f32;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for angle in angles(level, extremum).into_iter().flatten() {
                    if found.len() < most {
                        found.push(Feature {
                            x: extremum.x * scale,
                            y: extremum.y * scale,
                            size: extremum.sigma * scale,
                            angle,
                            code: cut(&histogram(level, extremum, angle, &windows)),
                        });
                    }
                }
            },
        );
    }
    Ok(found)
}

/// The strongest, so that no part of the picture takes all, and the finest scale not more than `most_fine`.
fn spread(mut all: Vec<Extremum>, most: usize, most_fine: usize, picture: &Plane) -> Vec<Extremum> {
    all.sort_by(|a, b| {
        b.response
            .total_cmp(&a.response)
            .then((a.octave, a.level).cmp(&(b.octave, b.level)))
            .then(a.y.total_cmp(&b.y))
            .then(a.x.total_cmp(&b.x))
    });
    let quota = (3 * most).div_ceil(PARTS * PARTS);
    let mut taken = [0; PARTS * PARTS];
    let mut finest = 0;
    let (mut chosen, mut left) = (Vec::with_capacity(most), Vec::new());
    for extremum in all {
        let scale = (1 << extremum.octave) as f32;
        let part = |at: f32, length: usize| ((at * scale / length as f32 * PARTS as f32) as usize).min(PARTS - 1);
        let place = part(extremum.y, picture.height) * PARTS + part(extremum.x, picture.width);
        let fine = extremum.octave == 0;
        if taken[place] >= quota || fine && finest >= most_fine || chosen.len() >= most {
            left.push(extremum);
            continue;
        }
        taken[place] += 1;
        finest += usize::from(fine);
        chosen.push(extremum);
    }
    let room = most.saturating_sub(chosen.len());
    chosen.extend(left.into_iter().take(room));
    chosen
}

/// Places of a row around an extremum at whose gradients [`angles`] looks; there are at most 17.
const PLACES: usize = 24;

/// One or two directions in which the gradients around an extremum point.
#[inline(always)]
fn angles(level: &Plane, extremum: &Extremum) -> [Option<f32>; 2] {
    let spread = 1.5 * extremum.sigma;
    let radius = f32::ceil(2.5 * spread) as isize;
    let step = if radius > 8 { 2 } else { 1 };
    let (x, y) = (f32::round(extremum.x) as isize, f32::round(extremum.y) as isize);
    let mut bins = [0.0_f32; ANGLES + 1];
    let reach = 1.0 / ((radius + 1) * (radius + 1)) as f32;
    for dy in (-radius..=radius).step_by(step) {
        let v = y + dy;
        if v < 1 || v + 1 >= level.height as isize {
            continue;
        }
        let row = |v: isize| &level.values[v as usize * level.width..][..level.width];
        let (above, here, below) = (row(v - 1), row(v), row(v + 1));
        let (mut gx, mut gy, mut inside) = ([0.0_f32; PLACES], [0.0_f32; PLACES], [0.0_f32; PLACES]);
        for (at, dx) in (-radius..=radius).step_by(step).enumerate().take(PLACES) {
            let u = x + dx;
            if u < 1 || u + 1 >= level.width as isize {
                continue;
            }
            let u = u as usize;
            gx[at] = here[u + 1] - here[u - 1];
            gy[at] = below[u] - above[u];
            // A bell that ends at the radius.
            inside[at] = 1.0 - (dx * dx + dy * dy) as f32 * reach;
        }
        let (mut strengths, mut places) = ([0.0_f32; PLACES], [0.0_f32; PLACES]);
        for at in 0..PLACES {
            let bell = if inside[at] > 0.0 { inside[at] } else { 0.0 };
            strengths[at] = (gx[at] * gx[at] + gy[at] * gy[at]).sqrt() * bell * bell * bell;
            places[at] = (angle_of(gy[at], gx[at]) + PI) * (ANGLES as f32 / (2.0 * PI));
        }
        for (&strength, &bin) in strengths.iter().zip(&places) {
            let first = (bin as i32).clamp(0, ANGLES as i32) as usize;
            let part = bin - first as f32;
            let first = if first == ANGLES { 0 } else { first };
            bins[first] += strength * (1.0 - part);
            bins[first + 1] += strength * part;
        }
    }
    bins[0] += bins[ANGLES];
    let mut smooth: [f32; ANGLES] = std::array::from_fn(|at| bins[at]);
    for _ in 0..2 {
        let from = smooth;
        for (at, out) in smooth.iter_mut().enumerate() {
            *out = 0.25 * (from[(at + ANGLES - 1) % ANGLES] + from[(at + 1) % ANGLES]) + 0.5 * from[at];
        }
    }
    let top = smooth.iter().copied().fold(0.0, f32::max);
    if top <= 0.0 {
        return [None, None];
    }
    let mut peaks: Vec<(f32, f32)> = Vec::new();
    for at in 0..ANGLES {
        let (before, here, after) = (
            smooth[(at + ANGLES - 1) % ANGLES],
            smooth[at],
            smooth[(at + 1) % ANGLES],
        );
        if here >= SECOND_ANGLE * top && here > before && here >= after {
            let shift = 0.5 * (before - after) / (before - 2.0 * here + after);
            let angle = (at as f32 + shift) * (2.0 * PI / ANGLES as f32) - PI;
            peaks.push((here, angle));
        }
    }
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    [peaks.first().map(|peak| peak.1), peaks.get(1).map(|peak| peak.1)]
}

/// How much each of the samples of a side counts for each cell of that side.
type Windows = [[f32; CELLS]; SAMPLES];

fn windows() -> Windows {
    let mut windows = [[0.0; CELLS]; SAMPLES];
    for (at, window) in windows.iter_mut().enumerate() {
        let place = (at as f32 + 0.5) / SAMPLES as f32 * CELLS as f32 - 0.5;
        for (cell, weight) in window.iter_mut().enumerate() {
            *weight = (1.0 - (place - cell as f32).abs()).max(0.0);
        }
    }
    windows
}

/// Samples of a patch along a side, with one more at each end for gradients.
const PATCH: usize = SAMPLES + 2;

/// The patch around an extremum, turned by an angle.
#[inline(always)]
fn patch(level: &Plane, extremum: &Extremum, angle: f32) -> [[f32; PATCH]; PATCH] {
    // Cells are three standard deviations wide.
    let step = 3.0 * extremum.sigma * CELLS as f32 / SAMPLES as f32;
    let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
    let middle = (PATCH as f32 - 1.0) / 2.0;
    let mut patch = [[0.0_f32; PATCH]; PATCH];
    let reach = middle * step * (sin.abs() + cos.abs()) + 1.0;
    let (x, y) = (extremum.x, extremum.y);
    let whole = x > reach && y > reach && x + reach + 1.0 < level.width as f32 && y + reach + 1.0 < level.height as f32;
    for (row, line) in patch.iter_mut().enumerate() {
        let v = (row as f32 - middle) * step;
        let (mut xs, mut ys) = ([0.0_f32; PATCH], [0.0_f32; PATCH]);
        for column in 0..PATCH {
            let u = (column as f32 - middle) * step;
            xs[column] = x + cos * u - sin * v;
            ys[column] = y + sin * u + cos * v;
        }
        for (value, (&x, &y)) in line.iter_mut().zip(xs.iter().zip(&ys)) {
            *value = if whole { level.within(x, y) } else { level.between(x, y) };
        }
    }
    patch
}

#[inline(always)]
fn histogram(level: &Plane, extremum: &Extremum, angle: f32, windows: &Windows) -> [f32; CELLS * CELLS * DIRECTIONS] {
    let patch = patch(level, extremum, angle);
    const HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const COS: [f32; DIRECTIONS] = [1.0, HALF, 0.0, -HALF, -1.0, -HALF, 0.0, HALF];
    const SIN: [f32; DIRECTIONS] = [0.0, HALF, 1.0, HALF, 0.0, -HALF, -1.0, -HALF];
    let mut cells = [0.0_f32; CELLS * CELLS * DIRECTIONS];
    for row in 0..SAMPLES {
        let mut of_row = [[0.0_f32; DIRECTIONS]; CELLS];
        for column in 0..SAMPLES {
            let gx = patch[row + 1][column + 2] - patch[row + 1][column];
            let gy = patch[row + 2][column + 1] - patch[row][column + 1];
            let strength = (gx * gx + gy * gy).sqrt() + 1e-6;
            let mut votes = [0.0_f32; DIRECTIONS];
            for (vote, (cos, sin)) in votes.iter_mut().zip(COS.iter().zip(&SIN)) {
                let along = (gx * cos + gy * sin).max(0.0);
                *vote = along * along / strength;
            }
            for (cell, &weight) in of_row.iter_mut().zip(&windows[column]) {
                if weight > 0.0 {
                    for (sum, vote) in cell.iter_mut().zip(&votes) {
                        *sum += weight * vote;
                    }
                }
            }
        }
        for (cell_row, &weight) in windows[row].iter().enumerate() {
            if weight > 0.0 {
                for (cell, votes) in of_row.iter().enumerate() {
                    let at = (cell_row * CELLS + cell) * DIRECTIONS;
                    for (sum, vote) in cells[at..at + DIRECTIONS].iter_mut().zip(votes) {
                        *sum += weight * vote;
                    }
                }
            }
        }
    }
    cells
}

/// One bit a value: whether it is above the median.
fn cut(values: &[f32; CELLS * CELLS * DIRECTIONS]) -> Code {
    let mut sorted = *values;
    let (_, median, _) = sorted.select_nth_unstable_by(CELLS * CELLS * DIRECTIONS / 2, f32::total_cmp);
    let mut code = [0; 16];
    for (at, value) in values.iter().enumerate() {
        code[at / 8] |= u8::from(value >= median) << (at % 8);
    }
    code
}

impl Feature {
    /// The feature in a picture that is larger by this factor.
    pub(crate) fn scaled(&self, by: f32) -> Self {
        Self {
            x: (self.x + 0.5) * by - 0.5,
            y: (self.y + 0.5) * by - 0.5,
            size: self.size * by,
            ..*self
        }
    }

    /// The feature of the mirrored picture, left and right exchanged, of this width.
    pub(crate) fn mirrored(&self, width: usize) -> Self {
        let mut code = [0; 16];
        for (cell, directions) in self.code.iter().enumerate() {
            // A code has one byte a cell. Across the feature's own angle, rows of cells change places, and each
            // direction becomes its negative.
            let (row, column) = (cell / CELLS, cell % CELLS);
            let mut flipped = 0;
            for direction in 0..DIRECTIONS {
                flipped |= (directions >> direction & 1) << ((DIRECTIONS - direction) % DIRECTIONS);
            }
            code[(CELLS - 1 - row) * CELLS + column] = flipped;
        }
        Self {
            x: width as f32 - 1.0 - self.x,
            angle: if self.angle >= 0.0 {
                PI - self.angle
            } else {
                -PI - self.angle
            },
            code,
            ..*self
        }
    }
}

/// The angle of (x, y), to a thousandth: the same on every machine, and quicker than the exact one.
#[inline(always)]
fn angle_of(y: f32, x: f32) -> f32 {
    let (a, b) = (x.abs(), y.abs());
    let (short, long) = if a < b { (a, b) } else { (b, a) };
    let long = if long > 1e-20 { long } else { 1e-20 };
    let ratio = short / long;
    let square = ratio * ratio;
    // Abramowitz and Stegun 4.4.49, shortened.
    let angle = ratio
        * (0.999_866 + square * (-0.330_299_5 + square * (0.180_141 + square * (-0.085_133 + square * 0.020_835_1))));
    let angle = if b > a { PI / 2.0 - angle } else { angle };
    let angle = if x < 0.0 { PI - angle } else { angle };
    if y < 0.0 { -angle } else { angle }
}

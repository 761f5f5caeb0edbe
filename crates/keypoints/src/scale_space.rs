//! Places that stand out at their own scale: extrema of differences of Gaussians (Lowe, IJCV 2004).

use imaging::ImageError;

use crate::plane::Plane;

/// Scales in an octave.
const SCALES: usize = 3;
/// Standard deviation of the first picture of an octave, in its pixels.
const FIRST_SIGMA: f32 = 1.6;
/// What the camera or the resampling has smoothed already.
const GIVEN_SIGMA: f32 = 0.5;
/// An octave narrower than this has no room for a patch.
const LEAST_SIDE: usize = 16;
/// Grey levels by which an extremum must stand out.
const LEAST_RESPONSE: f32 = 1.2;
/// Ratio of the principal curvatures beyond which an extremum lies on an edge, and is not tied to a place on it.
const MOST_RATIO: f32 = 10.0;

/// The smoothed pictures of one octave.
pub(crate) struct Octave {
    /// Standard deviations FIRST_SIGMA · 2^(n / SCALES) in the octave's pixels.
    pub(crate) smoothed: Vec<Plane>,
}

/// All octaves of a picture.
pub(crate) struct ScaleSpace {
    pub(crate) octaves: Vec<Octave>,
}

/// An extremum; place and size in pixels of its octave.
#[derive(Clone, Copy)]
pub(crate) struct Extremum {
    pub(crate) octave: usize,
    /// Which of the octave's smoothed pictures is nearest in scale.
    pub(crate) level: usize,
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// Standard deviation.
    pub(crate) sigma: f32,
    pub(crate) response: f32,
}

impl ScaleSpace {
    pub(crate) fn of(picture: &Plane, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
        let mut octaves: Vec<Octave> = Vec::new();
        let given = (FIRST_SIGMA * FIRST_SIGMA - GIVEN_SIGMA * GIVEN_SIGMA).sqrt();
        let mut base = picture.smoothed(given);
        loop {
            let mut smoothed = vec![base];
            for level in 1..SCALES + 3 {
                if should_stop() {
                    return Err(ImageError::Cancelled);
                }
                let (before, after) = (sigma_of(level as f32 - 1.0), sigma_of(level as f32));
                let more = (after * after - before * before).sqrt();
                smoothed.push(smoothed[level - 1].smoothed(more));
            }
            base = smoothed[SCALES].halved();
            octaves.push(Octave { smoothed });
            if base.width.min(base.height) < LEAST_SIDE {
                return Ok(Self { octaves });
            }
        }
    }

    /// Every extremum that stands out, in no particular order but always the same.
    pub(crate) fn extrema(&self, should_stop: &dyn Fn() -> bool) -> Result<Vec<Extremum>, ImageError> {
        let mut found = Vec::new();
        for (number, octave) in self.octaves.iter().enumerate() {
            let differences: Vec<Plane> = octave.smoothed.windows(2).map(|two| two[1].minus(&two[0])).collect();
            for level in 1..=SCALES {
                if should_stop() {
                    return Err(ImageError::Cancelled);
                }
                let three = [&differences[level - 1], &differences[level], &differences[level + 1]];
                look(three, |x, y| found.extend(refined(&differences, number, level, x, y)));
            }
        }
        Ok(found)
    }
}

fn sigma_of(level: f32) -> f32 {
    FIRST_SIGMA * libm::exp2f(level / SCALES as f32)
}

/// Calls `found` for the places of the middle plane that are above, or below, all 26 neighbours.
fn look([below, middle, above]: [&Plane; 3], mut found: impl FnMut(usize, usize)) {
    const BORDER: usize = 5;
    let width = middle.width;
    for y in BORDER..middle.height.saturating_sub(BORDER) {
        let rows = [y - 1, y, y + 1].map(|y| &middle.values[y * width..(y + 1) * width]);
        for x in BORDER..width.saturating_sub(BORDER) {
            let value = rows[1][x];
            if value.abs() < 0.8 * LEAST_RESPONSE {
                continue;
            }
            let sign = if value > 0.0 { 1.0 } else { -1.0 };
            let value = value * sign;
            // Of two equals neither is taken: what repeats exactly is no landmark.
            let beaten =
                |rows: &[f32]| rows[x - 1] * sign < value && rows[x] * sign < value && rows[x + 1] * sign < value;
            if !(rows[1][x - 1] * sign < value && rows[1][x + 1] * sign < value && beaten(rows[0]) && beaten(rows[2])) {
                continue;
            }
            let all = [below, above]
                .iter()
                .all(|plane| (y - 1..=y + 1).all(|y| beaten(&plane.values[y * width..(y + 1) * width])));
            if all {
                found(x, y);
            }
        }
    }
}

/// The extremum's place between pixels and scales, by a parabola through its neighbours; `None` where there is none, it
/// is faint, or lies on an edge.
fn refined(differences: &[Plane], octave: usize, level: usize, x: usize, y: usize) -> Option<Extremum> {
    let (mut level, mut x, mut y) = (level, x, y);
    for _ in 0..3 {
        let [below, middle, above] = [&differences[level - 1], &differences[level], &differences[level + 1]];
        let value = middle.at(x, y);
        let gradient = [
            (middle.at(x + 1, y) - middle.at(x - 1, y)) / 2.0,
            (middle.at(x, y + 1) - middle.at(x, y - 1)) / 2.0,
            (above.at(x, y) - below.at(x, y)) / 2.0,
        ];
        let xx = middle.at(x + 1, y) + middle.at(x - 1, y) - 2.0 * value;
        let yy = middle.at(x, y + 1) + middle.at(x, y - 1) - 2.0 * value;
        let ss = above.at(x, y) + below.at(x, y) - 2.0 * value;
        let xy =
            (middle.at(x + 1, y + 1) + middle.at(x - 1, y - 1) - middle.at(x - 1, y + 1) - middle.at(x + 1, y - 1))
                / 4.0;
        let xs = (above.at(x + 1, y) + below.at(x - 1, y) - above.at(x - 1, y) - below.at(x + 1, y)) / 4.0;
        let ys = (above.at(x, y + 1) + below.at(x, y - 1) - above.at(x, y - 1) - below.at(x, y + 1)) / 4.0;
        let [dx, dy, ds] = solve([[xx, xy, xs], [xy, yy, ys], [xs, ys, ss]], gradient.map(|part| -part))?;
        if dx.abs() <= 0.6 && dy.abs() <= 0.6 && ds.abs() <= 0.6 {
            let response = value + 0.5 * (gradient[0] * dx + gradient[1] * dy + gradient[2] * ds);
            let (trace, det) = (xx + yy, xx * yy - xy * xy);
            let on_edge = det <= 0.0 || trace * trace * MOST_RATIO >= (MOST_RATIO + 1.0) * (MOST_RATIO + 1.0) * det;
            return (response.abs() >= LEAST_RESPONSE && !on_edge).then(|| {
                let scale = level as f32 + ds;
                Extremum {
                    octave,
                    level: (f32::round(scale) as usize).clamp(1, SCALES + 1),
                    x: x as f32 + dx,
                    y: y as f32 + dy,
                    sigma: sigma_of(scale),
                    response: response.abs(),
                }
            });
        }
        let step = |at: usize, by: f32, most: usize| {
            let to = at as isize + f32::round(by.clamp(-1.0, 1.0)) as isize;
            usize::try_from(to).ok().filter(|&to| to >= 1 && to < most)
        };
        x = step(x, dx, middle.width - 1)?;
        y = step(y, dy, middle.height - 1)?;
        level = step(level, ds, SCALES + 1)?;
    }
    None
}

/// Three linear equations by Cramer's rule; `None` where they have no one solution.
fn solve(m: [[f32; 3]; 3], r: [f32; 3]) -> Option<[f32; 3]> {
    let det = |a: [f32; 3], b: [f32; 3], c: [f32; 3]| {
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    };
    let whole = det(m[0], m[1], m[2]);
    if whole.is_nan() || whole.abs() < 1e-9 {
        return None;
    }
    // The matrix is symmetric: rows serve as columns.
    Some([
        det(r, m[1], m[2]) / whole,
        det(m[0], r, m[2]) / whole,
        det(m[0], m[1], r) / whole,
    ])
}

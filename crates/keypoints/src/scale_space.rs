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
    /// At most so many octaves, the finest first.
    pub(crate) fn of(picture: &Plane, most: usize, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
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
            if octaves.len() >= most || base.width.min(base.height) < LEAST_SIDE {
                return Ok(Self { octaves });
            }
        }
    }

    /// Every extremum that stands out, in no particular order but always the same.
    pub(crate) fn extrema(&self, should_stop: &dyn Fn() -> bool) -> Result<Vec<Extremum>, ImageError> {
        let mut found = Vec::new();
        for (number, octave) in self.octaves.iter().enumerate() {
            octave.look(should_stop, |level, x, y| {
                found.extend(octave.refined(number, level, x, y));
            })?;
        }
        Ok(found)
    }
}

fn sigma_of(level: f32) -> f32 {
    FIRST_SIGMA * libm::exp2f(level / SCALES as f32)
}

/// Rows of the differences that are compared at a time, and differences of an octave's smoothed pictures.
const ROWS: usize = 3;
const DIFFERENCES: usize = SCALES + 2;

impl Octave {
    fn size(&self) -> (usize, usize) {
        (self.smoothed[0].width, self.smoothed[0].height)
    }

    /// The difference of a level's smoothed picture and the next at a place.
    fn difference(&self, level: usize, x: usize, y: usize) -> f32 {
        self.smoothed[level + 1].at(x, y) - self.smoothed[level].at(x, y)
    }

    /// Calls `found` with level and place of each value of a difference that is above, or below, all 26 neighbours.
    fn look(
        &self,
        should_stop: &dyn Fn() -> bool,
        mut found: impl FnMut(usize, usize, usize),
    ) -> Result<(), ImageError> {
        const BORDER: usize = 5;
        let (width, height) = self.size();
        let mut held = vec![0.0_f32; ROWS * DIFFERENCES * width];
        let at = |level: usize, y: usize| (y % ROWS * DIFFERENCES + level) * width;
        let mut next = BORDER - 1;
        for y in BORDER..height.saturating_sub(BORDER) {
            if y % 64 == 0 && should_stop() {
                return Err(ImageError::Cancelled);
            }
            while next <= y + 1 {
                for level in 0..DIFFERENCES {
                    let [below, above] =
                        [level, level + 1].map(|one| &self.smoothed[one].values[next * width..][..width]);
                    let out = &mut held[at(level, next)..][..width];
                    for ((out, above), below) in out.iter_mut().zip(above).zip(below) {
                        *out = above - below;
                    }
                }
                next += 1;
            }
            for level in 1..=SCALES {
                let rows = [level, level - 1, level + 1]
                    .map(|level| [y, y - 1, y + 1].map(|y| &held[at(level, y)..][..width]));
                let [[here, above, below], others @ ..] = rows;
                for x in BORDER..width.saturating_sub(BORDER) {
                    let value = here[x];
                    if value.abs() < 0.8 * LEAST_RESPONSE {
                        continue;
                    }
                    let sign = if value > 0.0 { 1.0 } else { -1.0 };
                    let value = value * sign;
                    // Of two equals neither is taken: what repeats exactly is no landmark.
                    let beaten =
                        |row: &[f32]| row[x - 1] * sign < value && row[x] * sign < value && row[x + 1] * sign < value;
                    if here[x - 1] * sign < value
                        && here[x + 1] * sign < value
                        && beaten(above)
                        && beaten(below)
                        && others.iter().flatten().all(|row| beaten(row))
                    {
                        found(level, x, y);
                    }
                }
            }
        }
        Ok(())
    }

    /// The extremum's place between pixels and scales, by a parabola through its neighbours; `None` where there is none, it
    /// is faint, or lies on an edge. `number`: which octave this is.
    fn refined(&self, number: usize, level: usize, x: usize, y: usize) -> Option<Extremum> {
        let (width, height) = self.size();
        let (mut level, mut x, mut y) = (level, x, y);
        for _ in 0..3 {
            let below = |x, y| self.difference(level - 1, x, y);
            let middle = |x, y| self.difference(level, x, y);
            let above = |x, y| self.difference(level + 1, x, y);
            let value = middle(x, y);
            let gradient = [
                (middle(x + 1, y) - middle(x - 1, y)) / 2.0,
                (middle(x, y + 1) - middle(x, y - 1)) / 2.0,
                (above(x, y) - below(x, y)) / 2.0,
            ];
            let xx = middle(x + 1, y) + middle(x - 1, y) - 2.0 * value;
            let yy = middle(x, y + 1) + middle(x, y - 1) - 2.0 * value;
            let ss = above(x, y) + below(x, y) - 2.0 * value;
            let xy = (middle(x + 1, y + 1) + middle(x - 1, y - 1) - middle(x - 1, y + 1) - middle(x + 1, y - 1)) / 4.0;
            let xs = (above(x + 1, y) + below(x - 1, y) - above(x - 1, y) - below(x + 1, y)) / 4.0;
            let ys = (above(x, y + 1) + below(x, y - 1) - above(x, y - 1) - below(x, y + 1)) / 4.0;
            let [dx, dy, ds] = solve([[xx, xy, xs], [xy, yy, ys], [xs, ys, ss]], gradient.map(|part| -part))?;
            if dx.abs() <= 0.6 && dy.abs() <= 0.6 && ds.abs() <= 0.6 {
                let response = value + 0.5 * (gradient[0] * dx + gradient[1] * dy + gradient[2] * ds);
                let (trace, det) = (xx + yy, xx * yy - xy * xy);
                let on_edge = det <= 0.0 || trace * trace * MOST_RATIO >= (MOST_RATIO + 1.0) * (MOST_RATIO + 1.0) * det;
                return (response.abs() >= LEAST_RESPONSE && !on_edge).then(|| {
                    let scale = level as f32 + ds;
                    Extremum {
                        octave: number,
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
            x = step(x, dx, width - 1)?;
            y = step(y, dy, height - 1)?;
            level = step(level, ds, SCALES + 1)?;
        }
        None
    }
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

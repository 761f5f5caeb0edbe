//! Places that stand out at their own scale: extrema of differences of Gaussians (Lowe, IJCV 2004).

use imaging::ImageError;

use crate::plane::{Plane, Spare};

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
    /// All octaves, the finest first.
    pub(crate) fn of(picture: &Plane, spare: &mut Spare, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
        let mut octaves: Vec<Octave> = Vec::new();
        let mut base = first(picture, spare);
        loop {
            let octave = Octave::of(base, SCALES, spare, should_stop)?;
            base = octave.smoothed[SCALES].halved();
            octaves.push(octave);
            if base.width.min(base.height) < LEAST_SIDE {
                return Ok(Self { octaves });
            }
        }
    }

    /// So many of the finest scales alone, at most an octave's.
    pub(crate) fn finest(
        picture: &Plane,
        scales: usize,
        spare: &mut Spare,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Self, ImageError> {
        let base = first(picture, spare);
        Ok(Self {
            octaves: vec![Octave::of(base, scales.min(SCALES), spare, should_stop)?],
        })
    }

    /// All its planes.
    pub(crate) fn into_planes(self) -> impl Iterator<Item = Plane> {
        self.octaves.into_iter().flat_map(|octave| octave.smoothed)
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

/// The picture as the first of its scales shows it.
fn first(picture: &Plane, spare: &mut Spare) -> Plane {
    picture.smoothed((FIRST_SIGMA * FIRST_SIGMA - GIVEN_SIGMA * GIVEN_SIGMA).sqrt(), spare)
}

fn sigma_of(level: f32) -> f32 {
    FIRST_SIGMA * libm::exp2f(level / SCALES as f32)
}

/// Rows of the differences that are compared at a time.
const ROWS: usize = 3;

impl Octave {
    fn of(base: Plane, scales: usize, spare: &mut Spare, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
        let mut smoothed = vec![base];
        for level in 1..scales + 3 {
            if should_stop() {
                return Err(ImageError::Cancelled);
            }
            let (before, after) = (sigma_of(level as f32 - 1.0), sigma_of(level as f32));
            let more = (after * after - before * before).sqrt();
            smoothed.push(smoothed[level - 1].smoothed(more, spare));
        }
        Ok(Self { smoothed })
    }

    /// Scales at which extrema are looked for.
    fn scales(&self) -> usize {
        self.smoothed.len() - 3
    }

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
        // No place of a thinner one has neighbours on all sides.
        if width.min(height) < 3 {
            return Ok(());
        }
        let differences = self.smoothed.len() - 1;
        let mut held = vec![0.0_f32; ROWS * differences * width];
        let at = |level: usize, y: usize| (y % ROWS * differences + level) * width;
        let mut around = Surroundings::of(width);
        let mut next = BORDER - 1;
        for y in BORDER..height.saturating_sub(BORDER) {
            if y % 64 == 0 && should_stop() {
                return Err(ImageError::Cancelled);
            }
            while next <= y + 1 {
                for level in 0..differences {
                    let [below, above] =
                        [level, level + 1].map(|one| &self.smoothed[one].values[next * width..][..width]);
                    let out = &mut held[at(level, next)..][..width];
                    for ((out, above), below) in out.iter_mut().zip(above).zip(below) {
                        *out = above - below;
                    }
                }
                next += 1;
            }
            for level in 1..=self.scales() {
                let rows = [level - 1, level, level + 1]
                    .map(|level| [y - 1, y, y + 1].map(|y| &held[at(level, y)..][..width]));
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || surroundings(rows, &mut around),
                );
                let middle = BORDER..width.saturating_sub(BORDER);
                let stands_out = |x: usize| around.stands_out(rows[1][1][x], x);
                for from in middle.clone().step_by(LANES) {
                    let until = (from + LANES).min(middle.end);
                    if (from..until).fold(false, |any, x| any | stands_out(x)) {
                        (from..until)
                            .filter(|&x| stands_out(x))
                            .for_each(|x| found(level, x, y));
                    }
                }
            }
        }
        Ok(())
    }

    /// The extremum's place between pixels and scales, by a parabola through its neighbours; `None` where there is
    /// none, it is faint, or lies on an edge. `number`: which octave this is.
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
                        level: (f32::round(scale) as usize).clamp(1, self.scales() + 1),
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
            level = step(level, ds, self.scales() + 1)?;
        }
        None
    }
}

/// Places of a row that are looked at together.
const LANES: usize = 32;

/// Of each place of a row the most and the least of its 26 neighbours.
struct Surroundings {
    /// Of the nine of its column, which is also a neighbour's column.
    most_of_column: Vec<f32>,
    least_of_column: Vec<f32>,
    most: Vec<f32>,
    least: Vec<f32>,
}

impl Surroundings {
    fn of(width: usize) -> Self {
        let row = || vec![0.0; width];
        Self {
            most_of_column: row(),
            least_of_column: row(),
            most: row(),
            least: row(),
        }
    }

    /// Whether a value is above or below all of its neighbours, and not faint. Of two equals neither is: what
    /// repeats exactly is no landmark.
    #[inline(always)]
    fn stands_out(&self, value: f32, x: usize) -> bool {
        const LEAST: f32 = 0.8 * LEAST_RESPONSE;
        (value >= LEAST) & (value > self.most[x]) | (value <= -LEAST) & (value < self.least[x])
    }
}

/// Fills what the places of the middle row of the middle level are surrounded by; the first
/// and the last place are left.
#[inline(always)]
fn surroundings(rows: [[&[f32]; 3]; 3], out: &mut Surroundings) {
    let width = out.most.len();
    let most = |a: f32, b: f32| if a > b { a } else { b };
    let least = |a: f32, b: f32| if a < b { a } else { b };
    let [[a, b, c], [d, here, e], [f, g, h]] = rows.map(|level| level.map(|row| &row[..width]));
    let (most_of, least_of) = (&mut out.most_of_column[..width], &mut out.least_of_column[..width]);
    let (high, low) = (&mut out.most[..width], &mut out.least[..width]);
    for x in 0..width {
        let all = [a[x], b[x], c[x], d[x], e[x], f[x], g[x], h[x]];
        high[x] = most(
            most(most(all[0], all[1]), most(all[2], all[3])),
            most(most(all[4], all[5]), most(all[6], all[7])),
        );
        low[x] = least(
            least(least(all[0], all[1]), least(all[2], all[3])),
            least(least(all[4], all[5]), least(all[6], all[7])),
        );
        most_of[x] = most(high[x], here[x]);
        least_of[x] = least(low[x], here[x]);
    }
    for ((high, before), after) in high[1..].iter_mut().zip(&*most_of).zip(&most_of[2..]) {
        *high = most(*high, most(*before, *after));
    }
    for ((low, before), after) in low[1..].iter_mut().zip(&*least_of).zip(&least_of[2..]) {
        *low = least(*low, least(*before, *after));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_stands_out_is_above_or_below_all_its_neighbours(
            (width, height) in (8usize..50, 8usize..30), seed in any::<u64>(), scales in 1usize..=SCALES,
        ) {
            let mut state = seed | 1;
            let mut level = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Few levels: equals are common.
                (state % 6) as f32
            };
            let smoothed = (0..scales + 3)
                .map(|_| Plane { width, height, values: (0..width * height).map(|_| level()).collect() })
                .collect();
            let octave = Octave { smoothed };
            let mut found = Vec::new();
            octave.look(&|| false, |level, x, y| found.push((level, x, y))).expect("not cancelled");
            let mut sought = Vec::new();
            for y in 5..height.saturating_sub(5) {
                for level in 1..=scales {
                    for x in 5..width.saturating_sub(5) {
                        let value = octave.difference(level, x, y);
                        let near = (0..27).filter(|&at| at != 13).map(|at: usize| {
                            octave.difference(level + at / 9 - 1, x + at % 3 - 1, y + at / 3 % 3 - 1)
                        });
                        let above = near.clone().all(|other| value > other) && value > 0.0;
                        let below = near.clone().all(|other| value < other) && value < 0.0;
                        if value.abs() >= 0.8 * LEAST_RESPONSE && (above || below) {
                            sought.push((level, x, y));
                        }
                    }
                }
            }
            prop_assert_eq!(found, sought);
        }
    }
}

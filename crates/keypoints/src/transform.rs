//! One transform that many pairs agree on: random sample consensus over similarities, then least squares.

use imaging::ImageError;

use crate::describe::Chance;
use crate::matching::Pair;

/// From the reference's coordinates to the query's: x' = a x + b y + c, y' = d x + e y + f.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Column of x.
    pub a: f64,
    /// Column of y.
    pub b: f64,
    /// Shift to the right.
    pub c: f64,
    /// Column of x, for y'.
    pub d: f64,
    /// Column of y, for y'.
    pub e: f64,
    /// Shift down.
    pub f: f64,
}

impl Affine {
    /// The query's place of a reference's place.
    pub fn apply(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f)
    }

    /// From the query to the reference; `None` where the transform flattens the picture.
    pub fn inverse(&self) -> Option<Affine> {
        let det = self.a * self.e - self.b * self.d;
        if det.is_nan() || det.abs() <= 1e-9 {
            return None;
        }
        let (a, b, d, e) = (self.e / det, -self.b / det, -self.d / det, self.a / det);
        Some(Affine {
            a,
            b,
            c: -(a * self.c + b * self.f),
            d,
            e,
            f: -(d * self.c + e * self.f),
        })
    }

    /// For a reference that is mirrored first, of a width: x becomes width − 1 − x.
    pub(crate) fn after_mirror(&self, width: f64) -> Affine {
        Affine {
            a: -self.a,
            c: self.c + self.a * (width - 1.0),
            d: -self.d,
            f: self.f + self.d * (width - 1.0),
            ..*self
        }
    }

    /// Whether a picture could have been edited like this: neither flattened nor mirrored, nor scaled beyond sense.
    pub(crate) fn is_sensible(&self) -> bool {
        let det = self.a * self.e - self.b * self.d;
        let squares = self.a * self.a + self.b * self.b + self.d * self.d + self.e * self.e;
        // With singular values s and t: det = s t, squares = s² + t².
        det > 1e-3 && det < 1e3 && squares < 4.25 * det
    }
}

/// Pixels that a place may lie off, coarse and fine.
const COARSE: f64 = 10.0;
const FINE: f64 = 5.0;
const TRIALS: usize = 4000;

/// The transform with the most inliers, and these; `None` where no two pairs agree on a sensible one.
pub(crate) fn agree(pairs: &[Pair], should_stop: &dyn Fn() -> bool) -> Result<Option<(Affine, Vec<Pair>)>, ImageError> {
    if pairs.len() < 3 {
        return Ok(None);
    }
    let mut chance = Chance(0xC0B1);
    let mut best: Option<(usize, Affine)> = None;
    for trial in 0..TRIALS {
        if trial % 256 == 0 && should_stop() {
            return Err(ImageError::Cancelled);
        }
        let (one, other) = (pairs[chance.below(pairs.len())], pairs[chance.below(pairs.len())]);
        let Some(similarity) = through(one, other) else {
            continue;
        };
        let count = pairs.iter().filter(|pair| off(&similarity, pair) < COARSE).count();
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, similarity));
        }
    }
    let Some((_, mut transform)) = best else {
        return Ok(None);
    };
    for allowed in [COARSE, COARSE, FINE, FINE, FINE] {
        let near: Vec<&Pair> = pairs.iter().filter(|pair| off(&transform, pair) < allowed).collect();
        match least_squares(near.iter().map(|pair| (pair.reference, pair.query))) {
            Some(better) if better.is_sensible() => transform = better,
            _ => break,
        }
    }
    let inliers = distinct(pairs.iter().filter(|pair| off(&transform, pair) < FINE));
    Ok(Some((transform, inliers)))
}

/// A place that several levels of the pyramid found counts once.
fn distinct<'a>(pairs: impl Iterator<Item = &'a Pair>) -> Vec<Pair> {
    let mut kept: Vec<Pair> = Vec::new();
    let near = |(x, y): (f64, f64), (u, v): (f64, f64)| (x - u).abs() < 3.0 && (y - v).abs() < 3.0;
    for pair in pairs {
        if !kept
            .iter()
            .any(|other| near(other.query, pair.query) || near(other.reference, pair.reference))
        {
            kept.push(*pair);
        }
    }
    kept
}

fn off(transform: &Affine, pair: &Pair) -> f64 {
    let (x, y) = transform.apply(pair.reference);
    let (dx, dy) = (x - pair.query.0, y - pair.query.1);
    (dx * dx + dy * dy).sqrt()
}

/// The similarity that takes two references to two queries, where the keypoints' own scales and angles allow it.
fn through(one: Pair, other: Pair) -> Option<Affine> {
    let (rx, ry) = (other.reference.0 - one.reference.0, other.reference.1 - one.reference.1);
    let (qx, qy) = (other.query.0 - one.query.0, other.query.1 - one.query.1);
    let length = rx * rx + ry * ry;
    if length < 100.0 || qx * qx + qy * qy < 25.0 {
        return None;
    }
    // As complex numbers: q / r.
    let (a, d) = ((qx * rx + qy * ry) / length, (qy * rx - qx * ry) / length);
    let (scale, turn) = ((a * a + d * d).sqrt(), libm::atan2(d, a));
    let apart = |angle: f64| {
        let angle = angle.abs() % (2.0 * std::f64::consts::PI);
        angle.min(2.0 * std::f64::consts::PI - angle)
    };
    let fits = |pair: &Pair| (0.5..2.0).contains(&(pair.scale / scale)) && apart(pair.turn - turn) < 0.5;
    if !fits(&one) || !fits(&other) {
        return None;
    }
    let c = one.query.0 - (a * one.reference.0 - d * one.reference.1);
    let f = one.query.1 - (d * one.reference.0 + a * one.reference.1);
    let similarity = Affine {
        a,
        b: -d,
        c,
        d,
        e: a,
        f,
    };
    similarity.is_sensible().then_some(similarity)
}

/// The affine transform of least squared distance, about the centroid; from the first places to the second.
pub(crate) fn least_squares(pairs: impl Iterator<Item = ((f64, f64), (f64, f64))> + Clone) -> Option<Affine> {
    let count = pairs.clone().count();
    if count < 6 {
        return None;
    }
    let count = count as f64;
    let (mut mx, mut my, mut nx, mut ny) = (0.0, 0.0, 0.0, 0.0);
    for ((x, y), (u, v)) in pairs.clone() {
        mx += x / count;
        my += y / count;
        nx += u / count;
        ny += v / count;
    }
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    let (mut xu, mut yu, mut xv, mut yv) = (0.0, 0.0, 0.0, 0.0);
    for ((x, y), (u, v)) in pairs {
        let (x, y, u, v) = (x - mx, y - my, u - nx, v - ny);
        xx += x * x;
        xy += x * y;
        yy += y * y;
        xu += x * u;
        yu += y * u;
        xv += x * v;
        yv += y * v;
    }
    let det = xx * yy - xy * xy;
    // Points on one line do not say what happens across it.
    if det.is_nan() || det <= 1e-3 * xx * yy {
        return None;
    }
    let (a, b) = ((xu * yy - yu * xy) / det, (yu * xx - xu * xy) / det);
    let (d, e) = ((xv * yy - yv * xy) / det, (yv * xx - xv * xy) / det);
    Some(Affine {
        a,
        b,
        c: nx - a * mx - b * my,
        d,
        e,
        f: ny - d * mx - e * my,
    })
}

//! Affine transforms from a reference's places to a query's.

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

    /// Whether a picture could have been edited like this: neither flattened nor mirrored, nor scaled beyond sense.
    pub(crate) fn is_sensible(&self) -> bool {
        let det = self.a * self.e - self.b * self.d;
        let squares = self.a * self.a + self.b * self.b + self.d * self.d + self.e * self.e;
        // With singular values s and t: det = s t, squares = s² + t².
        det > 1e-3 && det < 1e3 && squares < 4.25 * det
    }
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

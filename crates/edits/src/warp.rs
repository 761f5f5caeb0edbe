//! Edits that bend the picture: rotation by any angle and perspective, both as one plane homography.

use crate::EditError;
use crate::canvas::Canvas;
use crate::random::Random;

/// A plane homography, row-major: (x, y) ↦ (ax + by + c, dx + ey + f) / (gx + hy + i).
#[derive(Clone, Copy)]
pub(super) struct Homography([f64; 9]);

impl Homography {
    /// (x, y) ↦ (ax + by + c, dx + ey + f).
    pub(super) fn affine(a: f64, b: f64, c: f64, d: f64, e: f64, f: f64) -> Self {
        Self([a, b, c, d, e, f, 0.0, 0.0, 1.0])
    }

    /// Maps the corners of the unit square (0,0), (1,0), (1,1), (0,1) to the four points (Heckbert, "Fundamentals of
    /// Texture Mapping and Image Warping", 1989, section 2.2.3). The points must form a convex quadrilateral.
    fn from_unit_square(corners: [[f64; 2]; 4]) -> Self {
        let [[x0, y0], [x1, y1], [x2, y2], [x3, y3]] = corners;
        let (dx1, dx2, sx) = (x1 - x2, x3 - x2, x0 - x1 + x2 - x3);
        let (dy1, dy2, sy) = (y1 - y2, y3 - y2, y0 - y1 + y2 - y3);
        let determinant = dx1 * dy2 - dx2 * dy1;
        let g = (sx * dy2 - dx2 * sy) / determinant;
        let h = (dx1 * sy - sx * dy1) / determinant;
        Self([
            x1 - x0 + g * x1,
            x3 - x0 + h * x3,
            x0,
            y1 - y0 + g * y1,
            y3 - y0 + h * y3,
            y0,
            g,
            h,
            1.0,
        ])
    }

    /// The inverse up to a factor, which a homography does not feel: the adjugate.
    fn inverse(&self) -> Self {
        let [a, b, c, d, e, f, g, h, i] = self.0;
        Self([
            e * i - f * h,
            c * h - b * i,
            b * f - c * e,
            f * g - d * i,
            a * i - c * g,
            c * d - a * f,
            d * h - e * g,
            b * g - a * h,
            a * e - b * d,
        ])
    }

    /// First the scaling of both axes, then `self`.
    fn after_scaling(&self, x: f64, y: f64) -> Self {
        let [a, b, c, d, e, f, g, h, i] = self.0;
        Self([a * x, b * y, c, d * x, e * y, f, g * x, h * y, i])
    }

    fn map(&self, x: f64, y: f64) -> (f64, f64) {
        let [a, b, c, d, e, f, g, h, i] = self.0;
        let w = g * x + h * y + i;
        ((a * x + b * y + c) / w, (d * x + e * y + f) / w)
    }
}

/// Lays `source` over `base`: `forward` maps places in the source to places on the base, both in pixels from the top
/// left corner. Bilinear, with antialiased edges. The source should be at about its final
/// scale, as nothing is averaged.
pub(super) fn lay_over(base: &mut Canvas, source: &Canvas, forward: Homography) {
    let backward = forward.inverse();
    let (w, h) = (source.width as f64, source.height as f64);
    let corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| forward.map(x, y));
    let bounds = |values: [f64; 4], length: usize| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).floor() - 1.0;
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil() + 1.0;
        (low.max(0.0) as usize).min(length)..(high.max(0.0) as usize).min(length)
    };
    let columns = bounds(corners.map(|corner| corner.0), base.width);
    for y in bounds(corners.map(|corner| corner.1), base.height) {
        if base.stops_at(y) {
            return;
        }
        for x in columns.clone() {
            let (u, v) = backward.map(x as f64 + 0.5, y as f64 + 0.5);
            let inside = |place: f64, length: f64| (place.min(length - place) + 0.5).clamp(0.0, 1.0);
            let coverage = (inside(u, w) * inside(v, h) * 255.0).round() as u32;
            if coverage > 0 {
                let colour = bilinear(source, u - 0.5, v - 0.5);
                base.mix(3 * (y * base.width + x), colour, coverage);
            }
        }
    }
}

/// The value between the four pixels around (x, y), where (0, 0) is the centre of the first; the edges continue.
fn bilinear(source: &Canvas, x: f64, y: f64) -> [u8; 3] {
    let x = x.clamp(0.0, (source.width - 1) as f64);
    let y = y.clamp(0.0, (source.height - 1) as f64);
    let (left, top) = (x as usize, y as usize);
    let (fx, fy) = (((x - left as f64) * 256.0) as u32, ((y - top as f64) * 256.0) as u32);
    let [a, b] = [source.at(left, top), source.at(left + 1, top)];
    let [c, d] = [source.at(left, top + 1), source.at(left + 1, top + 1)];
    core::array::from_fn(|channel| {
        let upper = u32::from(a[channel]) * (256 - fx) + u32::from(b[channel]) * fx;
        let lower = u32::from(c[channel]) * (256 - fx) + u32::from(d[channel]) * fx;
        ((upper * (256 - fy) + lower * fy + (1 << 15)) >> 16) as u8
    })
}

/// Sides of the upright rectangle around a `width` × `height` picture turned by `angle` radians.
pub(super) fn turned_size(width: f64, height: f64, angle: f64) -> (f64, f64) {
    let (sin, cos) = (libm::sin(angle).abs(), libm::cos(angle).abs());
    (width * cos + height * sin, width * sin + height * cos)
}

/// Turns by an angle of 60°·strength to 90°·strength, clockwise or not; the picture is kept whole and the corners are
/// black, white or of the mean colour.
pub(super) fn rotate<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let angle = random.sign() * random.between(2.0 / 3.0, 1.0) * strength * core::f64::consts::FRAC_PI_2;
    let fill = random.pick(&[[0; 3], [255; 3], canvas.mean_colour()]);
    let (width, height) = turned_size(canvas.width as f64, canvas.height as f64, angle);
    let mut turned = Canvas::filled(width.round() as usize, height.round() as usize, fill, canvas.poll)?;
    lay_over_turned(
        &mut turned,
        canvas,
        angle,
        [width / 2.0, height / 2.0],
        [canvas.width as f64, canvas.height as f64],
    );
    Ok(turned)
}

/// Lays `source`, scaled to `size` and turned by `angle` radians, over `base` with its middle at `centre`.
pub(super) fn lay_over_turned(base: &mut Canvas, source: &Canvas, angle: f64, centre: [f64; 2], size: [f64; 2]) {
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let [half_width, half_height] = size.map(|length| length / 2.0);
    let forward = Homography::affine(
        cos,
        -sin,
        centre[0] - cos * half_width + sin * half_height,
        sin,
        cos,
        centre[1] - sin * half_width - cos * half_height,
    );
    let forward = forward.after_scaling(size[0] / source.width as f64, size[1] / source.height as f64);
    lay_over(base, source, forward);
}

/// Moves each corner inwards by up to 0.35·strength of each side; what is left free is black, white or of the mean
/// colour.
pub(super) fn perspective<'p>(
    canvas: &Canvas<'p>,
    strength: f64,
    random: &mut Random,
) -> Result<Canvas<'p>, EditError> {
    let (w, h) = (canvas.width as f64, canvas.height as f64);
    let mut corner = |x: f64, y: f64| {
        let mut inwards = |place: f64| place + (0.5 - place) * 2.0 * random.between(0.2, 1.0) * 0.35 * strength;
        [inwards(x) * w, inwards(y) * h]
    };
    let corners = [corner(0.0, 0.0), corner(1.0, 0.0), corner(1.0, 1.0), corner(0.0, 1.0)];
    let fill = random.pick(&[[0; 3], [255; 3], canvas.mean_colour()]);
    // The mean scale, from the area of the quadrilateral (shoelace formula): shrinking by it first averages what the
    // interpolation alone would skip.
    let doubled_area = (0..4).fold(0.0, |sum, index| {
        let ([x0, y0], [x1, y1]) = (corners[index], corners[(index + 1) % 4]);
        sum + x0 * y1 - x1 * y0
    });
    let scale = (doubled_area.abs() / 2.0 / (w * h)).sqrt().min(1.0);
    let source = canvas.resized(w * scale, h * scale)?;
    let forward =
        Homography::from_unit_square(corners).after_scaling(1.0 / source.width as f64, 1.0 / source.height as f64);
    let mut bent = Canvas::filled(canvas.width, canvas.height, fill, canvas.poll)?;
    lay_over(&mut bent, &source, forward);
    Ok(bent)
}

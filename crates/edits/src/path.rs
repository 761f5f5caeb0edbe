//! Vector shapes and their antialiased filling: letters, emoji, interface elements.

use crate::canvas::Canvas;

/// Scan lines per pixel row; along the row, coverage is exact.
const SUBROWS: usize = 4;

/// Closed contours as straight edges, in pixels from the top left corner.
#[derive(Clone, Default)]
pub(super) struct Path {
    edges: Vec<[[f64; 2]; 2]>,
    start: [f64; 2],
    end: [f64; 2],
}

impl Path {
    pub(super) fn move_to(&mut self, x: f64, y: f64) {
        self.close();
        self.start = [x, y];
        self.end = [x, y];
    }

    pub(super) fn line_to(&mut self, x: f64, y: f64) {
        self.edges.push([self.end, [x, y]]);
        self.end = [x, y];
    }

    /// Quadratic Bézier curve.
    pub(super) fn quad_to(&mut self, control: [f64; 2], to: [f64; 2]) {
        const STEPS: usize = 8;
        let from = self.end;
        for step in 1..=STEPS {
            let t = step as f64 / STEPS as f64;
            let [x, y] = core::array::from_fn(|axis| {
                (1.0 - t) * (1.0 - t) * from[axis] + 2.0 * t * (1.0 - t) * control[axis] + t * t * to[axis]
            });
            self.line_to(x, y);
        }
    }

    /// Cubic Bézier curve.
    pub(super) fn cubic_to(&mut self, first: [f64; 2], second: [f64; 2], to: [f64; 2]) {
        const STEPS: usize = 16;
        let from = self.end;
        for step in 1..=STEPS {
            let t = step as f64 / STEPS as f64;
            let u = 1.0 - t;
            let [x, y] = core::array::from_fn(|axis| {
                u * u * u * from[axis]
                    + 3.0 * u * u * t * first[axis]
                    + 3.0 * u * t * t * second[axis]
                    + t * t * t * to[axis]
            });
            self.line_to(x, y);
        }
    }

    pub(super) fn close(&mut self) {
        if self.end != self.start {
            self.edges.push([self.end, self.start]);
            self.end = self.start;
        }
    }

    pub(super) fn polygon(corners: &[[f64; 2]]) -> Self {
        let mut path = Self::default();
        for (index, &[x, y]) in corners.iter().enumerate() {
            if index == 0 {
                path.move_to(x, y)
            } else {
                path.line_to(x, y)
            }
        }
        path.close();
        path
    }

    pub(super) fn ellipse(centre: [f64; 2], radius_x: f64, radius_y: f64) -> Self {
        const CORNERS: usize = 72;
        let corner = |index: usize| {
            let angle = core::f64::consts::TAU * index as f64 / CORNERS as f64;
            [
                centre[0] + radius_x * libm::cos(angle),
                centre[1] + radius_y * libm::sin(angle),
            ]
        };
        Self::polygon(&core::array::from_fn::<_, CORNERS, _>(corner))
    }

    /// Upright rectangle with quarter circles of `radius` at its corners.
    pub(super) fn rectangle(left: f64, top: f64, width: f64, height: f64, radius: f64) -> Self {
        let radius = radius.min(width / 2.0).min(height / 2.0).max(0.0);
        let (right, bottom) = (left + width, top + height);
        // The control distance that brings a cubic curve closest to a quarter circle.
        let bend = radius * (1.0 - 0.552_284_75);
        let mut path = Self::default();
        path.move_to(left + radius, top);
        path.line_to(right - radius, top);
        path.cubic_to([right - bend, top], [right, top + bend], [right, top + radius]);
        path.line_to(right, bottom - radius);
        path.cubic_to([right, bottom - bend], [right - bend, bottom], [right - radius, bottom]);
        path.line_to(left + radius, bottom);
        path.cubic_to([left + bend, bottom], [left, bottom - bend], [left, bottom - radius]);
        path.line_to(left, top + radius);
        path.cubic_to([left, top + bend], [left + bend, top], [left + radius, top]);
        path.close();
        path
    }

    /// Scales and turns about the origin, then moves it to `origin`.
    pub(super) fn placed(&self, origin: [f64; 2], scale: f64, angle: f64) -> Self {
        let (sin, cos) = (libm::sin(angle) * scale, libm::cos(angle) * scale);
        let moved = |[x, y]: [f64; 2]| [origin[0] + cos * x - sin * y, origin[1] + sin * x + cos * y];
        let edges = self.edges.iter().map(|edge| edge.map(moved)).collect();
        Self {
            edges,
            start: moved(self.start),
            end: moved(self.end),
        }
    }

    /// The shape grown by `distance` to all sides: the union of eight shifted copies and itself. Exact enough while the
    /// distance is below the width of the shape's strokes.
    pub(super) fn grown(&self, distance: f64) -> Self {
        const DIAGONAL: f64 = core::f64::consts::FRAC_1_SQRT_2;
        let steps = [(1.0, 0.0), (DIAGONAL, DIAGONAL), (0.0, 1.0), (-DIAGONAL, DIAGONAL)];
        let mut grown = self.clone();
        for (x, y) in steps {
            for sign in [distance, -distance] {
                grown.append(&self.placed([x * sign, y * sign], 1.0, 0.0));
            }
        }
        grown
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.close();
        self.edges.extend_from_slice(&other.edges);
    }

    /// Left, top, right, bottom; `None` for an empty path.
    pub(super) fn bounds(&self) -> Option<[f64; 4]> {
        let mut points = self.edges.iter().flatten();
        let &[x, y] = points.next()?;
        Some(points.fold([x, y, x, y], |bounds, &[x, y]| {
            [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x), bounds[3].max(y)]
        }))
    }

    /// Fills by the non-zero winding rule with `paint(x, y)`, mixed in by `opacity` (0..=1).
    pub(super) fn fill(&self, canvas: &mut Canvas, opacity: f64, paint: impl Fn(usize, usize) -> [u8; 3]) {
        let Some([left, top, right, bottom]) = self.bounds() else {
            return;
        };
        let inside = |place: f64, length: usize| (place.max(0.0) as usize).min(length);
        let (first_column, end_column) = (inside(left.floor(), canvas.width), inside(right.ceil(), canvas.width));
        let (first_row, end_row) = (inside(top.floor(), canvas.height), inside(bottom.ceil(), canvas.height));
        if first_column >= end_column {
            return;
        }
        let mut edges: Vec<Edge> = self.edges.iter().filter_map(Edge::new).collect();
        edges.sort_by(|a, b| a.top.total_cmp(&b.top));
        let mut upcoming = edges.into_iter().peekable();
        let mut active: Vec<Edge> = Vec::new();
        let mut crossings: Vec<(f64, i32)> = Vec::new();
        let mut coverage = vec![0.0_f64; end_column - first_column];
        for y in first_row..end_row {
            if canvas.stops_at(y) {
                return;
            }
            coverage.fill(0.0);
            for subrow in 0..SUBROWS {
                let height = y as f64 + (subrow as f64 + 0.5) / SUBROWS as f64;
                while let Some(edge) = upcoming.next_if(|edge| edge.top <= height) {
                    active.push(edge);
                }
                active.retain(|edge| edge.bottom > height);
                crossings.clear();
                crossings.extend(active.iter().map(|edge| (edge.x_at(height), edge.direction)));
                crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
                let mut winding = 0;
                for pair in crossings.windows(2) {
                    winding += pair[0].1;
                    if winding != 0 {
                        cover(
                            &mut coverage,
                            pair[0].0 - first_column as f64,
                            pair[1].0 - first_column as f64,
                        );
                    }
                }
            }
            for (x, &covered) in (first_column..).zip(&coverage) {
                let share = (covered / SUBROWS as f64 * opacity * 255.0).round().clamp(0.0, 255.0) as u32;
                if share > 0 {
                    canvas.mix(3 * (y * canvas.width + x), paint(x, y), share);
                }
            }
        }
    }

    /// Fills with one colour, opaque.
    pub(super) fn fill_flat(&self, canvas: &mut Canvas, colour: [u8; 3]) {
        self.fill(canvas, 1.0, |_, _| colour);
    }
}

/// A straight edge, from its upper to its lower end; `direction` tells which way the contour ran.
struct Edge {
    top: f64,
    bottom: f64,
    x: f64,
    slope: f64,
    direction: i32,
}

impl Edge {
    fn new(&[from, to]: &[[f64; 2]; 2]) -> Option<Self> {
        let (upper, lower, direction) = if from[1] < to[1] { (from, to, 1) } else { (to, from, -1) };
        let slope = (lower[0] - upper[0]) / (lower[1] - upper[1]);
        slope.is_finite().then_some(Self {
            top: upper[1],
            bottom: lower[1],
            x: upper[0],
            slope,
            direction,
        })
    }

    fn x_at(&self, y: f64) -> f64 {
        self.x + (y - self.top) * self.slope
    }
}

/// Adds the length of [from, to] within each pixel.
fn cover(coverage: &mut [f64], from: f64, to: f64) {
    let from = from.max(0.0);
    let to = to.min(coverage.len() as f64);
    if to <= from {
        return;
    }
    let (first, last) = (from as usize, (to.ceil() as usize).min(coverage.len()));
    for (x, covered) in (first..).zip(&mut coverage[first..last]) {
        *covered += to.min(x as f64 + 1.0) - from.max(x as f64);
    }
}

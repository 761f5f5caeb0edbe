//! Grey pictures of floating-point values: what the scale space is made of.

/// Row-major. Neither side is zero.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f32>,
}

/// Buffers of planes that are done with: the next ones are made in them, since memory that is fresh from the system
/// costs more than what is computed in it.
#[derive(Default)]
pub(crate) struct Spare(Vec<Vec<f32>>);

impl Spare {
    /// A buffer of this length, with anything in it.
    fn take(&mut self, length: usize) -> Vec<f32> {
        match self.0.iter().rposition(|one| one.capacity() >= length) {
            Some(at) => {
                let mut values = self.0.swap_remove(at);
                values.resize(length, 0.0);
                values
            }
            None => vec![0.0; length],
        }
    }

    /// Planes that nobody looks at any more.
    pub(crate) fn give(&mut self, planes: impl IntoIterator<Item = Plane>) {
        self.0.extend(planes.into_iter().map(|plane| plane.values));
    }
}

impl Plane {
    /// Of single bytes; there must be width × height of them.
    pub(crate) fn of(width: usize, height: usize, pixels: &[u8]) -> Self {
        Self {
            width,
            height,
            values: pixels.iter().map(|&pixel| f32::from(pixel)).collect(),
        }
    }

    #[inline]
    pub(crate) fn at(&self, x: usize, y: usize) -> f32 {
        self.values[y * self.width + x]
    }

    /// Between four pixels; beyond the edge, those of the edge.
    #[inline]
    pub(crate) fn between(&self, x: f32, y: f32) -> f32 {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let (dx, dy) = (x - left as f32, y - top as f32);
        let (right, below) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (top, below) = (top * self.width, below * self.width);
        let above = self.values[top + left] + (self.values[top + right] - self.values[top + left]) * dx;
        let under = self.values[below + left] + (self.values[below + right] - self.values[below + left]) * dx;
        above + (under - above) * dy
    }

    /// As [`Plane::between`], of a place that has all four pixels.
    #[inline(always)]
    pub(crate) fn within(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x as i32, y as i32);
        let (dx, dy) = (x - left as f32, y - top as f32);
        let at = top as usize * self.width + left as usize;
        let rows = &self.values[at..at + self.width + 2];
        let above = rows[0] + (rows[1] - rows[0]) * dx;
        let under = rows[self.width] + (rows[self.width + 1] - rows[self.width]) * dx;
        above + (under - above) * dy
    }

    /// Smoothed by a Gaussian of standard deviation `sigma`, edges continued.
    pub(crate) fn smoothed(&self, sigma: f32, spare: &mut Spare) -> Self {
        let radius = (f32::ceil(2.6 * sigma) as usize).clamp(1, MOST_TAPS - 1);
        let mut weights = [0.0; MOST_TAPS];
        let weights = &mut weights[..=radius];
        for (at, weight) in weights.iter_mut().enumerate() {
            *weight = libm::expf(-((at * at) as f32) / (2.0 * sigma * sigma));
        }
        let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        let mut values = spare.take(self.values.len());
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || smooth(self, weights, &mut values),
        );
        Self { values, ..*self }
    }

    /// Every second pixel of every second row.
    pub(crate) fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut values = Vec::with_capacity(width * height);
        for row in self.values.chunks_exact(self.width).step_by(2) {
            values.extend(row.iter().step_by(2));
        }
        Self { width, height, values }
    }
}

/// Weights of a Gaussian on one side, its middle among them: for no more than a standard deviation of 5 pixels.
const MOST_TAPS: usize = 14;
/// Places that are summed at a time, in registers.
const LANES: usize = 32;

/// Smooths across and down; `weights` are the middle one and those to either side.
#[inline(always)]
fn smooth(plane: &Plane, weights: &[f32], values: &mut [f32]) {
    // Rows smoothed across, as many as one row of the result needs.
    let (width, height, radius) = (plane.width, plane.height, weights.len() - 1);
    let held = 2 * radius + 1;
    let mut across = vec![0.0; held * width];
    let mut next = 0;
    let mut padded = vec![0.0; width + 2 * radius];
    for (y, out) in values.chunks_exact_mut(width).enumerate() {
        while next <= (y + radius).min(height - 1) {
            let row = &plane.values[next * width..][..width];
            padded[..radius].fill(row[0]);
            padded[radius..radius + width].copy_from_slice(row);
            padded[radius + width..].fill(row[width - 1]);
            let mut pairs: [(&[f32], &[f32]); MOST_TAPS] = [(&[], &[]); MOST_TAPS];
            for (tap, pair) in pairs[..=radius].iter_mut().enumerate() {
                *pair = (&padded[radius - tap..][..width], &padded[radius + tap..][..width]);
            }
            weighed(&mut across[next % held * width..][..width], weights, &pairs[..=radius]);
            next += 1;
        }
        let row = |y: usize| &across[y % held * width..][..width];
        let mut pairs: [(&[f32], &[f32]); MOST_TAPS] = [(&[], &[]); MOST_TAPS];
        for (tap, pair) in pairs[..=radius].iter_mut().enumerate() {
            *pair = (row(y.saturating_sub(tap)), row((y + tap).min(height - 1)));
        }
        weighed(out, weights, &pairs[..=radius]);
    }
}

/// The sum of the rows of each tap, one to either side, by the taps' weights; for tap 0 the first row alone. All
/// rows are as long as `out`.
#[inline(always)]
fn weighed(out: &mut [f32], weights: &[f32], rows: &[(&[f32], &[f32])]) {
    let (centre, others) = (rows[0].0, &rows[1..]);
    let whole = out.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sum = [0.0_f32; LANES];
        for (sum, value) in sum.iter_mut().zip(&centre[at..at + LANES]) {
            *sum = value * weights[0];
        }
        for (&weight, (one, other)) in weights[1..].iter().zip(others) {
            for ((sum, a), b) in sum.iter_mut().zip(&one[at..at + LANES]).zip(&other[at..at + LANES]) {
                *sum += (a + b) * weight;
            }
        }
        out[at..at + LANES].copy_from_slice(&sum);
    }
    for at in whole..out.len() {
        let mut sum = centre[at] * weights[0];
        for (&weight, (one, other)) in weights[1..].iter().zip(others) {
            sum += (one[at] + other[at]) * weight;
        }
        out[at] = sum;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plane(width: usize, height: usize) -> Plane {
        let level = |at: usize| (at * 7919 % 256) as u8;
        Plane::of(width, height, &(0..width * height).map(level).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn a_place_within_is_a_place_between(
            width in 2usize..40, height in 2usize..40, x in 0.0f32..1.0, y in 0.0f32..1.0,
        ) {
            let plane = plane(width, height);
            let (x, y) = (x * (width - 1) as f32, y * (height - 1) as f32);
            prop_assume!(x < (width - 1) as f32 && y < (height - 1) as f32);
            prop_assert_eq!(plane.within(x, y), plane.between(x, y));
        }

        #[test]
        fn what_was_in_a_spare_buffer_does_not_matter(width in 1usize..80, height in 1usize..20, left in 0usize..2000) {
            let plane = plane(width, height);
            let mut spare = Spare(vec![vec![f32::NAN; left]]);
            let reused = plane.smoothed(1.3, &mut spare);
            prop_assert_eq!(reused.values, plane.smoothed(1.3, &mut Spare::default()).values);
        }

        #[test]
        fn smoothing_is_the_weighted_mean_of_what_lies_around(
            width in 1usize..80, height in 1usize..20, sigma in 0.4f32..4.0,
        ) {
            let plane = plane(width, height);
            let smooth = plane.smoothed(sigma, &mut Spare::default());
            let radius = ((2.6 * sigma).ceil() as isize).max(1);
            let weight = |at: isize| f64::exp(-((at * at) as f64) / (2.0 * f64::from(sigma) * f64::from(sigma)));
            let sum: f64 = (-radius..=radius).map(weight).sum();
            for (at, value) in smooth.values.iter().enumerate() {
                let (x, y) = ((at % width) as isize, (at / width) as isize);
                let mut mean = 0.0;
                for v in -radius..=radius {
                    for u in -radius..=radius {
                        let (x, y) = ((x + u).clamp(0, width as isize - 1), (y + v).clamp(0, height as isize - 1));
                        mean += weight(u) * weight(v) * f64::from(plane.at(x as usize, y as usize));
                    }
                }
                prop_assert!((f64::from(*value) - mean / (sum * sum)).abs() < 1e-3);
            }
        }
    }
}

//! Grey pictures of floating-point values: what the scale space is made of.

/// Row-major. Neither side is zero.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f32>,
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

    /// Smoothed by a Gaussian of standard deviation `sigma`, edges continued.
    pub(crate) fn smoothed(&self, sigma: f32) -> Self {
        let radius = (f32::ceil(2.6 * sigma) as usize).max(1);
        let mut weights: Vec<f32> = (0..=radius)
            .map(|at| libm::expf(-((at * at) as f32) / (2.0 * sigma * sigma)))
            .collect();
        let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
        weights.iter_mut().for_each(|weight| *weight /= sum);

        // Rows smoothed across, as many as one row of the result needs.
        let (width, held) = (self.width, 2 * radius + 1);
        let mut across = vec![0.0; held * width];
        let mut next = 0;
        let mut padded = vec![0.0; width + 2 * radius];
        let mut values = vec![0.0; self.values.len()];
        for (y, out) in values.chunks_exact_mut(width).enumerate() {
            while next <= (y + radius).min(self.height - 1) {
                let row = &self.values[next * width..][..width];
                padded[..radius].fill(row[0]);
                padded[radius..radius + width].copy_from_slice(row);
                padded[radius + width..].fill(row[width - 1]);
                let out = &mut across[next % held * width..][..width];
                weighed(out, &weights, |tap| {
                    (&padded[radius - tap..][..width], &padded[radius + tap..][..width])
                });
                next += 1;
            }
            let row = |y: usize| &across[y % held * width..][..width];
            weighed(out, &weights, |tap| {
                (row(y.saturating_sub(tap)), row((y + tap).min(self.height - 1)))
            });
        }
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

/// Places that are summed at a time, in registers.
const LANES: usize = 16;

/// The sum of the rows that `of` gives for each tap, one to either side, by the taps' weights; for tap 0 the first row alone.
fn weighed<'a>(out: &mut [f32], weights: &[f32], of: impl Fn(usize) -> (&'a [f32], &'a [f32])) {
    let (centre, _) = of(0);
    let whole = out.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sum = [0.0_f32; LANES];
        for (sum, value) in sum.iter_mut().zip(&centre[at..at + LANES]) {
            *sum = value * weights[0];
        }
        for (tap, &weight) in weights.iter().enumerate().skip(1) {
            let (one, other) = of(tap);
            for ((sum, a), b) in sum.iter_mut().zip(&one[at..at + LANES]).zip(&other[at..at + LANES]) {
                *sum += (a + b) * weight;
            }
        }
        out[at..at + LANES].copy_from_slice(&sum);
    }
    for at in whole..out.len() {
        let mut sum = centre[at] * weights[0];
        for (tap, &weight) in weights.iter().enumerate().skip(1) {
            let (one, other) = of(tap);
            sum += (one[at] + other[at]) * weight;
        }
        out[at] = sum;
    }
}

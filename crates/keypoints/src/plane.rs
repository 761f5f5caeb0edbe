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

        let mut across = vec![0.0; self.values.len()];
        let mut padded = vec![0.0; self.width + 2 * radius];
        for (row, out) in self
            .values
            .chunks_exact(self.width)
            .zip(across.chunks_exact_mut(self.width))
        {
            padded[..radius].fill(row[0]);
            padded[radius..radius + self.width].copy_from_slice(row);
            padded[radius + self.width..].fill(row[self.width - 1]);
            scaled(out, &padded[radius..radius + self.width], weights[0]);
            for (tap, &weight) in weights.iter().enumerate().skip(1) {
                let (before, after) = (
                    &padded[radius - tap..][..self.width],
                    &padded[radius + tap..][..self.width],
                );
                add_both(out, before, after, weight);
            }
        }
        let mut values = vec![0.0; self.values.len()];
        let row = |y: usize| &across[y * self.width..][..self.width];
        for (y, out) in values.chunks_exact_mut(self.width).enumerate() {
            scaled(out, row(y), weights[0]);
            for (tap, &weight) in weights.iter().enumerate().skip(1) {
                add_both(
                    out,
                    row(y.saturating_sub(tap)),
                    row((y + tap).min(self.height - 1)),
                    weight,
                );
            }
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

    /// This less another of the same size.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a - b).collect();
        Self { values, ..*self }
    }
}

fn scaled(out: &mut [f32], from: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(from) {
        *out = value * weight;
    }
}

fn add_both(out: &mut [f32], one: &[f32], other: &[f32], weight: f32) {
    for ((out, a), b) in out.iter_mut().zip(one).zip(other) {
        *out += (a + b) * weight;
    }
}

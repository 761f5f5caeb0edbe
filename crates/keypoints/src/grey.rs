//! Grey pictures: where corners are looked for.

use imaging::Image;

/// Row-major, one byte a pixel.
#[derive(Clone)]
pub(crate) struct Grey {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Grey {
    /// Luma (ITU-R BT.601).
    pub(crate) fn of(image: &Image) -> Self {
        let (pixels, _) = image.pixels().as_chunks::<3>();
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            pixels: pixels
                .iter()
                .map(|&[r, g, b]| ((u32::from(r) * 299 + u32::from(g) * 587 + u32::from(b) * 114 + 500) / 1000) as u8)
                .collect(),
        }
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> i32 {
        i32::from(self.pixels[y * self.width + x])
    }

    /// Between four pixels; a little outside, those of the edge; `None` further out.
    pub(crate) fn between(&self, x: f64, y: f64) -> Option<f32> {
        const BESIDE: f64 = 3.0;
        let (right, bottom) = ((self.width - 1) as f64, (self.height - 1) as f64);
        if !(x >= -BESIDE && y >= -BESIDE && x <= right + BESIDE && y <= bottom + BESIDE) || right < 1.0 || bottom < 1.0
        {
            return None;
        }
        let (x, y) = (x.clamp(0.0, right - 0.001), y.clamp(0.0, bottom - 0.001));
        let (left, top) = (x as usize, y as usize);
        let (dx, dy) = ((x - left as f64) as f32, (y - top as f64) as f32);
        let row = |y: usize| {
            let at = y * self.width + left;
            let (a, b) = (f32::from(self.pixels[at]), f32::from(self.pixels[at + 1]));
            a + (b - a) * dx
        };
        let (above, below) = (row(top), row(top + 1));
        Some(above + (below - above) * dy)
    }

    /// Smaller by `factor` on both sides, by interpolation; meant for factors near 1.
    pub(crate) fn smaller(&self, factor: f64) -> Self {
        let side = |length: usize| ((length as f64 / factor).round() as usize).max(1);
        let (width, height) = (side(self.width), side(self.height));
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let place = |at: usize, length: usize| {
                    ((at as f64 + 0.5) * factor - 0.5).clamp(0.0, (length as f64 - 1.001).max(0.0))
                };
                let value = self.between(place(x, self.width), place(y, self.height));
                pixels.push(value.map_or(self.pixels[0], |value| (value + 0.5) as u8));
            }
        }
        Self { width, height, pixels }
    }

    /// Left and right exchanged.
    pub(crate) fn mirrored(&self) -> Self {
        let mut pixels = self.pixels.clone();
        pixels.chunks_exact_mut(self.width).for_each(<[u8]>::reverse);
        Self { pixels, ..*self }
    }

    /// Smoothed by a Gaussian of standard deviation 2, seven samples wide.
    pub(crate) fn smoothed(&self) -> Self {
        const WEIGHTS: [u32; 7] = [18, 33, 49, 56, 49, 33, 18];
        let pass = |source: &[u8], length: usize, step: usize, at: usize, place: usize| {
            let mut sum = 128;
            for (tap, weight) in WEIGHTS.iter().enumerate() {
                let shifted = (place + tap).saturating_sub(3).min(length - 1);
                sum += weight * u32::from(source[at - place * step + shifted * step]);
            }
            (sum / 256) as u8
        };
        let mut across = vec![0; self.pixels.len()];
        for (at, target) in across.iter_mut().enumerate() {
            *target = pass(&self.pixels, self.width, 1, at, at % self.width);
        }
        let mut pixels = vec![0; across.len()];
        for (at, target) in pixels.iter_mut().enumerate() {
            *target = pass(&across, self.height, self.width, at, at / self.width);
        }
        Self { pixels, ..*self }
    }
}

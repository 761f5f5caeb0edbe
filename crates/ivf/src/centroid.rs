//! A centroid, rounded to bytes.

/// A centroid in bytes: `centroid ≈ scale · code`, and by definition exactly that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Centroid<'p> {
    pub code: &'p [i8],
    pub scale: f32,
    /// ‖c‖²
    pub squared: f32,
}

/// A centroid of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnedCentroid {
    pub code: Vec<i8>,
    pub scale: f32,
    pub squared: f32,
}

impl OwnedCentroid {
    /// Rounds to bytes.
    pub fn round(values: &[f32]) -> Self {
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let scale = if largest.is_finite() { largest / 127.0 } else { 0.0 };
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code: Vec<i8> = values.iter().map(|x| (x * inverse).round() as i8).collect();
        let sum: f64 = code.iter().map(|&c| f64::from(c) * f64::from(c)).sum();
        OwnedCentroid {
            code,
            scale,
            squared: ((sum * f64::from(scale) * f64::from(scale)) as f32).min(f32::MAX),
        }
    }

    pub fn view(&self) -> Centroid<'_> {
        Centroid {
            code: &self.code,
            scale: self.scale,
            squared: self.squared,
        }
    }
}

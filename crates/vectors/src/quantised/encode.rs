//! The loops of encoding, written in eight lanes and compiled once more for processors that have them.
use super::Residual;

const LANES: usize = 8;

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

/// The loops, as every instruction set runs them.
macro_rules! loops {
    ($(#[$attribute:meta])* $($safety:ident)?, $residual:ident, $levels:ident) => {
        $(#[$attribute])*
        pub(super) $($safety)? fn $residual(
            x: &[f32],
            code: &[i8],
            scale: f32,
            scanned: usize,
            residual: &mut [f32],
            centre: &mut [f32],
        ) -> Residual {
            let mut squared = [0.0f32; LANES];
            let mut along = [0.0f32; LANES];
            let mut largest = [0.0f32; LANES];
            let mut magnitudes = [0.0f32; LANES];
            let mut signed = [0.0f32; LANES];
            let parts = x.as_chunks::<LANES>().0.iter().zip(code.as_chunks::<LANES>().0);
            let outs = residual.as_chunks_mut::<LANES>().0.iter_mut().zip(centre.as_chunks_mut::<LANES>().0);
            for (at, ((x, code), (residual, centre))) in parts.zip(outs).enumerate() {
                let counts = if at * LANES < scanned { 1.0 } else { 0.0 };
                for i in 0..LANES {
                    let c = f32::from(code[i]) * scale;
                    let o = x[i] - c;
                    centre[i] = c;
                    residual[i] = o;
                    squared[i] += o * o;
                    along[i] += o * c;
                    largest[i] = largest[i].max(o.abs());
                    magnitudes[i] += counts * o.abs();
                    signed[i] += counts * if o >= 0.0 { c } else { -c };
                }
            }
            Residual {
                squared: total(squared),
                along: total(along),
                largest: largest.into_iter().fold(0.0, f32::max),
                magnitudes: total(magnitudes),
                signed_centre: total(signed),
            }
        }

        $(#[$attribute])*
        pub(super) $($safety)? fn $levels(
            residual: &[f32],
            centre: &[f32],
            inverse: f32,
            middle: f32,
            levels: &mut [u8],
        ) -> (f32, f32) {
            let mut with_residual = [0.0f32; LANES];
            let mut with_centre = [0.0f32; LANES];
            let parts = residual.as_chunks::<LANES>().0.iter().zip(centre.as_chunks::<LANES>().0);
            for ((o, c), out) in parts.zip(levels.as_chunks_mut::<LANES>().0) {
                for i in 0..LANES {
                    // Within 0 and 63, so that the conversion is exact; NaN becomes 0.
                    let level = (o[i] * inverse + (middle + 0.5)).max(0.0).min(2.0 * middle) as i32;
                    let u = level as f32 - middle;
                    with_residual[i] += u * o[i];
                    with_centre[i] += u * c[i];
                    out[i] = level as u8;
                }
            }
            (total(with_residual), total(with_centre))
        }
    };
}

loops!(, residual, levels);
#[cfg(target_arch = "x86_64")]
loops!(
    #[target_feature(enable = "avx2,fma")]
    unsafe,
    residual_avx2,
    levels_avx2
);

//! Whether a picture has enough structure to be matched at all.
//!
//! A blank wall is a near-copy of every other blank wall: such pictures must be refused with a reason, not matched
//! (PDQ discards pictures of quality 49 or less for the same cause). PDQ's quality sums quantised first differences of
//! a 64 × 64 luminance copy; here second differences are summed, so that a smooth ramp, which has slope but no
//! structure, counts as nothing.

use crate::poll::Poll;
use crate::{Filter, Image, ImageError, resize};

/// Side of the reduced copy, as PDQ's.
const SIDE: usize = 64;
/// Second differences up to this many grey levels are noise, banding and compression.
const DEAD_ZONE: f32 = 4.0;
/// No single pixel counts for more than this: one hard edge is not a scene.
const CEILING: f32 = 20.0;
/// Score below which [`refusal`] refuses.
const REFUSED_BELOW: f32 = 1.0;

/// How much structure a picture has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detail {
    /// Structure, 0 to 100: the mean over a 64 × 64 luminance copy of each pixel's horizontal and vertical second
    /// difference, beyond a dead zone of 4 grey levels and up to 20, as a percentage of the most it could be.
    pub score: f32,
    /// Standard deviation of the copy's luminance, 0 to 127.5 grey levels.
    pub contrast: f32,
    /// Shannon entropy of the copy's luminance in 32 classes, 0 to 5 bits.
    pub entropy: f32,
}

/// Measures the structure of a picture. Luminance is ITU-R BT.601's.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub fn detail(image: &Image) -> Result<Detail, ImageError> {
    detail_until(image, &|| false)
}

/// As [`detail`]; `should_stop` is polled all along.
///
/// # Errors
/// As [`detail`]; [`ImageError::Cancelled`] once `should_stop` says so.
pub fn detail_until(image: &Image, should_stop: &dyn Fn() -> bool) -> Result<Detail, ImageError> {
    let source = (image.pixels(), image.width() as usize, image.height() as usize);
    of_pixels(source, &Poll::new(should_stop))
}

/// The same of bare pixels: their bytes, width and height.
pub(crate) fn of_pixels(source: (&[u8], usize, usize), poll: &Poll) -> Result<Detail, ImageError> {
    let side = SIDE as u32;
    let small = resize::resize_pixels(source, side, side, Filter::Bilinear, poll)?;
    let luminance: Vec<f32> = small
        .chunks_exact(3)
        .map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
        .collect();
    let count = luminance.len() as f32;
    let mean = luminance.iter().sum::<f32>() / count;
    let contrast = (luminance.iter().map(|l| (l - mean) * (l - mean)).sum::<f32>() / count).sqrt();

    let mut classes = [0u32; 32];
    for &level in &luminance {
        classes[(level as usize / 8).min(31)] += 1;
    }
    let entropy = classes
        .iter()
        .filter(|&&n| n > 0)
        .map(|&n| n as f32 / count)
        .map(|p| -p * p.log2())
        .sum();

    let beyond = |second: f32| (second.abs() - DEAD_ZONE).clamp(0.0, CEILING - DEAD_ZONE);
    let mut structure = 0.0;
    for y in 1..SIDE - 1 {
        for x in 1..SIDE - 1 {
            let at = |dx: usize, dy: usize| luminance[(y + dy - 1) * SIDE + x + dx - 1];
            structure += beyond(at(0, 1) + at(2, 1) - 2.0 * at(1, 1));
            structure += beyond(at(1, 0) + at(1, 2) - 2.0 * at(1, 1));
        }
    }
    let most = 2.0 * ((SIDE - 2) * (SIDE - 2)) as f32 * (CEILING - DEAD_ZONE);
    Ok(Detail {
        score: 100.0 * structure / most,
        contrast,
        entropy,
    })
}

/// Why a picture is too featureless to be matched, or `None` when it is not.
pub fn refusal(detail: &Detail) -> Option<String> {
    if detail.score >= REFUSED_BELOW {
        return None;
    }
    let looks = if detail.contrast < 2.0 {
        "it is a single colour"
    } else {
        "it is blank or a smooth gradient"
    };
    Some(format!(
        "{looks}: its structure score is {:.2} of 100, below {REFUSED_BELOW:.2} (contrast {:.1}, entropy {:.1} bits)",
        detail.score, detail.contrast, detail.entropy
    ))
}

//! Planes to RGB: the last step.

use super::frame::{Colours, Frame};
use super::upsample::{self, Stretch};
use crate::ImageError;
use crate::poll::Poll;

/// Rows between polls.
const POLL_ROWS: usize = 64;

/// The markers that decide about colours.
#[derive(Default)]
pub(super) struct Markers {
    pub jfif: bool,
    /// The transform of an Adobe marker.
    pub adobe: Option<u8>,
}

impl Markers {
    /// What the file around the stream says, if it does; else libjpeg's rules: JFIF is YCbCr whatever else is said;
    /// then Adobe's marker counts, with unknown values taken for YCbCr and YCCK; then the names of the components.
    pub(super) fn colours(&self, frame: &Frame, is_ycbcr: Option<bool>) -> Colours {
        match (frame.components.len(), self.adobe) {
            (1, _) => Colours::Grey,
            (3, _) if is_ycbcr == Some(false) => Colours::Rgb,
            (3, _) if is_ycbcr == Some(true) => Colours::YCbCr,
            (3, _) if self.jfif => Colours::YCbCr,
            (3, Some(0)) => Colours::Rgb,
            (3, Some(_)) => Colours::YCbCr,
            (3, None) if frame.components.iter().map(|c| c.id).eq(*b"RGB") => Colours::Rgb,
            (3, None) => Colours::YCbCr,
            (_, None | Some(0)) => Colours::Cmyk,
            _ => Colours::Ycck,
        }
    }
}

/// Writes the picture as RGB.
pub(super) fn write(frame: &Frame, pixels: &mut [u8], poll: &Poll) -> Result<(), ImageError> {
    let width = frame.out_width as usize;
    let stretches: Vec<Stretch> = frame.components.iter().map(|c| Stretch::of(frame, c)).collect();
    let mut rows = vec![vec![0u8; width]; frame.components.len()];
    let mut spare = Vec::with_capacity(width);
    for (y, target) in pixels.chunks_exact_mut(width * 3).enumerate() {
        if y % POLL_ROWS == 0 {
            poll.check()?;
        }
        for ((row, component), &stretch) in rows.iter_mut().zip(&frame.components).zip(&stretches) {
            upsample::row(frame, component, stretch, y, &mut spare, row);
        }
        let (target, _) = target.as_chunks_mut::<3>();
        match rows.as_slice() {
            [grey] => target.iter_mut().zip(grey).for_each(|(to, &level)| to.fill(level)),
            [first, second, third, rest @ ..] => {
                let channels = first.iter().zip(second).zip(third);
                match (frame.colours, rest) {
                    (Colours::Rgb, _) => channels.zip(target).for_each(|(((&a, &b), &c), to)| *to = [a, b, c]),
                    (Colours::Cmyk, [black]) => channels
                        .zip(black)
                        .zip(target)
                        .for_each(|((((&a, &b), &c), &k), to)| *to = [a, b, c].map(|ink| paper(ink, k))),
                    (Colours::Ycck, [black]) => channels
                        .zip(black)
                        .zip(target)
                        .for_each(|((((&a, &b), &c), &k), to)| *to = rgb(a, b, c).map(|level| paper(255 - level, k))),
                    _ => channels.zip(target).for_each(|(((&a, &b), &c), to)| *to = rgb(a, b, c)),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the samples as they are, all of a pixel together.
pub(super) fn write_samples(frame: &Frame, samples: &mut [u8], poll: &Poll) -> Result<(), ImageError> {
    let (width, count) = (frame.out_width as usize, frame.components.len());
    let (mut row, mut spare) = (vec![0u8; width], Vec::with_capacity(width));
    for (y, target) in samples.chunks_exact_mut(width * count).enumerate() {
        if y % POLL_ROWS == 0 {
            poll.check()?;
        }
        for (number, component) in frame.components.iter().enumerate() {
            upsample::row(frame, component, Stretch::of(frame, component), y, &mut spare, &mut row);
            for (to, &level) in target.iter_mut().skip(number).step_by(count).zip(&row) {
                *to = level;
            }
        }
    }
    Ok(())
}

/// JFIF's YCbCr (ITU-R BT.601, full range) in 16-bit fixed point, rounded.
#[inline(always)]
pub(in crate::decode) fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let luma = (i32::from(y) << 16) + (1 << 15);
    let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
    let level = |value: i32| (value >> 16).clamp(0, 255) as u8;
    [
        level(luma + 91_881 * cr),
        level(luma - 22_554 * cb - 46_802 * cr),
        level(luma + 116_130 * cb),
    ]
}

/// One channel of CMYK on white paper, as Pillow's `convert("RGB")` has it: 255 − K less C·(255 − K) ÷ 255. Both are
/// stored inverted.
#[inline(always)]
pub(in crate::decode) fn paper(ink: u8, black: u8) -> u8 {
    let product = (255 - u32::from(ink)) * u32::from(black) + 128;
    black.saturating_sub(((product + (product >> 8)) >> 8) as u8)
}

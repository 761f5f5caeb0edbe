//! Planes to RGB as libwebp does it: chroma interpolated (9, 3, 3 and 1 sixteenths), ITU-R BT.601 of limited range.

use super::Frame;
use crate::ImageError;
use crate::poll::Poll;

/// Rows between two polls.
const POLL_ROWS: usize = 64;

impl Frame {
    /// Writes the picture, `CHANNELS` bytes a pixel; a fourth one is left as it is.
    pub(in crate::decode) fn write<const CHANNELS: usize>(
        &self,
        target: &mut [u8],
        poll: &Poll,
    ) -> Result<(), ImageError> {
        let [luma, chroma @ ..] = &self.planes;
        let (chroma_width, last) = (self.width.div_ceil(2), self.height.div_ceil(2) - 1);
        let mut lines = [vec![0u8; self.width], vec![0u8; self.width]];
        for (y, row) in target.chunks_exact_mut(self.width * CHANNELS).enumerate() {
            if y % POLL_ROWS == 0 {
                poll.check()?;
            }
            let near = y / 2;
            let far = if y % 2 == 0 {
                near.saturating_sub(1)
            } else {
                (near + 1).min(last)
            };
            for (line, plane) in lines.iter_mut().zip(chroma) {
                let samples = |row: usize| &plane.samples[row * plane.stride..][..chroma_width];
                widen(samples(near), samples(far), line);
            }
            let [cb, cr] = &lines;
            let luma = &luma.samples[y * luma.stride..][..self.width];
            let (pixels, _) = row.as_chunks_mut::<CHANNELS>();
            for (((to, &y), &cb), &cr) in pixels.iter_mut().zip(luma).zip(cb).zip(cr) {
                to[..3].copy_from_slice(&colour(y, cb, cr));
            }
        }
        Ok(())
    }
}

/// A row of chroma at twice the width, between the nearer and the further line.
fn widen(near: &[u8], far: &[u8], target: &mut [u8]) {
    let at = |line: &[u8], x: usize| u32::from(line[x]);
    let end = |x: usize| ((3 * at(near, x) + at(far, x) + 2) >> 2) as u8;
    let width = target.len();
    target[0] = end(0);
    if width.is_multiple_of(2) {
        target[width - 1] = end(near.len() - 1);
    }
    for (x, pair) in target[1..].chunks_exact_mut(2).enumerate() {
        if x + 1 >= near.len() {
            break;
        }
        let (near_left, near_right) = (at(near, x), at(near, x + 1));
        let (far_left, far_right) = (at(far, x), at(far, x + 1));
        let sum = near_left + near_right + far_left + far_right + 8;
        pair[0] = ((((sum + 2 * (near_right + far_left)) >> 3) + near_left) >> 1) as u8;
        pair[1] = ((((sum + 2 * (near_left + far_right)) >> 3) + near_right) >> 1) as u8;
    }
}

#[inline(always)]
fn colour(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let high = |value: u8, factor: i32| (i32::from(value) * factor) >> 8;
    let level = |value: i32| (value >> 6).clamp(0, 255) as u8;
    let luma = high(y, 19_077);
    [
        level(luma + high(cr, 26_149) - 14_234),
        level(luma - high(cb, 6_419) - high(cr, 13_320) + 8_708),
        level(luma + high(cb, 33_050) - 17_685),
    ]
}

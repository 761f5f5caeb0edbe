//! Planes to RGB: the last step of a reduced decode.

use super::frame::{Component, Frame};
use crate::poll::Poll;

/// Rows between polls.
const POLL_ROWS: usize = 64;

/// Writes the picture as RGB; false when stopped.
pub(super) fn write(frame: &Frame, pixels: &mut [u8], poll: &Poll) -> bool {
    let width = frame.out_width as usize;
    // Components with fewer samples are stretched to the full width here, row by row.
    let mut rows = vec![vec![0u8; width]; frame.components.len()];
    for (y, target) in pixels.chunks_exact_mut(width * 3).enumerate() {
        if y % POLL_ROWS == 0 && poll.stopped() {
            return false;
        }
        for (row, component) in rows.iter_mut().zip(&frame.components) {
            stretch(frame, component, y, row);
        }
        match rows.as_slice() {
            [grey] => target
                .chunks_exact_mut(3)
                .zip(grey)
                .for_each(|(to, &level)| to.fill(level)),
            [first, second, third] => {
                let channels = first.iter().zip(second).zip(third);
                for (to, ((&a, &b), &c)) in target.chunks_exact_mut(3).zip(channels) {
                    to.copy_from_slice(&if frame.is_rgb { [a, b, c] } else { rgb(a, b, c) });
                }
            }
            _ => {}
        }
    }
    true
}

/// One row of a component at the width of the picture. Samples are repeated where a component has fewer, which takes
/// sampling factors of 4 at half size.
fn stretch(frame: &Frame, component: &Component, y: usize, row: &mut [u8]) {
    // Picture pixels a sample stands for.
    let across = frame.horizontal * frame.size / (component.horizontal * component.across);
    let down = frame.vertical * frame.size / (component.vertical * component.down);
    let stride = component.stride();
    let samples = &component.samples[y / down.max(1) * stride..][..stride];
    match across {
        1 => row.copy_from_slice(&samples[..row.len()]),
        _ => row
            .chunks_mut(across.max(1))
            .zip(samples)
            .for_each(|(to, &sample)| to.fill(sample)),
    }
}

/// JFIF's YCbCr (ITU-R BT.601, full range) in 16-bit fixed point, rounded.
#[inline(always)]
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let luma = (i32::from(y) << 16) + (1 << 15);
    let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
    let level = |value: i32| (value >> 16).clamp(0, 255) as u8;
    [
        level(luma + 91_881 * cr),
        level(luma - 22_554 * cb - 46_802 * cr),
        level(luma + 116_130 * cb),
    ]
}

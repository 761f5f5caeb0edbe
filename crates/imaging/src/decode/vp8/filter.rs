//! The loop filter (RFC 6386, section 15): edges between blocks are smoothed once the whole frame is there.

use super::Frame;
use crate::ImageError;
use crate::poll::Poll;

/// How strongly the edges of a macroblock are filtered; a level of 0 is not at all.
#[derive(Clone, Copy)]
pub(super) struct Strength {
    level: u8,
    interior: u8,
    high_variance: u8,
    /// Whether the edges within the macroblock are filtered too.
    is_inner: bool,
}

impl Strength {
    pub(super) fn new(level: i32, sharpness: i32, is_inner: bool) -> Self {
        let mut interior = level;
        if sharpness > 0 {
            interior >>= if sharpness > 4 { 2 } else { 1 };
            interior = interior.min(9 - sharpness);
        }
        Self {
            level: level as u8,
            interior: interior.max(1) as u8,
            high_variance: match level {
                40.. => 2,
                15.. => 1,
                _ => 0,
            },
            is_inner,
        }
    }

    fn edge(self, between_macroblocks: bool) -> Limits {
        let level = i32::from(self.level) + if between_macroblocks { 2 } else { 0 };
        Limits {
            edge: 2 * level + i32::from(self.interior),
            interior: i32::from(self.interior),
            high_variance: i32::from(self.high_variance),
        }
    }
}

#[derive(Clone, Copy)]
struct Limits {
    edge: i32,
    interior: i32,
    high_variance: i32,
}

pub(super) fn frame(
    frame: &mut Frame,
    is_simple: bool,
    columns: usize,
    strengths: &[Strength],
    poll: &Poll,
) -> Result<(), ImageError> {
    for (row, strengths) in strengths.chunks_exact(columns).enumerate() {
        poll.check()?;
        for (column, &strength) in strengths.iter().enumerate() {
            if strength.level == 0 {
                continue;
            }
            for (index, plane) in frame.planes.iter_mut().enumerate() {
                if is_simple && index > 0 {
                    break;
                }
                let side = if index == 0 { 16 } else { 8 };
                let (stride, at) = (plane.stride, row * side * plane.stride + column * side);
                let (outer, inner) = (strength.edge(true), strength.edge(false));
                let samples = &mut plane.samples;
                // Upright edges first: the one to the left neighbour, those within, then the level ones.
                for (across, along, is_frame_edge) in [(1, stride, column == 0), (stride, 1, row == 0)] {
                    if !is_frame_edge {
                        for place in 0..side {
                            let at = at + place * along;
                            if is_simple {
                                simple(samples, at, across, outer.edge);
                            } else {
                                normal::<true>(samples, at, across, outer);
                            }
                        }
                    }
                    if !strength.is_inner {
                        continue;
                    }
                    for offset in (4..side).step_by(4) {
                        for place in 0..side {
                            let at = at + offset * across + place * along;
                            if is_simple {
                                simple(samples, at, across, inner.edge);
                            } else {
                                normal::<false>(samples, at, across, inner);
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// To −128..=127, as the filter counts.
fn clamped(value: i32) -> i32 {
    value.clamp(-128, 127)
}

fn signed(sample: u8) -> i32 {
    i32::from(sample) - 128
}

fn unsigned(value: i32) -> u8 {
    (clamped(value) + 128) as u8
}

/// Moves the two samples at the edge together; gives by how much the one behind it moved.
#[inline(always)]
fn adjust(samples: &mut [u8], at: usize, across: usize, uses_outer: bool) -> i32 {
    let [p1, p0, q0, q1] = [at - 2 * across, at - across, at, at + across].map(|place| signed(samples[place]));
    let outer = if uses_outer { clamped(p1 - q1) } else { 0 };
    let all = clamped(outer + 3 * (q0 - p0));
    let (behind, before) = (clamped(all + 4) >> 3, clamped(all + 3) >> 3);
    samples[at] = unsigned(q0 - behind);
    samples[at - across] = unsigned(p0 + before);
    behind
}

#[inline(always)]
fn is_within(samples: &[u8], at: usize, across: usize, edge: i32) -> bool {
    let [p1, p0, q0, q1] = [at - 2 * across, at - across, at, at + across].map(|place| i32::from(samples[place]));
    2 * (p0 - q0).abs() + ((p1 - q1).abs() >> 1) <= edge
}

fn simple(samples: &mut [u8], at: usize, across: usize, edge: i32) {
    if is_within(samples, at, across, edge) {
        adjust(samples, at, across, true);
    }
}

#[inline(always)]
fn normal<const BETWEEN_MACROBLOCKS: bool>(samples: &mut [u8], at: usize, across: usize, limits: Limits) {
    if !is_within(samples, at, across, limits.edge) {
        return;
    }
    let start = at - 4 * across;
    let values: [i32; 8] = std::array::from_fn(|index| i32::from(samples[start + index * across]));
    let step = |index: usize| (values[index] - values[index + 1]).abs();
    if [0, 1, 2, 4, 5, 6]
        .into_iter()
        .any(|index| step(index) > limits.interior)
    {
        return;
    }
    let varies = step(2) > limits.high_variance || step(4) > limits.high_variance;
    if varies {
        adjust(samples, at, across, true);
        return;
    }
    let [_, p2, p1, p0, q0, q1, q2, _] = values.map(|value| value - 128);
    if BETWEEN_MACROBLOCKS {
        let all = clamped(clamped(p1 - q1) + 3 * (q0 - p0));
        for (factor, distance, before, behind) in [(27, 0, p0, q0), (18, 1, p1, q1), (9, 2, p2, q2)] {
            let change = clamped((factor * all + 63) >> 7);
            samples[at + distance * across] = unsigned(behind - change);
            samples[at - (distance + 1) * across] = unsigned(before + change);
        }
    } else {
        let change = (adjust(samples, at, across, false) + 1) >> 1;
        samples[at + across] = unsigned(q1 - change);
        samples[at - 2 * across] = unsigned(p1 + change);
    }
}

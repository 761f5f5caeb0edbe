//! A component's samples at the width of the picture, row by row.
//!
//! At full size this is libjpeg's "fancy upsampling", to the bit: each new sample is 3/4 of the nearer and 1/4 of the
//! further old one along each axis that is doubled, the roundings alternating. Other ratios, and reduced sizes, repeat
//! the nearest sample.

use super::frame::{Component, Frame};

/// How a component gets to the picture's width and height.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stretch {
    None,
    /// 2 : 1 across.
    Across,
    /// 2 : 1 down.
    Down,
    /// 2 : 1 across and down.
    Both,
    Nearest,
    /// More samples than pixels, as 4 for 3: at reduced sizes with sampling factors of 3.
    Mean,
}

impl Stretch {
    pub(super) fn of(frame: &Frame, component: &Component) -> Self {
        let doubled = |most: usize, factor: usize| most == 2 * factor;
        let (h, v) = (component.horizontal, component.vertical);
        let same = |most: usize, factor: usize, size: usize| most * frame.size == factor * size;
        let same_across = same(frame.horizontal, h, component.across);
        let same_down = same(frame.vertical, v, component.down);
        if same_across && same_down {
            return Stretch::None;
        }
        // Two columns are too few for the filter: libjpeg repeats them.
        let wide = own_width(frame, component) > 2;
        match (frame.size, doubled(frame.horizontal, h), doubled(frame.vertical, v)) {
            (8, true, false) if same_down && wide => Stretch::Across,
            (8, false, true) if same_across => Stretch::Down,
            (8, true, true) if wide => Stretch::Both,
            _ if component.horizontal * component.across > frame.horizontal * frame.size
                || component.vertical * component.down > frame.vertical * frame.size =>
            {
                Stretch::Mean
            }
            _ => Stretch::Nearest,
        }
    }
}

/// Columns of samples that are the picture's, not padding.
fn own_width(frame: &Frame, component: &Component) -> usize {
    (frame.width as usize * component.horizontal).div_ceil(frame.horizontal)
}

/// Writes row `y` of the picture for this component. `spare` is scratch.
pub(super) fn row(
    frame: &Frame,
    component: &Component,
    stretch: Stretch,
    y: usize,
    spare: &mut Vec<u16>,
    target: &mut [u8],
) {
    let stride = component.stride();
    let line = |row: usize| &component.samples[row * stride..][..stride];
    let last_row = (frame.height as usize * component.vertical).div_ceil(frame.vertical) - 1;
    // The nearer line, and the further one on the side of the new row.
    let near = y / 2;
    let far = if y.is_multiple_of(2) {
        near.saturating_sub(1)
    } else {
        (near + 1).min(last_row)
    };
    // Samples and the pixels that they stand for.
    let across = (component.horizontal * component.across, frame.horizontal * frame.size);
    let down = (component.vertical * component.down, frame.vertical * frame.size);
    match stretch {
        Stretch::None => target.copy_from_slice(&line(y)[..target.len()]),
        Stretch::Across => {
            let source = &line(y)[..own_width(frame, component)];
            doubled(
                target,
                source.len(),
                |at| 4 * u16::from(source[at]),
                |near, far| 3 * u16::from(source[near]) + u16::from(source[far]),
                [1, 2],
                2,
            );
        }
        Stretch::Down => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            for ((to, &near), &far) in target.iter_mut().zip(line(near)).zip(line(far)) {
                *to = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
            }
        }
        Stretch::Both => {
            let width = own_width(frame, component);
            spare.clear();
            let lines = line(near).iter().zip(line(far)).take(width);
            spare.extend(lines.map(|(&near, &far)| 3 * u16::from(near) + u16::from(far)));
            doubled(
                target,
                width,
                |at| 4 * spare[at],
                |near, far| 3 * spare[near] + spare[far],
                [8, 7],
                4,
            );
        }
        Stretch::Mean => {
            // Pixel (x, y) is the mean of the samples it covers, by the area of each.
            let weights = |samples: usize, pixels: usize, at: usize| {
                let (from, to) = (at * samples, (at + 1) * samples);
                let first = from / pixels;
                (first..to.div_ceil(pixels)).map(move |place| {
                    let (left, right) = (from.max(place * pixels), to.min((place + 1) * pixels));
                    (place, right - left)
                })
            };
            let last = component.rows * component.down - 1;
            for (x, to) in target.iter_mut().enumerate() {
                let mut sum = 0;
                for (row, height) in weights(down.0, down.1, y) {
                    let line = line(row.min(last));
                    for (column, width) in weights(across.0, across.1, x) {
                        sum += usize::from(line[column.min(stride - 1)]) * width * height;
                    }
                }
                let whole = across.0 * down.0;
                *to = ((sum + whole / 2) / whole) as u8;
            }
        }
        Stretch::Nearest => {
            let source = line(y * down.0 / down.1);
            if across.0 == across.1 {
                target.copy_from_slice(&source[..target.len()]);
            } else if across.1.is_multiple_of(across.0) {
                let times = across.1 / across.0;
                for (to, &sample) in target.chunks_mut(times).zip(source) {
                    to.fill(sample);
                }
            } else {
                for (x, to) in target.iter_mut().enumerate() {
                    *to = source[x * across.0 / across.1];
                }
            }
        }
    }
}

/// Twice as many samples as `count`: `end(i)` is four times sample i, `mixed(near, far)` three times one and once
/// another; the sums are rounded by `bias` (left, right) and shifted down.
#[inline(always)]
fn doubled(
    target: &mut [u8],
    count: usize,
    end: impl Fn(usize) -> u16,
    mixed: impl Fn(usize, usize) -> u16,
    bias: [u16; 2],
    shift: u32,
) {
    let (pairs, rest) = target.as_chunks_mut::<2>();
    let full = pairs.len();
    for (at, pair) in pairs.iter_mut().enumerate() {
        let left = if at == 0 { end(0) } else { mixed(at, at - 1) };
        let right = if at + 1 == count { end(at) } else { mixed(at, at + 1) };
        *pair = [((left + bias[0]) >> shift) as u8, ((right + bias[1]) >> shift) as u8];
    }
    if let [single] = rest {
        let left = if full == 0 { end(0) } else { mixed(full, full - 1) };
        *single = ((left + bias[0]) >> shift) as u8;
    }
}

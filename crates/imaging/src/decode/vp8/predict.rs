//! Prediction from the pixels above and to the left, and the coefficients' differences added (RFC 6386, section 12).
//! Where the neighbours lie outside of the picture, those above are 127 and those to the left 129.

use super::bits::Bits;
use super::{Frame, Mode, Plane, transform};

/// Modes of macroblocks and of chroma.
pub(super) const DC: u8 = 0;
pub(super) const V: u8 = 1;
pub(super) const H: u8 = 2;
pub(super) const TM: u8 = 3;

/// Modes of subblocks, in the order of the standard's tables.
pub(super) const B_DC: u8 = 0;
const B_TM: u8 = 1;
const B_VE: u8 = 2;
const B_HE: u8 = 3;
const B_LD: u8 = 4;
const B_RD: u8 = 5;
const B_VR: u8 = 6;
const B_VL: u8 = 7;
const B_HD: u8 = 8;
const B_HU: u8 = 9;

/// What the neighbours of a macroblock predicted as a whole take its subblocks' mode for.
pub(super) fn as_subblock(mode: u8) -> u8 {
    match mode {
        V => B_VE,
        H => B_HE,
        TM => B_TM,
        _ => B_DC,
    }
}

pub(super) fn read_subblock_mode(bits: &mut Bits, chances: &[u8; 9]) -> u8 {
    if !bits.decide(chances[0]) {
        B_DC
    } else if !bits.decide(chances[1]) {
        B_TM
    } else if !bits.decide(chances[2]) {
        B_VE
    } else if !bits.decide(chances[3]) {
        if !bits.decide(chances[4]) {
            B_HE
        } else if !bits.decide(chances[5]) {
            B_RD
        } else {
            B_VR
        }
    } else if !bits.decide(chances[6]) {
        B_LD
    } else if !bits.decide(chances[7]) {
        B_VL
    } else if !bits.decide(chances[8]) {
        B_HD
    } else {
        B_HU
    }
}

pub(super) fn macroblock(
    frame: &mut Frame,
    (column, row): (usize, usize),
    (columns, _): (usize, usize),
    mode: &Mode,
    coefficients: &[[i32; 16]; 25],
    filled: &[bool; 25],
) {
    let [luma, chroma @ ..] = &mut frame.planes;
    let (x, y) = (16 * column, 16 * row);
    match &mode.subblocks {
        Some(modes) => {
            // What is above and to the right of the macroblock serves all its rows of subblocks.
            let mut corner = [127; 4];
            if y > 0 {
                let above = &luma.samples[(y - 1) * luma.stride..];
                if column + 1 < columns {
                    corner.copy_from_slice(&above[x + 16..x + 20]);
                } else {
                    corner.fill(above[x + 15]);
                }
            }
            for (block, &mode) in modes.iter().enumerate() {
                let (x, y) = (x + 4 * (block % 4), y + 4 * (block / 4));
                let right = if block % 4 == 3 {
                    corner
                } else if y == 0 {
                    [127; 4]
                } else {
                    let at = (y - 1) * luma.stride + x + 4;
                    std::array::from_fn(|index| luma.samples[at + index])
                };
                subblock(luma, (x, y), mode, right);
                if filled[block] {
                    let at = y * luma.stride + x;
                    transform::add(&coefficients[block], &mut luma.samples[at..], luma.stride);
                }
            }
        }
        None => {
            whole::<16>(luma, (x, y), mode.luma);
            add(luma, (x, y), 4, &coefficients[..16], &filled[..16]);
        }
    }
    for (plane, first) in chroma.iter_mut().zip([16, 20]) {
        whole::<8>(plane, (x / 2, y / 2), mode.chroma);
        add(
            plane,
            (x / 2, y / 2),
            2,
            &coefficients[first..first + 4],
            &filled[first..first + 4],
        );
    }
}

fn add(plane: &mut Plane, (x, y): (usize, usize), across: usize, coefficients: &[[i32; 16]], filled: &[bool]) {
    for (block, (coefficients, &filled)) in coefficients.iter().zip(filled).enumerate() {
        if filled {
            let at = (y + 4 * (block / across)) * plane.stride + x + 4 * (block % across);
            transform::add(coefficients, &mut plane.samples[at..], plane.stride);
        }
    }
}

/// The `N` pixels above, those to the left, and the one at the corner.
fn edges<const N: usize>(plane: &Plane, (x, y): (usize, usize)) -> ([u8; N], [u8; N], u8) {
    let at = |x: usize, y: usize| plane.samples[y * plane.stride + x];
    let mut above = [127; N];
    if y > 0 {
        above.copy_from_slice(&plane.samples[(y - 1) * plane.stride + x..][..N]);
    }
    let left = std::array::from_fn(|row| if x > 0 { at(x - 1, y + row) } else { 129 });
    let corner = match (x, y) {
        (_, 0) => 127,
        (0, _) => 129,
        _ => at(x - 1, y - 1),
    };
    (above, left, corner)
}

/// A macroblock's plane as a whole.
fn whole<const N: usize>(plane: &mut Plane, (x, y): (usize, usize), mode: u8) {
    let (above, left, corner) = edges::<N>(plane, (x, y));
    let sum = |edge: &[u8; N]| edge.iter().map(|&value| u32::from(value)).sum::<u32>();
    let half = N as u32 / 2;
    let mean = match (x > 0, y > 0) {
        (true, true) => (sum(&above) + sum(&left) + 2 * half) / (4 * half),
        (true, false) => (sum(&left) + half) / (2 * half),
        (false, true) => (sum(&above) + half) / (2 * half),
        (false, false) => 128,
    };
    let stride = plane.stride;
    for (row, &left) in left.iter().enumerate() {
        let target = &mut plane.samples[(y + row) * stride + x..][..N];
        match mode {
            V => target.copy_from_slice(&above),
            H => target.fill(left),
            TM => {
                for (to, &above) in target.iter_mut().zip(&above) {
                    *to = (i32::from(left) + i32::from(above) - i32::from(corner)).clamp(0, 255) as u8;
                }
            }
            _ => target.fill(mean as u8),
        }
    }
}

/// 4 × 4 pixels of luma; `right` are those above the next four.
fn subblock(plane: &mut Plane, (x, y): (usize, usize), mode: u8, right: [u8; 4]) {
    let (above, left, corner) = edges::<4>(plane, (x, y));
    // From the lowest pixel to the left, over the corner, to the last one above and to the right.
    let edge: [u32; 13] = std::array::from_fn(|index| {
        u32::from(match index {
            0..=3 => left[3 - index],
            4 => corner,
            5..=8 => above[index - 5],
            _ => right[index - 9],
        })
    });
    let two = |at: usize| ((edge[at] + edge[at + 1] + 1) >> 1) as u8;
    // Centred on `at`.
    let three = |at: usize| ((edge[at - 1] + 2 * edge[at] + edge[at + 1] + 2) >> 2) as u8;
    let last_left = ((edge[1] + 3 * edge[0] + 2) >> 2) as u8;
    let last_right = ((edge[11] + 3 * edge[12] + 2) >> 2) as u8;
    let mean = (above.iter().chain(&left).map(|&value| u32::from(value)).sum::<u32>() + 4) >> 3;
    let pixel = |row: usize, column: usize| -> u8 {
        match mode {
            B_TM => (i32::from(left[row]) + i32::from(above[column]) - i32::from(corner)).clamp(0, 255) as u8,
            B_VE => three(5 + column),
            B_HE if row == 3 => last_left,
            B_HE => three(3 - row),
            B_LD if row + column == 6 => last_right,
            B_LD => three(6 + row + column),
            B_RD => three(4 + column - row),
            B_VR => match (row, column) {
                (3, 0) => three(2),
                (2, 0) => three(3),
                (1 | 3, _) => three(4 + column - row / 2),
                _ => two(4 + column - row / 2),
            },
            B_VL => match (row, column) {
                (2, 3) => three(10),
                (3, 3) => three(11),
                (0 | 2, _) => two(5 + column + row / 2),
                _ => three(6 + column + row / 2),
            },
            B_HD => match (row, column) {
                (0, 2) => three(5),
                (0, 3) => three(6),
                (_, 0 | 2) => two(3 - row + column / 2),
                _ => three(4 - row + column / 2),
            },
            B_HU => {
                let step = 2 * row + column;
                match step {
                    0 | 2 | 4 => two(2 - step / 2),
                    1 | 3 => three(2 - step / 2),
                    5 => last_left,
                    _ => left[3],
                }
            }
            _ => mean as u8,
        }
    };
    let pixels: [[u8; 4]; 4] = std::array::from_fn(|row| std::array::from_fn(|column| pixel(row, column)));
    for (row, pixels) in pixels.iter().enumerate() {
        plane.samples[(y + row) * plane.stride + x..][..4].copy_from_slice(pixels);
    }
}

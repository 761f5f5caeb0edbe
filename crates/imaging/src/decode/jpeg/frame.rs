//! The frame: components, how many frequencies of each are kept, and where its samples go.

use super::idct;
use crate::poll::Poll;
use crate::{Format, ImageError};

/// What the components mean.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    /// As Adobe writes it: 255 is no ink.
    Cmyk,
    Ycck,
}

/// Natural (row-major) position of each coefficient in zigzag order (T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Marks a coefficient that is read and dropped.
pub(super) const DROPPED: u8 = 255;

/// A coefficient that no scan has brought.
pub(super) const UNSEEN: u8 = 255;

pub(super) struct Component {
    pub id: u8,
    pub horizontal: usize,
    pub vertical: usize,
    pub quantisation: usize,
    /// Pixels that a block becomes across and down, 1, 2, 4 or 8 each.
    pub across: usize,
    pub down: usize,
    /// Zigzag index to position among the kept ones, or [`DROPPED`].
    pub kept: [u8; 64],
    /// Blocks in a row and rows of blocks, padded to whole MCUs.
    pub columns: usize,
    pub rows: usize,
    /// Blocks that a scan of this component alone holds.
    pub own_columns: usize,
    pub own_rows: usize,
    /// Samples, `columns × across` wide.
    pub samples: Vec<u8>,
    /// Gathered only: kept coefficients by block, and for every block which of its 64 are not zero yet: the
    /// refinement scans need to know that even of dropped ones.
    pub coefficients: Vec<i16>,
    pub nonzero: Vec<u64>,
    /// Progressive only: by zigzag index, how many of the lowest bits have not come yet; [`UNSEEN`] before the first.
    pub missing_bits: [u8; 64],
    /// Quantisation in force at the component's first scan.
    pub steps: Option<[u16; 64]>,
    pub prediction: i32,
}

impl Component {
    pub(super) fn stride(&self) -> usize {
        self.columns * self.across
    }

    /// Coefficients kept of a block.
    pub(super) fn kept_count(&self) -> usize {
        idct::frequencies(self.across).len() * idct::frequencies(self.down).len()
    }
}

pub(super) struct Frame {
    pub coding: Coding,
    pub width: u32,
    pub height: u32,
    pub out_width: u32,
    pub out_height: u32,
    pub colours: Colours,
    pub components: Vec<Component>,
    /// Largest sampling factors.
    pub horizontal: usize,
    pub vertical: usize,
    pub mcu_columns: usize,
    pub mcu_rows: usize,
    /// Pixels a side that a block of full sampling becomes.
    pub size: usize,
}

/// What the frame's marker says.
#[derive(Clone, Copy)]
pub(super) struct Coding {
    pub progressive: bool,
    pub arithmetic: bool,
}

impl Coding {
    /// Whether coefficients are gathered and transformed at the end, or each block as it comes.
    pub(super) fn gathers(self) -> bool {
        self.progressive || self.arithmetic
    }
}

impl Frame {
    pub(super) fn read(marker: u8, segment: &[u8], halvings: u32) -> Result<Self, ImageError> {
        let corrupt = |reason: String| ImageError::corrupt(Format::Jpeg, reason);
        let &[precision, h1, h0, w1, w0, count, ref specifications @ ..] = segment else {
            return Err(corrupt("its frame header is too short".into()));
        };
        let (height, width) = (
            u32::from(u16::from_be_bytes([h1, h0])),
            u32::from(u16::from_be_bytes([w1, w0])),
        );
        let specifications: Vec<&[u8]> = specifications.chunks_exact(3).take(usize::from(count)).collect();
        if specifications.len() != usize::from(count) || height == 0 || width == 0 {
            return Err(corrupt("its frame header is not complete".into()));
        }
        if !matches!(marker, 0xC0..=0xC2 | 0xC9 | 0xCA) || precision != 8 || !matches!(count, 1 | 3 | 4) {
            return Err(ImageError::unsupported(
                Format::Jpeg,
                format!(
                    "coding process {}, {precision} bits a sample, {count} components",
                    marker & 15
                ),
            ));
        }
        let factors = |s: &[u8]| (usize::from(s[1] >> 4), usize::from(s[1] & 15));
        let horizontal = specifications.iter().map(|s| factors(s).0).max().unwrap_or(1);
        let vertical = specifications.iter().map(|s| factors(s).1).max().unwrap_or(1);
        let size = 8usize >> halvings;
        let mcu_columns = (width as usize).div_ceil(8 * horizontal.max(1));
        let mcu_rows = (height as usize).div_ceil(8 * vertical.max(1));
        let mut components = Vec::with_capacity(specifications.len());
        for specification in &specifications {
            let (h, v) = factors(specification);
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) || specification[2] > 3 {
                return Err(corrupt(format!(
                    "a component has sampling factors {h}x{v} and quantisation table {}",
                    specification[2]
                )));
            }
            // At a reduced size a component with fewer samples keeps more frequencies, so that less has to be
            // interpolated: at half size the chroma of 4:2:0 is transformed at its full resolution and needs no
            // upsampling at all.
            let own_size = |most: usize, factor: usize| (size * most).div_ceil(factor).next_power_of_two().min(8);
            let (across, down) = (own_size(horizontal, h), own_size(vertical, v));
            let own_width = (width as usize * h).div_ceil(horizontal);
            let own_height = (height as usize * v).div_ceil(vertical);
            components.push(Component {
                id: specification[0],
                horizontal: h,
                vertical: v,
                quantisation: usize::from(specification[2]),
                across,
                down,
                kept: kept(across, down),
                columns: mcu_columns * h,
                rows: mcu_rows * v,
                own_columns: own_width.div_ceil(8),
                own_rows: own_height.div_ceil(8),
                samples: Vec::new(),
                coefficients: Vec::new(),
                nonzero: Vec::new(),
                missing_bits: [UNSEEN; 64],
                steps: None,
                prediction: 0,
            });
        }
        Ok(Self {
            coding: Coding {
                progressive: matches!(marker, 0xC2 | 0xCA),
                arithmetic: matches!(marker, 0xC9 | 0xCA),
            },
            width,
            height,
            out_width: width.div_ceil(1 << halvings),
            out_height: height.div_ceil(1 << halvings),
            colours: Colours::Grey,
            components,
            horizontal,
            vertical,
            mcu_columns,
            mcu_rows,
            size,
        })
    }

    /// Most bytes held at once: samples, coefficients, result, and the result turned.
    pub(super) fn memory(&self, turned: bool) -> u64 {
        let planes: u64 = self
            .components
            .iter()
            .map(|c| {
                let (samples, kept) = ((c.across * c.down) as u64, c.kept_count() as u64);
                (c.columns * c.rows) as u64 * (samples + if self.coding.gathers() { 2 * kept + 8 } else { 0 })
            })
            .sum();
        let result = 3 * u64::from(self.out_width) * u64::from(self.out_height);
        (planes + result).max(if turned { 2 * result } else { 0 }) + crate::header::FIXED_BYTES
    }

    pub(super) fn allocate(mut self) -> Result<Self, ImageError> {
        for component in &mut self.components {
            let blocks = component.columns * component.rows;
            if self.coding.gathers() {
                component.coefficients = crate::buffers::zeroed(blocks * component.kept_count())?;
                component.nonzero = crate::buffers::zeroed(blocks)?;
            }
            component.samples = crate::buffers::zeroed(blocks * component.across * component.down)?;
        }
        Ok(self)
    }

    /// Whether every component has come in some scan.
    pub(super) fn every_component_came(&self) -> bool {
        self.components.iter().all(|component| component.steps.is_some())
    }

    /// Whether no scan is missing that could make the picture better: every coefficient has come to its last bit.
    pub(super) fn every_bit_came(&self) -> bool {
        !self.coding.progressive
            || self
                .components
                .iter()
                .all(|component| component.missing_bits == [0; 64])
    }

    /// Transforms the blocks of gathered coefficients once all scans are in, and lets go of the coefficients.
    pub(super) fn finish_blocks(&mut self, poll: &Poll) -> Result<(), ImageError> {
        if !self.coding.gathers() {
            return Ok(());
        }
        for component in &mut self.components {
            let coefficients = std::mem::take(&mut component.coefficients);
            component.nonzero = Vec::new();
            let Some(steps) = component.steps else { continue };
            let steps = kept_steps(&steps, &component.kept);
            let kept = component.kept_count();
            let stride = component.stride();
            let mut block = [0i32; 64];
            for (row, coefficients) in coefficients.chunks_exact(kept * component.columns).enumerate() {
                poll.check()?;
                for (column, quantised) in coefficients.chunks_exact(kept).enumerate() {
                    for ((value, &quantised), &step) in block.iter_mut().zip(quantised).zip(&steps) {
                        *value = i32::from(quantised) * step;
                    }
                    let start = row * component.down * stride + column * component.across;
                    idct::block(
                        (component.across, component.down),
                        &block,
                        &mut component.samples[start..],
                        stride,
                    );
                }
            }
        }
        Ok(())
    }
}

/// Which zigzag indices count for a block of `down × across` pixels, and where they are kept.
fn kept(across: usize, down: usize) -> [u8; 64] {
    let (columns, rows) = (idct::frequencies(across), idct::frequencies(down));
    ZIGZAG.map(|natural| {
        let place =
            |frequencies: &[usize], frequency: u8| frequencies.iter().position(|&f| f == usize::from(frequency));
        match (place(rows, natural / 8), place(columns, natural % 8)) {
            (Some(row), Some(column)) => (row * columns.len() + column) as u8,
            _ => DROPPED,
        }
    })
}

/// Quantisation steps (given in zigzag order) by kept position.
pub(super) fn kept_steps(steps: &[u16; 64], kept: &[u8; 64]) -> [i32; 64] {
    let mut by_position = [0; 64];
    for (&step, &position) in steps.iter().zip(kept) {
        if position != DROPPED {
            by_position[usize::from(position)] = i32::from(step);
        }
    }
    by_position
}

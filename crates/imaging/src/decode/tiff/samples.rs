//! Samples of any depth and meaning to RGB.

use crate::decode::{jpeg, matte};
use crate::header::tiff::Layout;
use crate::{Format, ImageError, buffers};

/// An unpacked strip or tile: all samples together, or a plane for each.
pub(super) struct Chunk<'a> {
    pub planes: &'a [Vec<u8>],
    pub columns: usize,
    pub rows: usize,
    pub row_bytes: usize,
}

/// Turns rows of a chunk into RGB.
pub(super) struct Converter<'a> {
    layout: &'a Layout<'a>,
    matte: [u8; 3],
    palette: Vec<[u8; 3]>,
    /// Least and greatest value of samples whose type does not bound them.
    range: Option<(f64, f64)>,
    /// One row of each sample that is used, 8 bits each.
    channels: Vec<Vec<u8>>,
}

impl<'a> Converter<'a> {
    pub(super) fn new(layout: &'a Layout<'a>, matte: [u8; 3]) -> Result<Self, ImageError> {
        let used = layout.colour_samples() + u16::from(layout.alpha().is_some());
        let columns = layout.chunk.0 as usize;
        Ok(Self {
            layout,
            matte,
            palette: palette(layout)?,
            range: None,
            channels: (0..used).map(|_| buffers::zeroed(columns)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the values must be known before one of them can be shown: floating-point,
    /// signed, or of 32 bits and more.
    pub(super) fn needs_range(&self) -> bool {
        matches!(self.layout.sample_format, 2 | 3) || self.layout.bits > 16
    }

    pub(super) fn widen_range(&mut self, chunk: &Chunk) -> Result<(), ImageError> {
        let colours = usize::from(self.layout.colour_samples());
        let (mut least, mut most) = self.range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        for y in 0..chunk.rows {
            for sample in 0..colours {
                for value in self.values(chunk, y, sample).filter(|value| value.is_finite()) {
                    least = least.min(value);
                    most = most.max(value);
                }
            }
        }
        self.range = Some((least, most));
        Ok(())
    }

    /// Row `y` of a chunk as RGB.
    pub(super) fn row(&mut self, chunk: &Chunk, y: usize, target: &mut [u8]) {
        let (target, _) = target.as_chunks_mut::<3>();
        if self.layout.photometric == 6 && self.layout.subsampling != (1, 1) {
            return self.subsampled_row(chunk, y, target);
        }
        let mut channels = std::mem::take(&mut self.channels);
        for (sample, channel) in channels.iter_mut().enumerate() {
            self.levels(chunk, y, sample, channel);
        }
        let colours = usize::from(self.layout.colour_samples());
        let (colour, alpha) = channels.split_at(colours);
        match (self.layout.photometric, colour) {
            (3, [index, ..]) => {
                for (to, &index) in target.iter_mut().zip(index) {
                    *to = self.palette.get(usize::from(index)).copied().unwrap_or([0; 3]);
                }
            }
            (photometric, [grey]) => {
                let inverted = if photometric == 0 { 255 } else { 0 };
                for (to, &level) in target.iter_mut().zip(grey) {
                    *to = [level ^ inverted; 3];
                }
            }
            (photometric, [a, b, c, rest @ ..]) => {
                let black = rest.first();
                for (x, (((to, &a), &b), &c)) in target.iter_mut().zip(a).zip(b).zip(c).enumerate() {
                    *to = match (photometric, black) {
                        (6, _) => jpeg::rgb(a, b, c),
                        (5, Some(black)) => [a, b, c].map(|ink| jpeg::paper(255 - ink, 255 - black[x])),
                        _ => [a, b, c],
                    };
                }
            }
            _ => {}
        }
        if let [alpha] = alpha {
            let premultiplied = self.layout.alpha() == Some(true);
            for (to, &alpha) in target.iter_mut().zip(alpha) {
                for (value, &matte) in to.iter_mut().zip(&self.matte) {
                    *value = if premultiplied {
                        value.saturating_add(matte::over(0, matte, alpha))
                    } else {
                        matte::over(*value, matte, alpha)
                    };
                }
            }
        }
        self.channels = channels;
    }

    /// YCbCr in blocks: the lumas of some columns and rows, then their one Cb and one Cr.
    fn subsampled_row(&self, chunk: &Chunk, y: usize, target: &mut [[u8; 3]]) {
        let (across, down) = (self.layout.subsampling.0 as usize, self.layout.subsampling.1 as usize);
        let size = across * down + 2;
        let line = &chunk.planes[0][y / down * chunk.row_bytes..][..chunk.row_bytes];
        for (x, to) in target.iter_mut().enumerate().take(chunk.columns) {
            let block = &line[x / across * size..][..size];
            *to = jpeg::rgb(block[y % down * across + x % across], block[size - 2], block[size - 1]);
        }
    }

    /// The bytes of row `y` that hold a sample, its place among the samples of a pixel there, and their number.
    fn place<'c>(&self, chunk: &'c Chunk, y: usize, sample: usize) -> (&'c [u8], usize, usize) {
        let (plane, first, step) = if self.layout.planar {
            (sample, 0, 1)
        } else {
            (0, sample, usize::from(self.layout.samples))
        };
        let row = &chunk.planes[plane][y * chunk.row_bytes..][..chunk.row_bytes];
        (row, first, step)
    }

    /// One sample of a row at 8 bits; of palettes, the index.
    fn levels(&self, chunk: &Chunk, y: usize, sample: usize, target: &mut [u8]) {
        let (row, first, step) = self.place(chunk, y, sample);
        let bits = usize::from(self.layout.bits);
        if self.needs_range() {
            let scale = Scale::of(self.range);
            for (to, value) in target.iter_mut().zip(self.values(chunk, y, sample)) {
                *to = scale.level(value);
            }
            return;
        }
        match bits {
            8 => {
                for (to, from) in target.iter_mut().zip(row[first..].iter().step_by(step)) {
                    *to = *from;
                }
            }
            16 => {
                // Samples of 16 bits keep their upper 8.
                let high = usize::from(!self.layout.big_endian);
                for (to, from) in target.iter_mut().zip(row[2 * first + high..].iter().step_by(2 * step)) {
                    *to = *from;
                }
            }
            _ => {
                let most = (1u32 << bits) - 1;
                let is_index = self.layout.photometric == 3;
                for (x, to) in target.iter_mut().enumerate() {
                    let start = (x * step + first) * bits;
                    let value = (start..start + bits).fold(0u32, |value, bit| {
                        value << 1 | u32::from(row[bit / 8] >> (7 - bit % 8) & 1)
                    });
                    *to = match bits {
                        _ if is_index => value as u8,
                        1..8 => (value * 255 / most) as u8,
                        _ => (value >> (bits - 8)) as u8,
                    };
                }
            }
        }
    }

    /// One sample of a row as numbers.
    fn values<'c>(&self, chunk: &'c Chunk, y: usize, sample: usize) -> impl Iterator<Item = f64> + use<'c> {
        let (row, first, step) = self.place(chunk, y, sample);
        let (size, format) = (usize::from(self.layout.bits).div_ceil(8), self.layout.sample_format);
        let big_endian = self.layout.big_endian;
        let samples = row.get(first * size..).unwrap_or(&[]);
        samples.chunks(step * size).map(move |pixel| {
            let mut bytes = [0u8; 8];
            let length = size.min(pixel.len());
            for (index, &byte) in pixel[..length].iter().enumerate() {
                // Left-aligned, the most significant byte first.
                bytes[if big_endian { index } else { length - 1 - index }] = byte;
            }
            let unsigned = u64::from_be_bytes(bytes);
            match (format, size) {
                (3, 2) => half((unsigned >> 48) as u16),
                (3, 4) => f64::from(f32::from_bits((unsigned >> 32) as u32)),
                (3, _) => f64::from_bits(unsigned),
                (2, _) => (unsigned.cast_signed() >> (64 - 8 * size)) as f64,
                _ => (unsigned >> (64 - 8 * size)) as f64,
            }
        })
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * (-24f64).exp2(),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * f64::from(exponent - 25).exp2(),
    };
    if bits >> 15 == 0 { size } else { -size }
}

/// What values without bounds mean. Nothing in the file says it; these are the two conventions there are, and else the
/// whole range is shown.
enum Scale {
    /// 0 to 1.
    Unit,
    /// 0 to 255.
    Bytes,
    Range(f64, f64),
}

impl Scale {
    fn of(range: Option<(f64, f64)>) -> Self {
        match range {
            Some((least, most)) if least >= 0.0 && most <= 1.0 => Scale::Unit,
            Some((least, most)) if least >= 0.0 && most <= 255.0 => Scale::Bytes,
            Some((least, most)) if least < most => Scale::Range(least, most),
            _ => Scale::Bytes,
        }
    }

    fn level(&self, value: f64) -> u8 {
        // `as` saturates, and takes what is not a number for 0.
        match *self {
            Scale::Unit => (value * 255.0).round() as u8,
            Scale::Bytes => value.round() as u8,
            Scale::Range(least, most) => ((value - least) / (most - least) * 255.0).round() as u8,
        }
    }
}

/// Red, green and blue of all colours, one after another, 16 bits each.
fn palette(layout: &Layout) -> Result<Vec<[u8; 3]>, ImageError> {
    let Some(map) = layout.colour_map.filter(|_| layout.photometric == 3) else {
        return Ok(Vec::new());
    };
    let count = 1u64 << layout.bits.min(8);
    let entry = |channel: u64, index: u64| map.number(channel * count + index);
    let entries = (0..3).flat_map(|channel| (0..count).map(move |index| (channel, index)));
    let values: Option<Vec<u64>> = entries.map(|(channel, index)| entry(channel, index)).collect();
    let values = values.ok_or_else(|| ImageError::corrupt(Format::Tiff, "its palette is not complete"))?;
    // Old writers gave 8 bits.
    let shift = if values.iter().all(|&value| value < 256) { 0 } else { 8 };
    let level = |channel: u64, index: u64| (values[(channel * count + index) as usize] >> shift) as u8;
    Ok((0..count)
        .map(|index| [0, 1, 2].map(|channel| level(channel, index)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_ieees() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x0001, 2f64.powi(-24)),
            (0x7BFF, 65504.0),
            (0, 0.0),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7C01).is_nan() && half(0xFC00) == f64::NEG_INFINITY);
    }
}

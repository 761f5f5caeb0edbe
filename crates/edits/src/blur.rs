//! Gaussian blur in time that does not depend on its radius.
//!
//! Three passes of an *extended box filter* along each axis: a box of odd width plus one fractional pixel at each end,
//! which gives every standard deviation exactly, not only those of whole boxes (Gwosdek, Grewenig, Bruhn, Weickert,
//! "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", SSVM 2011, section 3). Integer
//! arithmetic on 8.8 fixed-point values, so that every machine gets the same pixels.

use crate::EditError;
use crate::canvas::Canvas;
use imaging::buffers;

const PASSES: usize = 3;
/// Bytes of a row that the vertical passes take along together, so that a cache line is used whole.
const STRIP: usize = 96;
const WEIGHT_BITS: u32 = 24;

/// One extended box: `radius` whole pixels to each side at `whole`, one more at `edge`; the weights are in units of
/// 2⁻²⁴ and sum to at most 1.
struct ExtendedBox {
    radius: usize,
    whole: u64,
    edge: u64,
}

impl ExtendedBox {
    /// The box whose `PASSES`-fold repetition has the variance `sigma²`.
    fn for_sigma(sigma: f64) -> Self {
        let variance = sigma * sigma / PASSES as f64;
        let radius = ((((12.0 * variance + 1.0).sqrt() - 1.0) / 2.0) as usize).min(1 << 14);
        let r = radius as f64;
        let edge = (2.0 * r + 1.0) * (r * (r + 1.0) - 3.0 * variance) / (6.0 * (variance - (r + 1.0) * (r + 1.0)));
        let one = (1_u64 << WEIGHT_BITS) as f64;
        let whole = (one / (2.0 * (edge + r) + 1.0)) as u64;
        // What rounding took from the whole pixels goes to the two edges, so that flat areas keep their value.
        let edge = ((1_u64 << WEIGHT_BITS) - whole * (2 * radius as u64 + 1)) / 2;
        Self { radius, whole, edge }
    }

    /// Filters `lanes` interleaved lines of equal length from `source` to `target`; the ends are continued.
    fn pass(&self, source: &[u16], target: &mut [u16], lanes: usize) {
        let last = source.len() / lanes - 1;
        let half = 1_u64 << (WEIGHT_BITS - 1);
        let value = |index: usize, lane: usize| u64::from(source[index.min(last) * lanes + lane]);
        for lane in 0..lanes {
            let mut sum = (self.radius as u64 + 1) * value(0, lane);
            sum += (1..=self.radius).map(|index| value(index, lane)).sum::<u64>();
            for index in 0..=last {
                let before = value(index.saturating_sub(self.radius + 1), lane);
                let after = value(index + self.radius + 1, lane);
                target[index * lanes + lane] =
                    ((sum * self.whole + (before + after) * self.edge + half) >> WEIGHT_BITS) as u16;
                sum = sum + after - value(index.saturating_sub(self.radius), lane);
            }
        }
    }
}

/// Blurs in place; `sigma` in pixels. Nothing happens below 0.05, where 8-bit pixels would not change.
pub(super) fn gaussian(canvas: &mut Canvas, sigma: f64) -> Result<(), EditError> {
    if sigma.is_nan() || sigma < 0.05 {
        return Ok(());
    }
    let filter = ExtendedBox::for_sigma(sigma);
    let row_bytes = 3 * canvas.width;
    let longest = row_bytes.max(canvas.height * STRIP.min(row_bytes));
    let mut line: Vec<u16> = buffers::zeroed(longest)?;
    let mut spare: Vec<u16> = buffers::zeroed(longest)?;
    for y in 0..canvas.height {
        if canvas.stops_at(y) {
            return Ok(());
        }
        let row = canvas.row_mut(y);
        let (line, spare) = (&mut line[..row_bytes], &mut spare[..row_bytes]);
        widen(row, line);
        filter_line(&filter, line, spare, 3);
        narrow(line, row);
    }
    for start in (0..row_bytes).step_by(STRIP) {
        // A strip of a tall picture is a million pixels and more.
        if canvas.poll.stopped() {
            return Ok(());
        }
        let lanes = STRIP.min(row_bytes - start);
        let (line, spare) = (&mut line[..lanes * canvas.height], &mut spare[..lanes * canvas.height]);
        for (y, part) in line.chunks_exact_mut(lanes).enumerate() {
            widen(&canvas.row(y)[start..start + lanes], part);
        }
        filter_line(&filter, line, spare, lanes);
        for (y, part) in line.chunks_exact(lanes).enumerate() {
            narrow(part, &mut canvas.row_mut(y)[start..start + lanes]);
        }
    }
    Ok(())
}

fn filter_line(filter: &ExtendedBox, line: &mut [u16], spare: &mut [u16], lanes: usize) {
    for _ in 0..PASSES {
        filter.pass(line, spare, lanes);
        line.copy_from_slice(spare);
    }
}

fn widen(bytes: &[u8], values: &mut [u16]) {
    for (value, &byte) in values.iter_mut().zip(bytes) {
        *value = u16::from(byte) << 8;
    }
}

fn narrow(values: &[u16], bytes: &mut [u8]) {
    for (byte, &value) in bytes.iter_mut().zip(values) {
        *byte = (value.saturating_add(0x80) >> 8) as u8;
    }
}

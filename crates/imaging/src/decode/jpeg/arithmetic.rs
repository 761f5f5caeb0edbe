//! Arithmetic-coded scans (ITU-T T.81, annex D; the models of F.1.4 and G.1.3).

use super::frame::{DROPPED, Frame};
use super::marker::next_marker;
use super::tables::{Band, Tables};
use crate::poll::Poll;
use crate::{Format, ImageError};

/// T.81, table D.3: Qe, next state after the less and after the more probable symbol, and whether the sense switches.
#[rustfmt::skip]
const STATES: [(u16, u8, u8, bool); 114] = [
    (0x5A1D, 1, 1, true), (0x2586, 14, 2, false), (0x1114, 16, 3, false), (0x080B, 18, 4, false),
    (0x03D8, 20, 5, false), (0x01DA, 23, 6, false), (0x00E5, 25, 7, false), (0x006F, 28, 8, false),
    (0x0036, 30, 9, false), (0x001A, 33, 10, false), (0x000D, 35, 11, false), (0x0006, 9, 12, false),
    (0x0003, 10, 13, false), (0x0001, 12, 13, false), (0x5A7F, 15, 15, true), (0x3F25, 36, 16, false),
    (0x2CF2, 38, 17, false), (0x207C, 39, 18, false), (0x17B9, 40, 19, false), (0x1182, 42, 20, false),
    (0x0CEF, 43, 21, false), (0x09A1, 45, 22, false), (0x072F, 46, 23, false), (0x055C, 48, 24, false),
    (0x0406, 49, 25, false), (0x0303, 51, 26, false), (0x0240, 52, 27, false), (0x01B1, 54, 28, false),
    (0x0144, 56, 29, false), (0x00F5, 57, 30, false), (0x00B7, 59, 31, false), (0x008A, 60, 32, false),
    (0x0068, 62, 33, false), (0x004E, 63, 34, false), (0x003B, 32, 35, false), (0x002C, 33, 9, false),
    (0x5AE1, 37, 37, true), (0x484C, 64, 38, false), (0x3A0D, 65, 39, false), (0x2EF1, 67, 40, false),
    (0x261F, 68, 41, false), (0x1F33, 69, 42, false), (0x19A8, 70, 43, false), (0x1518, 72, 44, false),
    (0x1177, 73, 45, false), (0x0E74, 74, 46, false), (0x0BFB, 75, 47, false), (0x09F8, 77, 48, false),
    (0x0861, 78, 49, false), (0x0706, 79, 50, false), (0x05CD, 48, 51, false), (0x04DE, 50, 52, false),
    (0x040F, 50, 53, false), (0x0363, 51, 54, false), (0x02D4, 52, 55, false), (0x025C, 53, 56, false),
    (0x01F8, 54, 57, false), (0x01A4, 55, 58, false), (0x0160, 56, 59, false), (0x0125, 57, 60, false),
    (0x00F6, 58, 61, false), (0x00CB, 59, 62, false), (0x00AB, 61, 63, false), (0x008F, 61, 32, false),
    (0x5B12, 65, 65, true), (0x4D04, 80, 66, false), (0x412C, 81, 67, false), (0x37D8, 82, 68, false),
    (0x2FE8, 83, 69, false), (0x293C, 84, 70, false), (0x2379, 86, 71, false), (0x1EDF, 87, 72, false),
    (0x1AA9, 87, 73, false), (0x174E, 72, 74, false), (0x1424, 72, 75, false), (0x119C, 74, 76, false),
    (0x0F6B, 74, 77, false), (0x0D51, 75, 78, false), (0x0BB6, 77, 79, false), (0x0A40, 77, 48, false),
    (0x5832, 80, 81, true), (0x4D1C, 88, 82, false), (0x438E, 89, 83, false), (0x3BDD, 90, 84, false),
    (0x34EE, 91, 85, false), (0x2EAE, 92, 86, false), (0x299A, 93, 87, false), (0x2516, 86, 71, false),
    (0x5570, 88, 89, true), (0x4CA9, 95, 90, false), (0x44D9, 96, 91, false), (0x3E22, 97, 92, false),
    (0x3824, 99, 93, false), (0x32B4, 99, 94, false), (0x2E17, 93, 86, false), (0x56A8, 95, 96, true),
    (0x4F46, 101, 97, false), (0x47E5, 102, 98, false), (0x41CF, 103, 99, false), (0x3C3D, 104, 100, false),
    (0x375E, 99, 93, false), (0x5231, 105, 102, false), (0x4C0F, 106, 103, false), (0x4639, 107, 104, false),
    (0x415E, 103, 99, false), (0x5627, 105, 106, true), (0x50E7, 108, 107, false), (0x4B85, 109, 103, false),
    (0x5597, 110, 109, false), (0x504F, 111, 107, false), (0x5A10, 110, 111, true), (0x5522, 112, 109, false),
    (0x59EB, 112, 111, true),
    // The sign and refinement bits: one half each way, for ever.
    (0x5A1D, 113, 113, false),
];

/// Where the state that never changes is.
const EVEN: u8 = 113;

/// One statistics bin: state in the lower seven bits, the more probable symbol in the upper one.
type Bin = u8;

const DC_BINS: usize = 64;
const AC_BINS: usize = 256;

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    /// `Cx` in the upper half, new bits in the lower.
    code: u32,
    interval: u32,
    /// Bits left before the next byte.
    count: u32,
    /// Bytes given that are not there. A decoder reads ahead of what it needs, and encoders leave final zeros out.
    invented: u64,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        let mut decoder = Self {
            bytes,
            at,
            code: 0,
            interval: 0x1_0000,
            count: 0,
            invented: 0,
        };
        decoder.byte_in();
        decoder.code <<= 8;
        decoder.byte_in();
        decoder.code <<= 8;
        decoder
    }

    /// D.2.6; at a marker zeros follow.
    fn byte_in(&mut self) {
        let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
            (Some(0xFF), Some(0)) => {
                self.at += 2;
                0xFF
            }
            (Some(0xFF), _) | (None, _) => {
                self.invented += 1;
                0
            }
            (Some(&byte), _) => {
                self.at += 1;
                byte
            }
        };
        self.code += u32::from(byte) << 8;
    }

    /// D.2.4: the next decision, by the statistics of `bin`.
    #[inline]
    fn decide(&mut self, bin: &mut Bin) -> bool {
        let (estimate, after_less, after_more, switches) = STATES[usize::from(*bin & 0x7F)];
        let estimate = u32::from(estimate);
        let likely = *bin & 0x80;
        self.interval -= estimate;
        let upper = (self.code >> 16) >= self.interval;
        if !upper && self.interval >= 0x8000 {
            return likely != 0;
        }
        // The larger part of the interval is the more probable symbol's, whichever end it lies at.
        let is_less = upper == (self.interval >= estimate);
        if upper {
            self.code -= self.interval << 16;
            self.interval = estimate;
        }
        let decision = if is_less {
            *bin = after_less | (if switches { likely ^ 0x80 } else { likely });
            likely == 0
        } else {
            *bin = after_more | likely;
            likely != 0
        };
        loop {
            if self.count == 0 {
                self.byte_in();
                self.count = 8;
            }
            self.interval <<= 1;
            self.code <<= 1;
            self.count -= 1;
            if self.interval >= 0x8000 {
                return decision;
            }
        }
    }

    fn even(&mut self) -> bool {
        self.decide(&mut { EVEN })
    }

    /// The highest bit of a magnitude, from `most` up: each bin from `at` on asks whether there is a higher one. Gives
    /// the bit and the bin that said no.
    fn most_significant(&mut self, bins: &mut [Bin], mut at: usize, mut most: i32) -> Option<(i32, usize)> {
        while self.decide(bins.get_mut(at)?) {
            most <<= 1;
            if most == 0x8000 {
                return None;
            }
            at += 1;
        }
        Some((most, at))
    }

    /// The bits below the highest, each by the bin 14 behind the one that found it.
    fn lower_bits(&mut self, bins: &mut [Bin], at: usize, most: i32) -> Option<i32> {
        let (mut value, mut bit) = (most, most >> 1);
        while bit != 0 {
            if self.decide(bins.get_mut(at + 14)?) {
                value |= bit;
            }
            bit >>= 1;
        }
        Some(value)
    }
}

struct Statistics {
    dc: [[Bin; DC_BINS]; 4],
    ac: [[Bin; AC_BINS]; 4],
    /// By component: which of the five first DC contexts the last difference chose, times 4.
    context: Vec<usize>,
}

impl Statistics {
    fn new(components: usize) -> Self {
        Self {
            dc: [[0; DC_BINS]; 4],
            ac: [[0; AC_BINS]; 4],
            context: vec![0; components],
        }
    }
}

/// Decodes a scan of `members` (component and its numbers of DC and AC statistics), `extent` MCUs wide and high, whose
/// data start at the given position; gives the position behind them.
pub(super) fn decode(
    frame: &mut Frame,
    tables: &Tables,
    members: &[(usize, (usize, usize))],
    extent: (usize, usize),
    band: Band,
    (bytes, start): (&[u8], usize),
    poll: &Poll,
) -> Result<usize, ImageError> {
    let corrupt = || ImageError::corrupt(Format::Jpeg, "the data of an arithmetic-coded scan are not valid");
    if members.iter().any(|&(_, (dc, ac))| dc > 3 || ac > 3) {
        return Err(corrupt());
    }
    let mut decoder = Decoder::new(bytes, start);
    let mut statistics = Statistics::new(frame.components.len());
    let mut until_restart = tables.restart_interval;
    let alone = members.len() == 1;
    for row in 0..extent.1 {
        poll.check()?;
        // A marker may come early, since final zeros are left out; but nothing is left out of a
        // whole row of the picture.
        let invented = decoder.invented;
        for column in 0..extent.0 {
            if tables.restart_interval > 0 {
                if until_restart == 0 {
                    let (marker, behind) = next_marker(bytes, decoder.at).ok_or_else(|| truncated(bytes))?;
                    if !matches!(marker, 0xD0..=0xD7) {
                        return Err(corrupt());
                    }
                    decoder = Decoder::new(bytes, behind);
                    statistics = Statistics::new(frame.components.len());
                    frame.components.iter_mut().for_each(|c| c.prediction = 0);
                    until_restart = tables.restart_interval;
                }
                until_restart -= 1;
            }
            for &(index, numbers) in members {
                let component = &frame.components[index];
                let (across, down) = if alone {
                    (1, 1)
                } else {
                    (component.horizontal, component.vertical)
                };
                let columns = component.columns;
                for v in 0..down {
                    for h in 0..across {
                        let at = (row * down + v) * columns + column * across + h;
                        block(frame, tables, &mut decoder, &mut statistics, (index, numbers), band, at)
                            .ok_or_else(corrupt)?;
                    }
                }
            }
        }
        if decoder.at + 1 >= bytes.len() && decoder.invented > invented + 2 && row + 1 < extent.1 {
            return Err(truncated(bytes));
        }
    }
    if decoder.at + 1 >= bytes.len() {
        // Without a marker behind it, nothing says that the scan is complete.
        return Err(truncated(bytes));
    }
    Ok(decoder.at)
}

fn truncated(bytes: &[u8]) -> ImageError {
    ImageError::truncated(Format::Jpeg, bytes)
}

/// One block: its DC coefficient where the band has it, then those of higher frequency.
fn block(
    frame: &mut Frame,
    tables: &Tables,
    decoder: &mut Decoder,
    statistics: &mut Statistics,
    (index, (dc, ac)): (usize, (usize, usize)),
    band: Band,
    at: usize,
) -> Option<()> {
    let component = &mut frame.components[index];
    let count = component.kept_count();
    let coefficients = component.coefficients.get_mut(at * count..(at + 1) * count)?;
    let nonzero = component.nonzero.get_mut(at)?;
    let kept = component.kept;
    let one = 1i32 << band.low;
    if band.first == 0 {
        if band.refines {
            if decoder.even() {
                coefficients[0] |= one as i16;
            }
        } else {
            let bins = &mut statistics.dc[dc];
            let context = &mut statistics.context[index];
            let difference = dc_difference(decoder, bins, context, tables.conditioning.dc[dc])?;
            component.prediction = component.prediction.wrapping_add(difference);
            coefficients[0] = (component.prediction << band.low) as i16;
        }
    }
    if band.last == 0 {
        return Some(());
    }
    let bins = &mut statistics.ac[ac];
    let threshold = usize::from(tables.conditioning.ac[ac]);
    let known = *nonzero;
    // No end of block is coded before the last coefficient that is known from earlier scans.
    let last_known = if band.refines {
        (1..=band.last).rev().find(|&k| known >> k & 1 != 0).unwrap_or(0)
    } else {
        0
    };
    let mut k = band.first.max(1);
    while k <= band.last {
        let mut at = 3 * (k - 1);
        if k > last_known && decoder.decide(&mut bins[at]) {
            break;
        }
        // Zeros up to the next coefficient that is coded.
        loop {
            if band.refines && known >> k & 1 != 0 {
                if decoder.decide(&mut bins[at + 2]) && kept[k] != DROPPED {
                    let value = &mut coefficients[usize::from(kept[k])];
                    *value = value.wrapping_add(if *value < 0 { -one } else { one } as i16);
                }
                break;
            }
            if decoder.decide(&mut bins[at + 1]) {
                let negative = decoder.even();
                let size = if band.refines {
                    1
                } else {
                    1 + ac_magnitude(decoder, bins, at + 2, k <= threshold)?
                };
                *nonzero |= 1 << k;
                if kept[k] != DROPPED {
                    coefficients[usize::from(kept[k])] = if negative { -size * one } else { size * one } as i16;
                }
                break;
            }
            at += 3;
            k += 1;
            if k > band.last {
                return None;
            }
        }
        k += 1;
    }
    Some(())
}

/// F.1.4.1 and figure F.4: the difference from the last DC coefficient, and the context of the next one.
fn dc_difference(
    decoder: &mut Decoder,
    bins: &mut [Bin; DC_BINS],
    context: &mut usize,
    (low, high): (u8, u8),
) -> Option<i32> {
    let at = *context;
    if !decoder.decide(&mut bins[at]) {
        *context = 0;
        return Some(0);
    }
    let negative = decoder.decide(&mut bins[at + 1]);
    let first = at + 2 + usize::from(negative);
    // The bins of larger magnitudes, X1 and on, are shared by all contexts.
    let (most, place) = if decoder.decide(&mut bins[first]) {
        decoder.most_significant(bins, 20, 1)?
    } else {
        (0, first)
    };
    let side = 4 * usize::from(negative);
    *context = if most < (1 << low) >> 1 {
        0
    } else if most > (1 << high) >> 1 {
        12 + side
    } else {
        4 + side
    };
    let size = 1 + decoder.lower_bits(bins, place, most)?;
    Some(if negative { -size } else { size })
}

/// F.1.4.2: the magnitude of a coefficient, less one. `at` is its SN/SP bin, which X1 follows.
fn ac_magnitude(decoder: &mut Decoder, bins: &mut [Bin; AC_BINS], at: usize, is_low: bool) -> Option<i32> {
    if !decoder.decide(&mut bins[at]) {
        return Some(0);
    }
    if !decoder.decide(&mut bins[at]) {
        return decoder.lower_bits(bins, at, 1);
    }
    let (most, place) = decoder.most_significant(bins, if is_low { 189 } else { 217 }, 2)?;
    decoder.lower_bits(bins, place, most)
}

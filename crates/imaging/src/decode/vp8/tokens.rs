//! Coefficients (RFC 6386, sections 13 and 14.1).

use super::bits::Bits;
use super::tables::{AC_STEPS, DC_STEPS, TOKENS, UPDATES};
use super::transform;

pub(super) type Probabilities = [[[[u8; 11]; 3]; 8]; 4];

/// Band of each place; one more, which a full block looks at.
const BANDS: [usize; 17] = [0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0];
const ZIGZAG: [usize; 16] = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];
/// Probabilities of the extra bits of large values.
const LARGE: [&[u8]; 4] = [
    &[173, 148, 140],
    &[176, 155, 140, 135],
    &[180, 157, 141, 134, 130],
    &[254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129],
];

/// Where the block of luma's mean values is kept among a macroblock's.
const MEANS: usize = 24;

/// Quantisation steps (DC, others) of luma, of its means, and of chroma.
pub(super) struct Steps {
    luma: [i32; 2],
    means: [i32; 2],
    chroma: [i32; 2],
}

impl Steps {
    /// `changes` of the index for: luma's DC, the means' DC and AC, chroma's DC and AC.
    pub(super) fn new(index: i32, changes: [i32; 5]) -> Self {
        // The index is bounded before it is changed, and after.
        let place = |change: i32| (index.clamp(0, 127) + change).clamp(0, 127) as usize;
        Self {
            luma: [DC_STEPS[place(changes[0])], AC_STEPS[place(0)]],
            means: [
                DC_STEPS[place(changes[1])] * 2,
                (AC_STEPS[place(changes[2])] * 155 / 100).max(8),
            ],
            chroma: [DC_STEPS[place(changes[3])].min(132), AC_STEPS[place(changes[4])]],
        }
    }
}

/// Which of the neighbouring blocks have coefficients: four of luma, two each of chroma, and the means.
#[derive(Clone, Copy, Default)]
pub(super) struct Contexts {
    blocks: [bool; 8],
    means: bool,
}

impl Contexts {
    /// A macroblock without coefficients; one predicted by subblocks has no means, and leaves what was said of them.
    pub(super) fn skip(&mut self, has_means: bool) {
        self.blocks = [false; 8];
        if has_means {
            self.means = false;
        }
    }
}

pub(super) fn read_probabilities(bits: &mut Bits) -> Probabilities {
    let mut probabilities = TOKENS;
    for (kind, updates) in probabilities.iter_mut().zip(&UPDATES) {
        for (band, updates) in kind.iter_mut().zip(updates) {
            for (context, updates) in band.iter_mut().zip(updates) {
                for (probability, &update) in context.iter_mut().zip(updates) {
                    if bits.decide(update) {
                        *probability = bits.number(8) as u8;
                    }
                }
            }
        }
    }
    probabilities
}

/// Reads the coefficients of a macroblock: 16 blocks of luma, four of each chroma. `filled` says which of them have
/// any; the result, whether any of them has.
pub(super) fn read(
    bits: &mut Bits,
    probabilities: &Probabilities,
    steps: &Steps,
    has_means: bool,
    (above, left): (&mut Contexts, &mut Contexts),
    coefficients: &mut [[i32; 16]; 25],
    filled: &mut [bool; 25],
) -> bool {
    let mut first = 0;
    let mut kind = 3;
    if has_means {
        let context = usize::from(above.means) + usize::from(left.means);
        let end = block(
            bits,
            &probabilities[1],
            context,
            steps.means,
            0,
            &mut coefficients[MEANS],
        );
        above.means = end > 0;
        left.means = end > 0;
        (first, kind) = (1, 0);
        if end > 0 {
            let means = transform::means(&coefficients[MEANS]);
            for (block, mean) in means.into_iter().enumerate() {
                coefficients[block][0] = mean;
                filled[block] = mean != 0;
            }
        }
    }
    // Block, contexts above and to the left: luma first, then both chromas.
    let luma = (0..16).map(|at| (at, at % 4, at / 4));
    let chroma = (0..8).map(|at| (16 + at, 4 + at / 4 * 2 + at % 2, 4 + at / 4 * 2 + at % 4 / 2));
    for (at, x, y) in luma.chain(chroma) {
        let is_luma = at < 16;
        let (kind, first, steps) = if is_luma {
            (kind, first, steps.luma)
        } else {
            (2, 0, steps.chroma)
        };
        let context = usize::from(above.blocks[x]) + usize::from(left.blocks[y]);
        let end = block(bits, &probabilities[kind], context, steps, first, &mut coefficients[at]);
        let has = end > first;
        above.blocks[x] = has;
        left.blocks[y] = has;
        filled[at] |= has;
    }
    filled.contains(&true)
}

/// The coefficients of a block from place `first` on; gives the place behind the last one.
fn block(
    bits: &mut Bits,
    probabilities: &[[[u8; 11]; 3]; 8],
    context: usize,
    steps: [i32; 2],
    first: usize,
    target: &mut [i32; 16],
) -> usize {
    let mut at = first;
    let mut chances = &probabilities[BANDS[at]][context];
    while at < 16 {
        if !bits.decide(chances[0]) {
            return at;
        }
        while !bits.decide(chances[1]) {
            at += 1;
            if at == 16 {
                return 16;
            }
            chances = &probabilities[BANDS[at]][0];
        }
        let (value, context) = if bits.decide(chances[2]) {
            (large(bits, chances), 2)
        } else {
            (1, 1)
        };
        let value = if bits.flag() { -value } else { value };
        target[ZIGZAG[at]] = value * steps[usize::from(at > 0)];
        at += 1;
        chances = &probabilities[BANDS[at]][context];
    }
    16
}

/// A value of 2 or more.
fn large(bits: &mut Bits, chances: &[u8; 11]) -> i32 {
    if !bits.decide(chances[3]) {
        if !bits.decide(chances[4]) {
            return 2;
        }
        return 3 + i32::from(bits.decide(chances[5]));
    }
    if !bits.decide(chances[6]) {
        if !bits.decide(chances[7]) {
            return 5 + i32::from(bits.decide(159));
        }
        let high = i32::from(bits.decide(165));
        return 7 + 2 * high + i32::from(bits.decide(145));
    }
    let high = usize::from(bits.decide(chances[8]));
    let kind = 2 * high + usize::from(bits.decide(chances[9 + high]));
    let extra = LARGE[kind]
        .iter()
        .fold(0, |value, &chance| 2 * value + i32::from(bits.decide(chance)));
    3 + (8 << kind) + extra
}

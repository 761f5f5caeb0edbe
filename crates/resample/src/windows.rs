//! Pixels, and the weights of those that make another.

/// Red, green, blue.
pub type Pixel = [u8; 3];

/// Which pixels of a row make each pixel of a narrower or wider one: the first of them, and their weights.
#[derive(Debug, Default)]
pub struct Windows {
    pub(crate) spans: Vec<Span>,
    pub(crate) weights: Vec<i32>,
    /// The weights once more, as registers take them.
    pub(crate) quads: Vec<Quad>,
    pub(crate) fours: Vec<Four>,
}

#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) weights: std::ops::Range<usize>,
    /// None where a weight is too large to be cut in two.
    pub(crate) quads: std::ops::Range<usize>,
    /// None where a weight is too large to be cut in three.
    pub(crate) fours: std::ops::Range<usize>,
}

/// Four pixels' weights, cut in two so that each part is multiplied in 16 bits: weight = 2^[`LOW_BITS`] · high + low.
/// Two pixels' side by side, once for each colour; then the other two pixels'.
#[derive(Debug)]
pub(crate) struct Quad {
    pub(crate) high: [i16; 16],
    pub(crate) low: [i16; 16],
}

/// Bits of a weight's lower part.
pub(crate) const LOW_BITS: u32 = 11;

impl Quad {
    /// Of up to four weights; None where one is too large.
    fn new(weights: &[i32]) -> Option<Self> {
        let mut quad = Quad {
            high: [0; 16],
            low: [0; 16],
        };
        for (place, weight) in weights.iter().enumerate() {
            let high = i16::try_from(weight >> LOW_BITS).ok()?;
            let low = i16::try_from(weight & ((1 << LOW_BITS) - 1)).ok()?;
            for colour in 0..3 {
                let lane = place / 2 * 8 + colour * 2 + place % 2;
                (quad.high[lane], quad.low[lane]) = (high, low);
            }
        }
        Some(quad)
    }
}

/// Four pixels' weights, cut in three so that each part is multiplied in 8 bits, with its own sign: weight =
/// 2^16 · part 2 + 2^8 · part 1 + part 0. Four weights' parts are bytes of one number.
#[derive(Debug)]
pub(crate) struct Four {
    pub(crate) parts: [i32; 3],
}

impl Four {
    /// Of up to four weights; None where one is too large.
    fn new(weights: &[i32]) -> Option<Self> {
        let mut parts = [[0; 4]; 3];
        for (place, &weight) in weights.iter().enumerate() {
            let low = weight as i8;
            let rest = (i64::from(weight) - i64::from(low)) >> 8;
            let middle = rest as i8;
            let high = i8::try_from((rest - i64::from(middle)) >> 8).ok()?;
            for (part, value) in parts.iter_mut().zip([low, middle, high]) {
                part[place] = value as u8;
            }
        }
        Some(Four {
            parts: parts.map(i32::from_le_bytes),
        })
    }
}

impl Windows {
    /// No windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the window of the next pixel.
    pub fn push(&mut self, first: usize, weights: &[i32]) {
        let (from, quads, fours) = (self.weights.len(), self.quads.len(), self.fours.len());
        self.weights.extend_from_slice(weights);
        for four in weights.chunks(4) {
            let Some(quad) = Quad::new(four) else {
                self.quads.truncate(quads);
                break;
            };
            self.quads.push(quad);
        }
        for four in weights.chunks(4) {
            let Some(four) = Four::new(four) else {
                self.fours.truncate(fours);
                break;
            };
            self.fours.push(four);
        }
        self.spans.push(Span {
            first,
            weights: from..self.weights.len(),
            quads: quads..self.quads.len(),
            fours: fours..self.fours.len(),
        });
    }

    /// How many pixels there are windows of.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Rows that [`across`](crate::across) takes at once: each weight is loaded once for all of them.
pub const ROWS_AT_ONCE: usize = 4;

/// A sum that has half of 2^`BITS` in it already, divided by that and cut to a byte.
#[inline]
pub fn rounded<const BITS: u32>(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

//! Huffman codes and the bits they are read from (T.81, annexes C and F).

/// Codes up to this long are found in one look; longer ones are rare by construction.
const LOOK_AHEAD: u32 = 9;

pub(super) struct HuffmanTable {
    /// By the next `LOOK_AHEAD` bits: length in the upper byte, symbol in the lower; 0 for longer codes.
    fast: [u16; 1 << LOOK_AHEAD],
    /// By length: one past the largest code of that length, left-aligned to 16 bits, and what to add to a code to get
    /// the index of its symbol.
    limit: [u32; 18],
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// From the number of codes of each length 1–16 and the symbols in order of code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: [0; 1 << LOOK_AHEAD],
            limit: [0; 18],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            table.offset[length as usize] = index as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= LOOK_AHEAD {
                    let first = (code << (LOOK_AHEAD - length)) as usize;
                    let entry = (length as u16) << 8 | u16::from(*symbols.get(index)?);
                    table.fast[first..first + (1 << (LOOK_AHEAD - length))].fill(entry);
                }
                code += 1;
                index += 1;
            }
            table.limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        table.limit[17] = u32::MAX;
        Some(table)
    }
}

/// Entropy-coded bits: stuffed zero bytes are taken out, and at a marker the bits end.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    buffer: u64,
    available: u32,
    /// Bits given that are not there: after a marker zeros follow, as T.81 lets decoders do.
    invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            buffer: 0,
            available: 0,
            invented: 0,
        }
    }

    /// Position of the marker that ended the bits, or of the next unread byte.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Whether bits were used that the file does not hold.
    pub(super) fn ran_dry(&self) -> bool {
        self.invented > self.available
    }

    /// Starts anew behind a restart marker, which must be the next marker.
    pub(super) fn restart(&mut self) -> Option<()> {
        if self.ran_dry() {
            return None;
        }
        let (marker, behind) = super::marker::next_marker(self.bytes, self.at)?;
        if !matches!(marker, 0xD0..=0xD7) {
            return None;
        }
        *self = Self::new(self.bytes, behind);
        Some(())
    }

    /// Makes at least 32 bits available.
    #[inline(always)]
    fn refill(&mut self) {
        if self.available >= 32 {
            return;
        }
        if let Some(&[a, b, c, d]) = self
            .bytes
            .get(self.at..self.at + 4)
            .and_then(|four| <&[u8; 4]>::try_from(four).ok())
            && a != 0xFF
            && b != 0xFF
            && c != 0xFF
            && d != 0xFF
        {
            let word = u64::from(u32::from_be_bytes([a, b, c, d]));
            self.buffer |= word << (32 - self.available);
            self.available += 32;
            self.at += 4;
            return;
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.available <= 56 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    self.invented += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        self.buffer <<= count;
        self.available -= count;
    }

    /// The next symbol.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &HuffmanTable) -> Option<u8> {
        self.refill();
        let entry = table.fast[(self.buffer >> (64 - LOOK_AHEAD)) as usize];
        if entry != 0 {
            self.consume(u32::from(entry >> 8));
            return Some(entry as u8);
        }
        let code = (self.buffer >> 48) as u32;
        let mut length = LOOK_AHEAD as usize + 1;
        while code >= table.limit[length] {
            length += 1;
        }
        if length > 16 {
            return None;
        }
        let index = (code >> (16 - length)) as i32 + table.offset[length];
        self.consume(length as u32);
        table.symbols.get(index as usize).copied()
    }

    /// `count` ≤ 16 bits as a number.
    #[inline(always)]
    pub(super) fn number(&mut self, count: u32) -> i32 {
        if count == 0 {
            return 0;
        }
        self.refill();
        let value = (self.buffer >> (64 - count)) as i32;
        self.consume(count);
        value
    }

    /// Skips `count` ≤ 16 bits.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.refill();
        self.consume(count);
    }

    pub(super) fn bit(&mut self) -> bool {
        self.number(1) != 0
    }

    /// A signed value of `count` ≤ 15 bits (T.81, EXTEND).
    #[inline(always)]
    pub(super) fn signed(&mut self, count: u32) -> i32 {
        let value = self.number(count);
        if count > 0 && value < 1 << (count - 1) {
            value - (1 << count) + 1
        } else {
            value
        }
    }
}

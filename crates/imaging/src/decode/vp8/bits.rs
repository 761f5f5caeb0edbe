//! The boolean entropy decoder (RFC 6386, section 7).

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The bits that are looked at, left-aligned below `count` spare ones.
    value: u64,
    /// Bits of `value` beyond the eight that are compared.
    count: i32,
    range: u32,
    /// Bytes given that are not there.
    invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            value: 0,
            count: -8,
            range: 255,
            invented: 0,
        }
    }

    /// Whether more bits were used than the data hold; some encoders leave the last ones, all zero, out.
    pub(super) fn ran_dry(&self) -> bool {
        self.invented as i32 * 8 - (self.count + 8) > 16
    }

    #[cold]
    fn refill(&mut self) {
        while self.count <= 40 {
            let byte = match self.bytes.get(self.at) {
                Some(&byte) => {
                    self.at += 1;
                    byte
                }
                None => {
                    self.invented += 1;
                    0
                }
            };
            self.value = self.value << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next decision; `probability` ÷ 256 is that of false.
    #[inline(always)]
    pub(super) fn decide(&mut self, probability: u8) -> bool {
        if self.count < 0 {
            self.refill();
        }
        let split = 1 + (((self.range - 1) * u32::from(probability)) >> 8);
        let edge = u64::from(split) << self.count;
        let decision = self.value >= edge;
        if decision {
            self.range -= split;
            self.value -= edge;
        } else {
            self.range = split;
        }
        // Back to at least 128.
        let shift = self.range.leading_zeros() - 24;
        self.range <<= shift;
        self.count -= shift as i32;
        decision
    }

    pub(super) fn flag(&mut self) -> bool {
        self.decide(128)
    }

    /// A number of `count` bits, the highest first.
    pub(super) fn number(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |number, _| number << 1 | u32::from(self.flag()))
    }

    /// A flag, and if it is set a number and its sign; else 0.
    pub(super) fn optional(&mut self, count: u32) -> i32 {
        if !self.flag() {
            return 0;
        }
        let size = self.number(count) as i32;
        if self.flag() { -size } else { size }
    }
}

//! What the prefix (Huffman) codes of a lossless WebP stream will take in memory (RFC 9649, sections 4 to 6).
//!
//! A stream names the number of its code groups, up to 65,536, inside a compressed sub-image, and each group may have
//! five codes with tables of several KiB: some hundred kilobytes of file can ask the decoder for a gigabyte. So the
//! stream is walked up to its first pixel: the sub-images are read for their length and their largest group number, the
//! codes for the size of their tables. Nothing is kept.

/// Symbols of the five codes of a group: green and lengths, red, blue, alpha, distances.
const ALPHABETS: [usize; 5] = [280, 256, 256, 256, 40];
/// Order in which the lengths of the code-length code are stored.
const LENGTH_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// The decoder looks this many bits up in a table, and walks a tree for the rest.
const TABLE_BITS: usize = 10;
const TABLE_ENTRY: u64 = 4;
const TREE_NODE: u64 = 16;
/// A group's five codes without what they point to, three times over for a growing vector.
const GROUP: u64 = 3 * 5 * 64;

/// Upper bound, in bytes, of the prefix codes of the lossless stream in `bytes`. With `bare` the stream has no header
/// of its own (an alpha channel). A stream that breaks off counts as far as it goes: so does the decoder.
pub(super) fn memory(bytes: &[u8], width: u32, height: u32, bare: bool) -> u64 {
    let mut stream = Stream {
        bits: Bits { bytes, at: 0 },
        held: 0,
    };
    let _ = stream.walk(width, height, bare);
    stream.held
}

struct Stream<'a> {
    bits: Bits<'a>,
    held: u64,
}

impl Stream<'_> {
    fn walk(&mut self, mut width: u32, height: u32, bare: bool) -> Option<()> {
        if !bare {
            self.bits.skip(40)?;
        }
        let mut seen = [false; 4];
        while self.bits.take(1)? == 1 {
            let transform = self.bits.take(2)? as usize;
            if std::mem::replace(&mut seen[transform], true) {
                return None;
            }
            match transform {
                0 | 1 => {
                    let block = self.bits.take(3)? + 2;
                    self.sub_image(subsampled(width, block), subsampled(height, block))?;
                }
                2 => {}
                _ => {
                    let colours = self.bits.take(8)? + 1;
                    self.sub_image(colours, 1)?;
                    width = subsampled(
                        width,
                        match colours {
                            0..=2 => 3,
                            3..=4 => 2,
                            5..=16 => 1,
                            _ => 0,
                        },
                    );
                }
            }
        }
        let cache = self.colour_cache()?;
        let mut groups = 1;
        if self.bits.take(1)? == 1 {
            let block = self.bits.take(3)? + 2;
            groups = self.sub_image(subsampled(width, block), subsampled(height, block))? + 1;
        }
        for _ in 0..groups {
            self.group(cache, false)?;
        }
        Some(())
    }

    /// Symbols that the colour cache adds to the first alphabet.
    fn colour_cache(&mut self) -> Option<usize> {
        if self.bits.take(1)? == 0 {
            return Some(0);
        }
        let bits = self.bits.take(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// A group's five codes: for reading with them, or for their size alone.
    fn group(&mut self, cache: usize, for_reading: bool) -> Option<[Code; 5]> {
        self.held += GROUP;
        let mut codes = ALPHABETS.map(|_| Code::Single(0));
        for (index, (code, alphabet)) in codes.iter_mut().zip(ALPHABETS).enumerate() {
            *code = self.code(alphabet + if index == 0 { cache } else { 0 }, for_reading)?;
        }
        Some(codes)
    }

    /// Reads a sub-image to its end; gives the largest group number in it (red and green of a pixel), should it be the
    /// image of group numbers. Copies and cached colours repeat earlier pixels, so that only literal ones count.
    fn sub_image(&mut self, width: u32, height: u32) -> Option<u32> {
        let cache = self.colour_cache()?;
        let codes = self.group(cache, true)?;
        let mut left = u64::from(width) * u64::from(height);
        let mut largest = 0;
        while left > 0 {
            let start = self.bits.at;
            let symbol = codes[0].read(&mut self.bits)?;
            if symbol < 256 {
                let red = codes[1].read(&mut self.bits)?;
                codes[2].read(&mut self.bits)?;
                codes[3].read(&mut self.bits)?;
                largest = largest.max(u32::from(red) << 8 | u32::from(symbol));
                left -= 1;
            } else if symbol < 280 {
                let length = self.length(symbol - 256)?;
                let distance = codes[4].read(&mut self.bits)?;
                self.length(distance)?;
                left = left.saturating_sub(u64::from(length));
            } else {
                left -= 1;
            }
            // Codes of a single symbol take no bits: what took none once is the same to the end.
            if self.bits.at == start {
                break;
            }
        }
        Some(largest)
    }

    /// Value of a length or distance symbol, with its extra bits.
    fn length(&mut self, symbol: u16) -> Option<u32> {
        let symbol = u32::from(symbol);
        if symbol < 4 {
            return Some(symbol + 1);
        }
        let extra = (symbol - 2) >> 1;
        Some(((2 + (symbol & 1)) << extra) + self.bits.take(extra)? + 1)
    }

    fn code(&mut self, alphabet: usize, for_reading: bool) -> Option<Code> {
        if self.bits.take(1)? == 1 {
            let two = self.bits.take(1)? == 1;
            let wide = self.bits.take(1)?;
            let first = self.bits.take(1 + 7 * wide)? as u16;
            if !two {
                return Some(Code::Single(first));
            }
            let second = self.bits.take(8)? as u16;
            self.held += 3 * TREE_NODE + 2 * TABLE_ENTRY;
            return Some(Code::Pair(first, second));
        }
        let count = 4 + self.bits.take(4)? as usize;
        let mut lengths = [0u8; 19];
        for &symbol in &LENGTH_ORDER[..count] {
            lengths[symbol] = self.bits.take(3)? as u8;
        }
        let length_code = Code::canonical(&lengths)?;
        let mut left = if self.bits.take(1)? == 1 {
            let width = 2 + 2 * self.bits.take(3)?;
            2 + self.bits.take(width)? as usize
        } else {
            alphabet
        };
        let mut lengths = Vec::with_capacity(alphabet);
        let mut previous = 8;
        while lengths.len() < alphabet && left > 0 {
            left -= 1;
            let symbol = length_code.read(&mut self.bits)?;
            let (value, repeat) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => (previous, 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                _ => (0, 11 + self.bits.take(7)?),
            };
            if value != 0 {
                previous = value;
            }
            if lengths.len() + repeat as usize > alphabet {
                return None;
            }
            lengths.extend(std::iter::repeat_n(value, repeat as usize));
        }
        let longest = usize::from(lengths.iter().copied().max().unwrap_or(0));
        let beyond = lengths
            .iter()
            .filter(|&&length| usize::from(length) > TABLE_BITS)
            .count() as u64;
        self.held += (1 << longest.min(TABLE_BITS)) * TABLE_ENTRY + 2 * beyond * TREE_NODE;
        if for_reading {
            Code::canonical(&lengths)
        } else {
            Some(Code::Single(0))
        }
    }
}

fn subsampled(side: u32, bits: u32) -> u32 {
    side.div_ceil(1 << bits)
}

enum Code {
    Single(u16),
    Pair(u16, u16),
    /// Number of codes by length, and the symbols in order of code.
    Canonical {
        counts: [u16; 16],
        symbols: Vec<u16>,
    },
}

impl Code {
    fn canonical(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0u16; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length & 15)] += 1);
        counts[0] = 0;
        let mut symbols = Vec::new();
        for length in 1..16u8 {
            symbols.extend(
                (0..lengths.len())
                    .filter(|&symbol| lengths[symbol] == length)
                    .map(|symbol| symbol as u16),
            );
        }
        match symbols.as_slice() {
            [] => None,
            &[only] => Some(Code::Single(only)),
            _ => Some(Code::Canonical { counts, symbols }),
        }
    }

    fn read(&self, bits: &mut Bits) -> Option<u16> {
        match self {
            Code::Single(symbol) => Some(*symbol),
            Code::Pair(first, second) => Some(if bits.take(1)? == 0 { *first } else { *second }),
            Code::Canonical { counts, symbols } => {
                let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
                for &count in &counts[1..] {
                    code |= bits.take(1)? as i32;
                    let count = i32::from(count);
                    if code - first < count {
                        return symbols.get((index + code - first) as usize).copied();
                    }
                    index += count;
                    first = (first + count) << 1;
                    code <<= 1;
                }
                None
            }
        }
    }
}

/// Bits from the lowest of each byte up.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    /// `count` ≤ 24 bits.
    #[inline]
    fn take(&mut self, count: u32) -> Option<u32> {
        let first = self.at / 8;
        if self.at + count as usize > self.bytes.len() * 8 {
            return None;
        }
        let byte = |index: usize| u32::from(self.bytes.get(index).copied().unwrap_or(0));
        let word = byte(first) | byte(first + 1) << 8 | byte(first + 2) << 16 | byte(first + 3) << 24;
        let value = word >> (self.at % 8) & ((1 << count) - 1);
        self.at += count as usize;
        Some(value)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len() * 8).then_some(())
    }
}

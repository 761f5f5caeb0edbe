//! Fax compressions: rows of runs (ITU-T T.4 one-dimensional, with and without its end-of-line codes), T.4
//! two-dimensional, and T.6. The code tables are the `fax` crate's; its decoders take less than what TIFF may hold.

use std::convert::Infallible;

use fax::maps::{Mode, black, mode, white};
use fax::{BitReader, Bits};

use crate::poll::Poll;
use crate::{Format, ImageError, buffers};

const END_OF_LINE: u16 = 1;
const END_OF_LINE_BITS: u8 = 12;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Coding {
    /// TIFF's compression 2: runs, each row from a new byte on.
    Rows,
    Group3,
    /// Group 3 with two-dimensional rows among the others.
    Group3Mixed,
    Group4,
}

/// Decodes (columns, rows) into rows of `row_bytes`; a set bit is black.
pub(super) fn decode(
    packed: &[u8],
    coding: Coding,
    (columns, rows): (usize, usize),
    row_bytes: usize,
    target: &mut [u8],
    poll: &Poll,
) -> Result<(), ImageError> {
    target.fill(0);
    let mut reader = Reader { bytes: packed, at: 0 };
    // Places where the colour changes, of the row above and of this one: white to black first.
    let mut above: Vec<usize> = buffers::with_room(columns + 2)?;
    let mut row: Vec<usize> = buffers::with_room(columns + 2)?;
    for (number, line) in target.chunks_exact_mut(row_bytes).take(rows).enumerate() {
        if number % 64 == 0 {
            poll.check()?;
        }
        let flat = match coding {
            Coding::Rows => {
                reader.align();
                true
            }
            Coding::Group4 => false,
            _ => {
                let ends = reader.skip_ends_of_line(coding == Coding::Group3Mixed);
                if ends.count > 1 && number > 0 {
                    // Six of them are the end; the rows that are left out are white.
                    return Ok(());
                }
                ends.flat
            }
        };
        row.clear();
        let outcome = if flat {
            runs(&mut reader, columns, &mut row)
        } else {
            changes(&mut reader, columns, &above, &mut row)
        };
        match outcome {
            Some(Outcome::Row) if !reader.ran_out() => {}
            Some(Outcome::End) => return Ok(()),
            _ => return Err(ImageError::corrupt(Format::Tiff, "its fax data are not valid")),
        }
        for black in row.chunks(2) {
            fill(line, black[0], black.get(1).copied().unwrap_or(columns));
        }
        std::mem::swap(&mut above, &mut row);
    }
    Ok(())
}

enum Outcome {
    Row,
    /// The code that ends the picture.
    End,
}

/// A one-dimensional row. Changes at the right edge are left out.
fn runs(reader: &mut Reader, columns: usize, row: &mut Vec<usize>) -> Option<Outcome> {
    let (mut at, mut is_black) = (0, false);
    while at < columns {
        at += run(reader, is_black)?;
        push(row, at, columns);
        is_black = !is_black;
        if reader.ran_out() {
            return None;
        }
    }
    Some(Outcome::Row)
}

/// A two-dimensional row, by its differences from the one above.
fn changes(reader: &mut Reader, columns: usize, above: &[usize], row: &mut Vec<usize>) -> Option<Outcome> {
    // `at` is a0; before the first code it lies one to the left of the row.
    let (mut at, mut started, mut is_black) = (0, false, false);
    let mut below = 0;
    while at < columns {
        // b1: the first change above that is to the right of a0 and to the other colour.
        while below > 0 && above.get(below - 1).is_some_and(|&place| place > at || !started) {
            below -= 1;
        }
        while above.get(below).is_some_and(|&place| started && place <= at) || (below % 2 == 1) != is_black {
            below += 1;
        }
        let place = |index: usize| above.get(index).copied().unwrap_or(columns);
        match mode::decode(reader)? {
            Mode::Pass => at = place(below + 1),
            Mode::Horizontal => {
                let first = at + run(reader, is_black)?;
                at = first + run(reader, !is_black)?;
                push(row, first, columns);
                push(row, at, columns);
            }
            Mode::Vertical(shift) => {
                let change = place(below).checked_add_signed(isize::from(shift))?;
                if change < at {
                    return None;
                }
                at = change;
                push(row, at, columns);
                is_black = !is_black;
            }
            Mode::Extension => return None,
            Mode::EOF => return Some(Outcome::End),
        }
        started = true;
        if reader.ran_out() {
            return None;
        }
    }
    Some(Outcome::Row)
}

/// Changes at or beyond the edge change nothing.
fn push(row: &mut Vec<usize>, at: usize, columns: usize) {
    if at < columns {
        row.push(at);
    }
}

fn run(reader: &mut Reader, is_black: bool) -> Option<usize> {
    let mut length = 0;
    loop {
        let part = if is_black {
            black::decode(reader)
        } else {
            white::decode(reader)
        }?;
        length += usize::from(part);
        // Codes from 64 on are followed by another; a row has no more than some thousand of them.
        if part < 64 {
            return Some(length);
        }
        if length > 1 << 24 {
            return None;
        }
    }
}

/// Sets the bits from `from` up to `to`.
fn fill(line: &mut [u8], from: usize, to: usize) {
    for at in from..to {
        if at % 8 == 0 && at + 8 <= to {
            line[at / 8] = 0xFF;
        } else {
            line[at / 8] |= 0x80 >> (at % 8);
        }
    }
}

struct EndsOfLine {
    count: usize,
    flat: bool,
}

/// Bits of a slice; behind the end there are zeros.
struct Reader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    fn ran_out(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// Skips fill bits and end-of-line codes, with the bit behind each that says how the next row is coded.
    fn skip_ends_of_line(&mut self, tagged: bool) -> EndsOfLine {
        let mut ends = EndsOfLine { count: 0, flat: true };
        while self.next(11) == 0 && !self.ran_out() {
            while self.next(END_OF_LINE_BITS) != END_OF_LINE && !self.ran_out() {
                self.at += 1;
            }
            self.at += usize::from(END_OF_LINE_BITS);
            ends.count += 1;
            if tagged {
                ends.flat = self.next(1) == 1;
                self.at += 1;
            }
        }
        ends
    }

    fn next(&self, count: u8) -> u16 {
        let byte = |index: usize| u32::from(self.bytes.get(index).copied().unwrap_or(0));
        let first = self.at / 8;
        let word = byte(first) << 16 | byte(first + 1) << 8 | byte(first + 2);
        let shifted = word << (8 + self.at % 8);
        (shifted >> (32 - u32::from(count.clamp(1, 16)))) as u16
    }
}

impl BitReader for Reader<'_> {
    type Error = Infallible;

    fn peek(&self, bits: u8) -> Option<u16> {
        Some(if bits == 0 { 0 } else { self.next(bits) })
    }

    fn consume(&mut self, bits: u8) -> Result<(), Infallible> {
        self.at += usize::from(bits);
        Ok(())
    }

    fn expect(&mut self, bits: Bits) -> Result<(), Option<Bits>> {
        let data = self.next(bits.len);
        if data == bits.data {
            Ok(())
        } else {
            Err(Some(Bits { data, len: bits.len }))
        }
    }

    fn bits_to_byte_boundary(&self) -> u8 {
        (self.at.next_multiple_of(8) - self.at) as u8
    }
}

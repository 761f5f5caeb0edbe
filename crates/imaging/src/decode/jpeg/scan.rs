//! One scan: baseline blocks are transformed as they come, progressive ones are gathered (T.81, annexes F and G).

use super::arithmetic;
use super::frame::{Component, DROPPED, Frame, kept_steps};
use super::huffman::{Bits, HuffmanTable};
use super::idct;
use super::tables::{Band, Tables};
use crate::poll::Poll;
use crate::{Format, ImageError};

struct Member<'t> {
    component: usize,
    dc: Option<&'t HuffmanTable>,
    ac: Option<&'t HuffmanTable>,
    /// Numbers of its tables of arithmetic statistics.
    numbers: (usize, usize),
    /// By kept position.
    steps: [i32; 64],
}

struct Scan<'t> {
    members: Vec<Member<'t>>,
    /// `None` where blocks are transformed as they come.
    band: Option<Band>,
}

impl<'t> Scan<'t> {
    /// Reads the scan's header. `None` for anything out of order.
    fn read(frame: &mut Frame, tables: &'t Tables, segment: &[u8]) -> Option<Self> {
        let (&count, rest) = segment.split_first()?;
        let count = usize::from(count);
        if count == 0 || count > frame.components.len() || rest.len() < 2 * count + 3 {
            return None;
        }
        let coding = frame.coding;
        let mut members = Vec::with_capacity(count);
        for selector in rest[..2 * count].chunks_exact(2) {
            let component = frame.components.iter().position(|c| c.id == selector[0])?;
            if members.iter().any(|member: &Member| member.component == component) {
                return None;
            }
            let numbers = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            let target = &mut frame.components[component];
            let steps = *target.steps.get_or_insert(tables.quantisation[target.quantisation]?);
            members.push(Member {
                component,
                dc: tables.dc.get(numbers.0).and_then(Option::as_ref),
                ac: tables.ac.get(numbers.1).and_then(Option::as_ref),
                numbers,
                steps: kept_steps(&steps, &target.kept),
            });
        }
        if !coding.progressive {
            // The bounds say nothing here; some encoders write odd ones.
            let band = coding.arithmetic.then_some(Band {
                first: 0,
                last: 63,
                refines: false,
                low: 0,
            });
            return Some(Self { members, band });
        }
        let (first, last, approximation) = (rest[2 * count], rest[2 * count + 1], rest[2 * count + 2]);
        let (first, last) = (usize::from(first), usize::from(last));
        let (high, low) = (approximation >> 4, approximation & 15);
        if last > 63 || first > last || (first == 0) != (last == 0) || (first > 0 && count != 1) || low > 13 {
            return None;
        }
        if high != 0 && low + 1 != high {
            return None;
        }
        for member in &members {
            frame.components[member.component].missing_bits[first..=last].fill(low);
        }
        let band = Band {
            first,
            last,
            refines: high != 0,
            low: u32::from(low),
        };
        Some(Self {
            members,
            band: Some(band),
        })
    }

    /// Columns and rows of the scan's MCUs: single blocks where it holds one component alone.
    fn extent(&self, frame: &Frame) -> (usize, usize) {
        match self.members.as_slice() {
            [alone] => {
                let component = &frame.components[alone.component];
                (component.own_columns, component.own_rows)
            }
            _ => (frame.mcu_columns, frame.mcu_rows),
        }
    }
}

/// Decodes the scan whose header is `segment` and whose bits start at `start`; gives the position behind them.
pub(super) fn decode(
    frame: &mut Frame,
    tables: &Tables,
    segment: &[u8],
    bytes: &[u8],
    start: usize,
    poll: &Poll,
) -> Result<usize, ImageError> {
    let corrupt = |reason: &str| ImageError::corrupt(Format::Jpeg, reason);
    let scan = Scan::read(frame, tables, segment).ok_or_else(|| corrupt("the header of a scan is not valid"))?;
    for component in &mut frame.components {
        component.prediction = 0;
    }
    if frame.coding.arithmetic {
        let statistics = scan.members.iter().map(|member| (member.component, member.numbers));
        let Some(band) = scan.band else {
            return Err(corrupt("the header of a scan is not valid"));
        };
        let (members, extent): (Vec<_>, _) = (statistics.collect(), scan.extent(frame));
        return arithmetic::decode(frame, tables, &members, extent, band, (bytes, start), poll);
    }
    let mut bits = Bits::new(bytes, start);
    let outcome = decode_blocks(frame, tables, &scan, &mut bits, poll);
    poll.check()?;
    if bits.ran_dry() {
        return Err(if bits.position() + 1 >= bytes.len() {
            ImageError::truncated(Format::Jpeg, bytes)
        } else {
            corrupt("a scan ends before its last block")
        });
    }
    outcome.ok_or_else(|| corrupt("the data of a scan are not valid"))?;
    Ok(bits.position())
}

/// `None` for data that contradict themselves or end too early, and for a stop.
fn decode_blocks(frame: &mut Frame, tables: &Tables, scan: &Scan, bits: &mut Bits, poll: &Poll) -> Option<()> {
    let (columns, rows) = scan.extent(frame);
    let alone = scan.members.len() == 1;
    let mut end_of_band_run = 0u32;
    let mut until_restart = tables.restart_interval;
    for row in 0..rows {
        if poll.stopped() || bits.ran_dry() {
            return None;
        }
        for column in 0..columns {
            if tables.restart_interval > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    end_of_band_run = 0;
                    for component in &mut frame.components {
                        component.prediction = 0;
                    }
                    until_restart = tables.restart_interval;
                }
                until_restart -= 1;
            }
            for member in &scan.members {
                let component = &mut frame.components[member.component];
                let (across, down) = if alone {
                    (1, 1)
                } else {
                    (component.horizontal, component.vertical)
                };
                for v in 0..down {
                    for h in 0..across {
                        let (x, y) = (column * across + h, row * down + v);
                        match scan.band {
                            None => baseline_block(component, bits, member, x, y)?,
                            Some(band) => {
                                progressive_block(component, bits, member, band, &mut end_of_band_run, x, y)?;
                            }
                        }
                    }
                }
            }
        }
    }
    Some(())
}

#[inline(always)]
fn baseline_block(component: &mut Component, bits: &mut Bits, member: &Member, x: usize, y: usize) -> Option<()> {
    let (ac, steps) = (member.ac?, &member.steps);
    let length = u32::from(bits.symbol(member.dc?)?);
    if length > 11 {
        return None;
    }
    component.prediction = component.prediction.wrapping_add(bits.signed(length));
    let mut block = [0i32; 64];
    block[0] = component.prediction.wrapping_mul(steps[0]);
    let mut flat = true;
    let mut index = 1;
    while index < 64 {
        let symbol = bits.symbol(ac)?;
        let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if length == 0 {
            if run < 15 {
                break;
            }
            index += 16;
            continue;
        }
        index += run;
        let &position = component.kept.get(index)?;
        if position == DROPPED {
            bits.skip(length);
        } else {
            let position = usize::from(position);
            block[position] = bits.signed(length) * steps[position];
            flat = false;
        }
        index += 1;
    }
    let (size, stride) = ((component.across, component.down), component.stride());
    let target = component.samples.get_mut(y * size.1 * stride + x * size.0..)?;
    if flat {
        idct::flat_block(size, block[0], target, stride);
    } else {
        idct::block(size, &block, target, stride);
    }
    Some(())
}

fn progressive_block(
    component: &mut Component,
    bits: &mut Bits,
    member: &Member,
    band: Band,
    end_of_band_run: &mut u32,
    x: usize,
    y: usize,
) -> Option<()> {
    let index = y * component.columns + x;
    let kept = component.kept_count();
    let coefficients = component.coefficients.get_mut(index * kept..(index + 1) * kept)?;
    let nonzero = component.nonzero.get_mut(index)?;
    if band.first == 0 {
        if band.refines {
            coefficients[0] |= i16::from(bits.bit()) << band.low;
        } else {
            let length = u32::from(bits.symbol(member.dc?)?);
            if length > 11 {
                return None;
            }
            component.prediction = component.prediction.wrapping_add(bits.signed(length));
            coefficients[0] = (component.prediction << band.low) as i16;
        }
        return Some(());
    }
    let mut store = |coefficient: usize, value: i32| {
        *nonzero |= 1 << coefficient;
        let position = component.kept[coefficient];
        if position != DROPPED {
            coefficients[usize::from(position)] = value as i16;
        }
    };
    if !band.refines {
        if *end_of_band_run > 0 {
            *end_of_band_run -= 1;
            return Some(());
        }
        let ac = member.ac?;
        let mut coefficient = band.first;
        while coefficient <= band.last {
            let symbol = bits.symbol(ac)?;
            let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if length == 0 {
                if run < 15 {
                    *end_of_band_run = (1 << run) - 1 + bits.number(run as u32) as u32;
                    break;
                }
                coefficient += 16;
                continue;
            }
            coefficient += run;
            if coefficient > band.last {
                return None;
            }
            store(coefficient, bits.signed(length) << band.low);
            coefficient += 1;
        }
        return Some(());
    }

    let mut coefficient = band.first;
    if *end_of_band_run == 0 {
        let ac = member.ac?;
        while coefficient <= band.last {
            let symbol = bits.symbol(ac)?;
            let (mut run, length) = (u32::from(symbol >> 4), symbol & 15);
            let new = match length {
                0 if run < 15 => {
                    *end_of_band_run = (1 << run) + bits.number(run) as u32;
                    break;
                }
                0 => 0,
                1 if bits.bit() => 1 << band.low,
                1 => -1 << band.low,
                _ => return None,
            };
            // Zeros are counted, coefficients known already take a correction bit each.
            while coefficient <= band.last {
                if *nonzero >> coefficient & 1 != 0 {
                    refine(component.kept[coefficient], coefficients, bits, band.low);
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                coefficient += 1;
            }
            if new != 0 && coefficient <= band.last {
                *nonzero |= 1 << coefficient;
                let position = component.kept[coefficient];
                if position != DROPPED {
                    coefficients[usize::from(position)] = new as i16;
                }
            }
            coefficient += 1;
        }
    }
    if *end_of_band_run > 0 {
        for coefficient in coefficient..=band.last {
            if *nonzero >> coefficient & 1 != 0 {
                refine(component.kept[coefficient], coefficients, bits, band.low);
            }
        }
        *end_of_band_run -= 1;
    }
    Some(())
}

/// One correction bit: a coefficient's magnitude grows by `1 << low` where the bit says so.
#[inline(always)]
fn refine(position: u8, coefficients: &mut [i16], bits: &mut Bits, low: u32) {
    if bits.bit() && position != DROPPED {
        let value = &mut coefficients[usize::from(position)];
        let step = 1i16 << low;
        if *value & step == 0 {
            *value = value.wrapping_add(if *value >= 0 { step } else { -step });
        }
    }
}

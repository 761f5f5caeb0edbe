//! The rows that a build trains on: those of randomly chosen blocks, as many as fit into `maintenance_work_mem`.
use std::ops::Range;

use ivf_core::{FilterLayout, Sample};

use super::column::{Column, widened};
use super::error::failure;
use super::heap::{BuildScan, Row};
use crate::failure::Failure;
use crate::interrupts;

/// Rows to train on per list.
const WANTED_PER_LIST: usize = 64;
/// Fewer than these per list say too little about it.
const ENOUGH_PER_LIST: usize = 16;
/// Blocks from which the number of rows is judged.
const BLOCKS_TO_COUNT: u32 = 64;
/// Rows beside each other are often alike; they come from at least so many blocks.
const FEWEST_BLOCKS: u32 = 256;

/// What a build learns from.
pub(super) struct Sampled {
    pub sample: Sample,
    /// Lists to train.
    pub lists: u32,
    /// Estimated rows of the table.
    pub rows: f64,
}

/// Takes the sample; none where the table has no row to index.
///
/// `lists` is what the user asked for. It is lowered where there are fewer rows, and where it is not given, also where
/// memory does not hold enough rows for as many.
pub(super) fn take(
    scan: &BuildScan,
    column: Column,
    (dimensions, layout): (usize, FilterLayout),
    lists: Option<u32>,
    memory: usize,
) -> Result<Option<Sampled>, Failure> {
    let failure_of = |error: ivf_core::Error| {
        // SAFETY: the scan's index is open.
        unsafe { failure(error, scan.index) }
    };
    let blocks = scan.blocks();
    let mut random = Random::new(u64::from(blocks) ^ 0x6976_6669_7666);
    let per_block = rows_per_block(scan, blocks, &mut random);
    let rows = (per_block * f64::from(blocks)).ceil();

    let per_row = Sample::bytes_per_row(dimensions).max(1);
    let fits = memory / per_row;
    let (wanted_lists, needed) = match lists {
        Some(lists) => {
            let lists = (lists as usize).min(rows as usize).max(1);
            (lists, (lists * ENOUGH_PER_LIST).min(rows as usize).max(1))
        }
        None => {
            let lists = ivf_core::automatic_lists(rows) as usize;
            (
                lists.min(fits / ENOUGH_PER_LIST).max(1),
                ENOUGH_PER_LIST.min(rows as usize).max(1),
            )
        }
    };
    if fits < needed {
        return Err(failure_of(ivf_core::Error::Memory {
            required: (needed * per_row).div_ceil(1024) as u64,
            allowed: (memory / 1024) as u64,
        }));
    }
    let most = (wanted_lists * WANTED_PER_LIST)
        .min(fits)
        .min((rows * 1.2) as usize + WANTED_PER_LIST);

    let mut sample = Sample::with_filters(dimensions, layout, column.metric, most).map_err(failure_of)?;
    let chosen = ((most as f64 / per_block).ceil() as u32).clamp(FEWEST_BLOCKS.min(blocks), blocks);
    let accepted = most as f64 / (f64::from(chosen) * per_block);
    let mut coin = Random::new(1);
    for range in choose(blocks, chosen, &mut random) {
        interrupts::process();
        scan.rows_in(range, |row| {
            let Row {
                value: Some(value),
                alive: true,
                ..
            } = row
            else {
                return Ok(());
            };
            if sample.len() >= most || (accepted < 1.0 && coin.unit() >= accepted) {
                return Ok(());
            }
            // SAFETY: a value of the column, valid during this call.
            let value = unsafe { column.read(value)? };
            sample.add(&widened(value.elements())).map_err(failure_of)?;
            Ok(())
        });
    }
    let kept = sample.len();
    if kept == 0 {
        return Ok(None);
    }
    let per_list = if lists.is_some() { 1 } else { ENOUGH_PER_LIST };
    Ok(Some(Sampled {
        sample,
        lists: wanted_lists.min(kept / per_list).max(1) as u32,
        rows,
    }))
}

/// Rows to index per block, judged from a few blocks. Statistics would not do: a table that was just loaded has none.
fn rows_per_block(scan: &BuildScan, blocks: u32, random: &mut Random) -> f64 {
    let looked_at = BLOCKS_TO_COUNT.min(blocks).max(1);
    let mut rows = 0u64;
    for range in choose(blocks, looked_at.min(blocks), random) {
        scan.rows_in(range, |row| {
            rows += u64::from(row.value.is_some() && row.alive);
            Ok(())
        });
    }
    // Where these blocks hold nothing, others may.
    (rows as f64 / f64::from(looked_at)).max(if looked_at < blocks { 1.0 } else { 0.0 })
}

/// `count` of the blocks 0…`blocks`, each set of blocks being as likely as any other, as ascending ranges.
fn choose(blocks: u32, count: u32, random: &mut Random) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut wanted = count.min(blocks);
    for block in 0..blocks {
        if wanted == 0 {
            break;
        }
        if random.unit() * f64::from(blocks - block) < f64::from(wanted) {
            wanted -= 1;
            match ranges.last_mut() {
                Some(last) if last.end == block => last.end += 1,
                _ => ranges.push(block..block + 1),
            }
        }
    }
    ranges
}

/// SplitMix64. Which rows are sampled needs no secrecy, and the same table shall give the same index.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Uniform in 0…1, without 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

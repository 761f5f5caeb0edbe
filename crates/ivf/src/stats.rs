//! What an index is made of.
use crate::directory::{self, MOST_RESTARTS};
use crate::list::{self, Walked};
use crate::page::NONE;
use crate::{Error, Meta, PageStore, Result};

/// Figures of an index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Rows in all lists.
    pub rows: u64,
    /// Lists.
    pub lists: u32,
    /// Lists without a row.
    pub empty_lists: u32,
    /// Rows of the longest list.
    pub longest_list: u64,
    /// Rows of the mean list of a row over those of the mean list: 1 when all are equally long.
    pub imbalance: f64,
    /// Branches.
    pub branches: u32,
    /// Pages of branches and directories.
    pub centroid_pages: u32,
    /// Pages of one-bit codes.
    pub scan_pages: u32,
    /// Pages of six-bit codes.
    pub refine_pages: u32,
    /// All pages.
    pub pages: u32,
    /// Slots on scan pages without a row: room for inserts.
    pub free_slots: u64,
}

/// Reads every scan page and counts.
pub fn stats<S: PageStore>(store: &S) -> Result<Stats> {
    for _ in 0..MOST_RESTARTS {
        let meta = Meta::read(store)?;
        // A branch that is split meanwhile would be counted twice, or not at all.
        if let Some(stats) = count(store, &meta)?
            && Meta::read_chains(store)? == meta.chains
        {
            return Ok(stats);
        }
        store.interrupts()?;
    }
    Err(Error::corrupted(0, "branches lead to pages of others"))
}

/// None where a branch was split meanwhile.
fn count<S: PageStore>(store: &S, meta: &Meta) -> Result<Option<Stats>> {
    let geometry = meta.geometry()?;
    let mut stats = Stats {
        branches: meta.branches,
        pages: store.blocks()?,
        ..Stats::default()
    };
    let branches = directory::branches(store, meta, &geometry)?;
    let mut branch_pages: Vec<u32> = branches.iter().map(|&(_, block, _)| block).collect();
    branch_pages.dedup();
    stats.centroid_pages = branch_pages.len() as u32;
    let mut squares = 0.0;
    for (branch, _, _) in branches {
        let mut block = branch.directory;
        while block != NONE && stats.centroid_pages <= stats.pages {
            store.interrupts()?;
            let Some((probes, next)) = directory::read_page(store, &geometry, &branch, block)? else {
                return Ok(None);
            };
            stats.centroid_pages += 1;
            for probe in probes {
                let entry = probe.entry;
                let (mut rows, mut slots) = (0u64, 0u64);
                let (mut scans, mut refines) = (0, 0);
                let walked = list::walk(store, entry.head, entry.list, entry.generation, |_, page| {
                    scans += 1;
                    refines += (0..geometry.refine_pages)
                        .filter(|&at| list::refine_block(page, at) != NONE)
                        .count() as u32;
                    slots += geometry.slots() as u64;
                    rows += (0..list::used_blocks(&geometry, page))
                        .map(|b| u64::from(list::live(&geometry, page, b).count_ones()))
                        .sum::<u64>();
                    Ok(())
                })?;
                // A list that moved meanwhile is counted as the directory last knew it.
                if walked == Walked::Moved {
                    rows = u64::from(entry.count);
                    slots = rows;
                }
                stats.scan_pages += scans;
                stats.refine_pages += refines;
                stats.lists += 1;
                stats.empty_lists += u32::from(rows == 0);
                stats.longest_list = stats.longest_list.max(rows);
                stats.rows += rows;
                stats.free_slots += slots - rows;
                squares += (rows as f64).powi(2);
            }
            block = next;
        }
    }
    if stats.rows > 0 {
        stats.imbalance = squares * f64::from(stats.lists) / (stats.rows as f64).powi(2);
    }
    Ok(Some(stats))
}

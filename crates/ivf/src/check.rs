//! Whether an index is sound: every row in exactly one list, every link leads where it should, every count is true.
use std::collections::HashSet;

use crate::directory::{self, ListEntry};
use crate::geometry::{BLOCK, Geometry};
use crate::list::{self, Walked};
use crate::page::{Kind, NONE, Page};
use crate::store::LockMode;
use crate::{Error, Meta, PageStore, Result, Tid, grow};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What is wrong, with the block where it is.
    pub problems: Vec<(u32, String)>,
    /// Rows in all lists.
    pub rows: u64,
    /// Lists.
    pub lists: u32,
    /// Free pages.
    pub free: u32,
    /// Pages that nothing leads to and that are not free: left by a crash, harmless, gone with a REINDEX.
    pub unused: u32,
}

/// Checks everything, row pointers being given to `visit` as they come.
///
/// What is wrong goes into the report; an error is returned only where the store fails or the work is cancelled.
pub fn check<S: PageStore>(store: &S, visit: &mut dyn FnMut(Tid) -> Result<()>) -> Result<Report> {
    check_rows(store, &mut |row| visit(row.tid))
}

/// A row that a check comes to.
pub struct CheckedRow<'c> {
    /// Where it is.
    pub tid: Tid,
    /// The scan page on which it is.
    pub block: u32,
    /// The filter columns' values, as [`FilterLayout::put_row`](crate::FilterLayout::put_row) writes them.
    pub filters: &'c [u8],
}

/// As [`check`], with all that is known of each row.
pub fn check_rows<S: PageStore>(store: &S, visit: &mut Visit<'_>) -> Result<Report> {
    let _structure = store.lock(0, LockMode::Exclusive, true)?;
    let mut checker = Checker {
        store,
        used: HashSet::from([0]),
        tids: HashSet::new(),
        report: Report::default(),
    };
    let outcome = checker.everything(visit);
    if let Err(error) = outcome {
        checker.problem_or_failure(error)?;
    }
    Ok(checker.report)
}

type Visit<'v> = dyn FnMut(CheckedRow<'_>) -> Result<()> + 'v;

struct Checker<'s, S> {
    store: &'s S,
    used: HashSet<u32>,
    tids: HashSet<Tid>,
    report: Report,
}

impl<S: PageStore> Checker<'_, S> {
    fn problem(&mut self, block: u32, what: impl Into<String>) {
        self.report.problems.push((block, what.into()));
    }

    /// Takes what an error says about the index; passes on what it says about the store.
    fn problem_or_failure(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Corrupted { block, what } => self.problem(block, what),
            Error::Version { .. } => self.problem(0, error.to_string()),
            Error::Dimensions { .. }
            | Error::TooManyDimensions { .. }
            | Error::Memory { .. }
            | Error::OutOfMemory
            | Error::Cancelled
            | Error::Store(_) => return Err(error),
        }
        Ok(())
    }

    fn everything(&mut self, visit: &mut Visit<'_>) -> Result<()> {
        let meta = Meta::read(self.store)?;
        let geometry = meta.geometry()?;
        let branches = directory::branches(self.store, &meta, &geometry)?;
        let mut branch_pages: Vec<u32> = branches.iter().map(|&(_, block, _)| block).collect();
        branch_pages.dedup();
        self.used.extend(branch_pages);
        if branches.len() != meta.branches as usize {
            self.problem(
                0,
                format!("{} branches where {} are stated", branches.len(), meta.branches),
            );
        }
        let mut shared = Vec::new();
        let mut entries: Vec<ListEntry> = Vec::new();
        for (branch, block, _) in branches {
            self.store.interrupts()?;
            if branch.chain > meta.chains {
                self.problem(block, "a branch has a number that was never given");
            }
            let used = &mut self.used;
            let walked = directory::walk(self.store, &branch, |block, page| {
                if !grow::insert(used, block)? {
                    shared.push(block);
                }
                grow::extend(
                    &mut entries,
                    (0..directory::entries(&geometry, page)).map(|at| directory::list_entry(&geometry, page, at)),
                )
            });
            match walked {
                Ok(Walked::Whole) => (),
                Ok(Walked::Moved) => self.problem(branch.directory, "not a directory page of its branch"),
                Err(error) => self.problem_or_failure(error)?,
            }
        }
        for block in shared {
            self.problem(block, "a centroid page that two chains lead to");
        }
        let mut distinct: HashSet<u32> = HashSet::new();
        distinct.try_reserve(entries.len())?;
        distinct.extend(entries.iter().map(|entry| entry.list));
        if distinct.len() != entries.len() {
            self.problem(0, "two lists have the same number");
        }
        if entries.len() != meta.lists as usize {
            self.problem(0, format!("{} lists where {} are stated", entries.len(), meta.lists));
        }
        if distinct.iter().any(|&list| list >= meta.next_list) {
            self.problem(0, "a list has a number that was never given");
        }
        self.report.lists = entries.len() as u32;
        for entry in entries {
            self.store.interrupts()?;
            if let Err(error) = self.list(&geometry, &entry, visit) {
                self.problem_or_failure(error)?;
            }
        }
        self.unused()
    }

    fn list(&mut self, geometry: &Geometry, entry: &ListEntry, visit: &mut Visit<'_>) -> Result<()> {
        let mut block = entry.head;
        let mut insert_page = None;
        let mut in_chain = HashSet::new();
        while block != NONE {
            self.store.interrupts()?;
            if !grow::insert(&mut self.used, block)? {
                return Err(Error::corrupted(
                    block,
                    format!("a page that two places lead to, list {} among them", entry.list),
                ));
            }
            let ((tids, values, places), next) = {
                let page = self.store.read(block)?;
                if !page.is(Kind::Scan, entry.list, entry.generation) {
                    return Err(Error::corrupted(
                        block,
                        format!("not a scan page of list {}", entry.list),
                    ));
                }
                if block == entry.head {
                    insert_page = Some(list::insert_page(&page));
                }
                (self.scan_page(geometry, block, &page), page.trailer().next)
            };
            grow::insert(&mut in_chain, block)?;
            for (refine, most) in places {
                self.refine_page(geometry, entry, block, refine, most)?;
            }
            for (at, tid) in tids.into_iter().enumerate() {
                if !grow::insert(&mut self.tids, tid)? {
                    self.problem(
                        block,
                        format!("row ({},{}) is in the index twice", tid.block(), tid.offset()),
                    );
                }
                self.report.rows += 1;
                let bytes = geometry.filters.row_bytes();
                let filters = &values[at * bytes..(at + 1) * bytes];
                visit(CheckedRow { tid, block, filters })?;
            }
            block = next;
        }
        if let Some(page) = insert_page
            && page != NONE
            && !in_chain.contains(&page)
        {
            self.problem(entry.head, "the insert page is not in the list");
        }
        Ok(())
    }

    /// Row pointers of a scan page, the filter columns' values of these rows, and its refine pages with the number of
    /// records that each must have.
    fn scan_page(&mut self, geometry: &Geometry, block: u32, page: &Page) -> (Vec<Tid>, Vec<u8>, Vec<(u32, usize)>) {
        let used = list::used_blocks(geometry, page);
        let mut tids = Vec::new();
        let mut needed = vec![0usize; geometry.refine_pages];
        let mut values = Vec::new();
        for slot in 0..used * BLOCK {
            if list::live(geometry, page, slot / BLOCK) >> (slot % BLOCK) & 1 == 0 {
                continue;
            }
            let tid = list::tid(geometry, page, slot);
            if tid.offset() == 0 {
                self.problem(block, format!("slot {slot} points to no row"));
            }
            if !list::factor(geometry, page, slot).is_finite() {
                self.problem(block, format!("slot {slot} has no number as factor"));
            }
            let before = values.len();
            list::take_filters(geometry, page, slot, &mut values);
            if !geometry.filters.is_row_sound(&values[before..]) {
                self.problem(
                    block,
                    format!("slot {slot} has a value in a filter column that is NULL"),
                );
            }
            tids.push(tid);
            let at = slot / geometry.refines;
            needed[at] = needed[at].max(slot % geometry.refines + 1);
        }
        let mut places = Vec::new();
        for (at, most) in needed.into_iter().enumerate() {
            let refine = list::refine_block(page, at);
            if refine != NONE {
                places.push((refine, most));
            } else if most > 0 {
                self.problem(block, format!("refine page {at} is missing"));
            }
        }
        (tids, values, places)
    }

    fn refine_page(
        &mut self,
        geometry: &Geometry,
        entry: &ListEntry,
        scan: u32,
        block: u32,
        records: usize,
    ) -> Result<()> {
        if !grow::insert(&mut self.used, block)? {
            self.problem(scan, format!("refine page {block} belongs to two places"));
            return Ok(());
        }
        let page = self.store.read(block)?;
        if !page.is(Kind::Refine, entry.list, entry.generation) {
            return Err(Error::corrupted(
                block,
                format!("not a refine page of list {}", entry.list),
            ));
        }
        if page.used() < crate::page::CONTENT + records * geometry.refine_bytes {
            return Err(Error::corrupted(
                block,
                "a refine page with fewer records than its list has rows there",
            ));
        }
        Ok(())
    }

    fn unused(&mut self) -> Result<()> {
        for block in 0..self.store.blocks()? {
            if block.is_multiple_of(64) {
                self.store.interrupts()?;
            }
            if self.used.contains(&block) {
                continue;
            }
            let page = self.store.read(block)?;
            if page.expect(block, Kind::Free).is_ok() {
                self.report.free += 1;
            } else {
                self.report.unused += 1;
            }
        }
        Ok(())
    }
}

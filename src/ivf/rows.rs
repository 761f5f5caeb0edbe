//! Exact distances from the table: each candidate's row is fetched as the scan's snapshot sees it.
use ivf_core::{Rerank, RerankTogether, Tid};
use pgrx::prelude::*;

use super::column::Column;
use super::error::{beyond, failure};
use super::insert::item_pointer;
use super::value::Owned;
use crate::failure::Failure;

/// Where a row's indexed value comes from.
enum Source {
    /// A column of the table.
    Attribute(i32),
    /// An expression over the row.
    Expression {
        info: *mut pg_sys::IndexInfo,
        state: *mut pg_sys::EState,
    },
}

/// The rows of a table, fetched one by one. PostgreSQL's side of it must be given back with [`end`](Self::end); after
/// an error PostgreSQL does so itself.
pub(super) struct Rows {
    fetch: *mut pg_sys::IndexFetchTableData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
    source: Source,
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    /// Blocks that the table had when it was last asked: it only grows while a scan holds its lock.
    blocks: pg_sys::BlockNumber,
    /// The block that was asked for ahead last.
    ahead: pg_sys::BlockNumber,
    /// How much the last of these were worth: at 0 most are left out.
    patience: u8,
}

/// Blocks asked for ahead that were in memory before most are no longer asked for.
const PATIENCE: u8 = 32;

impl Rows {
    /// # Safety
    /// The scan's relations must be open, and its snapshot registered, until [`end`](Self::end). The current memory
    /// context must live as long.
    pub unsafe fn begin(scan: &pg_sys::IndexScanDescData) -> Self {
        // SAFETY: the caller vouches for the scan; the index's first column is an attribute of the table
        // (above 0; a system column has none of our types) or an expression (0).
        unsafe {
            let attribute = *(*(*scan.indexRelation).rd_index).indkey.values.as_ptr();
            let source = if attribute > 0 {
                Source::Attribute(i32::from(attribute))
            } else {
                let state = pg_sys::CreateExecutorState();
                Source::Expression {
                    info: pg_sys::BuildIndexInfo(scan.indexRelation),
                    state,
                }
            };
            Rows {
                fetch: pg_sys::table_index_fetch_begin(scan.heapRelation),
                slot: pg_sys::table_slot_create(scan.heapRelation, std::ptr::null_mut()),
                snapshot: scan.xs_snapshot,
                source,
                relation: scan.heapRelation,
                index: scan.indexRelation,
                blocks: 0,
                ahead: pg_sys::InvalidBlockNumber,
                patience: PATIENCE,
            }
        }
    }

    /// Lets go of the row fetched last.
    ///
    /// # Safety
    /// Not after [`end`](Self::end).
    pub unsafe fn reset(&mut self) {
        // SAFETY: both are ours until `end`.
        unsafe {
            pg_sys::ExecClearTuple(self.slot);
            pg_sys::table_index_fetch_reset(self.fetch);
        }
    }

    /// Gives back what PostgreSQL lent.
    ///
    /// # Safety
    /// Once only, and in the same query.
    pub unsafe fn end(&mut self) {
        // SAFETY: all are ours, and used no more.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::table_index_fetch_end(self.fetch);
            if let Source::Expression { state, .. } = self.source {
                pg_sys::FreeExecutorState(state);
            }
        }
    }

    /// Whether a row's block is one of the table's: PostgreSQL's error for one behind its end would blame
    /// the table, not the index.
    fn is_of_the_table(&mut self, row: Tid) -> bool {
        if row.block() >= self.blocks {
            // SAFETY: the caller of `begin` keeps the table open.
            self.blocks =
                unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) };
        }
        row.block() < self.blocks
    }

    /// Asks for the block of a row that will be read soon.
    fn prefetch(&mut self, row: Tid) {
        if row.block() == self.ahead || !self.is_of_the_table(row) {
            return;
        }
        self.ahead = row.block();
        if self.patience == 0 && !row.block().is_multiple_of(16) {
            return;
        }
        // SAFETY: the caller of `begin` keeps the table open; the block is one of the table's.
        let found = unsafe { pg_sys::PrefetchBuffer(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM, row.block()) };
        self.patience = match found.recent_buffer {
            0 => PATIENCE,
            _ => self.patience.saturating_sub(1),
        };
    }

    /// The exact distance of a row from a query, as the SQL operator gives it; none for a row that is not visible. No
    /// query: SQL NULL, from which every distance is NULL, and which sorts last.
    fn distance(&mut self, row: Tid, column: Column, query: Option<&Owned>) -> Result<Option<f64>, Failure> {
        if !self.is_of_the_table(row) {
            // SAFETY: the scan keeps its index open.
            return Err(unsafe { beyond(row, self.blocks, self.index) });
        }
        let Some(value) = self.value(row) else {
            return Ok(None);
        };
        let Some(query) = query else {
            return Ok(Some(f64::INFINITY));
        };
        // SAFETY: a value of the indexed column, valid until the next row is fetched.
        let value = unsafe { column.read(value) }?;
        let distance = column
            .distance(value.elements(), query.elements())
            // SAFETY: the scan keeps its index open.
            .map_err(|error| unsafe { failure(error, self.index) })?;
        // NaN (a zero query under the cosine) sorts last as well, but compares with nothing.
        Ok(Some(if distance.is_nan() { f64::INFINITY } else { distance }))
    }

    /// The indexed value of the visible version of a row; none where there is none, or it is NULL.
    fn value(&mut self, row: Tid) -> Option<pg_sys::Datum> {
        // PostgreSQL turns this into the place of the version that it finds.
        let mut place = item_pointer(row);
        let (mut again, mut null) = (false, false);
        // SAFETY: the fetch, the slot and the snapshot are valid until `end`. With an MVCC snapshot one call finds the
        // only visible version. The value is valid until the slot holds another row.
        unsafe {
            let visible = pg_sys::table_index_fetch_tuple(
                self.fetch,
                &mut place,
                self.snapshot,
                self.slot,
                &mut again,
                std::ptr::null_mut(),
            );
            if !visible {
                return None;
            }
            let value = match self.source {
                Source::Attribute(attribute) => pg_sys::slot_getattr(self.slot, attribute, &mut null),
                Source::Expression { info, state } => {
                    let context = per_tuple_context(state);
                    pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
                    (*context).ecxt_scantuple = self.slot;
                    // PostgreSQL computes all columns, of which the first is the vector.
                    let mut values = [pg_sys::Datum::from(0); pg_sys::INDEX_MAX_KEYS as usize];
                    let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
                    pg_sys::FormIndexDatum(info, self.slot, state, values.as_mut_ptr(), nulls.as_mut_ptr());
                    null = nulls[0];
                    values[0]
                }
            };
            (!null).then_some(value)
        }
    }
}

/// GetPerTupleExprContext, which is a macro.
///
/// # Safety
/// `state` must be a valid executor state.
unsafe fn per_tuple_context(state: *mut pg_sys::EState) -> *mut pg_sys::ExprContext {
    // SAFETY: the caller vouches for it.
    unsafe {
        if (*state).es_per_tuple_exprcontext.is_null() {
            pg_sys::MakePerTupleExprContext(state)
        } else {
            (*state).es_per_tuple_exprcontext
        }
    }
}

/// Exact distances of rows from one query.
pub(super) struct Exact<'a> {
    pub rows: &'a mut Rows,
    pub column: Column,
    /// None: SQL NULL, from which every distance is NULL, and which sorts last.
    pub query: Option<&'a Owned>,
    /// Why a value could not be read.
    pub failed: Option<Failure>,
}

impl Rerank for Exact<'_> {
    fn distance(&mut self, row: Tid) -> ivf_core::Result<Option<f64>> {
        let found = self.rows.distance(row, self.column, self.query);
        found.map_err(|failed| {
            self.failed = Some(failed);
            unread()
        })
    }
}

/// Stands for a failure that is told by other means.
fn unread() -> ivf_core::Error {
    ivf_core::Error::Store("a row's value cannot be read".to_owned())
}

/// Exact distances of rows from many queries.
pub(super) struct ExactOfMany<'a> {
    pub rows: &'a mut Rows,
    pub column: Column,
    pub queries: &'a [Owned],
    /// Why a value could not be read.
    pub failed: Option<Failure>,
}

impl RerankTogether for ExactOfMany<'_> {
    fn distance(&mut self, query: usize, row: Tid) -> ivf_core::Result<Option<f64>> {
        let found = self.rows.distance(row, self.column, self.queries.get(query));
        found.map_err(|failed| {
            self.failed = Some(failed);
            unread()
        })
    }

    fn soon(&mut self, row: Tid) {
        self.rows.prefetch(row);
    }
}

impl Exact<'_> {
    /// What to tell the user about an error of the search.
    ///
    /// # Safety
    /// `index` must be open.
    pub unsafe fn failure_of(&mut self, error: ivf_core::Error, index: pg_sys::Relation) -> Failure {
        // SAFETY: the caller vouches for it.
        self.failed.take().unwrap_or_else(|| unsafe { failure(error, index) })
    }
}

//! The table's rows as a build sees them: PostgreSQL decides which have to be indexed and computes their values.
use std::ops::Range;

use ivf_core::Tid;
use pgrx::prelude::*;

use super::insert::tid;
use crate::failure::{Failure, boundary};

/// A row that has to be indexed.
pub(super) struct Row {
    pub tid: Tid,
    /// The vector; none for NULL.
    pub value: Option<pg_sys::Datum>,
    /// The values of all columns, and whether they are NULL; valid during the call.
    pub columns: (*const pg_sys::Datum, *const bool),
    /// Whether the row is not just there for transactions that began earlier.
    pub alive: bool,
}

/// What PostgreSQL handed over for a build.
#[derive(Clone, Copy)]
pub(super) struct BuildScan {
    table: pg_sys::Relation,
    pub index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

type Each<'a> = dyn FnMut(Row) -> Result<(), Failure> + 'a;

impl BuildScan {
    /// # Safety
    /// The arguments must be those of one call of `ambuild`, and the result must not outlive it.
    pub unsafe fn new(table: pg_sys::Relation, index: pg_sys::Relation, info: *mut pg_sys::IndexInfo) -> Self {
        BuildScan { table, index, info }
    }

    /// Blocks of the table.
    pub fn blocks(&self) -> u32 {
        // SAFETY: the table is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.table, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Calls `each` for every row of the table, and gives the number of rows that PostgreSQL counts as there.
    pub fn every_row(&self, mut each: impl FnMut(Row) -> Result<(), Failure>) -> f64 {
        let mut each: &mut Each<'_> = &mut each;
        // SAFETY: the relations are open; the state is a pointer to `each`, as `row_found`
        // expects, and outlives the call.
        unsafe {
            pg_sys::table_index_build_scan(
                self.table,
                self.index,
                self.info,
                true,
                true,
                Some(row_found),
                (&raw mut each).cast(),
                std::ptr::null_mut(),
            )
        }
    }

    /// Calls `each` for every row that a snapshot sees. The scan's `ii_Concurrent` must be set.
    pub fn rows_seen_by(&self, snapshot: pg_sys::Snapshot, mut each: impl FnMut(Row) -> Result<(), Failure>) {
        let mut each: &mut Each<'_> = &mut each;
        // SAFETY: as above; PostgreSQL ends the table scan that is begun here.
        unsafe {
            let scan = pg_sys::table_beginscan_strat(self.table, snapshot, 0, std::ptr::null_mut(), true, true);
            pg_sys::table_index_build_scan(
                self.table,
                self.index,
                self.info,
                true,
                false,
                Some(row_found),
                (&raw mut each).cast(),
                scan,
            );
        }
    }

    /// Calls `each` for every row of some blocks.
    pub fn rows_in(&self, blocks: Range<u32>, mut each: impl FnMut(Row) -> Result<(), Failure>) {
        let mut each: &mut Each<'_> = &mut each;
        // SAFETY: as above. Rows of others that are in progress are passed over without a warning (`anyvisible`).
        unsafe {
            pg_sys::table_index_build_range_scan(
                self.table,
                self.index,
                self.info,
                false,
                true,
                false,
                blocks.start,
                blocks.end - blocks.start,
                Some(row_found),
                (&raw mut each).cast(),
                std::ptr::null_mut(),
            );
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn row_found(
    _index: pg_sys::Relation,
    pointer: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    alive: bool,
    state: *mut core::ffi::c_void,
) {
    boundary(|| {
        // SAFETY: the state is what the scan was started with; PostgreSQL passes one value per column, the vector
        // first.
        unsafe {
            let each = &mut *state.cast::<&mut Each<'_>>();
            each(Row {
                tid: tid(pointer),
                value: (!*nulls).then(|| *values),
                columns: (values, nulls),
                alive,
            })
        }
    });
}

//! `VACUUM`: rows that are gone leave the index, lists that need it are put in order.
use ivf_core::{Tid, Vacuumed};
use pgrx::prelude::*;

use super::error::failure;
use super::insert::item_pointer;
use super::pages::Pages;
use crate::failure::{Failure, boundary};

/// Marks the rows that PostgreSQL names dead. May be called several times in one vacuum.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn ambulkdelete(
    info: *mut pg_sys::IndexVacuumInfo,
    result: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    state: *mut core::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    boundary(|| {
        let Some(callback) = callback else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "ambulkdelete was called without a callback",
            ));
        };
        // SAFETY: PostgreSQL's vacuum passes an open index, and a callback that takes any row's place.
        unsafe {
            let index = (*info).index;
            let pages = Pages::of_vacuum(index, (*info).strategy);
            let mut dead = |row: Tid| {
                let mut pointer = item_pointer(row);
                pg_sys::ffi::pg_guard_ffi_boundary(|| callback(&mut pointer, state))
            };
            let vacuumed = ivf_core::bulk_delete(&pages, &mut dead).map_err(|error| failure(error, index))?;
            report(&pages, index, result, vacuumed)
        }
    })
}

/// Ends a vacuum: puts lists in order, refreshes what is stored about them. Does nothing for ANALYZE.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amvacuumcleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    result: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    boundary(|| {
        // SAFETY: PostgreSQL's vacuum passes an open index.
        unsafe {
            if (*info).analyze_only {
                return Ok(result);
            }
            let index = (*info).index;
            let pages = Pages::of_vacuum(index, (*info).strategy);
            let vacuumed = ivf_core::cleanup(&pages).map_err(|error| failure(error, index))?;
            let result = report(&pages, index, result, vacuumed)?;
            pg_sys::IndexFreeSpaceMapVacuum(index);
            Ok(result)
        }
    })
}

/// Adds to what this vacuum has done so far, which PostgreSQL shows and writes to `pg_class`.
///
/// # Safety
/// `result` must be none or what an earlier call of the same vacuum returned.
unsafe fn report(
    pages: &Pages,
    index: pg_sys::Relation,
    result: *mut pg_sys::IndexBulkDeleteResult,
    vacuumed: Vacuumed,
) -> Result<*mut pg_sys::IndexBulkDeleteResult, Failure> {
    use ivf_core::PageStore;
    // SAFETY: the caller vouches for `result`; palloc0 gives a zeroed one where there is none.
    unsafe {
        let blocks = pages.blocks().map_err(|error| failure(error, index))?;
        let result = if result.is_null() {
            pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>()).cast()
        } else {
            result
        };
        (*result).num_pages = blocks;
        (*result).estimated_count = false;
        (*result).num_index_tuples = vacuumed.remaining as f64;
        (*result).tuples_removed += vacuumed.removed as f64;
        Ok(result)
    }
}

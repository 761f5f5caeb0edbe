//! `INSERT`: one row into the list whose centroid is nearest.
use ivf_core::Tid;
use pgrx::prelude::*;

use super::column::{Column, widened};
use super::error::failure;
use super::filters::Filters;
use super::pages::Pages;
use crate::failure::{Failure, boundary};

/// A row's place as the index stores it.
///
/// # Safety
/// `pointer` must be valid for reading.
pub(super) unsafe fn tid(pointer: pg_sys::ItemPointer) -> Tid {
    // SAFETY: the caller vouches for the pointer; the block number is two halves, the upper one first.
    unsafe {
        let pointer = &*pointer;
        let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
        Tid::new(block, pointer.ip_posid)
    }
}

/// The same as PostgreSQL has it.
pub(super) fn item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    let block = tid.block();
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (block >> 16) as u16,
            bi_lo: block as u16,
        },
        ip_posid: tid.offset(),
    }
}

/// Inserts a row. NULL, and a zero vector under the cosine distance, have no place in the index.
#[pg_guard]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    row: pg_sys::ItemPointer,
    _table: pg_sys::Relation,
    _unique: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    _info: *mut pg_sys::IndexInfo,
) -> bool {
    boundary(|| {
        // SAFETY: PostgreSQL passes one value per column, the vector first.
        unsafe {
            if !*nulls {
                insert(index, *values, &Filters::of(index)?.values(values, nulls), tid(row))?;
            }
        }
        // The answer is about uniqueness, which this index does not check.
        Ok(false)
    })
}

/// # Safety
/// `index` must be an open index of this access method, `value` a non-null value of its first column; `filters` are
/// those of the others.
pub(super) unsafe fn insert(
    index: pg_sys::Relation,
    value: pg_sys::Datum,
    filters: &[Option<i128>],
    row: Tid,
) -> Result<bool, Failure> {
    // SAFETY: the caller vouches for both.
    unsafe {
        let value = Column::of(index)?.read(value)?;
        let pages = Pages::new(index);
        let vector = widened(value.elements());
        ivf_core::insert_with(&pages, &vector, filters, row).map_err(|error| failure(error, index))
    }
}

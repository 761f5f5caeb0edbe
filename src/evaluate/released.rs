//! What a long computation reads, without keeping its locks: nobody's ALTER TABLE waits while images are embedded.

use std::ffi::CString;

use pgrx::prelude::*;

use crate::failure::{Failure, boundary};
use crate::flagging::{Ended, subtransaction};

/// Rows fetched at a time.
const ROWS: i64 = 50;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_read_and_release() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The rows of a query, read to its end and kept (beyond work_mem in a temporary file). It is read in a subtransaction
/// that is taken back: its locks end with it.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn read_and_release(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    boundary(|| {
        // SAFETY: by contract fcinfo is valid; the function is strict and has one argument of type text.
        let statement: String = unsafe { pgrx::fcinfo::pg_getarg(fcinfo, 0) }.unwrap_or_default();
        // SAFETY: as above.
        let rows = unsafe { Rows::begin(fcinfo) }?;
        match subtransaction(|| {
            rows.read(&statement)?;
            // Nothing failed; what ends it is the one thing that releases locks before the transaction's end.
            Err::<(), Failure>(Failure::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, "read"))
        }) {
            Err(Ended::Failed(failure)) if failure.code() == PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION => {}
            Err(error) => error.again(),
            Ok(()) => {}
        }
        // SAFETY: as above. The rows are the result.
        unsafe { (*fcinfo).isnull = true };
        Ok(pg_sys::Datum::from(0usize))
    })
}

/// Where the rows go: the result of the call.
struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    columns: pg_sys::TupleDesc,
}

impl Rows {
    /// # Safety
    /// `fcinfo` must be that of the call.
    unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, Failure> {
        // SAFETY: the tag says whether there is a ReturnSetInfo; the store belongs to the query that calls, and so
        // outlives the subtransaction.
        unsafe {
            let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            if info.is_null()
                || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*info).expectedDesc.is_null()
                || (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize == 0
            {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "copymatch.read_and_release is called where its rows have no place",
                )
                .hint("Call it in FROM, with the columns: … AS rows (id bigint, image bytea)."));
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let columns = pg_sys::CreateTupleDescCopy((*info).expectedDesc);
            let random = (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = columns;
            Ok(Rows { store, columns })
        }
    }

    fn read(&self, statement: &str) -> Result<(), Failure> {
        let text = CString::new(statement).map_err(|_| internal("a statement with a NUL byte", 0))?;
        // SAFETY: SPI is connected and finished in pairs (where an ERROR unwinds, the subtransaction's end cleans up);
        // rows are copied before they are freed.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                return Err(internal("SPI_connect", 0));
            }
            let plan = pg_sys::SPI_prepare(text.as_ptr(), 0, std::ptr::null_mut());
            if plan.is_null() {
                return Err(internal("SPI_prepare", pg_sys::SPI_result));
            }
            let portal = pg_sys::SPI_cursor_open(std::ptr::null(), plan, std::ptr::null_mut(), std::ptr::null(), false);
            loop {
                pg_sys::SPI_cursor_fetch(portal, true, ROWS as _);
                let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed);
                if count == 0 {
                    break;
                }
                self.fits((*table).tupdesc)?;
                for row in 0..count as usize {
                    self.keep(*(*table).vals.add(row), (*table).tupdesc);
                }
                pg_sys::SPI_freetuptable(table);
            }
            pg_sys::SPI_cursor_close(portal);
            pg_sys::SPI_finish();
        }
        Ok(())
    }

    /// Whether the query gives the columns that the caller named.
    ///
    /// # Safety
    /// `found` must be valid.
    unsafe fn fits(&self, found: pg_sys::TupleDesc) -> Result<(), Failure> {
        // SAFETY: both are valid, and each number is one of an attribute.
        unsafe {
            let types = |columns: pg_sys::TupleDesc| {
                (1..=(*columns).natts)
                    .map(|number| pg_sys::SPI_gettypeid(columns, number))
                    .collect::<Vec<pg_sys::Oid>>()
            };
            if types(found) == types(self.columns) {
                return Ok(());
            }
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            "the columns of the query given to copymatch.read_and_release are of other types than said",
        ))
    }

    /// # Safety
    /// Row and description must be valid and fit the columns.
    unsafe fn keep(&self, row: pg_sys::HeapTuple, found: pg_sys::TupleDesc) {
        // SAFETY: the caller vouches for the row. What lies outside of it (TOAST) is fetched: without a
        // lock it may be gone tomorrow.
        unsafe {
            let count = usize::try_from((*found).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::from(0usize); count];
            let mut nulls = vec![true; count];
            pg_sys::heap_deform_tuple(row, found, values.as_mut_ptr(), nulls.as_mut_ptr());
            let mut fetched = Vec::new();
            for number in 0..count {
                let has_length = pg_sys::get_typlen(pg_sys::SPI_gettypeid(found, number as i32 + 1)) == -1;
                if nulls[number] || !has_length {
                    continue;
                }
                let held = values[number].cast_mut_ptr::<pg_sys::varlena>();
                let whole = pg_sys::pg_detoast_datum(held);
                if whole != held {
                    fetched.push(whole);
                    values[number] = pg_sys::Datum::from(whole);
                }
            }
            pg_sys::tuplestore_putvalues(self.store, self.columns, values.as_mut_ptr(), nulls.as_mut_ptr());
            for whole in fetched {
                pg_sys::pfree(whole.cast());
            }
        }
    }
}

fn internal(what: &str, status: i32) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("{what} failed with status {status}"),
    )
}

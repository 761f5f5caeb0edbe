//! Statements under the caller's rights, with plans kept for the life of the backend.
//!
//! pgrx's `Spi` runs read-write as soon as the transaction has an XID: a STABLE function would then see rows newer than
//! its statement's snapshot, and fail in a parallel worker. `select` passes `read_only = true`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};

use crate::failure::Failure;

/// Kept plans; when full, all are freed (a backend rarely uses more than a handful).
const MOST_PLANS: usize = 64;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static PLANS: RefCell<HashMap<(String, Vec<pg_sys::Oid>), pg_sys::SPIPlanPtr>> = RefCell::default();
}

/// A parameter: its type and value.
pub struct Parameter {
    oid: pg_sys::Oid,
    datum: Option<pg_sys::Datum>,
}

impl Parameter {
    /// A parameter of a built-in type.
    pub fn of<T: IntoDatum>(value: T) -> Self {
        Parameter {
            oid: T::type_oid(),
            datum: value.into_datum(),
        }
    }

    /// A parameter of a type whose OID is not fixed, such as `vector`.
    pub fn typed<T: IntoDatum>(value: T, oid: pg_sys::Oid) -> Self {
        Parameter {
            oid,
            datum: value.into_datum(),
        }
    }
}

/// One row of a result. Values are copied out; a column is read as the type that the statement casts it to.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// Column `number` (from 1), or None where it is NULL.
    pub fn get<T: FromDatum>(&self, number: i32) -> Option<T> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the open SPI connection; out-of-range columns give NULL.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            T::from_datum(datum, is_null)
        }
    }

    /// Column `number`, which the statement never leaves NULL.
    pub fn required<T: FromDatum>(&self, number: i32) -> Result<T, Failure> {
        self.get(number).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("column {number} of a catalogue query of copymatch is NULL"),
            )
            .hint("A table in schema \"copymatch\" was changed by hand.")
        })
    }
}

/// Counts the executions under way: a statement may call, through a view, a function that comes here again.
struct Executing;

impl Executing {
    fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Executing
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Runs `sql` with its parameters and maps each row. `sql` names every object with its schema.
pub fn select<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, true, map)
}

/// As `select`, for statements that write, and for queries that must see what this statement has written.
pub fn change<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, false, map)
}

fn run<T>(
    sql: &str,
    parameters: &[Parameter],
    read_only: bool,
    mut map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut datums: Vec<pg_sys::Datum> = parameters
        .iter()
        .map(|p| p.datum.unwrap_or_else(|| pg_sys::Datum::from(0usize)))
        .collect();
    let nulls: Vec<std::ffi::c_char> = parameters
        .iter()
        .map(|p| if p.datum.is_some() { b' ' } else { b'n' } as std::ffi::c_char)
        .collect();
    // SAFETY: SPI is connected and finished in pairs (an ERROR unwinds past SPI_finish; transaction abort then cleans up); the
    // plan has as many parameters as there are datums and nulls; rows are read before SPI_finish frees them.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
            return Err(internal("SPI_connect", 0));
        }
        let plan = match kept_plan(sql, parameters) {
            Ok(plan) => plan,
            Err(failure) => {
                pg_sys::SPI_finish();
                return Err(failure);
            }
        };
        let _executing = Executing::begin();
        let status = pg_sys::SPI_execute_plan(plan, datums.as_mut_ptr(), nulls.as_ptr(), read_only, 0);
        if status < 0 {
            pg_sys::SPI_finish();
            return Err(internal("SPI_execute_plan", status));
        }
        let table = pg_sys::SPI_tuptable;
        // A statement that returns nothing has no table.
        let count = if table.is_null() {
            0
        } else {
            usize::try_from(pg_sys::SPI_processed).unwrap_or(0)
        };
        let mut rows = Vec::with_capacity(count);
        for index in 0..count {
            let row = Row {
                tuple: *(*table).vals.add(index),
                descriptor: (*table).tupdesc,
            };
            match map(&row) {
                Ok(value) => rows.push(value),
                Err(failure) => {
                    pg_sys::SPI_finish();
                    return Err(failure);
                }
            }
        }
        pg_sys::SPI_finish();
        Ok(rows)
    }
}

/// The kept plan of `sql`, prepared at first use. PostgreSQL's plan cache revalidates it after DDL, and by role where row
/// security applies.
///
/// # Safety
/// SPI is connected.
unsafe fn kept_plan(sql: &str, parameters: &[Parameter]) -> Result<pg_sys::SPIPlanPtr, Failure> {
    let mut oids: Vec<pg_sys::Oid> = parameters.iter().map(|p| p.oid).collect();
    let key = (sql.to_owned(), oids.clone());
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
        return Ok(plan);
    }
    let text = CString::new(sql).map_err(|_| internal("a statement with a NUL byte", 0))?;
    // SAFETY: by contract SPI is connected; the plan outlives the connection once kept.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), oids.len() as i32, oids.as_mut_ptr());
        if plan.is_null() {
            return Err(internal("SPI_prepare", pg_sys::SPI_result));
        }
        pg_sys::SPI_keepplan(plan);
        plan
    };
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= MOST_PLANS && DEPTH.get() == 0 {
            for (_, old) in plans.drain() {
                // SAFETY: a kept plan, and DEPTH says that none is being executed.
                unsafe { pg_sys::SPI_freeplan(old) };
            }
        }
        plans.insert(key, plan);
    });
    Ok(plan)
}

fn internal(what: &str, status: i32) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("{what} failed with status {status}"),
    )
}

//! Statements under the caller's rights, with plans kept for the life of the backend.
//!
//! pgrx's `Spi` runs read-write as soon as the transaction has an XID: a STABLE function would then see rows newer than
//! its statement's snapshot, and fail in a parallel worker. `select` passes `read_only = true`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum, PgMemoryContexts};

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

impl Parameter {
    /// Type and value, None for NULL.
    pub fn parts(&self) -> (pg_sys::Oid, Option<pg_sys::Datum>) {
        (self.oid, self.datum)
    }
}

/// One row of a result. Values are copied out; a column is read as the type that the statement casts it to.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// A row of a table.
    ///
    /// # Safety
    /// The row fits the descriptor, and both stay valid while the value is used.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Row {
        Row { tuple, descriptor }
    }

    /// The number of the column of this name.
    pub fn column(&self, name: &CStr) -> Result<i32, Failure> {
        // SAFETY: the descriptor is only read; system columns have negative numbers.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor, name.as_ptr()) };
        if number > 0 {
            return Ok(number);
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!(
                "a table in schema \"copymatch\" has no column \"{}\"",
                name.to_string_lossy()
            ),
        )
        .hint("Was it changed by hand? Else: ALTER EXTENSION copymatch UPDATE."))
    }

    /// The OID in a column of type oid, regclass or regrole.
    pub fn oid(&self, number: i32) -> Option<pg_sys::Oid> {
        let mut is_null = false;
        // SAFETY: as for get(); the datum is read as the type that it is of.
        unsafe {
            let kind = pg_sys::SPI_gettypeid(self.descriptor, number);
            if ![pg_sys::OIDOID, pg_sys::REGCLASSOID, pg_sys::REGROLEOID].contains(&kind) {
                return None;
            }
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            pg_sys::Oid::from_datum(datum, is_null)
        }
    }

    /// The elements of a column of type name[] that are not NULL.
    pub fn names(&self, number: i32) -> Vec<String> {
        let mut is_null = false;
        // SAFETY: as for get(); the array's elements are copied out.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            if is_null || pg_sys::SPI_gettypeid(self.descriptor, number) != pg_sys::NAMEARRAYOID {
                return Vec::new();
            }
            let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast(),
                pg_sys::NAMEOID,
                size_of::<pg_sys::NameData>() as i32,
                false,
                b'c' as std::ffi::c_char,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            (0..usize::try_from(count).unwrap_or(0))
                .filter(|&at| !*nulls.add(at))
                .map(|at| {
                    let name = (*elements.add(at)).cast_mut_ptr::<std::ffi::c_char>();
                    CStr::from_ptr(name).to_string_lossy().into_owned()
                })
                .collect()
        }
    }

    /// Column `number` (from 1), or None where it is NULL. Its type must be `T`'s own: a datum of another type, read as
    /// this one, would be a wild pointer.
    pub fn get<T: FromDatum + IntoDatum>(&self, number: i32) -> Result<Option<T>, Failure> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the open SPI connection; out-of-range columns give InvalidOid and
        // NULL; the datum is read as the type that it is of.
        unsafe {
            let actual = pg_sys::SPI_gettypeid(self.descriptor, number);
            if actual != T::type_oid() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("column {number} of a query of copymatch is of another type than expected"),
                )
                .detail(format!(
                    "Expected {}, found {}.",
                    type_name(T::type_oid()),
                    type_name(actual)
                ))
                .hint("Was a column's type changed, or an object in schema \"copymatch\" altered by hand?"));
            }
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            Ok(T::from_datum(datum, is_null))
        }
    }

    /// Column `number`, of whatever type, as its type's output function writes it: no cast of anybody's runs.
    pub fn text(&self, number: i32) -> Option<String> {
        // SAFETY: as for get(); SPI_getvalue answers null for NULL, else a palloc'd text that is copied.
        unsafe {
            let text = pg_sys::SPI_getvalue(self.tuple, self.descriptor, number);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }

    /// Column `number`, of whatever type of varying length, copied to where the caller of the
    /// statement keeps its values.
    pub fn copied(&self, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: as for get(); a type of varying length is copied by the length that stands in the value.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            (!is_null).then(|| pg_sys::SPI_datumTransfer(datum, false, -1))
        }
    }

    /// Column `number`, which the statement never leaves NULL.
    pub fn required<T: FromDatum + IntoDatum>(&self, number: i32) -> Result<T, Failure> {
        self.get(number)?.ok_or_else(|| is_null(&format!("column {number}")))
    }

    /// The error that a column is NULL which never is.
    pub fn is_null(&self, name: &CStr) -> Failure {
        is_null(&format!("column \"{}\"", name.to_string_lossy()))
    }
}

fn is_null(what: &str) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("{what} of a catalogue query of copymatch is NULL"),
    )
    .hint("A table in schema \"copymatch\" was changed by hand.")
}

/// A type as SQL names it.
fn type_name(oid: pg_sys::Oid) -> String {
    // SAFETY: a look-up in PostgreSQL's caches that answers "???" for what is no type; the
    // string is palloc'd and copied.
    unsafe {
        CStr::from_ptr(pg_sys::format_type_be(oid))
            .to_string_lossy()
            .into_owned()
    }
}

/// Whose names a statement meets where it leaves out schemas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// PostgreSQL's own: search_path is pg_catalog, pg_temp while the statement is parsed and runs.
    Pinned,
    /// The session's. The statement names every object, operator and type with its schema.
    Session,
}

/// search_path pinned, until it is dropped or its (sub)transaction ends.
pub(crate) struct PinnedPath(i32);

impl PinnedPath {
    /// Pins it.
    pub(crate) fn new() -> Self {
        // SAFETY: as fmgr_security_definer does for a function with SET search_path: a level of settings that ends with
        // this value, or, where PostgreSQL raises, with the (sub)transaction.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                c"pg_catalog, pg_temp".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            PinnedPath(level)
        }
    }
}

impl Drop for PinnedPath {
    fn drop(&mut self) {
        // SAFETY: see above. While an ERROR unwinds, the transaction's abort does this itself.
        if !std::thread::panicking() {
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
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

/// Runs `sql` with its parameters under a pinned search_path and maps each row.
pub fn select<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, Path::Pinned, true, map)
}

/// As `select`, under the session's search_path, which functions of users behind views and policies may rely on. `sql`
/// itself names every object, operator and type with its schema, so that it means the same under every path.
pub fn select_qualified<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, Path::Session, true, map)
}

/// As `select`, for statements that write, and for queries that must see what this statement has written.
pub fn change<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, Path::Pinned, false, map)
}

/// As `select_qualified`, for statements that write.
pub fn change_qualified<T>(
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, parameters, Path::Session, false, map)
}

/// Rows that `each` fetches at a time.
const FETCHED: std::ffi::c_long = 10;

/// Runs a query as `change` does and passes on one row after the other: for rows that are too large to lie in memory
/// together, and work on each that may run statements of its own. What `work` allocates in PostgreSQL's memory is freed
/// behind each row.
pub fn each(
    sql: &str,
    parameters: &[Parameter],
    mut work: impl FnMut(&Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = CString::new(sql).map_err(|_| internal("a statement with a NUL byte", 0))?;
    let mut oids: Vec<pg_sys::Oid> = parameters.iter().map(|p| p.oid).collect();
    let (mut datums, nulls) = values(parameters);
    let _pinned = PinnedPath::new();
    // SAFETY: SPI is connected and finished in pairs (an ERROR unwinds past SPI_finish; transaction abort then cleans
    // up); there are as many types as datums and nulls; rows are read before the table that holds them is freed.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
            return Err(internal("SPI_connect", 0));
        }
        let portal = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            text.as_ptr(),
            oids.len() as i32,
            oids.as_mut_ptr(),
            datums.as_mut_ptr(),
            nulls.as_ptr(),
            false,
            0,
        );
        let mut memory = PgMemoryContexts::new("copymatch: a row at a time");
        let mut outcome = Ok(());
        while outcome.is_ok() {
            pg_sys::SPI_cursor_fetch(portal, true, FETCHED);
            let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
            if table.is_null() || count == 0 {
                break;
            }
            outcome = (0..count).try_for_each(|index| {
                let row = Row {
                    tuple: *(*table).vals.add(index),
                    descriptor: (*table).tupdesc,
                };
                let done = memory.switch_to(|_| work(&row));
                memory.reset();
                done
            });
            pg_sys::SPI_freetuptable(table);
        }
        drop(memory);
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
        outcome
    }
}

/// Datums and nulls of parameters, as SPI takes them.
fn values(parameters: &[Parameter]) -> (Vec<pg_sys::Datum>, Vec<std::ffi::c_char>) {
    let datum = |p: &Parameter| p.datum.unwrap_or_else(|| pg_sys::Datum::from(0usize));
    let null = |p: &Parameter| if p.datum.is_some() { b' ' } else { b'n' } as std::ffi::c_char;
    (
        parameters.iter().map(datum).collect(),
        parameters.iter().map(null).collect(),
    )
}

fn run<T>(
    sql: &str,
    parameters: &[Parameter],
    path: Path,
    read_only: bool,
    mut map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut datums, nulls) = values(parameters);
    // Dropped behind SPI_finish.
    let _pinned = (path == Path::Pinned).then(PinnedPath::new);
    // SAFETY: SPI is connected and finished in pairs (an ERROR unwinds past SPI_finish; transaction abort then cleans
    // up); the plan has as many parameters as there are datums and nulls; rows are read before SPI_finish frees them.
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

/// The kept plan of `sql`, prepared at first use. PostgreSQL's plan cache revalidates it after DDL, and by role
/// where row security applies.
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

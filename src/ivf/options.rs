//! What `CREATE INDEX … WITH (…)` takes.
use std::cell::Cell;

use pgrx::prelude::*;

/// The most lists that can be asked for.
pub(super) const MOST_LISTS: i32 = 1_000_000;

/// As PostgreSQL keeps them in `rd_options`: a varlena.
#[repr(C)]
struct Options {
    varlena: i32,
    lists: i32,
}

thread_local! {
    // The backend's main thread is the only one that asks.
    static KIND: Cell<pg_sys::relopt_kind::Type> = const { Cell::new(0) };
}

/// Tells PostgreSQL the options. Called once, when the library is loaded.
pub(super) fn register() {
    // SAFETY: called from _PG_init; PostgreSQL copies the texts.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        pg_sys::add_int_reloption(
            kind,
            c"lists".as_ptr(),
            c"Number of lists. 0, the default, chooses it from the number of rows.".as_ptr(),
            0,
            0,
            MOST_LISTS,
            pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE,
        );
        KIND.set(kind);
    }
}

/// Parses and checks the options.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amoptions(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    // SAFETY: all zeros is a valid value of the plain struct, whatever fields this PostgreSQL's has besides.
    let mut lists: pg_sys::relopt_parse_elt = unsafe { std::mem::zeroed() };
    lists.optname = c"lists".as_ptr();
    lists.opttype = pg_sys::relopt_type::RELOPT_TYPE_INT;
    lists.offset = std::mem::offset_of!(Options, lists) as core::ffi::c_int;
    // SAFETY: the table describes `Options`, whose size is given.
    unsafe { pg_sys::build_reloptions(options, validate, KIND.get(), size_of::<Options>(), &lists, 1).cast() }
}

/// The lists that an index was asked to have; none where they are chosen from the number of rows.
///
/// # Safety
/// `index` must be an open index of this access method.
pub(super) unsafe fn lists(index: pg_sys::Relation) -> Option<u32> {
    // SAFETY: PostgreSQL keeps here what `amoptions` returned for this index, or nothing.
    let stated = unsafe {
        let options = (*index).rd_options.cast::<Options>();
        if options.is_null() { 0 } else { (*options).lists }
    };
    u32::try_from(stated).ok().filter(|&lists| lists > 0)
}

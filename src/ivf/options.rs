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
    dimensions: i32,
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
        pg_sys::add_int_reloption(
            kind,
            c"dimensions".as_ptr(),
            c"Dimensions of the vectors, where the column's type does not state them.".as_ptr(),
            0,
            0,
            ivf_core::MAX_DIMENSIONS as i32,
            // It says nothing about an index that is there, only what the next build makes.
            pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE,
        );
        KIND.set(kind);
    }
}

/// Parses and checks the options.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amoptions(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    let number = |name: &'static core::ffi::CStr, offset: usize| {
        // SAFETY: all zeros is a valid value of the plain struct, whatever fields this PostgreSQL's has besides.
        let mut option: pg_sys::relopt_parse_elt = unsafe { std::mem::zeroed() };
        option.optname = name.as_ptr();
        option.opttype = pg_sys::relopt_type::RELOPT_TYPE_INT;
        option.offset = offset as core::ffi::c_int;
        option
    };
    let known = [
        number(c"lists", std::mem::offset_of!(Options, lists)),
        number(c"dimensions", std::mem::offset_of!(Options, dimensions)),
    ];
    let (kind, size) = (KIND.get(), size_of::<Options>());
    // SAFETY: the table describes `Options`, whose size is given.
    unsafe { pg_sys::build_reloptions(options, validate, kind, size, known.as_ptr(), known.len() as i32).cast() }
}

/// The lists that an index was asked to have; none where they are chosen from the number of rows.
///
/// # Safety
/// `index` must be an open index of this access method.
pub(super) unsafe fn lists(index: pg_sys::Relation) -> Option<u32> {
    // SAFETY: the caller vouches for the index.
    unsafe { stated(index, |options| options.lists) }
}

/// The dimensions that an index was told to have; none where the column's type states them.
///
/// # Safety
/// `index` must be an open index of this access method.
pub(super) unsafe fn dimensions(index: pg_sys::Relation) -> Option<u32> {
    // SAFETY: the caller vouches for the index.
    unsafe { stated(index, |options| options.dimensions) }
}

/// # Safety
/// `index` must be an open index of this access method.
unsafe fn stated(index: pg_sys::Relation, option: impl Fn(&Options) -> i32) -> Option<u32> {
    // SAFETY: PostgreSQL keeps here what `amoptions` returned for this index, or nothing.
    let options = unsafe { (*index).rd_options.cast::<Options>().as_ref() }?;
    u32::try_from(option(options)).ok().filter(|&number| number > 0)
}

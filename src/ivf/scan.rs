//! Index scans: rows in the order of their distance from the query.
//!
//! What a scan knows lies in Rust's memory behind `opaque`. It is freed when the scan ends, or with the memory context
//! of the query when an error skips that end.
use ivf_core::{Filter, Iteration, Meta, Search, SearchOptions};
use pgrx::prelude::*;

use super::announced;
use super::column::{Column, widened};
use super::error::failure;
use super::filters::Filters;
use super::insert::item_pointer;
use super::operators::BOUND_STRATEGY;
use super::pages::Pages;
use super::rows::{Exact, Rows};
use super::value::Owned;
use super::within;
use crate::failure::{Failure, boundary};
use crate::settings;

/// A scan between its begin and its end.
struct Scan {
    column: Column,
    filters: Filters,
    pages: Pages,
    /// What the columns behind the vector must be; none where nothing is asked of them.
    asked: Option<Filter>,
    /// None before the scan is (re)started; then the query, itself none for SQL NULL.
    query: Option<Option<Owned>>,
    /// Nothing farther than this is asked for. NaN: nothing at all is.
    bound: Option<f64>,
    search: Option<Search>,
    rows: Option<Rows>,
    /// Where PostgreSQL keeps the scan.
    context: pg_sys::MemoryContext,
}

/// What `opaque` points to.
struct Holder {
    scan: Option<Box<Scan>>,
    freed: pg_sys::MemoryContextCallback,
}

/// Frees what an error has left.
#[pg_guard]
unsafe extern "C-unwind" fn context_reset(holder: *mut core::ffi::c_void) {
    // SAFETY: registered with the holder, which lies in the context that is being reset now. PostgreSQL's resources of
    // the scan are released by PostgreSQL; dropping touches only memory of Rust.
    unsafe { drop((*holder.cast::<Holder>()).scan.take()) }
}

/// Prepares a scan.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn ambeginscan(
    index: pg_sys::Relation,
    keys: core::ffi::c_int,
    order_bys: core::ffi::c_int,
) -> pg_sys::IndexScanDesc {
    boundary(|| {
        // SAFETY: the index is open as long as the scan lives. All memory is of the current context, in which
        // PostgreSQL keeps the scan; the arrays are as long as it expects them.
        unsafe {
            let scan = pg_sys::RelationGetIndexScan(index, keys, order_bys);
            let count = usize::try_from(order_bys).unwrap_or(0);
            if count > 0 {
                (*scan).xs_orderbyvals = pg_sys::palloc0(count * size_of::<pg_sys::Datum>()).cast();
                (*scan).xs_orderbynulls = pg_sys::palloc(count * size_of::<bool>()).cast();
                std::slice::from_raw_parts_mut((*scan).xs_orderbynulls, count).fill(true);
            }
            let holder: *mut Holder = pg_sys::palloc0(size_of::<Holder>()).cast();
            std::ptr::write(
                holder,
                Holder {
                    scan: Some(Box::new(Scan {
                        column: Column::of(index)?,
                        filters: Filters::of(index)?,
                        asked: None,
                        pages: Pages::new(index),
                        query: None,
                        bound: None,
                        search: None,
                        rows: None,
                        context: pg_sys::CurrentMemoryContext,
                    })),
                    freed: pg_sys::MemoryContextCallback {
                        func: Some(context_reset),
                        arg: holder.cast(),
                        next: std::ptr::null_mut(),
                    },
                },
            );
            pg_sys::MemoryContextRegisterResetCallback(pg_sys::CurrentMemoryContext, &mut (*holder).freed);
            (*scan).opaque = holder.cast();
            Ok(scan)
        }
    })
}

/// Starts or restarts a scan with its query and conditions.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amrescan(
    scan: pg_sys::IndexScanDesc,
    keys: pg_sys::ScanKey,
    key_count: core::ffi::c_int,
    order_bys: pg_sys::ScanKey,
    order_by_count: core::ffi::c_int,
) {
    boundary(|| {
        // SAFETY: the scan is ours, between begin and end; PostgreSQL passes as many keys as it says, or none to keep
        // the earlier ones.
        unsafe {
            copy_keys(keys, key_count, (*scan).keyData, (*scan).numberOfKeys);
            copy_keys(order_bys, order_by_count, (*scan).orderByData, (*scan).numberOfOrderBys);
            let state = state(scan)?;
            state.search = None;
            if let Some(rows) = &mut state.rows {
                rows.reset();
            }
            state.bound = bound(&*scan).map(|stated| state.column.bound(stated));
            state.asked = state
                .filters
                .asked(slice(&*scan, (*scan).keyData, (*scan).numberOfKeys));
            state.query = match slice(&*scan, (*scan).orderByData, (*scan).numberOfOrderBys) {
                [key] if key.sk_flags & pg_sys::SK_ISNULL as i32 != 0 => Some(None),
                [key] => Some(Some(state.column.read(key.sk_argument)?.elements().to_owned())),
                _ => None,
            };
            Ok(())
        }
    });
}

/// The next row, nearest first.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amgettuple(
    scan: pg_sys::IndexScanDesc,
    _direction: pg_sys::ScanDirection::Type,
) -> bool {
    boundary(|| {
        // SAFETY: the scan is ours, between begin and end, its relations are open.
        unsafe {
            let index = (*scan).indexRelation;
            let state = state(scan)?;
            let Some(query) = &state.query else {
                return Err(unordered((*scan).numberOfOrderBys));
            };
            if state.bound.is_some_and(f64::is_nan) {
                return Ok(false);
            }
            let rows = match &mut state.rows {
                Some(rows) => rows,
                none => {
                    let caller = pg_sys::MemoryContextSwitchTo(state.context);
                    let rows = Rows::begin(&*scan);
                    pg_sys::MemoryContextSwitchTo(caller);
                    none.insert(rows)
                }
            };
            let search = match &mut state.search {
                Some(search) => search,
                none => {
                    must_be_mvcc((*scan).xs_snapshot)?;
                    count_scan(&*scan);
                    state.pages.reserve_recent();
                    let options = options(&*scan, state.bound);
                    let begun = match query {
                        // Those begun together know no conditions.
                        Some(query) if state.asked.is_none() => {
                            announced::begun(&*scan, state.column, &state.pages, rows, query, options)?
                        }
                        _ => None,
                    };
                    none.insert(match begun {
                        Some(search) => search,
                        None => {
                            let widened = query.as_ref().map(|query| widened(query.elements()));
                            let started = match &state.asked {
                                None => Search::new(&state.pages, widened.as_deref(), options),
                                Some(asked) => Meta::read(&state.pages)
                                    .and_then(|meta| state.filters.are_those_of(&meta))
                                    .and_then(|()| {
                                        Search::filtered(&state.pages, widened.as_deref(), options, asked.clone())
                                    }),
                            };
                            started.map_err(|error| refused(error, state.column, index))?
                        }
                    })
                }
            };
            let mut exact = Exact {
                rows,
                column: state.column,
                query: query.as_ref(),
                failed: None,
            };
            let found = match search.next(&state.pages, &mut exact) {
                Ok(found) => found,
                Err(error) => return Err(exact.failure_of(error, index)),
            };
            let Some(hit) = found else { return Ok(false) };
            (*scan).xs_heaptid = item_pointer(hit.tid);
            // A hash is not the value, and some conditions say more than the index knows.
            (*scan).xs_recheck = state.asked.is_some();
            (*scan).xs_recheckorderby = false;
            *(*scan).xs_orderbyvals = pg_sys::Datum::from(state.column.stated(hit.distance).to_bits());
            *(*scan).xs_orderbynulls = query.is_none();
            Ok(true)
        }
    })
}

/// Ends a scan.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amendscan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: the scan is ours; after this the holder is empty, as its callback then finds it.
    unsafe {
        let holder = (*scan).opaque.cast::<Holder>();
        if !holder.is_null()
            && let Some(mut state) = (*holder).scan.take()
            && let Some(rows) = &mut state.rows
        {
            rows.end();
        }
    }
}

/// # Safety
/// The scan must be one of this access method.
unsafe fn state<'a>(scan: pg_sys::IndexScanDesc) -> Result<&'a mut Scan, Failure> {
    // SAFETY: `ambeginscan` put a holder there; nobody else has a reference into it during a callback.
    let scan = unsafe {
        (*scan)
            .opaque
            .cast::<Holder>()
            .as_mut()
            .and_then(|holder| holder.scan.as_deref_mut())
    };
    scan.ok_or_else(|| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "this ivf scan has ended"))
}

/// # Safety
/// `to` must have room for `room` keys, `from` must hold `count`, or be null.
unsafe fn copy_keys(from: pg_sys::ScanKey, count: i32, to: pg_sys::ScanKey, room: i32) {
    if !from.is_null() && !to.is_null() && count > 0 {
        // SAFETY: the caller vouches for both. They may be the same.
        unsafe { std::ptr::copy(from, to, usize::try_from(count.min(room)).unwrap_or(0)) }
    }
}

/// The keys of a scan.
fn slice(_scan: &pg_sys::IndexScanDescData, keys: pg_sys::ScanKey, count: i32) -> &[pg_sys::ScanKeyData] {
    if keys.is_null() {
        return &[];
    }
    // SAFETY: RelationGetIndexScan allocated as many, and they live as long as the scan.
    unsafe { std::slice::from_raw_parts(keys, usize::try_from(count).unwrap_or(0)) }
}

/// The smallest of the distances beyond which nothing is asked for. NaN where one of them is NULL: no row satisfies
/// that. A distance that is NaN is no bound: PostgreSQL holds every number for less.
fn bound(scan: &pg_sys::IndexScanDescData) -> Option<f64> {
    slice(scan, scan.keyData, scan.numberOfKeys)
        .iter()
        .filter(|key| key.sk_strategy == BOUND_STRATEGY)
        .map(|key| {
            if key.sk_flags & pg_sys::SK_ISNULL as i32 != 0 {
                f64::NAN
            } else {
                let distance = f64::from_bits(key.sk_argument.value() as u64);
                if distance.is_nan() { f64::INFINITY } else { distance }
            }
        })
        .filter(|distance| *distance != f64::INFINITY)
        .reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) })
}

/// # Safety
/// The scan's table must be open.
unsafe fn options(scan: &pg_sys::IndexScanDescData, bound: Option<f64>) -> SearchOptions {
    // SAFETY: the caller vouches for it.
    let table = unsafe { (*scan.heapRelation).rd_id };
    SearchOptions {
        probes: settings::probes(),
        target_recall: within::target_recall(table),
        bound,
        iteration: match settings::iterative_scan() {
            settings::IterativeScan::Off => Iteration::Off,
            settings::IterativeScan::RelaxedOrder => Iteration::Relaxed,
            settings::IterativeScan::StrictOrder => Iteration::Strict,
        },
        rerank: settings::rerank(),
    }
}

/// An error of a search's start. A query of another length is refused in the words of the operator.
///
/// # Safety
/// `index` must be open.
unsafe fn refused(error: ivf_core::Error, column: Column, index: pg_sys::Relation) -> Failure {
    if let ivf_core::Error::Dimensions { expected, actual } = error {
        let error = column.different(expected, actual);
        return Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string())
            .hint(error.hint().unwrap_or_default());
    }
    // SAFETY: the caller vouches for it.
    unsafe { failure(error, index) }
}

/// The order is all that this index knows; the planner asks for it otherwise only when told to avoid everything else.
fn unordered(order_bys: i32) -> Failure {
    let message = if order_bys == 0 {
        "cannot scan ivf index without order"
    } else {
        "cannot scan ivf index by more than one distance"
    };
    Failure::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
}

/// Rows are fetched long after their pages were unlocked. Only with an MVCC snapshot can a row that took the place of
/// another meanwhile not be seen.
///
/// # Safety
/// `snapshot` must be valid or null.
unsafe fn must_be_mvcc(snapshot: pg_sys::Snapshot) -> Result<(), Failure> {
    use pg_sys::SnapshotType::{SNAPSHOT_HISTORIC_MVCC, SNAPSHOT_MVCC};
    // SAFETY: the caller vouches for it.
    let kind = unsafe { snapshot.as_ref() }.map(|snapshot| snapshot.snapshot_type);
    if matches!(kind, Some(SNAPSHOT_MVCC | SNAPSHOT_HISTORIC_MVCC)) {
        return Ok(());
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "non-MVCC snapshots are not supported with ivf",
    ))
}

/// Counts a scan for `pg_stat_user_indexes` (and, from PostgreSQL 18, EXPLAIN); PostgreSQL has macros for it.
///
/// # Safety
/// The scan's index must be open.
unsafe fn count_scan(scan: &pg_sys::IndexScanDescData) {
    let index = scan.indexRelation;
    // SAFETY: the caller vouches for it; pgstat_assoc_relation gives the relation its counters.
    unsafe {
        #[cfg(feature = "pg18")]
        if let Some(instrument) = scan.instrument.as_mut() {
            instrument.nsearches += 1;
        }
        #[cfg(not(feature = "pg14"))]
        if (*index).pgstat_info.is_null() && (*index).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(index);
        }
        if let Some(info) = (*index).pgstat_info.as_mut() {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            {
                info.t_counts.t_numscans += 1;
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            {
                info.counts.numscans += 1;
            }
        }
    }
}

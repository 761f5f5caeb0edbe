//! `copy_index_check`, `copy_index_stats` and `copy_index_dimensions`.
use std::collections::{HashMap, HashSet};

use ivf_core::{CheckedRow, Meta, Tid};
use pgrx::prelude::*;
use pgrx::{JsonB, name};

use super::column::{Column, widened};
use super::error::failure;
use super::filters::Filters;
use super::heap::BuildScan;
use super::pages::Pages;
use crate::failure::{Failure, boundary};
use crate::rights;
use crate::settings;
use crate::statements::PinnedPath;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
extern "C" fn pg_finfo_ivf_within() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Accepts every row, of either type: the operator carries a distance bound to the index, and the row's own condition
/// decides.
#[unsafe(no_mangle)]
extern "C-unwind" fn ivf_within(_: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    pg_sys::Datum::from(true)
}

/// What is wrong with an index: one row for each problem, none when it is sound.
#[pg_extern(sql = false, volatile, strict)]
fn copy_index_check(
    index: pg_sys::Oid,
    heap_agreement: bool,
) -> TableIterator<'static, (name!(block, Option<i64>), name!(problem, String))> {
    boundary(|| {
        let opened = Opened::new(index)?;
        // The snapshot is taken first: every row that it sees was in the index before.
        let snapshot = heap_agreement.then(Snapshot::take);
        let mut seen = Seen::default();
        let report = ivf_core::check_rows(&opened.pages(), &mut |row| {
            if heap_agreement {
                seen.add(&row)?;
            }
            Ok(())
        })
        .map_err(|error| opened.failure_of(error))?;
        let mut problems: Vec<(Option<i64>, String)> = report
            .problems
            .into_iter()
            .map(|(block, problem)| (Some(i64::from(block)), problem))
            .collect();
        if let Some(snapshot) = snapshot {
            // Expressions and the predicate of the index are the owner's code.
            // SAFETY: open, so that its row of pg_class is there.
            let owner = unsafe { (*(*opened.table).rd_rel).relowner };
            problems.extend(rights::as_role(owner, || {
                let _pinned = PinnedPath::new();
                missing_rows(&opened, &snapshot, &seen)
            })?);
        }
        Ok(TableIterator::new(problems))
    })
}

/// The rows of an index.
#[derive(Default)]
struct Seen {
    rows: HashSet<Tid>,
    /// The block of each, and the values of its filter columns, where it has any.
    values: HashMap<Tid, (u32, Box<[u8]>)>,
}

impl Seen {
    fn add(&mut self, row: &CheckedRow<'_>) -> ivf_core::Result<()> {
        self.rows.try_reserve(1)?;
        self.rows.insert(row.tid);
        if !row.filters.is_empty() {
            self.values.try_reserve(1)?;
            self.values.insert(row.tid, (row.block, row.filters.into()));
        }
        Ok(())
    }
}

/// Rows that the snapshot sees and the index lacks, or has with other values in its filter columns.
fn missing_rows(opened: &Opened, snapshot: &Snapshot, seen: &Seen) -> Result<Vec<(Option<i64>, String)>, Failure> {
    let mut missing = Vec::new();
    // SAFETY: the relations are open and locked.
    let (column, filters, scan) = unsafe {
        let info = pg_sys::BuildIndexInfo(opened.index);
        // Rows are judged by the snapshot, as a concurrent build does, instead of as of now.
        (*info).ii_Concurrent = true;
        (
            Column::of(opened.index)?,
            Filters::of(opened.index)?,
            BuildScan::new(opened.table, opened.index, info),
        )
    };
    scan.rows_seen_by(snapshot.0, |row| {
        let Some(value) = row.value else { return Ok(()) };
        if seen.rows.contains(&row.tid) {
            if let Some((block, known)) = seen.values.get(&row.tid) {
                let mut true_ones = Vec::with_capacity(known.len());
                // SAFETY: the values are those of the index's columns, valid during this call.
                let values = unsafe { filters.values(row.columns.0, row.columns.1) };
                let put = filters.layout()?.put_row(&values, &mut true_ones);
                if put.is_err() || true_ones != **known {
                    let (at, offset) = (row.tid.block(), row.tid.offset());
                    let problem =
                        format!("row ({at},{offset}) has other values in the filter columns than in the table");
                    missing.push((Some(i64::from(*block)), problem));
                }
            }
            return Ok(());
        }
        // SAFETY: a value of the column, valid during this call.
        let value = unsafe { column.read(value)? };
        let has_place = column.metric != ivf_core::Metric::Cosine || vectors::norm(&widened(value.elements())) > 0.0;
        if has_place {
            let (block, offset) = (row.tid.block(), row.tid.offset());
            missing.push((None, format!("row ({block},{offset}) of the table is not in the index")));
        }
        Ok(())
    });
    Ok(missing)
}

/// What an index is made of.
#[pg_extern(sql = false, volatile, strict)]
#[allow(clippy::type_complexity)]
fn copy_index_stats(
    index: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(rows, i64),
        name!(lists, i64),
        name!(branches, i64),
        name!(empty_lists, i64),
        name!(mean_list, f64),
        name!(longest_list, i64),
        name!(imbalance, f64),
        name!(free_slots, i64),
        name!(pages, i64),
        name!(centroid_pages, i64),
        name!(scan_pages, i64),
        name!(refine_pages, i64),
        name!(bytes, i64),
        name!(dimensions, i32),
        name!(format_version, i32),
        name!(probes, i64),
        name!(curve, JsonB),
    ),
> {
    boundary(|| {
        let opened = Opened::new(index)?;
        let pages = opened.pages();
        let meta = Meta::read(&pages).map_err(|error| opened.failure_of(error))?;
        let stats = ivf_core::stats(&pages).map_err(|error| opened.failure_of(error))?;
        let curve = meta
            .curve
            .iter()
            .map(|point| serde_json::json!({"probes": point.probes, "recall": point.recall}))
            .collect();
        let probes = settings::probes().unwrap_or_else(|| meta.probes_for(settings::target_recall()));
        Ok(TableIterator::once((
            count(stats.rows),
            count(stats.lists),
            count(stats.branches),
            count(stats.empty_lists),
            stats.rows as f64 / f64::from(stats.lists.max(1)),
            count(stats.longest_list),
            stats.imbalance,
            count(stats.free_slots),
            count(stats.pages),
            count(stats.centroid_pages),
            count(stats.scan_pages),
            count(stats.refine_pages),
            count(stats.pages) * i64::from(pg_sys::BLCKSZ),
            meta.dimensions as i32,
            i32::from(meta.format_version()),
            count(probes.clamp(1, meta.lists.max(1))),
            JsonB(serde_json::Value::Array(curve)),
        )))
    })
}

/// The dimensions of an index's vectors; none where it cannot be read.
#[pg_extern(sql = false, volatile, strict)]
fn copy_index_dimensions(index: pg_sys::Oid) -> Option<i32> {
    boundary(|| {
        let opened = Opened::new(index)?;
        Ok(Meta::read(&opened.pages()).ok().map(|meta| meta.dimensions as i32))
    })
}

fn count(number: impl Into<u64>) -> i64 {
    i64::try_from(number.into()).unwrap_or(i64::MAX)
}

/// An ivf index and its table, locked for reading.
struct Opened {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

impl Opened {
    /// # Errors
    /// It is no valid ivf index, or the user may neither own nor inspect it.
    fn new(index: pg_sys::Oid) -> Result<Self, Failure> {
        // SAFETY: look-ups and locks inside a transaction. The table is locked before its index, as everywhere.
        unsafe {
            let table = pg_sys::IndexGetRelation(index, true);
            if table == pg_sys::InvalidOid {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("relation with OID {} is not an index", index.to_u32()),
                ));
            }
            may_inspect(table)?;
            let opened = Opened {
                table: pg_sys::table_open(table, LOCK),
                index: pg_sys::index_open(index, LOCK),
            };
            opened.must_be_checkable()?;
            Ok(opened)
        }
    }

    fn must_be_checkable(&self) -> Result<(), Failure> {
        // SAFETY: open relations have their rows of pg_class, and an index that of pg_index.
        let (class, valid, name) = unsafe {
            let class = &*(*self.index).rd_rel;
            (
                class,
                (*(*self.index).rd_index).indisvalid,
                pg_sys::name_data_to_str(&class.relname),
            )
        };
        // SAFETY: a look-up by a NUL-terminated name.
        let method = unsafe { pg_sys::get_index_am_oid(c"ivf".as_ptr(), true) };
        let refuse = |what: &str| {
            Err(Failure::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{name}\" is {what}"),
            ))
        };
        if class.relam != method {
            return refuse("not an ivf index");
        }
        if class.relkind as u8 != pg_sys::RELKIND_INDEX {
            return refuse("a partitioned index, which has no pages: name one of its partitions");
        }
        // SAFETY: the relation is open.
        let of_other_session =
            class.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP && !unsafe { (*self.index).rd_islocaltemp };
        if of_other_session {
            return refuse("a temporary index of another session");
        }
        if !valid {
            return refuse("not valid: its build did not end");
        }
        Ok(())
    }

    fn pages(&self) -> Pages {
        // SAFETY: open and locked as long as `self`.
        unsafe { Pages::new(self.index) }
    }

    fn failure_of(&self, error: ivf_core::Error) -> Failure {
        // SAFETY: open.
        unsafe { failure(error, self.index) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // After an error PostgreSQL closes relations itself.
        if !std::thread::panicking() {
            // SAFETY: ours, and used no more. The locks stay until the transaction's end.
            unsafe {
                pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
                pg_sys::table_close(self.table, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
        }
    }
}

/// Owners, superusers and members of pg_stat_scan_tables (and so of pg_monitor) may look into an index.
fn may_inspect(table: pg_sys::Oid) -> Result<(), Failure> {
    // SAFETY: look-ups inside a transaction.
    let allowed = unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owner = pg_sys::pg_class_ownercheck(table, user);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owner = pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, user);
        owner || pg_sys::has_privs_of_role(user, pg_sys::Oid::from(pg_sys::ROLE_PG_STAT_SCAN_TABLES))
    };
    if allowed {
        return Ok(());
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied: only the table's owner and members of pg_stat_scan_tables may inspect its index",
    ))
}

/// A registered snapshot.
struct Snapshot(pg_sys::Snapshot);

impl Snapshot {
    fn take() -> Self {
        // SAFETY: inside a transaction; registered, it stays valid until it is given back.
        Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()) })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // After an error PostgreSQL gives snapshots back itself.
        if !std::thread::panicking() {
            // SAFETY: registered by `take`, and used no more.
            unsafe { pg_sys::UnregisterSnapshot(self.0) }
        }
    }
}

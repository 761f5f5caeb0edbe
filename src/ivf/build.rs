//! `CREATE INDEX` and `REINDEX`: sample the table, train centroids, encode every row, write each list once.
use std::sync::Arc;

use encoder::SignalsBlocked;
use ivf_core::{Batch, Encoded, Encoders, FilterLayout, PageStore, Trained, Writer};
use pgrx::prelude::*;

use super::column::{Column, widened};
use super::error::failure;
use super::filters::Filters;
use super::heap::{BuildScan, Row};
use super::pages::Pages;
use super::sample::{self, Sampled};
use super::spill::Gathered;
use super::train;
use super::{insert, options};
use crate::failure::{Failure, boundary};
use crate::shortage;

/// Rows that a thread encodes at a time.
const BATCH: usize = 512;
/// Bytes that centroids take for each dimension while a build lasts: rotated, quantised, and in the tree.
const CENTROID_BYTES: usize = 8;

/// What `pg_stat_progress_create_index` shows. PostgreSQL keeps 1 for "initializing".
#[derive(Clone, Copy)]
enum Phase {
    Sampling = 2,
    Training,
    Encoding,
    Writing,
    Measuring,
}

/// The name of a phase.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut core::ffi::c_char {
    let name = match phase {
        1 => c"initializing",
        p if p == Phase::Sampling as i64 => c"sampling table",
        p if p == Phase::Training as i64 => c"training centroids",
        p if p == Phase::Encoding as i64 => c"assigning and encoding rows",
        p if p == Phase::Writing as i64 => c"writing lists",
        p if p == Phase::Measuring as i64 => c"measuring recall",
        _ => return std::ptr::null_mut(),
    };
    // PostgreSQL reads the text only.
    name.as_ptr().cast_mut()
}

/// Builds the index.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn ambuild(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    boundary(|| {
        // SAFETY: PostgreSQL passes open relations and holds the locks that a build needs.
        let (table_rows, index_rows) = unsafe { build(&BuildScan::new(table, index, info)) }?;
        // SAFETY: palloc0 gives room for the plain struct.
        unsafe {
            let result: *mut pg_sys::IndexBuildResult = pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast();
            (*result).heap_tuples = table_rows;
            (*result).index_tuples = index_rows;
            Ok(result)
        }
    })
}

/// Writes the empty index from which an unlogged one starts after a crash.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn ambuildempty(index: pg_sys::Relation) {
    boundary(|| {
        // SAFETY: PostgreSQL passes an open index whose initialisation fork exists and is empty.
        unsafe {
            let (column, dimensions) = (Column::of(index)?, Column::dimensions(index)?);
            let layout = Filters::of(index)?.layout()?;
            let pages = Pages::of_init_fork(index);
            ivf_core::create_empty_with(&pages, dimensions, layout, column.metric)
                .map_err(|error| failure(error, index))?;
        }
        Ok(())
    });
}

/// # Safety
/// The scan's index must be open and new.
unsafe fn build(scan: &BuildScan) -> Result<(f64, f64), Failure> {
    let index = scan.index;
    // SAFETY: the caller vouches for the index.
    let failure_of = |error: ivf_core::Error| unsafe { failure(error, index) };
    // SAFETY: the caller vouches for the index.
    let (column, filters, dimensions, lists, pages) = unsafe {
        (
            Column::of(index)?,
            Filters::of(index)?,
            Column::dimensions(index)?,
            options::lists(index),
            Pages::new(index),
        )
    };
    let layout = filters.layout()?;
    if pages.blocks().map_err(failure_of)? != 0 {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a new ivf index has pages already",
        ));
    }
    let memory = maintenance_memory();
    enter(Phase::Sampling, 0);
    let shape = (dimensions, layout);
    let Some(sampled) = sample::take(scan, column, shape, lists, memory)? else {
        return build_empty(scan, column, shape, &filters, &pages);
    };
    let Sampled { sample, lists, rows } = sampled;

    let sampled_rows = sample.len() as u64;
    enter(Phase::Training, sampled_rows);
    let trained = train::train(sample, lists, train::threads(), |done| {
        advance(done * sampled_rows / 1000)
    })?;
    let trained = Arc::new(trained.map_err(failure_of)?);

    enter(Phase::Encoding, rows as u64);
    let centroids = trained.lists() as usize * dimensions * CENTROID_BYTES;
    let budget = (memory / 4 * 3).saturating_sub(centroids).max(memory / 4);
    let mut encoding = Encoding::start(column, shape, &filters, &trained, budget, rows)?;
    let table_rows = scan.every_row(|row| encoding.add(row, &failure_of));
    let gathered = encoding.finish(&failure_of)?;

    enter(Phase::Writing, gathered.rows());
    let index_rows = gathered.rows() as f64;
    let mut writer = Writer::new(&pages, &trained).map_err(failure_of)?;
    gathered.write(&mut writer, advance)?.map_err(failure_of)?;
    writer.finish().map_err(failure_of)?;

    enter(Phase::Measuring, 0);
    ivf_core::measure_recall(&pages).map_err(failure_of)?;
    Ok((table_rows, index_rows))
}

/// An index of a table without rows. Those that only earlier transactions still see are inserted one by one.
fn build_empty(
    scan: &BuildScan,
    column: Column,
    (dimensions, layout): (usize, FilterLayout),
    filters: &Filters,
    pages: &Pages,
) -> Result<(f64, f64), Failure> {
    // SAFETY: the scan's index is open.
    let failure_of = |error: ivf_core::Error| unsafe { failure(error, scan.index) };
    ivf_core::create_empty_with(pages, dimensions, layout, column.metric).map_err(failure_of)?;
    enter(Phase::Encoding, 0);
    let mut index_rows = 0.0;
    let table_rows = scan.every_row(|row| {
        if let Some(value) = row.value {
            // SAFETY: the index is open, the values are those of its columns.
            let inserted = unsafe {
                let others = filters.values(row.columns.0, row.columns.1);
                insert::insert(scan.index, value, &others, row.tid)?
            };
            index_rows += f64::from(u8::from(inserted));
        }
        Ok(())
    });
    Ok((table_rows, index_rows))
}

/// Rows on their way from the table through the encoding threads.
struct Encoding<'t> {
    column: Column,
    dimensions: usize,
    layout: FilterLayout,
    filters: &'t Filters,
    trained: &'t Arc<Trained>,
    encoders: Encoders,
    gathered: Gathered,
    /// Rows that the table probably has.
    expected: f64,
    batch: Batch,
}

impl<'t> Encoding<'t> {
    fn start(
        column: Column,
        (dimensions, layout): (usize, FilterLayout),
        filters: &'t Filters,
        trained: &'t Arc<Trained>,
        budget: usize,
        expected: f64,
    ) -> Result<Self, Failure> {
        let encoders = {
            let _blocked = SignalsBlocked::new().map_err(|error| train::no_thread(&error))?;
            Encoders::start(trained, train::threads())
        };
        Ok(Encoding {
            column,
            dimensions,
            layout,
            filters,
            trained,
            encoders,
            gathered: Gathered::new(trained, budget)?,
            expected,
            batch: empty_batch(dimensions, layout)?,
        })
    }

    fn add(&mut self, row: Row, failure_of: &dyn Fn(ivf_core::Error) -> Failure) -> Result<(), Failure> {
        let Some(value) = row.value else { return Ok(()) };
        // SAFETY: a value of the column, valid during this call.
        let value = unsafe { self.column.read(value)? };
        let elements = value.elements();
        if elements.len() != self.dimensions {
            return Err(failure_of(ivf_core::Error::Dimensions {
                expected: self.dimensions,
                actual: elements.len(),
            }));
        }
        self.batch.tids.push(row.tid);
        self.batch.vectors.extend_from_slice(&widened(elements));
        // SAFETY: the values are those of the index's columns, valid during this call.
        let others = unsafe { self.filters.values(row.columns.0, row.columns.1) };
        let filters = &mut self.batch.filters;
        self.layout.put_row(&others, filters).map_err(failure_of)?;
        if self.batch.tids.len() == BATCH {
            self.submit(failure_of)?;
        }
        Ok(())
    }

    fn submit(&mut self, failure_of: &dyn Fn(ivf_core::Error) -> Failure) -> Result<(), Failure> {
        let mut batch = std::mem::replace(&mut self.batch, empty_batch(self.dimensions, self.layout)?);
        while let Some(refused) = self.encoders.submit(batch).map_err(failure_of)? {
            batch = refused;
            if let Some(encoded) = self.encoders.receive(true).map_err(failure_of)? {
                self.keep(encoded)?;
            }
        }
        while let Some(encoded) = self.encoders.receive(false).map_err(failure_of)? {
            self.keep(encoded)?;
        }
        Ok(())
    }

    fn keep(&mut self, encoded: Encoded) -> Result<(), Failure> {
        if memory::is_short() {
            return Err(shortage::failure(None));
        }
        self.gathered.add(encoded, self.trained, self.expected)?;
        advance(self.gathered.rows());
        Ok(())
    }

    fn finish(mut self, failure_of: &dyn Fn(ivf_core::Error) -> Failure) -> Result<Gathered, Failure> {
        self.submit(failure_of)?;
        while let Some(encoded) = self.encoders.receive(true).map_err(failure_of)? {
            self.keep(encoded)?;
        }
        Ok(self.gathered)
    }
}

fn empty_batch(dimensions: usize, layout: FilterLayout) -> Result<Batch, Failure> {
    Ok(Batch {
        tids: Vec::with_capacity(BATCH),
        vectors: memory::vector(BATCH * dimensions)?,
        filters: memory::vector(BATCH * layout.row_bytes())?,
    })
}

fn maintenance_memory() -> usize {
    // SAFETY: a setting of this process, in kilobytes.
    let kilobytes = unsafe { pg_sys::maintenance_work_mem };
    usize::try_from(kilobytes).unwrap_or(0) * 1024
}

fn enter(phase: Phase, rows: u64) {
    // SAFETY: these set a number in this backend's progress record, or do nothing where there is none.
    unsafe {
        pg_sys::pgstat_progress_update_param(pg_sys::PROGRESS_CREATEIDX_SUBPHASE as _, phase as i64);
        pg_sys::pgstat_progress_update_param(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL as _, rows as i64);
    }
    advance(0);
}

fn advance(rows: u64) {
    // SAFETY: as above.
    unsafe { pg_sys::pgstat_progress_update_param(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE as _, rows as i64) }
}

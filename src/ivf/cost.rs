//! What a scan costs, so that the planner chooses between this index, a btree on a filter, and reading everything.
//!
//! A scan is dear at its beginning (lists are probed before the first row comes out) and cheap per row. Someone who
//! takes few rows pays for the beginning; a selective filter takes many rows from the index, and pays for all that. The
//! table's pages are PostgreSQL's part of the estimate.
use ivf_core::{Geometry, Meta};
use pgrx::prelude::*;

use super::error::failure;
use super::pages::Pages;
use super::{bound, column};
use crate::failure::{Failure, boundary};
use crate::settings;

/// What a page costs that lies in memory, of what PostgreSQL reckons for one read from disk at random.
const IN_MEMORY: f64 = 0.1;
/// Rotation, quantisation and tables of the query, in cpu_tuple_cost: about 10 µs.
const QUERY: f64 = 400.0;
/// Rows that the one-bit kernel scans for what one operator call costs.
const ROWS_PER_OPERATOR: f64 = 4.0;
/// The share of the table's rows that lie within a distance bound, which PostgreSQL takes for a third, as for any
/// comparison with an expression. Who states a bound asks for copies: few rows. Where it is wide, the search still
/// ends with the probed lists.
const WITHIN_A_BOUND: f64 = 0.005;
/// A query looks closely at its nearest branches only.
const BRANCHES_OPENED: f64 = 0.1;

/// What the estimate needs to know of an index.
struct Shape {
    geometry: Geometry,
    lists: f64,
    branches: f64,
    probes: f64,
}

/// Estimates the costs of an index path, and hands the index a distance bound where the query states one.
#[pg_guard]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    _loops: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    boundary(|| {
        // SAFETY: the planner passes a path under construction, and places for the results.
        unsafe {
            let index = &*(*path).indexinfo;
            *correlation = 0.0;
            *pages = f64::from(index.pages);
            if bound::length((*path).indexorderbys) != 1 {
                // Without exactly one distance to order by there is nothing that this index can do.
                (*startup, *total, *selectivity) = (f64::INFINITY, f64::INFINITY, 0.0);
                #[cfg(feature = "pg18")]
                {
                    (*path).path.disabled_nodes = 2;
                }
                return Ok(());
            }
            let bounded = bound::add(root, path);
            let shape = Shape::of(index)?;
            let part = (shape.probes / shape.lists).clamp(0.0, 1.0);
            let (first, all) = costs(index, &shape, part);
            *startup = first;
            // With a bound the search ends with the probed lists.
            *total = if bounded { first + part * (all - first) } else { all };
            *selectivity = if bounded { part.min(WITHIN_A_BOUND) } else { 1.0 };
            Ok(())
        }
    });
}

/// The cost until the first row, and of all rows, without the table's.
///
/// # Safety
/// Inside the planner.
unsafe fn costs(index: &pg_sys::IndexOptInfo, shape: &Shape, part: f64) -> (f64, f64) {
    let (mut random_page, mut sequential_page) = (0.0, 0.0);
    // SAFETY: looks up a tablespace's settings; the other settings belong to this process.
    let (cpu_tuple, cpu_index_tuple, cpu_operator, cache) = unsafe {
        pg_sys::get_tablespace_page_costs(index.reltablespace, &mut random_page, &mut sequential_page);
        (
            pg_sys::cpu_tuple_cost,
            pg_sys::cpu_index_tuple_cost,
            pg_sys::cpu_operator_cost,
            f64::from(pg_sys::effective_cache_size),
        )
    };
    let rows = index.tuples.max(1.0);
    // What of the index does not fit into memory is read from disk.
    let from_disk = 1.0 - (cache / f64::from(index.pages).max(1.0)).min(1.0);
    let page = random_page * (IN_MEMORY + (1.0 - IN_MEMORY) * from_disk);

    let per_page = shape.geometry.centroids as f64;
    let directories = (shape.lists / per_page).ceil() * BRANCHES_OPENED.max(1.0 / shape.branches);
    let descent = (shape.branches / per_page).ceil() + directories.ceil();
    let list = (rows / shape.lists / shape.geometry.slots() as f64).ceil();
    let probe = |lists: f64| lists * list * page + rows * lists / shape.lists * cpu_operator / ROWS_PER_OPERATOR;

    let first = cpu_tuple * QUERY + descent * page + probe(shape.lists * part);
    let refined_pages = rows / shape.geometry.refines as f64;
    let all =
        first + probe(shape.lists * (1.0 - part)) + refined_pages * page + rows * (cpu_index_tuple + cpu_operator);
    (first, all)
}

impl Shape {
    /// # Safety
    /// Inside the planner, which has locked the index.
    unsafe fn of(index: &pg_sys::IndexOptInfo) -> Result<Self, Failure> {
        if index.hypothetical {
            return Self::guess(index.tuples);
        }
        // SAFETY: the planner has locked the index; after an error PostgreSQL closes it.
        unsafe {
            let relation = pg_sys::index_open(index.indexoid, pg_sys::NoLock as pg_sys::LOCKMODE);
            let failure_of = |error| failure(error, relation);
            let meta = Meta::read(&Pages::new(relation)).map_err(failure_of)?;
            let geometry = Geometry::new(meta.dimensions).map_err(failure_of)?;
            pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            let probes = settings::probes().unwrap_or_else(|| meta.probes_for(settings::target_recall()));
            Ok(Shape {
                geometry,
                lists: f64::from(meta.lists.max(1)),
                branches: f64::from(meta.branches.max(1)),
                probes: f64::from(probes.clamp(1, meta.lists.max(1))),
            })
        }
    }

    /// An index that somebody only imagines.
    fn guess(rows: f64) -> Result<Self, Failure> {
        let lists = f64::from(ivf_core::automatic_lists(rows));
        let geometry = Geometry::new(column::USUAL_DIMENSIONS)
            .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string()))?;
        Ok(Shape {
            geometry,
            lists,
            branches: lists.sqrt(),
            probes: (lists / 20.0).max(1.0),
        })
    }
}

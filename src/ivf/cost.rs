//! What a scan costs, so that the planner chooses between this index, a btree on a filter, and reading everything.
//!
//! A scan is dear at its beginning (lists are probed before the first row comes out) and cheap per row. Someone who
//! takes few rows pays for the beginning; a selective filter takes many rows from the index, and pays for all that. The
//! table's pages are PostgreSQL's part of the estimate.
use ivf_core::Geometry;
use pgrx::prelude::*;

use super::selectivity::{self, Measured};
use super::{bound, column};
use crate::failure::{Failure, boundary};
use crate::settings;

/// What a page costs that lies in memory, of what PostgreSQL reckons for one read from disk at random.
const IN_MEMORY: f64 = 0.1;
/// Rotation, quantisation and tables of the query, in cpu_tuple_cost: about 10 µs.
const QUERY: f64 = 400.0;
/// Rows that the one-bit kernel scans for what one operator call costs.
const ROWS_PER_OPERATOR: f64 = 4.0;
/// How many times as many lists as rows lie within a bound, as parts of all: rows within it are not alone in theirs.
const LISTS_FOR_ROWS: f64 = 4.0;
/// How many times as many rows as lie within a bound have their six-bit codes read.
const REFINED_FOR_ROWS: f64 = 2.0;
/// A query looks closely at its nearest branches only.
const BRANCHES_OPENED: f64 = 0.1;

/// What the estimate needs to know of an index.
struct Shape {
    geometry: Geometry,
    lists: f64,
    branches: f64,
    probes: f64,
    /// None where it does not exist yet.
    measured: Option<Measured>,
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
            bound::add(root, path);
            let shape = Shape::of(index)?;
            let limits = bound::limits(path, bound::carrier(index));
            let within = limits
                .iter()
                .map(|&limit| shape.part_within(root, limit))
                .reduce(f64::min);
            let costs = costs(index, &shape);
            *startup = costs.first;
            (*total, *selectivity) = match within {
                None => (costs.all(1.0, 1.0), 1.0),
                // With a bound the search ends with the lists that hold what lies within it.
                Some(part) => (costs.all(LISTS_FOR_ROWS * part, REFINED_FOR_ROWS * part), part),
            };
            Ok(())
        }
    });
}

/// What a scan costs, without the table's part.
struct Costs {
    /// Until the first row.
    first: f64,
    /// The part of the lists that is probed until then.
    part: f64,
    /// Of all further lists.
    lists: f64,
    /// Of reading six-bit codes of all rows.
    refining: f64,
}

impl Costs {
    /// With so large a part of the lists probed, and of the rows refined.
    fn all(&self, lists: f64, rows: f64) -> f64 {
        let further = (lists.min(1.0) - self.part).max(0.0) / (1.0 - self.part).max(f64::EPSILON);
        self.first + further * self.lists + rows.min(1.0) * self.refining
    }
}

/// # Safety
/// Inside the planner.
unsafe fn costs(index: &pg_sys::IndexOptInfo, shape: &Shape) -> Costs {
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

    let part = (shape.probes / shape.lists).clamp(0.0, 1.0);
    let refined_pages = rows / shape.geometry.refines as f64;
    Costs {
        first: cpu_tuple * QUERY + descent * page + probe(shape.lists * part),
        part,
        lists: probe(shape.lists * (1.0 - part)),
        refining: refined_pages * page + rows * (cpu_index_tuple + cpu_operator),
    }
}

impl Shape {
    /// # Safety
    /// Inside the planner, which has locked the index.
    unsafe fn of(index: &pg_sys::IndexOptInfo) -> Result<Self, Failure> {
        if index.hypothetical {
            return Self::guess(index.tuples);
        }
        // SAFETY: the planner has locked the index.
        let measured = unsafe { Measured::of(index)? };
        let meta = &measured.meta;
        let probes = settings::probes().unwrap_or_else(|| meta.probes_for(settings::target_recall()));
        Ok(Shape {
            geometry: geometry(meta.dimensions)?,
            lists: f64::from(meta.lists.max(1)),
            branches: f64::from(meta.branches.max(1)),
            probes: f64::from(probes.clamp(1, meta.lists.max(1))),
            measured: Some(measured),
        })
    }

    /// The part of the rows within a limit.
    ///
    /// # Safety
    /// Inside the planner; `limit` must be a valid expression.
    unsafe fn part_within(&self, root: *mut pg_sys::PlannerInfo, limit: *mut pg_sys::Node) -> f64 {
        match &self.measured {
            // SAFETY: the caller vouches for the expression.
            Some(measured) => unsafe { measured.part_within(root, limit) },
            None => selectivity::UNKNOWN,
        }
    }

    /// An index that somebody only imagines.
    fn guess(rows: f64) -> Result<Self, Failure> {
        let lists = f64::from(ivf_core::automatic_lists(rows));
        Ok(Shape {
            geometry: geometry(column::USUAL_DIMENSIONS)?,
            lists,
            branches: lists.sqrt(),
            probes: (lists / 20.0).max(1.0),
            measured: None,
        })
    }
}

fn geometry(dimensions: usize) -> Result<Geometry, Failure> {
    Geometry::new(dimensions).map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string()))
}

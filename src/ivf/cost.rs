//! What a scan costs, so that the planner chooses between this index, a btree on a filter, and reading everything.
//!
//! A scan is dear at its beginning (lists are probed before the first row comes out) and cheap per row. Someone who
//! takes few rows pays for the beginning; a selective filter takes many rows from the index, and pays for all that.
//! The table's pages are PostgreSQL's part of the estimate. Conditions on filter columns are judged in the index: few
//! rows pass, and the nearest of those are looked for in more lists.
use ivf_core::Geometry;
use pgrx::prelude::*;

use super::selectivity::{self, Measured};
use super::{bound, column, conditions};
use crate::failure::{Failure, boundary};
use crate::settings;

/// What a page costs that lies in memory, of what PostgreSQL reckons for one read from disk at random.
const IN_MEMORY: f64 = 0.1;
/// The same where the rival is an index on the filter's column, whose rows PostgreSQL looks up in the table one by
/// one: as many pages of this index were read in the time of 0.3 pages of the table as PostgreSQL reckons them.
const IN_MEMORY_FILTERED: f64 = 0.3;
/// Rows that are wanted where no LIMIT says so.
const USUAL_LIMIT: f64 = 10.0;
/// Six-bit codes that are read for each row given out, each on a page of its own.
const REFINED_PER_ROW: f64 = 10.0;
/// Rotation, quantisation and tables of the query, in cpu_tuple_cost: about 10 µs.
const QUERY: f64 = 400.0;
/// Rows that the one-bit kernel scans for what one operator call costs.
const ROWS_PER_OPERATOR: f64 = 4.0;
/// How many times as many rows are judged by their filter columns for that.
const FILTERED_PER_OPERATOR: f64 = 16.0;
/// Rows of a block, whose codes are scanned if one of them passes.
const BLOCK: i32 = 32;
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
    /// The part of the rows that passes the filter columns' conditions; none where there are none.
    passing: Option<f64>,
    /// The part of the rows given out that passes the query's other conditions; none where there are none.
    left_over: Option<f64>,
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
            conditions::add(root, path);
            let passing = passing(root, path);
            let limits = bound::limits(path, bound::carrier(index));
            let mut shape = Shape::of(index, passing)?;
            if limits.is_empty() {
                shape.left_over = left_over(path, passing.unwrap_or(1.0));
            }
            let within = limits
                .iter()
                .map(|&limit| shape.part_within(root, limit))
                .reduce(f64::min);
            let costs = costs(index, &shape, (*root).limit_tuples);
            *startup = costs.first;
            let passing = passing.unwrap_or(1.0);
            (*total, *selectivity) = match within {
                None => (costs.all(1.0, passing), passing),
                // With a bound the search ends with the lists that hold what lies within it.
                Some(part) => (
                    costs.all(LISTS_FOR_ROWS * part, REFINED_FOR_ROWS * part * passing),
                    part * passing,
                ),
            };
            Ok(())
        }
    });
}

/// The part of the rows that passes the conditions on the columns behind the vector; none where there are none.
///
/// # Safety
/// The path must be under construction by the planner.
unsafe fn passing(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) -> Option<f64> {
    // SAFETY: the planner's nodes are well-formed.
    unsafe {
        let mut conditions: *mut pg_sys::List = std::ptr::null_mut();
        for clause in bound::items((*path).indexclauses) {
            let clause: *mut pg_sys::IndexClause = clause.cast();
            if (*clause).indexcol > 0 {
                conditions = pg_sys::list_concat(conditions, (*clause).indexquals);
            }
        }
        if conditions.is_null() {
            return None;
        }
        let table = (*(*(*path).indexinfo).rel).relid;
        let part = pg_sys::clauselist_selectivity(
            root,
            conditions,
            table as core::ffi::c_int,
            pg_sys::JoinType::JOIN_INNER,
            std::ptr::null_mut(),
        );
        Some(part.clamp(0.0, 1.0))
    }
}

/// The part of the rows that passes the query's conditions which the index does not judge; none where it judges all.
///
/// # Safety
/// The path must be under construction by the planner.
unsafe fn left_over(path: *mut pg_sys::IndexPath, passing: f64) -> Option<f64> {
    // SAFETY: the planner's nodes are well-formed.
    unsafe {
        // A partial index has the rows that its predicate lets pass.
        let index = &*(*path).indexinfo;
        let rows = (*path)
            .path
            .param_info
            .as_ref()
            .map_or((*index.rel).rows, |info| info.ppi_rows);
        let part = rows / (index.tuples.max(1.0) * passing.max(f64::MIN_POSITIVE));
        // What the two estimates differ by is no condition.
        (part < 0.9).then_some(part)
    }
}

/// What a scan costs, without the table's part.
struct Costs {
    /// Until the first row.
    first: f64,
    /// The part of the lists that is probed until then.
    part: f64,
    /// Of all further lists.
    lists: f64,
    /// Of reading six-bit codes: pages, and the work, of all rows.
    refining: (f64, f64),
    /// All rows, each of which may have its code on a page of its own.
    rows: f64,
    page: f64,
}

impl Costs {
    /// With so large a part of the lists probed, and of the rows refined.
    fn all(&self, lists: f64, rows: f64) -> f64 {
        let further = (lists.min(1.0) - self.part).max(0.0) / (1.0 - self.part).max(f64::EPSILON);
        let (pages, work) = self.refining;
        let rows = rows.min(1.0);
        self.first + further * self.lists + (rows * self.rows).min(pages) * self.page + rows * work
    }
}

/// # Safety
/// Inside the planner.
unsafe fn costs(index: &pg_sys::IndexOptInfo, shape: &Shape, limit: f64) -> Costs {
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
    let in_memory = if shape.passing.is_some() || shape.left_over.is_some() {
        IN_MEMORY_FILTERED
    } else {
        IN_MEMORY
    };
    let page = random_page * (in_memory + (1.0 - in_memory) * from_disk);

    let per_page = shape.geometry.centroids as f64;
    let opened = BRANCHES_OPENED
        .max(1.0 / shape.branches)
        .max(shape.probes / shape.lists);
    let directories = (shape.lists / per_page).ceil() * opened;
    let descent = (shape.branches / per_page).ceil() + directories.ceil();
    let list = (rows / shape.lists / shape.geometry.slots() as f64).ceil();
    let row = match shape.passing {
        None => 1.0 / ROWS_PER_OPERATOR,
        Some(part) => 1.0 / FILTERED_PER_OPERATOR + (1.0 - (1.0 - part).powi(BLOCK)) / ROWS_PER_OPERATOR,
    };
    let probe = |lists: f64| lists * list * page + rows * lists / shape.lists * cpu_operator * row;

    // Other conditions are judged when rows were given out: lists are added after the sixteenth row and whenever eight
    // times as many were (`crates/ivf/src/search.rs`).
    let (mut lists, mut given_out) = (shape.probes, 0.0);
    if let Some(part) = shape.left_over {
        let wanted = if limit > 0.0 { limit } else { USUAL_LIMIT };
        let most = rows * shape.passing.unwrap_or(1.0);
        given_out = (wanted / part.max(f64::MIN_POSITIVE)).min(most);
        let mut widen_at = 16.0;
        while given_out > widen_at && lists < shape.lists {
            lists *= 2.0;
            widen_at *= 8.0;
        }
    }
    let part = (lists / shape.lists).clamp(0.0, 1.0);
    let refined_pages = rows / shape.geometry.refines as f64;
    Costs {
        first: cpu_tuple * QUERY + descent * page + probe(shape.lists * part) + REFINED_PER_ROW * given_out * page,
        part,
        lists: probe(shape.lists * (1.0 - part)),
        refining: (refined_pages, rows * (cpu_index_tuple + cpu_operator)),
        rows,
        page,
    }
}

impl Shape {
    /// # Safety
    /// Inside the planner, which has locked the index.
    unsafe fn of(index: &pg_sys::IndexOptInfo, passing: Option<f64>) -> Result<Self, Failure> {
        if index.hypothetical {
            return Self::guess(index.tuples, passing);
        }
        // SAFETY: the planner has locked the index.
        let measured = unsafe { Measured::of(index)? };
        let meta = &measured.meta;
        let target = settings::target_recall();
        let probes = settings::probes().unwrap_or_else(|| match passing {
            None => meta.probes_for(target),
            Some(part) => meta.probes_among(target, part),
        });
        Ok(Shape {
            geometry: meta.geometry().map_err(|error| impossible(&error))?,
            passing,
            left_over: None,
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
    fn guess(rows: f64, passing: Option<f64>) -> Result<Self, Failure> {
        let lists = f64::from(ivf_core::automatic_lists(rows));
        Ok(Shape {
            geometry: Geometry::new(column::USUAL_DIMENSIONS).map_err(|error| impossible(&error))?,
            passing,
            left_over: None,
            lists,
            branches: lists.sqrt(),
            probes: (lists / 20.0).max(1.0),
            measured: None,
        })
    }
}

fn impossible(error: &ivf_core::Error) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string())
}

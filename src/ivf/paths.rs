//! `WHERE descriptor <=> q < t` and `JOIN … ON a.descriptor <=> b.descriptor < t` by an index.
//!
//! PostgreSQL plans an index of this access method for an order only: it cannot match a comparison of a distance with
//! the index. When it has made its own paths to a table, this hook adds those that a bound allows, with the distance as
//! their order and the bound as their condition, as in `bound.rs`; for a join they take the other table's vector as a
//! parameter. PostgreSQL would take every such comparison for a third of the rows, so what the index measured takes its
//! place first.
use pgrx::prelude::*;

use super::bound::{self, Bound, items};
use super::cost;
use super::selectivity::Measured;
use crate::failure::{Failure, boundary};
use crate::settings;

/// Whoever hooked here before.
static mut PREVIOUS: pg_sys::set_rel_pathlist_hook_type = None;

/// Tells PostgreSQL to ask for further paths. Called once, when the library is loaded.
pub(super) fn register() {
    // SAFETY: called from _PG_init, on the only thread.
    unsafe {
        PREVIOUS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(set_rel_pathlist);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn set_rel_pathlist(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    number: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner passes well-formed nodes; the other hook has PostgreSQL's calling convention.
    unsafe {
        boundary(|| add(root, rel, &*entry));
        if let Some(previous) = PREVIOUS {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, rel, number, entry));
        }
    }
}

/// Adds the paths to a plain table that bounds on distances allow.
///
/// # Safety
/// Inside the planner, when the table's own paths were made.
unsafe fn add(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    entry: &pg_sys::RangeTblEntry,
) -> Result<(), Failure> {
    // SAFETY: the planner's nodes are well-formed.
    unsafe {
        let plain = entry.rtekind == pg_sys::RTEKind::RTE_RELATION
            && !entry.inh
            && entry.tablesample.is_null()
            && !pg_sys::is_dummy_rel(rel);
        // What a statement changes it finds exactly.
        use pg_sys::CmdType::{CMD_INSERT, CMD_SELECT};
        let reads = matches!((*(*root).parse).commandType, CMD_SELECT | CMD_INSERT);
        if !plain || !reads || !settings::bound_scans() {
            return Ok(());
        }
        let indexes: Vec<*mut pg_sys::IndexOptInfo> = items((*rel).indexlist)
            .map(|index| index.cast::<pg_sys::IndexOptInfo>())
            .filter(|&index| is_ours(&*index))
            .collect();
        let mut fixed = Vec::new();
        let mut joins = Vec::new();
        for index in indexes {
            let within = bounds(root, rel, index, (*index).indrestrictinfo, false);
            let across = bounds(root, rel, index, (*rel).joininfo, true);
            if within.is_empty() && across.is_empty() {
                continue;
            }
            let measured = Measured::of(&*index)?;
            let judged = |bound: Bound| {
                let part = measured.part_within(root, bound.limit);
                (bound, part)
            };
            fixed.extend(nearest(within.into_iter().map(judged).collect()).map(|found| (index, found)));
            joins.extend(across.into_iter().map(judged).map(|found| (index, found)));
        }
        if !fixed.is_empty() {
            let all = fixed.iter().map(|(_, (bound, part))| (bound.restriction, *part));
            estimate(root, rel, all.collect());
        }
        for (index, (bound, _)) in fixed {
            add_path(root, rel, index, &bound, (*rel).lateral_relids, 1.0);
        }
        for (index, (bound, part)) in joins {
            (*bound.restriction).norm_selec = part;
            (*bound.restriction).outer_selec = part;
            let others = pg_sys::bms_difference((*bound.restriction).clause_relids, (*rel).relids);
            if others.is_null() {
                continue;
            }
            let others = pg_sys::bms_add_members(others, (*rel).lateral_relids);
            let parameters = pg_sys::get_baserel_parampathinfo(root, rel, others);
            if let Some(parameters) = parameters.as_mut() {
                parameters.ppi_rows = parameters.ppi_rows.min(pg_sys::clamp_row_est((*rel).rows * part));
            }
            add_path(root, rel, index, &bound, others, loops(root, others));
        }
        Ok(())
    }
}

/// Whether an index is one of this access method, and may be used.
fn is_ours(index: &pg_sys::IndexOptInfo) -> bool {
    let ours = cost::amcostestimate as *const ();
    index.amcostestimate.is_some_and(|theirs| theirs as *const () == ours)
        && !index.hypothetical
        && (index.indpred.is_null() || index.predOK)
}

/// The conditions that bound the index's distance. `joins`: those with another table.
///
/// # Safety
/// All must be valid.
unsafe fn bounds(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    index: *mut pg_sys::IndexOptInfo,
    conditions: *mut pg_sys::List,
    joins: bool,
) -> Vec<Bound> {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        if bound::carrier(&*index) == pg_sys::InvalidOid {
            return Vec::new();
        }
        items(conditions)
            .map(|condition| condition.cast::<pg_sys::RestrictInfo>())
            .filter(|&condition| pg_sys::restriction_is_securely_promotable(condition, rel))
            .filter(|&condition| !joins || pg_sys::join_clause_is_movable_to(condition, rel))
            .filter_map(|condition| bound::stated(root, index, condition))
            .collect()
    }
}

/// The bound within which the fewest rows lie.
fn nearest(bounds: Vec<(Bound, f64)>) -> Option<(Bound, f64)> {
    bounds.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Puts what was measured in the place of PostgreSQL's guess, in the table's rows and in those of its paths.
///
/// # Safety
/// All must be valid.
unsafe fn estimate(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    parts: Vec<(*mut pg_sys::RestrictInfo, f64)>,
) {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        for (restriction, part) in parts {
            (*restriction).norm_selec = part;
            (*restriction).outer_selec = part;
        }
        let before = (*rel).rows;
        pg_sys::set_baserel_size_estimates(root, rel);
        let ratio = (*rel).rows / before;
        for path in items((*rel).pathlist).chain(items((*rel).partial_pathlist)) {
            let path: *mut pg_sys::Path = path.cast();
            (*path).rows = pg_sys::clamp_row_est((*path).rows * ratio);
        }
        for parameters in items((*rel).ppilist) {
            let parameters: *mut pg_sys::ParamPathInfo = parameters.cast();
            (*parameters).ppi_rows = pg_sys::clamp_row_est((*parameters).ppi_rows * ratio);
        }
    }
}

/// A path that gives the rows within a bound, nearest first.
///
/// # Safety
/// All must be valid.
unsafe fn add_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    index: *mut pg_sys::IndexOptInfo,
    bound: &Bound,
    others: pg_sys::Relids,
    loops: f64,
) {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        let one = |node: *mut core::ffi::c_void| pg_sys::lappend(std::ptr::null_mut(), node);
        let carrier = bound::carrier(&*index);
        let clause = bound::index_clause(root, carrier, bound.column, bound.limit, bound.restriction);
        let path = pg_sys::create_index_path(
            root,
            index,
            one(clause.cast()),
            one(bound.distance.cast()),
            pg_sys::lappend_int(std::ptr::null_mut(), 0),
            order(root, bound.distance, (*rel).relids),
            pg_sys::ScanDirection::ForwardScanDirection,
            false,
            others,
            loops,
            false,
        );
        pg_sys::add_path(rel, path.cast());
    }
}

/// The order that an index's distance gives. PostgreSQL expects one for every ordering operator of a path.
///
/// # Safety
/// All must be valid.
unsafe fn order(
    root: *mut pg_sys::PlannerInfo,
    distance: *mut pg_sys::OpExpr,
    relids: pg_sys::Relids,
) -> *mut pg_sys::List {
    let less = pg_sys::Oid::from(bound::LESS);
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::build_expression_pathkey(root, distance.cast(), std::ptr::null_mut(), less, relids, true);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::build_expression_pathkey(root, distance.cast(), less, relids, true);
    }
}

/// How often a path with parameters of these tables will run: as PostgreSQL reckons it, by the smallest of them.
///
/// # Safety
/// All must be valid.
unsafe fn loops(root: *mut pg_sys::PlannerInfo, others: pg_sys::Relids) -> f64 {
    let mut least = f64::INFINITY;
    let mut number = -1;
    // SAFETY: the caller vouches for the nodes; the array has as many entries as it says, some of them null.
    unsafe {
        loop {
            number = pg_sys::bms_next_member(others, number);
            if number < 0 || number >= (*root).simple_rel_array_size {
                break;
            }
            if let Some(other) = (*(*root).simple_rel_array.add(number as usize)).as_ref() {
                least = least.min(other.rows);
            }
        }
    }
    if least.is_finite() { least.max(1.0) } else { 1.0 }
}

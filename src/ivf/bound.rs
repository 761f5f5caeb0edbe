//! `WHERE descriptor <=> q < t ORDER BY descriptor <=> q`: the index is told `t`, so that the search ends where nothing
//! nearer can come.
//!
//! PostgreSQL cannot match such a condition with the index by itself, since the distance is an expression over the
//! column. While a path is costed, the condition is therefore handed to it as `descriptor <~ t`, an operator of the
//! operator class whose argument the index takes and which is true of every row. It is declared lossy: the row's own
//! condition stays in the plan as a filter and decides.
use pgrx::prelude::*;

use super::column::BOUND_STRATEGY;

/// PostgreSQL's operators between two values of type double precision; their OIDs never change.
const LESS: u32 = 672;
const LESS_OR_EQUAL: u32 = 673;
const GREATER: u32 = 674;
const GREATER_OR_EQUAL: u32 = 675;

/// Hands a path that orders by one distance the conditions that bound it. Says whether it has one.
///
/// A path is costed more than once, and its list of conditions may belong to other paths as well: it is copied, and
/// extended only once.
///
/// # Safety
/// The path must be under construction by the planner.
pub(super) unsafe fn add(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) -> bool {
    // SAFETY: the planner passes well-formed nodes; an index of this access method has one column.
    unsafe {
        let index = (*path).indexinfo;
        let Some(order) = items((*path).indexorderbys)
            .next()
            .and_then(|order| operator(order.cast()))
        else {
            return false;
        };
        let operator_oid = pg_sys::get_opfamily_member(
            *(*index).opfamily,
            *(*index).opcintype,
            pg_sys::FLOAT8OID,
            BOUND_STRATEGY as i16,
        );
        if operator_oid == pg_sys::InvalidOid {
            return false;
        }
        if items((*path).indexclauses).any(|clause| carries(clause.cast(), operator_oid)) {
            return true;
        }
        let mut clauses: *mut pg_sys::List = std::ptr::null_mut();
        for restriction in items((*index).indrestrictinfo) {
            let restriction: *mut pg_sys::RestrictInfo = restriction.cast();
            if (*restriction).pseudoconstant {
                continue;
            }
            let Some(limit) = limit_on((*restriction).clause.cast(), order.node) else {
                continue;
            };
            if !pg_sys::is_pseudo_constant_for_index(root, limit, index) {
                continue;
            }
            if clauses.is_null() {
                clauses = pg_sys::list_copy((*path).indexclauses);
            }
            let clause = index_clause(root, operator_oid, order.left, limit, restriction);
            clauses = pg_sys::lappend(clauses, clause.cast());
        }
        if clauses.is_null() {
            return false;
        }
        (*path).indexclauses = clauses;
        true
    }
}

/// An operator with two operands.
#[derive(Clone, Copy)]
struct Operator {
    node: *mut pg_sys::OpExpr,
    left: *mut pg_sys::Node,
    right: *mut pg_sys::Node,
}

/// # Safety
/// `node` must be a valid expression or null.
unsafe fn operator(node: *mut pg_sys::Node) -> Option<Operator> {
    // SAFETY: the caller vouches for the node, whose tag says what it is.
    unsafe {
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        let node: *mut pg_sys::OpExpr = node.cast();
        let mut operands = items((*node).args);
        match (operands.next(), operands.next(), operands.next()) {
            (Some(left), Some(right), None) => Some(Operator {
                node,
                left: left.cast(),
                right: right.cast(),
            }),
            _ => None,
        }
    }
}

/// The `t` of a condition `distance < t` or `t > distance`, inclusive or not.
///
/// # Safety
/// Both must be valid expressions.
unsafe fn limit_on(condition: *mut pg_sys::Node, distance: *mut pg_sys::OpExpr) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        let comparison = operator(condition)?;
        let (measured, limit) = match (*comparison.node).opno.to_u32() {
            LESS | LESS_OR_EQUAL => (comparison.left, comparison.right),
            GREATER | GREATER_OR_EQUAL => (comparison.right, comparison.left),
            _ => return None,
        };
        same_distance(operator(measured)?, operator(distance.cast())?).then_some(limit)
    }
}

/// Whether two distances are the same, either way round: all distance operators of the operator classes are symmetric,
/// and the planner commutes them too.
///
/// # Safety
/// Both must be valid.
unsafe fn same_distance(a: Operator, b: Operator) -> bool {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        let equal = |x: *mut pg_sys::Node, y: *mut pg_sys::Node| pg_sys::equal(x.cast(), y.cast());
        let operators = (*a.node).opno == (*b.node).opno;
        operators
            && ((equal(a.left, b.left) && equal(a.right, b.right))
                || (pg_sys::get_commutator((*a.node).opno) == (*a.node).opno
                    && equal(a.left, b.right)
                    && equal(a.right, b.left)))
    }
}

/// Whether a path's condition is one of ours.
///
/// # Safety
/// `clause` must be valid.
unsafe fn carries(clause: *mut pg_sys::IndexClause, operator_oid: pg_sys::Oid) -> bool {
    // SAFETY: the caller vouches for the node.
    unsafe {
        items((*clause).indexquals).any(|qual| {
            let qual: *mut pg_sys::RestrictInfo = qual.cast();
            operator((*qual).clause.cast()).is_some_and(|operator| (*operator.node).opno == operator_oid)
        })
    }
}

/// `column <~ limit`, on behalf of a condition of the query.
///
/// # Safety
/// All must be valid.
unsafe fn index_clause(
    root: *mut pg_sys::PlannerInfo,
    operator_oid: pg_sys::Oid,
    column: *mut pg_sys::Node,
    limit: *mut pg_sys::Node,
    restriction: *mut pg_sys::RestrictInfo,
) -> *mut pg_sys::IndexClause {
    let none = pg_sys::InvalidOid;
    // SAFETY: the caller vouches for the nodes; a new node is all zeros but its tag.
    unsafe {
        let condition = pg_sys::make_opclause(
            operator_oid,
            pg_sys::BOOLOID,
            false,
            column.cast(),
            limit.cast(),
            none,
            none,
        );
        pg_sys::set_opfuncid(condition.cast());
        let mut clause = PgBox::<pg_sys::IndexClause>::alloc_node(pg_sys::NodeTag::T_IndexClause);
        clause.rinfo = restriction;
        clause.indexquals = pg_sys::lappend(std::ptr::null_mut(), restrict_info(root, condition).cast());
        clause.lossy = true;
        clause.indexcol = 0;
        clause.into_pg()
    }
}

/// make_simple_restrictinfo, which is a macro.
///
/// # Safety
/// `condition` must be valid.
unsafe fn restrict_info(root: *mut pg_sys::PlannerInfo, condition: *mut pg_sys::Expr) -> *mut pg_sys::RestrictInfo {
    let none = std::ptr::null_mut();
    // SAFETY: the caller vouches for the node.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::make_restrictinfo(root, condition, true, false, false, 0, none, none, none);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::make_restrictinfo(root, condition, true, false, false, false, 0, none, none, none);
    }
}

/// Entries of a list of pointers.
///
/// # Safety
/// The list must be valid as long as the result is used, or null.
pub(super) unsafe fn items(list: *mut pg_sys::List) -> impl Iterator<Item = *mut core::ffi::c_void> {
    // SAFETY: a list has as many cells as its length says.
    (0..length(list)).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value })
}

/// Entries of a list.
pub(super) fn length(list: *mut pg_sys::List) -> usize {
    // SAFETY: the planner's lists are valid or null.
    unsafe { list.as_ref() }.map_or(0, |list| usize::try_from(list.length).unwrap_or(0))
}

//! `WHERE descriptor <=> q < t ORDER BY descriptor <=> q`: the index is told `t`, so that the search ends where nothing
//! nearer can come.
//!
//! PostgreSQL cannot match such a condition with the index by itself, since the distance is an expression over the
//! column. While a path is costed, the condition is therefore handed to it as `descriptor <~ t`, an operator of the
//! operator class whose argument the index takes and which is true of every row. It is declared lossy: the row's own
//! condition stays in the plan as a filter and decides.
use pgrx::prelude::*;

use super::operators::{BOUND_STRATEGY, DISTANCE_STRATEGY};

/// PostgreSQL's operators between two values of type double precision; their OIDs never change.
pub(super) const LESS: u32 = 672;
const LESS_OR_EQUAL: u32 = 673;
const GREATER: u32 = 674;
const GREATER_OR_EQUAL: u32 = 675;

/// The operator that carries a bound to an index; invalid where its operator class has none.
///
/// # Safety
/// `index` must be an index of this access method, whose first column is the vector.
pub(super) unsafe fn carrier(index: &pg_sys::IndexOptInfo) -> pg_sys::Oid {
    // SAFETY: the caller vouches for the index.
    unsafe {
        pg_sys::get_opfamily_member(
            *index.opfamily,
            *index.opcintype,
            pg_sys::FLOAT8OID,
            BOUND_STRATEGY as i16,
        )
    }
}

/// Hands a path that orders by one distance the conditions that bound it.
///
/// A path is costed more than once, and its list of conditions may belong to other paths as well: it is copied, and
/// extended only once.
///
/// # Safety
/// The path must be under construction by the planner.
pub(super) unsafe fn add(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) {
    // SAFETY: the planner passes well-formed nodes; an index of this access method begins with a vector.
    unsafe {
        let index = (*path).indexinfo;
        let Some(order) = items((*path).indexorderbys)
            .next()
            .and_then(|order| operator(order.cast()))
        else {
            return;
        };
        let operator_oid = carrier(&*index);
        if operator_oid == pg_sys::InvalidOid || !limits(path, operator_oid).is_empty() {
            return;
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
        if !clauses.is_null() {
            (*path).indexclauses = clauses;
        }
    }
}

/// The limits that a path's conditions carry to its index.
///
/// # Safety
/// The path must be valid.
pub(super) unsafe fn limits(path: *mut pg_sys::IndexPath, carrier: pg_sys::Oid) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the caller vouches for the path.
    unsafe {
        items((*path).indexclauses)
            .flat_map(|clause| items((*clause.cast::<pg_sys::IndexClause>()).indexquals))
            .filter_map(|qual| operator((*qual.cast::<pg_sys::RestrictInfo>()).clause.cast()))
            .filter(|operator| (*operator.node).opno == carrier)
            .map(|operator| operator.right)
            .collect()
    }
}

/// A condition of a query that bounds the distance of an index's column from a vector.
pub(super) struct Bound {
    pub restriction: *mut pg_sys::RestrictInfo,
    /// `column <=> vector`, in this order.
    pub distance: *mut pg_sys::OpExpr,
    pub column: *mut pg_sys::Node,
    pub limit: *mut pg_sys::Node,
}

/// What a condition bounds, if neither vector nor limit depend on the index's table.
///
/// # Safety
/// All must be valid.
pub(super) unsafe fn stated(
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    restriction: *mut pg_sys::RestrictInfo,
) -> Option<Bound> {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        if (*restriction).pseudoconstant {
            return None;
        }
        let (measured, limit) = sides((*restriction).clause.cast())?;
        let (distance, column, vector) = distance_from(index, operator(measured)?)?;
        let fixed = |node| pg_sys::is_pseudo_constant_for_index(root, node, index);
        (fixed(limit) && fixed(vector)).then_some(Bound {
            restriction,
            distance,
            column,
            limit,
        })
    }
}

/// The distance by which an index orders, with its column and the vector from which it is measured.
///
/// # Safety
/// Both must be valid.
unsafe fn distance_from(
    index: *mut pg_sys::IndexOptInfo,
    of: Operator,
) -> Option<(*mut pg_sys::OpExpr, *mut pg_sys::Node, *mut pg_sys::Node)> {
    // SAFETY: the caller vouches for the nodes; an index of this access method begins with a vector.
    unsafe {
        let (family, kind) = (*(*index).opfamily, *(*index).opcintype);
        let orders = pg_sys::get_opfamily_member(family, kind, kind, DISTANCE_STRATEGY as i16);
        if orders == pg_sys::InvalidOid {
            return None;
        }
        if (*of.node).opno == orders && pg_sys::match_index_to_operand(of.left, 0, index) {
            return Some((of.node, of.left, of.right));
        }
        if pg_sys::get_commutator((*of.node).opno) != orders || !pg_sys::match_index_to_operand(of.right, 0, index) {
            return None;
        }
        let (result, collation) = ((*of.node).opresulttype, (*of.node).inputcollid);
        let turned = pg_sys::make_opclause(
            orders,
            result,
            false,
            of.right.cast(),
            of.left.cast(),
            pg_sys::InvalidOid,
            collation,
        );
        pg_sys::set_opfuncid(turned.cast());
        Some((turned.cast(), of.right, of.left))
    }
}

/// The `distance` and the `t` of a condition `distance < t` or `t > distance`, inclusive or not.
///
/// # Safety
/// `condition` must be valid.
unsafe fn sides(condition: *mut pg_sys::Node) -> Option<(*mut pg_sys::Node, *mut pg_sys::Node)> {
    // SAFETY: the caller vouches for the node.
    unsafe {
        let comparison = operator(condition)?;
        match (*comparison.node).opno.to_u32() {
            LESS | LESS_OR_EQUAL => Some((comparison.left, comparison.right)),
            GREATER | GREATER_OR_EQUAL => Some((comparison.right, comparison.left)),
            _ => None,
        }
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

/// The `t` of a condition that bounds this distance.
///
/// # Safety
/// Both must be valid expressions.
unsafe fn limit_on(condition: *mut pg_sys::Node, distance: *mut pg_sys::OpExpr) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        let (measured, limit) = sides(condition)?;
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

/// `column <~ limit`, on behalf of a condition of the query.
///
/// # Safety
/// All must be valid.
pub(super) unsafe fn index_clause(
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
pub(super) unsafe fn restrict_info(
    root: *mut pg_sys::PlannerInfo,
    condition: *mut pg_sys::Expr,
) -> *mut pg_sys::RestrictInfo {
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

//! Conditions on filter columns that PostgreSQL leaves out of a path to this index.
//!
//! PostgreSQL hands over most of them by itself. Not `= ANY`, before version 17, since an index of the kind that it
//! has in mind would lose its order; not `WHERE flag`, before version 16, but for its own operator classes; and none
//! to the paths of `paths.rs`. A path that is being costed is given here what it lacks.
use pgrx::prelude::*;

use super::bound::{items, restrict_info};

/// PostgreSQL's equality of booleans; its OID never changes.
const BOOLEAN_EQUAL: u32 = 91;

/// Hands a path that orders by a distance the conditions on its index's columns behind the vector.
///
/// # Safety
/// The path must be under construction by the planner.
pub(super) unsafe fn add(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) {
    // SAFETY: the planner passes well-formed nodes.
    unsafe {
        let index = (*path).indexinfo;
        for column in 1..(*index).nkeycolumns {
            for restriction in items((*index).indrestrictinfo) {
                let restriction: *mut pg_sys::RestrictInfo = restriction.cast();
                if (*restriction).pseudoconstant
                    || !pg_sys::restriction_is_securely_promotable(restriction, (*index).rel)
                    || has(path, restriction, column)
                {
                    continue;
                }
                if let Some(qual) = judged_by(root, index, column, restriction) {
                    let clause = clause(restriction, column, qual);
                    // The list may belong to other paths as well.
                    let clauses = pg_sys::list_copy((*path).indexclauses);
                    (*path).indexclauses = pg_sys::lappend(clauses, clause.cast());
                }
            }
        }
    }
}

/// Whether a path has a condition for a column already.
///
/// # Safety
/// All must be valid.
unsafe fn has(path: *mut pg_sys::IndexPath, restriction: *mut pg_sys::RestrictInfo, column: i32) -> bool {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        items((*path).indexclauses)
            .map(|clause| clause.cast::<pg_sys::IndexClause>())
            .any(|clause| (*clause).rinfo == restriction && i32::from((*clause).indexcol) == column)
    }
}

/// The condition as an index takes it for a column, the column on the left, if it is one for this column.
///
/// # Safety
/// All must be valid.
unsafe fn judged_by(
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    column: i32,
    restriction: *mut pg_sys::RestrictInfo,
) -> Option<*mut pg_sys::RestrictInfo> {
    // SAFETY: the caller vouches for the nodes, whose tags say what they are; an index's arrays are as long as it has
    // key columns.
    unsafe {
        let family = *(*index).opfamily.add(column as usize);
        let collation = *(*index).indexcollations.add(column as usize);
        let is_column = |operand: *mut pg_sys::Node| pg_sys::match_index_to_operand(operand, column, index);
        let is_fixed = |operand: *mut pg_sys::Node| pg_sys::is_pseudo_constant_for_index(root, operand, index);
        let by = |operator: pg_sys::Oid, collated: pg_sys::Oid| {
            (collation == pg_sys::InvalidOid || collation == collated) && pg_sys::op_in_opfamily(operator, family)
        };
        let condition: *mut pg_sys::Node = (*restriction).clause.cast();
        match (*condition).type_ {
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                let any: *mut pg_sys::ScalarArrayOpExpr = condition.cast();
                let (left, right) = two((*any).args)?;
                let judged = (*any).useOr && by((*any).opno, (*any).inputcollid) && is_column(left) && is_fixed(right);
                judged.then_some(restriction)
            }
            pg_sys::NodeTag::T_NullTest => {
                let test: *mut pg_sys::NullTest = condition.cast();
                (!(*test).argisrow && is_column((*test).arg.cast())).then_some(restriction)
            }
            pg_sys::NodeTag::T_OpExpr => {
                let comparison: *mut pg_sys::OpExpr = condition.cast();
                let (left, right) = two((*comparison).args)?;
                if is_column(left) && is_fixed(right) {
                    return by((*comparison).opno, (*comparison).inputcollid).then_some(restriction);
                }
                let turned = pg_sys::get_commutator((*comparison).opno);
                if turned == pg_sys::InvalidOid
                    || !is_column(right)
                    || !is_fixed(left)
                    || !by(turned, (*comparison).inputcollid)
                {
                    return None;
                }
                Some(operation(root, turned, right, left, (*comparison).inputcollid))
            }
            _ if *(*index).opcintype.add(column as usize) == pg_sys::BOOLOID => {
                let (operand, wanted) = stated(condition)?;
                is_column(operand).then(|| {
                    let constant = pg_sys::makeBoolConst(wanted, false);
                    operation(root, BOOLEAN_EQUAL.into(), operand, constant, pg_sys::InvalidOid)
                })
            }
            _ => None,
        }
    }
}

/// What a condition wants to be true or false, if it is `operand`, `NOT operand`, `operand IS TRUE` or `IS FALSE`.
///
/// # Safety
/// `condition` must be a valid expression.
unsafe fn stated(condition: *mut pg_sys::Node) -> Option<(*mut pg_sys::Node, bool)> {
    // SAFETY: the caller vouches for the node, whose tag says what it is.
    unsafe {
        match (*condition).type_ {
            pg_sys::NodeTag::T_BoolExpr => {
                let expression: *mut pg_sys::BoolExpr = condition.cast();
                let negated = (*expression).boolop == pg_sys::BoolExprType::NOT_EXPR;
                let operand = items((*expression).args).next()?;
                negated.then_some((operand.cast(), false))
            }
            pg_sys::NodeTag::T_BooleanTest => {
                let test: *mut pg_sys::BooleanTest = condition.cast();
                let operand = (*test).arg.cast();
                match (*test).booltesttype {
                    pg_sys::BoolTestType::IS_TRUE => Some((operand, true)),
                    pg_sys::BoolTestType::IS_FALSE => Some((operand, false)),
                    _ => None,
                }
            }
            _ => Some((condition, true)),
        }
    }
}

/// Two operands.
///
/// # Safety
/// The list must be valid.
unsafe fn two(operands: *mut pg_sys::List) -> Option<(*mut pg_sys::Node, *mut pg_sys::Node)> {
    // SAFETY: the caller vouches for the list.
    unsafe {
        let mut operands = items(operands);
        match (operands.next(), operands.next(), operands.next()) {
            (Some(left), Some(right), None) => Some((left.cast(), right.cast())),
            _ => None,
        }
    }
}

/// `left operator right` as a condition of its own.
///
/// # Safety
/// All must be valid.
unsafe fn operation(
    root: *mut pg_sys::PlannerInfo,
    operator: pg_sys::Oid,
    left: *mut pg_sys::Node,
    right: *mut pg_sys::Node,
    collation: pg_sys::Oid,
) -> *mut pg_sys::RestrictInfo {
    // SAFETY: the caller vouches for the nodes.
    unsafe {
        let none = pg_sys::InvalidOid;
        let made = pg_sys::make_opclause(
            operator,
            pg_sys::BOOLOID,
            false,
            left.cast(),
            right.cast(),
            none,
            collation,
        );
        pg_sys::set_opfuncid(made.cast());
        restrict_info(root, made)
    }
}

/// `qual` for a column of the index, on behalf of a condition of the query.
///
/// # Safety
/// All must be valid.
unsafe fn clause(
    restriction: *mut pg_sys::RestrictInfo,
    column: i32,
    qual: *mut pg_sys::RestrictInfo,
) -> *mut pg_sys::IndexClause {
    // SAFETY: the caller vouches for the nodes; a new node is all zeros but its tag.
    unsafe {
        let mut clause = PgBox::<pg_sys::IndexClause>::alloc_node(pg_sys::NodeTag::T_IndexClause);
        clause.rinfo = restriction;
        clause.indexquals = pg_sys::lappend(std::ptr::null_mut(), qual.cast());
        clause.lossy = false;
        clause.indexcol = column as pg_sys::AttrNumber;
        clause.into_pg()
    }
}

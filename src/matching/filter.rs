//! A set's filter: an SQL condition over the columns of its relation, checked before it is kept.
//!
//! Whoever searches a set runs its filter with their own rights. An owner's filter must therefore not be able to do anything
//! but look at the row: no subquery, nothing volatile, and, unless a superuser wrote it, no function that did not come
//! with PostgreSQL.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::ParseExprKind::EXPR_KIND_INDEX_PREDICATE;
use pgrx::pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR;
use pgrx::prelude::*;

use crate::failure::{Failure, boundary};

/// OIDs below this one were given by initdb (FirstNormalObjectId, the same in every release).
const FIRST_NORMAL_OID: u32 = 16384;

#[pg_extern(sql = false)]
fn check_filter(relation: pg_sys::Oid, filter: &str) -> String {
    boundary(|| {
        let text = CString::new(filter).map_err(|_| refused("it contains a NUL byte"))?;
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: the parser reads a NUL-terminated string and gives nodes in this call's memory; the relation is open while
        // the condition is analysed; errors of PostgreSQL unwind and release what is held.
        unsafe {
            let parsed = pg_sys::raw_parser(text.as_ptr(), RAW_PARSE_PLPGSQL_EXPR);
            let condition = lone_expression(parsed).ok_or_else(|| refused("it is not one expression"))?;
            let opened = pg_sys::table_open(relation, lock);
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            (*state).p_sourcetext = text.as_ptr();
            let columns = pg_sys::addRangeTableEntryForRelation(state, opened, lock, std::ptr::null_mut(), false, true);
            pg_sys::addNSItemToQuery(state, columns, false, true, true);
            let condition = pg_sys::transformExpr(state, condition, EXPR_KIND_INDEX_PREDICATE);
            let condition = pg_sys::coerce_to_boolean(state, condition, c"filter".as_ptr());
            pg_sys::assign_expr_collations(state, condition);
            judge(condition)?;
            let canonical = deparsed(condition, (*(*opened).rd_rel).relname.data.as_ptr(), relation);
            pg_sys::table_close(opened, lock);
            Ok(canonical)
        }
    })
}

fn refused(why: &str) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("the filter is not allowed: {why}"),
    )
    .hint("A filter is an SQL condition over the relation's own columns, such as \"kind = 'logo' AND expires_at > now()\".")
}

/// The expression, where the parsed text is `SELECT expression` and nothing else.
///
/// # Safety
/// `parsed` is what raw_parser returned.
unsafe fn lone_expression(parsed: *mut pg_sys::List) -> Option<*mut pg_sys::Node> {
    // SAFETY: by contract a list of RawStmt; each cast follows a look at the node's tag.
    unsafe {
        if pg_sys::list_length(parsed) != 1 {
            return None;
        }
        let statement = (*first(parsed).cast::<pg_sys::RawStmt>()).stmt;
        if (*statement).type_ != pg_sys::NodeTag::T_SelectStmt {
            return None;
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        let lists = [
            select.distinctClause,
            select.fromClause,
            select.groupClause,
            select.windowClause,
            select.valuesLists,
            select.sortClause,
            select.lockingClause,
        ];
        let nodes = [
            select.whereClause,
            select.havingClause,
            select.limitOffset,
            select.limitCount,
        ];
        let plain = lists.iter().all(|list| list.is_null())
            && nodes.iter().all(|node| node.is_null())
            && select.intoClause.is_null()
            && select.withClause.is_null()
            && select.op == pg_sys::SetOperation::SETOP_NONE
            && pg_sys::list_length(select.targetList) == 1;
        plain.then(|| (*first(select.targetList).cast::<pg_sys::ResTarget>()).val)
    }
}

/// # Safety
/// A list of pointers that is not empty.
unsafe fn first(list: *mut pg_sys::List) -> *mut std::ffi::c_void {
    // SAFETY: by contract there is a first cell, and it holds a pointer.
    unsafe { (*(*list).elements).ptr_value }
}

/// # Safety
/// `condition` is an analysed expression.
unsafe fn judge(condition: *mut pg_sys::Node) -> Result<(), Failure> {
    // SAFETY: by contract; superuser() reads this backend's role; nodeToString gives a NUL-terminated string.
    let (volatile, trusted, tree) = unsafe {
        (
            pg_sys::contain_volatile_functions(condition),
            pg_sys::superuser(),
            CStr::from_ptr(pg_sys::nodeToString(condition.cast()))
                .to_string_lossy()
                .into_owned(),
        )
    };
    if volatile {
        return Err(refused("it calls a volatile function"));
    }
    if !trusted && !only_built_in(&tree) {
        return Err(
            refused("it uses a function, an operator or a domain that did not come with PostgreSQL")
                .hint("Every search would run it with the searcher's rights. A superuser may set such a filter."),
        );
    }
    Ok(())
}

/// Whether an expression, as nodeToString prints it, calls only what initdb made.
fn only_built_in(tree: &str) -> bool {
    let numbers_after = |label: &str| -> Vec<u32> {
        tree.match_indices(label)
            .flat_map(|(at, _)| {
                let rest = tree[at + label.len()..].trim_start_matches("(o ");
                let end = if label == ":opnos " { ')' } else { ' ' };
                rest.split(end)
                    .next()
                    .unwrap_or_default()
                    .split_ascii_whitespace()
                    .map(|number| number.parse().unwrap_or(u32::MAX))
                    .collect::<Vec<u32>>()
            })
            .collect()
    };
    !tree.contains("{COERCETODOMAIN")
        && [":funcid ", ":opfuncid ", ":opno ", ":opnos "]
            .iter()
            .all(|label| numbers_after(label).iter().all(|&oid| oid < FIRST_NORMAL_OID))
}

/// The condition as text that means the same under every search path.
///
/// # Safety
/// `condition` is analysed over the columns of `relation`, the only relation it knows.
unsafe fn deparsed(condition: *mut pg_sys::Node, name: *const std::ffi::c_char, relation: pg_sys::Oid) -> String {
    // SAFETY: by contract; the setting is put back below, or by the abort of the transaction where an error unwinds.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let context = pg_sys::deparse_context_for(name, relation);
        let text = CStr::from_ptr(pg_sys::deparse_expression(condition, context, false, false))
            .to_string_lossy()
            .into_owned();
        pg_sys::AtEOXact_GUC(true, level);
        text
    }
}

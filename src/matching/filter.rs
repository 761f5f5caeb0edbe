//! A set's filter: an SQL condition over the columns of its relation, judged when it is kept and again
//! whenever it is about to run.
//!
//! Whoever searches a set runs its filter with their own rights. An owner's filter must therefore not be able to do
//! anything but look at the row. Both the text as parsed and the tree as analysed are held against lists of what is
//! allowed, the first because analysis itself runs code: a literal goes through the input function of the type that
//! it becomes. What is kept is written from the tree, every operator, function and type with its schema: it means
//! the same under every search path.

use std::ffi::CString;

use pgrx::IntoDatum;
use pgrx::pg_sys::ParseExprKind::EXPR_KIND_INDEX_PREDICATE;
use pgrx::pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR;
use pgrx::prelude::*;

use super::filter_text::Writer;
use super::filter_words::{Plain, refused};
use super::gate;
use crate::failure::{Failure, boundary};
use crate::record::Record;
use crate::statements::{Parameter, PinnedPath, select};

/// A filter as it is kept.
pub struct Filter {
    /// Its text, written from the tree.
    pub text: String,
    /// Whether it uses more than an owner may: functions, operators and types that did not come with PostgreSQL.
    pub beyond: bool,
}

/// A filter that is about to run.
pub struct Settled {
    /// Its text, which means the same under every search path.
    pub text: String,
    /// Whether it means the same in every other database, session and moment, too.
    pub portable: bool,
}

/// The trigger on copymatch.reference_set asks here, for what a superuser writes by hand.
#[pg_extern(sql = false)]
fn settle_filter(relation: pg_sys::Oid, filter: &str, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        gate::locked(relation).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation {} does not exist", u32::from(relation)),
            )
        })?;
        let filter = check(relation, filter)?;
        Record::form(fcinfo, vec![filter.text.into_datum(), filter.beyond.into_datum()])
    })
}

/// For statements over a set's references that SQL builds.
#[pg_extern(sql = false)]
fn current_filter(set: i64) -> Option<String> {
    boundary(|| {
        let found = select(
            "SELECT s.relation::pg_catalog.oid, s.filter, s.filter_beyond FROM copymatch.reference_set s \
             WHERE s.id = $1 AND s.filter IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.pg_class c \
             WHERE c.oid = s.relation)",
            &[Parameter::of(set)],
            |row| {
                Ok((
                    row.required::<pg_sys::Oid>(1)?,
                    row.required::<String>(2)?,
                    row.required::<bool>(3)?,
                ))
            },
        )?;
        found
            .into_iter()
            .next()
            .map(|(relation, filter, beyond)| {
                gate::locked(relation);
                Ok(format!("({})", settle(relation, &filter, beyond)?.text))
            })
            .transpose()
    })
}

/// A filter that somebody wants to set. The current user decides what it may use: a superuser's choice is free.
pub fn check(relation: pg_sys::Oid, text: &str) -> Result<Filter, Failure> {
    // SAFETY: reads this backend's role.
    let free = unsafe { pg_sys::superuser() };
    let pinned = PinnedPath::new();
    let parsed = Parsed::of(relation, text)?;
    match parsed.is_plain() {
        // Under PostgreSQL's own path: no better-fitting operator of the session's comes in.
        Ok(()) => Ok(Filter {
            text: parsed.settled(false)?.text,
            beyond: false,
        }),
        Err(failure) if !free => Err(failure),
        Err(_) => {
            drop(pinned);
            Ok(Filter {
                text: parsed.settled(true)?.text,
                beyond: true,
            })
        }
    }
}

/// A filter that is about to run. `beyond`: a superuser set it, and it uses more than an owner may.
pub fn settle(relation: pg_sys::Oid, text: &str, beyond: bool) -> Result<Settled, Failure> {
    let _pinned = PinnedPath::new();
    let parsed = Parsed::of(relation, text)?;
    if !beyond {
        parsed.is_plain().map_err(|failure| {
            failure.hint(
                "Set it again with copy_alter_set(name, filter => …); what is not allowed there only a superuser may \
                 set.",
            )
        })?;
    }
    parsed.settled(beyond)
}

/// A filter's text, parsed but not analysed: no name in it has been looked up.
struct Parsed {
    relation: pg_sys::Oid,
    text: CString,
    tree: *mut pg_sys::Node,
}

impl Parsed {
    fn of(relation: pg_sys::Oid, text: &str) -> Result<Parsed, Failure> {
        let text = CString::new(text).map_err(|_| refused("it contains a NUL byte"))?;
        // SAFETY: the parser reads a NUL-terminated string and gives nodes in this call's memory.
        let tree = unsafe {
            lone_expression(pg_sys::raw_parser(text.as_ptr(), RAW_PARSE_PLPGSQL_EXPR))
                .ok_or_else(|| refused("it is not one expression"))?
        };
        Ok(Parsed { relation, text, tree })
    }

    fn is_plain(&self) -> Result<(), Failure> {
        // SAFETY: the tree is one of the parser's.
        unsafe { Plain::over(self.relation).judge(self.tree) }
    }

    fn settled(&self, beyond: bool) -> Result<Settled, Failure> {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: the relation is open while the condition is analysed; errors of PostgreSQL unwind and release what is
        // held. The analysis may write into the parser's tree: it gets a copy.
        unsafe {
            let opened = pg_sys::table_open(self.relation, lock);
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            (*state).p_sourcetext = self.text.as_ptr();
            let columns = pg_sys::addRangeTableEntryForRelation(state, opened, lock, std::ptr::null_mut(), false, true);
            pg_sys::addNSItemToQuery(state, columns, false, true, true);
            let tree = pg_sys::copyObjectImpl(self.tree.cast()).cast::<pg_sys::Node>();
            let condition = pg_sys::transformExpr(state, tree, EXPR_KIND_INDEX_PREDICATE);
            let condition = pg_sys::coerce_to_boolean(state, condition, c"filter".as_ptr());
            pg_sys::assign_expr_collations(state, condition);
            let immutable = !pg_sys::contain_mutable_functions(condition);
            let settled = if pg_sys::contain_volatile_functions(condition) {
                Err(refused("it calls a volatile function"))
            } else {
                let mut writer = Writer::new(self.relation, beyond);
                let text = writer.write(condition);
                let portable = immutable && writer.everywhere && !beyond;
                text.map(|text| Settled { text, portable })
            };
            pg_sys::table_close(opened, lock);
            settled
        }
    }
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

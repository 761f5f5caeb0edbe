//! What the text of an owner's filter may say: judged before any name in it is looked up outside PostgreSQL's own
//! schema, and before any literal becomes a value of a type.

use std::ffi::CString;

use pgrx::prelude::*;

use super::filter_nodes::{nodes, text_of};
use crate::failure::Failure;

/// OIDs below this one were given by initdb (FirstNormalObjectId, the same in every release).
const FIRST_NORMAL_OID: u32 = 16384;

/// PostgreSQL's functions that a filter may call: they compute something from their arguments and the clock, and
/// neither run statements nor look up what a name in a text says.
const FUNCTIONS: &[&str] = &[
    "abs",
    "age",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_position",
    "array_upper",
    "ascii",
    "bit_count",
    "bit_length",
    "bool",
    "bpchar",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "date",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "div",
    "encode",
    "exp",
    "extract",
    "family",
    "float4",
    "float8",
    "floor",
    "get_bit",
    "get_byte",
    "greatest",
    "host",
    "initcap",
    "int2",
    "int4",
    "int8",
    "interval",
    "is_normalized",
    "isempty",
    "isfinite",
    "jsonb_array_length",
    "jsonb_exists",
    "jsonb_exists_all",
    "jsonb_exists_any",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_typeof",
    "json_array_length",
    "json_extract_path",
    "json_extract_path_text",
    "json_typeof",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "left",
    "length",
    "like_escape",
    "ln",
    "log",
    "lower",
    "lower_inc",
    "lower_inf",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "masklen",
    "md5",
    "mod",
    "network",
    "normalize",
    "now",
    "numeric",
    "octet_length",
    "overlaps",
    "position",
    "pow",
    "power",
    "range_merge",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "regexp_substr",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "rpad",
    "rtrim",
    "scale",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "similar_to_escape",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "timezone",
    "to_char",
    "to_date",
    "to_hex",
    "to_number",
    "to_timestamp",
    "transaction_timestamp",
    "translate",
    "trim_array",
    "trunc",
    "upper",
    "upper_inc",
    "upper_inf",
    "varchar",
    "width_bucket",
];

/// The types of its columns and values, besides arrays of these and enums.
const TYPES: &[pg_sys::Oid] = &[
    pg_sys::BOOLOID,
    pg_sys::BYTEAOID,
    pg_sys::CHAROID,
    pg_sys::NAMEOID,
    pg_sys::INT8OID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::TEXTOID,
    pg_sys::OIDOID,
    pg_sys::JSONOID,
    pg_sys::JSONBOID,
    pg_sys::FLOAT4OID,
    pg_sys::FLOAT8OID,
    pg_sys::MACADDROID,
    pg_sys::MACADDR8OID,
    pg_sys::INETOID,
    pg_sys::CIDROID,
    pg_sys::BPCHAROID,
    pg_sys::VARCHAROID,
    pg_sys::DATEOID,
    pg_sys::TIMEOID,
    pg_sys::TIMESTAMPOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::INTERVALOID,
    pg_sys::TIMETZOID,
    pg_sys::BITOID,
    pg_sys::VARBITOID,
    pg_sys::NUMERICOID,
    pg_sys::UUIDOID,
    pg_sys::INT4RANGEOID,
    pg_sys::INT8RANGEOID,
    pg_sys::NUMRANGEOID,
    pg_sys::DATERANGEOID,
    pg_sys::TSRANGEOID,
    pg_sys::TSTZRANGEOID,
];

/// Why a filter is not kept, or not run.
pub fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("the filter is not allowed: {why}"),
    )
    .hint(
        "A filter is an SQL condition over the relation's own columns, such as \"kind = 'logo' AND expires_at > \
         now()\", in PostgreSQL's own types, operators and plain functions. For more make a generated column and \
         compare that, or make the set over a view; a superuser may set a filter that goes further.",
    )
}

/// Whether an object came with PostgreSQL.
pub fn is_built_in(oid: pg_sys::Oid) -> bool {
    u32::from(oid) < FIRST_NORMAL_OID
}

/// Whether a function of PostgreSQL's own, by its name, is one that filters may call.
pub fn is_plain_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// Whether a type's values are plain data: those of the list and arrays of them.
pub fn is_plain_type(oid: pg_sys::Oid) -> bool {
    // SAFETY: a look-up that answers 0 for what is no array.
    TYPES.contains(&oid) || TYPES.contains(&unsafe { pg_sys::get_element_type(oid) })
}

/// Whether it is an enum, whose values compare by PostgreSQL's own operators, or an array of one.
pub fn is_enum(oid: pg_sys::Oid) -> bool {
    // SAFETY: look-ups that answer 0 for what is no type, or no array.
    unsafe {
        [oid, pg_sys::get_element_type(oid)]
            .map(|oid| pg_sys::get_typtype(oid) as u8)
            .contains(&pg_sys::TYPTYPE_ENUM)
    }
}

/// A type as SQL names it.
pub fn type_name(oid: pg_sys::Oid) -> String {
    // SAFETY: the string is palloc'd and copied.
    unsafe { text_of(pg_sys::format_type_be(oid)) }.unwrap_or_default()
}

/// Judges a filter over one relation. search_path is pinned meanwhile.
pub struct Plain {
    relation: pg_sys::Oid,
}

impl Plain {
    /// Over the columns of this relation.
    pub fn over(relation: pg_sys::Oid) -> Self {
        Plain { relation }
    }

    /// # Safety
    /// `node` is one of the parser's, or null.
    pub unsafe fn judge(&self, node: *mut pg_sys::Node) -> Result<(), Failure> {
        use pg_sys::NodeTag::*;
        if node.is_null() {
            return Ok(());
        }
        // SAFETY: each cast follows a look at the node's tag.
        unsafe {
            match (*node).type_ {
                T_A_Const | T_SQLValueFunction => Ok(()),
                T_List => self.all(node.cast()),
                T_ColumnRef => self.column((*node.cast::<pg_sys::ColumnRef>()).fields),
                T_BoolExpr => self.all((*node.cast::<pg_sys::BoolExpr>()).args),
                T_NullTest => self.judge((*node.cast::<pg_sys::NullTest>()).arg.cast()),
                T_BooleanTest => self.judge((*node.cast::<pg_sys::BooleanTest>()).arg.cast()),
                T_CoalesceExpr => self.all((*node.cast::<pg_sys::CoalesceExpr>()).args),
                T_MinMaxExpr => self.all((*node.cast::<pg_sys::MinMaxExpr>()).args),
                T_A_ArrayExpr => self.all((*node.cast::<pg_sys::A_ArrayExpr>()).elements),
                T_RowExpr => self.all((*node.cast::<pg_sys::RowExpr>()).args),
                T_CaseExpr => {
                    let case = &*node.cast::<pg_sys::CaseExpr>();
                    self.judge(case.arg.cast())?;
                    self.all(case.args)?;
                    self.judge(case.defresult.cast())
                }
                T_CaseWhen => {
                    let when = &*node.cast::<pg_sys::CaseWhen>();
                    self.judge(when.expr.cast())?;
                    self.judge(when.result.cast())
                }
                T_A_Expr => {
                    let expression = &*node.cast::<pg_sys::A_Expr>();
                    let name = self.own_name(expression.name, "operator")?;
                    let is_written = matches!(
                        expression.kind,
                        pg_sys::A_Expr_Kind::AEXPR_OP
                            | pg_sys::A_Expr_Kind::AEXPR_OP_ANY
                            | pg_sys::A_Expr_Kind::AEXPR_OP_ALL
                    );
                    let kind = if expression.lexpr.is_null() { b'l' } else { b'b' };
                    if is_written && pg_sys::OpernameGetCandidates(expression.name, kind as _, true).is_null() {
                        return Err(refused(format!(
                            "it uses operator {name}, which did not come with PostgreSQL"
                        )));
                    }
                    self.judge(expression.lexpr)?;
                    self.judge(expression.rexpr)
                }
                T_CollateClause => {
                    let collate = &*node.cast::<pg_sys::CollateClause>();
                    self.own_name(collate.collname, "collation")?;
                    self.judge(collate.arg)
                }
                T_TypeCast => {
                    let cast = &*node.cast::<pg_sys::TypeCast>();
                    let oid = pg_sys::LookupTypeNameOid(std::ptr::null_mut(), cast.typeName, true);
                    if !is_plain_type(oid) && !is_enum(oid) {
                        let name = text_of(pg_sys::TypeNameToString(cast.typeName)).unwrap_or_default();
                        return Err(refused(format!("it casts to type {name}")));
                    }
                    self.all((*cast.typeName).typmods)?;
                    self.judge(cast.arg)
                }
                T_FuncCall => self.function(&*node.cast::<pg_sys::FuncCall>()),
                other => Err(refused(format!("it has a node of kind {}", tag_name(other)))),
            }
        }
    }

    unsafe fn all(&self, list: *mut pg_sys::List) -> Result<(), Failure> {
        // SAFETY: a list of the parser's nodes.
        unsafe { nodes(list).into_iter().try_for_each(|node| self.judge(node)) }
    }

    /// A name that means PostgreSQL's own object: without a schema, as the path is pinned, or with that one.
    unsafe fn own_name(&self, names: *mut pg_sys::List, what: &str) -> Result<String, Failure> {
        // SAFETY: a list of strings.
        let (parts, name) = unsafe {
            (
                pg_sys::list_length(names),
                text_of(pg_sys::NameListToString(names)).unwrap_or_default(),
            )
        };
        match (parts, name.strip_prefix("pg_catalog.")) {
            (1, _) => Ok(name),
            (2, Some(own)) => Ok(own.to_owned()),
            _ => Err(refused(format!(
                "it uses {what} {name}, which did not come with PostgreSQL"
            ))),
        }
    }

    unsafe fn function(&self, call: &pg_sys::FuncCall) -> Result<(), Failure> {
        // SAFETY: fields of a node of the parser's.
        unsafe {
            let name = self.own_name(call.funcname, "function")?;
            let plain = call.agg_order.is_null()
                && call.agg_filter.is_null()
                && call.over.is_null()
                && !call.agg_within_group
                && !call.agg_star
                && !call.agg_distinct;
            if !plain || !is_plain_function(&name) {
                return Err(refused(format!("it calls function {name}")));
            }
            self.all(call.args)
        }
    }

    /// A column by its name, alone or behind that of the relation.
    unsafe fn column(&self, fields: *mut pg_sys::List) -> Result<(), Failure> {
        // SAFETY: a list of strings; the look-ups answer 0 for what is not there.
        unsafe {
            let written = text_of(pg_sys::NameListToString(fields)).unwrap_or_default();
            let relation = text_of(pg_sys::get_rel_name(self.relation)).unwrap_or_default();
            let name = match pg_sys::list_length(fields) {
                1 => written.as_str(),
                2 => written.strip_prefix(&format!("{relation}.")).unwrap_or_default(),
                _ => "",
            };
            let c_name = CString::new(name).unwrap_or_default();
            let number = pg_sys::get_attnum(self.relation, c_name.as_ptr());
            if number == 0 {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("the filter is not allowed: relation \"{relation}\" has no column \"{written}\""),
                ));
            }
            let oid = pg_sys::get_atttype(self.relation, number);
            if number < 0 || !is_plain_type(oid) && !is_enum(oid) {
                return Err(refused(format!("column \"{name}\" is of type {}", type_name(oid))));
            }
            Ok(())
        }
    }
}

/// A kind of node as PostgreSQL's sources name it.
pub fn tag_name(tag: pg_sys::NodeTag) -> String {
    format!("{tag:?}").trim_start_matches("T_").to_owned()
}

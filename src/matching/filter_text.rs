//! A filter's text out of its analysed tree, every operator, function and type with its schema. What the lists of
//! `filter_words` do not have is an error.

use std::ffi::CString;

use pgrx::prelude::*;

use super::filter_nodes::{nodes, text_of};
use super::filter_words::{is_built_in, is_enum, is_plain_function, is_plain_type, refused, tag_name, type_name};
use crate::failure::Failure;

/// Writes conditions over one relation.
pub struct Writer {
    relation: pg_sys::Oid,
    /// Whether it may use what did not come with PostgreSQL.
    beyond: bool,
    /// Whether all types that it met came with PostgreSQL: another database has them.
    pub everywhere: bool,
    /// The subjects of the CASE expressions around the present node.
    subjects: Vec<String>,
}

impl Writer {
    pub fn new(relation: pg_sys::Oid, beyond: bool) -> Self {
        Writer {
            relation,
            beyond,
            everywhere: true,
            subjects: Vec::new(),
        }
    }

    /// # Safety
    /// `node` is analysed over the columns of the relation, the only one that it knows.
    pub unsafe fn write(&mut self, node: *mut pg_sys::Node) -> Result<String, Failure> {
        use pg_sys::NodeTag::*;
        // SAFETY: each cast follows a look at the node's tag.
        unsafe {
            let tag = (*node).type_;
            if !matches!(tag, T_List | T_CaseWhen) {
                self.admit(pg_sys::exprType(node))?;
            }
            match tag {
                T_Var => self.column(&*node.cast::<pg_sys::Var>()),
                T_Const => self.constant(&*node.cast::<pg_sys::Const>()),
                T_BoolExpr => {
                    let expression = &*node.cast::<pg_sys::BoolExpr>();
                    let mut parts = Vec::new();
                    for part in nodes(expression.args) {
                        // As the parser would read it again: AND within AND is one.
                        let same = (*part).type_ == T_BoolExpr
                            && expression.boolop != pg_sys::BoolExprType::NOT_EXPR
                            && { (*part.cast::<pg_sys::BoolExpr>()).boolop == expression.boolop };
                        let text = self.write(part)?;
                        parts.push(if same { text[1..text.len() - 1].to_owned() } else { text });
                    }
                    Ok(match expression.boolop {
                        pg_sys::BoolExprType::AND_EXPR => format!("({})", parts.join(" AND ")),
                        pg_sys::BoolExprType::OR_EXPR => format!("({})", parts.join(" OR ")),
                        _ => format!("(NOT {})", parts.join("")),
                    })
                }
                T_NullTest => {
                    let test = &*node.cast::<pg_sys::NullTest>();
                    let negated = test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL;
                    let argument = self.write(test.arg.cast())?;
                    Ok(format!("({argument} IS {}NULL)", if negated { "NOT " } else { "" }))
                }
                T_BooleanTest => {
                    let test = &*node.cast::<pg_sys::BooleanTest>();
                    use pg_sys::BoolTestType::*;
                    let what = match test.booltesttype {
                        IS_TRUE => "TRUE",
                        IS_NOT_TRUE => "NOT TRUE",
                        IS_FALSE => "FALSE",
                        IS_NOT_FALSE => "NOT FALSE",
                        IS_UNKNOWN => "UNKNOWN",
                        _ => "NOT UNKNOWN",
                    };
                    let argument = self.write(test.arg.cast())?;
                    Ok(format!("({argument} IS {what})"))
                }
                T_OpExpr => {
                    let expression = &*node.cast::<pg_sys::OpExpr>();
                    let operator = self.operator(expression.opno)?;
                    match self.all(expression.args)?.as_slice() {
                        [only] => Ok(format!("({operator} {only})")),
                        [left, right] => Ok(format!("({left} {operator} {right})")),
                        _ => Err(refused("an operator has no operands")),
                    }
                }
                // The grammar's IS DISTINCT FROM and NULLIF look for an operator "=" by the path; these say which.
                T_DistinctExpr => {
                    let expression = &*node.cast::<pg_sys::OpExpr>();
                    let operator = self.operator(expression.opno)?;
                    match self.all(expression.args)?.as_slice() {
                        [left, right] => Ok(format!(
                            "COALESCE((NOT ({left} {operator} {right})), (NOT (({left} IS NULL) AND ({right} IS \
                             NULL))))"
                        )),
                        _ => Err(refused("an operator has no operands")),
                    }
                }
                T_NullIfExpr => {
                    let expression = &*node.cast::<pg_sys::OpExpr>();
                    let operator = self.operator(expression.opno)?;
                    match self.all(expression.args)?.as_slice() {
                        [left, right] => Ok(format!(
                            "CASE WHEN ({left} {operator} {right}) THEN NULL::{} ELSE {left} END",
                            qualified_type(expression.opresulttype)
                        )),
                        _ => Err(refused("an operator has no operands")),
                    }
                }
                T_ScalarArrayOpExpr => {
                    let expression = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                    let operator = self.operator(expression.opno)?;
                    let quantor = if expression.useOr { "ANY" } else { "ALL" };
                    match self.all(expression.args)?.as_slice() {
                        [left, right] => Ok(format!("({left} {operator} {quantor} ({right}))")),
                        _ => Err(refused("an operator has no operands")),
                    }
                }
                T_FuncExpr => self.function(&*node.cast::<pg_sys::FuncExpr>()),
                T_RelabelType => {
                    let cast = &*node.cast::<pg_sys::RelabelType>();
                    self.cast(cast.arg.cast(), cast.resulttype)
                }
                T_CoerceViaIO => {
                    let cast = &*node.cast::<pg_sys::CoerceViaIO>();
                    // Between an enum and other types a cast can be made at any time, which would then be meant.
                    for oid in [cast.resulttype, pg_sys::exprType(cast.arg.cast())] {
                        if !self.beyond && !is_plain_type(oid) {
                            return Err(refused(format!("it casts type {}", type_name(oid))));
                        }
                    }
                    self.cast(cast.arg.cast(), cast.resulttype)
                }
                T_ArrayCoerceExpr => {
                    let cast = &*node.cast::<pg_sys::ArrayCoerceExpr>();
                    for oid in [cast.resulttype, pg_sys::exprType(cast.arg.cast())] {
                        if !self.beyond && !is_plain_type(oid) {
                            return Err(refused(format!("it casts type {}", type_name(oid))));
                        }
                    }
                    self.cast(cast.arg.cast(), cast.resulttype)
                }
                T_CoerceToDomain if self.beyond => {
                    let cast = &*node.cast::<pg_sys::CoerceToDomain>();
                    self.cast(cast.arg.cast(), cast.resulttype)
                }
                T_CollateExpr => {
                    let collate = &*node.cast::<pg_sys::CollateExpr>();
                    if !self.beyond && !is_built_in(collate.collOid) {
                        return Err(refused("it uses a collation that did not come with PostgreSQL"));
                    }
                    let argument = self.write(collate.arg.cast())?;
                    let name = text_of(pg_sys::get_collation_name(collate.collOid)).unwrap_or_default();
                    let schema = schema_of_collation(collate.collOid);
                    Ok(format!("({argument} COLLATE {schema}.{})", quoted(&name)))
                }
                T_CoalesceExpr => {
                    let parts = self.all((*node.cast::<pg_sys::CoalesceExpr>()).args)?;
                    Ok(format!("COALESCE({})", parts.join(", ")))
                }
                T_MinMaxExpr => {
                    let expression = &*node.cast::<pg_sys::MinMaxExpr>();
                    let greatest = expression.op == pg_sys::MinMaxOp::IS_GREATEST;
                    let parts = self.all(expression.args)?;
                    Ok(format!(
                        "{}({})",
                        if greatest { "GREATEST" } else { "LEAST" },
                        parts.join(", ")
                    ))
                }
                T_ArrayExpr => {
                    let array = &*node.cast::<pg_sys::ArrayExpr>();
                    let parts = self.all(array.elements)?;
                    Ok(format!(
                        "ARRAY[{}]::{}",
                        parts.join(", "),
                        qualified_type(array.array_typeid)
                    ))
                }
                T_CaseExpr => self.case(&*node.cast::<pg_sys::CaseExpr>()),
                T_CaseTestExpr => self
                    .subjects
                    .last()
                    .cloned()
                    .ok_or_else(|| refused("it has a node of kind CaseTestExpr")),
                T_SQLValueFunction => {
                    let text = text_of(pg_sys::deparse_expression(node, std::ptr::null_mut(), false, false));
                    text.ok_or_else(|| refused("it has a node of kind SQLValueFunction"))
                }
                other => Err(refused(format!("it has a node of kind {}", tag_name(other)))),
            }
        }
    }

    fn admit(&mut self, oid: pg_sys::Oid) -> Result<(), Failure> {
        self.everywhere &= is_built_in(oid);
        if self.beyond || is_plain_type(oid) || is_enum(oid) {
            return Ok(());
        }
        Err(refused(format!("it has a value of type {}", type_name(oid))))
    }

    unsafe fn all(&mut self, list: *mut pg_sys::List) -> Result<Vec<String>, Failure> {
        // SAFETY: a list of analysed nodes.
        unsafe { nodes(list).into_iter().map(|node| self.write(node)).collect() }
    }

    fn column(&self, var: &pg_sys::Var) -> Result<String, Failure> {
        if var.varlevelsup != 0 || var.varattno <= 0 {
            return Err(refused("it uses a whole row or a system column"));
        }
        // SAFETY: a look-up in the caches.
        let name = unsafe { text_of(pg_sys::get_attname(self.relation, var.varattno, false)) };
        Ok(quoted(&name.unwrap_or_default()))
    }

    fn constant(&self, constant: &pg_sys::Const) -> Result<String, Failure> {
        let name = qualified_type(constant.consttype);
        if constant.constisnull {
            return Ok(format!("NULL::{name}"));
        }
        // SAFETY: the output function of the value's type, under settings that its input function reads back; put back
        // below, or by the abort of the transaction where an error unwinds.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (setting, value) in [
                (c"datestyle", c"ISO"),
                (c"intervalstyle", c"postgres"),
                (c"extra_float_digits", c"3"),
                (c"lc_monetary", c"C"),
                (c"bytea_output", c"hex"),
            ] {
                pg_sys::set_config_option(
                    setting.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            let mut output = pg_sys::InvalidOid;
            let mut is_varlena = false;
            pg_sys::getTypeOutputInfo(constant.consttype, &mut output, &mut is_varlena);
            let text = pg_sys::OidOutputFunctionCall(output, constant.constvalue);
            pg_sys::AtEOXact_GUC(true, level);
            let literal = text_of(pg_sys::quote_literal_cstr(text)).unwrap_or_default();
            Ok(format!("{}::{name}", literal.trim_start()))
        }
    }

    fn operator(&self, oid: pg_sys::Oid) -> Result<String, Failure> {
        // SAFETY: look-ups in the caches; the tuple is released after the copy.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::OPEROID as i32, pg_sys::Datum::from(oid));
            if tuple.is_null() {
                return Err(refused("it uses an operator that is gone"));
            }
            let data = (*tuple).t_data;
            let form = &*data
                .cast::<u8>()
                .add(usize::from((*data).t_hoff))
                .cast::<pg_sys::FormData_pg_operator>();
            let name = text_of(form.oprname.data.as_ptr()).unwrap_or_default();
            let (schema, code) = (form.oprnamespace, form.oprcode);
            pg_sys::ReleaseSysCache(tuple);
            if !(self.beyond || is_built_in(oid) && is_built_in(code)) {
                return Err(refused(format!(
                    "it uses operator {name}, which did not come with PostgreSQL"
                )));
            }
            Ok(format!("OPERATOR({}.{name})", schema_name(schema)))
        }
    }

    unsafe fn function(&mut self, call: &pg_sys::FuncExpr) -> Result<String, Failure> {
        // SAFETY: fields of an analysed node; look-ups in the caches.
        unsafe {
            let name = text_of(pg_sys::get_func_name(call.funcid)).unwrap_or_default();
            let is_cast = call.funcformat != pg_sys::CoercionForm::COERCE_EXPLICIT_CALL
                && call.funcformat != pg_sys::CoercionForm::COERCE_SQL_SYNTAX;
            if !self.beyond && !(is_built_in(call.funcid) && (is_cast || is_plain_function(&name))) {
                return Err(refused(format!("it calls function {name}")));
            }
            let schema = schema_name(pg_sys::get_func_namespace(call.funcid));
            let mut arguments = self.all(call.args)?;
            if call.funcvariadic
                && let Some(last) = arguments.last_mut()
            {
                last.insert_str(0, "VARIADIC ");
            }
            Ok(format!("{schema}.{}({})", quoted(&name), arguments.join(", ")))
        }
    }

    unsafe fn cast(&mut self, argument: *mut pg_sys::Node, to: pg_sys::Oid) -> Result<String, Failure> {
        // SAFETY: an analysed node.
        let argument = unsafe { self.write(argument)? };
        Ok(format!("({argument})::{}", qualified_type(to)))
    }

    unsafe fn case(&mut self, case: &pg_sys::CaseExpr) -> Result<String, Failure> {
        // SAFETY: fields of an analysed node; its args are CaseWhen.
        unsafe {
            let subject = if case.arg.is_null() {
                None
            } else {
                Some(self.write(case.arg.cast())?)
            };
            let is_simple = subject.is_some();
            self.subjects.extend(subject);
            let mut text = "CASE".to_owned();
            for node in nodes(case.args) {
                let when = &*node.cast::<pg_sys::CaseWhen>();
                let condition = self.write(when.expr.cast())?;
                let result = self.write(when.result.cast())?;
                text.push_str(&format!(" WHEN {condition} THEN {result}"));
            }
            if !case.defresult.is_null() {
                text.push_str(&format!(" ELSE {}", self.write(case.defresult.cast())?));
            }
            if is_simple {
                self.subjects.pop();
            }
            text.push_str(" END");
            Ok(text)
        }
    }
}

fn quoted(name: &str) -> String {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: gives its argument or a palloc'd string, which is copied.
    unsafe { text_of(pg_sys::quote_identifier(name.as_ptr())) }.unwrap_or_default()
}

fn schema_name(schema: pg_sys::Oid) -> String {
    // SAFETY: a look-up in the caches.
    quoted(&unsafe { text_of(pg_sys::get_namespace_name(schema)) }.unwrap_or_default())
}

/// A type with its schema. Not by format_type: the names of the standard's types mean their
/// short forms (bit is bit(1)).
fn qualified_type(oid: pg_sys::Oid) -> String {
    // SAFETY: look-ups in the caches; the tuple is released after the copy.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return u32::from(oid).to_string();
        }
        let data = (*tuple).t_data;
        let form = &*data
            .cast::<u8>()
            .add(usize::from((*data).t_hoff))
            .cast::<pg_sys::FormData_pg_type>();
        let name = text_of(form.typname.data.as_ptr()).unwrap_or_default();
        let schema = form.typnamespace;
        pg_sys::ReleaseSysCache(tuple);
        format!("{}.{}", schema_name(schema), quoted(&name))
    }
}

/// The schema of a collation.
fn schema_of_collation(oid: pg_sys::Oid) -> String {
    // SAFETY: look-ups in the caches; the tuple is released after the copy.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::COLLOID as i32, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return "pg_catalog".to_owned();
        }
        let data = (*tuple).t_data;
        let form = &*data
            .cast::<u8>()
            .add(usize::from((*data).t_hoff))
            .cast::<pg_sys::FormData_pg_collation>();
        let schema = form.collnamespace;
        pg_sys::ReleaseSysCache(tuple);
        schema_name(schema)
    }
}

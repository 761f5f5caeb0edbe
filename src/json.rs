//! `jsonb` parameters. PostgreSQL's jsonb holds what serde refuses: numbers beyond f64, deeper nesting.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::FromDatum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use serde_json::Value;

use crate::failure::Failure;

/// A `jsonb` as serde reads it. One that it cannot read is an ERROR with SQLSTATE 22P02.
pub struct Json(pub Value);

impl Json {
    /// Reads JSON out of text that PostgreSQL has written.
    pub fn parse(text: &str) -> Result<Value, Failure> {
        serde_json::from_str(text).map_err(|error| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
                "copymatch cannot read this jsonb",
            )
            .detail(error.to_string())
            .hint(
                "Numbers must fit into double precision, and at most 127 arrays and objects may lie within \
                 one another.",
            )
        })
    }
}

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the SQL declaration says that the argument is jsonb; the text is palloc'd
        // and read before it is freed.
        let text = unsafe {
            let output = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_OUT), datum);
            std::ffi::CStr::from_ptr(output).to_string_lossy()
        };
        match Json::parse(&text) {
            Ok(value) => Some(Json(value)),
            Err(failure) => failure.raise(),
        }
    }
}

// SAFETY: read from the datum alone; the functions that take it are STRICT, or take an Option.
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as declared in sql/.
        match unsafe { arg.unbox_arg_using_from_datum::<Json>() } {
            Some(value) => value,
            None => Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "a jsonb argument is NULL",
            )
            .raise(),
        }
    }
}

// SAFETY: the name of the type; the declarations stand in sql/.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

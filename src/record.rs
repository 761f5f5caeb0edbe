//! One composite result (`OUT` parameters), for functions that return a single row and are no sets.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use crate::failure::Failure;

/// A row of the type that the function declares.
pub struct Record(pg_sys::Datum);

impl Record {
    /// Forms the row from its columns, in the order of the declaration.
    pub fn form(fcinfo: pg_sys::FunctionCallInfo, columns: Vec<Option<pg_sys::Datum>>) -> Result<Record, Failure> {
        let mut datums: Vec<pg_sys::Datum> = columns
            .iter()
            .map(|column| column.unwrap_or_else(|| pg_sys::Datum::from(0usize)))
            .collect();
        let mut nulls: Vec<bool> = columns.iter().map(Option::is_none).collect();
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        // SAFETY: fcinfo is this call's; the descriptor is checked to have as many columns as there are datums, whose
        // types are those of the declaration in sql/.
        unsafe {
            let class = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            if class != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
                || usize::try_from((*descriptor).natts) != Ok(columns.len())
            {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    "the function's declaration does not fit the library",
                )
                .hint("Update the extension: ALTER EXTENSION copymatch UPDATE."));
            }
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            let tuple = pg_sys::heap_form_tuple(descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(Record(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
        }
    }
}

// SAFETY: the datum is a composite datum of the function's declared result type.
unsafe impl BoxRet for Record {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: `record` is the SQL type of a composite result; the declarations in sql/ state the columns.
unsafe impl SqlTranslatable for Record {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Record);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("record"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
}

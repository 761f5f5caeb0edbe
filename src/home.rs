//! Where the extension lives: its schema, which the user chooses, and the OID of its `vector` type there.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use crate::failure::Failure;
use crate::select::select;
use crate::types::Vector;

/// The extension's schema and type, found from the function that is being called.
#[derive(Clone, Debug)]
pub struct Home {
    /// The schema's name, quoted where needed.
    pub schema: String,
    /// The type `vector`.
    pub vector: pg_sys::Oid,
}

impl Home {
    /// Finds the home of the function that `fcinfo` calls.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Home, Failure> {
        // SAFETY: fcinfo is valid during the call; the look-ups go through PostgreSQL's system caches, and names are copied out.
        unsafe {
            let function = (*fcinfo).flinfo.as_ref().map_or(pg_sys::InvalidOid, |info| info.fn_oid);
            let namespace = pg_sys::get_func_namespace(function);
            let name = pg_sys::get_namespace_name(namespace);
            if name.is_null() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
                    "the schema of extension copymatch is gone",
                ));
            }
            let schema = std::ffi::CStr::from_ptr(pg_sys::quote_identifier(name))
                .to_string_lossy()
                .into_owned();
            let vector = pg_sys::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
                pg_sys::Anum_pg_type_oid as pg_sys::AttrNumber,
                pg_sys::Datum::from(c"vector".as_ptr()),
                pg_sys::Datum::from(namespace),
                pg_sys::Datum::from(0usize),
                pg_sys::Datum::from(0usize),
            );
            if vector == pg_sys::InvalidOid {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                    format!("type {schema}.vector does not exist"),
                ));
            }
            Ok(Home { schema, vector })
        }
    }

    /// As [`Home::installed`], by the caches alone.
    pub fn of_type() -> Result<Home, Failure> {
        let vector = Vector::type_oid();
        // SAFETY: a look-up in the system caches, released after what is needed is copied; the name is palloc'd and copied.
        let schema = unsafe {
            let tuple =
                pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, pg_sys::Datum::from(vector));
            if tuple.is_null() {
                None
            } else {
                let namespace = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typnamespace;
                pg_sys::ReleaseSysCache(tuple);
                let name = pg_sys::get_namespace_name(namespace);
                (!name.is_null()).then(|| {
                    std::ffi::CStr::from_ptr(pg_sys::quote_identifier(name))
                        .to_string_lossy()
                        .into_owned()
                })
            }
        };
        schema.map(|schema| Home { schema, vector }).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "the type vector of extension copymatch does not exist",
            )
        })
    }

    /// The extension's home where no function in its schema was called: those in schema copymatch, workers.
    pub fn installed() -> Result<Home, Failure> {
        select(
            "SELECT pg_catalog.quote_ident(n.nspname), t.oid FROM pg_catalog.pg_extension e \
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
             JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'copymatch'",
            &[],
            |row| {
                Ok(Home {
                    schema: row.required(1)?,
                    vector: row.required(2)?,
                })
            },
        )?
        .into_iter()
        .next()
        .ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "extension copymatch is not installed in this database",
            )
        })
    }
}

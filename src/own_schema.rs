//! Where the extension lives: its schema, which the user chooses, and the OID of its `vector` type there.

use std::cell::Cell;

use pgrx::IntoDatum;
use pgrx::prelude::*;

use crate::failure::Failure;
use crate::statements::{Parameter, Row, change, select};
use crate::types::Vector;

/// The extension's schema and type, found from the function that is being called.
#[derive(Clone, Debug)]
pub struct OwnSchema {
    /// The schema's name, quoted where needed.
    pub schema: String,
    /// The type `vector`.
    pub vector: pg_sys::Oid,
}

impl OwnSchema {
    /// Finds the home of the function that `fcinfo` calls.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<OwnSchema, Failure> {
        check_version()?;
        // SAFETY: fcinfo is valid during the call; the look-ups go through PostgreSQL's system caches,
        // and names are copied out.
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
            Ok(OwnSchema { schema, vector })
        }
    }

    /// Whether a column of this type can hold descriptors: it is `vector`, or a base type of which a superuser has
    /// declared that it is `vector` byte for byte, as extension copymatch_pgvector does of pgvector's.
    pub fn holds_descriptors(&self, kind: pg_sys::Oid) -> bool {
        // SAFETY: look-ups in the system caches.
        kind == self.vector
            || unsafe { pg_sys::get_typtype(kind) as u8 == b'b' && pg_sys::IsBinaryCoercible(kind, self.vector) }
    }

    /// The type of a new descriptor column of a table of this role's, as SQL names it: pgvector's where that was
    /// adopted and he may name it, so that whatever else the application does with vectors it does with these.
    pub fn column_type(&self, owner: pg_sys::Oid) -> Result<String, Failure> {
        let adopted = change(
            "SELECT pg_catalog.format('%I.%I', n.nspname, t.typname) FROM pg_catalog.pg_cast c \
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass AND d.objid = c.oid \
             AND d.deptype = 'e' \
             JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass \
             AND e.oid = d.refobjid \
                  AND e.extname = 'copymatch_pgvector' \
             JOIN pg_catalog.pg_type t ON t.oid = c.castsource JOIN pg_catalog.pg_namespace n \
             ON n.oid = t.typnamespace \
             WHERE c.casttarget = $1 AND c.castmethod = 'b' AND pg_catalog.has_schema_privilege($2, n.oid, 'USAGE')",
            &[Parameter::of(self.vector), Parameter::of(owner)],
            |row| row.required::<String>(1),
        )?;
        Ok(adopted.into_iter().next().unwrap_or(format!("{}.vector", self.schema)))
    }

    /// As [`OwnSchema::installed`], by the caches alone.
    pub fn of_type() -> Result<OwnSchema, Failure> {
        let vector = Vector::type_oid();
        // SAFETY: a look-up in the system caches, released after what is needed is copied; the
        // name is palloc'd and copied.
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
        schema.map(|schema| OwnSchema { schema, vector }).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "the type vector of extension copymatch does not exist",
            )
        })
    }

    /// The extension's home where no function in its schema was called: those in schema copymatch, workers.
    pub fn installed() -> Result<OwnSchema, Failure> {
        check_version()?;
        select(
            "SELECT pg_catalog.quote_ident(n.nspname), t.oid FROM pg_catalog.pg_extension e \
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
             JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' \
             WHERE e.extname = 'copymatch'",
            &[],
            |row| {
                Ok(OwnSchema {
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

/// Reads the extension's row of pg_extension; None where it is not installed. By its index: a statement would have to
/// be planned.
pub fn extension<T>(read: impl FnOnce(&Row) -> Result<T, Failure>) -> Result<Option<T>, Failure> {
    // SAFETY: a scan as PostgreSQL makes it itself; the row is read before the scan ends.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_NAMEEQ),
            pg_sys::Datum::from(c"copymatch".as_ptr()),
        );
        let index = pg_sys::Oid::from(pg_sys::ExtensionNameIndexId);
        let scan = pg_sys::systable_beginscan(table, index, true, std::ptr::null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| read(&Row::new(tuple, (*table).rd_att)));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
        found.transpose()
    }
}

thread_local! {
    /// Whether this session has seen that the catalogue is the library's.
    static IS_THE_LIBRARYS: Cell<bool> = const { Cell::new(false) };
}

/// An error that says what to do in the time between the installation of another version and
/// the update of the database.
pub fn check_version() -> Result<(), Failure> {
    // SAFETY: reads a variable of this backend; scripts of the extension may call what is not yet complete.
    if IS_THE_LIBRARYS.get() || unsafe { pg_sys::creating_extension } {
        return Ok(());
    }
    const OWN: &str = env!("CARGO_PKG_VERSION");
    match extension(|row| row.required::<String>(pg_sys::Anum_pg_extension_extversion as i32))? {
        Some(version) if version != OWN => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the library of copymatch is of version {OWN}, extension copymatch in this database of {version}"),
        )
        .hint("ALTER EXTENSION copymatch UPDATE;")),
        _ => {
            IS_THE_LIBRARYS.set(true);
            Ok(())
        }
    }
}

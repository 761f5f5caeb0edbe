//! Tables of Citus: distributed over its workers, or copied to all of them. Nothing of Citus is linked or called; its
//! catalogue says which tables are its own, and what copymatch does to such a table is kept to what Citus takes: no
//! storage option of a column, no trigger, no UPDATE that calls volatile functions.

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::statements::{Parameter, change};

/// Whether Citus spreads the rows of this relation.
pub fn spreads(relation: pg_sys::Oid) -> Result<bool, Failure> {
    // SAFETY: a look-up in PostgreSQL's caches. Of a schema that nobody else may write; without Citus there is no such
    // table.
    let catalogue = unsafe {
        pg_sys::get_relname_relid(
            c"pg_dist_partition".as_ptr(),
            pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE),
        )
    };
    if catalogue == pg_sys::InvalidOid {
        return Ok(false);
    }
    let found = change(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition d WHERE d.logicalrelid = $1::pg_catalog.regclass)",
        &[Parameter::of(relation)],
        |row| row.required::<bool>(1),
    )?;
    Ok(found == [true])
}

/// An error where Citus spreads the rows, and `what` cannot be done there.
pub fn refuse(relation: pg_sys::Oid, table: &str, what: &str, hint: &str) -> Result<(), Failure> {
    if !spreads(relation)? {
        return Ok(());
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("relation {table} is one of Citus: {what}"),
    )
    .hint(hint))
}

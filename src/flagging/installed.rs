//! Whether a background process's work is the extension's, before it writes with the rights of the server's owner.

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::statements::{Parameter, change, select};

/// Whether the table `copymatch.NAME` is the extension's: it is locked until the transaction's end, is a member of the
/// installed extension, and of this library's version. Whoever owns the database may make tables and functions of the
/// same names where the extension is not, or not any more.
pub fn is_installed(name: &str) -> Result<bool, Failure> {
    const TABLE: &str = "SELECT pg_catalog.to_regclass('copymatch.' || $1)::pg_catalog.oid";
    let oid = |row: &crate::statements::Row| row.get::<pg_sys::Oid>(1);
    let Some(found) = select(TABLE, &[Parameter::of(name)], oid)?.into_iter().next().flatten() else {
        return Ok(false);
    };
    // SAFETY: a lock that every writer of the table takes; the relation may be gone meanwhile, which the query below
    // sees.
    unsafe { pg_sys::LockRelationOid(found, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
    let member = change(
        "SELECT e.extversion = $2 FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_depend d \
             ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid \
             AND d.deptype = 'e' \
         WHERE e.extname = 'copymatch' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = $1 \
           AND pg_catalog.to_regclass('copymatch.' || $3) = $1",
        &[
            Parameter::of(found),
            Parameter::of(env!("CARGO_PKG_VERSION")),
            Parameter::of(name),
        ],
        |row| row.required::<bool>(1),
    )?;
    Ok(member == [true])
}

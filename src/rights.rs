//! Whose rights something runs with: the owner's of a relation for what is done to it or on its behalf, as VACUUM and
//! REINDEX do, and the extension owner's for rows of the catalogue, which nobody else may write.

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::own_schema::extension;
use crate::statements::{Parameter, select};

/// Runs `work` as `role`, in a security-restricted operation: code of that role's cannot change the session's
/// state. `work` names every object with its schema, or runs under a pinned search_path: the role's rights meet
/// no object of the session's choice.
pub fn as_role<T>(role: pg_sys::Oid, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let restricted =
        pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_NOFORCE_RLS;
    under(role, restricted, work)
}

/// Runs `work` as the extension's owner. For statements over tables of schema copymatch alone, whose triggers and
/// policies are the extension's own, after the caller's right to what they write was checked. Never for anything
/// that a user's code can reach.
pub fn as_extension_owner<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let owner = extension(|row| row.required::<pg_sys::Oid>(pg_sys::Anum_pg_extension_extowner as i32))?;
    let owner = owner.ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension copymatch is not installed in this database",
        )
    })?;
    under(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE, work)
}

/// Runs `work` as the owner of one of the extension's functions, who is the extension's: as
/// `as_extension_owner`, without a query.
pub fn as_owner_of_function<T>(function: pg_sys::Oid, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: the row is copied from before it is released; without one the error below says so.
    let owner = unsafe {
        let row = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            pg_sys::Datum::from(function),
        );
        (!row.is_null()).then(|| {
            let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>()).proowner;
            pg_sys::ReleaseSysCache(row);
            owner
        })
    };
    let owner = owner.ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("function {} is gone", u32::from(function)),
        )
    })?;
    under(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE, work)
}

fn under<T>(role: pg_sys::Oid, flags: u32, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: sets two variables of this backend; where `work` raises, the end of the (sub)transaction puts them back.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | flags as i32);
    }
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

/// The owner of a relation.
pub fn owner_of(relation: pg_sys::Oid) -> Result<pg_sys::Oid, Failure> {
    select(
        "SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[Parameter::of(relation)],
        |row| row.required::<pg_sys::Oid>(1),
    )?
    .into_iter()
    .next()
    .ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation {} is gone", u32::from(relation)),
        )
    })
}

/// The name of the role that this runs as: who is said to have made a row.
pub fn current_user() -> Result<String, Failure> {
    // SAFETY: the name of the role whose rights this backend has; palloc'd and copied.
    let name = unsafe { std::ffi::CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)) };
    Ok(name.to_string_lossy().into_owned())
}

//! Whose sets are searched without being named: the one gate for members of groups, negative sets, the default set, all
//! sets, and the sets of triggers and workers.
//!
//! Whoever searches a set runs code of its relation's owner: views, policies, casts, types, index expressions. It is
//! judged by the owner, never by the look of the relation, and on what the caches say once the relation is locked: a
//! lock keeps everybody from changing owner, name and columns until the transaction ends.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::CStr;

use pgrx::prelude::*;

use crate::failure::Failure;

/// Whether `user` trusts what belongs to `owner`: everybody trusts superusers, who can do all things anyway; a
/// superuser trusts nobody else, although every role is one of theirs; others trust the roles whose rights they have.
pub fn trusts(user: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in PostgreSQL's caches, of roles that may be gone.
    unsafe { pg_sys::superuser_arg(owner) || !pg_sys::superuser_arg(user) && pg_sys::has_privs_of_role(user, owner) }
}

/// Who the current user is for PostgreSQL's own checks.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetUserId() }
}

/// A relation as it is now.
pub struct Relation {
    /// Schema and name, quoted.
    pub name: String,
    /// Its owner.
    pub owner: pg_sys::Oid,
}

/// Locks a relation against changes of its definition, until the transaction ends, and says what it is under the
/// lock; None where it is gone.
pub fn locked(relation: pg_sys::Oid) -> Option<Relation> {
    locked_in(relation, pg_sys::AccessShareLock)
}

/// As `locked`, in another mode.
pub fn locked_in(relation: pg_sys::Oid, mode: u32) -> Option<Relation> {
    let mode = mode as pg_sys::LOCKMODE;
    // SAFETY: a lock and look-ups in the caches; the tuple is released after the copy.
    unsafe {
        watch_invalidations();
        pg_sys::LockRelationOid(relation, mode);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            pg_sys::UnlockRelationOid(relation, mode);
            return None;
        }
        let data = (*tuple).t_data;
        let class = &*data
            .cast::<u8>()
            .add(usize::from((*data).t_hoff))
            .cast::<pg_sys::FormData_pg_class>();
        let schema = pg_sys::get_namespace_name(class.relnamespace);
        let found = (!schema.is_null()).then(|| Relation {
            name: CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, class.relname.data.as_ptr()))
                .to_string_lossy()
                .into_owned(),
            owner: class.relowner,
        });
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

/// What the caches say of a relation that is not locked yet.
pub struct Class {
    /// Its owner.
    pub owner: pg_sys::Oid,
    /// Whether others may inherit from it.
    pub has_heirs: bool,
}

/// See `Class`; None where the relation is gone.
pub fn class(relation: pg_sys::Oid) -> Option<Class> {
    // SAFETY: a look-up in the caches; what is needed is copied before the tuple is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = Class {
            owner: class.relowner,
            has_heirs: class.relhassubclass,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// A role's name, or its number where it is gone.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: a look-up; the name is palloc'd and copied.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            u32::from(role).to_string()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static WARNED: RefCell<HashSet<String>> = RefCell::default();
}

/// Counts what this backend has heard of changes of relations, schemas, types, roles and foreign servers. Whatever was
/// found under a lock still holds where this has not moved since and the lock is held again.
pub fn changes() -> u64 {
    watch_invalidations();
    CHANGES.get()
}

fn watch_invalidations() {
    if WATCHING.replace(true) {
        return;
    }
    // SAFETY: registers callbacks for the life of the backend; they only count.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
        for cache in [
            pg_sys::SysCacheIdentifier::NAMESPACEOID,
            pg_sys::SysCacheIdentifier::TYPEOID,
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(entry_changed), pg_sys::Datum::from(0usize));
        }
    }
}

unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, _relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

unsafe extern "C-unwind" fn entry_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

/// Most sets that one warning names.
const MOST_NAMED: usize = 3;

/// One WARNING for all sets that a search left out, and once in a session: whoever makes sets for others to stumble on
/// must not fill their logs.
pub fn warn_of(left_out: &[(String, Failure)], what: &str) {
    if left_out.is_empty() {
        return;
    }
    let named = left_out
        .iter()
        .take(MOST_NAMED)
        .map(|(_, why)| why.line())
        .collect::<Vec<_>>()
        .join(" ");
    let more = left_out.len().saturating_sub(MOST_NAMED);
    let detail = if more > 0 {
        format!("{named} And {more} more.")
    } else {
        named
    };
    let names = left_out
        .iter()
        .take(MOST_NAMED)
        .map(|(name, _)| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let message = format!(
        "{what} leaves out {} reference set{}: {names}{}",
        left_out.len(),
        if left_out.len() == 1 { "" } else { "s" },
        if more > 0 { ", …" } else { "" }
    );
    let seen = format!("{}\n{message}\n{detail}", u32::from(current_user()));
    if WARNED.with_borrow_mut(|warned| warned.len() < 1000 && warned.insert(seen)) {
        Failure::new(PgSqlErrorCode::ERRCODE_WARNING, message)
            .detail(detail)
            .warn();
    }
}

/// Why a set that nobody named is not searched.
pub fn not_trusted(set: &str, owner: pg_sys::Oid) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!(
            "reference set \"{set}\" belongs to role \"{}\", and nobody named it here.",
            role_name(owner)
        ),
    )
    .hint(format!(
        "Who trusts that role names the set; a superuser can declare it trusted: \
         SELECT copy_alter_set('{}', trusted => true).",
        set.replace('\'', "''")
    ))
}

//! A set's record, and the right to change it.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::arguments::{invalid, null};
use super::named::unknown_set;
use crate::failure::Failure;
use crate::matching::gate::{self, Relation, current_user};
use crate::rights::as_role;
use crate::statements::{Parameter, Row, change, change_qualified};

/// Longest name of a set or group, in bytes: that of PostgreSQL's own names.
const LONGEST_NAME: usize = 63;

/// A set that the caller may change.
pub struct OwnedSet {
    pub id: i64,
    pub name: String,
    pub relation: pg_sys::Oid,
    /// Schema and name of the relation, quoted; None where it is gone.
    pub table: Option<String>,
    pub owner: pg_sys::Oid,
    /// pg_class.relkind.
    pub kind: String,
    pub key: String,
    pub image: Option<String>,
    pub descriptor: String,
    pub model: String,
    pub calibration: i64,
    pub negative: bool,
    pub sketch: Option<String>,
    pub verify: String,
}

const NAMES: &str = "Names of sets and groups have 1 to 63 bytes, as PostgreSQL's own.";

const QUERY: &str = "\
    SELECT s.id, s.name, s.relation::pg_catalog.oid, coalesce(c.relkind::pg_catalog.text, ''), \
           copymatch.key_expression(s.key_column, s.further_key_columns), s.image_column::pg_catalog.text, \
           s.descriptor_column::pg_catalog.text, s.model, s.calibration, s.negative, \
           pg_catalog.to_regrole(pg_catalog.quote_ident(s.created_by))::pg_catalog.oid, \
           s.sketch_column::pg_catalog.text, s.verify \
    FROM copymatch.reference_set s LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation WHERE s.name = $1";

impl OwnedSet {
    /// The set of this name, whoever's it is, with its relation locked in this mode.
    pub fn any(name: Option<&str>, mode: u32) -> Result<OwnedSet, Failure> {
        let (set, _) = find(name, mode)?;
        Ok(set)
    }

    /// The set of this name. An error unless the caller has the rights of the owner of its relation, which is locked in
    /// this mode; a set whose relation is gone belongs to who made it.
    pub fn of(name: Option<&str>, mode: u32) -> Result<OwnedSet, Failure> {
        let (set, maker) = find(name, mode)?;
        let owner = if set.table.is_some() { Some(set.owner) } else { maker };
        if owner.is_some_and(has_rights_of) || owner.is_none() && is_superuser() {
            Ok(set)
        } else {
            Err(set.not_owned())
        }
    }

    fn not_owned(&self) -> Failure {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must own the relation of reference set \"{}\"", self.name),
        )
    }

    /// The relation's name, where it is there.
    pub fn table(&self) -> Result<&str, Failure> {
        self.table.as_deref().ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the relation of reference set \"{}\" no longer exists", self.name),
            )
            .hint(format!(
                "Drop the set with copy_drop_set({}) and make it again with copy_create_set.",
                quote_literal(&self.name)
            ))
        })
    }

    /// Whether its relation is a table, partitioned or not.
    pub fn is_table(&self) -> bool {
        is_table(&self.kind)
    }

    /// Its image column, quoted.
    pub fn image(&self) -> Result<String, Failure> {
        self.image.as_ref().map(quote_identifier).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("reference set \"{}\" has no image column", self.name),
            )
        })
    }
}

fn find(name: Option<&str>, mode: u32) -> Result<(OwnedSet, Option<pg_sys::Oid>), Failure> {
    let name = name.ok_or_else(|| null("the name of a reference set"))?;
    let found = change(QUERY, &[Parameter::of(name)], |row: &Row| {
        Ok((
            OwnedSet {
                id: row.required(1)?,
                name: row.required(2)?,
                relation: row.required(3)?,
                table: None,
                owner: pg_sys::InvalidOid,
                kind: row.required(4)?,
                key: row.required(5)?,
                image: row.get(6)?,
                descriptor: row.required(7)?,
                model: row.required(8)?,
                calibration: row.required(9)?,
                negative: row.required(10)?,
                sketch: row.get(12)?,
                verify: row.required(13)?,
            },
            row.get::<pg_sys::Oid>(11)?,
        ))
    })?;
    let Some((mut set, maker)) = found.into_iter().next() else {
        return Err(unknown_set(name));
    };
    if let Some(Relation { name, owner }) = gate::locked_in(set.relation, mode) {
        set.table = Some(name);
        set.owner = owner;
    }
    Ok((set, maker))
}

/// Whether a relation of this kind is a table, partitioned or not.
pub fn is_table(kind: &str) -> bool {
    matches!(kind, "r" | "p")
}

/// Whether the caller has the rights of a role.
pub fn has_rights_of(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in PostgreSQL's caches.
    unsafe { pg_sys::has_privs_of_role(current_user(), role) }
}

/// Whether the caller is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads this backend's role.
    unsafe { pg_sys::superuser() }
}

/// The caller, as the catalogue records who did something.
pub fn caller() -> String {
    gate::role_name(current_user())
}

/// A name for a set or group.
pub fn valid_name<'a>(name: Option<&'a str>, of: &str) -> Result<&'a str, Failure> {
    match name {
        None => Err(null(&format!("a name for the {of}"))),
        Some("") => Err(invalid(format!("the name of a {of} is empty")).hint(NAMES)),
        Some(long) if long.len() > LONGEST_NAME => Err(invalid(format!(
            "the name of a {of} has {} bytes, at most {LONGEST_NAME} are allowed",
            long.len()
        ))
        .hint(NAMES)),
        Some(name) => Ok(name),
    }
}

/// Runs a statement over a relation as its owner, under the session's search_path, which his triggers may rely on. It
/// names everything with its schema.
pub fn by_owner<T>(
    owner: pg_sys::Oid,
    sql: &str,
    parameters: &[Parameter],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    as_role(owner, || change_qualified(sql, parameters, map))
}

/// As `by_owner`, for statements without a result.
pub fn do_by_owner(owner: pg_sys::Oid, sql: &str) -> Result<(), Failure> {
    by_owner(owner, sql, &[], |_| Ok(())).map(|_| ())
}

/// As `by_owner`, for statements that give one number.
pub fn count_by_owner(owner: pg_sys::Oid, sql: &str, parameters: &[Parameter]) -> Result<i64, Failure> {
    Ok(by_owner(owner, sql, parameters, |row| row.required::<i64>(1))?
        .into_iter()
        .next()
        .unwrap_or(0))
}

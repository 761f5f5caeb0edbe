//! References out of use: disabled by a person, or quarantined because they match too much.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::arguments::null;
use super::owned::{OwnedSet, by_owner, caller, has_rights_of};
use crate::failure::{Failure, boundary};
use crate::matching::gate::{self, current_user, trusts};
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, Row, change, select, select_qualified};

#[pg_extern(sql = false)]
fn copy_disable_reference(
    set: Option<&str>,
    reference: Option<&str>,
    reason: Option<&str>,
    until: Option<TimestampWithTimeZone>,
    quarantine: Option<bool>,
) {
    boundary(|| {
        let (Some(reference), Some(quarantine)) = (reference, quarantine) else {
            return Err(null("reference or quarantine"));
        };
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let past = select(
            "SELECT coalesce($1 <= pg_catalog.clock_timestamp(), false)",
            &[Parameter::of(until)],
            |row| row.required::<bool>(1),
        )?;
        if past == [true] {
            Failure::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("until lies in the past: reference {reference} stays in use"),
            )
            .hint("until is when the reference is in use again; NULL: not before copy_enable_reference.")
            .warn();
        }
        let query = has_reference(set.relation, set.table()?, &set.key)?;
        let found = by_owner(set.owner, &query, &[Parameter::of(reference)], |row| {
            row.required::<bool>(1)
        })?;
        if found != [true] {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("reference set \"{}\" has no reference {reference}", set.name),
            )
            .hint("Give the key as copy_match returns it; that of a composite key looks like (1,\"x y\")."));
        }
        record(
            &set,
            reference,
            if quarantine { "quarantined" } else { "disabled" },
            reason,
            until,
        )
    })
}

/// Behind `copy_quarantine`: the findings may be of a reference that is gone by now.
#[pg_extern(sql = false)]
fn quarantine_reference(
    set: Option<&str>,
    reference: Option<&str>,
    reason: Option<&str>,
    until: Option<TimestampWithTimeZone>,
) {
    boundary(|| {
        let reference = reference.ok_or_else(|| null("reference"))?;
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        record(&set, reference, "quarantined", reason, until)
    })
}

fn record(
    set: &OwnedSet,
    reference: &str,
    state: &str,
    reason: Option<&str>,
    until: Option<TimestampWithTimeZone>,
) -> Result<(), Failure> {
    let by = caller();
    as_extension_owner(|| {
        change(
            "INSERT INTO copymatch.reference_status AS s (reference_set, reference, state, reason, until, by) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT ON CONSTRAINT reference_status_pkey \
             DO UPDATE SET state = excluded.state, reason = excluded.reason, until = excluded.until, \
             since = excluded.since, by = excluded.by",
            &[
                Parameter::of(set.name.as_str()),
                Parameter::of(reference),
                Parameter::of(state),
                Parameter::of(reason),
                Parameter::of(until),
                Parameter::of(by),
            ],
            |_| Ok(()),
        )
    })?;
    Ok(())
}

#[pg_extern(sql = false)]
fn copy_enable_reference(set: Option<&str>, reference: Option<&str>) -> bool {
    boundary(|| {
        let reference = reference.ok_or_else(|| null("reference"))?;
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let gone = as_extension_owner(|| {
            change(
                "DELETE FROM copymatch.reference_status s WHERE s.reference_set = $1 AND s.reference = $2 \
                 RETURNING true",
                &[Parameter::of(set.name.as_str()), Parameter::of(reference)],
                |row| row.required::<bool>(1),
            )
        })?;
        Ok(!gone.is_empty())
    })
}

/// The policy of copymatch.reference_status: who may see the reference may see that it is out of use. Asked
/// for whatever the caller's query reads, so that the sets of strangers are none of its business: their
/// tables' code does not run.
#[pg_extern(sql = false)]
fn sees_reference(set: Option<&str>, reference: Option<&str>) -> bool {
    boundary(|| {
        let (Some(set), Some(reference)) = (set, reference) else {
            return Ok(false);
        };
        let found = select(
            "SELECT s.relation::pg_catalog.oid, CASE WHEN s.trusted_relation = s.relation \
             THEN s.trusted_owner::pg_catalog.oid END, \
                    copymatch.key_expression(s.key_column, s.further_key_columns), \
                    c.relkind IN ('r', 'p') AND NOT pg_catalog.row_security_active(c.oid), \
                    pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') \
                    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') \
                         OR NOT EXISTS (SELECT FROM pg_catalog.unnest(s.key_column || s.further_key_columns) AS u(col) \
                                        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
                                        AND a.attname = u.col AND NOT a.attisdropped \
                                        WHERE a.attnum IS NULL OR NOT pg_catalog.has_column_privilege(c.oid, a.attnum, \
                                        'SELECT'))), \
                    NOT EXISTS (SELECT FROM pg_catalog.unnest(s.key_column || s.further_key_columns) AS u(col) \
                                WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
                                                  WHERE a.attrelid = c.oid AND a.attname = u.col \
                                                  AND NOT a.attisdropped)) \
             FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation WHERE s.name = $1",
            &[Parameter::of(set)],
            |row: &Row| {
                Ok((
                    row.required::<pg_sys::Oid>(1)?,
                    row.get::<pg_sys::Oid>(2)?,
                    row.required::<String>(3)?,
                    row.required::<bool>(4)?,
                    row.required::<bool>(5)?,
                    row.required::<bool>(6)?,
                ))
            },
        )?;
        let Some((oid, trusted, key, is_open, may_read, is_intact)) = found.into_iter().next() else {
            return Ok(false);
        };
        let Some(relation) = gate::locked(oid) else {
            return Ok(false);
        };
        if has_rights_of(relation.owner) {
            return Ok(true);
        }
        if !may_read || !trusts(current_user(), relation.owner) && trusted != Some(relation.owner) {
            return Ok(false);
        }
        if is_open || !is_intact {
            return Ok(is_open);
        }
        let query = has_reference(oid, &relation.name, &key)?;
        let seen = select_qualified(&query, &[Parameter::of(reference)], |row| row.required::<bool>(1))?;
        Ok(seen == [true])
    })
}

/// A query whether a relation has the reference $1. A key of one column of PostgreSQL's own types is compared as such,
/// so that its index serves; others by their text.
fn has_reference(relation: pg_sys::Oid, table: &str, key: &str) -> Result<String, Failure> {
    let column = select(
        "SELECT a.attname::pg_catalog.text, t.typname::pg_catalog.text FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND $2 = 'copymatch.key_text(r.' \
         || pg_catalog.quote_ident(a.attname) || ')' \
           AND t.typname IN ('int2', 'int4', 'int8', 'text', 'varchar', 'uuid') AND t.oid < 16384",
        &[Parameter::of(relation), Parameter::of(key)],
        |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
    )?;
    let condition = match column.into_iter().next() {
        Some((column, kind)) => format!(
            "r.{} OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.{})",
            quote_identifier(column),
            quote_identifier(kind)
        ),
        None => format!("{key} OPERATOR(pg_catalog.=) $1"),
    };
    Ok(format!("SELECT EXISTS (SELECT FROM {table} AS r WHERE {condition})"))
}

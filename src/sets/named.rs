//! Sets, columns and keys as callers name them.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use super::arguments::null;
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::statements::{Parameter, change, select};

/// Most sets that a hint lists.
const MOST_LISTED: usize = 10;

/// The error that lists the sets there are.
pub fn unknown_set(name: &str) -> Failure {
    let failure = Failure::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("reference set \"{name}\" does not exist"),
    );
    let known = select(
        "SELECT pg_catalog.quote_ident(s.name), pg_catalog.count(*) OVER () FROM copymatch.reference_set s \
         ORDER BY s.name LIMIT $1",
        &[Parameter::of(MOST_LISTED as i64)],
        |row| Ok((row.required::<String>(1)?, row.required::<i64>(2)?)),
    );
    let known = match known {
        Ok(known) => known,
        Err(error) => return error,
    };
    let Some((_, all)) = known.first() else {
        return failure.hint("Make one with copy_create_set.");
    };
    let more = all - known.len() as i64;
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let listed = names.join(", ");
    if more > 0 {
        failure.hint(format!(
            "Existing sets: {listed}, and {more} more in copymatch.reference_sets."
        ))
    } else {
        failure.hint(format!("Existing sets: {listed}."))
    }
}

/// A value of the type that sql/ declares: a row of copymatch.reference_set, or an array of names.
struct Copied(pg_sys::Datum);

// SAFETY: the datum is of the function's declared result type.
unsafe impl BoxRet for Copied {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: the declarations in sql/ state the types, which are those of the queries' columns.
unsafe impl SqlTranslatable for Copied {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Copied);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("record"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
}

#[pg_extern(sql = false)]
fn find_set(name: Option<&str>) -> Copied {
    boundary(|| {
        let name = name.ok_or_else(|| null("the name of a reference set"))?;
        let found = select(
            "SELECT s FROM copymatch.reference_set s WHERE s.name = $1",
            &[Parameter::of(name)],
            |row| Ok(row.copied(1)),
        )?;
        found
            .into_iter()
            .flatten()
            .next()
            .map(Copied)
            .ok_or_else(|| unknown_set(name))
    })
}

#[pg_extern(sql = false)]
fn require_column(relation: Option<pg_sys::Oid>, column: Option<&std::ffi::CStr>, kind: Option<&str>) {
    boundary(|| {
        let relation = relation.ok_or_else(|| null("relation"))?;
        let column = column.ok_or_else(|| null("the name of a column"))?.to_string_lossy();
        needs_column(relation, &column, kind)
    });
}

/// An error unless the relation has this column, of this type.
pub fn needs_column(relation: pg_sys::Oid, column: &str, kind: Option<&str>) -> Result<(), Failure> {
    let found = change(
        "SELECT pg_catalog.format_type(a.atttypid, NULL) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
        &[Parameter::of(relation), Parameter::of(column)],
        |row| row.required::<String>(1),
    )?;
    let Some(actual) = found.into_iter().next() else {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{column}\" of relation {} does not exist", shown(relation)?),
        ));
    };
    match kind {
        Some(kind) if kind != actual => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!(
                "column \"{column}\" of relation {} is of type {actual}, not {kind}",
                shown(relation)?
            ),
        )),
        _ => Ok(()),
    }
}

#[pg_extern(sql = false)]
fn require_descriptors(relation: Option<pg_sys::Oid>, column: Option<&std::ffi::CStr>) {
    boundary(|| {
        let relation = relation.ok_or_else(|| null("relation"))?;
        let column = column.ok_or_else(|| null("the name of a column"))?.to_string_lossy();
        needs_descriptors(&OwnSchema::installed()?, relation, &column)
    });
}

#[pg_extern(sql = false)]
fn holds_descriptors(kind: pg_sys::Oid) -> bool {
    boundary(|| Ok(OwnSchema::installed()?.holds_descriptors(kind)))
}

/// An error unless the relation has this column, and it can hold descriptors.
pub fn needs_descriptors(own_schema: &OwnSchema, relation: pg_sys::Oid, column: &str) -> Result<(), Failure> {
    needs_column(relation, column, None)?;
    let found = change(
        "SELECT a.atttypid, pg_catalog.format_type(a.atttypid, NULL), \
                EXISTS (SELECT FROM pg_catalog.pg_depend d \
                        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'vector' \
                        WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = a.atttypid \
                        AND d.deptype = 'e' \
                          AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass) \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 \
         AND NOT a.attisdropped",
        &[Parameter::of(relation), Parameter::of(column)],
        |row| {
            Ok((
                row.required::<pg_sys::Oid>(1)?,
                row.required::<String>(2)?,
                row.required::<bool>(3)?,
            ))
        },
    )?;
    let Some((kind, name, of_pgvector)) = found.into_iter().next() else {
        return Ok(());
    };
    if own_schema.holds_descriptors(kind) {
        return Ok(());
    }
    let failure = Failure::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!(
            "column \"{column}\" of relation {} is of type {name}, not {}.vector",
            shown(relation)?,
            own_schema.schema
        ),
    );
    Err(match of_pgvector {
        true => failure.hint(
            "Of pgvector's types vector can hold descriptors, once a superuser has run SELECT copy_adopt_pgvector().",
        ),
        false => failure,
    })
}

/// A relation by its name, as PostgreSQL shows it under a pinned path: with its schema.
fn shown(relation: pg_sys::Oid) -> Result<String, Failure> {
    Ok(select(
        "SELECT ($1::pg_catalog.regclass)::pg_catalog.text",
        &[Parameter::of(relation)],
        |row| row.get::<String>(1),
    )?
    .into_iter()
    .flatten()
    .next()
    .unwrap_or_else(|| "-".to_owned()))
}

#[pg_extern(sql = false)]
fn parse_key(relation: Option<pg_sys::Oid>, key: Option<&str>) -> Option<Copied> {
    boundary(|| {
        let relation = relation.ok_or_else(|| null("relation"))?;
        let columns = key_columns(relation, key.ok_or_else(|| null("the key"))?)?;
        let names = select("SELECT $1::pg_catalog.name[]", &[Parameter::of(columns)], |row| {
            Ok(row.copied(1))
        })?;
        Ok(names.into_iter().flatten().next().map(Copied))
    })
}

/// The columns of a key: one name, or several with commas between; one that has a comma itself in double quotes. An
/// error unless the relation has them.
pub fn key_columns(relation: pg_sys::Oid, key: &str) -> Result<Vec<String>, Failure> {
    let whole = change(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = $1 AND a.attname::pg_catalog.text = $2 AND a.attnum > 0 \
         AND NOT a.attisdropped)",
        &[Parameter::of(relation), Parameter::of(key)],
        |row| row.required::<bool>(1),
    )?;
    if whole == [true] {
        return Ok(vec![key.to_owned()]);
    }
    let mut columns = names(key);
    if columns.is_empty() {
        columns.push(key.to_owned());
    }
    for column in &columns {
        needs_column(relation, column, None)?;
    }
    Ok(columns)
}

/// Names with commas between.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut name = String::new();
        let mut characters = rest.char_indices().peekable();
        let mut end = rest.len();
        let mut quoted = false;
        while let Some((at, character)) = characters.next() {
            match character {
                '"' if quoted && characters.peek().is_some_and(|(_, next)| *next == '"') => {
                    name.push('"');
                    characters.next();
                }
                '"' if quoted => quoted = false,
                '"' if name.trim().is_empty() => {
                    quoted = true;
                    name.clear();
                }
                ',' if !quoted => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        let name = if rest.trim_start().starts_with('"') {
            name
        } else {
            name.trim_end().to_owned()
        };
        if !name.is_empty() {
            names.push(name);
        }
        rest = rest.get(end + 1..).unwrap_or_default().trim_start();
    }
    names
}

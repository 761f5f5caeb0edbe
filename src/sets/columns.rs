//! Descriptor columns of a set's table, and the trigger that keeps them current.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::owned::do_by_owner;
use crate::failure::Failure;
use crate::own_schema::OwnSchema;
use crate::sharding::citus;
use crate::statements::{Parameter, change};

/// Most elements of a descriptor that is kept in the row: the picture goes to TOAST, and a search reads descriptors
/// without following pointers.
const MOST_IN_ROW: i32 = 480;

/// Adds a descriptor column of this type. `stored`: chooses how it is stored, too, which Citus does not take.
pub fn add(
    owner: pg_sys::Oid,
    table: &str,
    column: &str,
    kind: &str,
    dimensions: i32,
    model: &str,
    stored: bool,
) -> Result<(), Failure> {
    let column = quote_identifier(column);
    do_by_owner(
        owner,
        &format!("ALTER TABLE {table} ADD COLUMN {column} {kind}({dimensions})"),
    )?;
    if stored && dimensions <= MOST_IN_ROW {
        do_by_owner(
            owner,
            &format!("ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE PLAIN"),
        )?;
    }
    let comment = format!("descriptor of the image by model {model}; kept by copymatch");
    do_by_owner(
        owner,
        &format!("COMMENT ON COLUMN {table}.{column} IS {}", quote_literal(comment)),
    )
}

/// The column with the sketches beside a descriptor column: the one that another set over the same images has, or
/// one of the table's that is called so, or a new one. None where there is none to be: a view or foreign table
/// brings its sketches, or has none.
pub fn sketch(
    owner: pg_sys::Oid,
    relation: pg_sys::Oid,
    table: &str,
    image: Option<&str>,
    descriptor: &str,
    may_add: bool,
) -> Result<Option<String>, Failure> {
    let of_another = change(
        "SELECT s.sketch_column::pg_catalog.text FROM copymatch.reference_set s \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attname = s.sketch_column AND NOT a.attisdropped \
         WHERE s.relation = $1::pg_catalog.regclass AND s.image_column = $2 \
         AND a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype \
         ORDER BY s.created, s.name LIMIT 1",
        &[Parameter::of(relation), Parameter::of(image)],
        |row| row.required::<String>(1),
    )?;
    if let Some(column) = of_another.into_iter().next() {
        return Ok(Some(column));
    }
    let column = format!("{}_sketch", beginning(descriptor));
    let there = change(
        "SELECT pg_catalog.format_type(a.atttypid, NULL), a.attgenerated <> '' FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
        &[Parameter::of(relation), Parameter::of(column.as_str())],
        |row| Ok((row.required::<String>(1)?, row.required::<bool>(2)?)),
    )?;
    let column_quoted = quote_identifier(&column);
    match there.into_iter().next() {
        Some((found, false)) if found == "bytea" => return Ok(Some(column)),
        Some((found, generated)) => {
            let what = if generated {
                "generated".to_owned()
            } else {
                format!("of type {found}, not bytea")
            };
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" of relation {table} is {what}"),
            )
            .hint("The sketches would lie there. Rename it, or make the set with verify => false."));
        }
        None if !may_add => return Ok(None),
        None => {}
    }
    do_by_owner(
        owner,
        &format!("ALTER TABLE {table} ADD COLUMN {column_quoted} pg_catalog.bytea"),
    )?;
    if !citus::spreads(relation)? {
        // Most of it is compressed already.
        do_by_owner(
            owner,
            &format!("ALTER TABLE {table} ALTER COLUMN {column_quoted} SET STORAGE EXTERNAL"),
        )?;
    }
    do_by_owner(
        owner,
        &format!(
            "COMMENT ON COLUMN {table}.{column_quoted} IS 'sketch of the image, for verification; kept by copymatch'"
        ),
    )?;
    Ok(Some(column))
}

/// As much of a name as leaves room for an ending in an identifier of 63 bytes.
fn beginning(name: &str) -> &str {
    let most = (0..=name.len().min(56)).rev().find(|&at| name.is_char_boundary(at));
    &name[..most.unwrap_or(0)]
}

/// Makes a set's trigger where it is missing.
pub fn make_trigger(own_schema: &OwnSchema, owner: pg_sys::Oid, table: &str, set: i64) -> Result<(), Failure> {
    let missing = change(
        "SELECT copymatch.trigger_name(s.name)::pg_catalog.text, s.name FROM copymatch.reference_set s \
         WHERE s.id = $1 AND NOT copymatch.has_trigger(s)",
        &[Parameter::of(set)],
        |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
    )?;
    for (trigger, name) in missing {
        let trigger = quote_identifier(trigger);
        // Triggers fire in the order of their names: this one must see the image as the
        // table's other triggers leave it.
        do_by_owner(
            owner,
            &format!(
                "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION \
                 {}.copy_maintain_descriptor({})",
                own_schema.schema,
                quote_literal(&name)
            ),
        )?;
        let comment = format!("keeps the descriptor of reference set {name} current");
        do_by_owner(
            owner,
            &format!("COMMENT ON TRIGGER {trigger} ON {table} IS {}", quote_literal(comment)),
        )?;
    }
    Ok(())
}

/// Sees to it that every descriptor column that a set over the table searches is kept by one trigger, however many sets
/// share it. Of the sets that do, one that is being re-embedded has a trigger in any case. A table of Citus takes none.
pub fn serve(own_schema: &OwnSchema, owner: pg_sys::Oid, relation: pg_sys::Oid, table: &str) -> Result<(), Failure> {
    if citus::spreads(relation)? {
        return Ok(());
    }
    loop {
        let next = change(
            "SELECT s.id FROM copymatch.reference_set s \
             WHERE s.relation = $1::pg_catalog.regclass AND s.image_column IS NOT NULL \
               AND NOT EXISTS (SELECT FROM copymatch.reference_set o \
                               WHERE o.relation = s.relation AND o.image_column = s.image_column \
                                 AND o.descriptor_column = s.descriptor_column AND copymatch.has_trigger(o)) \
             ORDER BY s.created, s.name LIMIT 1",
            &[Parameter::of(relation)],
            |row| row.required::<i64>(1),
        )?;
        let Some(&set) = next.first() else { return Ok(()) };
        make_trigger(own_schema, owner, table, set)?;
    }
}

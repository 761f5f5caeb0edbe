//! `copy_drop_set`.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::arguments::null;
use super::columns;
use super::owned::{OwnedSet, do_by_owner};
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, change};

#[pg_extern(sql = false)]
fn copy_drop_set(name: Option<&str>, drop_descriptors: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) {
    boundary(|| {
        let drop_descriptors = drop_descriptors.ok_or_else(|| null("drop_descriptors"))?;
        let set = OwnedSet::of(name, pg_sys::ShareUpdateExclusiveLock)?;
        let own_schema = OwnSchema::of(fcinfo)?;
        let mut descriptors = vec![set.descriptor.clone()];
        for (new, old) in change(
            "SELECT r.descriptor_column::pg_catalog.text, r.old_descriptor_column::pg_catalog.text \
             FROM copymatch.reembedding r \
             WHERE r.reference_set = $1",
            &[Parameter::of(set.name.as_str())],
            |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
        )? {
            descriptors.extend([new, old]);
        }
        // A sketch serves every set over these images.
        let sketch = match &set.sketch {
            Some(sketch) => change(
                "SELECT $2 WHERE NOT EXISTS (SELECT FROM copymatch.reference_set s \
                     WHERE s.relation = $1::pg_catalog.regclass AND s.id <> $3 AND s.sketch_column = $2)",
                &[
                    Parameter::of(set.relation),
                    Parameter::of(sketch.as_str()),
                    Parameter::of(set.id),
                ],
                |row| row.required::<String>(1),
            )?,
            None => Vec::new(),
        };
        if drop_descriptors {
            let other = change(
                "SELECT s.name FROM copymatch.reference_set s WHERE s.relation = $1::pg_catalog.regclass \
                 AND s.id <> $2 \
                     AND s.descriptor_column::pg_catalog.text = ANY ($3) LIMIT 1",
                &[
                    Parameter::of(set.relation),
                    Parameter::of(set.id),
                    Parameter::of(descriptors.clone()),
                ],
                |row| row.required::<String>(1),
            )?;
            if let Some(other) = other.first() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                    format!(
                        "the descriptors of reference set \"{}\" are also those of set \"{other}\"",
                        set.name
                    ),
                )
                .hint("Drop the set without drop_descriptors."));
            }
        }
        if let Some(table) = &set.table {
            let trigger = change(
                &format!(
                    "SELECT copymatch.trigger_name({})::pg_catalog.text",
                    quote_literal(&set.name)
                ),
                &[],
                |row| row.required::<String>(1),
            )?;
            for trigger in trigger {
                do_by_owner(
                    set.owner,
                    &format!("DROP TRIGGER IF EXISTS {} ON {table}", quote_identifier(trigger)),
                )?;
            }
        }
        as_extension_owner(|| {
            change(
                "DELETE FROM copymatch.reference_set s WHERE s.id = $1",
                &[Parameter::of(set.id)],
                |_| Ok(()),
            )
        })?;
        let Some(table) = &set.table else { return Ok(()) };
        if drop_descriptors {
            descriptors.extend(sketch);
            for column in change(
                "SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = $1 AND a.attname::pg_catalog.text = ANY ($2) AND NOT a.attisdropped",
                &[Parameter::of(set.relation), Parameter::of(descriptors)],
                |row| row.required::<String>(1),
            )? {
                do_by_owner(
                    set.owner,
                    &format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(column)),
                )?;
            }
        }
        if set.is_table() {
            columns::serve(&own_schema, set.owner, set.relation, table)?;
        }
        Ok(())
    })
}

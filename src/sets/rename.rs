//! `copy_set_columns`: after columns of a set's relation were renamed.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::arguments::invalid;
use super::create::{no_generated_column, try_search};
use super::named::{key_columns, needs_column, needs_descriptors};
use super::owned::{OwnedSet, is_table};
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, change};

#[pg_extern(sql = false)]
fn copy_set_columns(
    set: Option<&str>,
    image: Option<&CStr>,
    descriptor: Option<&CStr>,
    key: Option<&str>,
    sketch: Option<&CStr>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    boundary(|| {
        let column = |name: &CStr| name.to_string_lossy().into_owned();
        let (image, descriptor, sketch) = (image.map(column), descriptor.map(column), sketch.map(column));
        if image.is_none() && descriptor.is_none() && key.is_none() && sketch.is_none() {
            return Err(invalid("copy_set_columns names no column").hint(
                "Those that were renamed: copy_set_columns('licensed', image => 'picture', descriptor => '…', key => \
                 '…').",
            ));
        }
        // Others who make, change or drop sets over the relation wait; readers and writers go on.
        let set = OwnedSet::of(set, pg_sys::ShareUpdateExclusiveLock)?;
        let table = set.table()?;
        if image.is_some() {
            set.image()?; // a set without images does not get them by a name
        }
        for bytes in [&image, &sketch].into_iter().flatten() {
            needs_column(set.relation, bytes, Some("bytea"))?;
        }
        if let Some(descriptor) = &descriptor {
            needs_descriptors(&OwnSchema::of(fcinfo)?, set.relation, descriptor)?;
            other_model(&set, descriptor)?;
        }
        // As copy_create_set has it: what no trigger writes may be generated.
        if is_table(&set.kind) && set.image.is_some() {
            let named = [image.as_deref(), descriptor.as_deref(), sketch.as_deref()];
            no_generated_column(set.relation, table, &named)?;
        }
        let key = key.map(|key| key_columns(set.relation, key)).transpose()?;
        as_extension_owner(|| {
            change(
                "UPDATE copymatch.reference_set s SET image_column = coalesce($2, s.image_column), \
                     descriptor_column = coalesce($3, s.descriptor_column), \
                     key_column = coalesce(($4::pg_catalog.text[])[1], s.key_column::pg_catalog.text), \
                     further_key_columns = CASE WHEN $4 IS NULL THEN s.further_key_columns \
                     ELSE ($4::pg_catalog.text[])[2:] END, \
                     sketch_column = coalesce($5, s.sketch_column) \
                 WHERE s.id = $1",
                &[
                    Parameter::of(set.id),
                    Parameter::of(image.as_deref()),
                    Parameter::of(descriptor.as_deref()),
                    Parameter::of(key),
                    Parameter::of(sketch.as_deref()),
                ],
                |_| Ok(()),
            )?;
            // A re-embedding under way names the searched column as one of its two.
            change(
                "UPDATE copymatch.reembedding r SET \
                     descriptor_column = CASE WHEN r.descriptor_column = $3 THEN $2 ELSE r.descriptor_column END, \
                     old_descriptor_column = CASE WHEN r.old_descriptor_column = $3 THEN $2 \
                     ELSE r.old_descriptor_column END \
                 WHERE r.reference_set = $1 AND $2 IS NOT NULL",
                &[
                    Parameter::of(set.name.as_str()),
                    Parameter::of(descriptor.as_deref()),
                    Parameter::of(set.descriptor.as_str()),
                ],
                |_| Ok(()),
            )
        })?;
        try_search(set.owner, table, set.id)
    })
}

/// An error where another set has descriptors of another model in the column.
fn other_model(set: &OwnedSet, column: &str) -> Result<(), Failure> {
    let others = change(
        "SELECT s.name, s.model FROM copymatch.reference_set s \
         WHERE s.relation = $1::pg_catalog.regclass AND s.descriptor_column = $2 AND s.model <> $3 AND s.id <> $4 \
         LIMIT 1",
        &[
            Parameter::of(set.relation),
            Parameter::of(column),
            Parameter::of(set.model.as_str()),
            Parameter::of(set.id),
        ],
        |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
    )?;
    match others.into_iter().next() {
        None => Ok(()),
        Some((other, model)) => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("column \"{column}\" has the descriptors of model \"{model}\", for reference set \"{other}\""),
        )
        .hint(format!("Name the column with those of model \"{}\".", set.model))),
    }
}

//! `copy_create_set`.

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::arguments::{invalid, null};
use super::named::{key_columns, needs_column, needs_descriptors};
use super::owned::{caller, count_by_owner, do_by_owner, has_rights_of, is_table, valid_name};
use super::{columns, fill};
use crate::failure::{Failure, boundary};
use crate::matching::filter;
use crate::matching::gate;
use crate::own_schema::OwnSchema;
use crate::rights::{as_extension_owner, as_role};
use crate::sharding::{check, citus};
use crate::statements::{Parameter, change};

/// A set to be made.
struct Wanted<'a> {
    name: &'a str,
    relation: pg_sys::Oid,
    key: &'a str,
    image: Option<String>,
    descriptor: String,
    model: Option<&'a str>,
    on_bad_image: &'a str,
    embed: bool,
    filter: Option<&'a str>,
    k: Option<i32>,
    negative: bool,
    verify: bool,
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn copy_create_set(
    name: Option<&str>,
    relation: Option<pg_sys::Oid>,
    key: Option<&str>,
    image: Option<&CStr>,
    descriptor: Option<&CStr>,
    model: Option<&str>,
    on_bad_image: Option<&str>,
    embed: Option<bool>,
    filter: Option<&str>,
    k: Option<i32>,
    negative: Option<bool>,
    verify: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> i64 {
    boundary(|| {
        let column = |name: &CStr| name.to_string_lossy().into_owned();
        let on_bad_image = on_bad_image
            .filter(|choice| ["error", "skip"].contains(choice))
            .ok_or_else(|| {
                invalid(format!("on_bad_image is \"{}\"", on_bad_image.unwrap_or("NULL")))
                    .hint("Choose error (refuse the row) or skip (keep the row without a descriptor, and warn).")
            });
        let wanted = Wanted {
            name: valid_name(name, "reference set")?,
            relation: relation.ok_or_else(|| null("the relation of a reference set"))?,
            key: key.ok_or_else(|| null("the key of a reference set"))?,
            image: image.map(column),
            descriptor: descriptor
                .map(column)
                .ok_or_else(|| null("the descriptor column of a reference set"))?,
            model,
            on_bad_image: on_bad_image?,
            embed: embed.ok_or_else(|| null("embed"))?,
            filter,
            k,
            negative: negative.ok_or_else(|| null("negative").hint("true or false."))?,
            verify: verify.ok_or_else(|| null("verify").hint("true or false."))?,
        };
        wanted.create(&OwnSchema::of(fcinfo)?)
    })
}

impl Wanted<'_> {
    fn create(&self, own_schema: &OwnSchema) -> Result<i64, Failure> {
        self.name_is_free()?;
        let (model, dimensions, calibration) = self.model()?;
        let gone = || {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation {} does not exist", u32::from(self.relation)),
            )
        };
        // Others who make or drop sets over the relation wait; readers and writers go on.
        let relation = gate::locked_in(self.relation, pg_sys::ShareUpdateExclusiveLock).ok_or_else(gone)?;
        let (table, owner) = (relation.name.as_str(), relation.owner);
        if !has_rights_of(owner) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of relation {table}"),
            ));
        }
        let kind = one(change(
            "SELECT c.relkind::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.oid = $1",
            &[Parameter::of(self.relation)],
            |row| row.required::<String>(1),
        )?)
        .ok_or_else(gone)?;
        let key = key_columns(self.relation, self.key)?;
        if is_table(&kind) {
            self.warn_of_key(&key, table)?;
        }
        if let Some(image) = &self.image {
            needs_column(self.relation, image, Some("bytea"))?;
        }
        if self.image.is_some() && is_table(&kind) {
            no_generated_column(self.relation, table, &[self.image.as_deref(), Some(&self.descriptor)])?;
        }
        self.descriptor_column(own_schema, owner, table, &kind, dimensions, &model)?;
        let sketch = match self.verify {
            true => columns::sketch(
                owner,
                self.relation,
                table,
                self.image.as_deref(),
                &self.descriptor,
                is_table(&kind) && self.image.is_some(),
            )?,
            false => None,
        };
        let filter = self.filter.map(|text| filter::check(self.relation, text)).transpose()?;
        let (filter, beyond) = filter.map_or((None, false), |filter| (Some(filter.text), filter.beyond));
        let by = caller();
        let id = as_extension_owner(|| {
            change(
                "INSERT INTO copymatch.reference_set (name, relation, key_column, further_key_columns, image_column, \
                 descriptor_column, \
                     model, calibration, on_bad_image, is_default, filter, filter_beyond, k, negative, created_by, \
                     sketch_column, verify) \
                 VALUES ($1, $2::pg_catalog.regclass, ($3::pg_catalog.text[])[1], ($3::pg_catalog.text[])[2:], $4, $5, \
                 $6, $7, $8, \
                     NOT $9 AND NOT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.is_default), $10, $11, $12, \
                     $9, $13, $14, \
                     CASE WHEN $15 THEN 'auto' ELSE 'off' END) \
                 RETURNING id",
                &[
                    Parameter::of(self.name),
                    Parameter::of(self.relation),
                    Parameter::of(key.clone()),
                    Parameter::of(self.image.as_deref()),
                    Parameter::of(self.descriptor.as_str()),
                    Parameter::of(model.as_str()),
                    Parameter::of(calibration),
                    Parameter::of(self.on_bad_image),
                    Parameter::of(self.negative),
                    Parameter::of(filter.as_deref()),
                    Parameter::of(beyond),
                    Parameter::of(self.k),
                    Parameter::of(by),
                    Parameter::of(sketch.as_deref()),
                    Parameter::of(self.verify),
                ],
                |row| row.required::<i64>(1),
            )
        })?;
        let id = one(id).unwrap_or(0);
        try_search(owner, table, id)?;
        let embedded = self.embed(own_schema, owner, table, &kind, id, &model, sketch.as_deref())?;
        self.index(owner, table, &kind)?;
        if matches!(kind.as_str(), "p" | "f") {
            as_role(owner, || check::warn_of(self.name))?;
        }
        Ok(embedded)
    }

    fn name_is_free(&self) -> Result<(), Failure> {
        let taken = change(
            "SELECT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = $1) \
                 OR EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = $1)",
            &[Parameter::of(self.name)],
            |row| row.required::<bool>(1),
        )?;
        if taken == [false] {
            return Ok(());
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("reference set \"{}\" exists already", self.name),
        )
        .hint("Choose another name, or drop it with copy_drop_set."))
    }

    /// The model, its dimensions and its own calibration: with the caller's rights on models.
    fn model(&self) -> Result<(String, i32, i64), Failure> {
        let found = change(
            "SELECT m.name, m.dimensions FROM copymatch.models m WHERE CASE WHEN $1 IS NULL THEN m.is_default \
             ELSE m.name = $1 END",
            &[Parameter::of(self.model)],
            |row| Ok((row.required::<String>(1)?, row.required::<i32>(2)?)),
        )?;
        let Some((model, dimensions)) = one(found) else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!(
                    "model \"{}\" does not exist",
                    self.model.unwrap_or("copymatch.default_model")
                ),
            )
            .hint("SELECT name FROM copymatch.models lists them."));
        };
        let calibration = own_calibration(&model)?;
        Ok((model, dimensions, calibration))
    }

    /// Findings, references out of use and results name a reference by its key.
    fn warn_of_key(&self, key: &[String], table: &str) -> Result<(), Failure> {
        let unique = change(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid \
             AND i.indpred IS NULL AND i.indexprs IS NULL \
             AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indkey[0:i.indnkeyatts - 1]) AS u(number) \
                             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid \
                             AND a.attnum = u.number \
                             WHERE a.attname <> ALL ($2::pg_catalog.name[])))",
            &[Parameter::of(self.relation), Parameter::of(key.to_vec())],
            |row| row.required::<bool>(1),
        )?;
        if unique == [true] {
            return Ok(());
        }
        let columns = key.iter().map(quote_identifier).collect::<Vec<String>>().join(", ");
        Failure::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("no unique index says that key {columns} of relation {table} names one row only"),
        )
        .hint(format!(
            "Where two rows have one key, nobody can tell which was found: CREATE UNIQUE INDEX ON {table} ({columns})."
        ))
        .warn();
        Ok(())
    }

    /// Adds the descriptor column where there is none, or judges the one there is.
    fn descriptor_column(
        &self,
        own_schema: &OwnSchema,
        owner: pg_sys::Oid,
        table: &str,
        kind: &str,
        dimensions: i32,
        model: &str,
    ) -> Result<(), Failure> {
        let column = &self.descriptor;
        let found = one(change(
            "SELECT a.atttypmod FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
            &[Parameter::of(self.relation), Parameter::of(column.as_str())],
            |row| row.required::<i32>(1),
        )?);
        match found {
            None if !is_table(kind) => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("relation {table} has no column \"{column}\""),
                )
                .hint(
                    "A view or foreign table must bring its descriptors; a table gets the column from copy_create_set.",
                ));
            }
            None => {
                let stored = !citus::spreads(self.relation)?;
                columns::add(
                    owner,
                    table,
                    column,
                    &own_schema.column_type(owner)?,
                    dimensions,
                    model,
                    stored,
                )?;
            }
            Some(stated) => {
                needs_descriptors(own_schema, self.relation, column)?;
                if stated > 0 && stated != dimensions {
                    return Err(Failure::new(
                        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                        format!(
                            "column \"{column}\" of relation {table} is for {stated} dimensions, and model \"{model}\" \
                             makes {dimensions}"
                        ),
                    )
                    .hint(
                        "Name another column, descriptor => '…', which a table gets where it has none, or the model \
                         whose descriptors these are.",
                    ));
                }
            }
        }
        let other = change(
            "SELECT s.name, s.model FROM copymatch.reference_set s \
             WHERE s.relation = $1::pg_catalog.regclass AND s.descriptor_column = $2 AND s.model <> $3 LIMIT 1",
            &[
                Parameter::of(self.relation),
                Parameter::of(column.as_str()),
                Parameter::of(model),
            ],
            |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
        )?;
        match one(other) {
            None => Ok(()),
            Some((set, theirs)) => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{column}\" of relation {table} has the descriptors of model \"{theirs}\", for reference \
                     set \"{set}\""
                ),
            )
            .hint("Name another descriptor column, or the same model.")),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn embed(
        &self,
        own_schema: &OwnSchema,
        owner: pg_sys::Oid,
        table: &str,
        kind: &str,
        id: i64,
        model: &str,
        sketch: Option<&str>,
    ) -> Result<i64, Failure> {
        let (Some(image), true) = (&self.image, is_table(kind)) else {
            return Ok(0);
        };
        columns::serve(own_schema, owner, self.relation, table)?;
        let key = one(change(
            "SELECT copymatch.key_expression(s.key_column, s.further_key_columns) FROM copymatch.reference_set s \
             WHERE s.id = $1",
            &[Parameter::of(id)],
            |row| row.required::<String>(1),
        )?)
        .unwrap_or_default();
        let column = quote_identifier(&self.descriptor);
        let kept = fill::Kept {
            image: quote_identifier(image),
            descriptor: column.clone(),
            sketch: sketch.map(quote_identifier),
            model,
            key: &key,
        };
        let count = format!("SELECT pg_catalog.count(*) FROM {table} AS r WHERE {}", kept.missing());
        let waiting = count_by_owner(owner, &count, &[])?;
        if citus::spreads(self.relation)? {
            Failure::new(
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!(
                    "{waiting} images wait to be embedded: relation {table} is one of Citus, which no trigger keeps \
                     current"
                ),
            )
            .hint(format!(
                "CALL copy_fill_set({}), now and after new images; or write the descriptor with the row: INSERT … \
                 VALUES (…, copy_embed($1)).",
                quote_literal(self.name)
            ))
            .notice();
            return Ok(0);
        }
        if waiting == 0 {
            return Ok(0);
        }
        if !self.embed {
            Failure::new(
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("{waiting} images wait to be embedded"),
            )
            .hint(format!(
                "CALL copy_fill_set({}), then CREATE INDEX CONCURRENTLY ON {} USING ivf ({column} {})",
                quote_literal(self.name),
                shown(self.relation),
                self.cosine_class()?
            ))
            .notice();
            return Ok(0);
        }
        do_by_owner(owner, &kept.statement(table, waiting, ""))?;
        let left = count_by_owner(owner, &count, &[])?;
        if left > 0 {
            Failure::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!(
                    "{left} of {waiting} images of reference set \"{}\" have no descriptor",
                    self.name
                ),
            )
            .hint("The warnings above say why; copy_image_info(image) says it for one image.")
            .warn();
        }
        Ok(waiting - left)
    }

    /// The operator class of ivf for the descriptor column.
    fn cosine_class(&self) -> Result<String, Failure> {
        let found = change(
            "SELECT copymatch.cosine_class($1, $2)",
            &[Parameter::of(self.relation), Parameter::of(self.descriptor.as_str())],
            |row| row.required::<String>(1),
        )?;
        Ok(one(found).unwrap_or_default())
    }

    /// An ivf index where there is none. That of a table that is still to be filled is better made afterwards.
    fn index(&self, owner: pg_sys::Oid, table: &str, kind: &str) -> Result<(), Failure> {
        if !is_table(kind) {
            return Ok(());
        }
        let column = quote_identifier(&self.descriptor);
        if let (Some(image), false) = (&self.image, self.embed) {
            let image = quote_identifier(image);
            let some = format!(
                "SELECT pg_catalog.count(*) FROM (SELECT FROM {table} WHERE {image} IS NOT NULL AND {column} IS NULL \
                 LIMIT 1) AS u"
            );
            if count_by_owner(owner, &some, &[])? > 0 {
                return Ok(());
            }
        }
        let wanted = change(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
                            WHERE a.attrelid = $1 AND a.attname = $2 AND a.atttypmod BETWEEN 1 AND 4000) \
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i \
                                JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
                                JOIN pg_catalog.pg_am m ON m.oid = c.relam \
                                JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                                WHERE i.indrelid = $1 AND a.attname = $2 AND m.amname = 'ivf')",
            &[Parameter::of(self.relation), Parameter::of(self.descriptor.as_str())],
            |row| row.required::<bool>(1),
        )?;
        if wanted == [true] {
            let class = self.cosine_class()?;
            // As the caller: PostgreSQL builds an index with the rights of the table's owner, who need not be allowed
            // to create something in the table's schema.
            change(
                &format!("CREATE INDEX ON {table} USING ivf ({column} {class})"),
                &[],
                |_| Ok(()),
            )?;
        }
        Ok(())
    }
}

/// A search for no rows, as the owner: an error where key or filter cannot be read.
pub fn try_search(owner: pg_sys::Oid, table: &str, set: i64) -> Result<(), Failure> {
    let found = change(
        "SELECT copymatch.key_expression(s.key_column, s.further_key_columns), copymatch.current_filter(s.id) \
         FROM copymatch.reference_set s WHERE s.id = $1",
        &[Parameter::of(set)],
        |row| Ok((row.required::<String>(1)?, row.get::<String>(2)?)),
    )?;
    for (key, filter) in found {
        let condition = filter.map_or(String::new(), |filter| format!("WHERE {filter}"));
        do_by_owner(owner, &format!("SELECT {key} FROM {table} AS r {condition} LIMIT 0"))?;
    }
    Ok(())
}

/// The newest of a model's own calibrations.
pub fn own_calibration(model: &str) -> Result<i64, Failure> {
    let newest = change(
        "SELECT pg_catalog.max(c.id) FROM copymatch.calibration c WHERE c.model = $1 AND c.reference_set IS NULL",
        &[Parameter::of(model)],
        |row| row.get::<i64>(1),
    )?;
    one(newest).flatten().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("model \"{model}\" has no calibration"),
        )
        .hint("Add the model with its background descriptors and a calibration.")
    })
}

/// A relation as the session would write it.
fn shown(relation: pg_sys::Oid) -> String {
    crate::statements::select_qualified(
        "SELECT ($1::pg_catalog.regclass)::pg_catalog.text",
        &[Parameter::of(relation)],
        |row| row.required::<String>(1),
    )
    .ok()
    .and_then(one)
    .unwrap_or_default()
}

fn one<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

/// The trigger that keeps the descriptor is a BEFORE trigger: generated columns have no value
/// yet, and cannot be given one.
pub fn no_generated_column(relation: pg_sys::Oid, table: &str, columns: &[Option<&str>]) -> Result<(), Failure> {
    let named: Vec<&str> = columns.iter().copied().flatten().collect();
    let generated = one(change(
        "SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = $1 AND a.attname::pg_catalog.text = ANY ($2) AND a.attnum > 0 AND a.attgenerated <> '' \
             ORDER BY pg_catalog.array_position($2, a.attname::pg_catalog.text) LIMIT 1",
        &[Parameter::of(relation), Parameter::of(named)],
        |row| row.required::<String>(1),
    )?);
    let Some(column) = generated else { return Ok(()) };
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("column \"{column}\" of relation {table} is generated: copymatch cannot keep descriptors with it"),
    )
    .detail("PostgreSQL computes generated columns after the trigger that embeds the image.")
    .hint("Name ordinary columns; or image => NULL, where something else keeps the descriptors."))
}

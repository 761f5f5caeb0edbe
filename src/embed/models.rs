//! `copy_add_model`, `copy_drop_model`: who may call them needs no rights on the catalogue's tables, which are the
//! extension owner's to write.

use pgrx::prelude::*;
use serde_json::Value;

use super::copy_embed::{Inspected, inspect};
use super::parsed::check_calibration;
use crate::failure::{Failure, boundary};
use crate::json::Json;
use crate::rights;
use crate::statements::{Parameter, change, select};

#[pg_extern(sql = false)]
fn copy_add_model(
    name: Option<&str>,
    weights: Option<&[u8]>,
    manifest: Option<Json>,
    background: Option<&[u8]>,
    calibration: Option<Json>,
) -> String {
    boundary(|| {
        let (Some(name), Some(weights), Some(Json(manifest))) = (name, weights, manifest) else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "copy_add_model needs a name, weights and a manifest",
            )
            .hint("docs/models.md explains what a model is made of."));
        };
        if background.is_some() != calibration.is_some() {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "background and calibration belong together: give both, or neither",
            )
            .hint("Without them copy_embed works with this model, and copy_match does not."));
        }
        let found = inspect(weights, &manifest, background)?;
        if found.name != name {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the manifest is that of model \"{}\", not \"{name}\"", found.name),
            )
            .hint("Give the name that the manifest states."));
        }
        if let Some(Json(calibration)) = &calibration {
            check_calibration(calibration)?;
        }
        let user = rights::current_user()?;
        rights::as_extension_owner(|| {
            let exists = !select(
                "SELECT 1 FROM copymatch.model m WHERE m.name = $1",
                &[Parameter::of(name)],
                |row| row.required::<i32>(1),
            )?
            .is_empty();
            if exists {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                    format!("model \"{name}\" exists already"),
                )
                .hint("Models are immutable: descriptors would silently change their meaning. Choose another name."));
            }
            add(&found, &manifest, weights, background, &user)?;
            if let Some(Json(calibration)) = &calibration {
                add_calibration(&found, calibration, &user)?;
            }
            Ok(())
        })?;
        Ok(found.name)
    })
}

fn add(
    found: &Inspected,
    manifest: &Value,
    weights: &[u8],
    background: Option<&[u8]>,
    user: &str,
) -> Result<(), Failure> {
    change(
        "INSERT INTO copymatch.model (name, version, dimensions, sha256, manifest, weights, background,
         background_sha256, created_by)
         VALUES ($1, $2, $3, $4, $5::pg_catalog.jsonb, $6, $7, $8, $9::pg_catalog.name)",
        &[
            Parameter::of(found.name.as_str()),
            Parameter::of(found.version.as_str()),
            Parameter::of(found.dimensions),
            Parameter::of(found.sha256.as_slice()),
            Parameter::of(manifest.to_string()),
            Parameter::of(weights),
            Parameter::of(background),
            Parameter::of(found.background_sha256.as_deref()),
            Parameter::of(user),
        ],
        |_| Ok(()),
    )
    .map(|_| ())
}

fn add_calibration(found: &Inspected, calibration: &Value, user: &str) -> Result<(), Failure> {
    let mut record = calibration.clone();
    record["model"] = found.name.clone().into();
    record["background_sha256"] = found.background_sha256.as_deref().map(hex).into();
    record["created_by"] = user.into();
    crate::calibration::write_calibration(&record).map(|_| ())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[pg_extern(sql = false)]
fn copy_drop_model(name: Option<&str>) {
    boundary(|| {
        let name = name.unwrap_or_default();
        rights::as_extension_owner(|| drop_model(name))
    });
}

fn drop_model(name: &str) -> Result<(), Failure> {
    let parameter = || [Parameter::of(name)];
    let found = change(
        "SELECT m.built_in FROM copymatch.model m WHERE m.name = $1 FOR UPDATE",
        &parameter(),
        |row| row.required::<bool>(1),
    )?;
    match found.first() {
        None => {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("model \"{name}\" does not exist"),
            )
            .hint("SELECT name FROM copymatch.models lists them."));
        }
        Some(true) => {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                format!("model \"{name}\" is built into the extension"),
            ));
        }
        Some(false) => {}
    }
    let sets = change(
        "SELECT pg_catalog.quote_ident(s.name) FROM copymatch.reference_set s
         WHERE s.model = $1
            OR EXISTS (SELECT FROM copymatch.reembedding r WHERE r.reference_set = s.name
         AND $1 IN (r.model, r.old_model))
         ORDER BY s.name",
        &parameter(),
        |row| row.required::<String>(1),
    )?;
    if !sets.is_empty() {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            format!("model \"{name}\" is in use"),
        )
        .detail(format!("Reference sets: {}", sets.join(", ")))
        .hint("Drop these sets with copy_drop_set, or end their re-embedding with copy_finish_reembed, first."));
    }
    for statement in [
        "DELETE FROM copymatch.calibration c WHERE c.model = $1",
        "DELETE FROM copymatch.model m WHERE m.name = $1",
    ] {
        change(statement, &parameter(), |_| Ok(()))?;
    }
    Ok(())
}

//! An upload that is refused: the error that says so, the record that outlives it, and what a reviewer released.

use pgrx::prelude::*;
use serde::Serialize;

use super::flag::Named;
use super::recorder;
use crate::failure::Failure;
use crate::matching::Match;
use crate::matching::gate::{current_user, role_name};
use crate::settings;
use crate::statements::{Parameter, select};

/// A refused upload as `copymatch.record_refusal` takes it: columns of `copymatch.refusal`.
#[derive(Serialize)]
struct Refused<'a> {
    /// The table's OID, as text.
    relation: String,
    trigger_name: &'a str,
    upload: &'a str,
    uploader: Option<&'a str>,
    written_by: String,
    login: String,
    reference_set: &'a str,
    set_id: i64,
    /// In PostgreSQL's notation: `\x` and digits.
    image_sha256: String,
    reference: &'a str,
    further_references: Vec<&'a str>,
    similarity: f64,
    background: f64,
    score: f64,
    probability: f64,
    model: String,
    calibration: i64,
}

/// SHA-256 of an image.
pub fn digest(image: &[u8]) -> Result<Vec<u8>, Failure> {
    select("SELECT pg_catalog.sha256($1)", &[Parameter::of(image)], |row| {
        row.required::<Vec<u8>>(1)
    })?
    .pop()
    .ok_or_else(|| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "sha256 has no answer"))
}

/// The keys of references for which a reviewer let this image pass, or whatever its uploader has of them. Called as
/// the extension's owner.
pub fn released(named: &Named, sha256: &[u8]) -> Result<Vec<String>, Failure> {
    let found = select(
        "SELECT copymatch.released_references($1, $2, $3, $4)",
        &[
            Parameter::of(named.relation),
            Parameter::of(named.set_id),
            Parameter::of(sha256),
            Parameter::of(named.uploader),
        ],
        |row| row.required::<Vec<Option<String>>>(1),
    )?;
    Ok(found.into_iter().flatten().flatten().collect())
}

/// Refuses an upload for what it is a copy of, the most probable first, and records that. Called as the role that
/// writes the upload.
pub fn refuse(named: &Named, trigger: &str, sha256: &[u8], copies: &[&Match], notify: bool) -> Failure {
    let Some(copy) = copies.first() else {
        return Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "an upload was refused for nothing",
        );
    };
    let recorded = if settings::record_refusals() {
        Some(record(named, trigger, sha256, copy, &copies[1..], notify))
    } else {
        None
    };
    let failure = refusal(named, copy);
    match recorded {
        Some(Ok(id)) => failure.hint(format!(
            "This is refusal {id} on record: after SELECT copy_release({id}), by a reviewer, the image passes when it \
             is uploaded again."
        )),
        Some(Err(cause)) if cause.is_cancel() => cause,
        Some(Err(cause)) => {
            let failure = failure.hint(format!("The refusal is not on record: {}", cause.line()));
            cause.at("a refused upload is not recorded").log();
            failure
        }
        None => failure.hint(
            "The threshold belongs to the set and its calibration (copy_alter_set); copy_disable_reference takes a \
             reference out of use that anybody may upload.",
        ),
    }
}

fn record(
    named: &Named,
    trigger: &str,
    sha256: &[u8],
    copy: &Match,
    others: &[&Match],
    notify: bool,
) -> Result<i64, Failure> {
    let (model, calibration) = crate::rights::as_extension_owner(|| {
        select(
            "SELECT s.model, s.calibration FROM copymatch.reference_set s WHERE s.id = $1",
            &[Parameter::of(named.set_id)],
            |row| Ok((row.required::<String>(1)?, row.required::<i64>(2)?)),
        )
    })?
    .pop()
    .ok_or_else(|| crate::sets::unknown_set(named.set))?;
    // SAFETY: a variable of this backend.
    let login = unsafe { pg_sys::GetSessionUserId() };
    let refused = Refused {
        relation: u32::from(named.relation).to_string(),
        trigger_name: trigger,
        upload: named.upload,
        uploader: named.uploader,
        written_by: role_name(current_user()),
        login: role_name(login),
        reference_set: named.set,
        set_id: named.set_id,
        image_sha256: sha256
            .iter()
            .fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        reference: &copy.reference,
        further_references: others.iter().map(|other| other.reference.as_str()).collect(),
        similarity: copy.similarity,
        background: copy.background,
        score: copy.score,
        probability: copy.probability,
        model,
        calibration,
    };
    let refusal = serde_json::to_string(&refused)
        .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string()))?;
    recorder::record(&refusal, notify)
}

/// The error. To whom may read the references it says which one and how near; to others it would be a way to ask a
/// set, upload by upload.
fn refusal(named: &Named, copy: &Match) -> Failure {
    let readable = select(
        "SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(s.relation::pg_catalog.oid, u.col, 'SELECT')) \
                AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') \
                AND NOT pg_catalog.row_security_active(c.oid) \
         FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation \
              CROSS JOIN pg_catalog.unnest(pg_catalog.array_prepend(s.key_column, s.further_key_columns)) AS u(col) \
         WHERE s.name = $1 GROUP BY c.oid, c.relnamespace",
        &[Parameter::of(named.set)],
        |row| row.required::<bool>(1),
    );
    let Named { upload, set, .. } = named;
    if readable.is_ok_and(|readable| readable == [true]) {
        Failure::new(
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            format!(
                "upload {upload} is a copy of reference {} of set \"{set}\" (probability {:.3})",
                copy.reference, copy.probability
            ),
        )
        .detail(format!("Similarity {:.3}, verdict {}.", copy.similarity, copy.verdict))
    } else {
        Failure::new(
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            format!("upload {upload} is a copy of a reference of set \"{set}\""),
        )
    }
}

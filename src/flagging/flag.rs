//! An upload compared with the references, and what comes of it: findings, or a refusal.
//!
//! References are read with the rights of the uploads table's owner, as foreign keys check theirs: whoever writes an upload need not
//! be allowed to read the references, and nobody gets at references that the owner may not read.

use pgrx::prelude::*;

use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::home::Home;
use crate::rights::{as_role, owner_of};
use crate::select::{Parameter, change, select};
use crate::types::Vector;

/// A reference that an upload resembles.
pub struct Match {
    pub reference: String,
    pub similarity: f64,
    pub background: f64,
    pub score: f64,
    pub probability: f64,
    pub verdict: String,
}

/// The upload that findings name.
pub struct Named<'a> {
    /// Its table; of a row in a partition, the partitioned table.
    pub relation: pg_sys::Oid,
    /// Its key as text.
    pub upload: &'a str,
    pub uploader: Option<&'a str>,
    pub set: &'a str,
}

/// Where the extension lives, for what no function of it was called for.
pub fn extension_home() -> Result<Home, Failure> {
    select(
        "SELECT pg_catalog.quote_ident(n.nspname), t.oid FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
         JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'copymatch'",
        &[],
        |row| {
            Ok(Home {
                schema: row.required(1)?,
                vector: row.required(2)?,
            })
        },
    )?
    .into_iter()
    .next()
    .ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension copymatch is not installed in this database",
        )
    })
}

/// The model of a set whose references the current role, the owner of the uploads table, may read.
pub fn model_of(set: &str) -> Result<Model, Failure> {
    let found = select(
        "SELECT s.model, c.relname::pg_catalog.text, CURRENT_USER::pg_catalog.text, \
                pg_catalog.has_any_column_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), \
                me.rolsuper AND NOT o.rolsuper, o.rolname::pg_catalog.text \
         FROM copymatch.reference_set s JOIN pg_catalog.pg_roles me ON me.rolname = CURRENT_USER \
              LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
         WHERE s.name = $1",
        &[Parameter::of(set)],
        |row| {
            Ok((
                row.required::<String>(1)?,
                row.get::<String>(2)?.unwrap_or_default(),
                row.required::<String>(3)?,
                row.get::<bool>(4)?,
                row.get::<bool>(5)?.unwrap_or(false),
                row.get::<String>(6)?.unwrap_or_default(),
            ))
        },
    )?;
    let Some((model, relation, owner, readable, foreign, maker)) = found.into_iter().next() else {
        // Raises the error that lists the sets there are.
        select(
            "SELECT (copymatch.find_set($1)).name",
            &[Parameter::of(set)],
            |_| Ok(()),
        )?;
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("reference set \"{set}\" does not exist"),
        ));
    };
    if readable == Some(false) {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {relation}: the references of set \"{set}\""),
        )
        .detail(format!(
            "References are read with the rights of role \"{owner}\", who owns the table of the uploads."
        ))
        .hint(format!(
            "Who owns the references: GRANT SELECT ON {relation} TO {owner} (and USAGE on its schema). Who writes uploads needs no right on them."
        )));
    }
    if foreign {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("reference set \"{set}\" is one of role \"{maker}\", and the uploads table is a superuser's"),
        )
        .detail("References are read with the rights of the uploads table's owner: code that hangs on them would run as a superuser.")
        .hint("Let a role that is no superuser own the uploads table: ALTER TABLE … OWNER TO …, and GRANT it SELECT on the references."));
    }
    Model::find(Some(&model))
}

/// The references that an image and its descriptor resemble enough to be flagged.
pub fn matches(
    home: &Home,
    descriptor: Vector,
    image: Option<&[u8]>,
    set: &str,
    model: &str,
    k: i32,
    review: bool,
) -> Result<Vec<Match>, Failure> {
    // A match with an explanation is one that is not to be raised, such as with a negative set.
    select(
        "SELECT m.reference, m.similarity, m.background, m.score, m.probability, m.verdict \
         FROM copymatch.match_described($1, $2, $3, $4, NULL::pg_catalog.text, CASE WHEN $6 THEN 'review' ELSE 'copy' END, $5) m \
         WHERE m.explanation IS NULL",
        &[
            Parameter::typed(descriptor, home.vector),
            Parameter::of(image.map(<[u8]>::to_vec)),
            Parameter::of(set),
            Parameter::of(k),
            Parameter::of(model),
            Parameter::of(review),
        ],
        |row| {
            Ok(Match {
                reference: row.required(1)?,
                similarity: row.required(2)?,
                background: row.required(3)?,
                score: row.required(4)?,
                probability: row.required(5)?,
                verdict: row.required(6)?,
            })
        },
    )
}

/// Writes findings, with the rights of the extension's owner.
pub fn record(named: &Named, found: &[Match], notify: bool) -> Result<(), Failure> {
    let numbers = |field: fn(&Match) -> f64| Parameter::of(found.iter().map(field).collect::<Vec<f64>>());
    let texts = |field: fn(&Match) -> &String| Parameter::of(found.iter().map(field).cloned().collect::<Vec<String>>());
    change(
        "SELECT copymatch.record_findings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            Parameter::of(named.relation),
            Parameter::of(named.upload),
            Parameter::of(named.uploader),
            Parameter::of(named.set),
            texts(|m| &m.reference),
            numbers(|m| m.similarity),
            numbers(|m| m.background),
            numbers(|m| m.score),
            numbers(|m| m.probability),
            texts(|m| &m.verdict),
            Parameter::of(notify),
        ],
        |_| Ok(()),
    )?;
    Ok(())
}

/// Whether a reviewer dismissed this reference for this upload or this uploader.
pub fn dismissed(named: &Named, reference: &str) -> Result<bool, Failure> {
    let found = select(
        "SELECT copymatch.is_dismissed($1, $2, $3, $4, $5)",
        &[
            Parameter::of(named.relation),
            Parameter::of(named.upload),
            Parameter::of(named.uploader),
            Parameter::of(named.set),
            Parameter::of(reference),
        ],
        |row| row.required::<bool>(1),
    )?;
    Ok(found.contains(&true))
}

/// The error that refuses an upload. To whom may read the references it says which one and how near; to others it would be a way to
/// ask a set, upload by upload. Called as the role that writes the upload.
pub fn refusal(named: &Named, copy: &Match) -> Failure {
    let readable = select(
        "SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(s.relation::pg_catalog.oid, u.col, 'SELECT')) \
                AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AND NOT pg_catalog.row_security_active(c.oid) \
         FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation \
              CROSS JOIN pg_catalog.unnest(pg_catalog.array_prepend(s.key_column, s.further_key_columns)) AS u(col) \
         WHERE s.name = $1 GROUP BY c.oid, c.relnamespace",
        &[Parameter::of(named.set)],
        |row| row.required::<bool>(1),
    );
    let hint = "The threshold belongs to the set and its calibration (copy_alter_set); copy_disable_reference takes a reference out \
                of use that anybody may upload.";
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
        .hint(hint)
    } else {
        Failure::new(
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            format!("upload {upload} is a copy of a reference of set \"{set}\""),
        )
        .hint(hint)
    }
}

/// For a person who looks into why an upload was flagged, or was not.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn match_upload(
    relation: pg_sys::Oid,
    descriptor: Vector,
    reference_set: &str,
    model: &str,
    k: i32,
    review: bool,
) -> TableIterator<
    'static,
    (
        name!(reference, String),
        name!(similarity, f64),
        name!(background, f64),
        name!(score, f64),
        name!(probability, f64),
        name!(verdict, String),
    ),
> {
    boundary(|| {
        let home = extension_home()?;
        let found = as_role(owner_of(relation)?, || {
            model_of(reference_set)?;
            matches(&home, descriptor, None, reference_set, model, k, review)
        })?;
        Ok(TableIterator::new(found.into_iter().map(|m| {
            (
                m.reference,
                m.similarity,
                m.background,
                m.score,
                m.probability,
                m.verdict,
            )
        })))
    })
}

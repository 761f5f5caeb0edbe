//! An upload compared with the references, and what comes of it: findings, or a refusal.
//!
//! References are read with the rights of the uploads table's owner, as foreign keys check theirs: whoever writes an
//! upload need not be allowed to read the references, and nobody gets at references that the owner may not read.

use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use scoring::Verdict;

use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::matching::gate::{current_user, role_name};
use crate::matching::{Match, ReferenceSet, remember_sets, search};
use crate::own_schema::OwnSchema;
use crate::rights::{as_role, owner_of};
use crate::sets::unknown_set;
use crate::statements::{Parameter, change, select};
use crate::types::Vector;

/// The upload that findings name.
pub struct Named<'a> {
    /// Its table; of a row in a partition, the partitioned table.
    pub relation: pg_sys::Oid,
    /// Its key as text.
    pub upload: &'a str,
    pub uploader: Option<&'a str>,
    pub set: &'a str,
    /// The set's number.
    pub set_id: i64,
}

/// What a trigger's set is searched by.
pub struct References {
    pub set: ReferenceSet,
    pub model: Model,
}

impl References {
    /// An error where descriptors of that model cannot be compared with the references.
    pub fn is_of(&self, model: &str) -> Result<(), Failure> {
        if self.model.name == model {
            return Ok(());
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!(
                "the descriptor is from model \"{model}\", those of reference set \"{}\" are from \"{}\"",
                self.set.name, self.model.name
            ),
        ))
    }
}

/// The references of a trigger's set, as the current role, the owner of the uploads table, may read them: a set of a
/// role whom it trusts, judged under the relation's lock, which lasts as long as the search that follows.
pub fn references(name: &str) -> Result<References, Failure> {
    let set = remember_sets(
        |last| &mut last.flagging,
        Some(name),
        || {
            check_readable(name)?;
            Ok(vec![
                ReferenceSet::gated(name).map_err(|failure| explained(failure, name))?,
            ])
        },
    )?
    .pop()
    .ok_or_else(|| unknown_set(name))?;
    Ok(References {
        model: set.model()?,
        set,
    })
}

/// An error that names the missing privilege, before PostgreSQL's own that says no more than the table.
fn check_readable(set: &str) -> Result<(), Failure> {
    let found = select(
        "SELECT c.relname::pg_catalog.text, CURRENT_USER::pg_catalog.text \
         FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation \
         WHERE s.name = $1 AND NOT (pg_catalog.has_any_column_privilege(c.oid, 'SELECT') \
                                    AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'))",
        &[Parameter::of(set)],
        |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
    )?;
    let Some((relation, owner)) = found.into_iter().next() else {
        return Ok(());
    };
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table {relation}: the references of set \"{set}\""),
    )
    .detail(format!(
        "References are read with the rights of role \"{owner}\", who owns the table of the uploads."
    ))
    .hint(format!(
        "Who owns the references: GRANT SELECT ON {relation} \
         TO {owner} (and USAGE on its schema). Who writes uploads needs no right on them."
    )))
}

/// Why a set is not searched for a trigger, where the gate says so.
fn explained(failure: Failure, set: &str) -> Failure {
    if failure.code() != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE {
        return failure;
    }
    failure
        .detail(format!(
            "References are read with the rights of role \"{}\", who owns the table of the uploads: code that hangs on \
             the references would run with these.",
            role_name(current_user())
        ))
        .hint(format!(
            "A superuser can declare the set trusted: \
             SELECT copy_alter_set({}, trusted => true). Or let references and uploads belong to \
             one role, or the references to a superuser.",
            quote_literal(set)
        ))
}

/// The references that an image (None: its descriptor alone) resembles enough to be flagged. One that a negative
/// set explains is not raised.
pub fn matches(
    own_schema: &OwnSchema,
    descriptor: &[f32],
    image: Option<&[u8]>,
    references: &References,
    k: i32,
    review: bool,
) -> Result<Vec<Match>, Failure> {
    let k = usize::try_from(k).unwrap_or(1);
    let mut found = search(own_schema, descriptor, image, &references.set, k)?;
    found.retain(|m| m.explanation.is_none() && (m.verdict == Verdict::Copy || review && m.verdict == Verdict::Review));
    Ok(found)
}

/// Writes findings, with the rights of the extension's owner.
pub fn record(named: &Named, found: &[Match], notify: bool) -> Result<(), Failure> {
    let numbers = |field: fn(&Match) -> f64| Parameter::of(found.iter().map(field).collect::<Vec<f64>>());
    change(
        "SELECT copymatch.record_findings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            Parameter::of(named.relation),
            Parameter::of(named.upload),
            Parameter::of(named.uploader),
            Parameter::of(named.set),
            Parameter::of(found.iter().map(|m| m.reference.clone()).collect::<Vec<String>>()),
            numbers(|m| m.similarity),
            numbers(|m| m.background),
            numbers(|m| m.score),
            numbers(|m| m.probability),
            Parameter::of(
                found
                    .iter()
                    .map(|m| m.verdict.name().to_owned())
                    .collect::<Vec<String>>(),
            ),
            Parameter::of(notify),
            Parameter::of(named.set_id),
        ],
        |_| Ok(()),
    )?;
    Ok(())
}

/// Whether a reviewer dismissed this reference for this upload or this uploader.
pub fn dismissed(named: &Named, reference: &str) -> Result<bool, Failure> {
    let found = select(
        "SELECT copymatch.is_dismissed($1, $2, $3, $4, $5, $6)",
        &[
            Parameter::of(named.relation),
            Parameter::of(named.upload),
            Parameter::of(named.uploader),
            Parameter::of(named.set),
            Parameter::of(reference),
            Parameter::of(named.set_id),
        ],
        |row| row.required::<bool>(1),
    )?;
    Ok(found.contains(&true))
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
        let own_schema = OwnSchema::installed()?;
        let found = as_role(owner_of(relation)?, || {
            let references = references(reference_set)?;
            references.is_of(model)?;
            matches(&own_schema, descriptor.elements(), None, &references, k, review)
        })?;
        Ok(TableIterator::new(found.into_iter().map(|m| {
            (
                m.reference,
                m.similarity,
                m.background,
                m.score,
                m.probability,
                m.verdict.name().to_owned(),
            )
        })))
    })
}

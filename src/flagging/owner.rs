//! Work with the rights of an uploads table's owner, as foreign keys check theirs: whoever writes an upload need not be
//! allowed to read the references, and nobody gets at references that the owner may not read.

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::home::Home;
use crate::select::{Parameter, select};
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

/// Where the extension lives, for functions in schema copymatch.
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

/// The model of a set's descriptors.
pub fn model_of(set: &str) -> Result<String, Failure> {
    select("SELECT (copymatch.find_set($1)).model", &[Parameter::of(set)], |row| {
        row.required::<String>(1)
    })?
    .into_iter()
    .next()
    .ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("reference set \"{set}\" does not exist"),
        )
    })
}

/// The references that a descriptor resembles enough to be flagged.
pub fn matches(
    home: &Home,
    descriptor: Vector,
    set: &str,
    model: &str,
    k: i32,
    review: bool,
) -> Result<Vec<Match>, Failure> {
    // A match with an explanation is one that is not to be raised, such as with a negative set.
    let sql = format!(
        "SELECT m.reference, m.similarity, m.background, m.score, m.probability, m.verdict \
         FROM {}.copy_match_descriptor($1, $2, $3, $4) m \
         WHERE (m.verdict = 'copy' OR m.verdict = 'review' AND $5) AND pg_catalog.to_jsonb(m) ->> 'explanation' IS NULL",
        home.schema
    );
    select(
        &sql,
        &[
            Parameter::typed(descriptor, home.vector),
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

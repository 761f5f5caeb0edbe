//! The coordinator's side: questions to shards as SQL.

use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use shards::{Garbled, Question, Wanted};

use super::parts::{Foreign, Part};
use crate::embed::catalogue::Model;
use crate::failure::Failure;
use crate::statements::{Parameter, select_qualified};

/// A question to a part, and which of the payloads goes with it.
pub struct Ask<'a> {
    /// The part.
    pub part: &'a Part,
    /// Its number among the set's parts.
    pub number: u32,
    /// What is wanted.
    pub wanted: Wanted,
    /// Number of the payload, from 0.
    pub payload: usize,
}

/// What questions say of the set that is searched.
pub struct About<'a> {
    /// Name of the set.
    pub set: &'a str,
    /// Its descriptor column.
    pub descriptor: &'a str,
    /// Its model.
    pub model: &'a Model,
}

/// Asks all at once and gives the answers, in the order in which they come. None where PostgreSQL computed one of them
/// here: the shards were not asked.
pub fn ask(about: &About, asks: &[Ask], payloads: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let statements = asks
        .iter()
        .map(|ask| ask.statement(about))
        .collect::<Result<Vec<_>, _>>()?;
    // Nothing but the aggregate may be computed in a branch: what computes more is not asked asynchronously.
    let sql = match statements.as_slice() {
        [only] => only.clone(),
        several => several
            .iter()
            .map(|one| format!("({one})"))
            .collect::<Vec<_>>()
            .join(" UNION ALL "),
    };
    let parameters: Vec<Parameter> = payloads.iter().map(|bytes| Parameter::of(bytes.as_slice())).collect();
    let answers = select_qualified(&sql, &parameters, |row| row.get::<Vec<u8>>(1))?;
    Ok(answers.into_iter().collect())
}

impl Ask<'_> {
    /// The servers' names and the questions stand in the text; the relation's OID does so that a kept plan is never
    /// one of another relation that had the name.
    fn statement(&self, about: &About) -> Result<String, Failure> {
        let Part { name, oid, foreign } = self.part;
        let Some(foreign) = foreign else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("{name} lies on no server"),
            ));
        };
        let question = self.question(about, foreign)?;
        Ok(format!(
            "SELECT copymatch.shard_answer({}::pg_catalog.jsonb, ${}) WITHIN GROUP (ORDER BY r.ctid) AS answer \
             FROM {name} AS r /* {} */ WHERE r.ctid OPERATOR(pg_catalog.=) '(0,0)'::pg_catalog.tid",
            quote_literal(question),
            self.payload + 1,
            u32::from(*oid)
        ))
    }

    /// The question, in JSON.
    pub fn question(&self, about: &About, foreign: &Foreign) -> Result<String, Failure> {
        let question = Question {
            part: self.number,
            server: foreign.server.clone(),
            set: about.set.to_owned(),
            from: this_session(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            relation: foreign.relation.clone(),
            descriptor: foreign.column(about.descriptor),
            model: about.model.name.clone(),
            sha256: hex(&about.model.sha256),
            wanted: self.wanted.clone(),
        };
        serde_json::to_string(&question)
            .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string()))
    }
}

/// This session, as no other is called: not by the database, of which a shard may be a copy.
pub fn this_session() -> String {
    // SAFETY: reads variables of this backend.
    let (process, since) = unsafe { (pg_sys::MyProcPid, pg_sys::MyStartTimestamp) };
    format!("{process}/{since}")
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An answer that cannot be read.
pub fn garbled(error: Garbled) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("from a shard: {error}"))
        .hint("Have all servers the same version of copymatch?")
}

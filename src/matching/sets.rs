//! Reference sets as the catalogue records them, checked against what is there now.

use pgrx::prelude::*;
use scoring::Calibration;

use super::verification::Verify;
use crate::embed::catalogue::Model;
use crate::failure::Failure;
use crate::select::{Parameter, Row, select};

/// A set that can be searched.
#[derive(Clone, Debug)]
pub struct ReferenceSet {
    /// Its name.
    pub name: String,
    /// Schema and name of its relation, quoted.
    pub relation: String,
    /// The key as text: an expression over the relation, which goes by the alias `r`.
    pub key: String,
    /// Quoted name of the descriptor column.
    pub descriptor: String,
    /// Which rows are references now: empty, or `WHERE …` over the alias `r`.
    pub condition: String,
    /// Name of its model.
    pub model: String,
    /// Rows of a search that names no number.
    pub k: Option<i32>,
    /// How its similarities become verdicts.
    pub calibration: Calibration,
    /// Quoted name of the column with the sketches, where there is one that the current user may read.
    pub sketch: Option<String>,
    /// What a search does that does not say.
    pub verify: Verify,
    background_sha256: Vec<u8>,
}

/// A set with what of it still exists.
struct Recorded {
    name: String,
    relation: Option<String>,
    missing_column: Option<String>,
    key: String,
    descriptor: String,
    condition: String,
    model: String,
    k: Option<i32>,
    /// As JSON, in the form that crate `scoring` reads.
    calibration: String,
    sketch: Option<String>,
    verify: String,
    background_sha256: Vec<u8>,
}

/// A set's own thresholds go before its calibration's. Names in the condition are the catalogue's, which checked the filter.
const QUERY: &str = "\
    SELECT s.name, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), \
           (SELECT u.col::text FROM pg_catalog.unnest(ARRAY[s.key_column, s.descriptor_column] || s.further_key_columns) AS u(col) \
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
                              WHERE a.attrelid = s.relation AND a.attname = u.col AND NOT a.attisdropped) LIMIT 1), \
           copymatch.key_expression(s.key_column, s.further_key_columns), pg_catalog.quote_ident(s.descriptor_column), \
           copymatch.search_condition(s), s.model, s.k, k.background_sha256, \
           (pg_catalog.jsonb_build_object('neighbours', k.neighbours, 'factor', k.factor, \
               'clamp', pg_catalog.jsonb_build_array(k.clamp_low, k.clamp_high), 'intercept', k.intercept, \
               'similarity_weight', k.similarity_weight, 'background_weight', k.background_weight, \
               'copy_probability', coalesce(s.copy_probability, k.copy_probability), \
               'review_probability', least(coalesce(s.review_probability, k.review_probability), \
                                           coalesce(s.copy_probability, k.copy_probability))) \
               || coalesce(k.weights, '{}'))::text, \
           (SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = s.relation AND a.attname = s.sketch_column AND a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype \
              AND NOT a.attisdropped AND pg_catalog.has_column_privilege(s.relation, a.attnum, 'SELECT')), s.verify \
    FROM copymatch.reference_set s JOIN copymatch.calibration k ON k.id = s.calibration \
         LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// Of a relation that is there, whether the caller may read it.
/// Whoever searches all sets did not choose each: a view's functions, and a policy's, would run with the searcher's rights, so
/// that those of others count only where a superuser made them.
const TRUSTED: &str = "\
    (c.relkind IN ('r', 'p') AND NOT pg_catalog.row_security_active(c.oid) \
     OR (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = c.relowner) \
     OR pg_catalog.pg_has_role(c.relowner, 'USAGE') \
        AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER))";

const READABLE: &str = "c.oid IS NOT NULL AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') \
    AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

impl ReferenceSet {
    /// The set of this name, or an error that names what is missing.
    pub fn find(name: &str) -> Result<ReferenceSet, Failure> {
        let found = select(&format!("{QUERY} WHERE s.name = $1"), &[Parameter::of(name)], read)?;
        match found.into_iter().next() {
            Some(recorded) => recorded.check(),
            None => {
                // Raises the error that lists the sets there are.
                select("SELECT (copymatch.find_set($1)).name", &[Parameter::of(name)], |_| {
                    Ok(())
                })?;
                Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("reference set \"{name}\" has no calibration"),
                ))
            }
        }
    }

    /// The set of this name, or the members of the group of this name.
    pub fn named(name: &str) -> Result<Vec<ReferenceSet>, Failure> {
        let members = select(
            "SELECT u.member FROM copymatch.reference_group g, pg_catalog.unnest(g.members) WITH ORDINALITY AS u(member, place) \
             WHERE g.name = $1 ORDER BY u.place",
            &[Parameter::of(name)],
            |row| row.required::<String>(1),
        )?;
        if members.is_empty() {
            return Ok(vec![ReferenceSet::find(name)?]);
        }
        members.iter().map(|member| ReferenceSet::find(member)).collect()
    }

    /// Every set whose relation the caller may read, by name. Negative sets are not searched for copies.
    pub fn readable() -> Result<Vec<ReferenceSet>, Failure> {
        let recorded = select(
            &format!("{QUERY} WHERE NOT s.negative AND {READABLE} AND {TRUSTED} ORDER BY s.name"),
            &[],
            read,
        )?;
        if recorded.is_empty() {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "there is no reference set that you may read",
            )
            .hint("Make one with copy_create_set, or ask for SELECT on its relation."));
        }
        recorded.into_iter().map(Recorded::check).collect()
    }

    /// The negative sets whose matches explain those in this one: those that it names, or else those of the same owner. Sets that
    /// the caller may not read explain nothing.
    pub fn negatives(&self) -> Result<Vec<ReferenceSet>, Failure> {
        let recorded = select(
            &format!(
                "{QUERY} JOIN copymatch.reference_set p ON p.name = $1 JOIN pg_catalog.pg_class pc ON pc.oid = p.relation \
                 WHERE s.negative AND NOT p.negative AND {READABLE} \
                 AND CASE WHEN p.negatives IS NULL THEN c.relowner = pc.relowner ELSE s.name = ANY (p.negatives) END \
                 ORDER BY s.name"
            ),
            &[Parameter::of(self.name.as_str())],
            read,
        )?;
        recorded.into_iter().map(Recorded::check).collect()
    }

    /// The set's model, whose background must be the one that the calibration was measured with.
    pub fn model(&self) -> Result<Model, Failure> {
        let model = Model::find(Some(&self.model))?;
        if model.background_sha256.as_ref() != Some(&self.background_sha256) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the calibration of reference set \"{}\" was measured with other background descriptors than those of model \"{}\"",
                    self.name, self.model
                ),
            )
            .hint("Drop the set and make it again: it then takes the model's own calibration."));
        }
        Ok(model)
    }
}

fn read(row: &Row) -> Result<Recorded, Failure> {
    Ok(Recorded {
        name: row.required(1)?,
        relation: row.get(2)?,
        missing_column: row.get(3)?,
        key: row.required(4)?,
        descriptor: row.required(5)?,
        condition: row.required(6)?,
        model: row.required(7)?,
        k: row.get(8)?,
        background_sha256: row.required(9)?,
        calibration: row.required(10)?,
        sketch: row.get(11)?,
        verify: row.required(12)?,
    })
}

impl Recorded {
    fn check(self) -> Result<ReferenceSet, Failure> {
        let again = format!(
            "Drop the set with copy_drop_set('{}') and make it again with copy_create_set.",
            self.name
        );
        let Some(relation) = self.relation else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the relation of reference set \"{}\" no longer exists", self.name),
            )
            .hint(again));
        };
        if let Some(column) = self.missing_column {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!(
                    "column \"{column}\" of relation {relation}, which reference set \"{}\" names, no longer exists",
                    self.name
                ),
            )
            .hint(again));
        }
        let calibration = Calibration::from_json(&self.calibration).map_err(|error| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!(
                    "the calibration of reference set \"{}\" is not valid: {error}",
                    self.name
                ),
            )
        })?;
        Ok(ReferenceSet {
            name: self.name,
            relation,
            key: self.key,
            descriptor: self.descriptor,
            condition: self.condition,
            model: self.model,
            k: self.k,
            calibration,
            sketch: self.sketch,
            verify: Verify::named(Some(&self.verify))?.unwrap_or(Verify::Auto),
            background_sha256: self.background_sha256,
        })
    }
}

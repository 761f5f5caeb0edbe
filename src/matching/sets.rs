//! Reference sets as the catalogue records them, judged by what is there now.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use scoring::Calibration;
use serde_json::{Map, Value};

use super::filter;
use super::gate::{self, current_user, trusts};
use super::verify::Verify;
use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::json::Json;
use crate::own_schema::OwnSchema;
use crate::own_table::{Lookup, Sight};
use crate::rights::as_extension_owner;
use crate::sets::unknown_set;
use crate::statements::{Parameter, Row, select};

/// A set that can be searched: its relation is locked against changes, and what is said here holds
/// as long as the lock does.
#[derive(Clone, Debug)]
pub struct ReferenceSet {
    /// Its number, which no other set ever gets.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its relation.
    pub oid: pg_sys::Oid,
    /// Schema and name of its relation, quoted.
    pub relation: String,
    /// The key as text: an expression over the relation, which goes by the alias `r`.
    pub key: String,
    /// The key's columns and the descriptor column, as they are called.
    pub columns: Vec<String>,
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
    /// Name of that column.
    pub sketch_column: Option<String>,
    /// The filter alone.
    pub filter: Option<String>,
    /// Whether the filter means the same in another database.
    pub portable: bool,
    /// Whether some references may be out of use.
    pub watched: bool,
    /// What a search does that does not say.
    pub verify: Verify,
    background_sha256: Vec<u8>,
}

/// How the search came to a set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The caller named it, and with it whose code may run.
    Typed,
    /// Something else did: only sets of roles whom the current user trusts, or that a superuser declared trusted.
    Gated,
}

/// A set's record.
struct Recorded {
    id: i64,
    name: String,
    oid: pg_sys::Oid,
    /// By the caches: judged before the relation is locked, so that nobody waits for a stranger's lock.
    owner: Option<pg_sys::Oid>,
    /// Owners of what inherits from the relation.
    heirs: Vec<pg_sys::Oid>,
    /// Whom a superuser trusts with this relation.
    trusted_owner: Option<pg_sys::Oid>,
    columns: Vec<String>,
    key: String,
    descriptor: String,
    descriptor_column: String,
    filter: Option<String>,
    filter_beyond: bool,
    has_status: bool,
    model: String,
    k: Option<i32>,
    /// As JSON, in the form that crate `scoring` reads.
    calibration: String,
    background_sha256: Vec<u8>,
    /// The set's own thresholds.
    copy_probability: Option<f64>,
    review_probability: Option<f64>,
    sketch_column: Option<String>,
    verify: String,
}

/// A set's record.
const fn set_by(column: &'static CStr, index: &'static CStr) -> Lookup {
    Lookup {
        table: c"reference_set",
        column,
        index: Some(index),
        columns: "t.id, t.name, t.relation, t.key_column, t.further_key_columns, t.descriptor_column, t.filter, \
                  t.filter_beyond, t.model, t.k, t.calibration, t.copy_probability, t.review_probability, \
                  t.sketch_column, t.verify, t.trusted_relation, t.trusted_owner",
    }
}

static BY_NAME: Lookup = set_by(c"name", c"reference_set_pkey");
static BY_ID: Lookup = set_by(c"id", c"reference_set_id_key");
/// Of the one whose is_default is true.
static DEFAULT: Lookup = set_by(c"is_default", c"reference_set_is_default");

/// Whether there are negative sets at all: mostly there are none.
static NEGATIVE: Lookup = Lookup {
    table: c"reference_set",
    column: c"negative",
    index: None,
    columns: "t.id",
};

static CALIBRATION: Lookup = Lookup {
    table: c"calibration",
    column: c"id",
    index: Some(c"calibration_pkey"),
    columns: "t.background_sha256, t.neighbours, t.factor, t.clamp_low, t.clamp_high, t.intercept, \
              t.similarity_weight, t.background_weight, t.copy_probability, t.review_probability, t.weights",
};

/// References of a set that are or were out of use. Which they are is not for everybody, that there are some is.
static STATUS: Lookup = Lookup {
    table: c"reference_status",
    column: c"reference_set",
    index: Some(c"reference_status_pkey"),
    columns: "t.state",
};

/// Owners of what inherits from the relation $1.
const HEIRS: &str = "\
    WITH RECURSIVE heir AS (SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1 \
                            UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN heir h \
                            ON i.inhparent = h.inhrelid) \
    SELECT DISTINCT h.relowner FROM heir JOIN pg_catalog.pg_class h ON h.oid = heir.inhrelid";

/// Numbers of sets. Read as the extension's owner, about the user $1.
const QUERY: &str = "\
    SELECT s.id FROM copymatch.reference_set s \
         LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation AND $1 IS NOT NULL";

/// Of a relation that is there, whether the user may read what a search reads.
const READABLE: &str = "c.oid IS NOT NULL AND pg_catalog.has_schema_privilege($1, c.relnamespace, 'USAGE') \
    AND (pg_catalog.has_table_privilege($1, c.oid, 'SELECT') \
         OR NOT EXISTS (SELECT FROM pg_catalog.unnest(ARRAY[s.key_column, s.descriptor_column] \
         || s.further_key_columns) AS u(col) \
                        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = u.col \
                        AND NOT a.attisdropped \
                        WHERE a.attnum IS NULL OR NOT pg_catalog.has_column_privilege($1, c.oid, a.attnum, 'SELECT')))";

impl ReferenceSet {
    /// The set of this name, which the caller typed: his choice, and with it whose code may run.
    pub fn typed(name: &str) -> Result<ReferenceSet, Failure> {
        find(name)?.settle(Choice::Typed)
    }

    /// The set of this name, which the caller did not type: an error unless the current user
    /// trusts the relation's owner.
    pub fn gated(name: &str) -> Result<ReferenceSet, Failure> {
        find(name)?.settle(Choice::Gated)
    }

    /// The set of this name, or the members of the group of this name. A group of somebody else's was
    /// not typed member by member.
    pub fn named(name: &str) -> Result<Vec<ReferenceSet>, Failure> {
        if let Some(set) = recorded(&BY_NAME, Parameter::of(name))? {
            return Ok(vec![set.settle(Choice::Typed)?]);
        }
        let members = select(
            "SELECT m.id, m.name, g.owner::pg_catalog.oid FROM copymatch.reference_group g, \
                    ROWS FROM (pg_catalog.unnest(g.member_ids), pg_catalog.unnest(g.members)) \
                    WITH ORDINALITY AS m(id, name, place) \
             WHERE g.name = $1 ORDER BY m.place",
            &[Parameter::of(name)],
            |row| {
                Ok((
                    row.get::<i64>(1)?,
                    row.required::<String>(2)?,
                    row.get::<pg_sys::Oid>(3)?,
                ))
            },
        )?;
        if members.is_empty() {
            return Ok(vec![ReferenceSet::typed(name)?]);
        }
        members
            .into_iter()
            .map(|(id, member, owner)| {
                let set = recorded(&BY_ID, Parameter::of(id.unwrap_or(0)))?.ok_or_else(|| {
                    Failure::new(
                        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                        format!("reference set \"{member}\", a member of group \"{name}\", does not exist"),
                    )
                    .hint(
                        "A set made anew under that name is another one: make the group again with copy_drop_group \
                         and copy_create_group.",
                    )
                })?;
                let own = owner == Some(current_user());
                set.settle(if own { Choice::Typed } else { Choice::Gated })
            })
            .collect()
    }

    /// Every set whose relation the caller may read and whose owner he trusts, by name. Negative sets are not searched
    /// for copies. What cannot be searched is left out, with a WARNING.
    pub fn readable(own_schema: &OwnSchema) -> Result<Vec<ReferenceSet>, Failure> {
        let mut left_out = Vec::new();
        let found = usable(
            listed(
                &format!("$2 AND NOT s.negative AND (c.oid IS NULL OR {READABLE}) ORDER BY s.name"),
                Parameter::of(true),
            )?,
            own_schema,
            &mut left_out,
        );
        gate::warn_of(&left_out, "a search of all sets");
        if found.is_empty() {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "there is no reference set that you may read",
            )
            .hint("Make one with copy_create_set, ask for SELECT on its relation, or name the set."));
        }
        Ok(found)
    }

    /// The negative sets whose matches explain those in this one: those that it names, or else those of the same owner.
    /// Sets that the caller may not read or does not trust explain nothing.
    pub fn negatives(&self, own_schema: &OwnSchema) -> Result<Vec<ReferenceSet>, Failure> {
        if !as_extension_owner(|| NEGATIVE.exists(Parameter::of(true)))? {
            return Ok(Vec::new());
        }
        let found = listed(
            &format!(
                "s.negative AND {READABLE} \
                 AND EXISTS (SELECT FROM copymatch.reference_set p JOIN pg_catalog.pg_class pc ON pc.oid = p.relation \
                             WHERE p.id = $2 AND NOT p.negative \
                               AND CASE WHEN p.negatives IS NULL THEN c.relowner = pc.relowner \
                               ELSE s.id = ANY (p.negative_ids) END) \
                 ORDER BY s.name"
            ),
            Parameter::of(self.id),
        )?;
        let mut left_out = Vec::new();
        let found = usable(found, own_schema, &mut left_out);
        gate::warn_of(&left_out, "a search");
        Ok(found)
    }

    /// The set's model, whose background must be the one that the calibration was measured with.
    pub fn model(&self) -> Result<Model, Failure> {
        let model = Model::find(Some(&self.model))?;
        model.measured_with(&self.background_sha256).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the calibration of reference set \"{}\" was measured with other background descriptors than those \
                     of model \"{}\"",
                    self.name, self.model
                ),
            )
            .hint("Drop the set and make it again: it then takes the model's own calibration.")
        })
    }
}

/// Those of the sets that can be searched, gated; why the others cannot goes to `left_out`.
fn usable(recorded: Vec<Recorded>, own_schema: &OwnSchema, left_out: &mut Vec<(String, Failure)>) -> Vec<ReferenceSet> {
    let mut found = Vec::new();
    for set in recorded {
        let name = set.name.clone();
        let column = set.descriptor_column.clone();
        match set.settle(Choice::Gated).and_then(|set| {
            if !column_type(set.oid, &column).is_some_and(|kind| own_schema.holds_descriptors(kind)) {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("column {column} of reference set \"{name}\" holds no descriptors."),
                ));
            }
            set.model().map(|_| set)
        }) {
            Ok(set) => found.push(set),
            Err(failure) => left_out.push((name, failure)),
        }
    }
    found
}

/// The name of the default set, which whoever searches it did not type.
#[pg_extern(sql = false)]
fn default_set() -> String {
    boundary(|| {
        let set = recorded(&DEFAULT, Parameter::of(true))?.ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "there is no default reference set",
            )
            .hint(
                "Make one with copy_create_set, choose one with copy_default_set, or name one: \
                 copy_match(image, reference_set => '…').",
            )
        })?;
        let refused = |owner| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "the default reference set \"{}\" is one of role \"{}\"",
                    set.name,
                    gate::role_name(owner)
                ),
            )
            .detail(
                "Who does not name it searches it only where its owner is a superuser or (not for superusers) a role \
                 of theirs, or where a superuser declared it trusted.",
            )
            .hint(format!(
                "If you trust that role, name the set: reference_set => {0}. A superuser can choose another default \
                 with \
                 copy_default_set, or SELECT copy_alter_set({0}, trusted => true).",
                pgrx::spi::quote_literal(&set.name)
            ))
        };
        if let Some(owner) = set.owner {
            set.admits(owner).map_err(|_| refused(owner))?;
            // Once more under the lock, which lasts as long as the search that follows.
            if let Some(relation) = gate::locked(set.oid) {
                set.admits(relation.owner).map_err(|_| refused(relation.owner))?;
            }
        }
        Ok(set.name)
    })
}

fn find(name: &str) -> Result<Recorded, Failure> {
    match recorded(&BY_NAME, Parameter::of(name))? {
        Some(recorded) => Ok(recorded),
        None => {
            let there = select(
                "SELECT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = $1)",
                &[Parameter::of(name)],
                |row| row.required::<bool>(1),
            )?;
            if there != [true] {
                return Err(unknown_set(name));
            }
            Err(Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("reference set \"{name}\" has no calibration"),
            ))
        }
    }
}

/// The sets that fulfil a condition about the user $1 and another parameter.
fn listed(condition: &str, parameter: Parameter) -> Result<Vec<Recorded>, Failure> {
    let user = current_user();
    let numbers = as_extension_owner(|| {
        select(
            &format!("{QUERY} WHERE {condition}"),
            &[Parameter::of(user), parameter],
            |row| row.required::<i64>(1),
        )
    })?;
    let each = numbers.into_iter().map(|id| recorded(&BY_ID, Parameter::of(id)));
    each.filter_map(Result::transpose).collect()
}

fn recorded(by: &Lookup, value: Parameter) -> Result<Option<Recorded>, Failure> {
    as_extension_owner(|| Recorded::find(by, value, Sight::Snapshot))
}

/// A set's record as it is now, not as the statement's snapshot shows it.
fn recorded_now(id: i64) -> Result<Option<Recorded>, Failure> {
    as_extension_owner(|| Recorded::find(&BY_ID, Parameter::of(id), Sight::Now))
}

/// The calibration as JSON, in the form that crate `scoring` reads, and the hash of the background that it was measured
/// with.
fn calibration(row: &Row) -> Result<(String, Vec<u8>), Failure> {
    let number = |name| row.required::<f64>(row.column(name)?);
    let mut record = Map::new();
    let mut put = |name: &str, value: Value| record.insert(name.to_owned(), value);
    put("neighbours", row.required::<i32>(row.column(c"neighbours")?)?.into());
    put("factor", number(c"factor")?.into());
    put("clamp", vec![number(c"clamp_low")?, number(c"clamp_high")?].into());
    put("intercept", number(c"intercept")?.into());
    put("similarity_weight", number(c"similarity_weight")?.into());
    put("background_weight", number(c"background_weight")?.into());
    put("copy_probability", number(c"copy_probability")?.into());
    put("review_probability", number(c"review_probability")?.into());
    if let Some(weights) = row.text(row.column(c"weights")?)
        && let Value::Object(weights) = Json::parse(&weights)?
    {
        record.extend(weights);
    }
    let background = row.required(row.column(c"background_sha256")?)?;
    Ok((Value::Object(record).to_string(), background))
}

/// The key as text: an expression over the relation, which goes by the alias `r`. As copymatch.key_expression has it.
fn key_expression(columns: &[String]) -> String {
    let quoted: Vec<String> = columns
        .iter()
        .map(|column| format!("r.{}", quote_identifier(column)))
        .collect();
    match quoted.as_slice() {
        [only] => format!("copymatch.key_text({only})"),
        several => format!("copymatch.key_text(ROW({}))", several.join(", ")),
    }
}

impl Recorded {
    /// As the extension's owner.
    fn find(by: &Lookup, value: Parameter, sight: Sight) -> Result<Option<Recorded>, Failure> {
        let Some((mut set, number)) = by.first(value, sight, Recorded::read)? else {
            return Ok(None);
        };
        let Some(calibration) = CALIBRATION.first(Parameter::of(number), sight, calibration)? else {
            return Ok(None);
        };
        (set.calibration, set.background_sha256) = calibration;
        set.has_status = STATUS.exists(Parameter::of(set.name.as_str()))?;
        if let Some(class) = gate::class(set.oid) {
            set.owner = Some(class.owner);
            if class.has_heirs {
                set.heirs = select(HEIRS, &[Parameter::of(set.oid)], |row| row.required(1))?;
            }
        }
        Ok(Some(set))
    }

    /// What stands in the row itself, and the number of the calibration.
    fn read(row: &Row) -> Result<(Recorded, i64), Failure> {
        let name = |column| Ok::<_, Failure>(row.text(row.column(column)?));
        let required = |column| name(column)?.ok_or_else(|| row.is_null(column));
        let oid = |column| Ok::<_, Failure>(row.oid(row.column(column)?));
        let relation = oid(c"relation")?.ok_or_else(|| row.is_null(c"relation"))?;
        let descriptor_column = required(c"descriptor_column")?;
        let mut key = vec![required(c"key_column")?];
        key.append(&mut row.names(row.column(c"further_key_columns")?));
        let set = Recorded {
            id: row.required(row.column(c"id")?)?,
            name: required(c"name")?,
            oid: relation,
            owner: None,
            heirs: Vec::new(),
            trusted_owner: oid(c"trusted_owner")?
                .filter(|_| oid(c"trusted_relation").is_ok_and(|r| r == Some(relation))),
            key: key_expression(&key),
            columns: [key, vec![descriptor_column.clone()]].concat(),
            descriptor: quote_identifier(&descriptor_column),
            descriptor_column,
            filter: name(c"filter")?,
            filter_beyond: row.required(row.column(c"filter_beyond")?)?,
            has_status: false,
            model: required(c"model")?,
            k: row.get(row.column(c"k")?)?,
            calibration: String::new(),
            background_sha256: Vec::new(),
            copy_probability: row.get(row.column(c"copy_probability")?)?,
            review_probability: row.get(row.column(c"review_probability")?)?,
            sketch_column: name(c"sketch_column")?,
            verify: required(c"verify")?,
        };
        Ok((set, row.required(row.column(c"calibration")?)?))
    }

    fn admits(&self, owner: pg_sys::Oid) -> Result<(), Failure> {
        let user = current_user();
        let stranger = if trusts(user, owner) || self.trusted_owner == Some(owner) {
            self.heirs
                .iter()
                .copied()
                .find(|&heir| heir != owner && !trusts(user, heir))
        } else {
            Some(owner)
        };
        stranger.map_or(Ok(()), |owner| Err(gate::not_trusted(&self.name, owner)))
    }

    fn missing_column(&self) -> Option<&String> {
        self.columns
            .iter()
            .find(|column| column_type(self.oid, column).is_none())
    }

    /// Locks the relation, judges what it is then, and says how it is searched.
    fn settle(self, choice: Choice) -> Result<ReferenceSet, Failure> {
        let renamed = format!(
            "If it was renamed: SELECT copy_set_columns('{}', …) with its name now.",
            self.name.replace('\'', "''")
        );
        let again = format!(
            "Drop the set with copy_drop_set('{}') and make it again with copy_create_set.",
            self.name.replace('\'', "''")
        );
        let gone = || {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the relation of reference set \"{}\" no longer exists", self.name),
            )
            .hint(again.clone())
        };
        if choice == Choice::Gated {
            self.admits(self.owner.ok_or_else(gone)?)?;
        }
        let relation = gate::locked(self.oid).ok_or_else(gone)?;
        if choice == Choice::Gated {
            self.admits(relation.owner)?;
        }
        if let Some(column) = self.missing_column() {
            // While the lock was waited for, a re-embedding may have ended: its column has the name of the one before.
            if let Some(now) = recorded_now(self.id)?
                && now.oid == self.oid
                && now.missing_column().is_none()
            {
                return now.settle(choice);
            }
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!(
                    "column \"{column}\" of relation {}, which reference set \"{}\" names, no longer exists",
                    relation.name, self.name
                ),
            )
            .hint(renamed)
            .hint_also(&format!("Else: {again}")));
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
        // Who may not read the sketches, and who has none, is answered by descriptor.
        let sketch = self
            .sketch_column
            .as_ref()
            .filter(|column| column_type(self.oid, column) == Some(pg_sys::BYTEAOID) && may_read(self.oid, column))
            .cloned();
        // A set's own thresholds go before its calibration's.
        let calibration = calibration.with_thresholds(self.copy_probability, self.review_probability);
        let filter = self.filter()?;
        Ok(ReferenceSet {
            condition: self.condition(filter.as_ref()),
            sketch: sketch.as_ref().map(quote_identifier),
            sketch_column: sketch,
            portable: filter.as_ref().is_none_or(|filter| filter.portable),
            filter: filter.map(|filter| filter.text),
            watched: self.has_status,
            verify: Verify::named(Some(&self.verify))?.unwrap_or(Verify::Auto),
            id: self.id,
            name: self.name,
            oid: self.oid,
            relation: relation.name,
            key: self.key,
            columns: self.columns,
            descriptor: self.descriptor,
            model: self.model,
            k: self.k,
            calibration,
            background_sha256: self.background_sha256,
        })
    }

    /// A filter is data: it is judged whenever it is about to run, whatever wrote it and whatever
    /// became of the columns since.
    fn filter(&self) -> Result<Option<filter::Settled>, Failure> {
        let settle = |text: &String| {
            filter::settle(self.oid, text, self.filter_beyond)
                .map_err(|failure| failure.at(format_args!("reference set \"{}\"", self.name)))
        };
        self.filter.as_ref().map(settle).transpose()
    }

    fn condition(&self, filter: Option<&filter::Settled>) -> String {
        let mut parts = Vec::new();
        if let Some(filter) = filter {
            parts.push(format!("({})", filter.text));
        }
        if self.has_status {
            // Asked for each row that comes, in the order of the index: k rows are found at any number
            // of references out of use.
            parts.push(format!(
                "copymatch.reference_in_use({}::pg_catalog.int8, {})",
                self.id, self.key
            ));
        }
        if parts.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", parts.join(" AND "))
        }
    }
}

/// The type of a relation's column, by the caches.
fn column_type(relation: pg_sys::Oid, column: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(column).ok()?;
    // SAFETY: look-ups in PostgreSQL's caches, which answer 0 for a column that is not there.
    unsafe {
        let number = pg_sys::get_attnum(relation, name.as_ptr());
        (number != 0).then(|| pg_sys::get_atttype(relation, number))
    }
}

/// Whether the current user may read a column, by the caches.
fn may_read(relation: pg_sys::Oid, column: &str) -> bool {
    let Ok(name) = CString::new(column) else { return false };
    let (user, select) = (current_user(), pg_sys::ACL_SELECT as pg_sys::AclMode);
    let allowed = pg_sys::AclResult::ACLCHECK_OK;
    // SAFETY: look-ups in PostgreSQL's caches, of a column that column_type found.
    unsafe {
        pg_sys::pg_class_aclcheck(relation, user, select) == allowed
            || pg_sys::pg_attribute_aclcheck(relation, pg_sys::get_attnum(relation, name.as_ptr()), user, select)
                == allowed
    }
}

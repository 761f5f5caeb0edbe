//! Judged pairs without a person, for `copy_calibrate(…, source => 'edits')`: seeded edits of a sample of the set's
//! references, and background descriptors, each with the best reference that it finds.
//!
//! It runs as the owner of the set's relation. Embedding takes its time, so that what is read of the references is read
//! by `copymatch.read_and_release`: no lock on them is held meanwhile, and every search sees them as they are by then.

use std::time::{Duration, Instant};

use edits::Edit;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use scoring::{Compared, EDIT_STRENGTHS, EditedCopy, EditedPairs, Pairs};
use serde_json::{Value, json};

use super::background::background;
use crate::embed::catalogue::Model;
use crate::embed::{edited, embed_one};
use crate::failure::Failure;
use crate::interrupts;
use crate::own_schema::OwnSchema;
use crate::statements::{Parameter, Row, change, each, select};
use crate::types::Vector;

/// A set with fewer references keeps its model's calibration.
const LEAST_REFERENCES: i64 = 40;

/// Copies whose pictures are compared with what they find.
const COMPARED: usize = 500;

/// Near-duplicates that the evidence names.
const EXAMPLES: usize = 20;

/// References among which near-duplicates of one are looked for, and among which the nearest other one of a copy.
const ALIKE: usize = 20;
const NEAREST: usize = 25;

const SAID_EVERY: Duration = Duration::from_secs(5);

/// How many copies are made, and of what.
pub struct Sample {
    pub copies: i32,
    /// Pictures of the background that are looked up as copies of nothing.
    pub unrelated: i32,
    /// From which similarity on two references are the same picture.
    pub duplicate_similarity: f64,
    pub seed: i64,
}

/// The pairs, between what a query's background is cut to, and the evidence.
pub fn gather(reference_set: &str, sample: &Sample) -> Result<(Pairs, [f64; 2], Value), Failure> {
    let set = Set::of(reference_set)?;
    let mut edits: Vec<Edit> = Edit::ALL.to_vec();
    edits.sort_by_key(|edit| edit.name());
    let reading = one(released(
        &format!("SELECT copymatch.reference_query({})", quote_literal(&set.name)),
        "statement pg_catalog.text",
        |row| row.required::<String>(1),
    )?)?;
    let available = one(released(
        &format!("SELECT count(*) FROM ({reading}) r WHERE r.image IS NOT NULL AND r.descriptor IS NOT NULL"),
        "number pg_catalog.int8",
        |row| row.required::<i64>(1),
    )?)?;
    if available < LEAST_REFERENCES {
        return Err(unready(format!(
            "reference set \"{}\" has {available} references with image and descriptor, too few to calibrate on",
            set.name
        ))
        .hint("At least 40 are needed; keep the model's calibration until there are more."));
    }
    let mut work = Work {
        set,
        sample,
        edits,
        found: EditedPairs::default(),
        number: 0,
        refused: 0,
        duplicates: 0,
        examples: Vec::new(),
        progress: Progress::begin(),
    };
    let sampled = statement(&reading, available, sample);
    let columns = format!(
        "reference pg_catalog.text, image pg_catalog.bytea, descriptor {}.vector, place pg_catalog.int8, \
         n pg_catalog.int4, chance pg_catalog.int8",
        work.set.own_schema.schema
    );
    each(&rows_of(&columns), &[Parameter::of(sampled)], |row| {
        interrupts::process();
        work.copy(&Reference::of(row)?)
    })?;
    work.unrelated()?;
    let clamp = work.found.clamp();
    let evidence = work.evidence(available);
    Ok((work.found.pairs, clamp, evidence))
}

/// The statement of the sample. A small set gives several edits of each reference, a large one a seeded sample.
fn statement(reading: &str, available: i64, sample: &Sample) -> String {
    let Sample { copies, seed, .. } = sample;
    let each = i64::from(*copies).div_euclid(available) + i64::from(i64::from(*copies).rem_euclid(available) > 0);
    format!(
        "SELECT s.reference, s.image, s.descriptor, s.place, n.n,
                hashtextextended(s.reference || ':' || n.n, '{seed}'::int8 + 1) & {} AS chance
         FROM (SELECT r.*, row_number() OVER (ORDER BY hashtextextended(r.reference, '{seed}'::int8),
               r.reference) AS place
               FROM ({reading}) r WHERE r.image IS NOT NULL AND r.descriptor IS NOT NULL) s,
              generate_series(1, {each}::int4) n
         WHERE s.place <= {copies} ORDER BY n.n, s.place LIMIT {copies}",
        i64::MAX
    )
}

/// A set whose references are edited.
struct Set {
    own_schema: OwnSchema,
    name: String,
    calibration: i64,
    /// With the background that the calibration was measured with.
    model: Model,
    neighbours: usize,
    /// Whether pictures are compared, and what that says is weighed.
    verifies: bool,
}

impl Set {
    fn of(name: &str) -> Result<Set, Failure> {
        let found = select(
            "SELECT s.image_column IS NOT NULL, s.calibration,
                    s.sketch_column IS NOT NULL AND s.verify <> 'off' AND coalesce(c.weights ? 'verified', false)
             FROM copymatch.reference_set s JOIN copymatch.calibration c ON c.id = s.calibration WHERE s.name = $1",
            &[Parameter::of(name)],
            |row| {
                Ok((
                    row.required::<bool>(1)?,
                    row.required::<i64>(2)?,
                    row.required::<bool>(3)?,
                ))
            },
        )?;
        let (has_images, calibration, verifies) = one(found)?;
        if !has_images {
            return Err(unready(format!(
                "reference set \"{name}\" has no image column, so no edited copies can be made"
            ))
            .hint("Give labelled pairs: copy_calibrate(reference_set, labels => '…')."));
        }
        let (model, neighbours) = Model::of_calibration(calibration)?;
        Ok(Set {
            own_schema: OwnSchema::of_type()?,
            name: name.to_owned(),
            calibration,
            model,
            neighbours,
            verifies,
        })
    }

    /// The `k` references nearest to a descriptor, with their similarities, nearest first.
    fn nearest(&self, descriptor: &[f32], k: usize) -> Result<Vec<(String, f64)>, Failure> {
        let schema = &self.own_schema.schema;
        let search = format!(
            "SELECT d.reference, d.similarity, d.rank FROM {schema}.copy_match_descriptor(\
             '{}'::{schema}.vector, {}, {k}, NULL::pg_catalog.text, 0) d ORDER BY d.rank",
            vectors::format_text(descriptor),
            quote_literal(&self.name),
        );
        let columns = "reference pg_catalog.text, similarity pg_catalog.float8, rank pg_catalog.int4";
        released(&search, columns, |row| {
            Ok((row.required::<String>(1)?, row.required::<f64>(2)?))
        })
    }
}

/// A row of the sample.
struct Reference {
    key: String,
    image: Vec<u8>,
    descriptor: Vec<f32>,
    /// Its place in the sample, from 1, and which copy of it is made.
    place: i64,
    copy: i32,
    chance: i64,
}

impl Reference {
    fn of(row: &Row) -> Result<Reference, Failure> {
        Ok(Reference {
            key: row.required(1)?,
            image: row.required(2)?,
            descriptor: row.required::<Vector>(3)?.elements().to_vec(),
            place: row.required(4)?,
            copy: row.required(5)?,
            chance: row.required(6)?,
        })
    }
}

struct Work<'a> {
    set: Set,
    sample: &'a Sample,
    /// By name, so that a seed draws the same ones whatever the order of `Edit::ALL`.
    edits: Vec<Edit>,
    found: EditedPairs,
    /// Rows of the sample so far, of which so many gave a picture that cannot be matched.
    number: usize,
    refused: usize,
    duplicates: usize,
    examples: Vec<Value>,
    progress: Progress,
}

impl Work<'_> {
    /// Makes a copy of the reference and looks it up.
    fn copy(&mut self, reference: &Reference) -> Result<(), Failure> {
        self.progress.say(self.number, self.sample.copies);
        self.number += 1;
        let drawn = EditedCopy::drawn(reference.chance.unsigned_abs(), self.number, self.edits.len());
        let (picture, query) = match self.made(&reference.image, drawn) {
            Err(failure) if is_refusal(&failure) => {
                self.refused += 1;
                return Ok(());
            }
            made => made?,
        };
        let own = vectors::cosine_distance(&reference.descriptor, &query)
            .map(|distance| 1.0 - distance)
            .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()))?;
        let background = background(&query, &self.set.model, self.set.neighbours)?;
        let same = self.same(reference)?;
        // The nearest reference that is not the same picture again.
        let nearest = self.set.nearest(&query, NEAREST)?;
        let other = nearest
            .iter()
            .find(|(key, _)| *key != reference.key && !same.contains(key));
        if self.set.verifies && self.number <= COMPARED {
            self.compare(reference, &same, &picture, &query)?;
        }
        let place = reference.place.unsigned_abs();
        self.found
            .copy(place, background, own, other.map(|(_, similarity)| *similarity));
        Ok(())
    }

    /// The edited picture and its descriptor.
    fn made(&self, image: &[u8], drawn: EditedCopy) -> Result<(Vec<u8>, Vec<f32>), Failure> {
        let EditedCopy {
            edit,
            then,
            strength,
            seed,
        } = drawn;
        let strength = strength as f32;
        let mut picture = edited(image, self.edits[edit], strength, seed)?;
        if let Some(then) = then {
            picture = edited(&picture, self.edits[then], strength, seed)?;
        }
        let descriptor = embed_one(&picture, &self.set.model)?;
        Ok((picture, descriptor))
    }

    /// The other references that are the same picture.
    fn same(&mut self, reference: &Reference) -> Result<Vec<String>, Failure> {
        let same: Vec<String> = self
            .set
            .nearest(&reference.descriptor, ALIKE)?
            .into_iter()
            .filter(|(key, similarity)| *similarity >= self.sample.duplicate_similarity && *key != reference.key)
            .map(|(key, _)| key)
            .collect();
        self.duplicates += same.len();
        if !same.is_empty() && self.examples.len() < EXAMPLES && reference.copy == 1 {
            self.examples.push(json!({"reference": reference.key, "same": same}));
        }
        Ok(same)
    }

    /// What comparing pictures makes of a copy: with its reference there, and as a stranger, without it.
    fn compare(
        &mut self,
        reference: &Reference,
        same: &[String],
        picture: &[u8],
        query: &[f32],
    ) -> Result<(), Failure> {
        let own_keys: Vec<&str> = [reference.key.as_str()]
            .into_iter()
            .chain(same.iter().map(String::as_str))
            .collect();
        let quoted: Vec<String> = own_keys.iter().map(quote_literal).collect();
        let search = format!(
            "SELECT s.known, m.reference, m.verdict \
             FROM (VALUES (true, NULL::pg_catalog.text[]), (false, ARRAY[{}]::pg_catalog.text[])) s(known, without) \
             CROSS JOIN LATERAL copymatch.match_described('{}'::{}.vector, {}::pg_catalog.bytea, {}, 1, 'auto', \
             NULL::pg_catalog.text, {}, s.without) m WHERE m.inliers IS NOT NULL",
            quoted.join(", "),
            vectors::format_text(query),
            self.set.own_schema.schema,
            quote_literal(hexadecimal(picture)),
            quote_literal(&self.set.name),
            quote_literal(&self.set.model.name),
        );
        let columns = "known pg_catalog.bool, reference pg_catalog.text, verdict pg_catalog.text";
        let hits = released(&search, columns, |row| {
            Ok((
                row.required::<bool>(1)?,
                row.required::<String>(2)?,
                row.required::<String>(3)? == "copy",
            ))
        })?;
        for (known, key, called_a_copy) in hits {
            match known {
                true => self
                    .found
                    .compared
                    .copy(called_a_copy, own_keys.contains(&key.as_str())),
                false => self.found.compared.stranger(called_a_copy),
            }
        }
        Ok(())
    }

    /// The background's pictures are none of the references: the tail of false positives.
    fn unrelated(&mut self) -> Result<(), Failure> {
        let schema = &self.set.own_schema.schema;
        let found = change(
            &format!(
                "SELECT b.background, f.similarity FROM copymatch.calibration_background_sample($1, $2, $3) b, \
                 LATERAL (SELECT f.similarity FROM {schema}.copy_match_descriptor(\
                 b.descriptor, $4, 1, NULL::pg_catalog.text, 0) f ORDER BY f.rank LIMIT 1) f"
            ),
            &[
                Parameter::of(self.set.calibration),
                Parameter::of(self.sample.unrelated),
                Parameter::of(self.sample.seed),
                Parameter::of(self.set.name.as_str()),
            ],
            |row| Ok((row.required::<f64>(1)?, row.required::<f64>(2)?)),
        )?;
        for (place, (background, similarity)) in (1..).zip(found) {
            self.found.unrelated(place, background, similarity);
        }
        Ok(())
    }

    fn evidence(&self, available: i64) -> Value {
        let Compared {
            copies,
            right,
            wrong,
            strangers,
            strangers_wrong,
        } = self.found.compared;
        let verified = json!({
            "copies": copies,
            "right": right,
            "wrong": wrong,
            "strangers": strangers,
            "strangers_wrong": strangers_wrong,
        });
        json!({
            "seed": self.sample.seed,
            "references": available,
            "copies": self.found.copies,
            "unrelated": self.found.unrelated,
            "refused": self.refused,
            "near_duplicates": self.duplicates,
            "near_duplicate_examples": self.examples,
            "strengths": EDIT_STRENGTHS,
            "recall_at_1": self.found.recall_at_1(),
            "verified": if copies > 0 { verified } else { Value::Null },
            "note": NOTE,
        })
    }
}

const NOTE: &str = "edits of the set's own references by copy_edit, a third of them edited twice; top-1 neighbours; \
                    verified: what comparing pictures made of the first of the copies, and of the same without their \
                    reference (strangers), by the thresholds of the time; background descriptors as queries that are \
                    copies of nothing; one half fits the curve, the other sets the thresholds";

/// Says every few seconds how far it is.
struct Progress {
    started: Instant,
    said: Instant,
}

impl Progress {
    fn begin() -> Progress {
        let now = Instant::now();
        Progress {
            started: now,
            said: now,
        }
    }

    fn say(&mut self, done: usize, copies: i32) {
        if done == 0 || self.said.elapsed() < SAID_EVERY {
            return;
        }
        self.said = Instant::now();
        let each = self.started.elapsed().as_secs_f64() / done as f64;
        let left = each * (f64::from(copies) - done as f64);
        notice!("{done} of {copies} edited copies matched, about {left:.0} s to go");
    }
}

/// The rows of a query, whose locks end with it.
fn released<T>(statement: &str, columns: &str, map: impl FnMut(&Row) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    change(&rows_of(columns), &[Parameter::of(statement)], map)
}

fn rows_of(columns: &str) -> String {
    format!("SELECT * FROM copymatch.read_and_release($1) AS r({columns})")
}

/// The row that there always is, unless the set is dropped meanwhile.
fn one<T>(rows: Vec<T>) -> Result<T, Failure> {
    rows.into_iter().next().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "the reference set or its calibration is gone",
        )
        .hint("SELECT name FROM copymatch.reference_set lists the sets.")
    })
}

/// Whether a copy cannot be matched, which a picture's owner would be told: the next one may be.
fn is_refusal(failure: &Failure) -> bool {
    failure.is_about_the_image() || failure.code() == PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
}

fn unready(message: String) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

/// As `bytea` is written.
fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    text.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
    text
}

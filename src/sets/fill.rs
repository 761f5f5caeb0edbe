//! `copy_fill_set`: embeds in committed batches.

use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::arguments::invalid;
use super::columns;
use super::described::Describing;
use super::owned::{OwnedSet, by_owner, count_by_owner};
use crate::committing::{AtWork, Committing};
use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::rights::as_extension_owner;
use crate::sharding::citus;
use crate::statements::{Parameter, change};
use crate::types::Vector;

/// After this time a batch ends with the image under way, and is committed.
pub(super) const LONGEST_BATCH: Duration = Duration::from_secs(2);
/// Most rows that a batch looks up.
const MOST_ROWS: i64 = 1000;
/// Most statements of indexes that the last NOTICE tells.
const MOST_STATEMENTS: usize = 5;

/// The columns that are kept beside an image, quoted, and how.
pub struct Kept<'a> {
    pub image: String,
    pub descriptor: String,
    pub sketch: Option<String>,
    pub model: &'a str,
    /// The key as text, over the alias r.
    pub key: &'a str,
}

impl Kept<'_> {
    /// Which rows, over the alias r, have an image but not all that is kept of it.
    pub fn missing(&self) -> String {
        let Kept {
            image,
            descriptor,
            sketch,
            ..
        } = self;
        match sketch {
            None => format!("r.{image} IS NOT NULL AND r.{descriptor} IS NULL"),
            Some(sketch) => {
                format!("r.{image} IS NOT NULL AND (r.{descriptor} IS NULL OR r.{sketch} IS NULL)")
            }
        }
    }

    /// The UPDATE that makes what is missing, where `condition` (` AND …`, over the alias r) holds.
    pub fn statement(&self, table: &str, total: i64, condition: &str) -> String {
        let Kept {
            image, descriptor, key, ..
        } = self;
        let (model, missing) = (quote_literal(self.model), self.missing());
        match &self.sketch {
            None => format!(
                "UPDATE {table} AS r SET {descriptor} = \
                 copymatch.embed_reference(r.{image}, {model}, {key}, {total}::pg_catalog.int8) \
                 WHERE {missing}{condition}"
            ),
            Some(sketch) => format!(
                "UPDATE {table} AS r SET ({descriptor}, {sketch}) = \
                 (SELECT coalesce(r.{descriptor}, d.descriptor), coalesce(r.{sketch}, d.sketch) \
                 FROM copymatch.describe_reference(\
                  r.{image}, {model}, {key}, {total}::pg_catalog.int8, r.{descriptor} IS NULL, \
                  r.{sketch} IS NULL) AS d) \
                 WHERE {missing}{condition}"
            ),
        }
    }

    /// What [`Describing`] reads of the row at $1.
    fn reading(&self, part: &str) -> String {
        let Kept {
            image, descriptor, key, ..
        } = self;
        let no_sketch = self
            .sketch
            .as_ref()
            .map_or("false".to_owned(), |sketch| format!("r.{sketch} IS NULL"));
        format!(
            "SELECT r.{image}::pg_catalog.bytea, {key}, r.{descriptor} IS NULL, {no_sketch} FROM ONLY {part} AS r \
             WHERE r.ctid OPERATOR(pg_catalog.=) $1::pg_catalog.tid AND {}",
            self.missing()
        )
    }

    /// What writes it. A row with an image of which nothing can be made is not written: it would come again behind the
    /// place that the fill has reached.
    fn writing(&self, part: &str) -> String {
        let Kept { descriptor, .. } = self;
        let sketch = self
            .sketch
            .as_ref()
            .map_or(String::new(), |sketch| format!(", {sketch} = coalesce(r.{sketch}, $3)"));
        format!(
            "UPDATE ONLY {part} AS r SET {descriptor} = coalesce(r.{descriptor}, $2){sketch} \
             WHERE r.ctid OPERATOR(pg_catalog.=) $1::pg_catalog.tid AND {} RETURNING 1",
            self.missing()
        )
    }
}

/// Gives a set that is to be verified and has no sketches yet a column for them.
fn begin_sketches(set: &mut OwnedSet) -> Result<(), Failure> {
    if set.verify == "off" || set.sketch.is_some() || !set.is_table() {
        return Ok(());
    }
    let table = set.table()?.to_owned();
    let column = columns::sketch(
        set.owner,
        set.relation,
        &table,
        set.image.as_deref(),
        &set.descriptor,
        true,
    )?;
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.reference_set s SET sketch_column = $2 WHERE s.id = $1 AND s.sketch_column IS NULL",
            &[Parameter::of(set.id), Parameter::of(column.as_deref())],
            |_| Ok(()),
        )
    })?;
    set.sketch = column;
    Ok(())
}

/// How far a fill is.
struct Place {
    part: u32,
    /// Row that was looked at last.
    page: i64,
    line: i64,
    /// Rows that the fill rewrites move behind this end; they have their descriptor already.
    end: i64,
    waiting: i64,
    done: i64,
    skipped: i64,
}

impl Place {
    fn parse(text: &str) -> Result<Place, Failure> {
        let numbers: Option<Vec<i64>> = text.split(' ').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[part, page, line, end, waiting, done, skipped]) if [page, line, end].iter().all(|&at| at >= 0) => {
                Ok(Place {
                    part: u32::try_from(part).map_err(|_| invalid("place is none"))?,
                    page,
                    line,
                    end,
                    waiting,
                    done,
                    skipped,
                })
            }
            _ => Err(invalid(format!(
                "\"{text}\" is no place that copymatch.fill_batch gave"
            ))),
        }
    }

    fn text(&self) -> String {
        let Place {
            part,
            page,
            line,
            end,
            waiting,
            done,
            skipped,
        } = self;
        format!("{part} {page} {line} {end} {waiting} {done} {skipped}")
    }

    /// A page and line as SQL writes them.
    fn tid(page: i64, line: i64) -> String {
        let most = i64::from(u32::MAX) - 1;
        format!("({},{line})", page.min(most))
    }

    /// Lets copymatch.progress show it.
    fn record(&self, set: &OwnedSet) -> Result<(), Failure> {
        as_extension_owner(|| {
            change(
                "INSERT INTO copymatch.filling AS f (reference_set, model, total, done, skipped, pid) \
                 VALUES ($1, $2, $3, $4, $5, pg_catalog.pg_backend_pid()) \
                 ON CONFLICT ON CONSTRAINT filling_pkey DO UPDATE SET model = excluded.model, total = excluded.total, \
                 done = excluded.done, \
                     skipped = excluded.skipped, pid = excluded.pid, updated = pg_catalog.clock_timestamp(), \
                     started = CASE WHEN f.total = excluded.total AND excluded.done >= f.done THEN f.started \
                     ELSE excluded.started END",
                &[
                    Parameter::of(set.name.as_str()),
                    Parameter::of(set.model.as_str()),
                    Parameter::of(self.waiting),
                    Parameter::of(self.done),
                    Parameter::of(self.skipped),
                ],
                |_| Ok(()),
            )
        })?;
        Ok(())
    }
}

/// A table, or a leaf of a partitioned one.
struct Leaf {
    oid: u32,
    name: String,
    pages: i64,
}

fn leaves(set: &OwnedSet) -> Result<Vec<Leaf>, Failure> {
    // A table that is no partition tree is its own only leaf.
    change(
        "SELECT u.leaf, u.name, pg_catalog.pg_relation_size(u.leaf::pg_catalog.regclass) \
         / pg_catalog.current_setting('block_size')::pg_catalog.int8 \
         FROM (SELECT c.oid AS leaf, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind = 'r' \
               AND (c.oid = $1 OR c.oid IN (SELECT p.relid \
               FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p WHERE p.isleaf))) AS u \
         ORDER BY u.leaf",
        &[Parameter::of(set.relation)],
        |row| {
            Ok(Leaf {
                oid: u32::from(row.required::<pg_sys::Oid>(1)?),
                name: row.required(2)?,
                pages: row.required(3)?,
            })
        },
    )
}

impl<'a> Kept<'a> {
    fn of(set: &'a OwnedSet) -> Result<Kept<'a>, Failure> {
        Ok(Kept {
            image: set.image()?,
            descriptor: quote_identifier(&set.descriptor),
            sketch: set.sketch.as_ref().map(quote_identifier),
            model: &set.model,
            key: &set.key,
        })
    }
}

fn count_waiting(set: &OwnedSet) -> Result<i64, Failure> {
    let (table, missing) = (set.table()?, Kept::of(set)?.missing());
    count_by_owner(
        set.owner,
        &format!("SELECT pg_catalog.count(*) FROM {table} AS r WHERE {missing}"),
        &[],
    )
}

#[pg_extern(sql = false)]
fn fill_batch(set: Option<&str>, place: Option<&str>, pages: Option<i32>) -> Option<String> {
    boundary(|| {
        let started = Instant::now();
        let pages = pages.filter(|&pages| pages >= 1).ok_or_else(|| {
            invalid(format!(
                "batch_pages is {}",
                pages.map_or("NULL".to_owned(), |pages| pages.to_string())
            ))
            .hint("At least 1.")
        })?;
        let mut set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let Some(place) = place else {
            set.image()?;
            begin_sketches(&mut set)?;
            let place = Place {
                part: 0,
                page: 0,
                line: 0,
                end: 0,
                waiting: count_waiting(&set)?,
                done: 0,
                skipped: 0,
            };
            // To be committed: whoever waits for the new column's lock waits no longer.
            return Ok(Some(place.text()));
        };
        let mut place = Place::parse(place)?;
        let kept = Kept::of(&set)?;
        if place.waiting == 0 {
            return Ok(None);
        }
        if citus::spreads(set.relation)? {
            place.record(&set)?;
            let more = spread_batch(&set, &kept, &mut place, started)?;
            place.record(&set)?;
            return Ok(more.then(|| place.text()));
        }
        let leaves = leaves(&set)?;
        if place.page >= place.end || !leaves.iter().any(|leaf| leaf.oid == place.part) {
            let Some(leaf) = leaves.iter().find(|leaf| leaf.oid > place.part && leaf.pages > 0) else {
                return Ok(None);
            };
            (place.part, place.page, place.line, place.end) = (leaf.oid, 0, 0, leaf.pages);
        }
        let Some(Leaf { name: part, .. }) = leaves.iter().find(|leaf| leaf.oid == place.part) else {
            return Ok(None);
        };
        // First of all: its lock shows who is at work.
        place.record(&set)?;
        let pages_of_rows = format!(
            "SELECT r.ctid::pg_catalog.text FROM ONLY {part} AS r \
             WHERE r.ctid OPERATOR(pg_catalog.>) $1::pg_catalog.tid \
             AND r.ctid OPERATOR(pg_catalog.<) $2::pg_catalog.tid AND {} LIMIT $3",
            kept.missing()
        );
        let (reading, writing) = (kept.reading(part), kept.writing(part));
        let model = Model::find(Some(kept.model))?;
        let in_time = || started.elapsed() < LONGEST_BATCH;
        // Pages without work are passed over at once.
        while place.page < place.end && in_time() {
            let until = (place.page + i64::from(pages)).min(place.end);
            let rows = by_owner(
                set.owner,
                &pages_of_rows,
                &[
                    Parameter::of(Place::tid(place.page, place.line)),
                    Parameter::of(Place::tid(until, 0)),
                    Parameter::of(MOST_ROWS),
                ],
                |row| row.required::<String>(1),
            )?;
            let last = rows.len().saturating_sub(1);
            let mut describing = Describing::new(&model, place.waiting)?;
            for (number, row) in rows.iter().enumerate() {
                describing.add(&set, &reading, row)?;
                (place.page, place.line) = page_and_line(row)?;
                if number < last && !in_time() {
                    break;
                }
            }
            place.skipped += describing.refused;
            for described in describing.finish()? {
                place.done += described.write(&set, &writing)?;
            }
            let complete = (rows.len() as i64) < MOST_ROWS && in_time();
            if complete || rows.is_empty() {
                (place.page, place.line) = (until, 0);
            }
            if !rows.is_empty() {
                break;
            }
        }
        place.record(&set)?;
        Ok(Some(place.text()))
    })
}

/// Rows of a table of Citus that a batch reads, images and all.
const SPREAD_ROWS: i64 = 16;

/// A batch of a table of Citus, which has no places and takes no UPDATE that calls a volatile function: rows are found
/// by their keys, embedded here, and written one by one. Whether there may be more.
fn spread_batch(set: &OwnedSet, kept: &Kept, place: &mut Place, started: Instant) -> Result<bool, Failure> {
    let table = set.table()?;
    let keys = key_columns(set)?;
    let Kept {
        image,
        descriptor,
        sketch,
        ..
    } = kept;
    let has = |column: &String| format!("r.{column} IS NOT NULL");
    let texts: Vec<String> = keys
        .iter()
        .map(|(key, _)| format!("r.{key}::pg_catalog.text"))
        .collect();
    let order: Vec<String> = keys.iter().map(|(key, _)| format!("r.{key}")).collect();
    // Those of which nothing can be made stay at the front.
    let rows = format!(
        "SELECT ARRAY[{}], r.{image}, {}, {} FROM {table} AS r WHERE {} ORDER BY {} LIMIT {SPREAD_ROWS} OFFSET {}",
        texts.join(", "),
        has(descriptor),
        sketch.as_ref().map_or("true".to_owned(), has),
        kept.missing(),
        order.join(", "),
        place.skipped
    );
    let found = by_owner(set.owner, &rows, &[], |row| {
        Ok((
            row.required::<Vec<String>>(1)?,
            row.required::<Vec<u8>>(2)?,
            row.required::<bool>(3)?,
            row.required::<bool>(4)?,
        ))
    })?;
    let made = "SELECT d.descriptor, d.sketch FROM copymatch.describe_reference($1, $2, $3, $4, $5, $6) AS d";
    let of_key: Vec<String> = keys
        .iter()
        .zip(1..)
        .map(|((key, kind), number)| format!("r.{key} OPERATOR(pg_catalog.=) ${number}::{kind}"))
        .collect();
    let last = (found.len() as i64) < SPREAD_ROWS;
    for (number, (key, image, has_descriptor, has_sketch)) in found.iter().enumerate() {
        let parameters = [
            Parameter::of(image.as_slice()),
            Parameter::of(kept.model),
            Parameter::of(key.join(", ")),
            Parameter::of(place.waiting),
            Parameter::of(!has_descriptor),
            Parameter::of(!has_sketch),
        ];
        let described = change(made, &parameters, |row| {
            // Copied: the row's memory is SPI's.
            let vector = row.get::<Vector>(1)?.map(|vector| vector.elements().to_vec());
            Ok((vector, row.get::<Vec<u8>>(2)?))
        })?;
        let Some((vector, features)) = described.into_iter().next() else {
            continue;
        };
        let mut parameters: Vec<Parameter> = key.iter().map(|text| Parameter::of(text.as_str())).collect();
        let mut sets = Vec::new();
        if let Some(vector) = vector.filter(|_| !has_descriptor) {
            let vector = Vector::from_elements(&vector);
            parameters.push(Parameter::typed(vector, OwnSchema::of_type()?.vector));
            sets.push(format!("{descriptor} = ${}", parameters.len()));
        }
        if let (Some(features), Some(sketch)) = (features.filter(|_| !has_sketch), sketch) {
            parameters.push(Parameter::of(features));
            sets.push(format!("{sketch} = ${}", parameters.len()));
        }
        if sets.is_empty() {
            place.skipped += 1;
        } else {
            let write = format!(
                "UPDATE {table} AS r SET {} WHERE {}",
                sets.join(", "),
                of_key.join(" AND ")
            );
            by_owner(set.owner, &write, &parameters, |_| Ok(()))?;
            place.done += 1;
        }
        if number + 1 < found.len() && started.elapsed() >= LONGEST_BATCH {
            return Ok(true);
        }
    }
    Ok(!last)
}

/// The key's columns, quoted, and their types.
fn key_columns(set: &OwnedSet) -> Result<Vec<(String, String)>, Failure> {
    change(
        "SELECT pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod) \
         FROM copymatch.reference_set s CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[s.key_column] \
         || s.further_key_columns) WITH ORDINALITY AS u(col, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = s.relation AND a.attname = u.col AND NOT a.attisdropped \
         WHERE s.id = $1 ORDER BY u.place",
        &[Parameter::of(set.id)],
        |row| Ok((row.required::<String>(1)?, row.required::<String>(2)?)),
    )
}

fn page_and_line(place: &str) -> Result<(i64, i64), Failure> {
    place
        .trim_matches(['(', ')'])
        .split_once(',')
        .and_then(|(page, line)| Some((page.parse().ok()?, line.parse().ok()?)))
        .ok_or_else(|| invalid(format!("\"{place}\" is no place of a row")))
}

/// A procedure: it commits each batch.
#[pg_extern(sql = false)]
fn copy_fill_set(set: Option<&str>, batch_pages: Option<i32>, fcinfo: pg_sys::FunctionCallInfo) {
    boundary(|| {
        let _session = Committing::begin(fcinfo, "copy_fill_set")?;
        let _at_work = AtWork::on("copymatch.filling")?;
        let mut place = None;
        loop {
            let next = change(
                "SELECT copymatch.fill_batch($1, $2, $3)",
                &[
                    Parameter::of(set),
                    Parameter::of(place.as_deref()),
                    Parameter::of(batch_pages),
                ],
                |row| row.get::<String>(1),
            )?;
            let Some(next) = next.into_iter().flatten().next() else {
                break;
            };
            Committing::commit();
            place = Some(next);
        }
        finish(set, place.as_deref())
    });
}

/// Says what was done, and what is still to do.
fn finish(set: Option<&str>, place: Option<&str>) -> Result<(), Failure> {
    let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
    as_extension_owner(|| {
        change(
            "DELETE FROM copymatch.filling f WHERE f.reference_set = $1",
            &[Parameter::of(set.name.as_str())],
            |_| Ok(()),
        )
    })?;
    let (done, skipped) = match place {
        Some(text) => Place::parse(text).map(|place| (place.done, place.skipped))?,
        None => (0, 0),
    };
    let missing = count_waiting(&set)?;
    let mut summary = format!(
        "reference set \"{}\": {done} images embedded, {skipped} skipped, {missing} without a descriptor or sketch",
        set.name
    );
    let mut hints = Vec::new();
    if missing > skipped {
        hints.push("Rows that others wrote meanwhile are among them: CALL it again.".to_owned());
    } else if missing > 0 {
        hints.push("The warnings above say why; copy_image_info(image) says it for one image.".to_owned());
    }
    let indexes = missing_indexes(&set)?;
    if !indexes.is_empty() {
        summary.push_str("; the column has no index yet");
        let mut statements = indexes[..indexes.len().min(MOST_STATEMENTS)].join(";\n");
        if indexes.len() > MOST_STATEMENTS {
            statements.push_str(&format!(";\nand so on for {} tables", indexes.len()));
        }
        hints.push(format!("For quick searches run:\n{statements}"));
    }
    Failure::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, summary)
        .hint(hints.join(" "))
        .notice();
    Ok(())
}

/// The statements that build the indexes which the descriptor column lacks.
fn missing_indexes(set: &OwnedSet) -> Result<Vec<String>, Failure> {
    change(
        "SELECT pg_catalog.format('CREATE INDEX CONCURRENTLY ON %I.%I USING ivf (%I %s)', n.nspname, c.relname, $2, \
                                   copymatch.cosine_class($1, $2)) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' \
         AND (c.oid = $1 OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p \
         WHERE p.isleaf)) \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i \
                           JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
                           JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'ivf' \
                           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                           WHERE i.indrelid = c.oid AND i.indisvalid AND a.attname = $2) \
         ORDER BY c.oid",
        &[Parameter::of(set.relation), Parameter::of(set.descriptor.as_str())],
        |row| row.required::<String>(1),
    )
}

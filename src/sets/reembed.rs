//! Another model for a set, while it is searched: a second descriptor column, filled in
//! committed batches, then a switch.

use std::time::Instant;

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::arguments::{invalid, null};
use super::columns;
use super::create::own_calibration;
use super::described::Describing;
use super::fill::LONGEST_BATCH;
use super::owned::{OwnedSet, by_owner, caller, count_by_owner, do_by_owner};
use crate::committing::{AtWork, Committing};
use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::matching::gate;
use crate::own_schema::OwnSchema;
use crate::rights::as_extension_owner;
use crate::sharding::citus;
use crate::statements::{Parameter, Row, change};

/// The record of a re-embedding.
struct Job {
    state: String,
    model: String,
    calibration: i64,
    column: String,
    old_model: String,
    old_calibration: i64,
    old_column: String,
    total: Option<i64>,
    done: i64,
    pass: i32,
    done_in_pass: i64,
    part: Option<pg_sys::Oid>,
    position: String,
}

fn not_in_state(message: String) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

impl Job {
    /// The set's re-embedding, its record locked: two callers take turns.
    fn find(set: &OwnedSet) -> Result<Option<Job>, Failure> {
        let found = as_extension_owner(|| {
            change(
                "SELECT r.state, r.model, r.calibration, r.descriptor_column::pg_catalog.text, r.old_model, \
                 r.old_calibration, \
                        r.old_descriptor_column::pg_catalog.text, r.total, r.done, r.pass, r.done_in_pass, \
                        r.part::pg_catalog.oid, \
                        coalesce(r.position::pg_catalog.text, '(0,0)') \
                 FROM copymatch.reembedding r WHERE r.reference_set = $1 FOR UPDATE",
                &[Parameter::of(set.name.as_str())],
                |row: &Row| {
                    Ok(Job {
                        state: row.required(1)?,
                        model: row.required(2)?,
                        calibration: row.required(3)?,
                        column: row.required(4)?,
                        old_model: row.required(5)?,
                        old_calibration: row.required(6)?,
                        old_column: row.required(7)?,
                        total: row.get(8)?,
                        done: row.required(9)?,
                        pass: row.required(10)?,
                        done_in_pass: row.required(11)?,
                        part: row.get(12)?,
                        position: row.required(13)?,
                    })
                },
            )
        })?;
        Ok(found.into_iter().next())
    }

    fn of(set: &OwnedSet) -> Result<Job, Failure> {
        Job::find(set)?.ok_or_else(|| {
            not_in_state(format!("reference set \"{}\" is not being re-embedded", set.name))
                .hint("CALL copy_reembed(set, model) begins it.")
        })
    }

    fn save(&self, set: &OwnedSet) -> Result<(), Failure> {
        as_extension_owner(|| {
            change(
                "UPDATE copymatch.reembedding r SET state = $2, total = $3, done = $4, pass = $5, done_in_pass = $6, \
                     part = $7::pg_catalog.regclass, position = $8::pg_catalog.tid, \
                     updated = pg_catalog.clock_timestamp(), \
                     pid = pg_catalog.pg_backend_pid() \
                 WHERE r.reference_set = $1",
                &[
                    Parameter::of(set.name.as_str()),
                    Parameter::of(self.state.as_str()),
                    Parameter::of(self.total),
                    Parameter::of(self.done),
                    Parameter::of(self.pass),
                    Parameter::of(self.done_in_pass),
                    Parameter::of(self.part),
                    Parameter::of(self.position.as_str()),
                ],
                |_| Ok(()),
            )
        })?;
        Ok(())
    }
}

/// A procedure: it commits each batch.
#[pg_extern(sql = false)]
fn copy_reembed(
    set: Option<&str>,
    model: Option<&str>,
    batch: Option<i32>,
    calibration: Option<i64>,
    build_index: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    boundary(|| {
        let _session = Committing::begin(fcinfo, "copy_reembed")?;
        let _at_work = AtWork::on("copymatch.reembedding")?;
        change(
            "SELECT FROM copymatch.start_reembed($1, $2, $3, $4)",
            &[
                Parameter::of(set),
                Parameter::of(model),
                Parameter::of(batch),
                Parameter::of(calibration),
            ],
            |_| Ok(()),
        )?;
        Committing::commit();
        let next = "SELECT copymatch.reembed_batch($1, $2)";
        while change(next, &[Parameter::of(set), Parameter::of(batch)], |row| {
            row.required::<bool>(1)
        })? == [true]
        {
            Committing::commit();
        }
        Committing::commit();
        let set = set.unwrap_or_default();
        let statements = change(
            "SELECT u.statement FROM pg_catalog.unnest(copymatch.missing_indexes($1)) AS u(statement)",
            &[Parameter::of(set)],
            |row| row.required::<String>(1),
        )?;
        if !statements.is_empty() && build_index != Some(true) {
            Failure::new(
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("all images of reference set \"{set}\" are embedded; the new column needs its index"),
            )
            .hint(format!(
                "A procedure cannot build it without blocking writers. Run:\n{};\nCALL copy_reembed({});",
                statements.join(";\n"),
                quote_literal(set)
            ))
            .notice();
            return Ok(());
        }
        for statement in statements {
            let blocking = statement.replacen("CREATE INDEX CONCURRENTLY ON ", "CREATE INDEX ON ", 1);
            change(&blocking, &[], |_| Ok(()))?;
            Committing::commit();
        }
        change(
            "SELECT FROM copymatch.switch_reembed($1)",
            &[Parameter::of(set)],
            |_| Ok(()),
        )?;
        Committing::commit();
        let model = OwnedSet::of(Some(set), pg_sys::AccessShareLock)?.model;
        Failure::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("reference set \"{set}\" uses model \"{model}\" now"),
        )
        .hint(format!(
            "copy_finish_reembed({0}) drops the old column; until then copy_revert_reembed({0}) switches back. \
             Thresholds are those of the new model's calibration until copy_calibrate({0}) makes the set's own.",
            quote_literal(set)
        ))
        .notice();
        Ok(())
    });
}

#[pg_extern(sql = false)]
fn start_reembed(set: Option<&str>, model: Option<&str>, batch: Option<i32>, calibration: Option<i64>) {
    boundary(|| {
        if batch.is_none_or(|batch| batch < 1) {
            return Err(invalid(format!(
                "batch is {}",
                batch.map_or("NULL".to_owned(), |batch| batch.to_string())
            ))
            .hint("Images to embed between two commits: at least 1."));
        }
        // SAFETY: reads a variable of this backend.
        if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32 {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
                "copy_reembed runs at READ COMMITTED only",
            )
            .hint("SET default_transaction_isolation = 'read committed'."));
        }
        let set = OwnedSet::of(set, pg_sys::ShareUpdateExclusiveLock)?;
        if let Some(table) = &set.table {
            citus::refuse(
                set.relation,
                table,
                "copy_reembed keeps two columns by triggers, which it does not take",
                "Make a second set over the table with another descriptor column and the new model, CALL \
                 copy_fill_set, then drop the first.",
            )?;
        }
        match Job::find(&set)? {
            None => begin(&OwnSchema::installed()?, &set, model, calibration)?,
            Some(job) if model.is_some_and(|model| model != job.model) => {
                return Err(not_in_state(format!(
                    "reference set \"{}\" is being re-embedded with model \"{}\"",
                    set.name, job.model
                ))
                .hint("Finish that, or give it up with copy_revert_reembed."));
            }
            Some(job) if job.state == "switched" => {
                return Err(not_in_state(format!(
                    "reference set \"{}\" uses the descriptors of model \"{}\" already",
                    set.name, job.model
                ))
                .hint("copy_finish_reembed drops the old column, copy_revert_reembed switches back."));
            }
            Some(_) => {}
        }
        as_extension_owner(|| {
            change(
                "UPDATE copymatch.reembedding r SET resumed = pg_catalog.clock_timestamp(), \
                 updated = pg_catalog.clock_timestamp(), \
                     done_before = r.done WHERE r.reference_set = $1 AND r.state = 'filling'",
                &[Parameter::of(set.name.as_str())],
                |_| Ok(()),
            )
        })?;
        Ok(())
    })
}

/// Adds the new descriptor column and records the re-embedding.
fn begin(own_schema: &OwnSchema, set: &OwnedSet, model: Option<&str>, calibration: Option<i64>) -> Result<(), Failure> {
    let table = set.table()?;
    if set.image.is_none() || !set.is_table() {
        return Err(
            not_in_state(format!("reference set \"{}\" has no images in a table", set.name))
                .hint("Re-embed the tables behind it, and make the set again over their new columns."),
        );
    }
    let model =
        model.ok_or_else(|| null("the model of copy_reembed").hint("SELECT name FROM copymatch.models lists them."))?;
    let dimensions = change(
        "SELECT m.dimensions FROM copymatch.model m WHERE m.name = $1",
        &[Parameter::of(model)],
        |row| row.required::<i32>(1),
    )?;
    let Some(&dimensions) = dimensions.first() else {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("model \"{model}\" does not exist"),
        )
        .hint("SELECT name FROM copymatch.models lists them."));
    };
    if model == set.model {
        return Err(not_in_state(format!(
            "the descriptors of reference set \"{}\" are from model \"{model}\" already",
            set.name
        )));
    }
    let calibration = match calibration {
        None => own_calibration(model)?,
        Some(id) => {
            let known = change(
                "SELECT EXISTS (SELECT FROM copymatch.calibration c WHERE c.id = $1 AND c.model = $2 \
                                AND (c.reference_set IS NULL OR c.reference_set = $3))",
                &[
                    Parameter::of(id),
                    Parameter::of(model),
                    Parameter::of(set.name.as_str()),
                ],
                |row| row.required::<bool>(1),
            )?;
            if known != [true] {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                    format!("model \"{model}\" has no calibration {id}"),
                ));
            }
            id
        }
    };
    let no_table = change(
        "SELECT p.relid::pg_catalog.text FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p \
         JOIN pg_catalog.pg_class c ON c.oid = p.relid WHERE c.relkind NOT IN ('r', 'p') LIMIT 1",
        &[Parameter::of(set.relation)],
        |row| row.required::<String>(1),
    )?;
    if let Some(other) = no_table.first() {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("partition {other} is no table"),
        ));
    }
    let column = free_column(set, model)?;
    // The table is locked for a moment: whoever writes to it afterwards sees the row below, and keeps both columns.
    let kind = change(
        "SELECT pg_catalog.format_type(a.atttypid, NULL) FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 \
         AND a.attname = $2",
        &[Parameter::of(set.relation), Parameter::of(set.descriptor.as_str())],
        |row| row.required::<String>(1),
    )?
    .pop()
    .unwrap_or(own_schema.column_type(set.owner)?);
    columns::add(set.owner, table, &column, &kind, dimensions, model, true)?;
    columns::make_trigger(own_schema, set.owner, table, set.id)?;
    let by = caller();
    as_extension_owner(|| {
        change(
            "INSERT INTO copymatch.reembedding (reference_set, model, calibration, descriptor_column, old_model, \
             old_calibration, \
                 old_descriptor_column, started_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                Parameter::of(set.name.as_str()),
                Parameter::of(model),
                Parameter::of(calibration),
                Parameter::of(column),
                Parameter::of(set.model.as_str()),
                Parameter::of(set.calibration),
                Parameter::of(set.descriptor.as_str()),
                Parameter::of(by),
            ],
            |_| Ok(()),
        )
    })?;
    Ok(())
}

/// A name for the new column: that of the model, with a number where the table has such a column.
fn free_column(set: &OwnedSet, model: &str) -> Result<String, Failure> {
    let base: String = format!("descriptor_{}", model.replace(['.', '-'], "_"))
        .chars()
        .take(60)
        .collect();
    let taken = change(
        "SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND NOT a.attisdropped",
        &[Parameter::of(set.relation)],
        |row| row.required::<String>(1),
    )?;
    Ok((1..)
        .map(|tried| {
            if tried == 1 {
                base.clone()
            } else {
                format!("{base}{tried}")
            }
        })
        .find(|name| !taken.contains(name))
        .unwrap_or(base.clone()))
}

/// Embeds the next batch, for two seconds at most; false when none is left.
#[pg_extern(sql = false)]
fn reembed_batch(set: Option<&str>, batch: Option<i32>) -> bool {
    boundary(|| {
        let started = Instant::now();
        let batch = batch
            .filter(|&batch| batch >= 1)
            .ok_or_else(|| invalid("batch is less than 1").hint("Images to embed between two commits: at least 1."))?;
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let (table, image) = (set.table()?, set.image()?);
        let mut job = Job::of(&set)?;
        if job.state != "filling" {
            return Ok(false);
        }
        if job.total.is_none() {
            let count = format!("SELECT pg_catalog.count(*) FROM {table} AS r WHERE r.{image} IS NOT NULL");
            job.total = Some(count_by_owner(set.owner, &count, &[])?);
        }
        // First of all: its lock shows in copymatch.progress who is at work.
        job.save(&set)?;
        // A table that is no partition tree is its own only leaf.
        let leaves = change(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' \
             AND (c.oid = $1 OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p \
             WHERE p.isleaf)) \
             ORDER BY c.oid",
            &[Parameter::of(set.relation)],
            |row| Ok((row.required::<pg_sys::Oid>(1)?, row.required::<String>(2)?)),
        )?;
        let leaf = |oid: Option<pg_sys::Oid>| leaves.iter().find(|(leaf, _)| Some(*leaf) == oid);
        if leaf(job.part).is_none() {
            job.part = leaves.first().map(|(leaf, _)| *leaf);
            job.position = "(0,0)".to_owned();
        }
        let (new, old) = (quote_identifier(&job.column), quote_identifier(&job.old_column));
        let mut rows = Vec::new();
        while let Some((oid, part)) = leaf(job.part) {
            // In the order of the table. Whoever could not be embedded in the first pass is not tried again; whoever
            // has the old descriptor is.
            let again = if job.pass > 1 {
                format!(" AND r.{old} IS NOT NULL")
            } else {
                String::new()
            };
            rows = by_owner(
                set.owner,
                &format!(
                    "SELECT r.ctid::pg_catalog.text FROM ONLY {part} AS r \
                     WHERE r.ctid OPERATOR(pg_catalog.>) $1::pg_catalog.tid \
                     AND r.{new} IS NULL AND r.{image} IS NOT NULL{again} LIMIT $2"
                ),
                &[Parameter::of(job.position.as_str()), Parameter::of(i64::from(batch))],
                |row| row.required::<String>(1),
            )?;
            if !rows.is_empty() {
                break;
            }
            job.position = "(0,0)".to_owned();
            if let Some((next, _)) = leaves.iter().find(|(leaf, _)| u32::from(*leaf) > u32::from(*oid)) {
                job.part = Some(*next);
                continue;
            }
            // Rows that others wrote anew meanwhile may lie behind: only a pass that finds nothing to do is the last.
            if job.done_in_pass == 0 {
                job.state = "indexing".to_owned();
                job.part = None;
                break;
            }
            job.pass += 1;
            job.done_in_pass = 0;
            job.part = leaves.first().map(|(leaf, _)| *leaf);
        }
        if let (Some((_, part)), false) = (leaf(job.part), rows.is_empty()) {
            // A sketch that is missing is made with the descriptor, of the same picture.
            let (lacking, sketched) = set
                .sketch
                .as_ref()
                .map_or(("false".to_owned(), String::new()), |sketch| {
                    let sketch = quote_identifier(sketch);
                    (
                        format!("r.{sketch} IS NULL"),
                        format!(", {sketch} = coalesce(r.{sketch}, $3)"),
                    )
                });
            // A row whose image cannot be embedded is not written: it would come again behind the place
            // that the pass has reached.
            let here = format!("r.ctid OPERATOR(pg_catalog.=) $1::pg_catalog.tid AND r.{new} IS NULL");
            let reading = format!(
                "SELECT r.{image}::pg_catalog.bytea, {}, true, {lacking} FROM ONLY {part} AS r WHERE {here} \
                 AND r.{image} IS NOT NULL",
                set.key
            );
            let writing = format!("UPDATE ONLY {part} AS r SET {new} = $2{sketched} WHERE {here} RETURNING 1");
            rows.sort_by_key(|place| tid(place));
            let model = Model::find(Some(&job.model))?;
            let mut describing = Describing::new(&model, job.total.unwrap_or(0))?;
            for row in rows {
                describing.add(&set, &reading, &row)?;
                job.position = row;
                if started.elapsed() >= LONGEST_BATCH {
                    break;
                }
            }
            for described in describing.finish()? {
                let filled = described.write(&set, &writing)?;
                job.done += filled;
                job.done_in_pass += filled;
            }
        } else {
            job.state = "indexing".to_owned();
        }
        job.save(&set)?;
        Ok(job.state == "filling")
    })
}

/// Block and line of a row's place.
fn tid(place: &str) -> (u32, u32) {
    let mut numbers = place
        .trim_matches(['(', ')'])
        .split(',')
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Locks the table against writers and embeds what has one of two descriptors only; says how many
/// images the model refuses.
fn fill_locked(set: &OwnedSet, target: &str, other: &str, model: &str) -> Result<i64, Failure> {
    let (table, image) = (set.table()?, set.image()?);
    let (target, other) = (quote_identifier(target), quote_identifier(other));
    // Readers go on, writers wait: after this nobody writes a row that has but one of the two descriptors.
    gate::locked_in(set.relation, pg_sys::ShareRowExclusiveLock);
    do_by_owner(set.owner, &format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))?;
    count_by_owner(
        set.owner,
        &format!(
            "WITH embedded AS MATERIALIZED (SELECT r.tableoid, r.ctid, copymatch.embed_reference(r.{image}, {}, {}, \
             0::pg_catalog.int8) AS descriptor \
                 FROM {table} AS r WHERE r.{target} IS NULL AND r.{other} IS NOT NULL AND r.{image} IS NOT NULL), \
             written AS (UPDATE {table} AS r SET {target} = e.descriptor FROM embedded e \
                 WHERE r.tableoid OPERATOR(pg_catalog.=) e.tableoid AND r.ctid OPERATOR(pg_catalog.=) e.ctid \
                 AND e.descriptor IS NOT NULL RETURNING 1) \
             SELECT (SELECT pg_catalog.count(*) FROM embedded) OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) \
             FROM written)",
            quote_literal(model),
            set.key
        ),
        &[],
    )
}

/// Lets a set be searched by another column, model and calibration: all three from one commit on.
fn switch_to(set: &OwnedSet, model: &str, calibration: i64, column: &str, state: &str) -> Result<(), Failure> {
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.reference_set s SET model = $2, calibration = $3, descriptor_column = $4 WHERE s.id = $1",
            &[
                Parameter::of(set.id),
                Parameter::of(model),
                Parameter::of(calibration),
                Parameter::of(column),
            ],
            |_| Ok(()),
        )?;
        change(
            "UPDATE copymatch.reembedding r SET state = $2, pid = pg_catalog.pg_backend_pid() \
             WHERE r.reference_set = $1",
            &[Parameter::of(set.name.as_str()), Parameter::of(state)],
            |_| Ok(()),
        )
    })?;
    Ok(())
}

#[pg_extern(sql = false)]
fn switch_reembed(set: Option<&str>) {
    boundary(|| {
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let job = Job::of(&set)?;
        if job.state != "indexing" && job.state != "reverted" {
            return Err(not_in_state(format!(
                "the re-embedding of reference set \"{}\" is in state {}",
                set.name, job.state
            ))
            .hint("CALL copy_reembed goes on with it."));
        }
        let missing = fill_locked(&set, &job.column, &job.old_column, &job.model)?;
        if missing > 0 {
            Failure::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!(
                    "{missing} references of set \"{}\" have no descriptor by model \"{}\"",
                    set.name, job.model
                ),
            )
            .hint("The warnings above name them.")
            .warn();
        }
        switch_to(&set, &job.model, job.calibration, &job.column, "switched")
    })
}

#[pg_extern(sql = false)]
fn copy_revert_reembed(set: Option<&str>) -> &'static str {
    boundary(|| {
        let set = OwnedSet::of(set, pg_sys::ShareUpdateExclusiveLock)?;
        let job = Job::of(&set)?;
        if job.state == "switched" {
            fill_locked(&set, &job.old_column, &job.column, &job.old_model)?;
            switch_to(&set, &job.old_model, job.old_calibration, &job.old_column, "reverted")?;
            return Ok("reverted");
        }
        let table = set.table()?;
        forget(&set)?;
        do_by_owner(
            set.owner,
            &format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(&job.column)),
        )?;
        Ok("dropped")
    })
}

fn forget(set: &OwnedSet) -> Result<(), Failure> {
    as_extension_owner(|| {
        change(
            "DELETE FROM copymatch.reembedding r WHERE r.reference_set = $1",
            &[Parameter::of(set.name.as_str())],
            |_| Ok(()),
        )
    })?;
    Ok(())
}

#[pg_extern(sql = false)]
fn copy_finish_reembed(set: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) {
    boundary(|| {
        let set = OwnedSet::of(set, pg_sys::ShareUpdateExclusiveLock)?;
        let job = Job::of(&set)?;
        if job.state != "switched" {
            return Err(not_in_state(format!(
                "reference set \"{}\" does not use the new descriptors yet",
                set.name
            ))
            .hint("CALL copy_reembed goes on, copy_revert_reembed gives it up."));
        }
        let table = set.table()?;
        forget(&set)?;
        let used = change(
            "SELECT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.relation = $1::pg_catalog.regclass \
             AND s.descriptor_column = $2) \
                 OR EXISTS (SELECT FROM copymatch.reembedding r JOIN copymatch.reference_set s \
                 ON s.name = r.reference_set \
                            WHERE s.relation = $1::pg_catalog.regclass \
                            AND $2 IN (r.descriptor_column, r.old_descriptor_column))",
            &[Parameter::of(set.relation), Parameter::of(job.old_column.as_str())],
            |row| row.required::<bool>(1),
        )?;
        if used == [true] {
            columns::serve(&OwnSchema::of(fcinfo)?, set.owner, set.relation, table)?;
            Failure::new(
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("column \"{}\" stays: other reference sets use it", job.old_column),
            )
            .notice();
            return Ok(());
        }
        do_by_owner(
            set.owner,
            &format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(&job.old_column)),
        )?;
        take_name(&set, table, &job)
    })
}

/// The new column is called as the old one was: queries that name it go on. Searches that waited for this
/// find the set's record anew.
fn take_name(set: &OwnedSet, table: &str, job: &Job) -> Result<(), Failure> {
    do_by_owner(
        set.owner,
        &format!(
            "ALTER TABLE {table} RENAME COLUMN {} TO {}",
            quote_identifier(&job.column),
            quote_identifier(&job.old_column)
        ),
    )?;
    let renamed = [
        Parameter::of(set.relation),
        Parameter::of(job.column.as_str()),
        Parameter::of(job.old_column.as_str()),
    ];
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.reference_set s SET descriptor_column = $3 \
             WHERE s.relation = $1::pg_catalog.regclass AND s.descriptor_column = $2",
            &renamed,
            |_| Ok(()),
        )?;
        change(
            "UPDATE copymatch.reembedding r SET \
                 descriptor_column = CASE WHEN r.descriptor_column = $2 THEN $3 ELSE r.descriptor_column END, \
                 old_descriptor_column = CASE WHEN r.old_descriptor_column = $2 THEN $3 \
                 ELSE r.old_descriptor_column END \
             FROM copymatch.reference_set s \
             WHERE s.name = r.reference_set AND s.relation = $1::pg_catalog.regclass \
             AND $2 IN (r.descriptor_column, r.old_descriptor_column)",
            &renamed,
            |_| Ok(()),
        )
    })?;
    Failure::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!(
            "column \"{}\" of {table} is called \"{}\" now, as the one before",
            job.column, job.old_column
        ),
    )
    .notice();
    Ok(())
}

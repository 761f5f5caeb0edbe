//! The queue of uploads: how entries come in, and how they are worked off.
//!
//! An entry names a trigger and a key, and is no authority beyond that: what is read, what it is matched
//! with and with whose rights says the trigger, as it stands when the entry's turn comes. The tables are
//! written as the extension's owner.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use flagging::OnBadImage;
use pgrx::prelude::*;

use super::flag::{Named, matches, record, references};
use super::guarded::{Trouble, guarded, subtransaction};
use super::key::upload_text;
use super::upload::Uploads;
use crate::committing::Committing;
use crate::embed::catalogue::Model;
use crate::embed::embed_each;
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::rights::{as_extension_owner, as_role};
use crate::settings;
use crate::statements::{Parameter, change, select};
use crate::types::Vector;

/// Bytes of images that are held before they are embedded.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What a claim adds to an entry's tries. One that fails in order takes one back: a try that ended
/// the server counts double.
const CLAIM: i32 = 2;

/// An entry that is being worked on.
struct Entry {
    id: i64,
    /// The table that findings name.
    relation: pg_sys::Oid,
    /// The table that the trigger stands on; None where it is gone.
    uploads: Option<pg_sys::Oid>,
    trigger: Option<String>,
    key: Vec<String>,
    arguments: Vec<String>,
}

impl Entry {
    fn upload(&self) -> String {
        upload_text(&self.key)
    }

    fn source(&self) -> (Option<pg_sys::Oid>, Option<String>, Vec<String>) {
        (self.uploads, self.trigger.clone(), self.arguments.clone())
    }
}

/// An entry whose image was read.
struct Ready {
    entry: Entry,
    uploads: Rc<Uploads>,
    image: Vec<u8>,
    uploader: Option<String>,
}

/// How a batch ended.
pub struct Worked {
    /// Whether the process ran out of memory: what is claimed is given back, and a fresh process does better.
    pub out_of_memory: bool,
}

/// What the trigger enqueues for one upload. Called as the extension's owner.
pub fn enqueue(
    relation: pg_sys::Oid,
    key: Vec<String>,
    uploads: pg_sys::Oid,
    trigger: &str,
    set: &str,
    arguments: Vec<String>,
) -> Result<(), Failure> {
    change(
        "INSERT INTO copymatch.queue (relation, key, reference_set, arguments, trigger_relation, trigger_name) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            Parameter::of(relation),
            Parameter::of(key),
            Parameter::of(set),
            Parameter::of(arguments),
            Parameter::of(uploads),
            Parameter::of(trigger),
        ],
        |_| Ok(()),
    )?;
    Ok(())
}

/// Marks the next entries that are due as begun and gives their ids. To be committed before they are worked on, so that
/// one that ends the server is given up in the end.
pub fn claim(batch: i32) -> Result<Vec<i64>, Failure> {
    as_extension_owner(|| {
        loop {
            let first = change(
                "SELECT q.id, q.attempts FROM copymatch.queue q WHERE q.state = 'waiting' \
                 AND q.next_try <= pg_catalog.now() \
                 ORDER BY q.next_try, q.id LIMIT 1 FOR UPDATE SKIP LOCKED",
                &[],
                |row| Ok((row.required::<i64>(1)?, row.required::<i32>(2)?)),
            )?;
            let Some((id, tried)) = first.into_iter().next() else {
                return Ok(Vec::new());
            };
            if tried >= settings::queue_attempts() {
                // Begun as often as it may be, and no answer: the server ended each time.
                change(
                    "UPDATE copymatch.queue SET state = 'failed', \
                     last_error = coalesce(last_error, 'the server ended each time that this was worked on') \
                     WHERE id = $1",
                    &[Parameter::of(id)],
                    |_| Ok(()),
                )?;
                continue;
            }
            // What was tried before is tried alone: it cannot take others with it again.
            let limit = if tried > 0 { 1 } else { batch };
            let lease = i64::from(batch) * 200 + i64::from(settings::queue_time_limit());
            return change(
                "WITH chosen AS ( \
                     SELECT q.id FROM copymatch.queue q WHERE q.state = 'waiting' AND q.next_try <= pg_catalog.now() \
                     AND ($1 > 0 OR q.attempts = 0) ORDER BY q.next_try, q.id LIMIT $2 FOR UPDATE SKIP LOCKED) \
                 UPDATE copymatch.queue q SET attempts = q.attempts + $3, \
                     next_try = pg_catalog.clock_timestamp() + greatest($4, $5) * interval '1 millisecond' \
                 FROM chosen c WHERE q.id = c.id RETURNING q.id",
                &[
                    Parameter::of(tried),
                    Parameter::of(i64::from(limit)),
                    Parameter::of(CLAIM),
                    Parameter::of(delay(tried + 1)),
                    Parameter::of(lease),
                ],
                |row| row.required::<i64>(1),
            )
            .map(|mut ids| {
                ids.sort_unstable();
                ids
            });
        }
    })
}

/// Milliseconds to wait after so many tries.
fn delay(tries: i32) -> i64 {
    let doubled = i64::from(settings::queue_retry_delay()) << (tries.clamp(1, 20) - 1);
    doubled.min(3_600_000)
}

/// Works claimed entries off: findings and the end of their entries in one transaction. One that
/// fails leaves the others alone.
pub fn process(ids: &[i64]) -> Result<Worked, Failure> {
    let own_schema = OwnSchema::installed()?;
    let mut worked = Worked { out_of_memory: false };
    // A trigger of whose uploads one took too long: the others of this batch wait, so that other tables do not.
    let mut slow = HashSet::new();
    let mut known: HashMap<_, Rc<Uploads>> = HashMap::new();
    let mut batch: Vec<Ready> = Vec::new();
    let mut bytes = 0;
    for entry in lock(ids)? {
        if worked.out_of_memory {
            release(&[entry.id])?;
            continue;
        }
        let Some(relation) = entry.uploads else {
            done(entry.id)?; // with its table the upload is gone
            continue;
        };
        let source = entry.source();
        if slow.contains(&source) {
            put_off(&[entry.id], delay(1))?;
            continue;
        }
        let read = guarded(Some(settings::queue_time_limit()), || {
            let uploads = match known.get(&source) {
                Some(uploads) => Rc::clone(uploads),
                None => Rc::new(Uploads::find(relation, entry.trigger.as_deref(), &entry.arguments)?),
            };
            let read = uploads.read(&entry.key)?;
            Ok((uploads, read))
        });
        let (uploads, read) = match read {
            Ok(read) => read,
            Err(trouble) => {
                failed(&[entry.id], &trouble, false)?;
                if trouble.is_timeout() {
                    stalled(&entry)?;
                    slow.insert(source);
                }
                continue;
            }
        };
        known.insert(source, Rc::clone(&uploads));
        let Some((image, uploader)) = read else {
            done(entry.id)?; // deleted meanwhile, or its image was
            continue;
        };
        // Pictures for one model are embedded together.
        let other = batch
            .first()
            .is_some_and(|first| first.uploads.options.set != uploads.options.set);
        if other || bytes > MOST_BYTES {
            flag_batch(&own_schema, std::mem::take(&mut batch), &mut slow, &mut worked)?;
            bytes = 0;
        }
        bytes += image.len();
        batch.push(Ready {
            entry,
            uploads,
            image,
            uploader,
        });
    }
    flag_batch(&own_schema, batch, &mut slow, &mut worked)?;
    Ok(worked)
}

type Slow = HashSet<(Option<pg_sys::Oid>, Option<String>, Vec<String>)>;

/// Embeds images of one set together; matches and records each.
fn flag_batch(own_schema: &OwnSchema, batch: Vec<Ready>, slow: &mut Slow, worked: &mut Worked) -> Result<(), Failure> {
    let Some(first) = batch.first() else { return Ok(()) };
    let ids = |batch: &[Ready]| batch.iter().map(|ready| ready.entry.id).collect::<Vec<i64>>();
    let limit = settings::queue_time_limit();
    let together = i32::try_from(batch.len()).unwrap_or(i32::MAX);
    let embedded = guarded(Some(limit.saturating_mul(together)), || {
        let model = as_role(first.uploads.owner, || {
            references(&first.uploads.options.set).map(|found| found.model)
        })?;
        let outcomes = embed_each(batch.iter().map(|ready| ready.image.as_slice()), &model)?;
        Ok((model, outcomes))
    });
    let (model, outcomes) = match embedded {
        Ok(embedded) => embedded,
        Err(trouble) if trouble.is_out_of_memory() => {
            worked.out_of_memory = true;
            return put_off(&ids(&batch), delay(1));
        }
        Err(trouble) => return failed(&ids(&batch), &trouble, false),
    };
    for (ready, outcome) in batch.into_iter().zip(outcomes) {
        let id = ready.entry.id;
        if slow.contains(&ready.entry.source()) {
            put_off(&[id], delay(1))?;
            continue;
        }
        let descriptor = match outcome {
            Ok(descriptor) => descriptor,
            Err(failure) => {
                if ready.uploads.options.on_bad_image == OnBadImage::Skip {
                    failure
                        .at(format_args!("upload {} is not matched", ready.entry.upload()))
                        .warn();
                    done(id)?;
                } else {
                    failed(&[id], &about_the_image(failure), true)?;
                }
                continue;
            }
        };
        let flagged = guarded(Some(limit), || flag(own_schema, &ready, descriptor, &model));
        if let Err(trouble) = flagged {
            if trouble.is_out_of_memory() {
                worked.out_of_memory = true;
                put_off(&[id], delay(1))?;
                continue;
            }
            failed(&[id], &trouble, false)?;
            if trouble.is_timeout() {
                stalled(&ready.entry)?;
                slow.insert(ready.entry.source());
            }
        }
    }
    Ok(())
}

/// What was found in place of an image begins with the row's own bytes, which readers of the queue
/// need not be allowed to see.
fn about_the_image(failure: Failure) -> Trouble {
    const UNKNOWN: &str = "image format not recognised";
    if failure.line().starts_with(UNKNOWN) {
        return Failure::new(PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION, UNKNOWN)
            .hint("copy_image_info(image) says for who may read the row what was found.")
            .into();
    }
    failure.into()
}

fn flag(own_schema: &OwnSchema, ready: &Ready, descriptor: Vector, model: &Model) -> Result<(), Failure> {
    let options = &ready.uploads.options;
    let (set_id, found) = as_role(ready.uploads.owner, || {
        // Of this upload's owner: entries of one batch have one set, and may be of several.
        let references = references(&options.set)?;
        references.is_of(&model.name)?;
        let found = matches(
            own_schema,
            descriptor.elements(),
            Some(&ready.image),
            &references,
            options.k,
            options.review,
        )?;
        Ok((references.set.id, found))
    })?;
    as_extension_owner(|| {
        if !found.is_empty() {
            let named = Named {
                relation: ready.entry.relation,
                upload: &ready.entry.upload(),
                uploader: ready.uploader.as_deref(),
                set: &options.set,
                set_id,
            };
            record(&named, &found, options.notify)?;
        }
        forget(ready.entry.id)
    })
}

/// Locks claimed entries and reads them, those of one set together.
fn lock(ids: &[i64]) -> Result<Vec<Entry>, Failure> {
    as_extension_owner(|| {
        // Another session that looks for entries to claim holds a lock for a moment on those that were due when it
        // began: not a reason to put them off. One that works on them, after the time set for that, is.
        for _ in 0..20 {
            let locked = change(
                "SELECT q.id FROM copymatch.queue q WHERE q.id = ANY ($1) AND q.state = 'waiting' \
                 ORDER BY q.id FOR UPDATE SKIP LOCKED",
                &[Parameter::of(ids.to_vec())],
                |row| row.required::<i64>(1),
            )?;
            let there = change(
                "SELECT pg_catalog.count(*) FROM copymatch.queue q WHERE q.id = ANY ($1) AND q.state = 'waiting'",
                &[Parameter::of(ids.to_vec())],
                |row| row.required::<i64>(1),
            )?;
            if there.first().is_none_or(|&there| locked.len() as i64 >= there) {
                break;
            }
            change("SELECT FROM pg_catalog.pg_sleep(0.005)", &[], |_| Ok(()))?;
        }
        change(
            "SELECT q.id, q.relation::pg_catalog.oid, (SELECT c.oid FROM pg_catalog.pg_class c \
             WHERE c.oid = coalesce(q.trigger_relation, q.relation)), \
                    q.trigger_name::pg_catalog.text, q.key, q.arguments \
             FROM copymatch.queue q WHERE q.id = ANY ($1) AND q.state = 'waiting' \
             ORDER BY q.reference_set, q.id FOR UPDATE OF q SKIP LOCKED",
            &[Parameter::of(ids.to_vec())],
            |row| {
                let texts = |texts: Vec<Option<String>>| texts.into_iter().flatten().collect();
                Ok(Entry {
                    id: row.required(1)?,
                    relation: row.required(2)?,
                    uploads: row.get(3)?,
                    trigger: row.get(4)?,
                    key: texts(row.required(5)?),
                    arguments: texts(row.required(6)?),
                })
            },
        )
    })
}

fn done(id: i64) -> Result<(), Failure> {
    as_extension_owner(|| forget(id))
}

fn forget(id: i64) -> Result<(), Failure> {
    change(
        "DELETE FROM copymatch.queue WHERE id = $1",
        &[Parameter::of(id)],
        |_| Ok(()),
    )?;
    Ok(())
}

/// Notes why entries did not succeed; `finally`: another try would not either.
fn failed(ids: &[i64], trouble: &Trouble, finally: bool) -> Result<(), Failure> {
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.queue SET last_error = $2, attempts = attempts - $3, \
                 state = CASE WHEN $4 OR attempts - $3 >= $5 THEN 'failed' ELSE 'waiting' END, \
                 next_try = pg_catalog.clock_timestamp() \
                     + least($6 * pg_catalog.power(2, least(attempts - $3, 20) - 1), \
                     3600000) * interval '1 millisecond' \
             WHERE id = ANY ($1)",
            &[
                Parameter::of(ids.to_vec()),
                Parameter::of(trouble.line()),
                Parameter::of(CLAIM - 1),
                Parameter::of(finally),
                Parameter::of(settings::queue_attempts()),
                Parameter::of(f64::from(settings::queue_retry_delay())),
            ],
            |_| Ok(()),
        )
        .map(|_| ())
    })
}

/// Takes a claim back as if it had not been: the entries are due again after so many milliseconds.
fn put_off(ids: &[i64], milliseconds: i64) -> Result<(), Failure> {
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.queue SET attempts = greatest(attempts - $2, 0), \
             next_try = pg_catalog.clock_timestamp() + $3 * interval '1 millisecond' WHERE id = ANY ($1) \
             AND state = 'waiting'",
            &[
                Parameter::of(ids.to_vec()),
                Parameter::of(CLAIM),
                Parameter::of(milliseconds),
            ],
            |_| Ok(()),
        )
        .map(|_| ())
    })
}

/// Takes a claim back whose work was cancelled, or ended with its process in good order.
pub fn release(ids: &[i64]) -> Result<(), Failure> {
    put_off(ids, 0)
}

/// One upload of this trigger took too long: its others wait a while, so that they do not take the other tables' time.
fn stalled(entry: &Entry) -> Result<(), Failure> {
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.queue q SET next_try = pg_catalog.clock_timestamp() + $4 * interval '1 millisecond' \
             WHERE q.id IN (SELECT w.id FROM copymatch.queue w WHERE w.state = 'waiting' \
             AND w.next_try <= pg_catalog.now() \
                                AND w.trigger_relation = $1 AND w.trigger_name = $2 \
                                AND w.id <> $3 FOR UPDATE SKIP LOCKED)",
            &[
                Parameter::of(entry.uploads),
                Parameter::of(entry.trigger.as_deref()),
                Parameter::of(entry.id),
                Parameter::of(delay(1)),
            ],
            |_| Ok(()),
        )
        .map(|_| ())
    })
}

/// A procedure: it commits each batch.
#[pg_extern(sql = false)]
fn copy_process_queue(batch: Option<i32>, max_batches: Option<i32>, fcinfo: pg_sys::FunctionCallInfo) {
    boundary(|| {
        let size = batch.unwrap_or_else(settings::queue_batch);
        if !(1..=1024).contains(&size) || max_batches.is_some_and(|most| most < 1) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "batch is {size}, max_batches is {}",
                    max_batches.map_or_else(|| "NULL".to_owned(), |most| most.to_string())
                ),
            )
            .hint("batch: 1 to 1024 uploads; max_batches: at least 1, or NULL for as many as there are."));
        }
        let _session = Committing::begin(fcinfo, "copy_process_queue")?;
        let mut batches = 0;
        loop {
            let ids = claim(size)?;
            Committing::commit();
            if ids.is_empty() {
                return Ok(());
            }
            if let Err(error) = subtransaction(|| process(&ids)) {
                // Cancelled: no reason to count it as a try.
                release(&ids)?;
                Committing::commit();
                error.again();
            }
            Committing::commit();
            batches += 1;
            if max_batches.is_some_and(|most| batches >= most) {
                return Ok(());
            }
        }
    });
}

#[pg_extern(sql = false)]
fn copy_retry_queue(relation: Option<pg_sys::Oid>) -> i64 {
    boundary(|| {
        as_extension_owner(|| {
            let again = change(
                "WITH again AS (UPDATE copymatch.queue SET state = 'waiting', attempts = 0, \
                 next_try = pg_catalog.now(), last_error = NULL \
                     WHERE state = 'failed' AND ($1 IS NULL OR relation = $1) RETURNING id) \
                 SELECT pg_catalog.count(*) FROM again",
                &[Parameter::of(relation)],
                |row| row.required::<i64>(1),
            )?;
            super::wake::at_commit();
            Ok(again.into_iter().sum())
        })
    })
}

#[pg_extern(sql = false)]
fn copy_clear_queue(relation: Option<pg_sys::Oid>) -> i64 {
    boundary(|| {
        as_extension_owner(|| {
            let gone = change(
                "WITH gone AS (DELETE FROM copymatch.queue WHERE state = 'failed' AND ($1 IS NULL OR relation = $1) \
                 RETURNING id) \
                 SELECT pg_catalog.count(*) FROM gone",
                &[Parameter::of(relation)],
                |row| row.required::<i64>(1),
            )?;
            Ok(gone.into_iter().sum())
        })
    })
}

/// The root of the partition tree that a table belongs to; itself where it is none of one.
pub fn root_of(relation: pg_sys::Oid) -> Result<pg_sys::Oid, Failure> {
    Ok(select(
        "SELECT pg_catalog.pg_partition_root($1)::pg_catalog.oid",
        &[Parameter::of(relation)],
        |row| row.get::<pg_sys::Oid>(1),
    )?
    .into_iter()
    .next()
    .flatten()
    .unwrap_or(relation))
}

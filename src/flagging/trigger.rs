//! `copy_flag`: the trigger that compares uploads with a reference set, at once or through the queue.
//!
//! It runs as the extension's owner, with search_path pinned (see sql/flagging.sql), so that whoever writes an upload needs no
//! right on findings or queue. References are read as the owner of the uploads table.

use std::ffi::{CStr, CString};

use flagging::{Mode, OnBadImage, OnCopy, Options};
use pgrx::prelude::*;
use pgrx::{FromDatum, PgRelation};

use super::owner::{Match, matches, model_of};
use super::queue::invalid_options;
use super::wake;
use crate::embed::catalogue::Model;
use crate::embed::embed_one;
use crate::failure::{Failure, boundary};
use crate::home::Home;
use crate::rights::as_role;
use crate::select::{Parameter, change, select};
use crate::types::Vector;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_copy_flag() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The trigger function.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn copy_flag(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    boundary(|| {
        // SAFETY: by contract fcinfo is valid; its context is checked to be trigger data before it is read as such.
        let trigger = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(misused("copy_flag must be called as a trigger"));
            }
            &*context.cast::<pg_sys::TriggerData>()
        };
        let upload = Upload::of(trigger)?;
        if upload.is_to_be_matched()? {
            upload.flag(fcinfo)?;
        }
        Ok(pg_sys::Datum::from(upload.tuple))
    })
}

fn misused(message: impl Into<String>) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, message)
        .hint("CREATE TRIGGER … AFTER INSERT OR UPDATE ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'licensed')")
}

/// The row that fired the trigger, and what the trigger was told.
struct Upload<'a> {
    trigger: &'a pg_sys::TriggerData,
    arguments: Vec<String>,
    options: Options,
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    image: i32,
    key: Vec<i32>,
}

impl<'a> Upload<'a> {
    fn of(trigger: &'a pg_sys::TriggerData) -> Result<Self, Failure> {
        let event = trigger.tg_event;
        let timing = event & pg_sys::TRIGGER_EVENT_TIMINGMASK;
        let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
        let update = operation == pg_sys::TRIGGER_EVENT_UPDATE;
        if event & pg_sys::TRIGGER_EVENT_ROW == 0
            || timing == pg_sys::TRIGGER_EVENT_INSTEAD
            || !(update || operation == pg_sys::TRIGGER_EVENT_INSERT)
        {
            return Err(misused(
                "copy_flag must be a trigger for INSERT or UPDATE, FOR EACH ROW, on a table",
            ));
        }
        // SAFETY: PostgreSQL fills tg_trigger; tgargs has tgnargs NUL-terminated strings. tg_relation is open for the
        // trigger's duration.
        let (arguments, descriptor) = unsafe {
            let definition = &*trigger.tg_trigger;
            let count = usize::try_from(definition.tgnargs).unwrap_or(0);
            let arguments = (0..count)
                .map(|at| {
                    CStr::from_ptr(*definition.tgargs.add(at))
                        .to_string_lossy()
                        .into_owned()
                })
                .collect::<Vec<String>>();
            (arguments, (*trigger.tg_relation).rd_att)
        };
        let options = Options::parse(&arguments).map_err(|error| invalid_options(&error))?;
        if timing == pg_sys::TRIGGER_EVENT_BEFORE && options.on_copy != OnCopy::Reject {
            return Err(misused(
                "as a BEFORE trigger copy_flag can only refuse rows: the row is not written yet, so that there is nothing to record",
            )
            .hint("Make it an AFTER trigger, or add the option 'on_copy=reject'."));
        }
        let image = column(trigger, &options.image)?;
        // SAFETY: the number is one of the relation's columns.
        if unsafe { pg_sys::SPI_gettypeid(descriptor, image) } != pg_sys::BYTEAOID {
            return Err(column_failure(
                trigger,
                &options.image,
                "is not of type bytea",
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            ));
        }
        let key = options
            .key
            .iter()
            .map(|name| column(trigger, name))
            .collect::<Result<Vec<i32>, Failure>>()?;
        if let (Some(name), Mode::Sync) = (&options.uploader, options.mode) {
            column(trigger, name)?;
        }
        Ok(Upload {
            trigger,
            arguments,
            tuple: if update {
                trigger.tg_newtuple
            } else {
                trigger.tg_trigtuple
            },
            options,
            descriptor,
            image,
            key,
        })
    }

    /// Whether there is an image that was not there before: an UPDATE that leaves image and key alone changes nothing.
    fn is_to_be_matched(&self) -> Result<bool, Failure> {
        if value(self.tuple, self.descriptor, self.image).is_none() {
            return Ok(false);
        }
        let update = self.trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
        if !update {
            return Ok(true);
        }
        let (old, new) = (self.trigger.tg_trigtuple, self.tuple);
        let image = |tuple| value(tuple, self.descriptor, self.image);
        Ok(!same_image(image(old), image(new))
            || self
                .key
                .iter()
                .any(|&number| text(old, self.descriptor, number) != text(new, self.descriptor, number)))
    }

    fn flag(&self, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), Failure> {
        let key = self.key_texts()?;
        let (relation, owner) = self.relation()?;
        if self.options.mode == Mode::Async {
            change(
                "INSERT INTO copymatch.queue (relation, key, reference_set, arguments) VALUES ($1, $2, $3, $4)",
                &[
                    Parameter::of(relation),
                    Parameter::of(key),
                    Parameter::of(self.options.set.as_str()),
                    Parameter::of(self.arguments.clone()),
                ],
                |_| Ok(()),
            )?;
            wake::at_commit();
            return Ok(());
        }
        let upload = match key.as_slice() {
            [only] => only.clone(),
            several => flagging::record_text(&several.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        let home = Home::of(fcinfo)?;
        // SAFETY: the column is of type bytea and not NULL; the value is detoasted into this call's memory.
        let bytes = value(self.tuple, self.descriptor, self.image)
            .and_then(|datum| unsafe { <&[u8]>::from_datum(datum, false) })
            .unwrap_or_default();
        let set = &self.options.set;
        let found = as_role(owner, || {
            let model = Model::find(Some(&model_of(set)?))?;
            let descriptor = match embed_one(bytes, &model) {
                Ok(elements) => Vector::from_elements(&elements),
                Err(failure) => {
                    let failure = failure.at(format_args!("upload {upload}"));
                    if !(self.options.on_bad_image == OnBadImage::Skip && failure.is_about_the_image()) {
                        return Err(failure);
                    }
                    failure.warn();
                    return Ok(Vec::new());
                }
            };
            matches(&home, descriptor, set, &model.name, self.options.k, self.options.review)
        })?;
        if found.is_empty() {
            return Ok(());
        }
        let uploader = match &self.options.uploader {
            Some(name) => text(self.tuple, self.descriptor, column(self.trigger, name)?),
            None => None,
        };
        if self.options.on_copy == OnCopy::Reject {
            for copy in found.iter().filter(|found| found.verdict == "copy") {
                if !dismissed(relation, &upload, uploader.as_deref(), set, &copy.reference)? {
                    return Err(refusal(&upload, set, copy));
                }
            }
        }
        if self.trigger.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_BEFORE {
            record(relation, &upload, uploader.as_deref(), set, &found)?;
        }
        Ok(())
    }

    /// The relation that findings name, the root where the row's table is a partition, and its owner.
    fn relation(&self) -> Result<(pg_sys::Oid, pg_sys::Oid), Failure> {
        // SAFETY: tg_relation is open; rd_rel is its pg_class row.
        let (own, is_partition, owner) = unsafe {
            let relation = &*self.trigger.tg_relation;
            let class = &*relation.rd_rel;
            (relation.rd_id, class.relispartition, class.relowner)
        };
        if !is_partition {
            return Ok((own, owner));
        }
        select(
            "SELECT c.oid, c.relowner FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.pg_partition_root($1)",
            &[Parameter::of(own)],
            |row| Ok((row.required(1)?, row.required(2)?)),
        )?
        .into_iter()
        .next()
        .ok_or_else(|| misused("the partitioned table of this partition is gone"))
    }

    /// The key's columns as text that any session reads as the same values.
    fn key_texts(&self) -> Result<Vec<String>, Failure> {
        let plain = self.key.iter().all(|&number| {
            // SAFETY: the number is one of the relation's columns.
            let kind = unsafe { pg_sys::SPI_gettypeid(self.descriptor, number) };
            [
                pg_sys::INT8OID,
                pg_sys::INT4OID,
                pg_sys::INT2OID,
                pg_sys::TEXTOID,
                pg_sys::VARCHAROID,
                pg_sys::UUIDOID,
            ]
            .contains(&kind)
        });
        // SAFETY: settings of this nest level are put back by AtEOXact_GUC, or by the transaction's end where this raises.
        let level = (!plain).then(|| unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in [
                (c"datestyle", c"ISO"),
                (c"intervalstyle", c"postgres"),
                (c"timezone", c"UTC"),
                (c"extra_float_digits", c"3"),
            ] {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            level
        });
        let texts = self
            .key
            .iter()
            .zip(&self.options.key)
            .map(|(&number, name)| {
                text(self.tuple, self.descriptor, number).ok_or_else(|| {
                    column_failure(
                        self.trigger,
                        name,
                        "is NULL",
                        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    )
                })
            })
            .collect();
        if let Some(level) = level {
            // SAFETY: the level that was begun above.
            unsafe { pg_sys::AtEOXact_GUC(true, level) };
        }
        texts
    }
}

fn refusal(upload: &str, set: &str, copy: &Match) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        format!(
            "upload {upload} is a copy of reference {} of set \"{set}\" (probability {:.3})",
            copy.reference, copy.probability
        ),
    )
    .detail(format!("Similarity {:.3}, verdict {}.", copy.similarity, copy.verdict))
    .hint("Where this is wrong, a reviewer can dismiss the reference for this uploader; the threshold belongs to the set's calibration.")
}

fn dismissed(
    relation: pg_sys::Oid,
    upload: &str,
    uploader: Option<&str>,
    set: &str,
    reference: &str,
) -> Result<bool, Failure> {
    let found = select(
        "SELECT copymatch.is_dismissed($1, $2, $3, $4, $5)",
        &[
            Parameter::of(relation),
            Parameter::of(upload),
            Parameter::of(uploader),
            Parameter::of(set),
            Parameter::of(reference),
        ],
        |row| row.required::<bool>(1),
    )?;
    Ok(found.contains(&true))
}

fn record(
    relation: pg_sys::Oid,
    upload: &str,
    uploader: Option<&str>,
    set: &str,
    found: &[Match],
) -> Result<(), Failure> {
    let numbers = |field: fn(&Match) -> f64| Parameter::of(found.iter().map(field).collect::<Vec<f64>>());
    let texts = |field: fn(&Match) -> &String| Parameter::of(found.iter().map(field).cloned().collect::<Vec<String>>());
    change(
        "SELECT copymatch.record_findings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            Parameter::of(relation),
            Parameter::of(upload),
            Parameter::of(uploader),
            Parameter::of(set),
            texts(|m| &m.reference),
            numbers(|m| m.similarity),
            numbers(|m| m.background),
            numbers(|m| m.score),
            numbers(|m| m.probability),
            texts(|m| &m.verdict),
        ],
        |_| Ok(()),
    )?;
    Ok(())
}

/// The number of a column of the trigger's table.
fn column(trigger: &pg_sys::TriggerData, name: &str) -> Result<i32, Failure> {
    let missing = || {
        column_failure(
            trigger,
            name,
            "does not exist",
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        )
    };
    let text = CString::new(name).map_err(|_| missing())?;
    // SAFETY: the relation's tuple descriptor is valid and only read.
    let number = unsafe { pg_sys::SPI_fnumber((*trigger.tg_relation).rd_att, text.as_ptr()) };
    if number <= 0 {
        return Err(missing());
    }
    // SAFETY: the number is one of the descriptor's columns.
    let generated = unsafe { generated(trigger, number) };
    // PostgreSQL computes stored ones after BEFORE triggers, virtual ones only for queries: a trigger would take them for NULL.
    let before = trigger.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
    match generated {
        b's' if before => Err(column_failure(
            trigger,
            name,
            "is generated, so that a BEFORE trigger sees no value of it",
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        )
        .hint("Make it an AFTER trigger: with 'on_copy=reject' that refuses rows as well.")),
        b'v' => Err(column_failure(
            trigger,
            name,
            "is a virtual generated column, of which triggers see no value",
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        )
        .hint("Make the column with GENERATED ALWAYS AS (…) STORED, or name an ordinary column.")),
        _ => Ok(number),
    }
}

/// How a column is generated: `s` stored, `v` virtual, 0 where it is not.
///
/// # Safety
/// The number must be one of the columns of the trigger's relation.
unsafe fn generated(trigger: &pg_sys::TriggerData, number: i32) -> u8 {
    // SAFETY: the relation is open, and its descriptor has the column.
    unsafe {
        let descriptor = (*trigger.tg_relation).rd_att;
        #[cfg(feature = "pg18")]
        let attribute = pg_sys::TupleDescAttr(descriptor, number - 1);
        #[cfg(not(feature = "pg18"))]
        let attribute = (*descriptor).attrs.as_ptr().add(number as usize - 1);
        (*attribute).attgenerated as u8
    }
}

fn column_failure(trigger: &pg_sys::TriggerData, name: &str, what: &str, code: PgSqlErrorCode) -> Failure {
    // SAFETY: tg_relation is open, tg_trigger is filled.
    let (relation, trigger) = unsafe {
        (
            PgRelation::from_pg(trigger.tg_relation),
            CStr::from_ptr((*trigger.tg_trigger).tgname)
                .to_string_lossy()
                .into_owned(),
        )
    };
    Failure::new(
        code,
        format!(
            "column \"{name}\" of relation \"{}\", which trigger \"{trigger}\" names, {what}",
            relation.name()
        ),
    )
    .hint("Columns stand in the trigger's arguments as text: after a rename, drop the trigger and make it again.")
}

fn value(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, number: i32) -> Option<pg_sys::Datum> {
    let mut is_null = false;
    // SAFETY: the tuple fits the descriptor, and the number is one of its columns.
    let datum = unsafe { pg_sys::SPI_getbinval(tuple, descriptor, number, &mut is_null) };
    (!is_null).then_some(datum)
}

fn text(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, number: i32) -> Option<String> {
    // SAFETY: as for value(); the result is NUL-terminated, or null for NULL.
    unsafe {
        let text = pg_sys::SPI_getvalue(tuple, descriptor, number);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Whether two images are the same stored bytes: an UPDATE that leaves the column alone keeps its TOAST pointer.
fn same_image(old: Option<pg_sys::Datum>, new: Option<pg_sys::Datum>) -> bool {
    let stored = |datum: pg_sys::Datum| {
        let pointer: *const pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: a varlena of a tuple; its header says how many bytes follow, whatever its storage.
        unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), pgrx::varsize_any(pointer)) }
    };
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => stored(old) == stored(new),
        _ => false,
    }
}

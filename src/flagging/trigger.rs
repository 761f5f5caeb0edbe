//! `copy_flag`: the trigger that compares uploads with a reference set, at once or through the queue.
//!
//! It runs as whoever writes the upload, who needs no right on findings, queue or references: references are read as
//! the owner of the uploads table, and what is found is written as the extension's owner.

use std::ffi::{CStr, CString};

use flagging::{Mode, OnBadImage, OnCopy, Options};
use pgrx::PgRelation;
use pgrx::prelude::*;
use scoring::Verdict;

use super::flag::{Named, dismissed, matches, record, references};
use super::key::{Canonical, key_text, upload_text};
use super::queue::{enqueue, root_of};
use super::refusal;
use super::upload::invalid_options;
use super::wake;
use crate::embed::embed_one;
use crate::failure::{Failure, boundary};
use crate::matching::Match;
use crate::own_schema::OwnSchema;
use crate::rights::{as_owner_of_function, as_role};
use crate::statements::{Parameter, select};
use crate::tuple::{Tuple, column_number, type_of};

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
    Failure::new(PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, message).hint(
        "CREATE TRIGGER … AFTER INSERT OR UPDATE ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', \
         'licensed')",
    )
}

/// The row that fired the trigger, and what the trigger was told.
struct Upload<'a> {
    trigger: &'a pg_sys::TriggerData,
    arguments: Vec<String>,
    options: Options,
    tuple: pg_sys::HeapTuple,
    row: Tuple,
    descriptor: pg_sys::TupleDesc,
    image: i32,
    key: Vec<i32>,
}

/// Where a trigger stands, which is more than the row's table says where that is a partition.
struct Place {
    /// The relation that findings name: the root of the partitions.
    relation: pg_sys::Oid,
    /// The table that the trigger was made on.
    uploads: pg_sys::Oid,
    owner: pg_sys::Oid,
    trigger: String,
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
                "as a BEFORE trigger copy_flag can only refuse rows: the row is not written yet, so that there is \
                 nothing to record",
            )
            .hint("Make it an AFTER trigger, or add the option 'on_copy=reject'."));
        }
        let image = column(trigger, &options.image)?;
        if type_of(descriptor, image) != pg_sys::BYTEAOID {
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
        let tuple = if update {
            trigger.tg_newtuple
        } else {
            trigger.tg_trigtuple
        };
        Ok(Upload {
            trigger,
            arguments,
            tuple,
            // SAFETY: the trigger's row fits its relation's descriptor, and both live as long as the trigger runs.
            row: unsafe { Tuple::new(tuple, descriptor) },
            options,
            descriptor,
            image,
            key,
        })
    }

    /// Whether there is an image that was not there before: an UPDATE that leaves image and key alone changes nothing.
    fn is_to_be_matched(&self) -> Result<bool, Failure> {
        if self.row.is_null(self.image) {
            return Ok(false);
        }
        let update = self.trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
        if !update {
            return Ok(true);
        }
        // SAFETY: of an UPDATE tg_trigtuple is the old row.
        let old = unsafe { Tuple::new(self.trigger.tg_trigtuple, self.descriptor) };
        Ok(!self.row.same_stored(&old, self.image)
            || key_text(&old, self.descriptor, &self.key) != key_text(&self.row, self.descriptor, &self.key))
    }

    fn flag(&self, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), Failure> {
        let key = self.key_texts()?;
        let place = self.place()?;
        // SAFETY: fcinfo is this call's; flinfo says which function is called.
        let own = unsafe { (*(*fcinfo).flinfo).fn_oid };
        if self.options.mode == Mode::Async {
            as_owner_of_function(own, || {
                enqueue(
                    place.relation,
                    key,
                    place.uploads,
                    &place.trigger,
                    &self.options.set,
                    self.arguments.clone(),
                )
            })?;
            wake::at_commit();
            return Ok(());
        }
        let upload = upload_text(&key);
        let own_schema = OwnSchema::of(fcinfo)?;
        let bytes = self.row.bytes(self.image)?.unwrap_or_default();
        let set = &self.options.set;
        let (set_id, found) = as_role(place.owner, || {
            let references = references(set)?;
            let descriptor = match embed_one(bytes, &references.model) {
                Ok(elements) => elements,
                Err(failure) => {
                    let failure = failure.at(format_args!("upload {upload}"));
                    if !failure.is_about_the_image() {
                        return Err(failure);
                    }
                    if self.options.on_bad_image != OnBadImage::Skip {
                        return Err(
                            failure.hint_also("The flagging's option on_bad_image=skip lets such uploads pass.")
                        );
                    }
                    failure.warn();
                    return Ok((references.set.id, Vec::new()));
                }
            };
            let found = matches(
                &own_schema,
                &descriptor,
                Some(bytes),
                &references,
                self.options.k,
                self.options.review,
            )?;
            Ok((references.set.id, found))
        })?;
        if found.is_empty() {
            return Ok(());
        }
        let uploader = self.uploader(&place)?;
        let named = Named {
            relation: place.relation,
            upload: &upload,
            uploader: uploader.as_deref(),
            set,
            set_id,
        };
        let found = if self.options.on_copy == OnCopy::Reject {
            self.let_pass(own, &named, &place, bytes, found)?
        } else {
            found
        };
        if found.is_empty() {
            return Ok(());
        }
        if self.trigger.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_BEFORE {
            as_owner_of_function(own, || record(&named, &found, self.options.notify))?;
        }
        Ok(())
    }

    /// Refuses the row if it is a copy of anything that no reviewer dismissed or released; gives what was found but for
    /// what was released.
    fn let_pass(
        &self,
        own: pg_sys::Oid,
        named: &Named,
        place: &Place,
        image: &[u8],
        mut found: Vec<Match>,
    ) -> Result<Vec<Match>, Failure> {
        if !found.iter().any(|found| found.verdict == Verdict::Copy) {
            return Ok(found);
        }
        let sha256 = refusal::digest(image)?;
        let copies = as_owner_of_function(own, || {
            let released = refusal::released(named, &sha256)?;
            found.retain(|found| !released.contains(&found.reference));
            let mut copies = Vec::new();
            for copy in found.iter().filter(|found| found.verdict == Verdict::Copy) {
                if !dismissed(named, &copy.reference)? {
                    copies.push(copy);
                }
            }
            Ok(copies)
        })?;
        if copies.is_empty() {
            return Ok(found);
        }
        Err(refusal::refuse(
            named,
            &place.trigger,
            &sha256,
            &copies,
            self.options.notify,
        ))
    }

    /// Who uploaded: of this row, and only what the table's owner may read of it.
    fn uploader(&self, place: &Place) -> Result<Option<String>, Failure> {
        let Some(name) = &self.options.uploader else {
            return Ok(None);
        };
        let number = column(self.trigger, name)?;
        // SAFETY: look-ups in PostgreSQL's caches for a column that is there.
        let readable = unsafe {
            let (allowed, select) = (pg_sys::AclResult::ACLCHECK_OK, pg_sys::ACL_SELECT as pg_sys::AclMode);
            let column = CString::new(name.as_str()).unwrap_or_default();
            let at = pg_sys::get_attnum(place.uploads, column.as_ptr());
            pg_sys::pg_class_aclcheck(place.uploads, place.owner, select) == allowed
                || pg_sys::pg_attribute_aclcheck(place.uploads, at, place.owner, select) == allowed
        };
        if !readable {
            return Err(column_failure(
                self.trigger,
                name,
                "may not be read by the table's owner",
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            ));
        }
        let _canonical = (type_of(self.descriptor, number) != pg_sys::TEXTOID).then(Canonical::settings);
        Ok(self.row.text(number))
    }

    fn place(&self) -> Result<Place, Failure> {
        // SAFETY: tg_relation is open; rd_rel is its pg_class row; tg_trigger is filled.
        let (own, is_partition, owner, definition) = unsafe {
            let relation = &*self.trigger.tg_relation;
            let class = &*relation.rd_rel;
            (
                relation.rd_id,
                class.relispartition,
                class.relowner,
                &*self.trigger.tg_trigger,
            )
        };
        if !is_partition {
            return Ok(Place {
                relation: own,
                uploads: own,
                owner,
                trigger: trigger_name(definition),
            });
        }
        // A partition has the partitioned table's triggers as clones; it may have triggers of its own as well.
        let found = select(
            "WITH RECURSIVE up AS ( \
                 SELECT t.tgrelid, t.tgname, t.tgparentid FROM pg_catalog.pg_trigger t WHERE t.oid = $1 \
                 UNION ALL \
                 SELECT t.tgrelid, t.tgname, t.tgparentid FROM up JOIN pg_catalog.pg_trigger t \
                 ON t.oid = up.tgparentid) \
             SELECT up.tgrelid, up.tgname::pg_catalog.text, c.relowner \
             FROM up JOIN pg_catalog.pg_class c ON c.oid = up.tgrelid WHERE up.tgparentid = 0",
            &[Parameter::of(definition.tgoid)],
            |row| {
                Ok((
                    row.required::<pg_sys::Oid>(1)?,
                    row.required::<String>(2)?,
                    row.required::<pg_sys::Oid>(3)?,
                ))
            },
        )?;
        let (uploads, trigger, owner) = found
            .into_iter()
            .next()
            .ok_or_else(|| misused("the partitioned table of this partition is gone"))?;
        Ok(Place {
            relation: root_of(own)?,
            uploads,
            owner,
            trigger,
        })
    }

    /// The key's columns as text that any session reads as the same values.
    fn key_texts(&self) -> Result<Vec<String>, Failure> {
        key_text(&self.row, self.descriptor, &self.key)
            .into_iter()
            .zip(&self.options.key)
            .map(|(text, name)| {
                text.ok_or_else(|| {
                    column_failure(
                        self.trigger,
                        name,
                        "is NULL",
                        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    )
                })
            })
            .collect()
    }
}

fn trigger_name(definition: &pg_sys::Trigger) -> String {
    // SAFETY: tgname is NUL-terminated.
    unsafe { CStr::from_ptr(definition.tgname) }
        .to_string_lossy()
        .into_owned()
}

/// The number of a column of the trigger's table.
fn column(trigger: &pg_sys::TriggerData, name: &str) -> Result<i32, Failure> {
    // SAFETY: the relation's tuple descriptor is valid and only read.
    let descriptor = unsafe { (*trigger.tg_relation).rd_att };
    let number = column_number(descriptor, name).ok_or_else(|| {
        column_failure(
            trigger,
            name,
            "does not exist",
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        )
    })?;
    // PostgreSQL computes stored ones after BEFORE triggers, virtual ones only for queries: a trigger
    // would take them for NULL.
    let before = trigger.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
    // SAFETY: a look-up in PostgreSQL's caches for a column that is there.
    let generated = unsafe { pg_sys::get_attgenerated((*trigger.tg_relation).rd_id, number as pg_sys::AttrNumber) };
    match generated as u8 {
        b's' if before => Err(column_failure(
            trigger,
            name,
            "is a generated column, of which a BEFORE trigger sees no value",
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

fn column_failure(trigger: &pg_sys::TriggerData, name: &str, what: &str, code: PgSqlErrorCode) -> Failure {
    // SAFETY: tg_relation is open, tg_trigger is filled.
    let (relation, trigger) = unsafe {
        (
            PgRelation::from_pg(trigger.tg_relation),
            trigger_name(&*trigger.tg_trigger),
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

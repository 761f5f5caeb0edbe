//! `copy_maintain_descriptor`: the trigger that keeps a reference's descriptor true to its image.

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum, PgRelation};

use super::catalogue::Model;
use super::functions::embed_one;
use crate::failure::{Failure, boundary};
use crate::home::Home;
use crate::select::{Parameter, select};
use crate::types::Vector;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_copy_maintain_descriptor() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The trigger function.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn copy_maintain_descriptor(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    boundary(|| {
        // SAFETY: by contract fcinfo is valid; its context is checked to be trigger data before it is read as such.
        let trigger = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(misused());
            }
            &*context.cast::<pg_sys::TriggerData>()
        };
        let tuple = maintain(trigger, Home::of(fcinfo)?.vector)?;
        Ok(pg_sys::Datum::from(tuple))
    })
}

fn misused() -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        "copy_maintain_descriptor must be called as a trigger BEFORE INSERT OR UPDATE, FOR EACH ROW, with a set's name as argument",
    )
    .hint("copy_create_set makes this trigger.")
}

/// What the trigger needs to know of its set.
struct Set {
    image: String,
    descriptor: String,
    key: String,
    model: String,
    skip: bool,
}

fn maintain(trigger: &pg_sys::TriggerData, vector: pg_sys::Oid) -> Result<pg_sys::HeapTuple, Failure> {
    let event = trigger.tg_event;
    let before_row = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE
        && event & pg_sys::TRIGGER_EVENT_ROW != 0;
    let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
    let update = operation == pg_sys::TRIGGER_EVENT_UPDATE;
    // SAFETY: PostgreSQL fills tg_trigger; tgargs has tgnargs NUL-terminated strings.
    let name = unsafe {
        let definition = &*trigger.tg_trigger;
        if !before_row || !(update || operation == pg_sys::TRIGGER_EVENT_INSERT) || definition.tgnargs != 1 {
            return Err(misused());
        }
        std::ffi::CStr::from_ptr(*definition.tgargs)
            .to_string_lossy()
            .into_owned()
    };
    let set = find_set(&name)?;
    let tuple = if update {
        trigger.tg_newtuple
    } else {
        trigger.tg_trigtuple
    };
    // SAFETY: tg_relation is open for the trigger's duration.
    let descriptor = unsafe { (*trigger.tg_relation).rd_att };
    let image_number = column(trigger, &set.image, &name, Some(pg_sys::BYTEAOID))?;
    let descriptor_number = column(trigger, &set.descriptor, &name, Some(vector))?;

    let image = value(tuple, descriptor, image_number);
    if update && same_image(value(trigger.tg_trigtuple, descriptor, image_number), image) {
        return Ok(tuple);
    }
    let result = match image {
        None => None,
        Some(datum) => {
            // SAFETY: the column is of type bytea, as column() has checked; the value is detoasted into this call's memory.
            let bytes = unsafe { <&[u8]>::from_datum(datum, false) }.unwrap_or_default();
            match Model::find(Some(&set.model)).and_then(|model| embed_one(bytes, &model)) {
                Ok(elements) => Vector::from_elements(&elements).into_datum(),
                Err(failure) => {
                    let failure = failure.at(format_args!(
                        "reference {} of set \"{name}\"",
                        text(tuple, descriptor, column(trigger, &set.key, &name, None)?)
                    ));
                    if !(set.skip && failure.is_about_the_image()) {
                        return Err(failure);
                    }
                    failure.warn();
                    None
                }
            }
        }
    };
    let mut number = descriptor_number;
    let mut datum = result.unwrap_or_else(|| pg_sys::Datum::from(0usize));
    let mut is_null = result.is_none();
    // SAFETY: one column, whose type column() has checked to be the datum's.
    Ok(unsafe { pg_sys::heap_modify_tuple_by_cols(tuple, descriptor, 1, &mut number, &mut datum, &mut is_null) })
}

fn find_set(name: &str) -> Result<Set, Failure> {
    let found = select(
        "SELECT s.image_column::text, s.descriptor_column::text, s.key_column::text, s.model, s.on_bad_image = 'skip' \
         FROM copymatch.reference_set s WHERE s.name = $1 AND s.image_column IS NOT NULL",
        &[Parameter::of(name)],
        |row| {
            Ok(Set {
                image: row.required(1)?,
                descriptor: row.required(2)?,
                key: row.required(3)?,
                model: row.required(4)?,
                skip: row.required(5)?,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("reference set \"{name}\", which this table's trigger serves, does not exist"),
        )
        .hint("Drop the trigger, or make the set again with copy_create_set.")
    })
}

/// The number of a column of the trigger's table, which must be of the type stated.
fn column(
    trigger: &pg_sys::TriggerData,
    column: &str,
    set: &str,
    expected: Option<pg_sys::Oid>,
) -> Result<i32, Failure> {
    let missing = |what: &str| {
        // SAFETY: tg_relation is open.
        let relation = unsafe { PgRelation::from_pg(trigger.tg_relation) };
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!(
                "column \"{column}\" of relation \"{}\", which reference set \"{set}\" names, {what}",
                relation.name()
            ),
        )
        .hint(format!(
            "Drop the set with copy_drop_set('{set}') and make it again with copy_create_set."
        ))
    };
    let name = CString::new(column).map_err(|_| missing("does not exist"))?;
    // SAFETY: the relation's tuple descriptor is valid and only read; SPI_gettypeid is asked for a column that exists.
    unsafe {
        let descriptor = (*trigger.tg_relation).rd_att;
        let number = pg_sys::SPI_fnumber(descriptor, name.as_ptr());
        if number <= 0 {
            return Err(missing("does not exist"));
        }
        match expected {
            Some(expected) if pg_sys::SPI_gettypeid(descriptor, number) != expected => {
                Err(missing("has another type now"))
            }
            _ => Ok(number),
        }
    }
}

fn value(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, number: i32) -> Option<pg_sys::Datum> {
    let mut is_null = false;
    // SAFETY: the tuple fits the descriptor, and the number is one of its columns.
    let datum = unsafe { pg_sys::SPI_getbinval(tuple, descriptor, number, &mut is_null) };
    (!is_null).then_some(datum)
}

fn text(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, number: i32) -> String {
    // SAFETY: as for value(); the result is NUL-terminated, or null for NULL.
    unsafe {
        let text = pg_sys::SPI_getvalue(tuple, descriptor, number);
        if text.is_null() {
            "NULL".to_owned()
        } else {
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
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

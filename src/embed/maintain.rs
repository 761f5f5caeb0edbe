//! `copy_maintain_descriptor`: the trigger that keeps a reference's descriptor true to its image.

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum, PgRelation};

use super::catalogue::Model;
use super::session::Urgency;
use super::sketch::{decoded, descriptor_of, sketch_of};
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::statements::{Parameter, select};
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
        let own_schema = OwnSchema::of(fcinfo)?;
        let snapshot = LatestSnapshot::push();
        let tuple = maintain(trigger, &own_schema)?;
        snapshot.pop();
        Ok(pg_sys::Datum::from(tuple))
    })
}

fn misused() -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        "copy_maintain_descriptor must be called as a trigger BEFORE INSERT OR UPDATE, FOR EACH ROW, with a set's name \
         as argument",
    )
    .hint("copy_create_set makes this trigger.")
}

/// What the trigger needs to know of its set.
struct Set {
    image: String,
    key: String,
    skip: bool,
    /// The column with the sketch, where the set has one.
    sketch: Option<String>,
    /// The column that the set is searched by, and the other one while the set is re-embedded.
    columns: Vec<Column>,
}

/// A descriptor column and the model that fills it.
struct Column {
    name: String,
    model: String,
    /// Whether searches use it. An image that only the other column's model refuses is no reason to refuse the row.
    searched: bool,
}

/// The latest committed state of the catalogue, also where the transaction reads an older one (REPEATABLE READ): a row
/// that it writes must have every descriptor that the sets have when it commits. The table's lock, which the writer
/// holds, keeps a re-embedding from starting or switching meanwhile.
struct LatestSnapshot;

impl LatestSnapshot {
    fn push() -> Self {
        // SAFETY: inside a transaction; popped by pop(), or by the abort of the transaction where
        // an error unwinds past it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        LatestSnapshot
    }

    fn pop(self) {
        // SAFETY: pushed in push(), and whatever was pushed since has been popped.
        unsafe { pg_sys::PopActiveSnapshot() };
    }
}

fn maintain(trigger: &pg_sys::TriggerData, own_schema: &OwnSchema) -> Result<pg_sys::HeapTuple, Failure> {
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
    // SAFETY: tg_relation is open.
    let set = find_set(&name, unsafe { (*trigger.tg_relation).rd_id })?;
    let tuple = if update {
        trigger.tg_newtuple
    } else {
        trigger.tg_trigtuple
    };
    // SAFETY: tg_relation is open for the trigger's duration.
    let descriptor = unsafe { (*trigger.tg_relation).rd_att };
    let image_number = ordinary_column(trigger, &set.image, &name, is_bytea)?;

    let image = value(tuple, descriptor, image_number);
    if update && same_image(value(trigger.tg_trigtuple, descriptor, image_number), image) {
        return Ok(tuple);
    }
    let bytes = image.map(|datum| {
        // SAFETY: the column is of type bytea, as column() has checked; the value is detoasted into this call's memory.
        unsafe { <&[u8]>::from_datum(datum, false) }.unwrap_or_default()
    });
    let mut numbers = Vec::new();
    let mut datums = Vec::new();
    let mut nulls = Vec::new();
    // No model has a part in the sketch: the first picture that was decoded will do.
    let mut sketch: Option<Vec<u8>> = None;
    for written in &set.columns {
        numbers.push(ordinary_column(trigger, &written.name, &name, |kind| {
            own_schema.holds_descriptors(kind)
        })?);
        let embedded = bytes.map(|bytes| {
            let model = Model::find(Some(&written.model))?;
            let image = decoded(bytes, &model)?;
            let descriptor = descriptor_of(&image, &model, Urgency::Interactive)?;
            if set.sketch.is_some() && sketch.is_none() {
                sketch = Some(sketch_of(&image)?);
            }
            Ok::<_, Failure>(descriptor)
        });
        let result = match embedded {
            None => None,
            Some(Ok(elements)) => Vector::from_elements(&elements).into_datum(),
            Some(Err(failure)) => {
                let failure = failure.at(format_args!(
                    "reference {} of set \"{name}\"",
                    text(tuple, descriptor, column(trigger, &set.key, &name, |_| true)?)
                ));
                if !failure.is_about_the_image() {
                    return Err(failure);
                }
                if written.searched && !set.skip {
                    return Err(failure.hint_also(&format!(
                        "copy_alter_set('{}', on_bad_image => 'skip') keeps such rows, without a descriptor.",
                        name.replace('\'', "''")
                    )));
                }
                failure.warn();
                None
            }
        };
        datums.push(result.unwrap_or_else(|| pg_sys::Datum::from(0usize)));
        nulls.push(result.is_none());
    }
    // A sketch column that somebody dropped or altered keeps nobody from writing rows: searches do without it, too.
    if let Some(Ok(number)) = set
        .sketch
        .as_ref()
        .map(|sketched| ordinary_column(trigger, sketched, &name, is_bytea))
    {
        numbers.push(number);
        let datum = sketch.into_datum();
        datums.push(datum.unwrap_or_else(|| pg_sys::Datum::from(0usize)));
        nulls.push(datum.is_none());
    }
    // SAFETY: the arrays have one element for each column, whose type column() has checked to be the datum's.
    Ok(unsafe {
        pg_sys::heap_modify_tuple_by_cols(
            tuple,
            descriptor,
            numbers.len() as i32,
            numbers.as_mut_ptr(),
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
        )
    })
}

/// The set of this name, over this table or one that it is a partition of: whoever takes over the name of a dropped set
/// gets no descriptors into another's table.
fn find_set(name: &str, table: pg_sys::Oid) -> Result<Set, Failure> {
    let found = select(
        "SELECT s.image_column::text, s.key_column::text, s.on_bad_image = 'skip', s.descriptor_column::text, s.model, \
                CASE WHEN r.state = 'switched' THEN r.old_descriptor_column ELSE r.descriptor_column END::text, \
                CASE WHEN r.state = 'switched' THEN r.old_model ELSE r.model END, \
                coalesce(s.sketch_column, (SELECT o.sketch_column FROM copymatch.reference_set o \
                                           WHERE o.relation = s.relation AND o.image_column = s.image_column \
                                             AND o.descriptor_column = s.descriptor_column \
                                             AND o.sketch_column IS NOT NULL \
                                           ORDER BY o.name LIMIT 1))::text \
         FROM copymatch.reference_set s LEFT JOIN copymatch.reembedding r ON r.reference_set = s.name \
         WHERE s.name = $1 AND s.image_column IS NOT NULL \
           AND (s.relation = $2::pg_catalog.regclass \
                OR s.relation IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors($2::pg_catalog.regclass) a))",
        &[Parameter::of(name), Parameter::of(table)],
        |row| {
            let mut columns = vec![Column {
                name: row.required(4)?,
                model: row.required(5)?,
                searched: true,
            }];
            if let (Some(name), Some(model)) = (row.get(6)?, row.get(7)?) {
                columns.push(Column {
                    name,
                    model,
                    searched: false,
                });
            }
            Ok(Set {
                image: row.required(1)?,
                key: row.required(2)?,
                skip: row.required(3)?,
                sketch: row.get(8)?,
                columns,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("reference set \"{name}\", which this table's trigger serves, does not exist over this table"),
        )
        .hint("Drop the trigger, or make the set again with copy_create_set.")
    })
}

fn is_bytea(kind: pg_sys::Oid) -> bool {
    kind == pg_sys::BYTEAOID
}

/// The number of a column of the trigger's table, whose type must be as expected.
fn column(
    trigger: &pg_sys::TriggerData,
    column: &str,
    set: &str,
    expected: impl Fn(pg_sys::Oid) -> bool,
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
            "If it was renamed: SELECT copy_set_columns('{0}', …) with its name now. Else: Drop the set with \
             copy_drop_set('{0}') and make it again with copy_create_set.",
            set.replace('\'', "''")
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
        if !expected(pg_sys::SPI_gettypeid(descriptor, number)) {
            return Err(missing("has another type now"));
        }
        Ok(number)
    }
}

/// As [`column`], of a column that holds what is written into it: one that was replaced by a generated column of its
/// name since the set was made would be taken for NULL here, and be computed anew over whatever the trigger writes.
fn ordinary_column(
    trigger: &pg_sys::TriggerData,
    name: &str,
    set: &str,
    expected: impl Fn(pg_sys::Oid) -> bool,
) -> Result<i32, Failure> {
    let number = column(trigger, name, set, expected)?;
    // SAFETY: tg_relation is open; a look-up in PostgreSQL's caches for a column that is there.
    let (relation, generated) = unsafe {
        let generated = pg_sys::get_attgenerated((*trigger.tg_relation).rd_id, number as pg_sys::AttrNumber);
        (PgRelation::from_pg(trigger.tg_relation), generated)
    };
    if generated == 0 {
        return Ok(number);
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!(
            "column \"{name}\" of relation \"{}\", which reference set \"{set}\" names, is a generated column, of \
             which a BEFORE trigger sees no value",
            relation.name()
        ),
    )
    .hint(format!(
        "Name an ordinary column: SELECT copy_set_columns('{}', image => '…', descriptor => '…').",
        set.replace('\'', "''")
    )))
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

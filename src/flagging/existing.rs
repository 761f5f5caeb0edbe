//! `copy_flag_existing`: enqueues uploads that are there already, by the names that the trigger would have given them.

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::key::key_text;
use super::queue::root_of;
use super::upload::Uploads;
use super::wake;
use crate::failure::{Failure, boundary};
use crate::rights::{as_extension_owner, as_role};
use crate::statements::{Parameter, change, select};
use crate::tuple::{Tuple, column_number};

/// Uploads that are read and written at a time.
const AT_ONCE: std::ffi::c_long = 1000;

#[pg_extern(sql = false)]
fn copy_flag_existing(relation: Option<pg_sys::Oid>, trigger_name: Option<&str>, condition: Option<&str>) -> i64 {
    boundary(|| {
        let relation = relation.ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "copy_flag_existing needs a table",
            )
            .hint("The table of the uploads: copy_flag_existing('uploads').")
        })?;
        let triggers = Uploads::all(relation, trigger_name)?;
        if triggers.is_empty() {
            let name = trigger_name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("the table has no enabled flagging trigger{name}"),
            )
            .hint(
                "copy_create_flagging, or CREATE TRIGGER … EXECUTE FUNCTION copy_flag(…), says what to match \
                 with what.",
            ));
        }
        let root = root_of(relation)?;
        let mut total = 0;
        for uploads in &triggers {
            total += enqueue_all(uploads, root, condition)?;
        }
        wake::at_commit();
        Ok(total)
    })
}

/// Enqueues the uploads of one trigger for which the condition holds.
fn enqueue_all(uploads: &Uploads, root: pg_sys::Oid, condition: Option<&str>) -> Result<i64, Failure> {
    uploads.check()?;
    let columns: Vec<String> = uploads
        .options
        .key
        .iter()
        .map(|column| format!("u.{}", quote_identifier(column)))
        .collect();
    let query = format!(
        "SELECT {} FROM {} u WHERE u.{} IS NOT NULL{}",
        columns.join(", "),
        uploads.name,
        quote_identifier(&uploads.options.image),
        // On a line of its own, so that a comment in it ends.
        condition.map_or_else(String::new, |condition| format!(" AND ({condition}\n)")),
    );
    // Who may act as the table's owner does: code that hangs on the table (expressions of its indexes, policies) then
    // runs with the owner's rights, not with a superuser's. Others read with their own.
    let own = select(
        "SELECT pg_catalog.pg_has_role($1, 'USAGE')",
        &[Parameter::of(uploads.owner)],
        |row| row.required::<bool>(1),
    )?;
    let mut cursor = Cursor {
        query: CString::new(query)
            .map_err(|_| Failure::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "the condition has a NUL byte"))?,
        columns: uploads.options.key.clone(),
        nameless: 0,
    };
    let write = |keys: &[Vec<String>]| as_extension_owner(|| write(uploads, root, keys));
    let total = if own == [true] {
        as_role(uploads.owner, || cursor.each(write))?
    } else {
        cursor.each(write)?
    };
    if cursor.nameless > 0 {
        notice!(
            "{} uploads of {} have no key and are left out",
            cursor.nameless,
            uploads.name
        );
    }
    Ok(total)
}

struct Cursor {
    query: CString,
    columns: Vec<String>,
    /// Rows with NULL in the key.
    nameless: u64,
}

impl Cursor {
    /// Reads the query's rows a thousand at a time and passes on their keys; how many.
    fn each(&mut self, mut write: impl FnMut(&[Vec<String>]) -> Result<(), Failure>) -> Result<i64, Failure> {
        let mut total = 0;
        // SAFETY: SPI is connected and finished in pairs (the transaction's abort cleans up where an ERROR unwinds);
        // rows are read before the table that holds them is freed; the portal is closed at the end.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "SPI_connect failed",
                ));
            }
            let portal = pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                self.query.as_ptr(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null(),
                false,
                0,
            );
            loop {
                pg_sys::SPI_cursor_fetch(portal, true, AT_ONCE);
                let table = pg_sys::SPI_tuptable;
                let count = usize::try_from(pg_sys::SPI_processed).unwrap_or(0);
                if table.is_null() || count == 0 {
                    break;
                }
                let descriptor = (*table).tupdesc;
                let numbers: Vec<i32> = self
                    .columns
                    .iter()
                    .filter_map(|column| column_number(descriptor, column))
                    .collect();
                let mut keys = Vec::with_capacity(count);
                for at in 0..count {
                    let row = Tuple::new(*(*table).vals.add(at), descriptor);
                    match key_text(&row, descriptor, &numbers)
                        .into_iter()
                        .collect::<Option<Vec<_>>>()
                    {
                        Some(key) => keys.push(key),
                        None => self.nameless += 1,
                    }
                }
                pg_sys::SPI_freetuptable(table);
                total += keys.len() as i64;
                if let Err(failure) = write(&keys) {
                    pg_sys::SPI_finish();
                    return Err(failure);
                }
            }
            pg_sys::SPI_cursor_close(portal);
            pg_sys::SPI_finish();
        }
        Ok(total)
    }
}

fn write(uploads: &Uploads, root: pg_sys::Oid, keys: &[Vec<String>]) -> Result<(), Failure> {
    let width = uploads.options.key.len();
    let names: Vec<String> = (1..=width).map(|number| format!("k{number}")).collect();
    let arrays: Vec<String> = (1..=width)
        .map(|number| format!("${}::pg_catalog.text[]", number + 5))
        .collect();
    let statement = format!(
        "INSERT INTO copymatch.queue (relation, reference_set, arguments, trigger_relation, trigger_name, key) \
         SELECT $1, $2, $3, $4, $5, ARRAY[{0}] FROM ROWS FROM (pg_catalog.unnest({1})) AS u({0})",
        names.join(", "),
        arrays.join(", "),
    );
    let mut parameters = vec![
        Parameter::of(root),
        Parameter::of(uploads.options.set.as_str()),
        Parameter::of(uploads.arguments.clone()),
        Parameter::of(uploads.relation),
        Parameter::of(uploads.trigger.as_str()),
    ];
    for column in 0..width {
        parameters.push(Parameter::of(
            keys.iter()
                .map(|key| key.get(column).cloned().unwrap_or_default())
                .collect::<Vec<String>>(),
        ));
    }
    change(&statement, &parameters, |_| Ok(()))?;
    Ok(())
}

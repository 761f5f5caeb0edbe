//! Columns of a row in hand, as triggers and cursors get it. A value is read as what its
//! column's type is, or not at all.

use std::ffi::{CStr, CString};

use pgrx::FromDatum;
use pgrx::prelude::*;

use crate::failure::Failure;

/// A row and what its columns are. Both live as long as the call that handed them over.
#[derive(Clone, Copy)]
pub struct Tuple {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Tuple {
    /// # Safety
    /// The row fits the descriptor, and both stay valid while the value is used.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Tuple {
        Tuple { tuple, descriptor }
    }

    /// The bytes of a column of type bytea; None where it is NULL.
    pub fn bytes(&self, number: i32) -> Result<Option<&[u8]>, Failure> {
        if type_of(self.descriptor, number) != pg_sys::BYTEAOID {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {number} of an upload is not of type bytea"),
            )
            .hint("Was the column's type changed? Make the trigger again."));
        }
        // SAFETY: the column is of type bytea; the value is detoasted into this call's memory.
        Ok(self
            .datum(number)
            .and_then(|datum| unsafe { <&[u8]>::from_datum(datum, false) }))
    }

    pub fn is_null(&self, number: i32) -> bool {
        self.datum(number).is_none()
    }

    /// A column as its type's output function writes it, which is never a cast of somebody's; None where it is NULL.
    pub fn text(&self, number: i32) -> Option<String> {
        // SAFETY: SPI_getvalue answers null for NULL and for what is no column; the text is palloc'd and copied.
        unsafe {
            let text = pg_sys::SPI_getvalue(self.tuple, self.descriptor, number);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }

    /// Whether a column of variable length has the same stored bytes in both rows: an UPDATE that leaves it
    /// alone keeps its TOAST pointer.
    pub fn same_stored(&self, other: &Tuple, number: i32) -> bool {
        let stored = |tuple: &Tuple| {
            tuple.datum(number).map(|datum| {
                let pointer: *const pg_sys::varlena = datum.cast_mut_ptr();
                // SAFETY: a varlena of a tuple, as `is_varlena` says; its header tells how many bytes there
                // are, whatever its storage.
                unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), pgrx::varsize_any(pointer)) }
            })
        };
        self.is_varlena(number) && stored(self) == stored(other)
    }

    fn is_varlena(&self, number: i32) -> bool {
        // SAFETY: a look-up in PostgreSQL's caches.
        unsafe { pg_sys::get_typlen(type_of(self.descriptor, number)) == -1 }
    }

    fn datum(&self, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor fit each other; for what is no column the answer is NULL.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null) };
        (!is_null).then_some(datum)
    }
}

/// The number of a column, from 1; None where there is none of this name.
pub fn column_number(descriptor: pg_sys::TupleDesc, name: &str) -> Option<i32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the descriptor is only read; system columns have negative numbers.
    Some(unsafe { pg_sys::SPI_fnumber(descriptor, name.as_ptr()) }).filter(|&number| number > 0)
}

/// The type of a column; InvalidOid for what is none.
pub fn type_of(descriptor: pg_sys::TupleDesc, number: i32) -> pg_sys::Oid {
    // SAFETY: the descriptor is only read.
    unsafe { pg_sys::SPI_gettypeid(descriptor, number) }
}

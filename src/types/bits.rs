//! Distances on SQL's own `bit`, by which quantised vectors are compared.
use std::ptr::NonNull;

use pgrx::callconv::FcInfo;
use pgrx::prelude::*;
use pgrx::{pg_sys, varsize_4b};

use super::error::{OrRaise, report};

/// The varlena header and the number of bits, an int32 each.
const HEADER: usize = 2 * size_of::<i32>();

/// An argument of type `bit`, detoasted where it has to be; such a copy is freed with it.
struct BitString {
    start: NonNull<pg_sys::varlena>,
    owned: bool,
}

impl BitString {
    /// # Safety
    /// `datum` must be a non-null value of type `bit` that stays valid as long as the result is used.
    unsafe fn read(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller vouches for the datum; pg_detoast_datum returns a varlena with a header of 4 bytes, the
        // same one where it has that already, and never null.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let start = pg_sys::pg_detoast_datum(given);
            BitString {
                start: NonNull::new_unchecked(start),
                owned: start != given,
            }
        }
    }

    /// Number of bits, and the bytes that hold them.
    fn parts(&self) -> (usize, &[u8]) {
        // SAFETY: `read` left an uncompressed varlena; nothing is read beyond the length that its header states.
        let (bits, bytes) = unsafe {
            let start = self.start.as_ptr();
            let size = varsize_4b(start);
            if size < HEADER {
                corrupted(size)
            }
            let bytes = std::slice::from_raw_parts(start.byte_add(HEADER).cast::<u8>(), size - HEADER);
            (*start.cast::<i32>().add(1), bytes)
        };
        match usize::try_from(bits) {
            Ok(bits) if bits.div_ceil(8) == bytes.len() => (bits, bytes),
            _ => corrupted(HEADER + bytes.len()),
        }
    }
}

impl Drop for BitString {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: the copy that pg_detoast_datum allocated in this call.
            unsafe { pg_sys::pfree(self.start.as_ptr().cast()) }
        }
    }
}

#[cold]
fn corrupted(bytes: usize) -> ! {
    report(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("invalid bit value of {bytes} bytes"),
        None,
        None,
    )
}

fn call(fcinfo: pg_sys::FunctionCallInfo, distance: fn(&[u8], &[u8]) -> f64) -> f64 {
    // SAFETY: sql/types.sql declares the callers strict, with two arguments of type bit.
    let (a, b) = unsafe {
        let info = FcInfo::from_ptr(fcinfo);
        let arguments = info.raw_args();
        (BitString::read(arguments[0].value), BitString::read(arguments[1].value))
    };
    let ((left, a), (right, b)) = (a.parts(), b.parts());
    vectors::check_lengths(left, right).or_raise();
    distance(a, b)
}

#[pg_extern(sql = false, immutable, strict, parallel_safe)]
fn hamming_distance(fcinfo: pg_sys::FunctionCallInfo) -> f64 {
    call(fcinfo, vectors::hamming_distance)
}

#[pg_extern(sql = false, immutable, strict, parallel_safe)]
fn jaccard_distance(fcinfo: pg_sys::FunctionCallInfo) -> f64 {
    call(fcinfo, vectors::jaccard_distance)
}

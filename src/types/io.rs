//! Text and binary input and output, and the type modifier.
use std::ffi::{CStr, CString};

use half::f16;

use pgrx::callconv::FcInfo;
use pgrx::prelude::*;
use pgrx::{Internal, IntoDatum, pg_sys};
use vectors::{MAX_DIMENSIONS, expect_dimensions};

use super::datum::{HalfVector, Packed, SqlElement, Vector};
use super::error::{OrRaise, report};

/// The number of dimensions that a type modifier declares; −1 declares none.
pub(super) fn declared(typmod: i32) -> Option<usize> {
    usize::try_from(typmod).ok()
}

fn input<E: SqlElement>(text: &CStr, typmod: i32) -> Packed<E> {
    let elements = vectors::parse_text::<E>(text.to_bytes()).or_raise();
    expect_dimensions(declared(typmod), elements.len()).or_raise();
    Packed::from_elements(&elements)
}

fn output<E: SqlElement>(value: &Packed<E>) -> CString {
    // The text of numbers has no zero byte, so that the default is never taken.
    CString::new(vectors::format_text(value.elements())).unwrap_or_default()
}

fn receive<E: SqlElement>(message: Internal, typmod: i32) -> Packed<E> {
    let Some(message) = message.into_datum() else {
        report(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "no message to read".into(),
            None,
            None,
        )
    };
    // SAFETY: a receive function's first argument is the StringInfo that holds one field of a message; it lives as
    // long as the call. What lies between cursor and len is initialised.
    let bytes = unsafe {
        let message = &mut *message.cast_mut_ptr::<pg_sys::StringInfoData>();
        let (Ok(start), Ok(end)) = (usize::try_from(message.cursor), usize::try_from(message.len)) else {
            report(
                PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                "invalid message".into(),
                None,
                None,
            )
        };
        message.cursor = message.len;
        std::slice::from_raw_parts(message.data.cast::<u8>().add(start), end.saturating_sub(start))
    };
    Packed::from_elements(&vectors::parse_binary::<E>(bytes, declared(typmod)).or_raise())
}

/// Reads the list of modifiers in parentheses: exactly one, the number of dimensions.
fn read_modifier<E: SqlElement>(fcinfo: pg_sys::FunctionCallInfo) -> i32 {
    // SAFETY: the function is declared with one argument of type cstring[] and is strict; PostgreSQL checks the array
    // and raises an ERROR when it is no list of integers. The list is palloc'd in the current context.
    let modifiers = unsafe {
        let array = pg_sys::pg_detoast_datum(FcInfo::from_ptr(fcinfo).raw_args()[0].value.cast_mut_ptr());
        let mut count = 0;
        let list = pg_sys::ArrayGetIntegerTypmods(array.cast(), &mut count);
        std::slice::from_raw_parts(list, count.max(0) as usize).to_vec()
    };
    let refuse = |message: String| report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, None, None);
    let name = E::TYPE_NAME;
    match modifiers[..] {
        [dimensions] if dimensions < 1 => refuse(format!("dimensions for type {name} must be at least 1")),
        [dimensions] if dimensions as usize > MAX_DIMENSIONS => {
            refuse(format!("dimensions for type {name} cannot exceed {MAX_DIMENSIONS}"))
        }
        [dimensions] => dimensions,
        _ => refuse("invalid type modifier".into()),
    }
}

/// Per SQL type: `input(text, type, typmod)`, `output`, `receive(message, type, typmod)`, `send`, `typmod_in`.
macro_rules! io {
    ($vector:ty, $element:ty: $input:ident, $output:ident, $receive:ident, $send:ident, $typmod_in:ident) => {
        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $input(text: &CStr, _type_oid: pg_sys::Oid, typmod: i32) -> $vector {
            input(text, typmod)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $output(value: $vector) -> CString {
            output(&value)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $receive(message: Internal, _type_oid: pg_sys::Oid, typmod: i32) -> $vector {
            receive(message, typmod)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $send(value: $vector) -> Vec<u8> {
            vectors::encode_binary(value.elements())
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $typmod_in(fcinfo: pg_sys::FunctionCallInfo) -> i32 {
            read_modifier::<$element>(fcinfo)
        }
    };
}
io!(Vector, f32: vector_in, vector_out, vector_recv, vector_send, vector_typmod_in);
io!(HalfVector, f16: halfvec_in, halfvec_out, halfvec_recv, halfvec_send, halfvec_typmod_in);

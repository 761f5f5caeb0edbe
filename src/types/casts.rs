//! Casts from and to arrays, between the two types, and from a type to itself with other dimensions.
//!
//! Each takes the value, the type modifier asked for (−1: none) and whether the cast is explicit.
use half::f16;
use pgrx::callconv::FcInfo;
use pgrx::prelude::*;
use pgrx::{direct_function_call_as_datum, pg_sys};
use vectors::{Error, MAX_DIMENSIONS, expect_dimensions};

use super::arrays::{Number, NumberArray, Shape};
use super::datum::{HalfVector, Packed, SqlElement, Vector};
use super::error::{OrRaise, raise};
use super::io::declared;

/// Refuses an array that makes no vector of the declared length, before anything is allocated for it.
fn check_length<E: SqlElement>(elements: usize, typmod: i32) {
    match elements {
        0 => raise(Error::NoDimensions {
            type_name: E::TYPE_NAME,
        }),
        1..=MAX_DIMENSIONS => expect_dimensions(declared(typmod), elements).or_raise(),
        _ => raise(Error::TooManyDimensions {
            type_name: E::TYPE_NAME,
        }),
    }
}

fn from_array<E: SqlElement, T: Number>(
    array: NumberArray<T>,
    typmod: i32,
    convert: fn(T) -> Result<E, Error>,
) -> Packed<E> {
    let numbers = array.elements();
    check_length::<E>(numbers.len(), typmod);
    Packed::build(numbers.len(), |slot| {
        for (element, &number) in slot.iter_mut().zip(numbers) {
            *element = convert(number).or_raise();
        }
    })
}

fn from_numeric_array<E: SqlElement>(fcinfo: pg_sys::FunctionCallInfo) -> Packed<E> {
    // SAFETY: the function is declared with arguments numeric[], integer, boolean and is strict. deconstruct_array
    // checks the array and returns as many datums as it says, which point into it.
    let (datums, typmod) = unsafe {
        let fcinfo = FcInfo::from_ptr(fcinfo);
        let arguments = fcinfo.raw_args();
        let typmod = arguments[1].value.value() as i32;
        let shape = Shape::of(arguments[0].value);
        check_length::<E>(shape.elements, typmod);
        let mut datums = std::ptr::null_mut();
        let mut count = 0;
        pg_sys::deconstruct_array(
            shape.array,
            pg_sys::NUMERICOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
            &mut datums,
            std::ptr::null_mut(),
            &mut count,
        );
        (std::slice::from_raw_parts(datums, count.max(0) as usize), typmod)
    };
    check_length::<E>(datums.len(), typmod);
    Packed::build(datums.len(), |slot| {
        for (element, &numeric) in slot.iter_mut().zip(datums) {
            // SAFETY: the datum is a numeric. PostgreSQL refuses one that float4 cannot hold.
            let number = unsafe { direct_function_call_as_datum(pg_sys::numeric_float4, &[Some(numeric)]) };
            let number = number.map_or(f32::NAN, |number| f32::from_bits(number.value() as u32));
            *element = vectors::from_f32(number).or_raise();
        }
    })
}

/// Per SQL type: from itself, from four kinds of arrays, to `real[]`.
macro_rules! casts {
    (
        $vector:ty, $element:ty:
        $same_type:ident, $integers:ident, $reals:ident, $doubles:ident, $numerics:ident, $to:ident
    ) => {
        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $same_type(value: $vector, typmod: i32, _explicit: bool) -> $vector {
            expect_dimensions(declared(typmod), value.dimensions()).or_raise();
            value
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $integers(array: NumberArray<i32>, typmod: i32, _explicit: bool) -> $vector {
            from_array(array, typmod, vectors::from_i32::<$element>)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $reals(array: NumberArray<f32>, typmod: i32, _explicit: bool) -> $vector {
            from_array(array, typmod, vectors::from_f32::<$element>)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $doubles(array: NumberArray<f64>, typmod: i32, _explicit: bool) -> $vector {
            from_array(array, typmod, vectors::from_f64::<$element>)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $numerics(fcinfo: pg_sys::FunctionCallInfo) -> $vector {
            from_numeric_array::<$element>(fcinfo)
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $to(value: $vector, _typmod: i32, _explicit: bool) -> NumberArray<f32> {
            NumberArray::from_elements(value.elements().iter().map(|&element| f32::from(element)))
        }
    };
}
casts!(Vector, f32: vector_to_vector, integers_to_vector, reals_to_vector, doubles_to_vector, numerics_to_vector,
    vector_to_float4);
casts!(HalfVector, f16: halfvec_to_halfvec, integers_to_halfvec, reals_to_halfvec, doubles_to_halfvec,
    numerics_to_halfvec, halfvec_to_float4);

#[pg_extern(sql = false, immutable, strict, parallel_safe)]
fn vector_to_halfvec(value: Vector, typmod: i32, _explicit: bool) -> HalfVector {
    expect_dimensions(declared(typmod), value.dimensions()).or_raise();
    vectors::narrow(value.elements()).or_raise().into()
}

#[pg_extern(sql = false, immutable, strict, parallel_safe)]
fn halfvec_to_vector(value: HalfVector, typmod: i32, _explicit: bool) -> Vector {
    expect_dimensions(declared(typmod), value.dimensions()).or_raise();
    vectors::widen(value.elements()).into()
}

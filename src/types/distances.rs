//! Distances between two vectors, called once per row of a scan.
//!
//! These are PostgreSQL functions by hand instead of `#[pg_extern]`: as long as both operands lie uncompressed in
//! memory, a call reads two headers and runs the kernel. It catches no panic, because nothing on that way panics, and
//! switches no memory context, because nothing allocates. What needs detoasting, is damaged or differs in length takes
//! the guarded way. That saves about 40 ns per row (benches/README.md).
use half::f16;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use vectors::Error;

use super::datum::{Packed, SqlElement};
use super::error::OrRaise;

/// Applies `distance` to the two arguments of the call.
///
/// # Safety
/// `fcinfo` must be that of a call of a strict function declared with two arguments of the vector type of `E`.
#[inline(always)]
unsafe fn call<E: SqlElement>(
    fcinfo: pg_sys::FunctionCallInfo,
    distance: impl Fn(&[E], &[E]) -> Result<f64, Error>,
) -> pg_sys::Datum {
    // SAFETY: a call of two arguments has room for them; a strict function is not called with NULL.
    unsafe {
        let arguments = (*fcinfo).args.as_slice(2);
        let (left, right) = (arguments[0].value, arguments[1].value);
        if let (Some(a), Some(b)) = (Packed::<E>::in_place(left), Packed::<E>::in_place(right))
            && let Ok(distance) = distance(a, b)
        {
            return pg_sys::Datum::from(distance.to_bits());
        }
        guarded(left, right, distance)
    }
}

/// # Safety
/// Both datums must be non-null values of the vector type of `E`.
#[cold]
#[inline(never)]
unsafe fn guarded<E: SqlElement>(
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    distance: impl Fn(&[E], &[E]) -> Result<f64, Error>,
) -> pg_sys::Datum {
    // SAFETY: the guard turns panics into ERRORs; the caller vouches for the datums, whose copies are freed here.
    unsafe {
        pgrx_extern_c_guard(|| {
            let (a, b) = (Packed::<E>::read(left, true), Packed::<E>::read(right, true));
            pg_sys::Datum::from(distance(a.elements(), b.elements()).or_raise().to_bits())
        })
    }
}

/// Exports `$symbol(a, b) -> float8` and the record by which PostgreSQL knows its calling convention.
macro_rules! distances {
    ($element:ty: $($symbol:ident, $record:ident = $distance:path;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                // SAFETY: sql/types.sql declares it strict, with two arguments of this type.
                unsafe { call::<$element>(fcinfo, $distance) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn $record() -> &'static pg_sys::Pg_finfo_record {
                &pg_sys::Pg_finfo_record { api_version: 1 }
            }
        )*
    };
}
distances! { f32:
    vector_l2_distance_wrapper, pg_finfo_vector_l2_distance_wrapper = vectors::l2_distance;
    vector_l2_squared_distance_wrapper, pg_finfo_vector_l2_squared_distance_wrapper = vectors::l2_squared;
    vector_inner_product_wrapper, pg_finfo_vector_inner_product_wrapper = vectors::inner_product;
    vector_negative_inner_product_wrapper, pg_finfo_vector_negative_inner_product_wrapper
        = vectors::negative_inner_product;
    vector_cosine_distance_wrapper, pg_finfo_vector_cosine_distance_wrapper = vectors::cosine_distance;
    vector_spherical_distance_wrapper, pg_finfo_vector_spherical_distance_wrapper = vectors::spherical_distance;
    vector_l1_distance_wrapper, pg_finfo_vector_l1_distance_wrapper = vectors::l1_distance;
}
distances! { f16:
    halfvec_l2_distance_wrapper, pg_finfo_halfvec_l2_distance_wrapper = vectors::l2_distance;
    halfvec_l2_squared_distance_wrapper, pg_finfo_halfvec_l2_squared_distance_wrapper = vectors::l2_squared;
    halfvec_inner_product_wrapper, pg_finfo_halfvec_inner_product_wrapper = vectors::inner_product;
    halfvec_negative_inner_product_wrapper, pg_finfo_halfvec_negative_inner_product_wrapper
        = vectors::negative_inner_product;
    halfvec_cosine_distance_wrapper, pg_finfo_halfvec_cosine_distance_wrapper = vectors::cosine_distance;
    halfvec_spherical_distance_wrapper, pg_finfo_halfvec_spherical_distance_wrapper = vectors::spherical_distance;
    halfvec_l1_distance_wrapper, pg_finfo_halfvec_l1_distance_wrapper = vectors::l1_distance;
}

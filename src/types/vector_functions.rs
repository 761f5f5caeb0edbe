//! Arithmetic, parts and order: one thin function per SQL name.
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::{pg_sys, set_varsize_4b};

use super::datum::{HalfVector, Packed, SqlElement, Vector};
use super::error::OrRaise;

/// A value of the SQL type `bit`, to return.
pub(super) struct Bits(*mut pg_sys::varlena);

impl Bits {
    /// Copies `count` bits, highest of the first byte first, into a new value in the current memory context.
    fn new(bits: &[u8], count: usize) -> Self {
        // A varbit is its varlena header, the number of bits as int32, then the bytes.
        const HEADER: usize = 2 * size_of::<i32>();
        let size = HEADER + bits.len();
        // SAFETY: palloc returns `size` MAXALIGNed bytes, of which each is written; at most 16,000 bits come here.
        unsafe {
            let start = pg_sys::palloc(size);
            set_varsize_4b(start.cast(), size as i32);
            *start.cast::<i32>().add(1) = count as i32;
            std::ptr::copy_nonoverlapping(bits.as_ptr(), start.byte_add(HEADER).cast(), bits.len());
            Bits(start.cast())
        }
    }
}

// SAFETY: the pointer is to a complete varlena of the SQL type in the current memory context.
unsafe impl BoxRet for Bits {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// SAFETY: it is `bit`, which PostgreSQL has.
unsafe impl SqlTranslatable for Bits {
    const TYPE_IDENT: &'static str = concat!(module_path!(), "::Bits");
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("bit"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("bit")));
}

/// `$name(a, b)` for each, by a function of the crate that may refuse its operands.
macro_rules! binary {
    ($vector:ty: $($name:ident = $function:path),* $(,)?) => {
        $(
            #[pg_extern(sql = false, immutable, strict, parallel_safe)]
            fn $name(a: $vector, b: $vector) -> $vector {
                $function(a.elements(), b.elements()).or_raise().into()
            }
        )*
    };
}
binary!(Vector:
    vector_add = vectors::add,
    vector_sub = vectors::subtract,
    vector_mul = vectors::multiply,
    vector_concat = vectors::concat,
);
binary!(HalfVector:
    halfvec_add = vectors::add,
    halfvec_sub = vectors::subtract,
    halfvec_mul = vectors::multiply,
    halfvec_concat = vectors::concat,
);

impl<E: SqlElement> From<Vec<E>> for Packed<E> {
    fn from(elements: Vec<E>) -> Self {
        // The crate's results are finite and within the limits.
        Packed::build(elements.len(), |slot| slot.copy_from_slice(&elements))
    }
}

/// Functions of one value.
macro_rules! unary {
    ($vector:ty: $dims:ident, $norm:ident, $normalize:ident, $quantize:ident, $subvector:ident) => {
        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $dims(a: $vector) -> i32 {
            a.dimensions() as i32
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $norm(a: $vector) -> f64 {
            vectors::norm(a.elements())
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $normalize(a: $vector) -> $vector {
            vectors::normalize(a.elements()).or_raise().into()
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $quantize(a: $vector) -> Bits {
            Bits::new(&vectors::binary_quantize(a.elements()), a.dimensions())
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $subvector(a: $vector, start: i32, count: i32) -> $vector {
            let part = vectors::subvector(a.elements(), start, count).or_raise();
            Packed::build(part.len(), |slot| slot.copy_from_slice(part))
        }
    };
}
unary!(Vector: vector_dims, vector_norm, vector_l2_normalize, vector_binary_quantize, vector_subvector);
unary!(HalfVector: halfvec_dims, halfvec_l2_norm, halfvec_l2_normalize, halfvec_binary_quantize, halfvec_subvector);

/// The six comparisons and the three-way one that the btree operator class needs.
macro_rules! order {
    ($vector:ty: $compare:ident, $($name:ident = $test:ident),*) => {
        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $compare(a: $vector, b: $vector) -> i32 {
            vectors::compare(a.elements(), b.elements()) as i32
        }
        $(
            #[pg_extern(sql = false, immutable, strict, parallel_safe)]
            fn $name(a: $vector, b: $vector) -> bool {
                vectors::compare(a.elements(), b.elements()).$test()
            }
        )*
    };
}
order!(Vector: vector_cmp, vector_lt = is_lt, vector_le = is_le, vector_eq = is_eq, vector_ne = is_ne,
    vector_ge = is_ge, vector_gt = is_gt);
order!(HalfVector: halfvec_cmp, halfvec_lt = is_lt, halfvec_le = is_le, halfvec_eq = is_eq, halfvec_ne = is_ne,
    halfvec_ge = is_ge, halfvec_gt = is_gt);

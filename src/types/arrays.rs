//! PostgreSQL arrays of numbers, read and written whole: one check and one copy instead of one call per element.
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::{pg_sys, set_varsize_4b, varsize_4b};

use super::error::report;

/// A number that an array can hold by value, without gaps between elements.
///
/// # Safety
/// The type must be valid for every bit pattern, be stored by value in `size_of::<Self>()` bytes, and need no more than
/// eight bytes of alignment.
pub(super) unsafe trait Number: Copy {
    /// The element type's OID.
    const OID: pg_sys::Oid;
    /// The array type's SQL name.
    const ARRAY: &'static str;
}

// SAFETY: int4, float4 and float8 are stored as C stores them, and every bit pattern is a value.
unsafe impl Number for i32 {
    const OID: pg_sys::Oid = pg_sys::INT4OID;
    const ARRAY: &'static str = "integer[]";
}
// SAFETY: as above.
unsafe impl Number for f32 {
    const OID: pg_sys::Oid = pg_sys::FLOAT4OID;
    const ARRAY: &'static str = "real[]";
}
// SAFETY: as above.
unsafe impl Number for f64 {
    const OID: pg_sys::Oid = pg_sys::FLOAT8OID;
    const ARRAY: &'static str = "double precision[]";
}

/// One-dimensional, at least one element or none, no NULLs: what vectors are made from.
pub(super) struct Shape {
    pub(super) array: *mut pg_sys::ArrayType,
    pub(super) elements: usize,
}

impl Shape {
    /// Detoasts the array and refuses what is no list of numbers.
    ///
    /// # Safety
    /// `datum` must be a non-null array that PostgreSQL handed out.
    pub(super) unsafe fn of(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller vouches for the datum; a detoasted array starts with its ArrayType, followed by `ndim`
        // lengths, which ArrayGetNItems multiplies with a check for overflow.
        unsafe {
            let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let lengths: *mut i32 = array.add(1).cast();
            if (*array).ndim > 1 {
                report(
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    "array must be 1-D".into(),
                    None,
                    None,
                );
            }
            if (*array).dataoffset != 0 && pg_sys::array_contains_nulls(array) {
                let code = PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED;
                report(code, "array must not contain nulls".into(), None, None);
            }
            let elements = pg_sys::ArrayGetNItems((*array).ndim, lengths).max(0) as usize;
            Shape { array, elements }
        }
    }
}

/// An array of numbers in PostgreSQL's memory.
pub(super) struct NumberArray<T> {
    data: *mut T,
    elements: usize,
    array: *mut pg_sys::ArrayType,
}

impl<T: Number> NumberArray<T> {
    /// The bytes before the first element: the ArrayType, one length, one lower bound, rounded up to 8.
    const HEADER: usize = (size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>()).next_multiple_of(8);

    /// Copies `elements` into a new one-dimensional array, counted from 1, in the current memory context.
    pub(super) fn from_elements(elements: impl ExactSizeIterator<Item = T>) -> Self {
        let count = elements.len();
        let size = Self::HEADER + count * size_of::<T>();
        // SAFETY: palloc0 returns `size` zeroed, MAXALIGNed bytes or raises an ERROR; the header and `count` elements
        // are written within them; vectors have at most 16,000 elements, so that the size fits.
        unsafe {
            let array: *mut pg_sys::ArrayType = pg_sys::palloc0(size).cast();
            set_varsize_4b(array.cast(), size as i32);
            (*array).ndim = 1;
            (*array).dataoffset = 0;
            (*array).elemtype = T::OID;
            let lengths: *mut i32 = array.add(1).cast();
            *lengths = count as i32;
            *lengths.add(1) = 1;
            let data: *mut T = array.byte_add(Self::HEADER).cast();
            for (i, element) in elements.enumerate().take(count) {
                *data.add(i) = element;
            }
            NumberArray {
                data,
                elements: count,
                array,
            }
        }
    }

    pub(super) fn elements(&self) -> &[T] {
        // SAFETY: `read` and `from_elements` made sure that the data are there; the array outlives the call.
        unsafe { std::slice::from_raw_parts(self.data, self.elements) }
    }

    /// The elements, to be changed in place. Only for an aggregate's own state.
    pub(super) fn elements_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and nobody else holds the array of a state while its transition function runs.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.elements) }
    }

    /// # Safety
    /// `datum` must be a non-null array that PostgreSQL handed out.
    unsafe fn read(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller vouches for the datum; the data are used only when the array's length covers them.
        unsafe {
            let Shape { array, elements } = Shape::of(datum);
            let offset = match (*array).dataoffset {
                0 => (size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>() * (*array).ndim.max(0) as usize)
                    .next_multiple_of(8),
                offset => offset.max(0) as usize,
            };
            let sound = (*array).elemtype == T::OID
                && elements
                    .checked_mul(size_of::<T>())
                    .and_then(|bytes| bytes.checked_add(offset))
                    .is_some_and(|end| end <= varsize_4b(array.cast()));
            if !sound {
                let message = format!("invalid {} value", T::ARRAY);
                report(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, message, None, None);
            }
            NumberArray {
                data: array.byte_add(offset).cast(),
                elements,
                array,
            }
        }
    }
}

impl<T: Number> FromDatum for NumberArray<T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null || datum.is_null() {
            return None;
        }
        // SAFETY: the caller vouches for the datum.
        Some(unsafe { Self::read(datum) })
    }
}

// SAFETY: read from the datum alone; NULL is known by the flag.
unsafe impl<'fcx, T: Number> ArgAbi<'fcx> for NumberArray<T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the SQL declaration says that the argument is of this type.
        match unsafe { arg.unbox_arg_using_from_datum() } {
            Some(array) => array,
            None => {
                let message = format!("{} argument must not be null", T::ARRAY);
                report(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, message, None, None)
            }
        }
    }
}

// SAFETY: the pointer is to a complete array in the memory context that the caller expects.
unsafe impl<T: Number> BoxRet for NumberArray<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.array)) }
    }
}

macro_rules! sql_translatable {
    ($number:ty, $ident:literal, $sql:literal) => {
        // SAFETY: it is that array type, which PostgreSQL has.
        unsafe impl SqlTranslatable for NumberArray<$number> {
            const TYPE_IDENT: &'static str = concat!(module_path!(), "::", $ident);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}
sql_translatable!(i32, "NumberArrayI32", "integer[]");
sql_translatable!(f32, "NumberArrayF32", "real[]");
sql_translatable!(f64, "NumberArrayF64", "double precision[]");

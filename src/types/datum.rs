//! `vector` and `halfvec` as PostgreSQL stores them, and their way in and out of a function.
//!
//! On disk both are pgvector's: a varlena header (int32), the dimensions (int16), a reserved int16 that is 0, then the
//! elements in the machine's byte order.
use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;

use half::f16;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{PgMemoryContexts, pg_sys, set_varsize_4b, varatt_is_4b_u, varsize_4b};
use vectors::{Element, Error, MAX_DIMENSIONS};

use super::error::{OrRaise, raise};

/// The fixed part of a stored vector; the elements follow it.
#[repr(C)]
struct Header {
    varlena: u32,
    dimensions: i16,
    _unused: i16,
}

const HEADER: usize = size_of::<Header>();

/// The element types with an SQL type of this extension.
pub trait SqlElement: Element {
    /// The SQL name of the vector type, as in `pg_type`.
    const SQL_NAME: &'static CStr;
    /// The type's OID and that of the extension when last looked up in this backend.
    fn cached_oid() -> &'static std::thread::LocalKey<std::cell::Cell<(pg_sys::Oid, pg_sys::Oid)>>;
}

macro_rules! sql_element {
    ($element:ty, $name:literal, $cache:ident) => {
        thread_local! {
            static $cache: std::cell::Cell<(pg_sys::Oid, pg_sys::Oid)> =
                const { std::cell::Cell::new((pg_sys::Oid::INVALID, pg_sys::Oid::INVALID)) };
        }
        impl SqlElement for $element {
            const SQL_NAME: &'static CStr = $name;
            fn cached_oid() -> &'static std::thread::LocalKey<std::cell::Cell<(pg_sys::Oid, pg_sys::Oid)>> {
                &$cache
            }
        }
    };
}
sql_element!(f32, c"vector", VECTOR_OID);
sql_element!(f16, c"halfvec", HALFVEC_OID);

/// A value of the SQL type `vector`.
pub type Vector = Packed<f32>;
/// A value of the SQL type `halfvec`.
pub type HalfVector = Packed<f16>;

/// A vector in PostgreSQL's memory: an argument read in place, or a result allocated in the current memory context.
///
/// The bytes belong to a memory context, so a value must not outlive the context of the call that made it. Only an
/// argument that had to be detoasted owns its copy, and frees it when dropped.
pub struct Packed<E> {
    header: NonNull<Header>,
    owned: bool,
    element: PhantomData<E>,
}

impl<E: SqlElement> Packed<E> {
    /// Copies `elements` into a new value in the current memory context.
    ///
    /// Raises an ERROR when there are none, more than [`MAX_DIMENSIONS`], or when one is not finite.
    pub fn from_elements(elements: &[E]) -> Self {
        vectors::check(elements).or_raise();
        Self::build(elements.len(), |slot| slot.copy_from_slice(elements))
    }

    /// Makes a value of `dimensions` zeros in the current memory context and lets `fill` write the elements, which must
    /// be finite when it is done.
    pub(crate) fn build(dimensions: usize, fill: impl FnOnce(&mut [E])) -> Self {
        let bytes = HEADER + dimensions * size_of::<E>();
        let Ok(stated) = i16::try_from(dimensions) else {
            raise(Error::TooManyDimensions {
                type_name: E::TYPE_NAME,
            })
        };
        if dimensions > MAX_DIMENSIONS {
            raise(Error::TooManyDimensions {
                type_name: E::TYPE_NAME,
            })
        }
        // SAFETY: palloc0 returns `bytes` zeroed, MAXALIGNed bytes or raises an ERROR; `bytes` is at most 64,008, so
        // the length fits the varlena header; zero is a valid f32 and f16; the slice covers what was allocated.
        unsafe {
            let start = pg_sys::palloc0(bytes);
            set_varsize_4b(start.cast(), bytes as i32);
            let header = start.cast::<Header>();
            (*header).dimensions = stated;
            fill(std::slice::from_raw_parts_mut(
                start.byte_add(HEADER).cast::<E>(),
                dimensions,
            ));
            Packed {
                header: NonNull::new_unchecked(header),
                owned: false,
                element: PhantomData,
            }
        }
    }

    /// The elements, in place.
    #[inline(always)]
    pub fn elements(&self) -> &[E] {
        // SAFETY: `read` checked that the value's length covers its dimensions, and `build` made it so; both elements
        // are valid for every bit pattern, and PostgreSQL aligns the type to 4 bytes.
        unsafe {
            let dimensions = (*self.header.as_ptr()).dimensions as usize;
            std::slice::from_raw_parts(self.header.as_ptr().byte_add(HEADER).cast::<E>(), dimensions)
        }
    }

    /// Number of elements, 1 to [`MAX_DIMENSIONS`].
    #[inline(always)]
    pub fn dimensions(&self) -> usize {
        self.elements().len()
    }

    /// The elements of a datum that lies uncompressed in memory and is sound, else `None`.
    /// Neither allocates nor raises.
    ///
    /// # Safety
    /// `datum` must be a non-null varlena that PostgreSQL handed out and that stays valid as
    /// long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn in_place<'a>(datum: pg_sys::Datum) -> Option<&'a [E]> {
        // SAFETY: the caller vouches for the varlena; the header is read only after `bytes` shows that it is there, the
        // elements are handed out only when `bytes` covers them.
        unsafe {
            let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
            if !varatt_is_4b_u(varlena) {
                return None;
            }
            let bytes = varsize_4b(varlena);
            let dimensions = if bytes < HEADER {
                0
            } else {
                usize::try_from((*varlena.cast::<Header>()).dimensions).ok()?
            };
            ((1..=MAX_DIMENSIONS).contains(&dimensions) && bytes == HEADER + dimensions * size_of::<E>())
                .then(|| std::slice::from_raw_parts(varlena.byte_add(HEADER).cast::<E>(), dimensions))
        }
    }

    /// Reads a datum in place when it lies there uncompressed, else detoasts a copy into the current memory context.
    ///
    /// Raises an ERROR when the value's length and its dimensions disagree.
    ///
    /// # Safety
    /// `datum` must be a non-null varlena that PostgreSQL handed out and that stays valid as
    /// long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn read(datum: pg_sys::Datum, free_copy: bool) -> Self {
        // SAFETY: the caller vouches for the varlena, and pg_detoast_datum returns another that is uncompressed.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let varlena = if varatt_is_4b_u(given) {
                given
            } else {
                pg_sys::pg_detoast_datum(given)
            };
            if Self::in_place(pg_sys::Datum::from(varlena)).is_none() {
                let bytes = varsize_4b(varlena);
                let dimensions = if bytes < HEADER {
                    0
                } else {
                    (*varlena.cast::<Header>()).dimensions
                };
                raise(Error::Corrupted {
                    type_name: E::TYPE_NAME,
                    bytes,
                    dimensions: dimensions.into(),
                });
            }
            Packed {
                header: NonNull::new_unchecked(varlena.cast()),
                owned: free_copy && varlena != given,
                element: PhantomData,
            }
        }
    }

    /// The SQL type's OID, wherever the extension is installed and whatever else is called so.
    fn find_type_oid() -> pg_sys::Oid {
        // SAFETY: ordinary catalogue look-ups inside a transaction; the names are NUL-terminated.
        unsafe {
            let extension = pg_sys::get_extension_oid(c"copymatch".as_ptr(), false);
            let (known_extension, known) = E::cached_oid().get();
            if known_extension == extension {
                return known;
            }
            let found = pg_sys::getExtensionType(extension, E::SQL_NAME.as_ptr());
            // While CREATE EXTENSION runs, the extension is there before its type is.
            if found != pg_sys::Oid::INVALID {
                E::cached_oid().set((extension, found));
            }
            found
        }
    }

    fn into_raw(self) -> pg_sys::Datum {
        let datum = pg_sys::Datum::from(self.header.as_ptr());
        std::mem::forget(self);
        datum
    }
}

impl<E> Drop for Packed<E> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: an owned value is the copy that pg_detoast_datum allocated during the current call.
            unsafe { pg_sys::pfree(self.header.as_ptr().cast()) }
        }
    }
}

impl<E: SqlElement> FromDatum for Packed<E> {
    #[inline]
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null || datum.is_null() {
            return None;
        }
        // SAFETY: the caller vouches for the datum.
        Some(unsafe { Self::read(datum, false) })
    }

    unsafe fn from_datum_in_memory_context(
        mut context: PgMemoryContexts,
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null || datum.is_null() {
            return None;
        }
        // SAFETY: the caller vouches for the datum; the copy is made whether or not it is toasted, because the context
        // is to outlive what the datum points to (an SPI tuple table, for instance).
        unsafe {
            context.switch_to(|_| {
                let copy = pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr());
                Some(Self::read(pg_sys::Datum::from(copy), false))
            })
        }
    }
}

impl<E: SqlElement> IntoDatum for Packed<E> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.into_raw())
    }

    fn type_oid() -> pg_sys::Oid {
        Self::find_type_oid()
    }
}

// SAFETY: a Packed is read from the datum alone and knows SQL NULL by the flag.
unsafe impl<'fcx, E: SqlElement> ArgAbi<'fcx> for Packed<E> {
    #[inline(always)]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the SQL declaration says that the argument is of this type.
        match unsafe { arg.unbox_arg_using_from_datum::<ArgumentOf<E>>() } {
            Some(value) => value.0,
            None => super::error::report(
                pgrx::PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("{} argument must not be null", E::TYPE_NAME),
                None,
                None,
            ),
        }
    }

    #[inline(always)]
    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum::<ArgumentOf<E>>() }
            .map(|value| value.0)
            .into()
    }
}

/// A function argument: the one place where a detoasted copy is known to live in the current call.
struct ArgumentOf<E>(Packed<E>);

impl<E: SqlElement> FromDatum for ArgumentOf<E> {
    #[inline(always)]
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null || datum.is_null() {
            return None;
        }
        // SAFETY: the caller vouches for the datum.
        Some(ArgumentOf(unsafe { Packed::read(datum, true) }))
    }
}

// SAFETY: elements of an array are ordinary varlenas of the type.
unsafe impl<E: SqlElement> UnboxDatum for Packed<E> {
    type As<'src>
        = Packed<E>
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Packed<E>
    where
        Self: 'src,
    {
        // SAFETY: the caller vouches for the datum.
        unsafe { Self::read(datum.sans_lifetime(), false) }
    }
}

// SAFETY: the datum points to a complete varlena of the type in the current memory context.
unsafe impl<E: SqlElement> BoxRet for Packed<E> {
    #[inline]
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.into_raw()) }
    }
}

macro_rules! sql_translatable {
    ($vector:ty, $ident:literal, $name:literal) => {
        // SAFETY: the SQL type of that name is declared in sql/types.sql.
        unsafe impl SqlTranslatable for $vector {
            const TYPE_IDENT: &'static str = concat!(module_path!(), "::", $ident);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($name));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($name)));
        }
    };
}
sql_translatable!(Vector, "Vector", "vector");
sql_translatable!(HalfVector, "HalfVector", "halfvec");

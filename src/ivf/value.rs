//! A vector or bit string in PostgreSQL's memory, read by an element type that is known at run time only.
use half::f16;
use pgrx::prelude::*;
use pgrx::{varatt_is_4b_u, varsize_4b};

use crate::failure::Failure;

/// How an element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// `vector`.
    Single,
    /// `halfvec`.
    Half,
    /// `bit`: zeros and ones. The Hamming distance is the square of the Euclidean one.
    Bit,
}

/// Varlena header, dimensions (int16) and a reserved int16; the elements follow (see `types/datum.rs`). Of `bit`:
/// varlena header, number of bits (int32), bytes.
const HEADER: usize = 8;
const DIMENSIONS_AT: usize = 4;

/// The elements of a vector, in place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Elements<'a> {
    Single(&'a [f32]),
    Half(&'a [f16]),
    /// Bytes and the number of bits in them, the highest of each byte first.
    Bits(&'a [u8], usize),
}

impl Elements<'_> {
    pub fn len(&self) -> usize {
        match self {
            Elements::Single(elements) => elements.len(),
            Elements::Half(elements) => elements.len(),
            Elements::Bits(_, count) => *count,
        }
    }

    /// A copy that outlives the value.
    pub fn to_owned(self) -> Owned {
        match self {
            Elements::Single(elements) => Owned::Single(elements.to_vec()),
            Elements::Half(elements) => Owned::Half(elements.to_vec()),
            Elements::Bits(bytes, count) => Owned::Bits(bytes.to_vec(), count),
        }
    }
}

/// The elements of a vector in memory of our own.
#[derive(Debug, Clone)]
pub(super) enum Owned {
    Single(Vec<f32>),
    Half(Vec<f16>),
    Bits(Vec<u8>, usize),
}

impl Owned {
    pub fn elements(&self) -> Elements<'_> {
        match self {
            Owned::Single(elements) => Elements::Single(elements),
            Owned::Half(elements) => Elements::Half(elements),
            Owned::Bits(bytes, count) => Elements::Bits(bytes, *count),
        }
    }
}

/// A value of an indexed column: read in place where it lies uncompressed, else a detoasted copy that is freed on drop.
pub(super) struct Value {
    varlena: *mut pg_sys::varlena,
    owned: bool,
    element: Element,
    dimensions: usize,
}

impl Value {
    /// # Safety
    /// `datum` must be a non-null value of the element's vector type that stays valid as long as the result is used.
    pub unsafe fn read(datum: pg_sys::Datum, element: Element) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the varlena; pg_detoast_datum returns another that is uncompressed. The
        // dimensions are read only when the length shows that they are there.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let varlena = if varatt_is_4b_u(given) {
                given
            } else {
                pg_sys::pg_detoast_datum(given)
            };
            let mut value = Value {
                varlena,
                owned: varlena != given,
                element,
                dimensions: 0,
            };
            let bytes = varsize_4b(varlena);
            let stated = match element {
                _ if bytes < HEADER => 0,
                Element::Bit => varlena.byte_add(DIMENSIONS_AT).cast::<i32>().read(),
                Element::Single | Element::Half => varlena.byte_add(DIMENSIONS_AT).cast::<i16>().read().into(),
            };
            value.dimensions = usize::try_from(stated).unwrap_or(0);
            if value.dimensions == 0 || bytes != HEADER + size(element, value.dimensions) {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    format!("a vector of {bytes} bytes states {stated} dimensions"),
                ));
            }
            Ok(value)
        }
    }

    pub fn elements(&self) -> Elements<'_> {
        // SAFETY: `read` checked that the value's length covers its dimensions; both elements are valid for every bit
        // pattern, and PostgreSQL aligns the type to 4 bytes.
        unsafe {
            let start = self.varlena.byte_add(HEADER);
            match self.element {
                Element::Single => Elements::Single(std::slice::from_raw_parts(start.cast(), self.dimensions)),
                Element::Half => Elements::Half(std::slice::from_raw_parts(start.cast(), self.dimensions)),
                Element::Bit => Elements::Bits(
                    std::slice::from_raw_parts(start.cast(), size(self.element, self.dimensions)),
                    self.dimensions,
                ),
            }
        }
    }
}

/// Bytes of so many elements.
fn size(element: Element, dimensions: usize) -> usize {
    match element {
        Element::Single => dimensions * size_of::<f32>(),
        Element::Half => dimensions * size_of::<f16>(),
        Element::Bit => dimensions.div_ceil(8),
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // An error frees the memory context, copy and all.
        if self.owned && !std::thread::panicking() {
            // SAFETY: an owned value is the copy that pg_detoast_datum allocated, and nobody else knows it.
            unsafe { pg_sys::pfree(self.varlena.cast()) }
        }
    }
}

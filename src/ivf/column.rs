//! What an index's first column, the vector, holds: the element type and the metric come from the operator class, the
//! dimensions from the type modifier.
use std::borrow::Cow;

use ivf_core::Metric;
use pgrx::prelude::*;

use super::filters::Kind;
use super::operators::KIND_PROCEDURE;
use super::options;
use super::value::{Element, Elements, Value};
use crate::failure::Failure;

/// Dimensions to reckon with where an index does not exist yet.
pub(super) const USUAL_DIMENSIONS: usize = 256;

/// What a support function returns is the metric's number, and this for each element type.
const ELEMENT: i32 = 16;

/// The column of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub element: Element,
    pub metric: Metric,
}

/// Exports the support function of one operator class and the record by which PostgreSQL knows its calling convention.
macro_rules! support {
    ($($name:ident, $record:ident: $element:ident, $metric:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C-unwind" fn $name(_: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                pg_sys::Datum::from(Column { element: Element::$element, metric: Metric::$metric }.code())
            }

            #[unsafe(no_mangle)]
            extern "C" fn $record() -> &'static pg_sys::Pg_finfo_record {
                &pg_sys::Pg_finfo_record { api_version: 1 }
            }
        )*
    };
}
support! {
    ivf_vector_l2, pg_finfo_ivf_vector_l2: Single, L2;
    ivf_vector_ip, pg_finfo_ivf_vector_ip: Single, InnerProduct;
    ivf_vector_cosine, pg_finfo_ivf_vector_cosine: Single, Cosine;
    ivf_halfvec_l2, pg_finfo_ivf_halfvec_l2: Half, L2;
    ivf_halfvec_ip, pg_finfo_ivf_halfvec_ip: Half, InnerProduct;
    ivf_halfvec_cosine, pg_finfo_ivf_halfvec_cosine: Half, Cosine;
    ivf_bit_hamming, pg_finfo_ivf_bit_hamming: Bit, L2;
}

impl Column {
    fn code(self) -> i32 {
        self.metric as i32 + ELEMENT * self.element as i32
    }

    fn from_code(code: i32) -> Option<Self> {
        let element = [Element::Single, Element::Half, Element::Bit]
            .into_iter()
            .find(|known| *known as i32 == (code - 1) / ELEMENT)?;
        let metric = [Metric::L2, Metric::InnerProduct, Metric::Cosine]
            .into_iter()
            .find(|known| *known as i32 == code - ELEMENT * element as i32)?;
        Some(Column { element, metric })
    }

    /// Asks the operator class of an index.
    ///
    /// # Safety
    /// `index` must be an open index of this access method.
    pub unsafe fn of(index: pg_sys::Relation) -> Result<Self, Failure> {
        // SAFETY: an index has a first column; the support function takes an argument that it ignores.
        let code = unsafe {
            let procedure = pg_sys::index_getprocinfo(index, 1, KIND_PROCEDURE);
            pg_sys::FunctionCall1Coll(procedure, pg_sys::InvalidOid, pg_sys::Datum::from(0))
        };
        let code = code.value() as i32;
        if Kind::from_code(code).is_some() {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "the first column of an ivf index must be a vector",
            )
            .hint("Columns for conditions come behind it: USING ivf (descriptor, tenant)."));
        }
        Self::from_code(code).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
                "support function 1 of the operator class returns an unknown code",
            )
        })
    }

    /// The dimensions that the vector column's or expression's type modifier states, or else the index's own option: a
    /// column may lose its modifier under an index (`ALTER COLUMN … TYPE vector`), which
    /// PostgreSQL does not rebuild then.
    ///
    /// # Errors
    /// None are stated, or more than an index takes.
    ///
    /// # Safety
    /// `index` must be an open index of this access method.
    pub unsafe fn dimensions(index: pg_sys::Relation) -> Result<usize, Failure> {
        // SAFETY: an index has a first column.
        let (modifier, option) = unsafe { ((*attribute((*index).rd_att)).atttypmod, options::dimensions(index)) };
        let dimensions = match usize::try_from(modifier) {
            Ok(stated) if stated > 0 => stated,
            _ => option.map_or(0, |option| option as usize),
        };
        if dimensions == 0 {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "column does not have dimensions",
            )
            .hint(
                "An index needs a column type such as vector(256), an expression such as ((descriptor::vector(256))), \
                 or WITH (dimensions = 256); ALTER INDEX … SET (dimensions = 256) mends one that is there.",
            ));
        }
        if dimensions > ivf_core::MAX_DIMENSIONS {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "column cannot have more than {} dimensions for ivf index",
                    ivf_core::MAX_DIMENSIONS
                ),
            ));
        }
        Ok(dimensions)
    }

    /// The distance by which the index orders: that of the SQL operator, or for `bit` its root.
    pub fn distance(self, a: Elements<'_>, b: Elements<'_>) -> ivf_core::Result<f64> {
        let differ = || ivf_core::Error::Dimensions {
            expected: b.len(),
            actual: a.len(),
        };
        fn of<E: vectors::Element>(metric: Metric, a: &[E], b: &[E]) -> Result<f64, vectors::Error> {
            match metric {
                Metric::L2 => vectors::l2_distance(a, b),
                Metric::InnerProduct => vectors::negative_inner_product(a, b),
                Metric::Cosine => vectors::cosine_distance(a, b),
            }
        }
        match (a, b) {
            (Elements::Single(a), Elements::Single(b)) => of(self.metric, a, b).map_err(|_| differ()),
            (Elements::Half(a), Elements::Half(b)) => of(self.metric, a, b).map_err(|_| differ()),
            (Elements::Bits(..), Elements::Bits(..)) if a.len() != b.len() => Err(differ()),
            (Elements::Bits(a, _), Elements::Bits(b, _)) => Ok(vectors::hamming_distance(a, b).sqrt()),
            _ => Err(ivf_core::Error::Store("a vector of another element type".to_owned())),
        }
    }

    /// A distance of the index as the SQL operator states it.
    pub fn stated(self, distance: f64) -> f64 {
        match self.element {
            Element::Bit => (distance * distance).round(),
            Element::Single | Element::Half => distance,
        }
    }

    /// What a bound on the SQL operator's distance is to the index. NaN: no row is that near.
    pub fn bound(self, stated: f64) -> f64 {
        match self.element {
            Element::Bit => stated.sqrt(),
            Element::Single | Element::Half => stated,
        }
    }

    /// The error of the SQL operator for a query of another length.
    pub fn different(self, expected: usize, actual: usize) -> vectors::Error {
        match self.element {
            Element::Bit => vectors::check_lengths(expected, actual).err(),
            Element::Single | Element::Half => None,
        }
        .unwrap_or(vectors::Error::DifferentDimensions {
            type_name: if self.element == Element::Half {
                "halfvec"
            } else {
                "vector"
            },
            left: expected,
            right: actual,
        })
    }

    /// Reads a value of the column.
    ///
    /// # Safety
    /// `datum` must be a non-null value of the column's type that stays valid as long as the result is used.
    pub unsafe fn read(self, datum: pg_sys::Datum) -> Result<Value, Failure> {
        // SAFETY: the caller vouches for the datum.
        unsafe { Value::read(datum, self.element) }
    }
}

/// A vector's elements as the index takes them.
pub(super) fn widened<'a>(elements: Elements<'a>) -> Cow<'a, [f32]> {
    match elements {
        Elements::Single(elements) => Cow::Borrowed(elements),
        Elements::Half(elements) => Cow::Owned(vectors::widen(elements)),
        Elements::Bits(bytes, count) => Cow::Owned(
            (0..count)
                .map(|at| f32::from(u8::from(bytes[at / 8] & (0x80 >> (at % 8)) != 0)))
                .collect(),
        ),
    }
}

#[cfg(feature = "pg18")]
unsafe fn attribute(descriptor: pg_sys::TupleDesc) -> pg_sys::Form_pg_attribute {
    // SAFETY: the caller vouches for a descriptor of at least one attribute.
    unsafe { pg_sys::TupleDescAttr(descriptor, 0) }
}

#[cfg(not(feature = "pg18"))]
unsafe fn attribute(descriptor: pg_sys::TupleDesc) -> pg_sys::Form_pg_attribute {
    // SAFETY: the caller vouches for a descriptor of at least one attribute.
    unsafe { (*descriptor).attrs.as_mut_ptr() }
}

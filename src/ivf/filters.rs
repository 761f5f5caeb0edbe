//! Filter columns: every column of an index behind its first. Their values lie beside the codes as whole numbers, and
//! conditions on them come as scan keys, which PostgreSQL makes of what it finds in the operator classes.
use ivf_core::{Filter, FilterLayout, MOST_FILTERS, Meta, Test};
use pgrx::prelude::*;
use pgrx::varatt_is_4b_u;

use crate::failure::Failure;

use super::operators::KIND_PROCEDURE;

/// The strategies of a filter column's operators; 1 and 2 are those of the vector.
const LESS: u16 = 3;
const LESS_OR_EQUAL: u16 = 4;
const EQUAL: u16 = 5;
const GREATER_OR_EQUAL: u16 = 6;
pub(super) const GREATER: u16 = 7;

/// What support function 1 of a filter column's operator class returns: this, and the kind's number.
const FILTER: i32 = 256;
/// PostgreSQL's functions; their OIDs never change.
const HASHTEXT: u32 = 400;
const DATE_TIMESTAMPTZ: u32 = 1174;
const TIMESTAMP_TIMESTAMPTZ: u32 = 2028;
/// Microseconds of a day, in which PostgreSQL counts timestamps.
const DAY: i128 = 86_400_000_000;
/// Days from 2000-01-01 to the first and last that a timestamp can state in every time zone.
const DAYS: std::ops::Range<i32> = -2_451_540..106_751_900;

/// What a filter column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool = 1,
    Int2,
    Int4,
    Int8,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    /// Its hash: equality only, and the row's own value decides.
    Text,
}

const KINDS: [Kind; 9] = [
    Kind::Bool,
    Kind::Int2,
    Kind::Int4,
    Kind::Int8,
    Kind::Date,
    Kind::Timestamp,
    Kind::TimestampTz,
    Kind::Uuid,
    Kind::Text,
];

/// Exports the support function of one operator class and the record by which PostgreSQL knows its calling convention.
macro_rules! support {
    ($($name:ident, $record:ident: $kind:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C-unwind" fn $name(_: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                pg_sys::Datum::from(FILTER + Kind::$kind as i32)
            }

            #[unsafe(no_mangle)]
            extern "C" fn $record() -> &'static pg_sys::Pg_finfo_record {
                &pg_sys::Pg_finfo_record { api_version: 1 }
            }
        )*
    };
}
support! {
    ivf_filter_bool, pg_finfo_ivf_filter_bool: Bool;
    ivf_filter_int2, pg_finfo_ivf_filter_int2: Int2;
    ivf_filter_int4, pg_finfo_ivf_filter_int4: Int4;
    ivf_filter_int8, pg_finfo_ivf_filter_int8: Int8;
    ivf_filter_date, pg_finfo_ivf_filter_date: Date;
    ivf_filter_timestamp, pg_finfo_ivf_filter_timestamp: Timestamp;
    ivf_filter_timestamptz, pg_finfo_ivf_filter_timestamptz: TimestampTz;
    ivf_filter_uuid, pg_finfo_ivf_filter_uuid: Uuid;
    ivf_filter_text, pg_finfo_ivf_filter_text: Text;
}

impl Kind {
    /// By what a support function returns; none for a vector's.
    pub fn from_code(code: i32) -> Option<Self> {
        KINDS.into_iter().find(|kind| FILTER + *kind as i32 == code)
    }

    /// By the type of an operator class.
    pub fn of_type(oid: pg_sys::Oid) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.oid() == oid)
    }

    fn oid(self) -> pg_sys::Oid {
        match self {
            Kind::Bool => pg_sys::BOOLOID,
            Kind::Int2 => pg_sys::INT2OID,
            Kind::Int4 => pg_sys::INT4OID,
            Kind::Int8 => pg_sys::INT8OID,
            Kind::Date => pg_sys::DATEOID,
            Kind::Timestamp => pg_sys::TIMESTAMPOID,
            Kind::TimestampTz => pg_sys::TIMESTAMPTZOID,
            Kind::Uuid => pg_sys::UUIDOID,
            Kind::Text => pg_sys::TEXTOID,
        }
    }

    /// The operators that its class has: for an order, or for equality alone.
    pub fn strategies(self) -> std::ops::RangeInclusive<u16> {
        match self {
            Kind::Text => EQUAL..=EQUAL,
            _ => LESS..=GREATER,
        }
    }

    /// Bytes of a stored value.
    fn width(self) -> usize {
        match self {
            Kind::Bool => 1,
            Kind::Int2 => 2,
            Kind::Int4 | Kind::Date | Kind::Text => 4,
            Kind::Int8 | Kind::Timestamp | Kind::TimestampTz => 8,
            Kind::Uuid => 16,
        }
    }

    /// A value as the index stores it, in the order of the values.
    ///
    /// # Safety
    /// `datum` must be a valid value of the kind's type, or for text of one that is stored alike.
    unsafe fn number(self, datum: pg_sys::Datum, collation: pg_sys::Oid) -> i128 {
        let bits = datum.value();
        match self {
            Kind::Bool => i128::from(bits as u8 != 0),
            Kind::Int2 => i128::from(bits as i16),
            Kind::Int4 | Kind::Date => i128::from(bits as i32),
            Kind::Int8 | Kind::Timestamp | Kind::TimestampTz => i128::from(bits as i64),
            // SAFETY: the caller vouches for the value, which has 16 bytes. They compare as unsigned ones.
            Kind::Uuid => unsafe {
                let bytes: [u8; 16] = datum.cast_mut_ptr::<[u8; 16]>().read_unaligned();
                (u128::from_be_bytes(bytes) ^ 1 << 127).cast_signed()
            },
            // SAFETY: the caller vouches for the value. PostgreSQL's own hash knows the collation: what it holds for
            // equal has the same.
            Kind::Text => unsafe {
                let hash = pg_sys::OidFunctionCall1Coll(HASHTEXT.into(), collation, datum);
                i128::from(hash.value() as i32)
            },
        }
    }
}

/// What a comparison's other side is to a column.
enum Operand {
    /// This very value.
    Exactly(i128),
    /// Between two values beside each other.
    Behind(i128),
    /// Nothing that can be told from here: the row's own value decides.
    Unknown,
}

impl Operand {
    /// What a column must be that stands before it by an operator.
    fn test(&self, strategy: u16) -> Option<Test> {
        const NOTHING: Test = Test::Within(1, 0);
        let until = |last: Option<i128>| last.map_or(NOTHING, |last| Test::Within(i128::MIN, last));
        let from = |first: Option<i128>| first.map_or(NOTHING, |first| Test::Within(first, i128::MAX));
        Some(match (strategy, self) {
            (_, Operand::Unknown) => return None,
            (LESS, Operand::Exactly(value)) => until(value.checked_sub(1)),
            (LESS_OR_EQUAL, Operand::Exactly(value)) | (LESS | LESS_OR_EQUAL, Operand::Behind(value)) => {
                until(Some(*value))
            }
            (EQUAL, Operand::Exactly(value)) => Test::Within(*value, *value),
            (EQUAL, Operand::Behind(_)) => NOTHING,
            (GREATER_OR_EQUAL, Operand::Exactly(value)) => from(Some(*value)),
            (GREATER, Operand::Exactly(value)) | (GREATER | GREATER_OR_EQUAL, Operand::Behind(value)) => {
                from(value.checked_add(1))
            }
            _ => return None,
        })
    }
}

/// A filter column.
#[derive(Debug, Clone, Copy)]
struct Column {
    kind: Kind,
    collation: pg_sys::Oid,
}

impl Column {
    /// The other side of a comparison; `subtype` is its type, or none where it is the column's own.
    ///
    /// # Safety
    /// `datum` must be a valid value of that type.
    unsafe fn operand(self, datum: pg_sys::Datum, subtype: pg_sys::Oid) -> Operand {
        // SAFETY: the caller vouches for the value.
        unsafe {
            let theirs = match Kind::of_type(subtype) {
                Some(kind) => kind,
                // Types that PostgreSQL stores alike come under the operator class's own.
                None => self.kind,
            };
            let number = theirs.number(datum, self.collation);
            match (self.kind, theirs) {
                (Kind::Date, Kind::Timestamp) => day_of(number),
                (Kind::Timestamp, Kind::Date) => Operand::Exactly(midnight(number)),
                (Kind::TimestampTz, Kind::Date | Kind::Timestamp) => in_session_zone(datum, theirs, number),
                _ => Operand::Exactly(number),
            }
        }
    }
}

/// A timestamp among days.
fn day_of(timestamp: i128) -> Operand {
    if timestamp == i128::from(i64::MIN) {
        Operand::Exactly(i128::from(i32::MIN))
    } else if timestamp == i128::from(i64::MAX) {
        Operand::Exactly(i128::from(i32::MAX))
    } else if timestamp.rem_euclid(DAY) == 0 {
        Operand::Exactly(timestamp.div_euclid(DAY))
    } else {
        Operand::Behind(timestamp.div_euclid(DAY))
    }
}

/// A day among timestamps. One beyond what these can state is beyond all of them but infinity.
fn midnight(day: i128) -> i128 {
    if day == i128::from(i32::MIN) {
        i128::from(i64::MIN)
    } else if day == i128::from(i32::MAX) {
        i128::from(i64::MAX)
    } else {
        (day * DAY).clamp(i128::from(i64::MIN) + 1, i128::from(i64::MAX) - 1)
    }
}

/// A date or a timestamp without time zone among those with one, as the session's zone has it.
///
/// # Safety
/// `datum` must be a valid value of the kind; `number` the same.
unsafe fn in_session_zone(datum: pg_sys::Datum, kind: Kind, number: i128) -> Operand {
    let (least, most, days) = match kind {
        Kind::Date => (i128::from(i32::MIN), i128::from(i32::MAX), number),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX), number.div_euclid(DAY)),
    };
    if number == least {
        return Operand::Exactly(i128::from(i64::MIN));
    }
    if number == most {
        return Operand::Exactly(i128::from(i64::MAX));
    }
    // PostgreSQL's cast would be an error where its comparison is none.
    if !(i128::from(DAYS.start)..i128::from(DAYS.end)).contains(&days) {
        return Operand::Unknown;
    }
    let cast = if kind == Kind::Date {
        DATE_TIMESTAMPTZ
    } else {
        TIMESTAMP_TIMESTAMPTZ
    };
    // SAFETY: the caller vouches for the value.
    let converted = unsafe { pg_sys::OidFunctionCall1Coll(cast.into(), pg_sys::InvalidOid, datum) };
    Operand::Exactly(i128::from(converted.value() as i64))
}

/// The filter columns of an index.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    columns: Vec<Column>,
}

impl Filters {
    /// Asks the operator classes of an index.
    ///
    /// # Errors
    /// Too many of them, or a second vector.
    ///
    /// # Safety
    /// `index` must be an open index of this access method.
    pub unsafe fn of(index: pg_sys::Relation) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the index; a column has a support function and a collation. The function takes
        // an argument that it ignores.
        unsafe {
            let attributes = (*(*index).rd_index).indnkeyatts;
            if attributes as usize > 1 + MOST_FILTERS {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                    format!("an ivf index cannot have more than {MOST_FILTERS} filter columns behind its vector"),
                ));
            }
            let mut columns = Vec::new();
            for attribute in 2..=attributes {
                let procedure = pg_sys::index_getprocinfo(index, attribute, KIND_PROCEDURE);
                let code = pg_sys::FunctionCall1Coll(procedure, pg_sys::InvalidOid, pg_sys::Datum::from(0));
                let Some(kind) = Kind::from_code(code.value() as i32) else {
                    return Err(Failure::new(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "an ivf index has one vector, its first column",
                    )
                    .hint("Columns behind it are for conditions; make an index for each vector."));
                };
                let collation = *(*index).rd_indcollation.add(attribute as usize - 1);
                columns.push(Column { kind, collation });
            }
            Ok(Filters { columns })
        }
    }

    /// Where their values lie on the pages.
    pub fn layout(&self) -> Result<FilterLayout, Failure> {
        let widths: Vec<usize> = self.columns.iter().map(|column| column.kind.width()).collect();
        FilterLayout::new(&widths).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "filter columns of widths that the index does not know",
            )
        })
    }

    /// Whether block 0 speaks of these columns.
    pub fn are_those_of(&self, meta: &Meta) -> ivf_core::Result<()> {
        let same = self.layout().is_ok_and(|layout| layout == meta.filters);
        if same {
            return Ok(());
        }
        Err(ivf_core::Error::Corrupted {
            block: 0,
            what: "states other filter columns than the catalogue".to_owned(),
        })
    }

    /// The values of a row.
    ///
    /// # Safety
    /// Both must have an entry for each column of the index, the values being valid where they are not NULL.
    pub unsafe fn values(&self, values: *const pg_sys::Datum, nulls: *const bool) -> Vec<Option<i128>> {
        // SAFETY: the caller vouches for the values, of which the first is the vector.
        self.columns
            .iter()
            .enumerate()
            .map(|(at, column)| unsafe {
                (!*nulls.add(at + 1)).then(|| column.kind.number(*values.add(at + 1), column.collation))
            })
            .collect()
    }

    /// What scan keys ask of a row; none where they ask for the vector's distance at most. Where something is asked,
    /// PostgreSQL must look at the row's own values as well.
    ///
    /// # Safety
    /// The keys must be valid ones of a scan of this index.
    pub unsafe fn asked(&self, keys: &[pg_sys::ScanKeyData]) -> Option<Filter> {
        let mut filter = Filter::new();
        let mut asked = false;
        for key in keys {
            let flags = key.sk_flags as u32;
            let nulls = flags & (pg_sys::SK_SEARCHNULL | pg_sys::SK_SEARCHNOTNULL) != 0;
            if key.sk_attno == 1 && !nulls {
                continue;
            }
            asked = true;
            let Some(at) = usize::try_from(key.sk_attno)
                .ok()
                .and_then(|number| number.checked_sub(2))
            else {
                // A vector that is NULL is not in the index, every other one is.
                if flags & pg_sys::SK_SEARCHNULL != 0 {
                    filter.refuse_all();
                }
                continue;
            };
            let Some(column) = self.columns.get(at) else { continue };
            if flags & pg_sys::SK_SEARCHNULL != 0 {
                filter.add(at, Test::Null);
            } else if flags & pg_sys::SK_SEARCHNOTNULL != 0 {
                filter.add(at, Test::NotNull);
            } else if flags & pg_sys::SK_ISNULL != 0 {
                filter.refuse_all();
            } else {
                // SAFETY: the caller vouches for the key, whose argument is a value or an array of them.
                let test = unsafe {
                    if flags & pg_sys::SK_SEARCHARRAY != 0 {
                        column.any_of(key)
                    } else {
                        column.operand(key.sk_argument, key.sk_subtype).test(key.sk_strategy)
                    }
                };
                if let Some(test) = test {
                    filter.add(at, test);
                }
            }
        }
        asked.then_some(filter)
    }
}

impl Column {
    /// What `column operator ANY (array)` asks.
    ///
    /// # Safety
    /// The key's argument must be an array.
    unsafe fn any_of(self, key: &pg_sys::ScanKeyData) -> Option<Test> {
        // SAFETY: the caller vouches for the array, which deconstruct_array reads by its own element type; the copy, if
        // one was made, lives as long as the scan's context.
        let elements: Vec<Operand> = unsafe {
            let given = key.sk_argument.cast_mut_ptr::<pg_sys::varlena>();
            let array: *mut pg_sys::ArrayType = if varatt_is_4b_u(given) {
                given.cast()
            } else {
                pg_sys::pg_detoast_datum(given).cast()
            };
            let element = (*array).elemtype;
            let (mut width, mut by_value, mut alignment) = (0, false, 0);
            pg_sys::get_typlenbyvalalign(element, &mut width, &mut by_value, &mut alignment);
            let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                element,
                width.into(),
                by_value,
                alignment,
                &mut values,
                &mut nulls,
                &mut count,
            );
            (0..usize::try_from(count).unwrap_or(0))
                .filter(|&at| !*nulls.add(at))
                .map(|at| self.operand(*values.add(at), element))
                .collect()
        };
        if key.sk_strategy == EQUAL {
            let mut values = Vec::with_capacity(elements.len());
            for element in elements {
                match element {
                    Operand::Exactly(value) => values.push(value),
                    Operand::Behind(_) => (),
                    Operand::Unknown => return None,
                }
            }
            return Some(Test::OneOf(values));
        }
        // Less than any of them is less than the greatest: the widest of their ranges.
        let mut widest: Option<(i128, i128)> = None;
        for element in &elements {
            match element.test(key.sk_strategy)? {
                Test::Within(low, high) if low <= high => {
                    widest = Some(widest.map_or((low, high), |(a, b)| (a.min(low), b.max(high))));
                }
                Test::Within(..) => (),
                _ => return None,
            }
        }
        Some(widest.map_or(Test::OneOf(Vec::new()), |(low, high)| Test::Within(low, high)))
    }
}

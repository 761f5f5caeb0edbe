//! `copy_micro_ap` and its relatives: aggregates whose state is a list of predictions, in memory of Rust's that ends
//! with the aggregate's memory context.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::{Internal, IntoDatum, PgMemoryContexts};
use scoring::{MetricError, OperatingPoint, Prediction, Predictions};

use crate::failure::{Failure, boundary};
use crate::interrupts;

/// Most predictions of one aggregate: half a gigabyte of them.
const MOST_PREDICTIONS: usize = 1 << 26;

/// Most points of a curve: an array of more would pass PostgreSQL's limit for a value.
const MOST_POINTS: usize = 10_000_000;

/// The state of an aggregate.
#[derive(Default)]
struct Tally {
    predictions: Predictions,
    /// True pairs, as every row states them.
    positives: Option<i64>,
    /// The precision asked for, as every row states it.
    precision: Option<f64>,
}

impl Tally {
    fn state_positives(&mut self, positives: i64) -> Result<(), Failure> {
        if positives < 0 {
            return Err(invalid(format!("positives is {positives}")).hint(POSITIVES));
        }
        match self.positives.replace(positives) {
            Some(before) if before != positives => {
                Err(invalid(format!("positives is {before} in one row and {positives} in another")).hint(POSITIVES))
            }
            _ => Ok(()),
        }
    }

    fn state_precision(&mut self, precision: f64) -> Result<(), Failure> {
        if !(precision > 0.0 && precision <= 1.0) {
            return Err(invalid(format!("precision is {precision}")).hint("It must be above 0 and at most 1."));
        }
        match self.precision.replace(precision) {
            Some(before) if before != precision => Err(invalid(format!(
                "precision is {before} in one row and {precision} in another"
            ))
            .hint("Ask for one precision an aggregate.")),
            _ => Ok(()),
        }
    }

    fn make_room(&mut self, correct: usize, wrong: usize) -> Result<(), Failure> {
        if self.predictions.len() + correct + wrong > MOST_PREDICTIONS {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("more than {MOST_PREDICTIONS} predictions in one aggregate"),
            )
            .hint("Take each query's ten best references only, as the Image Similarity Challenge does."));
        }
        if self.predictions.try_reserve(correct, wrong) {
            Ok(())
        } else {
            Err(Failure::new(
                PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
                format!("out of memory at {} predictions", self.predictions.len()),
            ))
        }
    }

    fn add(&mut self, score: f64, is_copy: bool) -> Result<(), Failure> {
        self.make_room(usize::from(is_copy), usize::from(!is_copy))?;
        self.predictions
            .push(Prediction {
                score,
                correct: is_copy,
            })
            .map_err(|_| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    "a score is NaN, which has no place in an order",
                )
                .hint("Leave such rows out, or make their score NULL: rows with NULL are not counted.")
            })
    }

    fn add_all(&mut self, other: &Tally) -> Result<(), Failure> {
        if let Some(positives) = other.positives {
            self.state_positives(positives)?;
        }
        if let Some(precision) = other.precision {
            self.state_precision(precision)?;
        }
        // Which kind they are is not known here; either may be all.
        self.make_room(other.predictions.len(), 0)?;
        self.predictions.extend(&other.predictions);
        Ok(())
    }

    /// True pairs; None where recall is undefined: no row, or no true pair among none returned.
    fn positives(&self) -> Result<Option<usize>, Failure> {
        let Some(positives) = self.positives else {
            return Ok(None);
        };
        if positives == 0 && self.predictions.copies() == 0 {
            return Ok(None);
        }
        Ok(usize::try_from(positives).ok())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.positives.unwrap_or(-1).to_le_bytes());
        bytes.extend_from_slice(&self.precision.unwrap_or(-1.0).to_le_bytes());
        bytes.extend_from_slice(&self.predictions.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Tally> {
        let (positives, rest) = bytes.split_first_chunk()?;
        let (precision, rest) = rest.split_first_chunk()?;
        Some(Tally {
            positives: Some(i64::from_le_bytes(*positives)).filter(|positives| *positives >= 0),
            precision: Some(f64::from_le_bytes(*precision)).filter(|precision| *precision > 0.0),
            predictions: Predictions::from_bytes(rest).ok()?,
        })
    }
}

const POSITIVES: &str = "It is the number of true pairs, those that no query found included: the same in every row of \
                         a group, and at least the number of rows with is_copy.";

fn invalid(message: String) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

fn metric(error: MetricError) -> Failure {
    invalid(error.to_string()).hint(POSITIVES)
}

/// The memory context of the aggregate that calls.
fn aggregate_context(fcinfo: pg_sys::FunctionCallInfo) -> Result<PgMemoryContexts, Failure> {
    let mut context: pg_sys::MemoryContext = std::ptr::null_mut();
    // SAFETY: fcinfo is that of the current call.
    if unsafe { pg_sys::AggCheckCallContext(fcinfo, &mut context) } == 0 {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "this function belongs to an aggregate and is not called by itself",
        ));
    }
    Ok(PgMemoryContexts::For(context))
}

/// The state, made at the first row.
fn tally<'a>(state: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Result<&'a mut Tally, Failure> {
    let mut context = aggregate_context(fcinfo)?;
    // SAFETY: an `internal` state of these aggregates is a Tally that lives as long as the aggregate's context, which
    // outlives the call; PostgreSQL calls with one state at a time.
    unsafe {
        Ok(match state.into_datum() {
            Some(datum) => &mut *datum.cast_mut_ptr::<Tally>(),
            None => &mut *context.leak_and_drop_on_delete(Tally::default()),
        })
    }
}

fn state(tally: &mut Tally) -> Internal {
    Internal::from(Some(pg_sys::Datum::from(std::ptr::from_mut(tally))))
}

/// The state behind a finished aggregate, None where no row came.
fn finished<'a>(state: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Result<Option<&'a mut Tally>, Failure> {
    aggregate_context(fcinfo)?;
    // SAFETY: as in `tally`. Sorting in place is all that a final function changes, and the order means nothing.
    Ok(unsafe { state.into_datum().map(|datum| &mut *datum.cast_mut_ptr::<Tally>()) })
}

fn accumulate(
    from: Internal,
    score: Option<f64>,
    is_copy: Option<bool>,
    positives: Option<i64>,
    precision: Option<f64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Internal, Failure> {
    let tally = tally(from, fcinfo)?;
    if let Some(positives) = positives {
        tally.state_positives(positives)?;
    }
    if let Some(precision) = precision {
        tally.state_precision(precision)?;
    }
    if let (Some(score), Some(is_copy)) = (score, is_copy) {
        tally.add(score, is_copy)?;
    }
    Ok(state(tally))
}

#[pg_extern(sql = false)]
fn prediction_accum(
    from: Internal,
    score: Option<f64>,
    is_copy: Option<bool>,
    positives: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Internal {
    boundary(|| accumulate(from, score, is_copy, positives, None, fcinfo))
}

#[pg_extern(sql = false)]
fn prediction_accum_precision(
    from: Internal,
    score: Option<f64>,
    is_copy: Option<bool>,
    positives: Option<i64>,
    precision: Option<f64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Internal {
    boundary(|| accumulate(from, score, is_copy, positives, precision, fcinfo))
}

#[pg_extern(sql = false)]
fn prediction_combine(left: Internal, right: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Internal {
    boundary(|| {
        let left = tally(left, fcinfo)?;
        // SAFETY: as in `tally`.
        if let Some(right) = unsafe { right.get::<Tally>() } {
            left.add_all(right)?;
        }
        Ok(state(left))
    })
}

#[pg_extern(sql = false)]
fn prediction_serialize(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Vec<u8> {
    boundary(|| {
        let tally = tally(from, fcinfo)?;
        // Written once by itself, once behind what is known beside it.
        memory::ensure(3 * size_of::<f64>() * tally.predictions.len())?;
        Ok(tally.to_bytes())
    })
}

#[pg_extern(sql = false)]
fn prediction_deserialize(bytes: &[u8], _internal: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Internal {
    boundary(|| {
        aggregate_context(fcinfo)?;
        memory::ensure(bytes.len())?;
        let read = Tally::from_bytes(bytes).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                "these bytes are no aggregate's state",
            )
        })?;
        // The caller's context, as PostgreSQL's own do: the copy is combined and forgotten.
        Ok(Internal::new(read))
    })
}

#[pg_extern(sql = false)]
fn prediction_micro_ap(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Option<f64> {
    boundary(|| {
        let Some(tally) = finished(from, fcinfo)? else {
            return Ok(None);
        };
        let Some(positives) = tally.positives()? else {
            return Ok(None);
        };
        tally
            .predictions
            .micro_average_precision(positives)
            .map(Some)
            .map_err(metric)
    })
}

/// The best point, None where recall is undefined or no precision was asked for; the inner None
/// where it is never reached.
fn best_point(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Result<Option<Option<OperatingPoint>>, Failure> {
    let Some(tally) = finished(from, fcinfo)? else {
        return Ok(None);
    };
    let (Some(positives), Some(precision)) = (tally.positives()?, tally.precision) else {
        return Ok(None);
    };
    tally
        .predictions
        .at_precision(positives, precision)
        .map(Some)
        .map_err(metric)
}

#[pg_extern(sql = false)]
fn prediction_recall(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Option<f64> {
    boundary(|| Ok(best_point(from, fcinfo)?.map(|best| best.map_or(0.0, |point| point.recall))))
}

#[pg_extern(sql = false)]
fn prediction_threshold(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Option<f64> {
    boundary(|| Ok(best_point(from, fcinfo)?.flatten().map(|point| point.threshold)))
}

#[pg_extern(sql = false)]
fn prediction_curve(from: Internal, fcinfo: pg_sys::FunctionCallInfo) -> Option<Curve> {
    boundary(|| {
        let Some(tally) = finished(from, fcinfo)? else {
            return Ok(None);
        };
        let Some(positives) = tally.positives()? else {
            return Ok(None);
        };
        let most = tally.predictions.len();
        memory::ensure(most * (2 * size_of::<OperatingPoint>() + size_of::<pg_sys::Datum>()))?;
        let points = tally.predictions.precision_recall(positives).map_err(metric)?;
        if points.len() > MOST_POINTS {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "the curve has {} points; at most {MOST_POINTS} are returned",
                    points.len()
                ),
            )
            .hint("Round the scores: copy_precision_recall(round(score::numeric, 4), …)."));
        }
        Curve::form(fcinfo, &points).map(Some)
    })
}

/// An array of `copymatch.operating_point`.
struct Curve(pg_sys::Datum);

impl Curve {
    fn form(fcinfo: pg_sys::FunctionCallInfo, points: &[OperatingPoint]) -> Result<Curve, Failure> {
        // SAFETY: fcinfo is this call's, so its function's result type is known; the row type is checked to have the
        // three columns of which the tuples are formed, and the array to be one of them.
        unsafe {
            let function = (*fcinfo).flinfo.as_ref().map_or(pg_sys::InvalidOid, |info| info.fn_oid);
            let element = pg_sys::get_element_type(pg_sys::get_func_rettype(function));
            if element == pg_sys::InvalidOid
                || pg_sys::get_typtype(element) != pg_sys::TYPTYPE_COMPOSITE as std::ffi::c_char
            {
                return Err(undeclared());
            }
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(element, -1);
            if (*descriptor).natts != 3 {
                return Err(undeclared());
            }
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            let mut datums: Vec<pg_sys::Datum> = Vec::with_capacity(points.len());
            for point in points {
                if datums.len().is_multiple_of(4096) {
                    interrupts::process();
                }
                let mut columns = [point.threshold, point.precision, point.recall]
                    .map(|value| value.into_datum().unwrap_or_else(|| pg_sys::Datum::from(0_usize)));
                let mut nulls = [false; 3];
                let tuple = pg_sys::heap_form_tuple(descriptor, columns.as_mut_ptr(), nulls.as_mut_ptr());
                datums.push(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data));
            }
            let array = pg_sys::construct_array(
                datums.as_mut_ptr(),
                i32::try_from(datums.len()).unwrap_or(i32::MAX),
                element,
                -1,
                false,
                pg_sys::TYPALIGN_DOUBLE as std::ffi::c_char,
            );
            Ok(Curve(pg_sys::Datum::from(array)))
        }
    }
}

fn undeclared() -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        "the function's declaration does not fit the library",
    )
    .hint("Update the extension: ALTER EXTENSION copymatch UPDATE.")
}

// SAFETY: the datum is an array of the function's declared result type.
unsafe impl BoxRet for Curve {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: the declarations in sql/ state the type.
unsafe impl SqlTranslatable for Curve {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Curve);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("copymatch.operating_point[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("copymatch.operating_point[]")));
}

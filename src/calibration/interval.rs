//! How sure a share is.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use crate::failure::{Failure, boundary};
use crate::record::Record;

/// The value, where it lies between 0 and 1.
pub fn share_of_one(name: &str, value: f64) -> Result<f64, Failure> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{name} is {value}"),
    )
    .hint("It must be above 0 and below 1."))
}

#[pg_extern(sql = false)]
fn proportion_interval(correct: i64, total: i64, confidence: f64, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        share_of_one("confidence", confidence)?;
        let (Ok(hits), Ok(cases)) = (usize::try_from(correct), usize::try_from(total)) else {
            return Err(counts(correct, total));
        };
        if hits > cases {
            return Err(counts(correct, total));
        }
        let (low, high) = scoring::proportion_interval(hits, cases, confidence);
        Record::form(fcinfo, vec![low.into_datum(), high.into_datum()])
    })
}

fn counts(correct: i64, total: i64) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{correct} of {total} is no proportion"),
    )
    .hint("correct lies between 0 and total.")
}

#[pg_extern(sql = false)]
fn labels_needed(precision: f64, confidence: f64) -> i64 {
    boundary(|| {
        share_of_one("precision", precision)?;
        share_of_one("confidence", confidence)?;
        let needed = scoring::needed_without_error(precision, confidence);
        Ok(i64::try_from(needed).unwrap_or(i64::MAX))
    })
}

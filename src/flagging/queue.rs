//! What the queue's SQL cannot do itself: read an upload and match it as the table's owner, embed images each with its own
//! outcome, and read a trigger's arguments.

use flagging::{OnBadImage, Options};
use pgrx::prelude::*;
use pgrx::{Array, IntoDatum};

use super::owner::{extension_home, matches};
use crate::embed::catalogue::Model;
use crate::embed::embed_each;
use crate::failure::{Failure, boundary};
use crate::record::Record;
use crate::rights::{as_role, owner_of};
use crate::select::{Parameter, select};
use crate::settings;
use crate::types::Vector;

/// The failure that a trigger's arguments are.
pub fn invalid_options(error: &flagging::OptionError) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string()).hint(error.hint())
}

#[pg_extern(sql = false)]
fn flag_options(arguments: Vec<String>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let options = Options::parse(&arguments).map_err(|error| invalid_options(&error))?;
        Record::form(
            fcinfo,
            vec![
                options.image.into_datum(),
                options.key.into_datum(),
                options.set.into_datum(),
                options.uploader.into_datum(),
                (options.on_bad_image == OnBadImage::Skip).into_datum(),
                options.review.into_datum(),
                options.k.into_datum(),
            ],
        )
    })
}

/// The queue's settings, as this library reads them: a session that has not loaded it yet knows none.
#[pg_extern(sql = false)]
fn queue_settings(fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        Record::form(
            fcinfo,
            vec![
                settings::queue_batch().into_datum(),
                settings::queue_attempts().into_datum(),
                settings::queue_retry_delay().into_datum(),
            ],
        )
    })
}

#[pg_extern(sql = false)]
fn record_text(values: Vec<String>) -> String {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    flagging::record_text(&values)
}

/// Runs the statement that reads one upload as the table's owner.
#[pg_extern(sql = false)]
fn read_upload(relation: pg_sys::Oid, statement: &str, key: Vec<String>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let found = as_role(owner_of(relation)?, || {
            select(statement, &[Parameter::of(key)], |row| {
                Ok((row.get::<Vec<u8>>(1)?, row.get::<String>(2)?))
            })
        })?;
        let (image, uploader) = found.into_iter().next().unwrap_or((None, None));
        Record::form(fcinfo, vec![image.into_datum(), uploader.into_datum()])
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn embed_uploads(
    images: Array<&[u8]>,
    model: &str,
) -> TableIterator<'static, (name!(descriptor, Option<Vector>), name!(error, Option<String>))> {
    boundary(|| {
        let model = Model::find(Some(model))?;
        let outcomes = embed_each(images.iter().map(Option::unwrap_or_default), &model)?;
        Ok(TableIterator::new(outcomes.into_iter().map(|outcome| match outcome {
            Ok(descriptor) => (Some(descriptor), None),
            Err(failure) => (None, Some(failure.line())),
        })))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn match_upload(
    relation: pg_sys::Oid,
    descriptor: Vector,
    reference_set: &str,
    model: &str,
    k: i32,
    review: bool,
) -> TableIterator<
    'static,
    (
        name!(reference, String),
        name!(similarity, f64),
        name!(background, f64),
        name!(score, f64),
        name!(probability, f64),
        name!(verdict, String),
    ),
> {
    boundary(|| {
        let home = extension_home()?;
        let found = as_role(owner_of(relation)?, || {
            matches(&home, descriptor, reference_set, model, k, review)
        })?;
        Ok(TableIterator::new(found.into_iter().map(|m| {
            (
                m.reference,
                m.similarity,
                m.background,
                m.score,
                m.probability,
                m.verdict,
            )
        })))
    })
}

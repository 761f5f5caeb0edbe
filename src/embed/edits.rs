//! `copy_edit`: edited copies, for testing one's own pictures, for the demo and for calibration.

use edits::{Edit, EditError};
use pgrx::prelude::*;

use super::picture;
use crate::failure::{Failure, boundary, should_stop};
use crate::settings;

#[pg_extern(sql = false)]
fn copy_edit(image: &[u8], edit: &str, strength: f32, seed: i64) -> Vec<u8> {
    boundary(|| {
        let invalid = |error: EditError| match error {
            EditError::Image(error) => Failure::from(error),
            error => {
                Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string()).hint(error.hint())
            }
        };
        let edit: Edit = edit.parse().map_err(invalid)?;
        let image = picture::read(image, None)?;
        let limits = settings::image_limits();
        edits::apply_within(&image, edit, strength, seed.cast_unsigned(), &limits, &should_stop).map_err(invalid)
    })
}

#[pg_extern(sql = false)]
fn copy_edits() -> TableIterator<'static, (name!(edit, String), name!(description, String))> {
    TableIterator::new(
        Edit::ALL
            .iter()
            .map(|edit| (edit.name().to_owned(), edit.description().to_owned())),
    )
}

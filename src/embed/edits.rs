//! `copy_edit`: edited copies, for testing one's own pictures, for the demo and for calibration.

use edits::{Edit, EditError};
use pgrx::prelude::*;

use super::picture;
use crate::failure::{Failure, boundary};
use crate::interrupts::should_stop;
use crate::settings;

#[pg_extern(sql = false)]
fn copy_edit(image: &[u8], edit: &str, strength: f32, seed: i64) -> Vec<u8> {
    boundary(|| edited(image, edit.parse().map_err(invalid)?, strength, seed.cast_unsigned()))
}

/// An edited copy of an image, as a JPEG.
pub fn edited(image: &[u8], edit: Edit, strength: f32, seed: u64) -> Result<Vec<u8>, Failure> {
    let image = picture::read(image, None)?;
    edits::apply_within(&image, edit, strength, seed, &settings::image_limits(), &should_stop).map_err(invalid)
}

fn invalid(error: EditError) -> Failure {
    match error {
        EditError::Image(error) => Failure::from(error),
        error => Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string()).hint(error.hint()),
    }
}

#[pg_extern(sql = false)]
fn copy_edits() -> TableIterator<'static, (name!(edit, String), name!(description, String))> {
    TableIterator::new(
        Edit::ALL
            .iter()
            .map(|edit| (edit.name().to_owned(), edit.description().to_owned())),
    )
}

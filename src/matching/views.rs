//! The views of an image that are searched: as it is, or in all orientations and without its border as well.

use crate::embed::catalogue::Model;
use crate::embed::{Urgency, descriptor_of, embed_views};
use crate::failure::Failure;
use imaging::Image;
use pgrx::prelude::*;

/// `views` of `copy_match`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Views {
    /// The image as it is.
    #[default]
    One,
    /// The eight orientations (quarter turns, mirrored or not) and, where it has a border, the image without it.
    All,
}

impl Views {
    /// The parameter's value.
    pub fn named(name: Option<&str>) -> Result<Views, Failure> {
        match name {
            Some("one") => Ok(Views::One),
            Some("all") => Ok(Views::All),
            _ => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "views is {}",
                    name.map_or("NULL".to_owned(), |name| format!("\"{name}\""))
                ),
            )
            .hint("Choose one (the image as it is) or all (its eight orientations, and without its border).")),
        }
    }

    /// One descriptor for each view of a decoded image, the image as it is first.
    pub fn embed(self, image: &Image, model: &Model) -> Result<Vec<Vec<f32>>, Failure> {
        match self {
            Views::One => Ok(vec![descriptor_of(image, model, Urgency::Interactive)?]),
            Views::All => embed_views(image, model),
        }
    }
}

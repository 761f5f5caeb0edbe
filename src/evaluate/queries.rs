//! Queries of a benchmark, embedded one by one.

use pgrx::prelude::*;

use crate::embed::catalogue::Model;
use crate::embed::{count_progress, embed_one, named};
use crate::failure::{Failure, boundary};
use crate::types::Vector;

/// The descriptor of a query; NULL and a WARNING for an image that cannot be matched, so that it counts as not found.
#[pg_extern(sql = false)]
fn embed_query(image: Option<&[u8]>, model: Option<&str>, query: Option<&str>, total: Option<i64>) -> Option<Vector> {
    boundary(|| {
        let Some(bytes) = image else { return Ok(None) };
        let model = Model::find(Some(named(model)?))?;
        let descriptor = match embed_one(bytes, &model) {
            Ok(descriptor) => Some(Vector::from_elements(&descriptor)),
            Err(failure) if failure.is_about_the_image() => {
                let query = query.unwrap_or("NULL");
                Failure::at(failure, format_args!("query {query} finds nothing")).warn();
                None
            }
            Err(failure) => return Err(failure),
        };
        count_progress(total.unwrap_or(0), "images embedded");
        Ok(descriptor)
    })
}

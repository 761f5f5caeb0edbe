//! Sketches: what verification needs of a reference, made from the same decoded image as its descriptor.

use imaging::Image;
use keypoints::Sketch;
use pgrx::IntoDatum;
use pgrx::prelude::*;

use super::catalogue::{Model, named};
use super::picture::read_matchable;
use super::progress::count_progress;
use super::session::{self, Urgency};
use crate::failure::{Failure, boundary};
use crate::interrupts::should_stop;
use crate::record::Record;
use crate::types::Vector;

/// The decoded image that descriptor and sketch are made from.
pub fn decoded(bytes: &[u8], model: &Model) -> Result<Image, Failure> {
    read_matchable(bytes, session::input_side(model)?)
}

/// Descriptor (unit vector) of a decoded image.
pub fn descriptor_of(image: &Image, model: &Model, urgency: Urgency) -> Result<Vec<f32>, Failure> {
    let mut descriptors = session::embed(model, std::slice::from_ref(image), urgency)?;
    descriptors.pop().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "the network returned no descriptor",
        )
    })
}

/// The stored form of a decoded image's sketch.
pub fn sketch_of(image: &Image) -> Result<Vec<u8>, Failure> {
    Ok(Sketch::of(image, &should_stop)?.to_bytes())
}

#[pg_extern(sql = false)]
fn copy_sketch(image: Option<&[u8]>, model: Option<&str>) -> Option<Vec<u8>> {
    boundary(|| {
        let Some(bytes) = image else { return Ok(None) };
        let model = Model::find(model)?;
        sketch_of(&decoded(bytes, &model)?).map(Some)
    })
}

/// Descriptor and sketch for bulk work; each only where it is wanted.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn describe_reference(
    image: Option<&[u8]>,
    model: Option<&str>,
    reference: Option<&str>,
    total: Option<i64>,
    want_descriptor: Option<bool>,
    want_sketch: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Record {
    boundary(|| {
        let (mut descriptor, mut sketch) = (None, None);
        if let Some(bytes) = image {
            let model = Model::find(Some(named(model)?))?;
            let outcome = decoded(bytes, &model).and_then(|image| {
                if want_descriptor == Some(true) {
                    descriptor = Vector::from_elements(&descriptor_of(&image, &model, Urgency::Bulk)?).into_datum();
                }
                if want_sketch == Some(true) {
                    sketch = sketch_of(&image)?.into_datum();
                }
                Ok(())
            });
            match outcome {
                Ok(()) => {}
                Err(failure) if failure.is_about_the_image() => {
                    (descriptor, sketch) = (None, None);
                    let reference = reference.unwrap_or("NULL");
                    failure
                        .at(format_args!("reference {reference} has no descriptor"))
                        .warn();
                }
                Err(failure) => return Err(failure),
            }
            count_progress(total.unwrap_or(0), "images embedded");
        }
        Record::form(fcinfo, vec![descriptor, sketch])
    })
}

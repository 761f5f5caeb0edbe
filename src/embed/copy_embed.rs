//! `copy_embed`, its batch form, the bulk form behind reference sets, `copy_runtime`, and the
//! checks behind `copy_add_model`.

use imaging::Image;
use pgrx::prelude::*;
use pgrx::{Array, IntoDatum};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::catalogue::{Model, named};
use super::parsed::{self, parse_background, parse_manifest};
use super::picture::{self, read_matchable};
use super::progress::count_progress;
use super::session::{self, DECODED_AT_ONCE, PIXELS_AT_ONCE, Stream, Urgency};
use super::sketch::{decoded, descriptor_of};
use crate::failure::{Failure, boundary};
use crate::json::Json;
use crate::record::Record;
use crate::settings;
use crate::types::Vector;

/// Descriptor (unit vector, `dimensions` elements) of one image.
pub fn embed_one(bytes: &[u8], model: &Model) -> Result<Vec<f32>, Failure> {
    descriptor_of(&decoded(bytes, model)?, model, Urgency::Interactive)
}

/// Descriptors of an image's views: its eight orientations, the image as it is first, and the image without its border
/// where it has one. The network runs on several at once.
pub fn embed_views(image: &Image, model: &Model) -> Result<Vec<Vec<f32>>, Failure> {
    let pixels = u64::from(image.width()) * u64::from(image.height());
    let together = usize::try_from(PIXELS_AT_ONCE / pixels.max(1))
        .unwrap_or(1)
        .clamp(1, DECODED_AT_ONCE);
    let mut descriptors = Vec::new();
    let mut waiting: Vec<Image> = Vec::with_capacity(together);
    for orientation in 1..=8 {
        waiting.push(imaging::oriented(image, orientation)?);
        if waiting.len() == together {
            descriptors.append(&mut session::embed(model, &waiting, Urgency::Interactive)?);
            waiting.clear();
        }
    }
    // What is left within a border may be blank.
    if let Some(inside) = imaging::without_border(image)
        && imaging::refusal(&picture::detail(&inside)?).is_none()
    {
        waiting.push(inside);
    }
    if !waiting.is_empty() {
        descriptors.append(&mut session::embed(model, &waiting, Urgency::Interactive)?);
    }
    Ok(descriptors)
}

#[pg_extern(sql = false)]
fn copy_embed(image: Option<&[u8]>, model: Option<&str>) -> Option<Vector> {
    boundary(|| {
        let Some(bytes) = image else { return Ok(None) };
        let model = Model::find(model)?;
        Ok(Some(Vector::from_elements(&embed_one(bytes, &model)?)))
    })
}

#[pg_extern(sql = false)]
fn copy_embed_batch(images: Option<Array<&[u8]>>, model: Option<&str>) -> Option<Vec<Option<Vector>>> {
    boundary(|| {
        let Some(images) = images else { return Ok(None) };
        let model = Model::find(model)?;
        let side = session::input_side(&model)?;
        let mut result: Vec<Option<Vector>> = Vec::with_capacity(images.len());
        let mut places = Vec::with_capacity(images.len());
        let mut stream = Stream::new(&model)?;
        for (index, bytes) in images.iter().enumerate() {
            result.push(None);
            let Some(bytes) = bytes else { continue };
            let image =
                read_matchable(bytes, side).map_err(|failure| failure.at(format_args!("image {}", index + 1)))?;
            stream.add(image)?;
            places.push(index);
        }
        for (place, descriptor) in places.into_iter().zip(stream.finish()?) {
            result[place] = Some(Vector::from_elements(&descriptor));
        }
        Ok(Some(result))
    })
}

/// Descriptors of several images, in their order. An image that cannot be matched has its failure; any
/// other failure ends it all.
pub fn embed_each<'a>(
    images: impl Iterator<Item = &'a [u8]>,
    model: &Model,
) -> Result<Vec<Result<Vector, Failure>>, Failure> {
    let side = session::input_side(model)?;
    // What cannot be matched; the others' descriptors come from the stream, in the same order.
    let mut failures: Vec<Option<Failure>> = Vec::new();
    let mut stream = Stream::new(model)?;
    for bytes in images {
        match read_matchable(bytes, side) {
            Ok(image) => {
                stream.add(image)?;
                failures.push(None);
            }
            Err(failure) if failure.is_about_the_image() => failures.push(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    let mut descriptors = stream.finish()?.into_iter();
    failures
        .into_iter()
        .map(|failure| match failure {
            Some(failure) => Ok(Err(failure)),
            None => match descriptors.next() {
                Some(descriptor) => Ok(Ok(Vector::from_elements(&descriptor))),
                None => Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "the network returned no descriptor",
                )),
            },
        })
        .collect()
}

#[pg_extern(sql = false)]
fn embed_reference(
    image: Option<&[u8]>,
    model: Option<&str>,
    reference: Option<&str>,
    total: Option<i64>,
) -> Option<Vector> {
    boundary(|| {
        let Some(bytes) = image else { return Ok(None) };
        let model = Model::find(Some(named(model)?))?;
        let embedded = decoded(bytes, &model).and_then(|image| descriptor_of(&image, &model, Urgency::Bulk));
        let descriptor = match embedded {
            Ok(descriptor) => Some(Vector::from_elements(&descriptor)),
            Err(failure) if failure.is_about_the_image() => {
                failure
                    .at(format_args!(
                        "reference {} has no descriptor",
                        reference.unwrap_or("NULL")
                    ))
                    .warn();
                None
            }
            Err(failure) => return Err(failure),
        };
        count_progress(total.unwrap_or(0), "images embedded");
        Ok(descriptor)
    })
}

#[pg_extern(sql = false)]
fn say_progress(total: i64, what: &str) {
    boundary(|| {
        count_progress(total, what);
        Ok(())
    });
}

#[pg_extern(sql = false)]
fn copy_runtime(fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let model = Model::find(None)?;
        let running = session::running(&model)?;
        let requested = match settings::execution_provider() {
            settings::ExecutionProvider::Auto => "auto",
            settings::ExecutionProvider::Cpu => "cpu",
            settings::ExecutionProvider::Cuda => "cuda",
            settings::ExecutionProvider::TensorRt => "tensorrt",
        };
        // The path is for those who could set it.
        // SAFETY: reads this backend's role.
        let library = unsafe { pg_sys::superuser() }.then(|| settings::onnxruntime_library().display().to_string());
        Record::form(
            fcinfo,
            vec![
                model.name.into_datum(),
                requested.into_datum(),
                running.provider.into_datum(),
                running.fallback.into_datum(),
                i32::try_from(running.threads).ok().into_datum(),
                running.version.into_datum(),
                library.into_datum(),
                running.load_milliseconds.into_datum(),
            ],
        )
    })
}

/// What a model says of itself, and what was found when it was loaded.
pub struct Inspected {
    pub name: String,
    pub version: String,
    pub dimensions: i32,
    pub sha256: Vec<u8>,
    pub background_sha256: Option<Vec<u8>>,
}

/// Loads a model and checks manifest, hash, inputs, outputs, parity vectors and background descriptors.
pub fn inspect(weights: &[u8], manifest: &Value, background: Option<&[u8]>) -> Result<Inspected, Failure> {
    let text = manifest.to_string();
    let manifest = parse_manifest(&text)?;
    let (name, version) = (manifest.name().to_owned(), manifest.version().to_owned());
    let dimensions = manifest.dimensions();
    session::try_load(weights, manifest, &text)?;
    if let Some(bytes) = background {
        let background = parse_background(bytes)?;
        if background.dimensions() != dimensions {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "the background descriptors have {} dimensions, the model has {dimensions}",
                    background.dimensions()
                ),
            ));
        }
    }
    let hash = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    Ok(Inspected {
        name,
        version,
        dimensions: i32::try_from(dimensions).unwrap_or(i32::MAX),
        sha256: hash(weights),
        background_sha256: background.map(hash),
    })
}

#[pg_extern(sql = false)]
fn inspect_model(
    weights: Option<&[u8]>,
    manifest: Option<Json>,
    background: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Record {
    boundary(|| {
        let (Some(weights), Some(Json(manifest))) = (weights, manifest) else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "a model needs weights and a manifest",
            )
            .hint("docs/models.md explains what a model is made of."));
        };
        let found = inspect(weights, &manifest, background)?;
        Record::form(
            fcinfo,
            vec![
                found.name.into_datum(),
                found.version.into_datum(),
                found.dimensions.into_datum(),
                found.sha256.into_datum(),
                found.background_sha256.into_datum(),
            ],
        )
    })
}

#[pg_extern(sql = false)]
fn check_calibration(calibration: Json) {
    boundary(|| parsed::check_calibration(&calibration.0).map(|_| ()));
}

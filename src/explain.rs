//! `copy_explain`: why two pictures match, for a person who has to decide. Over the given
//! bytes only: it reads no table.

use imaging::Image;
use keypoints::Explanation;
use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB};
use serde_json::json;

use crate::embed::read;
use crate::failure::{Failure, boundary};
use crate::interrupts::should_stop;
use crate::record::Record;
use crate::settings;

/// What two pictures need at once when they are drawn beside each other.
const COMPARING_BYTES: usize = 16 * (keypoints::DRAWN_SIDE * keypoints::DRAWN_SIDE) as usize;

/// No side is needed longer: as a picture is read whose sketch is made for the built-in model, so that
/// the evidence is the same.
const READ_SIDE: u32 = 256;

#[pg_extern(sql = false)]
fn copy_explain(image: &[u8], reference_image: &[u8]) -> Vec<u8> {
    boundary(|| {
        let explained = compared(image, reference_image)?;
        Ok(imaging::encode_png(&keypoints::draw(&explained)?)?)
    })
}

#[pg_extern(sql = false)]
fn copy_explain_matches(image: &[u8], reference_image: &[u8], fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let explained = compared(image, reference_image)?;
        let evidence = explained.evidence;
        let agrees = evidence.is_shown();
        let (query, reference) = (size(image)?, size(reference_image)?);
        let pixels = |[left, top, width, height]: [f64; 4], (w, h): (f64, f64)| {
            [left * w, top * h, width * w, height * h].map(f64::round)
        };
        let regions: Vec<_> = explained
            .regions
            .iter()
            .filter(|_| agrees)
            .map(|region| {
                json!({
                    "image": pixels(region.query, query),
                    "reference": pixels(region.reference, reference),
                })
            })
            .collect();
        // From parts of the pictures to their pixels.
        let transform = evidence.transform.filter(|_| agrees).map(|t| {
            let ((qw, qh), (rw, rh)) = (query, reference);
            vec![
                t.a * qw / rw,
                t.b * qw / rh,
                t.c * qw,
                t.d * qh / rw,
                t.e * qh / rh,
                t.f * qh,
            ]
        });
        Record::form(
            fcinfo,
            vec![
                agrees.into_datum(),
                i32::try_from(explained.matched).ok().into_datum(),
                i32::try_from(evidence.inliers).ok().into_datum(),
                evidence.mirrored.into_datum(),
                transform.into_datum(),
                JsonB(json!(regions)).into_datum(),
                evidence.agreement().into_datum(),
            ],
        )
    })
}

fn compared(image: &[u8], reference_image: &[u8]) -> Result<Explanation, Failure> {
    let query = shown(image, "image")?;
    let reference = shown(reference_image, "reference_image")?;
    memory::ensure(COMPARING_BYTES)?;
    Ok(keypoints::explain(&query, &reference, &should_stop)?)
}

fn shown(bytes: &[u8], which: &str) -> Result<Image, Failure> {
    read(bytes, Some(READ_SIDE)).map_err(|failure| {
        if failure.is_cancel() {
            failure
        } else {
            failure.at(which)
        }
    })
}

/// Width and height as shown.
fn size(bytes: &[u8]) -> Result<(f64, f64), Failure> {
    let info = imaging::inspect(bytes, &settings::image_limits())?;
    Ok((f64::from(info.width), f64::from(info.height)))
}

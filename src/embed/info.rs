//! `copy_image_info`: what an image is, and whether it can be matched.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use super::picture;
use crate::failure::{Failure, boundary};
use crate::record::Record;
use crate::settings;

#[pg_extern(sql = false)]
fn copy_image_info(image: &[u8], fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        // The header is read whatever the limits: an image beyond them has a format and a size too.
        let unlimited = imaging::Limits {
            max_bytes: u64::MAX,
            ..settings::image_limits()
        };
        let info = imaging::inspect(image, &unlimited).ok();
        let (detail, frame, reason) = match look(image) {
            Ok((detail, frame)) => (Some(detail), Some(frame), imaging::refusal(&detail)),
            Err(failure) if failure.is_about_the_image() => (None, None, Some(failure.reason())),
            Err(failure) => return Err(failure),
        };
        let info = info.as_ref();
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        Record::form(
            fcinfo,
            vec![
                info.map(|info| info.format.to_string()).into_datum(),
                info.map(|info| number(info.width)).into_datum(),
                info.map(|info| number(info.height)).into_datum(),
                info.map(|info| i32::from(info.orientation)).into_datum(),
                info.map(|info| number(info.frames)).into_datum(),
                info.map(|info| info.colour.to_string()).into_datum(),
                info.map(|info| i32::from(info.bits_per_channel)).into_datum(),
                info.map(|info| info.has_alpha).into_datum(),
                detail.map(|detail| detail.score).into_datum(),
                reason.is_none().into_datum(),
                reason.into_datum(),
                frame.map(number).into_datum(),
            ],
        )
    })
}

/// The structure of the image and the frame that has it.
fn look(image: &[u8]) -> Result<(imaging::Detail, u32), Failure> {
    let (pixels, frame) = picture::read_frame(image, Some(picture::DETAIL_SIDE))?;
    Ok((picture::detail(&pixels)?, frame))
}

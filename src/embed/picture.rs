//! From bytea to pixels within the limits that the settings give; images with too little detail are refused.

use imaging::{DecodeOptions, Detail, Image};
use pgrx::prelude::*;

use super::give_back;
use crate::failure::Failure;
use crate::interrupts::should_stop;
use crate::settings;

/// Transparent parts are shown on white, as browsers do.
const MATTE: [u8; 3] = [255, 255, 255];

/// Scale at which detail is measured where no network asks for another.
pub const DETAIL_SIDE: u32 = 224;

/// Decodes an image. `min_side`: a JPEG may come at a reduced scale whose sides are no shorter.
pub fn read(bytes: &[u8], min_side: Option<u32>) -> Result<Image, Failure> {
    read_frame(bytes, min_side).map(|(image, _)| image)
}

/// As [`read`], with the number of the frame that stands for an animation.
pub fn read_frame(bytes: &[u8], min_side: Option<u32>) -> Result<(Image, u32), Failure> {
    let options = DecodeOptions {
        limits: settings::image_limits(),
        min_side,
        matte: MATTE,
        should_stop: &should_stop,
    };
    give_back::at_end_of_transaction();
    Ok(imaging::decode_frame(bytes, &options)?)
}

/// How much structure an image has.
pub fn detail(image: &Image) -> Result<Detail, Failure> {
    Ok(imaging::detail_until(image, &should_stop)?)
}

/// Decodes an image that is to be matched: one without enough detail is refused with the reason.
pub fn read_matchable(bytes: &[u8], min_side: u32) -> Result<Image, Failure> {
    let image = read(bytes, Some(min_side))?;
    match imaging::refusal(&detail(&image)?) {
        None => Ok(image),
        Some(reason) => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            "the image has too little detail to be matched",
        )
        .detail(reason)
        .hint(
            "Blank and nearly blank images resemble each other whatever they come from; copy_image_info(image) \
             measures the detail.",
        )),
    }
}

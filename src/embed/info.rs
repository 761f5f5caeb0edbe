//! `copy_image_info`: what an image is, and whether it can be matched.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use super::picture;
use crate::failure::boundary;
use crate::record::Record;
use crate::settings;

#[pg_extern(sql = false)]
fn copy_image_info(image: &[u8], fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let info = imaging::inspect(image, &settings::image_limits())?;
        let detail = imaging::detail(&picture::read(image, Some(picture::DETAIL_SIDE))?);
        let reason = imaging::refusal(&detail);
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        Record::form(
            fcinfo,
            vec![
                info.format.to_string().into_datum(),
                number(info.width).into_datum(),
                number(info.height).into_datum(),
                i32::from(info.orientation).into_datum(),
                number(info.frames).into_datum(),
                info.colour.to_string().into_datum(),
                i32::from(info.bits_per_channel).into_datum(),
                info.has_alpha.into_datum(),
                detail.score.into_datum(),
                reason.is_none().into_datum(),
                reason.into_datum(),
            ],
        )
    })
}

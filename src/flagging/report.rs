//! What the dashboard needs beyond SQL: small pictures, and the page itself.

use imaging::{Filter, encode_jpeg, resize};
use pgrx::JsonB;
use pgrx::prelude::*;

use crate::embed::picture;
use crate::failure::{Failure, boundary};

/// Longest side of a thumbnail that can be asked for.
const MOST_PIXELS: i32 = 1024;

const QUALITY: u8 = 80;

#[pg_extern(sql = false)]
fn copy_thumbnail(image: &[u8], side: i32) -> Vec<u8> {
    boundary(|| {
        let side = u32::try_from(side)
            .ok()
            .filter(|_| (8..=MOST_PIXELS).contains(&side))
            .ok_or_else(|| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("side is {side}"),
                )
                .hint(format!(
                    "The longest side of the thumbnail in pixels, 8 to {MOST_PIXELS}."
                ))
            })?;
        let picture = picture::read(image, Some(side))?;
        let longest = picture.width().max(picture.height()).max(1);
        let scaled = |length: u32| {
            let length = u64::from(length) * u64::from(side) / u64::from(longest);
            u32::try_from(length).unwrap_or(side).max(1)
        };
        let small = if longest > side {
            resize(
                &picture,
                scaled(picture.width()),
                scaled(picture.height()),
                Filter::Bicubic,
            )?
        } else {
            picture
        };
        Ok(encode_jpeg(&small, QUALITY)?)
    })
}

#[pg_extern(sql = false)]
fn render_dashboard(data: JsonB) -> String {
    boundary(|| {
        flagging::render(data.0).map_err(|error| {
            Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string())
                .hint("copymatch.dashboard() collects the data for this function.")
        })
    })
}

//! What verification finds of a picture and some sketches, in numbers: what the weights of a calibration are fitted to.

use keypoints::{Query, Sketch};
use pgrx::prelude::*;

use crate::embed::catalogue::Model;
use crate::embed::decoded;
use crate::failure::{Failure, boundary};
use crate::interrupts;
use crate::interrupts::should_stop;

/// Of each sketch its place, from 1, inliers, compared cells, agreement, agreement of what nothing covers, ground, and
/// features; a sketch of another format has no row.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn compare_sketches(
    image: &[u8],
    model: &str,
    sketches: Array<&[u8]>,
) -> TableIterator<
    'static,
    (
        name!(place, i32),
        name!(inliers, i32),
        name!(compared, i32),
        name!(agreement, f64),
        name!(uncovered, f64),
        name!(ground, f64),
        name!(features, i32),
    ),
> {
    boundary(|| {
        let image = decoded(image, &Model::find(Some(model))?)?;
        let query = Query::of(&image, &should_stop)?;
        let mut rows = Vec::new();
        for (bytes, place) in sketches.iter().zip(1..) {
            interrupts::process();
            let Some(bytes) = bytes else { continue };
            let damaged = |error| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                    format!("sketch {place}: {error}"),
                )
                .hint("Make it anew by copy_sketch, or leave it out.")
            };
            let sketch = match Sketch::parse(bytes) {
                Ok(sketch) => sketch,
                Err(keypoints::SketchError::Format(_)) => continue,
                Err(error) => return Err(damaged(error)),
            };
            let found = query.compare(&sketch).map_err(damaged)?;
            let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
            rows.push((
                place,
                number(found.inliers),
                number(found.compared),
                found.agreement(),
                found.uncovered(),
                sketch.ground().map_err(damaged)?,
                number(sketch.features()),
            ));
        }
        Ok(TableIterator::new(rows))
    })
}

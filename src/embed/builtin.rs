//! The model that the library carries: nothing to download, nothing to configure.

use encoder::Manifest;
use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB};

use super::parsed::check_calibration;
use crate::failure::{Failure, boundary};
use crate::record::Record;

/// The network's weights (ONNX).
pub static WEIGHTS: &[u8] = include_bytes!("../../models/default/model.onnx");
/// Background descriptors for descriptor stretching (format CMBG, see crate `scoring`).
pub static BACKGROUND: &[u8] = include_bytes!("../../models/default/background.bin");
/// Its manifest.
pub static MANIFEST: &str = include_str!("../../models/default/manifest.json");
static CALIBRATION: &str = include_str!("../../models/default/calibration.json");
// WEIGHTS_SHA256, BACKGROUND_SHA256 and the same of the rows that an earlier version had alone, by build.rs.
include!(concat!(env!("OUT_DIR"), "/builtin_hashes.rs"));

/// How many of the background's rows, from the first, make the one of this hash. Calibrations keep the background that
/// they were measured with; none where this library does not have it.
pub fn background_rows(sha256: &[u8]) -> Option<usize> {
    if sha256 == BACKGROUND_SHA256 {
        Some(usize::MAX)
    } else if sha256 == EARLIER_BACKGROUND_SHA256 {
        Some(EARLIER_BACKGROUND_ROWS)
    } else {
        None
    }
}

/// The manifest of the built-in model.
pub fn manifest() -> Result<Manifest, Failure> {
    Manifest::from_json(MANIFEST).map_err(|error| broken(&error))
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("the built-in model is broken: {error}"),
    )
    .hint("Build and install the extension again.")
}

#[pg_extern(sql = false)]
fn builtin_model(fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let manifest = manifest()?;
        let parse = |text: &str| serde_json::from_str(text).map_err(|error| broken(&error));
        let calibration = parse(CALIBRATION)?;
        check_calibration(&calibration)?;
        Record::form(
            fcinfo,
            vec![
                manifest.name().into_datum(),
                manifest.version().into_datum(),
                i32::try_from(manifest.dimensions()).ok().into_datum(),
                WEIGHTS_SHA256.as_slice().into_datum(),
                JsonB(parse(MANIFEST)?).into_datum(),
                BACKGROUND_SHA256.as_slice().into_datum(),
                JsonB(calibration).into_datum(),
            ],
        )
    })
}

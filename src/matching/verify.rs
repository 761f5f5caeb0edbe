//! Whether a search compares pictures, and with how many references.

use pgrx::prelude::*;

use crate::failure::Failure;

/// `verify` of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Where the set has sketches and a calibration that weighs what is found; no more references than the answer needs
    /// once one is plainly shown.
    Auto,
    /// Descriptor and stretching alone.
    Off,
    /// Every one of the nearest references, whether the calibration weighs it or not.
    All,
}

impl Verify {
    /// The parameter's value; NULL: each set's own.
    pub fn named(name: Option<&str>) -> Result<Option<Verify>, Failure> {
        match name {
            None => Ok(None),
            Some("auto") => Ok(Some(Verify::Auto)),
            Some("off") => Ok(Some(Verify::Off)),
            Some("all") => Ok(Some(Verify::All)),
            Some(other) => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("verify is \"{other}\""),
            )
            .hint(
                "Choose auto (compare the pictures where the set has sketches), all (every one of the nearest), off, \
                 or NULL: the set's own.",
            )),
        }
    }
}

/// What a search in a set looks at.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Neighbours that are fetched.
    pub neighbours: usize,
    /// How many of them, nearest first, come with descriptor and sketch; 0: the set is searched by descriptor alone.
    pub compared: usize,
    /// How many are compared whatever is found.
    pub(super) least: usize,
}

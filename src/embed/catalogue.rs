//! The model catalogue, read with the caller's rights.

use std::ffi::CStr;

use encoder::Manifest;
use pgrx::prelude::*;
use scoring::Background;

use super::builtin;
use super::parsed::{invalid_background, parse_background, parse_manifest};
use crate::failure::Failure;
use crate::own_table::{Lookup, Sight};
use crate::settings;
use crate::statements::{Parameter, Row, select};

/// What the catalogue says of one model, without its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name by which sets refer to it.
    pub name: String,
    /// Elements of its descriptors.
    pub dimensions: usize,
    /// SHA-256 of its weights.
    pub sha256: Vec<u8>,
    /// SHA-256 of its background descriptors, if it has any.
    pub background_sha256: Option<Vec<u8>>,
    built_in: bool,
}

/// A network's bytes, by where they come from.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// Part of this library, whose build compared their hash with the manifest's.
    BuiltIn(&'static [u8]),
    /// Out of a table or a parameter; anything may be in them.
    Stored(&'a [u8]),
}

impl Weights<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Weights::BuiltIn(bytes) | Weights::Stored(bytes) => bytes,
        }
    }
}

const fn model_by(column: &'static CStr, index: Option<&'static CStr>) -> Lookup {
    Lookup {
        table: c"model",
        column,
        index,
        columns: "t.name, t.dimensions, t.sha256, t.background_sha256, t.built_in",
    }
}

static BY_NAME: Lookup = model_by(c"name", Some(c"model_pkey"));
static BUILT_IN: Lookup = model_by(c"built_in", None);

impl Model {
    /// The model of this name; without a name, that of `copymatch.default_model`, or the built-in one.
    pub fn find(name: Option<&str>) -> Result<Model, Failure> {
        let name = name.map(str::to_owned).or_else(settings::default_model);
        let found = match &name {
            None => BUILT_IN.first(Parameter::of(true), Sight::Snapshot, Model::read)?,
            Some(name) => BY_NAME.first(Parameter::of(name.as_str()), Sight::Snapshot, Model::read)?,
        };
        found.ok_or_else(|| {
            let message = match name {
                Some(name) => format!("model \"{name}\" does not exist"),
                None => "there is no built-in model in the catalogue".to_owned(),
            };
            Failure::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
                .hint("SELECT name FROM copymatch.models lists those that you may use.")
        })
    }

    /// The model of a calibration, with the background that it was measured with, and how many of its neighbours count.
    pub fn of_calibration(id: i64) -> Result<(Model, usize), Failure> {
        let found = select(
            "SELECT k.model, k.background_sha256, k.neighbours FROM copymatch.calibration k WHERE k.id = $1",
            &[Parameter::of(id)],
            |row| {
                Ok((
                    row.required::<String>(1)?,
                    row.required::<Vec<u8>>(2)?,
                    row.required::<i32>(3)?,
                ))
            },
        )?;
        let Some((name, background, neighbours)) = found.into_iter().next() else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("calibration {id} does not exist"),
            ));
        };
        let model = Model::find(Some(&name))?.measured_with(&background).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "calibration {id} was measured with other background descriptors than those of model \"{name}\""
                ),
            )
        })?;
        Ok((model, usize::try_from(neighbours).unwrap_or(0)))
    }

    /// The model with the background of this hash, where it has it: its own, or of the built-in one an earlier part.
    pub fn measured_with(mut self, background_sha256: &[u8]) -> Option<Model> {
        let has_it = self.background_sha256.as_deref() == Some(background_sha256)
            || self.built_in && builtin::background_rows(background_sha256).is_some();
        if !has_it {
            return None;
        }
        self.background_sha256 = Some(background_sha256.to_vec());
        Some(self)
    }

    fn read(row: &Row) -> Result<Model, Failure> {
        Ok(Model {
            name: row.required(row.column(c"name")?)?,
            dimensions: usize::try_from(row.required::<i32>(row.column(c"dimensions")?)?).unwrap_or(0),
            sha256: row.required(row.column(c"sha256")?)?,
            background_sha256: row.get(row.column(c"background_sha256")?)?,
            built_in: row.required(row.column(c"built_in")?)?,
        })
    }

    /// Passes manifest and weights to `use_parts`: the library's own, or those of the catalogue.
    pub fn with_parts<T>(&self, use_parts: impl FnOnce(Manifest, Weights) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.built_in {
            self.require_current()?;
            return use_parts(builtin::manifest()?, Weights::BuiltIn(builtin::WEIGHTS));
        }
        let (manifest, weights) = self.stored("m.manifest::text, m.weights", |row| {
            Ok((row.required::<String>(1)?, row.required::<Vec<u8>>(2)?))
        })?;
        use_parts(parse_manifest(&manifest)?, Weights::Stored(&weights))
    }

    /// Its manifest, to the letter.
    pub fn manifest_text(&self) -> Result<String, Failure> {
        if self.built_in {
            self.require_current()?;
            return Ok(builtin::MANIFEST.to_owned());
        }
        let found = select(
            "SELECT m.manifest::text FROM copymatch.model m WHERE m.name = $1",
            &[Parameter::of(self.name.as_str())],
            |row| row.required::<String>(1),
        )?;
        found.into_iter().next().ok_or_else(|| self.dropped())
    }

    fn dropped(&self) -> Failure {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("model \"{}\" was dropped meanwhile", self.name),
        )
    }

    /// Its background descriptors, if it has any: the library's own, or those of the catalogue.
    pub fn background(&self) -> Result<Option<Background>, Failure> {
        if self.built_in {
            let rows = self.require_current()?;
            return Background::from_verified(builtin::BACKGROUND)
                .map(|background| Some(background.first(rows)))
                .map_err(invalid_background);
        }
        let background = self.stored("m.background", |row| row.get::<Vec<u8>>(1))?;
        background.as_deref().map(parse_background).transpose()
    }

    /// How many rows of the built-in background are the model's; an error where the library carries another built-in
    /// model than the catalogue says.
    fn require_current(&self) -> Result<usize, Failure> {
        let rows = self.background_sha256.as_deref().and_then(builtin::background_rows);
        if let Some(rows) = rows
            && self.sha256 == builtin::WEIGHTS_SHA256
        {
            return Ok(rows);
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the installed library no longer carries model \"{}\" of the catalogue",
                self.name
            ),
        )
        .hint("Run ALTER EXTENSION copymatch UPDATE, or install the library that the catalogue was made with."))
    }

    /// Columns of the model's row in the catalogue.
    fn stored<T>(&self, columns: &str, read: impl FnMut(&Row) -> Result<T, Failure>) -> Result<T, Failure> {
        let lengths = select(
            "SELECT (coalesce(pg_catalog.octet_length(m.weights), 0) + coalesce(pg_catalog.octet_length(m.background), \
             0))::pg_catalog.int8 \
             FROM copymatch.model m WHERE m.name = $1",
            &[Parameter::of(self.name.as_str())],
            |row| row.required::<i64>(1),
        )?;
        // Detoasted by PostgreSQL, and copied from there.
        let bytes = lengths.iter().map(|&bytes| usize::try_from(bytes).unwrap_or(0));
        memory::ensure(2 * bytes.sum::<usize>())?;
        let found = select(
            &format!("SELECT {columns} FROM copymatch.model m WHERE m.name = $1"),
            &[Parameter::of(self.name.as_str())],
            read,
        )?;
        found.into_iter().next().ok_or_else(|| self.dropped())
    }
}

/// A model's name that an internal function was called with.
pub fn named(model: Option<&str>) -> Result<&str, Failure> {
    model.ok_or_else(|| {
        Failure::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "model is NULL")
            .hint("SELECT name FROM copymatch.models lists them.")
    })
}

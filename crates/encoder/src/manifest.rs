//! The model manifest, version 1: what a host must know to turn an image into this model's descriptor.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::parity::Pattern;

/// Length of a descriptor that the types of the database can hold.
pub const DIMENSIONS: RangeInclusive<u32> = 1..=16_000;
/// Side in pixels of the square that the network sees.
pub const SIZES: RangeInclusive<u32> = 16..=1024;
/// The same where the picture keeps its aspect ratio: with [`MAX_ASPECT`] no run sees more pixels
/// than at the largest square.
pub const SHORT_SIZES: RangeInclusive<u32> = 16..=512;
/// How many times longer than the short side the long one may be where a picture keeps its aspect ratio; a
/// longer one is squeezed to that.
pub const MAX_ASPECT: u32 = 4;
/// Scales that may be averaged into one descriptor.
pub const MAX_SIZES: usize = 8;
/// A longer manifest is refused before it is parsed.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

const VERSION: u32 = 1;
const MAX_TENSOR_NAME: usize = 255;
const MAX_TEXT: usize = 2000;

/// Why a manifest was refused: the field by its path in the JSON (`input.sizes[1]`) and what is wrong with it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More bytes than any manifest needs.
    #[error("the manifest has {bytes} bytes; at most {MAX_MANIFEST_BYTES} are read")]
    TooLarge {
        /// Length of the text.
        bytes: usize,
    },
    /// Not JSON, a missing or unknown field, or a value of the wrong type.
    #[error("manifest field {field}: {problem}")]
    Syntax {
        /// Path of the field; `.` is the document itself.
        field: String,
        /// What the parser found, with line and column.
        problem: String,
    },
    /// A manifest of another version.
    #[error("manifest field manifest_version: {found} is not supported; this build reads version {VERSION}")]
    Version {
        /// The version that was asked for.
        found: u64,
    },
    /// A value outside its range.
    #[error("manifest field {field}: {value} is not allowed; {allowed}")]
    Value {
        /// Path of the field.
        field: String,
        /// The value found.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl ManifestError {
    /// Path of the field that is wrong, where one field is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Syntax { field, .. } | Self::Value { field, .. } => Some(field),
            Self::Version { .. } => Some("manifest_version"),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => {
                "A manifest describes a model in a few hundred lines of JSON; the weights do not belong in it."
            }
            Self::Syntax { .. } => "Compare the manifest with models/default/manifest.json.",
            Self::Version { .. } => "Export the model again with a matching version of the training tools.",
            Self::Value { .. } => "Correct the field and add the model again.",
        }
    }
}

/// Order of the colour planes in the input tensor. `mean` and `std` are given in RGB order either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Colour {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[serde(rename = "BGR")]
    Bgr,
}

/// Filter by which the image is resized to the network's square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Triangle filter.
    Bilinear,
    /// Cubic filter, a = -0.5.
    Bicubic,
    /// Windowed sinc, three lobes.
    Lanczos,
}

/// Order of the input tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Batch, channels, rows, columns: a plane for each colour.
    #[serde(rename = "NCHW")]
    Nchw,
    /// Batch, rows, columns, channels: pixel after pixel.
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// Type of the input tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// Scaled to 0..1, less `mean`, divided by `std`.
    #[default]
    Float32,
    /// The bytes 0..255 as they are; the network itself normalises.
    Uint8,
}

/// How an image is brought to a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// A square of that side, whatever the aspect ratio.
    #[default]
    Square,
    /// The short side at that size, the long one in proportion, to [`MAX_ASPECT`] times the short one.
    Short,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    sizes: Vec<u32>,
    layout: Layout,
    colour: Colour,
    resize: Resize,
    #[serde(default, rename = "type", skip_serializing_if = "is_default")]
    element: Element,
    #[serde(default, skip_serializing_if = "is_default")]
    fit: Fit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mean: Option<[f32; 3]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    std: Option<[f32; 3]>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
}

/// One recorded descriptor: what the model must answer for a picture that every installation can draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parity {
    pattern: Pattern,
    descriptor: Vec<f32>,
    tolerance: f32,
}

impl Parity {
    /// The picture.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The recorded descriptor, as long as the manifest's `dimensions`.
    pub fn descriptor(&self) -> &[f32] {
        &self.descriptor
    }

    /// Largest absolute difference in any component that still counts as the same descriptor.
    pub fn tolerance(&self) -> f32 {
        self.tolerance
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestV1 {
    manifest_version: u32,
    name: String,
    version: String,
    dimensions: u32,
    input: Input,
    output: Output,
    weights_sha256: String,
    licence: String,
    source: String,
    #[serde(default)]
    parity: Vec<Parity>,
}

/// A validated manifest. Every value that can be read from it lies in the range that its accessor states.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(ManifestV1);

/// Only the version, so that a manifest of a later version is named as such instead of by its first unknown field.
#[derive(Deserialize)]
struct VersionOnly {
    manifest_version: Option<u64>,
}

impl Manifest {
    /// Reads and validates a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] with the path of the first field that is missing, unknown, of the wrong type or out of range.
    pub fn from_json(json: &str) -> Result<Self, ManifestError> {
        if json.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: json.len() });
        }
        if let Ok(VersionOnly {
            manifest_version: Some(found),
        }) = serde_json::from_str(json)
            && found != u64::from(VERSION)
        {
            return Err(ManifestError::Version { found });
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let manifest: ManifestV1 =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| ManifestError::Syntax {
                field: shorten(error.path().to_string()),
                problem: shorten(error.inner().to_string()),
            })?;
        deserializer.end().map_err(|error| ManifestError::Syntax {
            field: ".".to_owned(),
            problem: error.to_string(),
        })?;
        validate(&manifest)?;
        Ok(Self(manifest))
    }

    /// The manifest as JSON, which [`Manifest::from_json`] reads back to an equal one.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists of them, all finite: there is nothing in it that JSON cannot say.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Name of the model: 1 to 63 of `a-z 0-9 _ . -`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Version of the model: 1 to 63 of `A-Z a-z 0-9 _ . + -`.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Length of a descriptor, in [`DIMENSIONS`].
    pub fn dimensions(&self) -> usize {
        self.0.dimensions as usize
    }

    /// Name of the input tensor.
    pub fn input_name(&self) -> &str {
        &self.0.input.name
    }

    /// Sides of the squares, or short sides, whose descriptors are averaged, in pixels: 1 to [`MAX_SIZES`] different
    /// ones in [`SIZES`], or in [`SHORT_SIZES`] where [`Manifest::fit`] keeps the aspect ratio.
    pub fn input_sizes(&self) -> &[u32] {
        &self.0.input.sizes
    }

    /// Order of the input tensor's axes.
    pub fn layout(&self) -> Layout {
        self.0.input.layout
    }

    /// Type of the input tensor's elements.
    pub fn element(&self) -> Element {
        self.0.input.element
    }

    /// How an image is brought to a size.
    pub fn fit(&self) -> Fit {
        self.0.input.fit
    }

    /// Order of the colour planes.
    pub fn colour(&self) -> Colour {
        self.0.input.colour
    }

    /// Filter of the resize.
    pub fn resize(&self) -> Resize {
        self.0.input.resize
    }

    /// What is subtracted from a channel (0..1), red, green, blue; 0 for [`Element::Uint8`].
    pub fn mean(&self) -> [f32; 3] {
        self.0.input.mean.unwrap_or([0.0; 3])
    }

    /// What a channel is divided by thereafter, red, green, blue; above 0, 1 for [`Element::Uint8`].
    pub fn std(&self) -> [f32; 3] {
        self.0.input.std.unwrap_or([1.0; 3])
    }

    /// Name of the output tensor.
    pub fn output_name(&self) -> &str {
        &self.0.output.name
    }

    /// SHA-256 of the weights, 64 lower-case hexadecimal digits.
    pub fn weights_sha256(&self) -> &str {
        &self.0.weights_sha256
    }

    /// Under which licence the weights may be used.
    pub fn licence(&self) -> &str {
        &self.0.licence
    }

    /// Where the weights come from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Recorded descriptors that the model must reproduce; may be empty.
    pub fn parity(&self) -> &[Parity] {
        &self.0.parity
    }
}

fn refuse(field: impl Into<String>, value: impl fmt::Display, allowed: impl Into<String>) -> ManifestError {
    ManifestError::Value {
        field: field.into(),
        value: shorten(value.to_string()),
        allowed: allowed.into(),
    }
}

/// A message quotes the manifest, which may be megabytes long; its reader needs the beginning.
fn shorten(text: String) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn validate(manifest: &ManifestV1) -> Result<(), ManifestError> {
    identifier(
        "name",
        &manifest.name,
        |c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-'),
        "a-z 0-9 _ . -",
    )?;
    identifier(
        "version",
        &manifest.version,
        |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-'),
        "A-Z a-z 0-9 _ . + -",
    )?;
    if !DIMENSIONS.contains(&manifest.dimensions) {
        return Err(refuse("dimensions", manifest.dimensions, "it must be in 1..=16000"));
    }
    validate_input(&manifest.input)?;
    tensor_name("output.name", &manifest.output.name)?;
    let hash = &manifest.weights_sha256;
    if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(refuse(
            "weights_sha256",
            format!("{hash:?}"),
            "it must be 64 lower-case hexadecimal digits",
        ));
    }
    text("licence", &manifest.licence)?;
    text("source", &manifest.source)?;
    validate_parity(&manifest.parity, manifest.dimensions as usize)
}

fn validate_input(input: &Input) -> Result<(), ManifestError> {
    tensor_name("input.name", &input.name)?;
    if input.sizes.is_empty() || input.sizes.len() > MAX_SIZES {
        let allowed = format!("it must have 1 to {MAX_SIZES} entries");
        return Err(refuse(
            "input.sizes",
            format!("a list of {}", input.sizes.len()),
            allowed,
        ));
    }
    let (range, allowed) = match input.fit {
        Fit::Square => (SIZES, "it must be in 16..=1024"),
        Fit::Short => (SHORT_SIZES, "with input.fit \"short\" it must be in 16..=512"),
    };
    for (i, size) in input.sizes.iter().enumerate() {
        if !range.contains(size) {
            return Err(refuse(format!("input.sizes[{i}]"), size, allowed));
        }
        if input.sizes[..i].contains(size) {
            return Err(refuse(
                format!("input.sizes[{i}]"),
                size,
                "every size may be listed once",
            ));
        }
    }
    for (field, value) in [("input.mean", input.mean), ("input.std", input.std)] {
        match (input.element, value) {
            (Element::Float32, None) => {
                return Err(refuse(field, "nothing", "an input of type float32 needs three numbers"));
            }
            (Element::Uint8, Some(_)) => {
                let allowed = "an input of type uint8 is given as it is; leave the field out";
                return Err(refuse(field, "a list of 3", allowed));
            }
            _ => {}
        }
    }
    for (i, mean) in input.mean.iter().flatten().enumerate() {
        if !mean.is_finite() || mean.abs() > 1000.0 {
            return Err(refuse(format!("input.mean[{i}]"), mean, "it must be in -1000..=1000"));
        }
    }
    for (i, std) in input.std.iter().flatten().enumerate() {
        if !(1e-6..=1000.0).contains(std) {
            return Err(refuse(
                format!("input.std[{i}]"),
                std,
                "it must be above 0: in 0.000001..=1000",
            ));
        }
    }
    Ok(())
}

fn validate_parity(parity: &[Parity], dimensions: usize) -> Result<(), ManifestError> {
    for (i, recorded) in parity.iter().enumerate() {
        let field = format!("parity[{i}]");
        if parity[..i].iter().any(|earlier| earlier.pattern == recorded.pattern) {
            return Err(refuse(
                format!("{field}.pattern"),
                recorded.pattern.name(),
                "every pattern may be recorded once",
            ));
        }
        if recorded.descriptor.len() != dimensions {
            let found = format!("a list of {}", recorded.descriptor.len());
            let allowed = format!("it must have {dimensions} entries, as dimensions says");
            return Err(refuse(format!("{field}.descriptor"), found, allowed));
        }
        for (j, value) in recorded.descriptor.iter().enumerate() {
            if !value.is_finite() || value.abs() > 1.01 {
                let allowed = "a component of a unit vector is in -1..=1";
                return Err(refuse(format!("{field}.descriptor[{j}]"), value, allowed));
            }
        }
        let norm = recorded
            .descriptor
            .iter()
            .map(|&v| f64::from(v) * f64::from(v))
            .sum::<f64>()
            .sqrt();
        if (norm - 1.0).abs() > 0.01 {
            let found = format!("a vector of length {norm:.4}");
            return Err(refuse(format!("{field}.descriptor"), found, "it must have unit length"));
        }
        let tolerance = recorded.tolerance;
        if !(tolerance > 0.0 && tolerance <= 1.0) {
            return Err(refuse(
                format!("{field}.tolerance"),
                tolerance,
                "it must be above 0 and at most 1",
            ));
        }
    }
    Ok(())
}

fn identifier(field: &str, value: &str, allowed: impl Fn(char) -> bool, set: &str) -> Result<(), ManifestError> {
    if value.is_empty() || value.len() > 63 || !value.chars().all(allowed) {
        return Err(refuse(
            field,
            format!("{value:?}"),
            format!("it must be 1 to 63 of {set}"),
        ));
    }
    Ok(())
}

fn tensor_name(field: &str, value: &str) -> Result<(), ManifestError> {
    if value.is_empty() || value.len() > MAX_TENSOR_NAME || value.chars().any(char::is_control) {
        let allowed = format!("it must be 1 to {MAX_TENSOR_NAME} bytes without control characters");
        return Err(refuse(field, format!("{value:?}"), allowed));
    }
    Ok(())
}

fn text(field: &str, value: &str) -> Result<(), ManifestError> {
    if value.trim().is_empty() || value.len() > MAX_TEXT {
        return Err(refuse(
            field,
            format!("{value:?}"),
            format!("it must be 1 to {MAX_TEXT} bytes, not blank"),
        ));
    }
    Ok(())
}

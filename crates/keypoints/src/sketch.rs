//! What verification needs of a reference: local features, a thumbnail and a small picture, in a few thousand bytes.
//!
//! Format 1, little endian: `CMSK`, the format's number (1 byte), 3 zero bytes; width and height of the picture
//! that the features lie in (2 × u16); number of features (u16); bytes of the small picture (u16); for each
//! feature its place (two times 12 bits, in eighths of a pixel), size (u8, sixteenths of a power of two), angle
//! (u8, 256 parts of a turn) and code (16 bytes); the thumbnail (16 × 16 bytes of grey); the small picture, a
//! grey JPEG; CRC-32 of all before it.

use imaging::{DecodeOptions, Filter, Image, ImageError, Limits, resize};

use crate::features::{Feature, features};
use crate::grey::Grey;
use crate::plane::{Plane, Spare};

/// Longest side of the picture that features are looked for in.
pub const SKETCH_SIDE: u32 = 384;
/// Longest side of the small picture.
pub const PICTURE_SIDE: u32 = 256;
/// Features of a reference.
pub const REFERENCE_FEATURES: usize = 200;
/// Features of a query.
pub const QUERY_FEATURES: usize = 500;
/// Longest side of the picture in which a query is looked at once more, for what is small in it: a reference that
/// covers two thirds of the query's sides is as large there as in its own sketch.
pub const FINE_SIDE: u32 = 576;
/// Features of a query from that, beside the others.
pub const FINE_FEATURES: usize = 400;
/// No sketch has more bytes.
pub const MOST_SKETCH_BYTES: usize = 8192;
/// The format that is written.
pub const SKETCH_FORMAT: u8 = 1;

/// Side of the thumbnail.
pub(crate) const THUMBNAIL: usize = 16;
const THUMBNAIL_BYTES: usize = THUMBNAIL * THUMBNAIL;
const MAGIC: &[u8; 4] = b"CMSK";
const HEADER: usize = 16;
const FEATURE_BYTES: usize = 3 + 1 + 1 + 16;
const CHECKSUM: usize = 4;
/// Parts of a pixel.
const PLACES: f32 = 8.0;
const SIZES: f32 = 16.0;
const ANGLES: f32 = 256.0;

/// Why bytes are no sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SketchError {
    /// Not the first bytes of a sketch, or too few.
    NoSketch,
    /// Written by another version of this library.
    Format(u8),
    /// Damaged: what does not fit.
    Damaged(&'static str),
}

impl std::fmt::Display for SketchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSketch => write!(f, "these bytes are no sketch"),
            Self::Format(found) => write!(
                f,
                "the sketch has format {found}; this library reads format {SKETCH_FORMAT}"
            ),
            Self::Damaged(what) => write!(f, "the sketch is damaged: {what}"),
        }
    }
}

impl std::error::Error for SketchError {}

/// A reference as verification sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) features: Vec<Feature>,
    pub(crate) thumbnail: [u8; THUMBNAIL_BYTES],
    picture: Vec<u8>,
}

impl Sketch {
    /// The sketch of a picture. Blank and tiny pictures have one, too, with few features or none.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`] once `should_stop` says so.
    pub fn of(image: &Image, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
        let working = Grey::of(&at_most(image, SKETCH_SIDE)?);
        let plane = Plane::of(working.width, working.height, &working.pixels);
        let features = features(&plane, REFERENCE_FEATURES, &mut Spare::default(), should_stop)?;
        Ok(Self {
            width: working.width,
            height: working.height,
            features,
            thumbnail: thumbnail(image)?,
            picture: small_picture(image)?,
        })
    }

    /// How many local features it has.
    pub fn features(&self) -> usize {
        self.features.len()
    }

    /// The stored form, at most [`MOST_SKETCH_BYTES`] long.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(HEADER + self.features.len() * FEATURE_BYTES + THUMBNAIL_BYTES + self.picture.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[SKETCH_FORMAT, 0, 0, 0]);
        for number in [self.width, self.height, self.features.len(), self.picture.len()] {
            bytes.extend_from_slice(&(number as u16).to_le_bytes());
        }
        for feature in &self.features {
            let place = |at: f32| ((at * PLACES).round().clamp(0.0, 4095.0)) as u32;
            let both = place(feature.x) | place(feature.y) << 12;
            bytes.extend_from_slice(&both.to_le_bytes()[..3]);
            bytes.push((libm::log2f(feature.size) * SIZES).round().clamp(0.0, 255.0) as u8);
            let turn = (feature.angle / (2.0 * std::f32::consts::PI) * ANGLES).round() as i32;
            bytes.push(turn.rem_euclid(ANGLES as i32) as u8);
            bytes.extend_from_slice(&feature.code);
        }
        bytes.extend_from_slice(&self.thumbnail);
        bytes.extend_from_slice(&self.picture);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form. Whatever the bytes are, it neither panics nor takes more memory than they have.
    ///
    /// # Errors
    /// [`SketchError`] for anything but what [`Sketch::to_bytes`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.len() < HEADER + THUMBNAIL_BYTES + CHECKSUM || &bytes[..4] != MAGIC {
            return Err(SketchError::NoSketch);
        }
        if bytes[4] != SKETCH_FORMAT {
            return Err(SketchError::Format(bytes[4]));
        }
        if bytes.len() > MOST_SKETCH_BYTES {
            return Err(SketchError::Damaged("it is too long"));
        }
        let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        if checksum(content).to_le_bytes() != sum {
            return Err(SketchError::Damaged("its checksum is another"));
        }
        let number = |at: usize| usize::from(u16::from_le_bytes([content[at], content[at + 1]]));
        let (width, height, count, length) = (number(8), number(10), number(12), number(14));
        let sides = 1..=SKETCH_SIDE as usize;
        if !sides.contains(&width) || !sides.contains(&height) || bytes[5..8] != [0, 0, 0] {
            return Err(SketchError::Damaged("the size of its picture is impossible"));
        }
        if count > REFERENCE_FEATURES || content.len() != HEADER + count * FEATURE_BYTES + THUMBNAIL_BYTES + length {
            return Err(SketchError::Damaged("it has another length than it says"));
        }
        let (described, rest) = content[HEADER..].split_at(count * FEATURE_BYTES);
        let (small, picture) = rest.split_at(THUMBNAIL_BYTES);
        let mut thumbnail = [0; THUMBNAIL_BYTES];
        thumbnail.copy_from_slice(small);
        let mut features = Vec::with_capacity(count);
        for one in described.chunks_exact(FEATURE_BYTES) {
            let both = u32::from_le_bytes([one[0], one[1], one[2], 0]);
            let mut code = [0; 16];
            code.copy_from_slice(&one[5..]);
            let turn = f32::from(one[4] as i8) / ANGLES;
            let (x, y) = ((both & 4095) as f32 / PLACES, (both >> 12) as f32 / PLACES);
            if x > width as f32 || y > height as f32 {
                return Err(SketchError::Damaged("a feature lies outside its picture"));
            }
            features.push(Feature {
                x,
                y,
                size: libm::exp2f(f32::from(one[3]) / SIZES),
                angle: turn * 2.0 * std::f32::consts::PI,
                code,
            });
        }
        Ok(Self {
            width,
            height,
            features,
            thumbnail,
            picture: picture.to_vec(),
        })
    }

    /// Share of the picture that is of one tone, give or take two levels, 0 to 1: its ground, where it is drawn.
    ///
    /// # Errors
    /// [`SketchError::Damaged`] where the small picture cannot be decoded.
    pub fn ground(&self) -> Result<f64, SketchError> {
        let picture = self.picture()?;
        let mut levels = [0_usize; 256];
        for value in &picture.values {
            levels[value.clamp(0.0, 255.0) as usize] += 1;
        }
        let most = levels.windows(5).map(|tone| tone.iter().sum::<usize>()).max();
        Ok(most.unwrap_or(0) as f64 / picture.values.len().max(1) as f64)
    }

    /// The small picture's pixels.
    pub(crate) fn picture(&self) -> Result<Plane, SketchError> {
        let options = DecodeOptions {
            limits: Limits {
                max_bytes: MOST_SKETCH_BYTES as u64,
                max_pixels: u64::from(PICTURE_SIDE) * u64::from(PICTURE_SIDE),
                ..Limits::default()
            },
            min_side: None,
            matte: [255; 3],
            should_stop: &|| false,
        };
        let image = imaging::decode(&self.picture, &options)
            .map_err(|_| SketchError::Damaged("its small picture cannot be decoded"))?;
        Ok(Plane {
            width: image.width() as usize,
            height: image.height() as usize,
            values: image
                .pixels()
                .iter()
                .step_by(3)
                .map(|&level| f32::from(level))
                .collect(),
        })
    }
}

/// The picture with its longest side at most `longest`; smaller ones are enlarged, at most twofold, for their features'
/// sake.
pub(crate) fn at_most(image: &Image, longest: u32) -> Result<Image, ImageError> {
    let (width, height) = (u64::from(image.width()), u64::from(image.height()));
    let side = width.max(height);
    let target = u64::from(longest).min(2 * side);
    let scaled = |length: u64| u32::try_from(((length * target + side / 2) / side).max(1)).unwrap_or(longest);
    resize(image, scaled(width), scaled(height), Filter::Bilinear)
}

fn thumbnail(image: &Image) -> Result<[u8; THUMBNAIL_BYTES], ImageError> {
    let small = Grey::of(&resize(image, THUMBNAIL as u32, THUMBNAIL as u32, Filter::Bilinear)?);
    let mut thumbnail = [0; THUMBNAIL_BYTES];
    thumbnail.copy_from_slice(&small.pixels);
    Ok(thumbnail)
}

/// Bytes that are left for the small picture.
const PICTURE_BYTES: usize =
    MOST_SKETCH_BYTES - HEADER - REFERENCE_FEATURES * FEATURE_BYTES - THUMBNAIL_BYTES - CHECKSUM;

/// A JPEG with the longest side [`PICTURE_SIDE`], as good as its bytes allow.
fn small_picture(image: &Image) -> Result<Vec<u8>, ImageError> {
    let side = image.width().max(image.height());
    for longest in [PICTURE_SIDE, PICTURE_SIDE * 3 / 4, PICTURE_SIDE / 2, PICTURE_SIDE / 4] {
        let grey = Grey::of(&at_most(image, longest.min(side))?);
        for quality in [50, 30, 20, 12, 8] {
            let bytes = imaging::encode_grey_jpeg(grey.width as u32, grey.height as u32, &grey.pixels, quality)?;
            if bytes.len() <= PICTURE_BYTES {
                return Ok(bytes);
            }
        }
    }
    Ok(Vec::new())
}

/// CRC-32 as in PNG.
fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

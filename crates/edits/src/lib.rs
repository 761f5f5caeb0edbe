//! Edits: what happens to pictures between an original and its copy.
//!
//! Twenty seeded edits, from a crop to a meme caption, for people who test their own pictures, for the demo, and for
//! calibrating scores. Each has one strength from 0 (nearly the original) to 1 (severe); [`Edit::strength_means`] gives
//! the units. Edits chain: [`apply_pixels`] takes and gives an [`Image`].
//!
//! ```
//! use imaging::Image;
//! use edits::{Edit, apply};
//!
//! let picture = Image::new(64, 48, vec![90; 64 * 48 * 3])?;
//! let jpeg = apply(&picture, "meme".parse::<Edit>()?, 0.4, 7)?;
//! assert_eq!(jpeg, apply(&picture, Edit::Meme, 0.4, 7)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Promises:
//! - **The same edit, strength and seed give the same pixels** on every machine that runs the same build: draws come
//!   from ChaCha8, transcendental functions from the `libm` crate and not from the system's C library, all else is
//!   integer or exactly rounded IEEE arithmetic. For that reason, and to keep some thirty dependencies, among them an
//!   operating system's randomness, out of a database server, `imageproc` is not used.
//! - **Growth is bounded.** No side of the result is shorter than [`MIN_SIDE`] or longer than [`MAX_SIDE`]; its area is
//!   within [`Limits::max_pixels`], within [`Limits::max_memory`] ÷ 16 bytes, and at most the larger of four times the
//!   original's and 2²⁰ pixels. A picture that would break these is scaled first.
//! - **No thread is started, nothing panics**, whatever the size of the picture.

#![forbid(unsafe_code)]

mod blur;
mod canvas;
mod degrade;
mod edit;
mod frame;
mod geometry;
mod lettering;
mod paste;
mod path;
mod random;
mod scenery;
mod sticker;
#[cfg(test)]
mod tests;
mod tone;
mod warp;

use self::canvas::Canvas;
pub use self::canvas::MIN_SIDE;
pub use self::edit::{Edit, EditError};
use self::random::Random;
use imaging::Poll;
use imaging::{DecodeOptions, Filter, Image, ImageError, Limits, decode, encode_jpeg_until, resize_pixels};

/// A line of text on a picture, in pixels of it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Without line breaks.
    pub text: &'a str,
    /// Its left end.
    pub left: f64,
    /// What capitals stand on.
    pub baseline: f64,
    /// Height of capitals.
    pub height: f64,
}

/// Writes lines of text on a picture, in one colour. What does not fit is cut off at the picture's edges.
///
/// # Errors
/// [`ImageError`] where memory is wanting.
pub fn letter(image: &Image, lines: &[Line], colour: [u8; 3]) -> Result<Image, ImageError> {
    let poll = Poll::new(&|| false);
    let lettered = || {
        let mut canvas = Canvas::from_image(image, &poll)?;
        for line in lines {
            let set = lettering::Typeface::Sans.line(line.text, 0.12);
            set.at(line.left, line.baseline, line.height)
                .fill_flat(&mut canvas, colour);
        }
        canvas.into_image()
    };
    lettered().map_err(|error| match error {
        EditError::Image(error) => error,
        _ => ImageError::Cancelled,
    })
}

/// No side of an edited picture is longer, in pixels: what a JPEG can hold.
pub const MAX_SIDE: u32 = 65_535;

/// Quality of the JPEG that [`apply`] returns, for all edits but [`Edit::Jpeg`].
const OUTPUT_QUALITY: u8 = 90;

/// Bytes per pixel that an edit may hold at once: the picture, its working copy, the result and a resampled part, with
/// the resampler's own buffers.
const WORKING_BYTES: u64 = 16;

/// Edits a picture and returns it as JPEG, within the default [`Limits`].
///
/// `strength` is 0..=1. The JPEG has quality 90, but for [`Edit::Jpeg`], whose quality is the edit.
///
/// # Errors
/// [`EditError::Strength`] for a strength out of range; [`EditError::Image`] when the picture cannot be encoded.
pub fn apply(image: &Image, edit: Edit, strength: f32, seed: u64) -> Result<Vec<u8>, EditError> {
    apply_within(image, edit, strength, seed, &Limits::default(), &|| false)
}

/// As [`apply`], with a result that [`imaging::decode`] accepts under `limits` as far as its size goes. `should_stop`
/// is polled in every edit and while the result is encoded, every quarter of a million pixels at least.
///
/// # Errors
/// As [`apply`]; [`ImageError::Cancelled`] once `should_stop` says so.
pub fn apply_within(
    image: &Image,
    edit: Edit,
    strength: f32,
    seed: u64,
    limits: &Limits,
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<u8>, EditError> {
    let poll = Poll::new(should_stop);
    let (edited, quality) = if edit == Edit::Jpeg {
        let prepared = prepare(image, edit, checked(strength)?, limits, &poll)?;
        (finished(prepared, &poll)?, jpeg_quality(strength))
    } else {
        (edited(image, edit, strength, seed, limits, &poll)?, OUTPUT_QUALITY)
    };
    Ok(encode_jpeg_until(&edited, quality, &poll)?)
}

/// Edits a picture and returns its pixels, so that edits chain without loss between them.
///
/// # Errors
/// As [`apply`].
pub fn apply_pixels(image: &Image, edit: Edit, strength: f32, seed: u64, limits: &Limits) -> Result<Image, EditError> {
    edited(image, edit, strength, seed, limits, &Poll::new(&|| false))
}

fn edited(
    image: &Image,
    edit: Edit,
    strength: f32,
    seed: u64,
    limits: &Limits,
    poll: &Poll<'_>,
) -> Result<Image, EditError> {
    let amount = checked(strength)?;
    let mut random = Random::new(edit.name(), seed);
    let random = &mut random;
    let mut canvas = prepare(image, edit, amount, limits, poll)?;
    let edited = match edit {
        Edit::Crop => geometry::crop(&canvas, amount, random)?,
        Edit::Rotate => warp::rotate(&canvas, amount, random)?,
        Edit::Turn => geometry::turn(&canvas, random)?,
        Edit::Flip => geometry::flip(canvas),
        Edit::FlipVertical => geometry::flip_vertical(&canvas)?,
        Edit::Resize => geometry::resize(&canvas, amount)?,
        Edit::Aspect => geometry::aspect(&canvas, amount, random)?,
        Edit::Perspective => warp::perspective(&canvas, amount, random)?,
        Edit::Pad => geometry::pad(&canvas, amount, random)?,
        Edit::Blur => {
            let sigma = 0.03 * amount * canvas.short_side() as f64;
            blur::gaussian(&mut canvas, sigma)?;
            canvas
        }
        Edit::Noise => {
            degrade::noise(&mut canvas, amount, random);
            canvas
        }
        Edit::Jitter => {
            tone::jitter(&mut canvas, amount, random);
            canvas
        }
        Edit::Grey => {
            tone::grey(&mut canvas, amount);
            canvas
        }
        Edit::Jpeg => {
            let bytes = encode_jpeg_until(&canvas.into_image()?, jpeg_quality(strength), poll)?;
            let unlimited = Limits {
                max_bytes: u64::MAX,
                max_pixels: u64::MAX,
                max_memory: u64::MAX,
            };
            let options = DecodeOptions {
                limits: unlimited,
                should_stop: &|| poll.stopped(),
                ..DecodeOptions::default()
            };
            Canvas::from_image(&decode(&bytes, &options)?, poll)?
        }
        Edit::Pixelise => {
            degrade::pixelise(&mut canvas, amount);
            canvas
        }
        Edit::Text => {
            lettering::text(&mut canvas, amount, random);
            canvas
        }
        Edit::Emoji => {
            sticker::emoji(&mut canvas, amount, random);
            canvas
        }
        Edit::Paste => paste::paste(&canvas, amount, random)?,
        Edit::Screenshot => frame::screenshot(&canvas, amount, random)?,
        Edit::Meme => frame::meme(&canvas, amount, random)?,
    };
    finished(fitted(edited, room(image, limits))?, poll)
}

/// The pixels, unless work was broken off and they are not what they should be.
fn finished(canvas: Canvas, poll: &Poll) -> Result<Image, EditError> {
    poll.check()?;
    canvas.into_image()
}

/// Pastes `image` onto `other`, at a place and an angle that the seed decides; see [`Edit::Paste`] for `strength`. The
/// result has the size of `other`, brought within the bounds that hold for every edit.
///
/// # Errors
/// As [`apply`].
pub fn apply_onto(image: &Image, other: &Image, strength: f32, seed: u64, limits: &Limits) -> Result<Image, EditError> {
    let amount = checked(strength)?;
    let mut random = Random::new("onto", seed);
    let poll = Poll::new(&|| false);
    let canvas = prepare(image, Edit::Paste, amount, limits, &poll)?;
    let other = prepare(other, Edit::Paste, amount, limits, &poll)?;
    paste::onto(&canvas, other, amount, &mut random)?.into_image()
}

fn checked(strength: f32) -> Result<f64, EditError> {
    if (0.0..=1.0).contains(&strength) {
        Ok(f64::from(strength))
    } else {
        Err(EditError::Strength { value: strength })
    }
}

fn jpeg_quality(strength: f32) -> u8 {
    (90.0 - 85.0 * strength).round() as u8
}

/// Pixels that the result of editing `image` may have; never below [`MIN_SIDE`]².
fn room(image: &Image, limits: &Limits) -> u64 {
    let area = u64::from(image.width()) * u64::from(image.height());
    let growth = area.saturating_mul(4).max(1 << 20);
    let smallest = u64::from(MIN_SIDE) * u64::from(MIN_SIDE);
    growth
        .min(limits.max_pixels)
        .min(limits.max_memory / WORKING_BYTES)
        .max(smallest)
}

/// The picture as the edit starts from it: neither side under [`MIN_SIDE`], and so small that the result has room.
fn prepare<'p>(
    image: &Image,
    edit: Edit,
    strength: f64,
    limits: &Limits,
    poll: &'p Poll<'p>,
) -> Result<Canvas<'p>, EditError> {
    let room = room(image, limits);
    let [width, height] = [image.width(), image.height()].map(|side| f64::from(side.max(MIN_SIDE)));
    let scale = (room as f64 / edit.largest_area(width, height, strength))
        .sqrt()
        .min(1.0);
    let (width, height) = bounded(width * scale, height * scale, room);
    if (width, height) == (image.width(), image.height()) {
        return Canvas::from_image(image, poll);
    }
    let source = (image.pixels(), image.width() as usize, image.height() as usize);
    Ok(Canvas {
        pixels: resize_pixels(source, width, height, Filter::Bicubic, poll)?,
        width: width as usize,
        height: height as usize,
        poll,
    })
}

/// The result within its bounds. `prepare` leaves little to do: roundings, and strips whose sides reach a bound.
fn fitted(canvas: Canvas<'_>, room: u64) -> Result<Canvas<'_>, EditError> {
    let scale = (room as f64 / canvas.area() as f64).sqrt().min(1.0);
    let (width, height) = bounded(canvas.width as f64 * scale, canvas.height as f64 * scale, room);
    if (width as usize, height as usize) == (canvas.width, canvas.height) {
        return Ok(canvas);
    }
    canvas.resized_exactly(width, height)
}

/// Brings both sides to [`MIN_SIDE`]..=[`MAX_SIDE`], and the longer one down until the area is within `room`.
fn bounded(width: f64, height: f64, room: u64) -> (u32, u32) {
    let side = |length: f64| (length.round() as u32).clamp(MIN_SIDE, MAX_SIDE);
    let (width, height) = (side(width), side(height));
    let along = |short: u32, long: u32| {
        long.min((room / u64::from(short)).min(u64::from(MAX_SIDE)) as u32)
            .max(MIN_SIDE)
    };
    if width < height {
        (width, along(width, height))
    } else {
        (along(height, width), height)
    }
}

//! Bytes to pixels within limits: decoding, orientation, resizing.
//!
//! ```
//! use imaging::{DecodeOptions, Filter, Image, decode, encode_png, inspect, resize};
//!
//! let picture = Image::new(4, 2, vec![128; 4 * 2 * 3])?;
//! let bytes = encode_png(&picture)?;
//!
//! let options = DecodeOptions::default();
//! assert_eq!(inspect(&bytes, &options.limits)?.width, 4);
//! let pixels = decode(&bytes, &options)?;
//! let square = resize(&pixels, 224, 224, Filter::Bilinear)?;
//! assert_eq!(square.pixels().len(), 224 * 224 * 3);
//! # Ok::<(), imaging::ImageError>(())
//! ```
//!
//! Three promises hold for every function that takes bytes from outside:
//! - **Limits come before allocation.** The header is read first; a picture that is too large, or whose decoder would
//!   need more than [`Limits::max_memory`], is refused by its claimed size without a buffer for it.
//! - **Every failure is an [`ImageError`]** that names the cause and the value. A panic inside a codec is caught and
//!   becomes [`ImageError::Corrupt`].
//! - **Decoding stops when asked.** [`DecodeOptions::should_stop`] is polled while the compressed bytes are read.
//!
//! Pixels are RGB, 8 bits a channel, row-major, without padding. Colours are taken as they are stored: ICC profiles are
//! not applied (Pillow's `convert("RGB")` does not either, and descriptors depend on agreeing with it). No function
//! here starts a thread.

#![forbid(unsafe_code)]

pub mod buffers;
mod decode;
mod detail;
mod encode;
mod error;
mod exif;
mod format;
mod header;
mod limits;
mod orientation;
mod picture;
mod poll;
mod resize;
mod signature;
mod views;

pub use decode::{DecodeOptions, decode, decode_frame};
pub use detail::{Detail, detail, detail_until, refusal};
pub use encode::{encode_grey_jpeg, encode_jpeg, encode_jpeg_until, encode_png};
pub use error::ImageError;
pub use format::Format;
pub use header::{ImageInfo, inspect};
pub use limits::Limits;
pub use picture::Image;
pub use poll::Poll;
pub use resize::{Filter, resize, resize_pixels, resize_until};
pub use views::{oriented, without_border};

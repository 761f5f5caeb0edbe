//! Whether one picture shows another, and where: for verification, which compares a query with stored sketches of
//! references, and for a person who has to decide.
//!
//! Local features in the manner of SIFT (Lowe, IJCV 2004), cut to 128 bits; every match of two features is a hypothesis
//! of the motion between the pictures; under the one that most others bear out the content is compared cell by cell. A
//! sticker or caption on a copy is not taken for a part of it.
//!
//! ```
//! use imaging::Image;
//! use keypoints::{draw, explain};
//!
//! let noise = (0..64 * 64 * 3).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
//! let picture = Image::new(64, 64, noise)?;
//! let explanation = explain(&picture, &picture, &|| false)?;
//! assert!(draw(&explanation)?.width() > 2 * 64);
//! # Ok::<(), imaging::ImageError>(())
//! ```
//!
//! Nothing depends on chance or on the machine: the same pictures give the same answer. Pictures are worked
//! on with at most [`SKETCH_SIDE`] pixels a side and drawn with at most [`DRAWN_SIDE`], so time and memory
//! are bounded whatever comes.

#![forbid(unsafe_code)]

mod content;
mod draw;
mod explain;
mod features;
mod grey;
mod motion;
mod plane;
mod scale_space;
mod sketch;
mod transform;
mod verify;

pub use draw::draw;
pub use explain::{DRAWN_SIDE, Explanation, Region, explain};
pub use sketch::{MOST_SKETCH_BYTES, PICTURE_SIDE, SKETCH_FORMAT, SKETCH_SIDE, Sketch, SketchError};
pub use transform::Affine;
pub use verify::{Evidence, Query};

//! Which regions of two pictures agree, for a person who has to decide whether one is a copy of the other.
//!
//! ORB's way (Rublee and others, ICCV 2011): FAST corners over a pyramid, ranked by Harris' measure, oriented by the
//! intensity centroid, described by 256 comparisons of smoothed pixels; mutual best matches; one similarity transform that
//! many matches agree on, refined to an affine one. Under that transform blocks of the two pictures are correlated: what
//! agrees is marked, and a sticker or caption on a copy is not.
//!
//! ```
//! use imaging::Image;
//! use keypoints::{compare, draw};
//!
//! let picture = Image::new(64, 64, (0..64 * 64 * 3).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect())?;
//! let agreement = compare(&picture, &picture, &|| false)?;
//! let side_by_side = draw(&agreement)?;
//! assert!(side_by_side.width() > 2 * 64);
//! # Ok::<(), imaging::ImageError>(())
//! ```
//!
//! Nothing depends on chance or on the machine: the same pictures give the same answer. Both are worked on with at most
//! [`WORKING_SIDE`] pixels a side, so time and memory are bounded whatever comes.

#![forbid(unsafe_code)]

mod agreement;
mod content;
mod describe;
mod detect;
mod draw;
mod features;
mod grey;
mod matching;
mod motion;
mod plane;
mod scale_space;
mod sketch;
mod transform;
mod verify;

pub use agreement::{Agreement, LEAST_INLIERS, Region, WORKING_SIDE, compare};
pub use draw::draw;
pub use sketch::{MOST_SKETCH_BYTES, PICTURE_SIDE, SKETCH_FORMAT, SKETCH_SIDE, Sketch, SketchError};
pub use transform::Affine;
pub use verify::{Evidence, Query};

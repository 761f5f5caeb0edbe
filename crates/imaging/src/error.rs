//! Everything that can be wrong with a picture, by cause.

use crate::Format;

/// Why a picture was refused. The message names the cause and the value; [`ImageError::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes.
    #[error("image is empty: it has 0 bytes")]
    Empty,
    /// The encoded picture is larger than [`crate::Limits::max_bytes`].
    #[error("image has {found} bytes, more than the limit of {limit}")]
    TooManyBytes {
        /// Bytes given.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header claims more pixels than [`crate::Limits::max_pixels`].
    #[error("image claims {width}x{height} pixels, more than the limit of {limit} pixels")]
    TooManyPixels {
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// Decoding could need more than [`crate::Limits::max_memory`].
    #[error(
        "decoding this {format} image of {width}x{height} pixels may need {needed} bytes of memory, more than the \
         limit of {limit}"
    )]
    TooMuchMemory {
        /// The format.
        format: Format,
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
        /// Upper bound of what decoding would hold at once, in bytes.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes start like no supported format.
    #[error("image format not recognised: {found}")]
    UnknownFormat {
        /// What the bytes look like.
        found: String,
    },
    /// A well-formed picture that uses something no decoder here knows.
    #[error("{format} image uses an unsupported feature: {feature}")]
    Unsupported {
        /// The format.
        format: Format,
        /// The feature.
        feature: String,
    },
    /// The bytes end before the picture does.
    #[error("{format} image is truncated: the data ends after {bytes} bytes, before the picture is complete")]
    Truncated {
        /// The format.
        format: Format,
        /// Bytes that are there.
        bytes: u64,
    },
    /// The bytes contradict the format.
    #[error("{format} image is corrupt: {reason}")]
    Corrupt {
        /// The format.
        format: Format,
        /// What is wrong.
        reason: String,
    },
    /// [`crate::DecodeOptions::should_stop`] said so.
    #[error("decoding was cancelled")]
    Cancelled,
    /// The system has no memory for a buffer of this size.
    #[error("out of memory: the image needs a buffer of {bytes} bytes")]
    OutOfMemory {
        /// Size of the buffer, in bytes.
        bytes: u64,
    },
    /// A picture without pixels was asked for.
    #[error("image size {width}x{height} is not valid: both sides must be at least 1")]
    InvalidSize {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// The pixel buffer does not fit the size.
    #[error("an RGB image of {width}x{height} pixels has {expected} bytes, but {found} were given")]
    WrongLength {
        /// Width.
        width: u32,
        /// Height.
        height: u32,
        /// Bytes that size needs.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The picture cannot be written in this format.
    #[error("image cannot be written as {format}: {reason}")]
    Encode {
        /// The format.
        format: Format,
        /// Why.
        reason: String,
    },
}

impl ImageError {
    /// One sentence on what the caller can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ImageError::Empty => "Store the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.",
            ImageError::TooManyBytes { .. } => "Compress or shrink the image, or raise the limit on image bytes.",
            ImageError::TooManyPixels { .. } => "Shrink the image, or raise the limit on image pixels.",
            ImageError::TooMuchMemory { .. } => {
                "Shrink the image, save it as baseline JPEG, or raise the limit on image memory."
            }
            ImageError::UnknownFormat { .. } => "Supported formats are JPEG, PNG, WebP, GIF, BMP and TIFF.",
            ImageError::Unsupported { .. } => "Save the image again as an ordinary 8-bit JPEG or PNG.",
            ImageError::Truncated { .. } => "The upload was probably interrupted: send the complete file again.",
            ImageError::Corrupt { .. } => "Check that the bytes arrived unchanged, or save the image again.",
            ImageError::Cancelled => "The statement was cancelled or timed out while the image was being decoded.",
            ImageError::OutOfMemory { .. } => {
                "Give the server more memory, or lower the limits on image memory and image pixels."
            }
            ImageError::InvalidSize { .. } => "Ask for a width and a height of at least 1 pixel.",
            ImageError::WrongLength { .. } => "Give width * height * 3 bytes, red, green and blue for each pixel.",
            ImageError::Encode { .. } => "Use PNG for pictures that JPEG cannot hold (a side over 65535 pixels).",
        }
    }

    pub(crate) fn corrupt(format: Format, reason: impl Into<String>) -> Self {
        ImageError::Corrupt {
            format,
            reason: reason.into(),
        }
    }

    pub(crate) fn unsupported(format: Format, feature: impl Into<String>) -> Self {
        ImageError::Unsupported {
            format,
            feature: feature.into(),
        }
    }

    pub(crate) fn truncated(format: Format, bytes: &[u8]) -> Self {
        ImageError::Truncated {
            format,
            bytes: bytes.len() as u64,
        }
    }
}

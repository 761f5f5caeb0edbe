//! The edits there are, what their strengths mean, and why one could not be made.

use std::fmt;
use std::str::FromStr;

use imaging::ImageError;

/// A kind of edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "`description` and `strength_means` document each edit, for SQL users too"
)]
pub enum Edit {
    Crop,
    Rotate,
    Turn,
    Flip,
    FlipVertical,
    Resize,
    Aspect,
    Perspective,
    Pad,
    Blur,
    Noise,
    Jitter,
    Grey,
    Jpeg,
    Pixelise,
    Text,
    Emoji,
    Paste,
    Screenshot,
    Meme,
}

impl Edit {
    /// Every edit.
    pub const ALL: [Edit; 20] = [
        Edit::Crop,
        Edit::Rotate,
        Edit::Turn,
        Edit::Flip,
        Edit::FlipVertical,
        Edit::Resize,
        Edit::Aspect,
        Edit::Perspective,
        Edit::Pad,
        Edit::Blur,
        Edit::Noise,
        Edit::Jitter,
        Edit::Grey,
        Edit::Jpeg,
        Edit::Pixelise,
        Edit::Text,
        Edit::Emoji,
        Edit::Paste,
        Edit::Screenshot,
        Edit::Meme,
    ];

    /// The name that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Edit::Crop => "crop",
            Edit::Rotate => "rotate",
            Edit::Turn => "turn",
            Edit::Flip => "flip",
            Edit::FlipVertical => "flip_vertical",
            Edit::Resize => "resize",
            Edit::Aspect => "aspect",
            Edit::Perspective => "perspective",
            Edit::Pad => "pad",
            Edit::Blur => "blur",
            Edit::Noise => "noise",
            Edit::Jitter => "jitter",
            Edit::Grey => "grey",
            Edit::Jpeg => "jpeg",
            Edit::Pixelise => "pixelise",
            Edit::Text => "text",
            Edit::Emoji => "emoji",
            Edit::Paste => "paste",
            Edit::Screenshot => "screenshot",
            Edit::Meme => "meme",
        }
    }

    /// One sentence on what the edit does, including what the seed decides.
    pub fn description(self) -> &'static str {
        match self {
            Edit::Crop => "Keeps a window of the picture; the seed places it.",
            Edit::Rotate => "Turns the picture by any angle and fills the corners; the seed decides the direction.",
            Edit::Turn => "Turns the picture by 90, 180 or 270 degrees; the seed decides which.",
            Edit::Flip => "Mirrors left and right.",
            Edit::FlipVertical => "Mirrors top and bottom.",
            Edit::Resize => "Scales the picture down.",
            Edit::Aspect => "Stretches the picture in one direction at the same area; the seed decides which.",
            Edit::Perspective => "Shows the picture from an angle; the seed moves the corners.",
            Edit::Pad => "Adds borders of one colour or of the blurred picture; the seed decides widths and colour.",
            Edit::Blur => "Gaussian blur.",
            Edit::Noise => "Adds Gaussian noise; the seed decides every grain.",
            Edit::Jitter => "Changes brightness, contrast, saturation and hue; the seed decides the directions.",
            Edit::Grey => "Takes the colour out.",
            Edit::Jpeg => "Compresses as JPEG of low quality.",
            Edit::Pixelise => "Replaces squares by their mean colour.",
            Edit::Text => "Writes lines of text over the picture; the seed decides words, places and colours.",
            Edit::Emoji => "Sticks faces, hearts and stars on the picture; the seed decides which and where.",
            Edit::Paste => "Pastes the picture onto a synthetic scene; the seed draws the scene and the place.",
            Edit::Screenshot => "Shows the picture on the screen of a phone or a browser; the seed decides which.",
            Edit::Meme => "Adds a caption band above or below the picture, or both; the seed decides the words.",
        }
    }

    /// What strength 0 and strength 1 mean, with units; in between it is linear unless stated.
    pub fn strength_means(self) -> &'static str {
        match self {
            Edit::Crop => "the area that is kept, from 100 % to 10 %",
            Edit::Rotate => "the angle, from 0 to between 60 and 90 degrees",
            Edit::Turn | Edit::Flip | Edit::FlipVertical => "nothing: the edit is the same at any strength",
            Edit::Resize => "the scale of both sides, from 1 to 2^-3.5 (0.09), falling exponentially",
            Edit::Aspect => "the change of width : height, from 1 to between 2.3 and 2.8, growing exponentially",
            Edit::Perspective => "how far each corner moves in, from 0 to at most 35 % of each side",
            Edit::Pad => "the border at each edge, from 0 to at most 45 % of the side",
            Edit::Blur => "the standard deviation, from 0 to 3 % of the shorter side",
            Edit::Noise => "the standard deviation, from 0 to 70 grey levels",
            Edit::Jitter => "the largest change: brightness 50 %, contrast 60 %, saturation 80 %, hue 60 degrees at 1",
            Edit::Grey => "the share of colour that is lost, from 0 to 100 %",
            Edit::Jpeg => "the quality, from 90 down to 5",
            Edit::Pixelise => "the side of a square, from 1 pixel to 1/12 of the shorter side",
            Edit::Text => "1 to 4 lines, with capitals of 3 % to 15 % of the height",
            Edit::Emoji => "1 to 6 emoji, of 8 % to at most 50 % of the shorter side",
            Edit::Paste => {
                "the picture's sides, from 95 % to 30 % of what would fill the scene; turned by at most 15 degrees"
            }
            Edit::Screenshot => "the picture's share of the screen, from 90 % to 28 %",
            Edit::Meme => "the height of the bands, from 8 % to 60 % of the picture's",
        }
    }

    /// Whether another seed gives another result.
    pub fn is_seeded(self) -> bool {
        !matches!(
            self,
            Edit::Flip | Edit::FlipVertical | Edit::Resize | Edit::Blur | Edit::Grey | Edit::Jpeg | Edit::Pixelise
        )
    }

    /// An upper bound of the result's area in pixels, for a picture of the given size.
    pub(crate) fn largest_area(self, width: f64, height: f64, strength: f64) -> f64 {
        let area = width * height;
        match self {
            // |cos|·|sin| ≤ ½ in the product of `warp::turned_size`'s sides.
            Edit::Rotate => area + (width * width + height * height) / 2.0,
            Edit::Pad => area * (1.0 + 0.9 * strength) * (1.0 + 0.9 * strength),
            Edit::Screenshot => area / (0.9 - 0.62 * strength),
            Edit::Meme => area * (1.08 + 0.52 * strength),
            _ => area,
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Edit {
    type Err = EditError;

    /// Reads a name, in any case; the American spellings `gray` and `pixelize` too.
    fn from_str(name: &str) -> Result<Self, EditError> {
        let wanted = name.trim().to_ascii_lowercase();
        let wanted = match wanted.as_str() {
            "gray" => "grey",
            "pixelize" => "pixelise",
            other => other,
        };
        let known = Edit::ALL.into_iter().find(|edit| edit.name() == wanted);
        known.ok_or_else(|| EditError::UnknownEdit {
            name: name.chars().take(64).collect(),
        })
    }
}

/// Why an edit could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// No edit has this name.
    #[error("unknown edit \"{name}\"")]
    UnknownEdit {
        /// The name given, at most its first 64 characters.
        name: String,
    },
    /// The strength is outside of 0..=1, or not a number.
    #[error("strength of an edit must be between 0 and 1, not {value}")]
    Strength {
        /// The strength given.
        value: f32,
    },
    /// The picture could not be resized, encoded or decoded.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl EditError {
    /// One sentence on what the caller can do about it; for an unknown name, the names there are.
    pub fn hint(&self) -> String {
        match self {
            EditError::UnknownEdit { .. } => format!("Edits are {}.", Edit::ALL.map(Edit::name).join(", ")),
            EditError::Strength { .. } => "0 is nearly the original, 1 is severe.".to_owned(),
            EditError::Image(error) => error.hint().to_owned(),
        }
    }
}

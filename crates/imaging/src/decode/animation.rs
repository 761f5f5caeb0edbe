//! Which frame of an animation stands for it.
//!
//! The first one, unless it shows markedly less than a later one: a blank or black first frame, or a picture that fades
//! in, would otherwise hide what follows from every search. Structure is [`crate::detail`]'s score.

use super::Input;
use crate::{Image, ImageError, buffers, detail};

/// Frames looked at, at most.
const MAX_FRAMES: u32 = 32;
/// Pixels of all frames looked at together, at most.
const MAX_PIXELS: u64 = 100_000_000;
/// A first frame with this much structure is taken unseen what follows: that of an ordinary photograph or drawing.
const ENOUGH: f32 = 8.0;
/// A first frame is taken when it has this part of the most structure that any frame has.
const LEAST_PART: f32 = 0.5;

/// Compares frames and keeps the best of them.
pub(super) struct Chooser<'a> {
    input: &'a Input<'a>,
    size: (u32, u32),
    seen: u32,
    first: f32,
    /// The frame with the most structure so far: its number, score and pixels.
    best: Option<(u32, f32, Vec<u8>)>,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(input: &'a Input<'a>, size: (u32, u32)) -> Self {
        Self {
            input,
            size,
            seen: 0,
            first: 0.0,
            best: None,
        }
    }

    /// Shows the next frame, RGB on the matte; gives whether further ones should be looked at.
    pub(super) fn offer(&mut self, pixels: &[u8]) -> Result<bool, ImageError> {
        let (width, height) = self.size;
        let score = detail::of_pixels((pixels, width as usize, height as usize), self.input.poll)?.score;
        self.seen += 1;
        if self.seen == 1 {
            self.first = score;
        }
        match &mut self.best {
            None => self.best = Some((1, score, buffers::copy(pixels)?)),
            Some((number, most, best)) => {
                // The first one keeps its place while it has a fair part of what is found.
                let least = if *number == 1 { self.first / LEAST_PART } else { *most };
                if score > least {
                    (*number, *most) = (self.seen, score);
                    best.copy_from_slice(pixels);
                }
            }
        }
        let pixels_seen = u64::from(self.seen + 1) * u64::from(width) * u64::from(height);
        Ok(self.first < ENOUGH && self.seen < MAX_FRAMES && pixels_seen <= MAX_PIXELS)
    }

    /// The frame chosen and its number, from 1; `None` before the first frame.
    pub(super) fn chosen(self) -> Option<Result<(Image, u32), ImageError>> {
        let (number, _, pixels) = self.best?;
        Some(Image::new(self.size.0, self.size.1, pixels).map(|image| (image, number)))
    }
}

//! From RGB8 pixels to the network's input tensor.

use imaging::{Filter, Image};
use ndarray::ArrayViewMut3;

use crate::error::EncoderError;
use crate::manifest::{Colour, Manifest, Resize};

/// Resize, scale to 0..1, subtract mean, divide by deviation, one plane per channel.
pub(crate) struct Preprocessor {
    filter: Filter,
    /// For each plane of the tensor: which byte of a pixel it comes from, and the value of each of the 256 levels.
    planes: [(usize, [f32; 256]); 3],
}

impl Preprocessor {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let channels = match manifest.colour() {
            Colour::Rgb => [0, 1, 2],
            Colour::Bgr => [2, 1, 0],
        };
        let (mean, std) = (manifest.mean(), manifest.std());
        let planes = channels.map(|channel| {
            let mut levels = [0.0; 256];
            for (level, value) in levels.iter_mut().enumerate() {
                *value = (level as f32 / 255.0 - mean[channel]) / std[channel];
            }
            (channel, levels)
        });
        let filter = match manifest.resize() {
            Resize::Bilinear => Filter::Bilinear,
            Resize::Bicubic => Filter::Bicubic,
            Resize::Lanczos => Filter::Lanczos,
        };
        Self { filter, planes }
    }

    /// Fills one image's planes of the input tensor, 3 x `size` x `size`.
    pub(crate) fn fill(&self, image: &Image, size: u32, mut planes: ArrayViewMut3<f32>) -> Result<(), EncoderError> {
        let resized;
        let square = if (image.width(), image.height()) == (size, size) {
            image
        } else {
            resized = imaging::resize(image, size, size, self.filter)?;
            &resized
        };
        for (mut plane, (channel, levels)) in planes.outer_iter_mut().zip(&self.planes) {
            for (value, pixel) in plane.iter_mut().zip(square.pixels().chunks_exact(3)) {
                *value = levels[usize::from(pixel[*channel])];
            }
        }
        Ok(())
    }
}

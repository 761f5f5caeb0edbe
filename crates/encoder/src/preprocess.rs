//! From RGB8 pixels to the network's input tensor.

use std::borrow::Cow;

use imaging::{Filter, Image};
use ndarray::{Array4, ArrayView4};

use crate::error::EncoderError;
use crate::manifest::{Colour, Element, Fit, Layout, MAX_ASPECT, Manifest, Resize};

/// Images of one size, as the network takes them.
pub(crate) enum Tensor {
    /// Normalised.
    Float(Array4<f32>),
    /// As they are.
    Bytes(Array4<u8>),
}

impl Tensor {
    pub(crate) fn view(&self) -> Input<'_> {
        match self {
            Self::Float(values) => Input::Float(values.view()),
            Self::Bytes(values) => Input::Bytes(values.view()),
        }
    }
}

/// A tensor that lies elsewhere, such as in memory that processes share.
pub(crate) enum Input<'a> {
    /// As [`Tensor::Float`].
    Float(ArrayView4<'a, f32>),
    /// As [`Tensor::Bytes`].
    Bytes(ArrayView4<'a, u8>),
}

impl<'a> Input<'a> {
    /// `bytes` as a tensor; None where they are not as many as the shape needs, or not aligned for the element.
    pub(crate) fn new(element: Element, shape: [usize; 4], bytes: &'a [u8]) -> Option<Self> {
        match element {
            Element::Float32 => {
                let values = bytemuck::try_cast_slice(bytes).ok()?;
                ArrayView4::from_shape(shape, values).ok().map(Self::Float)
            }
            Element::Uint8 => ArrayView4::from_shape(shape, bytes).ok().map(Self::Bytes),
        }
        .filter(|input| input.len() == shape.iter().product::<usize>())
    }

    fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }
}

/// Resize, then, for floats, scale to 0..1, subtract mean, divide by deviation; colours and
/// axes in the manifest's order.
pub(crate) struct Preprocessor {
    filter: Filter,
    fit: Fit,
    layout: Layout,
    element: Element,
    /// For each channel of the tensor: which byte of a pixel it comes from, and the value of each of the 256 levels.
    channels: [(usize, [f32; 256]); 3],
}

impl Preprocessor {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let order = match manifest.colour() {
            Colour::Rgb => [0, 1, 2],
            Colour::Bgr => [2, 1, 0],
        };
        let (mean, std) = (manifest.mean(), manifest.std());
        let channels = order.map(|channel| {
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
        Self {
            filter,
            fit: manifest.fit(),
            layout: manifest.layout(),
            element: manifest.element(),
            channels,
        }
    }

    /// Width and height at which the network sees `image` at `size`.
    pub(crate) fn target(&self, image: &Image, size: u32) -> (u32, u32) {
        let (width, height) = (image.width(), image.height());
        let short = u64::from(width.min(height));
        // Rounded to the nearest; both fit, for a side has 32 bits and a size ten.
        let long = |side: u32| {
            let scaled = (u64::from(side) * u64::from(size) + short / 2) / short;
            scaled.min(u64::from(size * MAX_ASPECT)) as u32
        };
        match self.fit {
            Fit::Square => (size, size),
            Fit::Short if width <= height => (size, long(height)),
            Fit::Short => (long(width), size),
        }
    }

    /// The tensor for `images` that all have this `target`. `before_each` is called before each image is resized.
    pub(crate) fn tensor(
        &self,
        images: &[Image],
        target: (u32, u32),
        mut before_each: impl FnMut() -> Result<(), EncoderError>,
    ) -> Result<Tensor, EncoderError> {
        let (columns, rows) = (target.0 as usize, target.1 as usize);
        let shape = match self.layout {
            Layout::Nchw => (images.len(), 3, rows, columns),
            Layout::Nhwc => (images.len(), rows, columns, 3),
        };
        let mut tensor = match self.element {
            Element::Float32 => Tensor::Float(zeros(shape)?),
            Element::Uint8 => Tensor::Bytes(zeros(shape)?),
        };
        let each = 3 * rows * columns;
        for (i, image) in images.iter().enumerate() {
            before_each()?;
            let part = i * each..(i + 1) * each;
            let resized = self.resized(image, target)?;
            match &mut tensor {
                Tensor::Float(values) => self.fill(&resized, &mut whole(values)[part], as_float),
                Tensor::Bytes(values) => self.fill(&resized, &mut whole(values)[part], as_byte),
            }
        }
        Ok(tensor)
    }

    fn resized<'a>(&self, image: &'a Image, target: (u32, u32)) -> Result<Cow<'a, Image>, EncoderError> {
        if (image.width(), image.height()) == target {
            return Ok(Cow::Borrowed(image));
        }
        Ok(Cow::Owned(imaging::resize(image, target.0, target.1, self.filter)?))
    }

    /// Rows, columns and colours of one image's tensor, in the manifest's order of axes.
    pub(crate) fn shape(&self, (width, height): (u32, u32)) -> [usize; 3] {
        let (columns, rows) = (width as usize, height as usize);
        match self.layout {
            Layout::Nchw => [3, rows, columns],
            Layout::Nhwc => [rows, columns, 3],
        }
    }

    /// Writes the tensor of one image, whose target this is, into `bytes`. None where those are too few or not aligned.
    pub(crate) fn write(
        &self,
        image: &Image,
        target: (u32, u32),
        bytes: &mut [u8],
    ) -> Result<Option<()>, EncoderError> {
        let elements = self.shape(target).iter().product::<usize>();
        let resized = self.resized(image, target)?;
        Ok(match self.element {
            Element::Float32 => bytemuck::try_cast_slice_mut(bytes)
                .ok()
                .filter(|values: &&mut [f32]| values.len() == elements)
                .map(|values| self.fill(&resized, values, as_float)),
            Element::Uint8 => (bytes.len() == elements).then(|| self.fill(&resized, bytes, as_byte)),
        })
    }

    /// One picture's tensor, which has as many elements as the picture has bytes: all planes at once, or pixel by
    /// pixel.
    fn fill<T>(&self, image: &Image, values: &mut [T], value: impl Fn(u8, &[f32; 256]) -> T) {
        let (pixels, _) = image.pixels().as_chunks::<3>();
        let [first, second, third] = &self.channels;
        let of = |pixel: &[u8; 3], (channel, levels): &(usize, [f32; 256])| value(pixel[*channel], levels);
        match self.layout {
            Layout::Nchw => {
                let (a, rest) = values.split_at_mut(pixels.len());
                let (b, c) = rest.split_at_mut(pixels.len());
                for (((pixel, a), b), c) in pixels.iter().zip(a).zip(b).zip(c) {
                    (*a, *b, *c) = (of(pixel, first), of(pixel, second), of(pixel, third));
                }
            }
            Layout::Nhwc => {
                for (pixel, three) in pixels.iter().zip(values.as_chunks_mut::<3>().0) {
                    *three = [of(pixel, first), of(pixel, second), of(pixel, third)];
                }
            }
        }
    }
}

fn as_float(level: u8, levels: &[f32; 256]) -> f32 {
    levels[usize::from(level)]
}

fn as_byte(level: u8, _: &[f32; 256]) -> u8 {
    level
}

/// An array's elements, in their order.
fn whole<T>(values: &mut Array4<T>) -> &mut [T] {
    // Made by `zeros`, so that they lie in that order.
    values.as_slice_mut().unwrap_or_default()
}

/// Zeros, or an error where there is no memory for them.
fn zeros<T: Default + Clone>(shape: (usize, usize, usize, usize)) -> Result<Array4<T>, EncoderError> {
    let out_of_memory = |reason: String| EncoderError::OutOfMemory {
        doing: "for the network's input",
        reason,
    };
    let values =
        memory::zeroed(shape.0 * shape.1 * shape.2 * shape.3).map_err(|error| out_of_memory(error.to_string()))?;
    Array4::from_shape_vec(shape, values).map_err(|error| out_of_memory(error.to_string()))
}

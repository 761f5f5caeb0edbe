//! The two ends of a model that need no network: from an image to its input tensors, from raw outputs to a descriptor.
//!
//! A process that lets another one run the network does these parts itself.

use imaging::Image;

use crate::error::EncoderError;
use crate::manifest::{Element, Manifest};
use crate::preprocess::{Preprocessor, Tensor};

/// What a manifest says about preparing images. Cheap: no runtime library, no weights.
pub struct Preparation {
    manifest: Manifest,
    preprocessor: Preprocessor,
}

impl Preparation {
    /// Of the model with this manifest.
    pub fn new(manifest: Manifest) -> Self {
        let preprocessor = Preprocessor::new(&manifest);
        Self { manifest, preprocessor }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Shape of the tensor that the network sees of `image` at one of the manifest's sizes,
    /// without the batch's dimension.
    pub fn shape(&self, image: &Image, size: u32) -> [usize; 3] {
        self.preprocessor.shape(self.preprocessor.target(image, size))
    }

    /// Bytes of a tensor of this shape.
    pub fn bytes(&self, shape: [usize; 3]) -> usize {
        let element = match self.manifest.element() {
            Element::Float32 => size_of::<f32>(),
            Element::Uint8 => size_of::<u8>(),
        };
        shape.iter().product::<usize>() * element
    }

    /// Resizes `image` and writes its tensor at `size` into `bytes`, which begin at a multiple of four and are as many
    /// as [`Preparation::bytes`] says.
    ///
    /// # Errors
    /// [`EncoderError::Image`]; [`EncoderError::InputShape`] where `bytes` are of another number or not aligned.
    pub fn write(&self, image: &Image, size: u32, bytes: &mut [u8]) -> Result<(), EncoderError> {
        let target = self.preprocessor.target(image, size);
        let [first, second, third] = self.preprocessor.shape(target);
        let error = EncoderError::InputShape {
            bytes: bytes.len(),
            shape: [1, first, second, third],
        };
        if bytes.len() != self.bytes([first, second, third]) {
            return Err(error);
        }
        self.preprocessor.write(image, target, bytes)?.ok_or(error)
    }

    pub(crate) fn target(&self, image: &Image, size: u32) -> (u32, u32) {
        self.preprocessor.target(image, size)
    }

    pub(crate) fn tensor(
        &self,
        images: &[Image],
        target: (u32, u32),
        before_each: impl FnMut() -> Result<(), EncoderError>,
    ) -> Result<Tensor, EncoderError> {
        self.preprocessor.tensor(images, target, before_each)
    }
}

/// The descriptor of one image in the making: the mean of its L2-normalised outputs at the manifest's sizes.
pub struct Mean {
    sum: Vec<f32>,
}

impl Mean {
    /// Nothing yet; of a model with so many dimensions.
    pub fn new(dimensions: usize) -> Self {
        Self {
            sum: vec![0.0; dimensions],
        }
    }

    /// Adds the network's raw output at one size. `image` is for errors.
    ///
    /// # Errors
    /// [`EncoderError::NonFiniteDescriptor`], [`EncoderError::ZeroDescriptor`].
    pub fn add(
        &mut self,
        output: impl Iterator<Item = f32> + Clone,
        size: u32,
        image: usize,
    ) -> Result<(), EncoderError> {
        let scale = inverse_norm(output.clone())
            .ok_or(EncoderError::NonFiniteDescriptor { image, size })?
            .ok_or(EncoderError::ZeroDescriptor { image })?;
        for (sum, value) in self.sum.iter_mut().zip(output) {
            *sum += (f64::from(value) * scale) as f32;
        }
        Ok(())
    }

    /// The unit-length descriptor.
    ///
    /// # Errors
    /// [`EncoderError::ZeroDescriptor`]: opposite descriptors at two sizes may cancel out.
    pub fn finish(mut self, image: usize) -> Result<Vec<f32>, EncoderError> {
        let scale = inverse_norm(self.sum.iter().copied())
            .flatten()
            .ok_or(EncoderError::ZeroDescriptor { image })?;
        self.sum
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * scale) as f32);
        Ok(self.sum)
    }
}

/// 1 / |v|; `None` where a component is not finite, `Some(None)` where the length is zero.
fn inverse_norm(vector: impl Iterator<Item = f32>) -> Option<Option<f64>> {
    let squared: f64 = vector.map(|value| f64::from(value) * f64::from(value)).sum();
    squared
        .is_finite()
        .then(|| (squared > 0.0).then(|| squared.sqrt().recip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::waves_v1;

    fn preparation() -> Preparation {
        let manifest = Manifest::from_json(include_str!("../../../models/default/manifest.json")).unwrap();
        Preparation::new(manifest)
    }

    #[test]
    fn a_tensor_written_elsewhere_is_the_one_that_embedding_makes() {
        let preparation = preparation();
        let (width, height, pixels) = waves_v1();
        let image = Image::new(width, height, pixels).unwrap();
        let size = preparation.manifest().input_sizes()[0];
        let mut bytes = vec![0_f32; preparation.bytes(preparation.shape(&image, size)) / 4];
        preparation
            .write(&image, size, bytemuck::cast_slice_mut(&mut bytes))
            .unwrap();
        let target = preparation.target(&image, size);
        let Tensor::Float(made) = preparation
            .tensor(std::slice::from_ref(&image), target, || Ok(()))
            .unwrap()
        else {
            panic!("the default model takes floats");
        };
        assert_eq!(made.as_slice().unwrap(), bytes);
    }

    #[test]
    fn too_few_bytes_and_misplaced_ones_are_an_error() {
        let preparation = preparation();
        let (width, height, pixels) = waves_v1();
        let image = Image::new(width, height, pixels).unwrap();
        let size = preparation.manifest().input_sizes()[0];
        let needed = preparation.bytes(preparation.shape(&image, size));
        let mut bytes = vec![0_u8; needed + 8];
        let place = bytes.as_ptr().align_offset(4) + 1;
        for range in [0..needed - 4, place..place + needed] {
            assert!(preparation.write(&image, size, &mut bytes[range]).is_err());
        }
    }
}

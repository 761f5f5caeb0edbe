//! The encoder: weights and manifest in, unit-length descriptors out.

use std::fmt::Write as _;

use imaging::Image;
use sha2::{Digest, Sha256};

use crate::error::EncoderError;
use crate::manifest::Manifest;
use crate::onnx;
use crate::preparation::{Mean, Preparation};
use crate::preprocess::Input;
use crate::provider::Provider;
use crate::session::{self, Network, RuntimeOptions};

/// Pixels that one run on the CPU may see: eight images at 224. It bounds the memory of a run and, because a run cannot
/// be interrupted, the time until a cancellation is noticed.
const CPU_BATCH_PIXELS: u32 = 8 * 224 * 224;
/// The same on a device, which needs larger batches to be busy and is many times faster.
const DEVICE_BATCH_PIXELS: u32 = 64 * 224 * 224;

/// A model that is loaded, checked and ready to embed.
///
/// It may be moved between threads, but embeds one batch at a time.
pub struct Encoder {
    preparation: Preparation,
    network: Network,
    threads: usize,
    fallback: Option<String>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("model", &self.manifest().name())
            .field("version", &self.manifest().version())
            .field("provider", &self.provider())
            .field("fallback", &self.fallback)
            .finish()
    }
}

impl Encoder {
    /// Loads the library (once per process), the model, and embeds the manifest's parity patterns to see that both
    /// compute here what they computed where the manifest was written. `weights` may be dropped afterwards.
    ///
    /// With [`Provider::Auto`] CUDA is tried where the library has it; when it does not start, or does not reproduce
    /// the parity descriptors, the CPU takes over and [`Encoder::fallback`] tells why.
    ///
    /// # Errors
    /// [`EncoderError`] for a library that is missing, unusable, too old or another than the loaded one; for weights
    /// of another hash, malformed, referring to files, refused by the runtime or not fitting the manifest; for a
    /// provider asked for by name that does not run; for a parity descriptor that is not reproduced.
    pub fn load(weights: &[u8], manifest: Manifest, options: &RuntimeOptions) -> Result<Self, EncoderError> {
        check_hash(weights, &manifest)?;
        Self::load_verified(weights, manifest, options)
    }

    /// As [`Encoder::load`], for weights whose SHA-256 has been compared with the manifest's before, such as those that
    /// are compiled into a program, by its build. Everything else is still checked.
    ///
    /// # Errors
    /// As [`Encoder::load`], but weights of another hash are not noticed by it.
    pub fn load_verified(weights: &[u8], manifest: Manifest, options: &RuntimeOptions) -> Result<Self, EncoderError> {
        if !(1..=256).contains(&options.threads) {
            return Err(EncoderError::Threads {
                threads: options.threads,
            });
        }
        onnx::check_self_contained(weights).map_err(|reason| EncoderError::InvalidModel { reason })?;
        let on = |provider| Self::on_provider(weights, &manifest, options, provider);
        match options.provider {
            Provider::Auto if session::library_has_cuda(options)? => on(Provider::Cuda).or_else(|error| {
                let mut encoder = on(Provider::Cpu)?;
                encoder.fallback = Some(error.to_string());
                Ok(encoder)
            }),
            Provider::Auto => on(Provider::Cpu),
            named => on(named),
        }
    }

    fn on_provider(
        weights: &[u8],
        manifest: &Manifest,
        options: &RuntimeOptions,
        provider: Provider,
    ) -> Result<Self, EncoderError> {
        let network = Network::load(weights, manifest, options, provider)?;
        let mut encoder = Self {
            preparation: Preparation::new(manifest.clone()),
            network,
            threads: options.threads,
            fallback: None,
        };
        encoder.check_parity()?;
        Ok(encoder)
    }

    /// One unit-length descriptor of `manifest().dimensions()` components for each image, in order.
    ///
    /// Each image is embedded at every size of the manifest, at a square of it or with its short side at it; the
    /// L2-normalised descriptors are averaged and the mean is L2-normalised ("Bag of Tricks and A Strong Baseline for
    /// Image Copy Detection", section on testing). On the CPU a run takes one image for each thread, at most eight at
    /// 224 pixels or as many pixels at another size; on a device eight times that. `should_stop` is polled on the
    /// calling thread before each image is resized and before each run; no run is interrupted.
    ///
    /// # Errors
    /// [`EncoderError::Cancelled`] when `should_stop` returned true; [`EncoderError::Inference`] and
    /// [`EncoderError::OutputShape`] when the runtime fails; [`EncoderError::NonFiniteDescriptor`] and
    /// [`EncoderError::ZeroDescriptor`] with the image's position. No partial result is returned.
    pub fn embed(&mut self, images: &[Image], should_stop: &dyn Fn() -> bool) -> Result<Vec<Vec<f32>>, EncoderError> {
        let Self {
            preparation, network, ..
        } = self;
        let manifest = preparation.manifest();
        let mut means: Vec<Mean> = images.iter().map(|_| Mean::new(manifest.dimensions())).collect();
        for &size in manifest.input_sizes() {
            let targets: Vec<_> = images.iter().map(|image| preparation.target(image, size)).collect();
            let mut start = 0;
            while start < images.len() {
                let target = targets[start];
                let batch = batch_size(network.provider(), self.threads, target);
                // Only images of one size fit into one tensor.
                let alike = targets[start..]
                    .iter()
                    .take(batch)
                    .take_while(|&&other| other == target);
                let chunk = &images[start..start + alike.count()];
                let tensor = preparation.tensor(chunk, target, || stop_if(should_stop))?;
                stop_if(should_stop)?;
                let outputs = network.run(&tensor.view())?;
                for (i, output) in outputs.outer_iter().enumerate() {
                    means[start + i].add(output.iter().copied(), size, start + i)?;
                }
                start += chunk.len();
            }
        }
        means
            .into_iter()
            .enumerate()
            .map(|(image, mean)| mean.finish(image))
            .collect()
    }

    /// Runs the network on a tensor that somebody else has prepared ([`Preparation::write`]): `shape[0]` images. The
    /// raw outputs, one after the other; [`Mean`] makes descriptors of them.
    ///
    /// # Errors
    /// [`EncoderError::InputShape`] where the bytes are no tensor of that shape; else as for [`Encoder::embed`].
    pub fn run(&mut self, shape: [usize; 4], bytes: &[u8]) -> Result<Vec<f32>, EncoderError> {
        let element = self.manifest().element();
        let input = Input::new(element, shape, bytes).ok_or(EncoderError::InputShape {
            bytes: bytes.len(),
            shape,
        })?;
        Ok(self.network.run(&input)?.into_iter().collect())
    }

    /// The manifest that the model was loaded with.
    pub fn manifest(&self) -> &Manifest {
        self.preparation.manifest()
    }

    /// Where the network really runs: `cpu`, `cuda` or `tensorrt`.
    pub fn provider(&self) -> &'static str {
        self.network.provider().name()
    }

    /// Why the CPU runs the network although [`Provider::Auto`] found a library with CUDA; `None` where nothing had
    /// to be given up.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    fn check_parity(&mut self) -> Result<(), EncoderError> {
        for i in 0..self.manifest().parity().len() {
            let pattern = self.manifest().parity()[i].pattern();
            let (width, height, pixels) = pattern.draw();
            let image = Image::new(width, height, pixels)?;
            let found = self.embed(std::slice::from_ref(&image), &|| false)?.concat();
            let recorded = &self.manifest().parity()[i];
            let difference = found
                .iter()
                .zip(recorded.descriptor())
                .map(|(found, recorded)| (found - recorded).abs())
                .fold(0.0, f32::max);
            if difference > recorded.tolerance() {
                let tolerance = recorded.tolerance();
                return Err(EncoderError::ParityFailed {
                    pattern: pattern.name(),
                    difference,
                    tolerance,
                });
            }
        }
        Ok(())
    }
}

fn stop_if(should_stop: &dyn Fn() -> bool) -> Result<(), EncoderError> {
    if should_stop() {
        Err(EncoderError::Cancelled)
    } else {
        Ok(())
    }
}

/// One thread computes eight images no faster together than one by one, but needs eight times the memory for it, so a
/// batch on the CPU is only as large as there are threads.
fn batch_size(provider: Provider, threads: usize, (width, height): (u32, u32)) -> usize {
    let (pixels, most) = match provider {
        Provider::Cuda | Provider::TensorRt => (DEVICE_BATCH_PIXELS, 64),
        Provider::Auto | Provider::Cpu => (CPU_BATCH_PIXELS, threads.min(8)),
    };
    ((pixels / (width * height)) as usize).clamp(1, most.max(1))
}

fn check_hash(weights: &[u8], manifest: &Manifest) -> Result<(), EncoderError> {
    let mut actual = String::with_capacity(64);
    for byte in Sha256::digest(weights) {
        // Writing to a string cannot fail.
        let _ = write!(actual, "{byte:02x}");
    }
    let expected = manifest.weights_sha256();
    if actual == expected {
        return Ok(());
    }
    Err(EncoderError::WeightsMismatch {
        expected: expected.to_owned(),
        actual,
    })
}
